// The KV cache's transactions against a deliberately simple model: slots as plain records, a mark is a copy of all of
// them. Many short random cases of marks, writes of every kind, evictions, drops, rollbacks, releases and clears; after
// every operation slots, ids, flags, counts, attended rows and contents must be the model's. A shadow of the pool shows
// that the cache itself never moves a key or a value.
#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/kv_cache.h"
#include "golden.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

constexpr int kCases = 120'000;
constexpr int kSeeds = 4;
constexpr int kStepsMax = 32;

struct Slot {
  std::int32_t id = -1;  // -1: free
  bool predicted = false;
  float tag = 0;  // of the write that filled it: every token has its own
};
using State = std::vector<Slot>;

// The oracle.
class Model {
 public:
  Model(std::int64_t capacity, std::int64_t rows) : states_{State(static_cast<std::size_t>(capacity))}, rows_(rows) {}

  // The slots of a write, or none when no rows are left for it; what was evicted for it stays so.
  std::vector<std::int32_t> begin_write(std::int64_t count, WriteKind kind, float* tag) {
    State& state = states_.back();
    std::int64_t free = std::count_if(state.begin(), state.end(), [](const Slot& slot) { return slot.id < 0; });
    for (; free < count; ++free) evict_one();
    std::set<float> in_use;
    for (const State& each : states_)
      for (const Slot& slot : each)
        if (slot.id >= 0) in_use.insert(slot.tag);
    if (std::ssize(in_use) + count > rows_) return {};
    std::int32_t id = 0;
    for (const Slot& slot : state) id = std::max(id, slot.id + 1);
    std::vector<std::int32_t> taken;
    for (std::size_t at = 0; at < state.size() && std::ssize(taken) < count; ++at) {
      if (state[at].id >= 0) continue;
      state[at] = {id, kind == WriteKind::predicted, *tag};
      *tag += 1;
      taken.push_back(static_cast<std::int32_t>(at));
    }
    return taken;
  }
  void undo(const std::vector<std::int32_t>& slots) {
    for (const std::int32_t slot : slots) states_.back()[static_cast<std::size_t>(slot)].id = -1;
  }
  void clear_predicted() {
    for (Slot& slot : states_.back())
      if (slot.predicted) slot.id = -1;
  }
  void clear() { states_.assign(1, State(states_[0].size())); }
  void mark() { states_.push_back(states_.back()); }
  void rollback() { states_.pop_back(); }
  void release() {
    states_[states_.size() - 2] = states_.back();
    states_.pop_back();
  }
  [[nodiscard]] int marks() const { return static_cast<int>(states_.size()) - 1; }
  [[nodiscard]] const State& top() const { return states_.back(); }

 private:
  void evict_one() {
    Slot* oldest = nullptr;
    for (Slot& slot : states_.back())
      if (slot.id >= 0 && (oldest == nullptr || slot.id < oldest->id)) oldest = &slot;
    oldest->id = -1;
  }

  std::vector<State> states_;
  std::int64_t rows_;
};

struct Counted {
  std::int64_t operations = 0, evictions = 0, refused = 0, rollbacks = 0, deepest = 0;
};

// One random case. False: cache and model differ; `where` says after what.
class Case {
 public:
  Case(std::mt19937& random, Counted* counted)
      : random_(random), counted_(*counted), shape_(draw_shape()), model_(shape_.capacity, 0) {
    golden::need(KvCache::open(shape_, &cache_));
    model_ = Model(shape_.capacity, shape_.capacity + shape_.headroom);
    const ops::KvLayout layout = cache_->layout();
    shadow_[true].assign(static_cast<std::size_t>(layout.key_bytes() / 4), 0.0f);
    shadow_[false].assign(static_cast<std::size_t>(layout.value_bytes() / 4), 0.0f);
  }

  bool run() {
    const int steps = 1 + static_cast<int>(below(kStepsMax));
    for (int step = 0; step < steps; ++step) {
      ++counted_.operations;
      if (!one() || !agrees()) return false;
    }
    // What speculation left behind must be gone when it is taken back, mark by mark.
    while (model_.marks() > 0) {
      cache_->rollback();
      model_.rollback();
      where = "final rollback";
      if (!agrees()) return false;
    }
    return untouched();
  }

