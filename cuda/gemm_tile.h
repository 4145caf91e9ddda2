// A tile of a product x w^T on tensor cores: what the products of all element types share. Rows of x and of w are cut
// into chunks of sixteen bytes, and everything but the multiplying instruction is about bytes: a row of mma's 16
// bfloat16 is as long as one of its 32 int8, and ldmatrix gives both the same fragments.
//
//   block   kRows x kColumns of the result; stage by stage kChunks chunks of each row of x and w are copied to shared
//           memory (cp.async, kStages deep), where a row's chunks lie swizzled so that eight rows of ldmatrix touch
//           all banks once
//   warp    kMTiles x kNTiles tiles of 16 x 8, warps in kWarpsM rows of kWarpsN:
//
//             columns ->  | warp 0 | warp 1 | .. kWarpsN - 1 |      one tile of 16 x 8, lane l = 4 g + t:
//             rows        | warp kWarpsN | ...               |        sums 0, 1   row g,     columns 2t, 2t + 1
//                                                                     sums 2, 3   row g + 8, columns 2t, 2t + 1
//
// Rows, columns and k may be any number: what lies outside is copied as zero and not stored.
#pragma once

#include "cuda/device.h"

namespace premotor::cuda {

template <int kRows_, int kColumns_, int kChunks_, int kStages_, int kWarpsM_, int kWarpsN_>
struct GemmTile {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kChunks = kChunks_, kStages = kStages_;
  static constexpr int kWarpsM = kWarpsM_, kWarpsN = kWarpsN_;
  static constexpr int kThreads = kWarpsM * kWarpsN * kLanes;
  static constexpr int kMTiles = kRows / kWarpsM / 16, kNTiles = kColumns / kWarpsN / 8;
  static constexpr int kStageChunks = (kRows + kColumns) * kChunks;
  static constexpr int kSharedBytes = kStages * kStageChunks * static_cast<int>(sizeof(Chunk));
  static_assert(kStageChunks % kThreads == 0 && kNTiles % 2 == 0 && (kChunks == 4 || kChunks == 8));
};
// Video passes: 240 to 480 rows. Two blocks fit a multiprocessor of sm_87.
using WideTile = GemmTile<128, 128, 4, 4, 2, 4>;
// Action passes: 32 rows, where reading the weights is all there is to do.
using NarrowTile = GemmTile<32, 64, 8, 4, 2, 2>;

struct Bf16Element {
  using Sum = float;
  static constexpr int kBytes = 2;
  static __device__ __forceinline__ void multiply(Sum (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                  std::uint32_t b1) {
    multiply_bf16(d, a, b0, b1);
  }
};
struct Int8Element {
  using Sum = std::int32_t;
  static constexpr int kBytes = 1;
  static __device__ __forceinline__ void multiply(Sum (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                  std::uint32_t b1) {
    multiply_s8(d, a, b0, b1);
  }
};

struct GemmOperands {
  const unsigned char* x;  // [m, k_bytes], stride ldx_bytes; rows on boundaries of sixteen bytes
  const unsigned char* w;  // [n, k_bytes], stride ldw_bytes
  std::int64_t m, n, k_bytes, ldx_bytes, ldw_bytes;
};

// Where a row's chunk lies in a stage.
template <int kChunks>
__device__ __forceinline__ int chunk_at(int row, int chunk) {
  return row * kChunks + (kChunks == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7));
}

template <typename Tile>
__device__ __forceinline__ void copy_stage(const GemmOperands& a, const Shared<Chunk>& shared, int stage,
                                           std::int64_t m0, std::int64_t n0, std::int64_t step) {
  PREMOTOR_UNROLL
  for (int i = 0; i < Tile::kStageChunks / Tile::kThreads; ++i) {
    const int number = i * Tile::kThreads + static_cast<int>(threadIdx.x);
    const int row = number / Tile::kChunks, chunk = number % Tile::kChunks;
    const bool is_x = row < Tile::kRows;
    const std::int64_t at = is_x ? m0 + row : n0 + row - Tile::kRows;
    const std::int64_t byte = (step * Tile::kChunks + chunk) * 16, left = a.k_bytes - byte;
    int bytes = left >= 16 ? 16 : (left > 0 ? static_cast<int>(left) : 0);
    if (at >= (is_x ? a.m : a.n)) bytes = 0;
    const unsigned char* from = is_x ? a.x : a.w;
    if (bytes > 0) from += at * (is_x ? a.ldx_bytes : a.ldw_bytes) + byte;
    copy_async(shared, stage * Tile::kStageChunks + chunk_at<Tile::kChunks>(row, chunk), from, bytes);
  }
}

// What one stage adds to a warp's sums.
template <typename Element, typename Tile>
__device__ __forceinline__ void multiply_stage(const Shared<Chunk>& shared, int stage, int warp_m, int warp_n,
                                               typename Element::Sum (&sums)[Tile::kMTiles][Tile::kNTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x % kLanes), base = stage * Tile::kStageChunks;
  PREMOTOR_UNROLL
  for (int k = 0; k < Tile::kChunks / 2; ++k) {
    std::uint32_t x[Tile::kMTiles][4];
    PREMOTOR_UNROLL
    for (int i = 0; i < Tile::kMTiles; ++i)
      load_matrices(x[i], shared,
                    base + chunk_at<Tile::kChunks>((warp_m * Tile::kMTiles + i) * 16 + lane % 16, 2 * k + lane / 16));
    PREMOTOR_UNROLL
    for (int j = 0; j < Tile::kNTiles; j += 2) {
      std::uint32_t w[4];
      const int row = Tile::kRows + (warp_n * Tile::kNTiles + j) * 8 + lane / 16 * 8 + lane % 8;
      load_matrices(w, shared, base + chunk_at<Tile::kChunks>(row, 2 * k + lane / 8 % 2));
      PREMOTOR_UNROLL
      for (int i = 0; i < Tile::kMTiles; ++i) {
        Element::multiply(sums[i][j], x[i], w[0], w[1]);
        Element::multiply(sums[i][j + 1], x[i], w[2], w[3]);
      }
    }
  }
}

// The sums of the warp's tiles over the steps [begin, end) of k; zero without any.
template <typename Element, typename Tile>
__device__ __forceinline__ void multiply_tile(const GemmOperands& a, std::int64_t m0, std::int64_t n0,
                                              std::int64_t begin, std::int64_t end,
                                              typename Element::Sum (&sums)[Tile::kMTiles][Tile::kNTiles][4]) {
  const Shared<Chunk> shared(0, Tile::kStages * Tile::kStageChunks);
  const int warp = static_cast<int>(threadIdx.x / kLanes), warp_m = warp / Tile::kWarpsN, warp_n = warp % Tile::kWarpsN;
  // A warp whose tiles lie outside copies like the others, and multiplies nothing.
  const bool is_inside = m0 + warp_m * Tile::kMTiles * 16 < a.m && n0 + warp_n * Tile::kNTiles * 8 < a.n;
  PREMOTOR_UNROLL
  for (int i = 0; i < Tile::kMTiles; ++i) PREMOTOR_UNROLL
  for (int j = 0; j < Tile::kNTiles; ++j) PREMOTOR_UNROLL
  for (int e = 0; e < 4; ++e) sums[i][j][e] = 0;
  const int steps = static_cast<int>(end - begin);
  PREMOTOR_UNROLL
  for (int s = 0; s < Tile::kStages - 1; ++s) {
    if (s < steps) copy_stage<Tile>(a, shared, s, m0, n0, begin + s);
    commit_copies();
  }
  for (int s = 0; s < steps; ++s) {
    wait_copies<Tile::kStages - 2>();
    // All have read the stage before, into which the next copy goes, and this one is complete for all.
    __syncthreads();
    const int next = s + Tile::kStages - 1;
    if (next < steps) copy_stage<Tile>(a, shared, next % Tile::kStages, m0, n0, begin + next);
    commit_copies();
    if (is_inside) multiply_stage<Element, Tile>(shared, s % Tile::kStages, warp_m, warp_n, sums);
  }
  wait_copies<0>();
}

// Two neighbouring sums.
template <typename Sum>
struct alignas(8) SumPair {
  Sum first, second;
};

// Where the chunk of four sums that begins at a column lies once the sums are in shared memory, [kRows, kColumns] of
// four bytes: eight columns at a time are swizzled by the row, so that neither side meets in a bank.
template <typename Tile>
__device__ __forceinline__ int sums_at(int row, int column) {
  return (row * Tile::kColumns + (column ^ ((row & 3) << 3))) / 4;
}

// Puts the sums of all warps into the shared memory that held the stages, from where they can be taken row by row.
template <typename Tile, typename Sum>
__device__ __forceinline__ void gather_sums(const Sum (&sums)[Tile::kMTiles][Tile::kNTiles][4]) {
  static_assert(Tile::kRows * Tile::kColumns * 4 <= Tile::kSharedBytes);
  const Shared<SumPair<Sum>> pairs(0, Tile::kRows * Tile::kColumns / 2);
  const int warp = static_cast<int>(threadIdx.x / kLanes), lane = static_cast<int>(threadIdx.x % kLanes);
  const int row0 = warp / Tile::kWarpsN * Tile::kMTiles * 16 + lane / 4,
            column0 = warp % Tile::kWarpsN * Tile::kNTiles * 8;
  // All have read their last stage.
  __syncthreads();
  PREMOTOR_UNROLL
  for (int i = 0; i < Tile::kMTiles; ++i) PREMOTOR_UNROLL
  for (int half = 0; half < 2; ++half) PREMOTOR_UNROLL
  for (int j = 0; j < Tile::kNTiles; ++j)
    pairs.store(sums_at<Tile>(row0 + i * 16 + half * 8, column0 + j * 8) * 2 + lane % 4,
                {sums[i][j][half * 2], sums[i][j][half * 2 + 1]});
  __syncthreads();
}

}  // namespace premotor::cuda
