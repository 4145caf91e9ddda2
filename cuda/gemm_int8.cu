// A linear layer in int8 (W8A8) with what follows it: activations quantised per row (layer_norm_modulate), weights per
// output.
//
//   z[m, n] = act(round(x_scales[m] w_scales[n] * sum over k of x[m, k] w[n, k] + bias[n])), rounded
//   y = z,  or with is_residual  y[r] = round(y[r] + z[r] * gate[row_map[r]])
//
//   operand    shape                        dtype  alignment                      aliasing
//   x          [m, k], ldx                  s8     16 bytes, ldx a multiple of 16 none; columns k .. ldx-1 are not read
//   x_scales   [m]                          f32    4 bytes                        none
//   w          [n, k], ldw                  s8     16 bytes, ldw a multiple of 16 none
//   w_scales   [n]                          f32    4 bytes                        none
//   bias, gate, row_map, y                  as gemm_bf16.cu
//   workspace  [splits, m, n rounded up to 8]  s32  16 bytes                   none; with splits > 1
//
// Tiles: gemm_tile.h; a stage holds twice the values of bfloat16.
// Bytes: n k + m k + 2 m n; FLOPs: 2 m n k. SMs: 8.0 and later.
// Sums are int32 and exact (k <= 65536), splits too; a row that is not finite has a scale that is none, and so its
// results. Against the CPU: equal but for the order of the two scales' products, an ulp of float32.
#include "cuda/gemm_kernel.h"

namespace premotor::cuda {
namespace {

// Deeper sums would not fit 32 bits.
constexpr std::int64_t kDepthMost = 1 << 16;

}  // namespace

Outcome gemm_int8(const GemmInt8& a, Stream stream) {
  if (a.k > kDepthMost || a.x_scales == nullptr || a.w_scales == nullptr) return Outcome::bad_shape;
  const GemmCall call{{reinterpret_cast<const unsigned char*>(a.x), reinterpret_cast<const unsigned char*>(a.w), a.m,
                       a.n, a.k, a.ldx, a.ldw},
                      a.end,
                      a.x_scales,
                      a.w_scales,
                      a.plan.splits,
                      a.workspace};
  return run_gemm<Int8Element>(call, a.plan, stream);
}

}  // namespace premotor::cuda
