// Placing buffers in one piece of memory. See arena.h.
#include "engine/arena.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

namespace premotor::engine {

bool Arena::Buffer::meets(const Buffer& other) const {
  return std::any_of(lives.begin(), lives.end(), [&](const Span& a) {
    return std::any_of(other.lives.begin(), other.lives.end(),
                       [&](const Span& b) { return a.first <= b.last && b.first <= a.last; });
  });
}

Arena::Id Arena::declare(std::int64_t bytes, std::vector<Span> lives) {
  assert(bytes >= 0);
  constexpr auto alignment = static_cast<std::int64_t>(kAlignment);
  buffers_.push_back({(bytes + alignment - 1) / alignment * alignment, std::move(lives), 0});
  return buffers_.size() - 1;
}

void Arena::solve() {
  std::vector<Id> order(buffers_.size());
  std::iota(order.begin(), order.end(), Id{0});
  std::stable_sort(order.begin(), order.end(), [&](Id a, Id b) { return buffers_[a].bytes > buffers_[b].bytes; });
  bytes_ = 0;
  std::vector<Id> placed;  // by offset
  for (const Id id : order) {
    Buffer& buffer = buffers_[id];
    std::int64_t at = 0;
    for (const Id other : placed) {
      const Buffer& taken = buffers_[other];
      if (!taken.meets(buffer) || taken.offset + taken.bytes <= at) continue;
      if (taken.offset >= at + buffer.bytes) break;
      at = taken.offset + taken.bytes;
    }
    buffer.offset = at;
    bytes_ = std::max(bytes_, at + buffer.bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), id,
                                   [&](Id a, Id b) { return buffers_[a].offset < buffers_[b].offset; }),
                  id);
  }
}

void Arena::allocate() {
  memory_.reset();
  memory_.reset(
      static_cast<std::byte*>(::operator new[](static_cast<std::size_t>(bytes_), std::align_val_t{kAlignment})));
}

std::int64_t Arena::unshared() const {
  return std::accumulate(buffers_.begin(), buffers_.end(), std::int64_t{0},
                         [](std::int64_t sum, const Buffer& buffer) { return sum + buffer.bytes; });
}

}  // namespace premotor::engine
