// What every kernel is written in. Under nvcc these are the device's own words (hardware.h), with any other compiler
// the host's machine stands in for them (host/vocabulary.h), so that the same kernel is tested without a GPU. Kernels
// include this and touch neither of the two.
//
// Shared memory is reached through Shared<T> only, whose accesses the host checks.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "cuda/launch.h"

namespace premotor::cuda {

// Sixteen bytes: what is copied at a time.
struct alignas(16) Chunk {
  std::uint32_t word[4];
};

}  // namespace premotor::cuda

#if defined(__CUDACC__)
#include "cuda/hardware.h"
#else
#include "cuda/host/vocabulary.h"
#endif

namespace premotor::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kLanes = 32;

__device__ __forceinline__ float low_bf16(std::uint32_t pair) { return float_of(pair << 16); }
__device__ __forceinline__ float high_bf16(std::uint32_t pair) { return float_of(pair & 0xffff0000u); }
__device__ __forceinline__ float widen_bf16(std::uint16_t bits) {
  return float_of(static_cast<std::uint32_t>(bits) << 16);
}
__device__ __forceinline__ std::uint16_t to_bf16(float value) {
  return static_cast<std::uint16_t>(pack_bf16(value, 0.0f));
}
__device__ __forceinline__ float round_bf16(float value) { return low_bf16(pack_bf16(value, 0.0f)); }

// The sum, or the largest, over a warp; every lane gets the same bits.
__device__ __forceinline__ float warp_sum(float value) {
  PREMOTOR_UNROLL
  for (int by = 16; by >= 1; by /= 2) value += __shfl_xor_sync(kAllLanes, value, by);
  return value;
}
__device__ __forceinline__ float warp_most(float value) {
  PREMOTOR_UNROLL
  for (int by = 16; by >= 1; by /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, by));
  return value;
}

// gelu(x) = 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3); and silu.
__device__ __forceinline__ float gelu_tanh(float x) {
  const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
  return x / (1.0f + expf(-2.0f * u));
}
__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

}  // namespace premotor::cuda
