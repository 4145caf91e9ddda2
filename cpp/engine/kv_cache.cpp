#include "engine/kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <string>

#include "base/half.h"

namespace premotor::engine {

namespace {

// Scales of a plane of int8 entries, [head][row].
float* scales_at(void* plane, std::int64_t offset) {
  return reinterpret_cast<float*>(static_cast<std::byte*>(plane) + offset);
}

}  // namespace

KvCache::KvCache(const KvCacheShape& shape) : shape_(shape) {
  key_bytes_ = static_cast<std::size_t>(layout().key_bytes());
  value_bytes_ = static_cast<std::size_t>(layout().value_bytes());
  const auto slots = static_cast<std::size_t>(shape.capacity);
  states_.resize(kMarksMax + 1);
  for (SlotState& state : states_) {
    state.id.assign(slots, -1);
    state.predicted.assign(slots, 0);
    state.row.assign(slots, -1);
  }
  owned_.assign(states_.size(), false);
  owned_[0] = true;
  write_slots_.reserve(slots);
  write_rows_.reserve(slots);
  attended_.resize(static_cast<std::size_t>(rows() / ops::kKvPanel));
  moved_.reserve(slots);
  busy_.resize(static_cast<std::size_t>(rows()));
}

Status KvCache::open(const KvCacheShape& shape, std::unique_ptr<KvCache>* out) {
  assert(shape.capacity > 0 && shape.headroom >= 0 && shape.layers > 0 && shape.guidance_rows > 0);
  std::unique_ptr<KvCache> cache(new KvCache(shape));
  // Zero pages: memory is used as the cache fills, a large page at a time, and the layout's padding is zero.
  const std::size_t size = static_cast<std::size_t>(cache->size_bytes());
  void* pool = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pool == MAP_FAILED) {
    return Status::error(
        "OUT_OF_MEMORY",
        "The KV cache needs " + std::to_string(cache->size_bytes()) +
            " bytes, which this system does not give. Use a narrower kvCache, a smaller attn_window or no guidance.");
  }
  (void)::madvise(pool, size, MADV_HUGEPAGE);  // a wish
  cache->pool_ = {static_cast<std::byte*>(pool), Unmap{size}};
  *out = std::move(cache);
  return Status::good();
}

void KvCache::Unmap::operator()(std::byte* pool) const { ::munmap(pool, size); }

std::int64_t KvCache::size_bytes() const {
  return static_cast<std::int64_t>(key_bytes_ + value_bytes_) * shape_.layers * shape_.guidance_rows;
}

void* KvCache::keys(std::int64_t layer, std::int64_t guidance_row) {
  return pool_.get() +
         (key_bytes_ + value_bytes_) * static_cast<std::size_t>(layer * shape_.guidance_rows + guidance_row);
}

void* KvCache::values(std::int64_t layer, std::int64_t guidance_row) {
  return static_cast<std::byte*>(keys(layer, guidance_row)) + key_bytes_;
}

const KvCache::SlotState& KvCache::slots() const {
  int at = depth_;
  while (!owned_[static_cast<std::size_t>(at)]) --at;
  return states_[static_cast<std::size_t>(at)];
}

KvCache::SlotState& KvCache::writable() {
  const auto top = static_cast<std::size_t>(depth_);
  if (!owned_[top]) {
    const SlotState& below = slots();
    states_[top].id = below.id;  // equal sizes: copies into memory that is already there
    states_[top].predicted = below.predicted;
    states_[top].row = below.row;
    owned_[top] = true;
  }
  return states_[top];
}

void KvCache::clear() {
  depth_ = 0;
  std::fill(owned_.begin(), owned_.end(), false);
  owned_[0] = true;
  std::fill(states_[0].id.begin(), states_[0].id.end(), -1);
  std::fill(states_[0].predicted.begin(), states_[0].predicted.end(), std::uint8_t{0});
  writing_ = false;
  write_slots_.clear();
  write_rows_.clear();
  std::fill(attended_.begin(), attended_.end(), 0u);
  moved_.clear();
}

// Frees the `need` valid tokens with the lowest ids; among equal ids the lowest slots go first (the reference leaves
// that order open).
void KvCache::evict(SlotState& state, std::int64_t need) {
  while (need > 0) {
    std::int32_t oldest = INT32_MAX;
    for (const std::int32_t id : state.id)
      if (id >= 0) oldest = std::min(oldest, id);
    for (std::int32_t& id : state.id) {
      if (need == 0) break;
      if (id != oldest) continue;
      id = -1;
      --need;
    }
  }
}

