#include "stream/timeline.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>
#include <string>
#include <type_traits>

namespace premotor::stream {

namespace {

constexpr std::uint64_t kMagic = 0x656e696c656d6974;  // "timeline", little-endian
constexpr std::uint32_t kVersion = 1;

}  // namespace

// Written and read count chunks since the start and never wrap in practice; slot = count % kSlots. Each has its own
// cache line, because one side writes what the other only reads.
struct Timeline::Layout {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t layout_bytes;
  alignas(kAlignment) std::atomic<std::uint64_t> written;
  alignas(kAlignment) std::atomic<std::uint64_t> read;
  alignas(kAlignment) std::array<Chunk, kSlots> slots;
};

static_assert(std::is_trivially_copyable_v<Chunk> && std::is_standard_layout_v<Chunk>);
static_assert(sizeof(ChunkHeader) == 56 && offsetof(ChunkHeader, knot_count) == 48);
static_assert(offsetof(Chunk, knots) == 56 && sizeof(Chunk) == 56 + kKnotsMax * kJointsMax * 8);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a lock would be of one process only");
static_assert(sizeof(std::atomic<std::uint64_t>) == 8);

std::size_t Timeline::bytes() {
  static_assert(offsetof(Layout, written) == 64 && offsetof(Layout, read) == 128 && offsetof(Layout, slots) == 192);
  static_assert(std::is_standard_layout_v<Layout>);
  return sizeof(Layout);
}

Status Timeline::create(void* memory, std::size_t size_bytes, Timeline* out) {
  assert(reinterpret_cast<std::uintptr_t>(memory) % kAlignment == 0);
  if (size_bytes < bytes())
    return Status::error("STREAM_TIMELINE",
                         "a timeline needs " + std::to_string(bytes()) + " bytes, found " + std::to_string(size_bytes));
  Layout* layout = new (memory) Layout;
  layout->version = kVersion;
  layout->layout_bytes = static_cast<std::uint32_t>(sizeof(Layout));
  layout->written.store(0, std::memory_order_relaxed);
  layout->read.store(0, std::memory_order_relaxed);
  layout->magic = kMagic;
  std::atomic_thread_fence(std::memory_order_release);
  out->layout_ = layout;
  return Status::good();
}

Status Timeline::attach(void* memory, std::size_t size_bytes, Timeline* out) {
  assert(reinterpret_cast<std::uintptr_t>(memory) % kAlignment == 0);
  if (size_bytes < bytes()) return Status::error("STREAM_TIMELINE", "the memory is too small to hold a timeline");
  Layout* layout = std::launder(static_cast<Layout*>(memory));
  if (layout->magic != kMagic) return Status::error("STREAM_TIMELINE", "the memory holds no timeline");
  if (layout->version != kVersion || layout->layout_bytes != sizeof(Layout))
    return Status::error("STREAM_TIMELINE", "the timeline was made by another version: expected " +
                                                std::to_string(kVersion) + ", found " +
                                                std::to_string(layout->version));
  out->layout_ = layout;
  return Status::good();
}

bool Timeline::push(const Chunk& chunk) {
  const std::uint64_t written = layout_->written.load(std::memory_order_relaxed);
  if (written - layout_->read.load(std::memory_order_acquire) >= kSlots) return false;
  layout_->slots[written % kSlots] = chunk;
  layout_->written.store(written + 1, std::memory_order_release);
  return true;
}

bool Timeline::pop(Chunk* out) {
  const std::uint64_t read = layout_->read.load(std::memory_order_relaxed);
  const std::uint64_t waiting = layout_->written.load(std::memory_order_acquire) - read;
  if (waiting == 0 || waiting > kSlots) return false;
  *out = layout_->slots[read % kSlots];
  layout_->read.store(read + 1, std::memory_order_release);
  return true;
}

}  // namespace premotor::stream
