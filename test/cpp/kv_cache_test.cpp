// The KV cache against the reference's recorded bookkeeping (units/kv_bookkeeping.json), and against a simple model
// under random interleavings of writes, evictions, drops, marks, rollbacks and releases.
#include <algorithm>
#include <map>
#include <memory>
#include <random>

#include "engine/kv_cache.h"
#include "golden.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

std::unique_ptr<KvCache> make(std::int64_t capacity, std::int64_t headroom) {
  KvCacheShape shape;
  shape.layers = 1;
  shape.heads = 1;
  shape.head_dim = 1;
  shape.capacity = capacity;
  shape.headroom = headroom;
  std::unique_ptr<KvCache> cache;
  golden::need(KvCache::open(shape, &cache));
  return cache;
}

WriteKind kind_of(std::int64_t update) {
  return update == 0 ? WriteKind::temporary : update == 1 ? WriteKind::predicted : WriteKind::committed;
}

std::vector<std::int32_t> integers(const JsonValue& array) {
  std::vector<std::int32_t> values;
  for (const JsonValue& item : array.items())
    values.push_back(item.is_null() ? -1 : static_cast<std::int32_t>(item.integer()));
  return values;
}

// Slots of the rows that attention would read, ascending.
std::vector<std::int32_t> attended_slots(const KvCache& cache) {
  std::vector<std::int32_t> slots;
  const KvCache::SlotState& state = cache.slots();
  for (std::size_t slot = 0; slot < state.id.size(); ++slot)
    if (state.id[slot] >= 0 &&
        (cache.attended()[static_cast<std::size_t>(state.row[slot] / 32)] >> state.row[slot] % 32 & 1) != 0)
      slots.push_back(static_cast<std::int32_t>(slot));
  return slots;
}

bool state_equals(const KvCache& cache, const JsonValue& op) {
  const std::vector<std::int32_t> ids = integers(*op.find("id"));
  const std::string predicted = op.find("is_pred")->string();
  const KvCache::SlotState& state = cache.slots();
  for (std::size_t slot = 0; slot < ids.size(); ++slot) {
    if (state.id[slot] != ids[slot]) return false;
    if (ids[slot] >= 0 && state.predicted[slot] != (predicted[slot] == '1' ? 1 : 0)) return false;
  }
  return true;
}

void test_reference_sequences() {
  const JsonValue cases = golden::read_json(golden::folder() + "/units/kv_bookkeeping.json");
  for (const JsonValue& sequence : cases.items()) {
    const auto cache = make(sequence.find("capacity")->integer(), 0);
    bool slots = true, attended = true, state = true;
    for (const JsonValue& op : sequence.find("ops")->items()) {
      if (op.find("op")->string() == "forward") {
        golden::need(cache->begin_write(op.find("n")->integer(), kind_of(op.find("update_cache")->integer())));
        slots = slots && cache->write_slots() == integers(*op.find("slots"));
        attended = attended && attended_slots(*cache) == integers(*op.find("attended"));
        cache->end_write();
      } else {
        cache->clear_predicted();
      }
      state = state && state_equals(*cache, op);
    }
    const std::string name = "capacity " + std::to_string(cache->shape().capacity) + ": ";
    tap::ok(slots, name + "slots of every write");
    tap::ok(attended, name + "slots that every write attends");
    tap::ok(state, name + "state after every operation");
  }
}

// The model: tokens as plain records, marks as copies. Each token's value (a serial number written into the pool) must
// survive speculation.
struct Token {
  std::int32_t id;
  bool predicted;
  float value;
};

class Pair {
 public:
  Pair(std::int64_t capacity, std::int64_t headroom)
      : cache_(make(capacity, headroom)), capacity_(static_cast<std::size_t>(capacity)) {}

