// CUDA's words for the host: what kernels name, mapped onto the host's machine. Included by device.h alone, where the
// compiler is not nvcc; hardware.h is its counterpart and has the same names.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <type_traits>

#include "cuda/host/machine.h"
#include "cuda/host/shared.h"
#include "cuda/host/warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define PREMOTOR_UNROLL
#define threadIdx (::premotor::cuda::host::thread_index())
#define blockIdx (::premotor::cuda::host::block_index())
#define blockDim (::premotor::cuda::host::block_size())
#define gridDim (::premotor::cuda::host::grid_size())

inline void __syncthreads(premotor::cuda::host::Site at = premotor::cuda::host::Site::current()) {
  premotor::cuda::host::meet_block(at);
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       premotor::cuda::host::Site at = premotor::cuda::host::Site::current()) {
  premotor::cuda::host::meet_warp_in_memory(mask, at);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int from, premotor::cuda::host::Site at = premotor::cuda::host::Site::current()) {
  static_assert(sizeof(T) == 4);
  return std::bit_cast<T>(premotor::cuda::host::shuffle("__shfl_sync", mask, std::bit_cast<std::uint32_t>(value),
                                                        static_cast<std::uint32_t>(from) % 32, at));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int by,
                  premotor::cuda::host::Site at = premotor::cuda::host::Site::current()) {
  static_assert(sizeof(T) == 4);
  const std::uint32_t from = (threadIdx.x % 32) ^ static_cast<std::uint32_t>(by);
  return std::bit_cast<T>(
      premotor::cuda::host::shuffle("__shfl_xor_sync", mask, std::bit_cast<std::uint32_t>(value), from, at));
}
inline unsigned __ballot_sync(unsigned mask, int vote,
                              premotor::cuda::host::Site at = premotor::cuda::host::Site::current()) {
  return premotor::cuda::host::ballot(mask, vote != 0, at);
}
inline int __any_sync(unsigned mask, int vote, premotor::cuda::host::Site at = premotor::cuda::host::Site::current()) {
  return premotor::cuda::host::ballot(mask, vote != 0, at) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int vote, premotor::cuda::host::Site at = premotor::cuda::host::Site::current()) {
  return premotor::cuda::host::ballot(mask, vote != 0, at) == mask ? 1 : 0;
}
// Global memory: threads are switched where they meet only, so a plain operation is whole.
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = before + value;
  return before;
}
template <typename T>
T atomicMax(T* to, T value) {
  const T before = *to;
  if (value > before) *to = value;
  return before;
}
template <typename T>
T atomicCAS(T* to, T expected, T value) {
  const T before = *to;
  if (before == expected) *to = value;
  return before;
}

namespace premotor::cuda {

inline std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
inline float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }
// Sixteen bytes at a time, on their boundary.
inline Chunk load16(const void* from) {
  Chunk chunk;
  std::memcpy(&chunk, static_cast<const Chunk*>(from), sizeof chunk);
  return chunk;
}
inline void store16(void* to, const Chunk& chunk) { std::memcpy(static_cast<Chunk*>(to), &chunk, sizeof chunk); }
inline void store4(void* to, std::uint32_t word) { std::memcpy(static_cast<std::uint32_t*>(to), &word, sizeof word); }

// An array in the block's shared memory.
template <typename T>
class Shared {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 2 == 0);

 public:
  Shared(std::uint32_t begin, int count)
      : array_{begin, begin + static_cast<std::uint32_t>(count) * static_cast<std::uint32_t>(sizeof(T))} {}
  T load(int i, host::Site site = host::Site::current()) const {
    T value;
    host::read_shared(array_, at(i), sizeof(T), &value, site);
    return value;
  }
  void store(int i, const T& value, host::Site site = host::Site::current()) const {
    host::write_shared(array_, at(i), sizeof(T), &value, site);
  }
  void atomic_add(int i, T value, host::Site site = host::Site::current()) const {
    host::update_shared(
        array_, at(i), sizeof(T),
        [](void* to, void* by) {
          T sum;
          std::memcpy(&sum, to, sizeof sum);
          sum += *static_cast<T*>(by);
          std::memcpy(to, &sum, sizeof sum);
        },
        &value, site);
  }
  [[nodiscard]] const host::SharedArray& array() const { return array_; }
  // A wild index stays a wild index: the subtraction wraps and the bounds are checked.
  [[nodiscard]] std::uint32_t at(int i) const {
    return array_.begin + static_cast<std::uint32_t>(i) * static_cast<std::uint32_t>(sizeof(T));
  }

 private:
  host::SharedArray array_;
};

inline void copy_async(const Shared<Chunk>& to, int i, const void* from, int from_bytes,
                       host::Site site = host::Site::current()) {
  host::start_copy(to.array(), to.at(i), sizeof(Chunk), from, static_cast<std::uint32_t>(from_bytes), site);
}
inline void commit_copies() { host::close_copies(); }
template <int kKept>
void wait_copies(host::Site site = host::Site::current()) {
  host::wait_copies_but(kKept, site);
}
inline void load_matrices(std::uint32_t (&r)[4], const Shared<Chunk>& from, int i,
                          host::Site site = host::Site::current()) {
  host::load_matrices(r, from.array(), from.at(i), false, site);
}
inline void load_matrices_transposed(std::uint32_t (&r)[4], const Shared<Chunk>& from, int i,
                                     host::Site site = host::Site::current()) {
  host::load_matrices(r, from.array(), from.at(i), true, site);
}
inline void multiply_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                          host::Site site = host::Site::current()) {
  const std::uint32_t b[2] = {b0, b1};
  host::multiply_bf16(d, a, b, site);
}
inline void multiply_f16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                         host::Site site = host::Site::current()) {
  const std::uint32_t b[2] = {b0, b1};
  host::multiply_f16(d, a, b, site);
}
inline void multiply_s8(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                        host::Site site = host::Site::current()) {
  const std::uint32_t b[2] = {b0, b1};
  host::multiply_s8(d, a, b, site);
}
// Two floats as bfloat16, the first in the low half.
inline std::uint32_t pack_bf16(float low, float high) {
  return f32_to_bf16(low) | static_cast<std::uint32_t>(f32_to_bf16(high)) << 16;
}

template <typename... Parameters, typename... Arguments>
Outcome launch(void (*kernel)(Parameters...), const LaunchShape& shape, const Arguments&... arguments) {
  const bool is_done = host::run({shape.grid[0], shape.grid[1], shape.grid[2]}, {shape.threads, 1, 1},
                                 shape.shared_bytes, [&] { kernel(arguments...); });
  return is_done ? Outcome::launched : Outcome::refused;
}

}  // namespace premotor::cuda