  std::string where;

 private:
  std::uint32_t below(std::uint32_t n) { return random_() % n; }

  KvCacheShape draw_shape() {
    KvCacheShape shape;
    shape.layers = shape.heads = shape.head_dim = 1;
    shape.capacity = 1 + below(14);
    shape.headroom = below(4) == 0 ? below(6) : 100;  // sometimes speculation runs out of rows
    return shape;
  }

  bool one() {
    const std::uint32_t kind = below(20);
    if (kind == 0) {
      where = "clear";
      cache_->clear();
      model_.clear();
    } else if (kind < 3) {
      where = "clear_predicted";
      cache_->clear_predicted();
      model_.clear_predicted();
    } else if (kind < 7) {
      if (model_.marks() == KvCache::kMarksMax) return true;
      where = "mark";
      cache_->mark();
      model_.mark();
      counted_.deepest = std::max<std::int64_t>(counted_.deepest, model_.marks());
    } else if (kind < 9) {
      if (model_.marks() == 0) return true;
      where = "rollback";
      ++counted_.rollbacks;
      cache_->rollback();
      model_.rollback();
    } else if (kind < 11) {
      if (model_.marks() == 0) return true;
      where = "release";
      cache_->release();
      model_.release();
    } else {
      return write();
    }
    return cache_->marks() == model_.marks();
  }

  bool write() {
    const std::int64_t count = 1 + below(static_cast<std::uint32_t>(shape_.capacity));
    const auto kind = static_cast<WriteKind>(below(3));
    where = "write of " + std::to_string(count) + ", kind " + std::to_string(static_cast<int>(kind));
    const KvCounts before = cache_->counts();
    counted_.evictions += before.capacity - before.valid < count ? 1 : 0;
    const std::vector<std::int32_t> slots = model_.begin_write(count, kind, &tag_);
    const bool is_open = cache_->begin_write(count, kind).ok();
    if (is_open != !slots.empty()) return false;
    if (!is_open) return ++counted_.refused > 0;
    if (cache_->write_slots() != slots) return false;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const std::int32_t row = cache_->write_rows()[i];
      const float tag = model_.top()[static_cast<std::size_t>(slots[i])].tag;
      pool(true)[at(true, row)] = shadow_[true][at(true, row)] = tag;
      pool(false)[at(false, row)] = shadow_[false][at(false, row)] = -tag;
    }
    if (!attends_all()) return false;
    // A write may fail half way: then its mark is rolled back while it is open.
    if (model_.marks() > 0 && below(12) == 0) {
      where += ", abandoned";
      cache_->rollback();
      model_.rollback();
      return true;
    }
    cache_->end_write();
    if (kind == WriteKind::temporary) model_.undo(slots);
    return true;
  }

  // Attention reads every valid token, the new ones included, and nothing else.
  bool attends_all() {
    std::set<float> expected, found;
    for (const Slot& slot : model_.top())
      if (slot.id >= 0) expected.insert(slot.tag);
    for (std::int32_t row = 0; row < cache_->rows(); ++row)
      if ((cache_->attended()[static_cast<std::size_t>(row / 32)] >> row % 32 & 1) != 0)
        found.insert(pool(true)[at(true, row)]);
    return expected == found;
  }

  bool agrees() {
    const KvCache::SlotState& state = cache_->slots();
    KvCounts expected{shape_.capacity, 0, 0, 0};
    for (std::size_t slot_at = 0; slot_at < model_.top().size(); ++slot_at) {
      const Slot& slot = model_.top()[slot_at];
      if (slot.id != state.id[slot_at]) return false;
      if (slot.id < 0) continue;
      ++expected.valid;
      ++(slot.predicted ? expected.predicted : expected.committed);
      if (slot.predicted != (state.predicted[slot_at] != 0)) return false;
      const std::int32_t row = state.row[slot_at];
      if (pool(true)[at(true, row)] != slot.tag || pool(false)[at(false, row)] != -slot.tag) return false;
    }
    const KvCounts counts = cache_->counts();
    return counts.capacity == expected.capacity && counts.valid == expected.valid &&
           counts.committed == expected.committed && counts.predicted == expected.predicted;
  }

  // The pool holds what this test wrote and nothing else: the cache wrote no byte of it.
  bool untouched() {
    where = "end: the pool";
    const std::size_t bytes = shadow_[true].size() * sizeof(float);
    return std::memcmp(pool(true), shadow_[true].data(), bytes) == 0 &&
           std::memcmp(pool(false), shadow_[false].data(), bytes) == 0;
  }

  [[nodiscard]] std::size_t at(bool key, std::int32_t row) const {
    const ops::KvLayout layout = cache_->layout();
    return static_cast<std::size_t>(key ? layout.key_at(0, row, 0) : layout.value_at(0, row, 0));
  }
  float* pool(bool key) { return static_cast<float*>(key ? cache_->keys(0, 0) : cache_->values(0, 0)); }

  std::mt19937& random_;
  Counted& counted_;
  KvCacheShape shape_;
  std::unique_ptr<KvCache> cache_;
  Model model_;
  std::vector<float> shadow_[2];  // what the test wrote, by row: values, keys
  float tag_ = 1;
};

