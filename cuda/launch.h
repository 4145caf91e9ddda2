// What launchers and kernels share beside their operands: no CUDA header is needed to include this.
#pragma once

#include <cstdint>

#include "ops/device.h"

namespace premotor::cuda {

using namespace premotor::device;

using Stream = void*;  // a cudaStream_t; the host's machine ignores it

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