// Finds a row for each of `slots` (ascending) that neither this state nor any marked one uses: its own, else a spare
// one, else whatever is free.
bool KvCache::take_rows(const std::vector<std::int32_t>& slots) {
  std::fill(busy_.begin(), busy_.end(), std::uint8_t{0});
  for (int level = 0; level <= depth_; ++level) {
    if (!owned_[static_cast<std::size_t>(level)]) continue;
    const SlotState& state = states_[static_cast<std::size_t>(level)];
    for (std::size_t slot = 0; slot < state.id.size(); ++slot)
      if (state.id[slot] >= 0) busy_[static_cast<std::size_t>(state.row[slot])] = 1;
  }
  write_rows_.clear();
  for (const std::int32_t slot : slots) {
    const bool is_free = busy_[static_cast<std::size_t>(slot)] == 0;
    if (is_free) busy_[static_cast<std::size_t>(slot)] = 1;
    write_rows_.push_back(is_free ? slot : -1);
  }
  const auto last = static_cast<std::size_t>(shape_.capacity + shape_.headroom);
  std::size_t tried = 0;  // spare rows first, then around
  for (std::int32_t& row : write_rows_) {
    if (row >= 0) continue;
    const auto candidate = [&] { return (static_cast<std::size_t>(shape_.capacity) + tried) % last; };
    while (tried < last && busy_[candidate()] != 0) ++tried;
    if (tried == last) return false;
    row = static_cast<std::int32_t>(candidate());
    busy_[candidate()] = 1;
  }
  return true;
}

Status KvCache::begin_write(std::int64_t count, WriteKind kind) {
  assert(!writing_ && count > 0);
  if (count > shape_.capacity) {
    return Status::error("CACHE_TOO_SMALL", "One write of " + std::to_string(count) +
                                                " tokens does not fit the KV cache of " +
                                                std::to_string(shape_.capacity) +
                                                " slots. Commit fewer frames at once or raise attn_window.");
  }
  SlotState& state = writable();
  const std::int64_t free = std::count(state.id.begin(), state.id.end(), -1);
  if (free < count) evict(state, count - free);
  write_slots_.clear();
  for (std::size_t slot = 0; slot < state.id.size() && std::ssize(write_slots_) < count; ++slot)
    if (state.id[slot] < 0) write_slots_.push_back(static_cast<std::int32_t>(slot));
  if (!take_rows(write_slots_)) {
    return Status::error("CACHE_TOO_SMALL",
                         "Speculation needs " + std::to_string(count) + " more rows than the KV cache keeps spare (" +
                             std::to_string(shape_.headroom) + "). Roll back before appending more.");
  }
  const std::int32_t id = *std::max_element(state.id.begin(), state.id.end()) + 1;  // -1 + 1 = 0 when all are free
  for (std::size_t i = 0; i < write_slots_.size(); ++i) {
    const auto slot = static_cast<std::size_t>(write_slots_[i]);
    state.id[slot] = id;
    state.predicted[slot] = kind == WriteKind::predicted ? 1 : 0;
    state.row[slot] = write_rows_[i];
  }
  std::fill(attended_.begin(), attended_.end(), 0u);
  moved_.clear();
  for (std::size_t slot = 0; slot < state.id.size(); ++slot) {
    if (state.id[slot] < 0) continue;
    attended_[slot / 32] |= std::uint32_t{1} << slot % 32;
    if (state.row[slot] != static_cast<std::int32_t>(slot))
      moved_.push_back({static_cast<std::int32_t>(slot), state.row[slot]});
  }
  write_kind_ = kind;
  writing_ = true;
  return Status::good();
}

void KvCache::end_write() {
  assert(writing_);
  writing_ = false;
  if (write_kind_ != WriteKind::temporary) return;
  SlotState& state = writable();
  for (const std::int32_t slot : write_slots_) state.id[static_cast<std::size_t>(slot)] = -1;
}

void KvCache::clear_predicted() {
  SlotState& state = writable();
  for (std::size_t slot = 0; slot < state.id.size(); ++slot)
    if (state.predicted[slot] != 0) state.id[slot] = -1;
}

