// The kernels of a product, whatever its elements: tiles, partial sums when k is split, and what happens to a sum on
// its way out (GemmEnd). Instantiated by gemm_bf16.cu and gemm_int8.cu, whose heads have the equations and tables.
//
// The sums of a tile go through shared memory, from where a thread takes eight neighbours of a row at a time: memory is
// then written in sixteen bytes, and the code of an end exists once instead of once per register.
//
// With splits each block of z sums a part of k and writes its sums to the workspace, [split, m, n rounded up to 8]; the
// second kernel adds the splits in ascending order, so the result does not depend on which block was first.
#pragma once

#include "cuda/block.h"
#include "cuda/gemm_tile.h"
#include "cuda/ops.h"

namespace premotor::cuda {

struct GemmCall {
  GemmOperands operands;
  GemmEnd end;
  const float* x_scales;  // [m] and w_scales [n], or null: sums are what they are
  const float* w_scales;
  int splits;
  void* partial;
};

constexpr int kEndThreads = 256;

template <typename Tile>
[[nodiscard]] __host__ __device__ constexpr std::int64_t gemm_steps(std::int64_t k_bytes) {
  return (k_bytes + Tile::kChunks * 16 - 1) / (Tile::kChunks * 16);
}

[[nodiscard]] __host__ __device__ constexpr std::int64_t partial_columns(std::int64_t n) {
  return (n + kTaken - 1) / kTaken * kTaken;
}

__device__ __forceinline__ void as_sums(const Chunk& chunk, float* to) {
  PREMOTOR_UNROLL
  for (int i = 0; i < 4; ++i) to[i] = float_of(chunk.word[i]);
}
__device__ __forceinline__ void as_sums(const Chunk& chunk, std::int32_t* to) {
  PREMOTOR_UNROLL
  for (int i = 0; i < 4; ++i) to[i] = static_cast<std::int32_t>(chunk.word[i]);
}

// The end of eight neighbours of a row, as many as there are columns left.
__device__ __forceinline__ void put_sums(const GemmCall& a, std::int64_t row, std::int64_t column,
                                         const float (&sums)[kTaken]) {
  const GemmEnd& end = a.end;
  const int count = a.operands.n - column < kTaken ? static_cast<int>(a.operands.n - column) : kTaken;
  std::uint16_t* y = end.y + row * end.ldy + column;
  const float* gate = nullptr;
  float before[kTaken], z[kTaken];
  if (end.is_residual) {
    take_bf16(y, count, before);
    if (end.gate != nullptr)
      gate = end.gate + (end.row_map == nullptr ? 0 : end.row_map[row]) * end.gate_stride + column;
  }
  const float x_scale = a.x_scales == nullptr ? 1.0f : a.x_scales[row];
  PREMOTOR_UNROLL
  for (int i = 0; i < kTaken; ++i) {
    if (i >= count) break;
    z[i] = a.x_scales == nullptr ? sums[i] : sums[i] * (x_scale * a.w_scales[column + i]);
    if (end.bias != nullptr) z[i] += end.bias[column + i];
    z[i] = round_bf16(z[i]);
    if (end.act == Act::gelu_tanh) z[i] = round_bf16(gelu_tanh(z[i]));
    if (end.act == Act::silu) z[i] = round_bf16(silu(z[i]));
    if (end.is_residual) z[i] = before[i] + (gate == nullptr ? z[i] : z[i] * gate[i]);
  }
  put_bf16(y, count, z);
}

template <typename Element, typename Tile>
__global__ void __launch_bounds__(Tile::kThreads) gemm_kernel(const GemmCall a) {
  using Sum = typename Element::Sum;
  const std::int64_t m0 = static_cast<std::int64_t>(blockIdx.x) * Tile::kRows,
                     n0 = static_cast<std::int64_t>(blockIdx.y) * Tile::kColumns,
                     steps = gemm_steps<Tile>(a.operands.k_bytes), split = blockIdx.z;
  {
    Sum sums[Tile::kMTiles][Tile::kNTiles][4];
    multiply_tile<Element, Tile>(a.operands, m0, n0, steps * split / a.splits, steps * (split + 1) / a.splits, sums);
    gather_sums<Tile>(sums);
  }
  const Shared<Chunk> chunks(0, Tile::kRows * Tile::kColumns / 4);
  const std::int64_t m = a.operands.m, n = a.operands.n, stride = partial_columns(n);
  constexpr int kAcross = Tile::kColumns / kTaken;
  for (int number = static_cast<int>(threadIdx.x); number < Tile::kRows * kAcross; number += Tile::kThreads) {
    const int row = number / kAcross, column = number % kAcross * kTaken;
    if (m0 + row >= m || n0 + column >= n) continue;
    const int at = sums_at<Tile>(row, column);
    const Chunk low = chunks.load(at), high = chunks.load(at + 1);
    if (a.splits > 1) {
      Sum* to = static_cast<Sum*>(a.partial) + (split * m + m0 + row) * stride + n0 + column;
      store16(to, low);
      store16(to + 4, high);
      continue;
    }
    Sum sums[kTaken];
    as_sums(low, sums);
    as_sums(high, sums + 4);
    float values[kTaken];
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) values[i] = static_cast<float>(sums[i]);
    put_sums(a, m0 + row, n0 + column, values);
  }
}