void test_transactions() {
  Counted counted;
  for (int at = 0; at < kSeeds; ++at) {
    const std::uint32_t seed = 20261129u + static_cast<std::uint32_t>(at);
    std::mt19937 random(seed);
    int done = 0;
    for (std::string failed; done < kCases / kSeeds && failed.empty(); ++done) {
      Case one(random, &counted);
      if (!one.run()) failed = one.where;
      if (!failed.empty()) tap::note("case " + std::to_string(done) + " differs after: " + failed);
      if (!failed.empty()) break;
    }
    tap::equal(done, kCases / kSeeds, "seed " + std::to_string(seed) + ": " + std::to_string(done) + " cases agree");
  }
  tap::note(std::to_string(counted.operations) + " operations, " + std::to_string(counted.evictions) +
            " evicting writes, " + std::to_string(counted.rollbacks) + " rollbacks, " +
            std::to_string(counted.refused) + " writes without rows");
  tap::ok(counted.evictions > 100'000 && counted.rollbacks > 50'000 && counted.refused > 1'000 &&
              counted.deepest == KvCache::kMarksMax,
          "the cases evict, roll back, run out of rows and reach the deepest mark");
}

// Equal states have equal checksums, however they came about; every part of the state counts.
void test_checksum() {
  KvCacheShape shape;
  shape.layers = shape.heads = shape.head_dim = 1;
  shape.capacity = shape.headroom = 8;
  std::unique_ptr<KvCache> cache;
  golden::need(KvCache::open(shape, &cache));
  const auto write = [&](std::int64_t count, WriteKind kind) {
    golden::need(cache->begin_write(count, kind));
    cache->end_write();
  };
  const std::uint64_t empty = cache->checksum(0);
  write(3, WriteKind::committed);
  const std::uint64_t three = cache->checksum(2);
  tap::ok(three != empty && three != cache->checksum(1), "entries and the frame index count");
  write(2, WriteKind::predicted);
  tap::equal(cache->checksum(2), three, "predicted entries do not");
  cache->mark();
  cache->clear_predicted();
  write(7, WriteKind::committed);
  tap::ok(cache->checksum(2) != three, "an eviction does");
  cache->rollback();
  tap::equal(cache->checksum(2), three, "a state that came back has its checksum back");
  cache->clear();
  tap::equal(cache->checksum(0), empty, "and so has an empty one");
  write(2, WriteKind::committed);
  write(1, WriteKind::committed);
  tap::ok(cache->checksum(2) != three, "ids count: two writes are not one");
}

}  // namespace

int main() {
  test_transactions();
  test_checksum();
  return tap::finish();
}
