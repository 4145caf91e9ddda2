// What launchers take and return, for the code that calls them: no CUDA header is needed to include this.
#pragma once

#include <cstdint>

namespace premotor::cuda {

using Stream = void*;  // a cudaStream_t; the host's machine ignores it

// What became of a launch. Nothing was started unless it is `launched`; what fails later on the device is seen where
// the stream is waited for.
enum class Outcome : std::uint8_t {
  launched,
  bad_shape,   // a size that this kernel does not take
  misaligned,  // a pointer or a stride that is not on the boundary named in the kernel's table
  refused      // by the driver; on the host: the machine found a fault
};

struct LaunchShape {
  std::uint32_t grid[3] = {1, 1, 1};
  std::uint32_t threads = 1;  // of a block, along x
  std::uint32_t shared_bytes = 0;
  Stream stream = nullptr;
};

[[nodiscard]] inline bool is_aligned(const void* pointer, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % static_cast<std::uintptr_t>(bytes) == 0;
}

[[nodiscard]] constexpr std::int64_t blocks_of(std::int64_t count, std::int64_t size) {
  return (count + size - 1) / size;
}

}  // namespace premotor::cuda
