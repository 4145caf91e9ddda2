// The device's words under nvcc: shared memory, asynchronous copies, matrix loads, tensor-core products and launches, a
// line or an instruction each. Included by device.h alone; host/vocabulary.h is its counterpart for the host.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#define PREMOTOR_UNROLL _Pragma("unroll")

namespace premotor::cuda {

__device__ __forceinline__ std::uint32_t bits_of(float value) { return __float_as_uint(value); }
__device__ __forceinline__ float float_of(std::uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ Chunk load16(const void* from) {
  const uint4 v = *static_cast<const uint4*>(from);
  return {{v.x, v.y, v.z, v.w}};
}
__device__ __forceinline__ void store16(void* to, const Chunk& c) {
  *static_cast<uint4*>(to) = make_uint4(c.word[0], c.word[1], c.word[2], c.word[3]);
}
__device__ __forceinline__ void store4(void* to, std::uint32_t word) { *static_cast<std::uint32_t*>(to) = word; }

extern __shared__ __align__(128) unsigned char premotor_shared[];

template <typename T>
class Shared {
 public:
  __device__ __forceinline__ Shared(std::uint32_t begin, int) : data_(reinterpret_cast<T*>(premotor_shared + begin)) {}
  __device__ __forceinline__ T load(int i) const { return data_[i]; }
  __device__ __forceinline__ void store(int i, const T& value) const { data_[i] = value; }
  __device__ __forceinline__ void atomic_add(int i, T value) const { atomicAdd(data_ + i, value); }
  __device__ __forceinline__ std::uint32_t address(int i) const {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(data_ + i));
  }

 private:
  T* data_;
};

// Bytes behind from_bytes become zero; with none of them `from` is not read.
__device__ __forceinline__ void copy_async(const Shared<Chunk>& to, int i, const void* from, int from_bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to.address(i)), "l"(from), "r"(from_bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kKept>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kKept) : "memory");
}
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], const Shared<Chunk>& from, int i) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from.address(i))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&r)[4], const Shared<Chunk>& from, int i) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from.address(i))
               : "memory");
}
__device__ __forceinline__ void multiply_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                              std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply_f16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                             std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply_s8(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                            std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// More than this of shared memory a kernel must be allowed by name.
constexpr std::uint32_t kSharedBytesPlain = 48 * 1024;

template <typename... Parameters, typename... Arguments>
Outcome launch(void (*kernel)(Parameters...), const LaunchShape& shape, const Arguments&... arguments) {
  if (shape.shared_bytes > kSharedBytesPlain &&
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)) !=
          cudaSuccess)
    return Outcome::refused;
  kernel<<<dim3(shape.grid[0], shape.grid[1], shape.grid[2]), dim3(shape.threads), shape.shared_bytes,
           static_cast<cudaStream_t>(shape.stream)>>>(arguments...);
  return cudaPeekAtLastError() == cudaSuccess ? Outcome::launched : Outcome::refused;
}

}  // namespace premotor::cuda