// Adds the splits, eight columns a thread.
template <typename Element>
__global__ void __launch_bounds__(kEndThreads) gemm_end_kernel(const GemmCall a) {
  using Sum = typename Element::Sum;
  const std::int64_t m = a.operands.m, stride = partial_columns(a.operands.n), across = stride / kTaken;
  const std::int64_t number = static_cast<std::int64_t>(blockIdx.x) * kEndThreads + threadIdx.x;
  if (number >= m * across) return;
  const Sum* partial = static_cast<const Sum*>(a.partial) + number * kTaken;
  Sum sums[kTaken] = {}, more[kTaken];
  for (int split = 0; split < a.splits; ++split, partial += m * stride) {
    as_sums(load16(partial), more);
    as_sums(load16(partial + 4), more + 4);
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) sums[i] += more[i];
  }
  float values[kTaken];
  PREMOTOR_UNROLL
  for (int i = 0; i < kTaken; ++i) values[i] = static_cast<float>(sums[i]);
  put_sums(a, number / across, number % across * kTaken, values);
}

template <typename Element, typename Tile>
Outcome launch_gemm(const GemmCall& a, Stream stream) {
  const auto rows = static_cast<std::uint32_t>(blocks_of(a.operands.m, Tile::kRows)),
             columns = static_cast<std::uint32_t>(blocks_of(a.operands.n, Tile::kColumns));
  const LaunchShape shape{
      {rows, columns, static_cast<std::uint32_t>(a.splits)}, Tile::kThreads, Tile::kSharedBytes, stream};
  const Outcome outcome = launch(gemm_kernel<Element, Tile>, shape, a);
  if (outcome != Outcome::launched || a.splits == 1) return outcome;
  const std::int64_t pieces = a.operands.m * (partial_columns(a.operands.n) / kTaken);
  const LaunchShape end{{static_cast<std::uint32_t>(blocks_of(pieces, kEndThreads)), 1, 1}, kEndThreads, 0, stream};
  return launch(gemm_end_kernel<Element>, end, a);
}

// Checks what every product asks for, then launches it by its plan.
template <typename Element>
Outcome run_gemm(const GemmCall& a, const GemmPlan& plan, Stream stream) {
  const GemmOperands& o = a.operands;
  const GemmEnd& end = a.end;
  if (o.m == 0) return Outcome::launched;
  constexpr std::int64_t kMost = 1 << 24;
  if (o.m < 0 || o.m > kMost || o.n < 1 || o.n > (1 << 22) || o.k_bytes < 1 || o.k_bytes > kMost ||
      o.ldx_bytes < o.k_bytes || o.ldw_bytes < o.k_bytes || end.y == nullptr || end.ldy < o.n || a.splits < 1 ||
      a.splits > 64 || (a.splits > 1 && a.partial == nullptr))
    return Outcome::bad_shape;
  if (!is_aligned(o.x, 16) || !is_aligned(o.w, 16) || o.ldx_bytes % 16 != 0 || o.ldw_bytes % 16 != 0 ||
      !is_aligned(end.y, 16) || end.ldy % 8 != 0 || !is_aligned(a.partial, 16))
    return Outcome::misaligned;
  return plan.is_narrow ? launch_gemm<Element, NarrowTile>(a, stream) : launch_gemm<Element, WideTile>(a, stream);
}

}  // namespace premotor::cuda
