// A linear layer in bfloat16 with what follows it: bias and activation, or gate and residual.
//
//   z[m, n] = act(round(sum over k of x[m, k] w[n, k] + bias[n])), rounded
//   y = z,  or with is_residual  y[r] = round(y[r] + z[r] * gate[row_map[r]])
//
//   operand    shape                        dtype  alignment                     aliasing
//   x          [m, k], ldx                  bf16   16 bytes, ldx a multiple of 8 none; columns k .. ldx-1 are not read
//   w          [n, k], ldw                  bf16   16 bytes, ldw a multiple of 8 none
//   bias       [n]                          f32    4 bytes                       none
//   gate       [*, n], gate_stride          f32    4 bytes                       none
//   row_map    [m]                          s32    4 bytes                       none
//   y          [m, n], ldy                  bf16   16 bytes, ldy a multiple of 8 not x
//   workspace  [splits, m, n rounded up to 8]  f32  16 bytes                  none; with splits > 1
//
// Tiles: gemm_tile.h, blocks of 128 x 128 (256 threads) or 32 x 64 (128 threads). Blocks with the same columns follow
// one another, so that a weight is read from memory once and from the second-level cache for the other rows.
// Bytes: 2 (n k + m k + m n); with splits 8 splits m n more. FLOPs: 2 m n k. Bound by arithmetic from some 200 rows on
// the devices of docs/PERF.md, below by the bytes of w.
// SMs: 8.0 and later (mma.sync; later devices have faster instructions that these kernels do not use).
// Products are exact, sums float32. Against sums in another order: an error of about sqrt(k) 2^-24 of the terms' size,
// so a result is at most one rounding to bfloat16 away (2^-8 of its value) but for sums that nearly cancel.
#include "cuda/gemm_kernel.h"

namespace premotor::cuda {
namespace {

// The most splits that a plan takes: more would move more partial sums than weights.
constexpr std::int64_t kSplitsMost = 8;
// Steps of k that a split keeps at least, or its pipeline never fills.
constexpr std::int64_t kSplitSteps = 8;

}  // namespace

GemmPlan plan_gemm(std::int64_t m, std::int64_t n, std::int64_t k, int element_bytes, int multiprocessors) {
  GemmPlan plan;
  plan.is_narrow = m <= 2 * NarrowTile::kRows;
  const std::int64_t rows = plan.is_narrow ? NarrowTile::kRows : WideTile::kRows,
                     columns = plan.is_narrow ? NarrowTile::kColumns : WideTile::kColumns;
  const std::int64_t blocks = blocks_of(m, rows) * blocks_of(n, columns);
  const std::int64_t steps =
      plan.is_narrow ? gemm_steps<NarrowTile>(k * element_bytes) : gemm_steps<WideTile>(k * element_bytes);
  // Two blocks a multiprocessor hide each other's waits.
  const std::int64_t wanted = blocks == 0 ? 1 : 2 * multiprocessors / blocks, most = steps / kSplitSteps;
  std::int64_t splits = wanted < most ? wanted : most;
  if (splits > kSplitsMost) splits = kSplitsMost;
  plan.splits = splits < 1 ? 1 : static_cast<int>(splits);
  plan.workspace_bytes = plan.splits == 1 ? 0 : plan.splits * m * partial_columns(n) * 4;
  return plan;
}

Outcome gemm_bf16(const GemmBf16& a, Stream stream) {
  const GemmCall call{{reinterpret_cast<const unsigned char*>(a.x), reinterpret_cast<const unsigned char*>(a.w), a.m,
                       a.n, a.k * 2, a.ldx * 2, a.ldw * 2},
                      a.end,
                      nullptr,
                      nullptr,
                      a.plan.splits,
                      a.workspace};
  return run_gemm<Bf16Element>(call, a.plan, stream);
}

}  // namespace premotor::cuda
