// Rows of activations as int8, for a product in W8A8 whose input no norm has quantised (layer_norm_modulate.cu): the
// attended rows, and what the feed-forward's activation leaves.
//
//   s = max|x| / 127,  q = round(x / s)
//
//   operand    shape             dtype  alignment                       aliasing
//   x          [rows, dim], ldx  bf16   16 bytes, ldx a multiple of 8   none
//   quantised  [rows, dim], ldq  s8     16 bytes, ldq a multiple of 16  none; bytes behind dim become zero up to ldq
//   scales     [rows]            f32    4 bytes                         none
//
// One block of 256 threads per row, which is read twice: from memory, then from the first-level cache.
// Bytes: 2 rows dim in, rows dim out. Bound by memory. SMs: 8.0 and later. Equal to the CPU's bits, but for a value
// within an ulp of the middle between two steps.
#include "cuda/block.h"
#include "cuda/ops.h"

namespace premotor::cuda {
namespace {

constexpr int kScratchFloats = 2 * kRowWarps;

__global__ void __launch_bounds__(kRowThreads) quantise_rows_kernel(const QuantiseRows a) {
  const std::int64_t r = blockIdx.x;
  const std::uint16_t* x = a.x + r * a.ldx;
  const int dim = static_cast<int>(a.dim);
  float v[kTaken];
  RowQuantiser quantiser;
  each_column(dim, [&](int c) {
    take_bf16(x + c, dim - c, v);
    quantiser.see(v);
  });
  quantiser.agree(Shared<float>(0, kRowWarps), Shared<float>(4 * kRowWarps, kRowWarps), a.scales + r);
  each_column(static_cast<int>(a.ldq), [&](int c) {
    take_bf16(x + c, dim - c, v);
    quantiser.put(v, a.quantised + r * a.ldq + c);
  });
}

}  // namespace

Outcome quantise_rows(const QuantiseRows& a, Stream stream) {
  if (a.rows == 0) return Outcome::launched;
  if (a.rows < 0 || a.rows > 0x7fffffff || a.dim < 1 || a.dim > (1 << 20) || a.ldx < a.dim || a.ldq < a.dim ||
      a.ldq > (1 << 20) || a.x == nullptr || a.quantised == nullptr || a.scales == nullptr)
    return Outcome::bad_shape;
  if (!is_aligned(a.x, 16) || a.ldx % 8 != 0 || !is_aligned(a.quantised, 16) || a.ldq % 16 != 0)
    return Outcome::misaligned;
  const LaunchShape shape{{static_cast<std::uint32_t>(a.rows), 1, 1}, kRowThreads, kScratchFloats * 4, stream};
  return launch(quantise_rows_kernel, shape, a);
}

}  // namespace premotor::cuda
