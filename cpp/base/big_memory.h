// Memory for weights and activations: on a cache line's boundary, and large pieces on large pages where the system has
// them, so that walking through gigabytes does not miss the address translation's cache (docs/SPEED.md).
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace premotor {

struct BigMemoryReturn {
  std::size_t alignment = 64;
  void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{alignment}); }
};
using BigMemory = std::unique_ptr<std::byte[], BigMemoryReturn>;

// `size_bytes` uninitialised bytes, 64-byte aligned or better; null when the system does not give them.
inline BigMemory allocate_big(std::int64_t size_bytes) {
  constexpr std::size_t line_bytes = 64, page_bytes = std::size_t{2} << 20;
  const auto size = static_cast<std::size_t>(size_bytes);
  const std::size_t alignment = size >= page_bytes ? page_bytes : line_bytes;
  auto* memory = static_cast<std::byte*>(::operator new[](size, std::align_val_t{alignment}, std::nothrow));
  // A wish: where it is not granted, small pages do.
  if (memory != nullptr && alignment == page_bytes)
    (void)::madvise(memory, size / page_bytes * page_bytes, MADV_HUGEPAGE);
  return {memory, BigMemoryReturn{alignment}};
}

}  // namespace premotor
