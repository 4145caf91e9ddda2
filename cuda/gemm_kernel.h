// The kernels of a product, whatever its elements: tiles, partial sums when k is split, and what happens to a sum on
// its way out (GemmEnd). Instantiated by gemm_bf16.cu and gemm_int8.cu, whose heads have the equations and tables.
//
// With splits each block of z > 0 sums a part of k and writes its sums to the workspace, [split, m, even n]; the second
// kernel adds the splits in ascending order, so the result does not depend on which block was first.
#pragma once

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

__device__ __forceinline__ float end_of(const GemmCall& a, std::int64_t row, std::int64_t column, float sum) {
  const GemmEnd& end = a.end;
  if (a.x_scales != nullptr) sum *= a.x_scales[row] * a.w_scales[column];
  float z = round_bf16(end.bias == nullptr ? sum : sum + end.bias[column]);
  if (end.act == Act::gelu_tanh) z = round_bf16(gelu_tanh(z));
  if (end.act == Act::silu) z = round_bf16(silu(z));
  if (!end.is_residual) return z;
  const float before = widen_bf16(end.y[row * end.ldy + column]);
  if (end.gate == nullptr) return before + z;
  const std::int64_t map = end.row_map == nullptr ? 0 : end.row_map[row];
  return before + z * end.gate[map * end.gate_stride + column];
}

// Two neighbours; y's rows begin on boundaries of four bytes and columns of pairs are even.
__device__ __forceinline__ void put_pair(const GemmCall& a, std::int64_t row, std::int64_t column, float first,
                                         float second) {
  std::uint16_t* to = a.end.y + row * a.end.ldy + column;
  first = end_of(a, row, column, first);
  if (column + 1 < a.operands.n)
    store4(to, pack_bf16(first, end_of(a, row, column + 1, second)));
  else
    *to = to_bf16(first);
}

template <typename Element, typename Tile>
__global__ void __launch_bounds__(Tile::kThreads) gemm_kernel(const GemmCall a) {
  using Sum = typename Element::Sum;
  const std::int64_t m0 = static_cast<std::int64_t>(blockIdx.x) * Tile::kRows,
                     n0 = static_cast<std::int64_t>(blockIdx.y) * Tile::kColumns,
                     steps = gemm_steps<Tile>(a.operands.k_bytes), split = blockIdx.z;
  Sum sums[Tile::kMTiles][Tile::kNTiles][4];
  multiply_tile<Element, Tile>(a.operands, m0, n0, steps * split / a.splits, steps * (split + 1) / a.splits, sums);
  const std::int64_t m = a.operands.m, n = a.operands.n;
  if (a.splits == 1) {
    each_pair<Tile>(sums, m0, n0, m, n, [&](std::int64_t row, std::int64_t column, Sum first, Sum second) {
      put_pair(a, row, column, static_cast<float>(first), static_cast<float>(second));
    });
    return;
  }
  const std::int64_t even = (n + 1) / 2 * 2;
  Sum* partial = static_cast<Sum*>(a.partial) + split * m * even;
  each_pair<Tile>(sums, m0, n0, m, n, [&](std::int64_t row, std::int64_t column, Sum first, Sum second) {
    partial[row * even + column] = first;
    partial[row * even + column + 1] = second;
  });
}

// Adds the splits of each pair of columns.
template <typename Element>
__global__ void __launch_bounds__(kEndThreads) gemm_end_kernel(const GemmCall a) {
  using Sum = typename Element::Sum;
  const std::int64_t m = a.operands.m, pairs = (a.operands.n + 1) / 2;
  const std::int64_t number = static_cast<std::int64_t>(blockIdx.x) * kEndThreads + threadIdx.x;
  if (number >= m * pairs) return;
  const Sum* partial = static_cast<const Sum*>(a.partial) + number * 2;
  Sum first = 0, second = 0;
  for (int split = 0; split < a.splits; ++split, partial += m * pairs * 2) {
    first += partial[0];
    second += partial[1];
  }
  put_pair(a, number / pairs, number % pairs * 2, static_cast<float>(first), static_cast<float>(second));
}

template <typename Element, typename Tile>
Outcome launch_gemm(const GemmCall& a, Stream stream) {
  const auto rows = static_cast<std::uint32_t>(blocks_of(a.operands.m, Tile::kRows)),
             columns = static_cast<std::uint32_t>(blocks_of(a.operands.n, Tile::kColumns));
  const LaunchShape shape{
      {rows, columns, static_cast<std::uint32_t>(a.splits)}, Tile::kThreads, Tile::kSharedBytes, stream};
  const Outcome outcome = launch(gemm_kernel<Element, Tile>, shape, a);
  if (outcome != Outcome::launched || a.splits == 1) return outcome;
  const std::int64_t pairs = a.operands.m * ((a.operands.n + 1) / 2);
  const LaunchShape end{{static_cast<std::uint32_t>(blocks_of(pairs, kEndThreads)), 1, 1}, kEndThreads, 0, stream};
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
      !is_aligned(end.y, 4) || end.ldy % 2 != 0 || !is_aligned(a.partial, 16))
    return Outcome::misaligned;
  return plan.is_narrow ? launch_gemm<Element, NarrowTile>(a, stream) : launch_gemm<Element, WideTile>(a, stream);
}

}  // namespace premotor::cuda
