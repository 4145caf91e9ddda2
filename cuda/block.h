// What kernels with one block per row share: sums over a block, and rows read eight values at a time.
#pragma once

#include "cuda/device.h"

namespace premotor::cuda {

// Threads of a block that works on one row.
constexpr int kRowThreads = 256;
constexpr int kRowWarps = kRowThreads / kLanes;
// Values that a thread takes at a time: sixteen bytes of bfloat16.
constexpr int kTaken = 8;

// A value of every thread put together over the block, in a fixed order; every thread gets the same bits. `parts` has a
// place for each warp and is free again after the next barrier.
template <typename Combine>
__device__ __forceinline__ float over_block(float of_warp, const Shared<float>& parts, Combine combine) {
  if (threadIdx.x % kLanes == 0) parts.store(static_cast<int>(threadIdx.x / kLanes), of_warp);
  __syncthreads();
  float all = parts.load(0);
  PREMOTOR_UNROLL
  for (int i = 1; i < kRowWarps; ++i) all = combine(all, parts.load(i));
  return all;
}
__device__ __forceinline__ float block_sum(float value, const Shared<float>& parts) {
  return over_block(warp_sum(value), parts, [](float a, float b) { return a + b; });
}
__device__ __forceinline__ float block_most(float value, const Shared<float>& parts) {
  return over_block(warp_most(value), parts, [](float a, float b) { return fmaxf(a, b); });
}

// Eight bfloat16 values at `from`, which is on a boundary of sixteen bytes, of which `count` are there; zero for the
// rest.
__device__ __forceinline__ void take_bf16(const std::uint16_t* from, int count, float (&v)[kTaken]) {
  if (count >= kTaken) {
    const Chunk chunk = load16(from);
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken / 2; ++i) {
      v[2 * i] = low_bf16(chunk.word[i]);
      v[2 * i + 1] = high_bf16(chunk.word[i]);
    }
    return;
  }
  PREMOTOR_UNROLL
  for (int i = 0; i < kTaken; ++i) v[i] = i < count ? widen_bf16(from[i]) : 0.0f;
}
__device__ __forceinline__ void put_bf16(std::uint16_t* to, int count, const float (&v)[kTaken]) {
  if (count >= kTaken) {
    Chunk chunk;
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken / 2; ++i) chunk.word[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
    store16(to, chunk);
    return;
  }
  PREMOTOR_UNROLL
  for (int i = 0; i < kTaken; ++i)
    if (i < count) to[i] = to_bf16(v[i]);
}
__device__ __forceinline__ void take_f32(const float* from, int count, float (&v)[kTaken]) {
  if (count >= kTaken) {
    const Chunk low = load16(from), high = load16(from + 4);
    PREMOTOR_UNROLL
    for (int i = 0; i < 4; ++i) {
      v[i] = float_of(low.word[i]);
      v[i + 4] = float_of(high.word[i]);
    }
    return;
  }
  PREMOTOR_UNROLL
  for (int i = 0; i < kTaken; ++i) v[i] = i < count ? from[i] : 0.0f;
}

// Calls `body` with the first of every eight columns that are this thread's.
template <typename Body>
__device__ __forceinline__ void each_column(int dim, Body body) {
  for (int c = static_cast<int>(threadIdx.x) * kTaken; c < dim; c += kRowThreads * kTaken) body(c);
}

// How a row becomes int8: q = round(y / s), s = max|y| / 127, as ops/cpu/packed.h has it.
class RowQuantiser {
 public:
  // What this thread has of the row.
  __device__ __forceinline__ void see(const float (&v)[kTaken]) {
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) {
      most_ = fmaxf(most_, fabsf(v[i]));
      if (!(fabsf(v[i]) <= 3.4e38f)) not_finite_ = 1;
    }
  }
  // Of all threads of the block, with two scratches of kRowWarps. The scale goes to `scale`.
  __device__ __forceinline__ void agree(const Shared<float>& most, const Shared<float>& not_finite, float* scale) {
    most_ = block_most(most_, most);
    not_finite_ = block_most(not_finite_, not_finite);
    settle(threadIdx.x == 0, scale);
  }
  // Of the sixteen lanes that share a head's vector of 128 values.
  __device__ __forceinline__ void agree_in_sixteen(float* scale) {
    const unsigned lanes = 0xffffu << (threadIdx.x & 16);
    PREMOTOR_UNROLL
    for (int by = 8; by >= 1; by /= 2) {
      most_ = fmaxf(most_, __shfl_xor_sync(lanes, most_, by));
      not_finite_ = fmaxf(not_finite_, __shfl_xor_sync(lanes, not_finite_, by));
    }
    settle(threadIdx.x % 16 == 0, scale);
  }
  // After that: eight values to `to`. Of a row that is not finite they do not matter, for its scale is none.
  __device__ __forceinline__ void put(const float (&v)[kTaken], std::int8_t* to) const {
    store4(to, four(v));
    store4(to + 4, four(v + 4));
  }

 private:
  __device__ __forceinline__ void settle(bool is_first, float* scale) {
    if (is_first) *scale = not_finite_ > 0 ? float_of(0x7fc00000u) : most_ / 127.0f;
    most_ = not_finite_ > 0 ? 0.0f : 127.0f / most_;
  }
  __device__ __forceinline__ std::uint32_t four(const float* v) const {
    std::uint32_t word = 0;
    PREMOTOR_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float q = fminf(fmaxf(rintf(v[i] * most_), -127.0f), 127.0f);
      word |= (static_cast<std::uint32_t>(static_cast<std::int32_t>(q)) & 0xffu) << (8 * i);
    }
    return word;
  }

  // Not below the smallest normal float, as the CPU has it. Once the block agrees: what values are multiplied with.
  float most_ = 1.17549435e-38f * 127.0f;
  float not_finite_ = 0;
};

}  // namespace premotor::cuda