void KvCache::mark() {
  assert(depth_ < kMarksMax && !writing_);
  owned_[static_cast<std::size_t>(++depth_)] = false;
}

void KvCache::rollback() {
  assert(depth_ > 0);
  writing_ = false;
  owned_[static_cast<std::size_t>(depth_--)] = false;
}

void KvCache::release() {
  assert(depth_ > 0 && !writing_);
  const auto top = static_cast<std::size_t>(depth_--);
  if (!owned_[top]) return;
  std::swap(states_[top], states_[top - 1]);
  owned_[top - 1] = true;
  owned_[top] = false;
}

std::uint64_t KvCache::checksum(std::uint64_t frame_index) const {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&hash](std::uint64_t value) {
    for (int byte = 0; byte < 8; ++byte) hash = (hash ^ (value >> (8 * byte) & 0xff)) * 0x100000001b3u;
  };
  add(frame_index);
  const SlotState& state = slots();
  for (std::size_t slot = 0; slot < state.id.size(); ++slot) {
    if (state.id[slot] < 0 || state.predicted[slot] != 0) continue;
    add(slot);
    add(static_cast<std::uint64_t>(state.id[slot]));
  }
  return hash;
}

void KvCache::fill_written(std::uint64_t seed) {
  assert(writing_);
  std::uint64_t random = seed * 2 + 1;
  constexpr float kScale = 0x1p-9f;  // of int8 entries
  const ops::KvLayout at = layout();
  const bool is_int8 = shape_.dtype == ops::Dtype::int8;
  const auto put = [&](void* plane, std::int64_t element) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const float value = static_cast<float>(static_cast<std::int64_t>(random >> 40) - (1 << 23)) * 0x1p-25f;
    if (is_int8)
      static_cast<std::int8_t*>(plane)[element] = static_cast<std::int8_t>(std::min(value / kScale, 127.0f));
    else if (shape_.dtype == ops::Dtype::bf16)
      static_cast<std::uint16_t*>(plane)[element] = f32_to_bf16(value);
    else
      static_cast<float*>(plane)[element] = value;
  };
  for (std::int64_t layer = 0; layer < shape_.layers; ++layer)
    for (std::int64_t guidance_row = 0; guidance_row < shape_.guidance_rows; ++guidance_row)
      for (std::int64_t head = 0; head < shape_.heads; ++head)
        for (const std::int32_t row : write_rows_) {
          void *k = keys(layer, guidance_row), *v = values(layer, guidance_row);
          for (std::int64_t d = 0; d < shape_.head_dim; ++d) {
            put(k, at.key_at(head, row, d));
            put(v, at.value_at(head, row, d));
          }
          if (!is_int8) continue;
          scales_at(k, at.key_scales())[head * at.rows + row] = kScale;
          scales_at(v, at.value_scales())[head * at.rows + row] = kScale;
        }
}

void KvCache::read_entry(bool is_key, std::int64_t layer, std::int64_t guidance_row, std::int64_t head,
                         std::int64_t row, std::vector<float>* out) {
  const ops::KvLayout at = layout();
  void* plane = is_key ? keys(layer, guidance_row) : values(layer, guidance_row);
  for (std::int64_t d = 0; d < shape_.head_dim; ++d) {
    const std::int64_t element = is_key ? at.key_at(head, row, d) : at.value_at(head, row, d);
    if (shape_.dtype == ops::Dtype::f32)
      out->push_back(static_cast<const float*>(plane)[element]);
    else if (shape_.dtype == ops::Dtype::bf16)
      out->push_back(bf16_to_f32(static_cast<const std::uint16_t*>(plane)[element]));
    else
      out->push_back(static_cast<float>(static_cast<const std::int8_t*>(plane)[element]) *
                     scales_at(plane, is_key ? at.key_scales() : at.value_scales())[head * at.rows + row]);
  }
}

KvCounts KvCache::counts() const {
  const SlotState& state = slots();
  KvCounts counts{shape_.capacity, 0, 0, 0};
  for (std::size_t slot = 0; slot < state.id.size(); ++slot) {
    if (state.id[slot] < 0) continue;
    ++counts.valid;
    ++(state.predicted[slot] != 0 ? counts.predicted : counts.committed);
  }
  return counts;
}

}  // namespace premotor::engine