  bool write(std::size_t count, WriteKind kind) {
    if (!cache_->begin_write(static_cast<std::int64_t>(count), kind).ok()) return false;
    std::vector<Token>& tokens = model_.back();
    std::stable_sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) { return a.id < b.id; });
    if (tokens.size() + count > capacity_) evict(tokens.size() + count - capacity_);
    std::int32_t id = 0;
    for (const Token& token : tokens) id = std::max(id, token.id + 1);
    for (std::size_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(++serial_);
      static_cast<float*>(cache_->keys(0, 0))[cache_->write_rows()[i]] = value;
      if (kind != WriteKind::temporary) tokens.push_back({id, kind == WriteKind::predicted, value});
    }
    cache_->end_write();
    return true;
  }
  void clear_predicted() {
    cache_->clear_predicted();
    std::erase_if(model_.back(), [](const Token& token) { return token.predicted; });
  }
  void mark() {
    cache_->mark();
    model_.push_back(model_.back());
  }
  void rollback() {
    cache_->rollback();
    model_.pop_back();
  }
  void release() {
    cache_->release();
    model_[model_.size() - 2] = model_.back();
    model_.pop_back();
  }
  [[nodiscard]] std::size_t marks() const { return model_.size() - 1; }

  // Every valid token of the cache is one of the model's, with its id, flag and value, and the other way round.
  bool agrees() {
    std::map<float, Token> expected;
    for (const Token& token : model_.back()) expected[token.value] = token;
    const KvCache::SlotState& state = cache_->slots();
    std::size_t valid = 0;
    for (std::size_t slot = 0; slot < state.id.size(); ++slot) {
      if (state.id[slot] < 0) continue;
      ++valid;
      const float value = static_cast<const float*>(cache_->keys(0, 0))[state.row[slot]];
      const auto at = expected.find(value);
      if (at == expected.end() || at->second.id != state.id[slot] ||
          at->second.predicted != (state.predicted[slot] != 0))
        return false;
    }
    return valid == expected.size() && static_cast<std::size_t>(cache_->counts().valid) == valid;
  }

 private:
  // Whole groups leave first; a group that leaves in part loses the tokens in its lowest slots, which the cache is
  // asked for.
  void evict(std::size_t need) {
    std::vector<Token>& tokens = model_.back();
    while (need > 0) {
      const std::int32_t id = tokens.front().id;
      const auto group = static_cast<std::size_t>(
          std::count_if(tokens.begin(), tokens.end(), [&](const Token& t) { return t.id == id; }));
      if (group > need) {
        std::erase_if(tokens, [&](const Token& t) { return t.id == id && !still_there(t.value); });
        return;
      }
      std::erase_if(tokens, [&](const Token& t) { return t.id == id; });
      need -= group;
    }
  }
  bool still_there(float value) {
    const KvCache::SlotState& state = cache_->slots();
    for (std::size_t slot = 0; slot < state.id.size(); ++slot) {
      if (state.id[slot] < 0 ||
          std::count(cache_->write_rows().begin(), cache_->write_rows().end(), state.row[slot]) > 0)
        continue;
      if (static_cast<const float*>(cache_->keys(0, 0))[state.row[slot]] == value) return true;
    }
    return false;
  }

  std::unique_ptr<KvCache> cache_;
  std::size_t capacity_;
  std::vector<std::vector<Token>> model_{1};
  std::int32_t serial_ = 0;
};

void test_random_interleavings() {
  const std::uint32_t seed = 20261123;
  tap::note("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t n) { return random() % n; };
  int operations = 0, evicting = 0;
  bool agreed = true;
  for (int round = 0; round < 2000 && agreed; ++round) {
    const std::int64_t capacity = 4 + below(40);
    Pair pair(capacity, 400);
    for (int step = 0; step < 50 && agreed; ++step, ++operations) {
      switch (below(8)) {
        case 0:
          pair.clear_predicted();
          break;
        case 1:
          if (pair.marks() < static_cast<std::size_t>(KvCache::kMarksMax)) pair.mark();
          break;
        case 2:
          if (pair.marks() > 0) pair.rollback();
          break;
        case 3:
          if (pair.marks() > 0) pair.release();
          break;
        default: {
          const std::size_t count = 1 + below(static_cast<std::uint32_t>(capacity));
          evicting += count * 3 > static_cast<std::size_t>(capacity) ? 1 : 0;
          agreed = pair.write(count, static_cast<WriteKind>(below(3)));
        }
      }
      agreed = agreed && pair.agrees();
    }
  }
  tap::ok(agreed, "cache and model agree after every one of " + std::to_string(operations) + " operations");
  tap::ok(operations == 100000 && evicting > 10000, "the sequences were long and tight enough to evict");
}

// However predictions displaced and marked before: a commit, made as the session makes it, lies in the rows of its own
// numbers, so that a cache rebuilt from commits alone is attended in the same order.
void test_committed_rows() {
  std::mt19937 random(7);
  const auto below = [&](std::uint32_t n) { return 1 + random() % n; };
  bool own = true;
  for (int round = 0; round < 200; ++round) {
    const std::int64_t capacity = 20 + below(60);
    const auto cache = make(capacity, 48);
    for (int chunk = 0; chunk < 20; ++chunk) {
      for (unsigned repeat = random() % 3; repeat > 0; --repeat) {
        cache->mark();
        for (const WriteKind kind : {WriteKind::temporary, WriteKind::predicted, WriteKind::predicted}) {
          golden::need(cache->begin_write(below(16), kind));
          cache->end_write();
        }
        random() % 4 == 0 ? cache->rollback() : cache->release();
      }
      cache->clear_predicted();
      for (int part = 0; part < 2; ++part) {
        golden::need(cache->begin_write(below(16), WriteKind::committed));
        own = own && cache->write_rows() == cache->write_slots();
        cache->end_write();
      }
      const KvCache::SlotState& state = cache->slots();
      for (std::size_t slot = 0; slot < state.id.size(); ++slot)
        own = own && (state.id[slot] < 0 || state.row[slot] == static_cast<std::int32_t>(slot));
    }
  }
  tap::ok(own, "every committed token lies in the row of its slot");
}

void test_limits() {
  const auto cache = make(8, 0);
  Status status = cache->begin_write(9, WriteKind::committed);
  tap::equal(std::string(status.code), std::string("CACHE_TOO_SMALL"), "a write larger than the cache is refused");
  golden::need(cache->begin_write(8, WriteKind::committed));
  cache->end_write();
  cache->mark();
  status = cache->begin_write(1, WriteKind::predicted);
  tap::equal(std::string(status.code), std::string("CACHE_TOO_SMALL"),
             "speculation without spare rows is refused, not overwritten");
  cache->rollback();
  tap::equal(cache->counts().valid, std::int64_t{8}, "and the marked state is whole after the rollback");
}

}  // namespace

int main() {
  test_reference_sequences();
  test_random_interleavings();
  test_committed_rows();
  test_limits();
  return tap::finish();
}
