// A layer norm over each row, its modulation, and when asked the row as int8, in one pass over the activations.
//
//   n = (x - mean) / sqrt(var + eps), times weight plus bias when given,
//   y = round(n * (1 + scale[row_map[r]]) + shift[row_map[r]])
//   s = max|y| / 127,  q = round(y / s)
//
//   operand    shape             dtype  alignment                       aliasing
//   x          [rows, dim], ldx  bf16   16 bytes, ldx a multiple of 8   may be y
//   weight...  [dim]             f32    16 bytes                        none
//   scale...   [*, dim]          f32    16 bytes, stride a multiple of 4  none
//   y          [rows, dim], ldy  bf16   16 bytes, ldy a multiple of 8   may be x
//   quantised  [rows, dim], ldq  s8     16 bytes, ldq a multiple of 16  none; bytes behind dim become zero up to ldq
//   scales     [rows]            f32    4 bytes                         none
//
// One block of 256 threads per row; thread t takes the eight values at 8 t, 8 (t + 256), ... A row is read three times
// (mean, variance, result; a fourth time for the largest of the quantised ones), from memory once and then from the
// first-level cache: a row of 3072 is 6 KB.
// Bytes: 2 rows dim in, 2 rows dim out (1 rows dim quantised); FLOPs: about 9 rows dim. Bound by memory.
// SMs: 8.0 and later. Sums in float32: partial sums of 256 threads, so a row of some thousands differs from the CPU's
// by an ulp of float32, and the result by at most one rounding to bfloat16 (2^-8 of a value, seldom).
#include "cuda/block.h"
#include "cuda/ops.h"

namespace premotor::cuda {
namespace {

constexpr int kScratchFloats = 4 * kRowWarps;

struct Row {
  const std::uint16_t* x;
  const float *scale, *shift;  // of this row, or null
  int dim;
  float mean, inverse;
};

// The eight results at column c, rounded.
__device__ __forceinline__ void normed(const Row& row, const NormTerms& norm, int c, float (&v)[kTaken]) {
  const int count = row.dim - c;
  float by[kTaken], plus[kTaken];
  take_bf16(row.x + c, count, v);
  PREMOTOR_UNROLL
  for (int i = 0; i < kTaken; ++i) v[i] = (v[i] - row.mean) * row.inverse;
  if (norm.weight != nullptr) {
    take_f32(norm.weight + c, count, by);
    take_f32(norm.bias + c, count, plus);
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) v[i] = v[i] * by[i] + plus[i];
  }
  if (row.scale != nullptr) {
    take_f32(row.scale + c, count, by);
    take_f32(row.shift + c, count, plus);
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) v[i] = v[i] * (by[i] + 1.0f) + plus[i];
  }
  PREMOTOR_UNROLL
  for (int i = 0; i < kTaken; ++i) v[i] = i < count ? round_bf16(v[i]) : 0.0f;
}

__device__ __forceinline__ Row open_row(const LayerNormModulate& a, std::int64_t r, const Shared<float>& scratch) {
  const std::int64_t map = a.norm.row_map == nullptr ? 0 : a.norm.row_map[r];
  Row row{a.x + r * a.ldx, nullptr, nullptr, static_cast<int>(a.dim), 0, 0};
  if (a.norm.scale != nullptr) {
    row.scale = a.norm.scale + map * a.norm.mod_stride;
    row.shift = a.norm.shift + map * a.norm.mod_stride;
  }
  float v[kTaken], sum = 0, squares = 0;
  each_column(row.dim, [&](int c) {
    take_bf16(row.x + c, row.dim - c, v);
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) sum += v[i];
  });
  const float count = static_cast<float>(row.dim);
  row.mean = block_sum(sum, scratch) / count;
  each_column(row.dim, [&](int c) {
    take_bf16(row.x + c, row.dim - c, v);
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) squares += c + i < row.dim ? (v[i] - row.mean) * (v[i] - row.mean) : 0.0f;
  });
  // A scratch of its own: a slow thread may still read the other.
  row.inverse = 1.0f / sqrtf(block_sum(squares, Shared<float>(4 * kRowWarps, kRowWarps)) / count + a.norm.eps);
  return row;
}

template <bool is_quantised>
__global__ void __launch_bounds__(kRowThreads) layer_norm_kernel(const LayerNormModulate a) {
  const std::int64_t r = blockIdx.x;
  const Shared<float> scratch(0, kRowWarps);
  const Row row = open_row(a, r, scratch);
  float v[kTaken];
  RowQuantiser quantiser;
  if constexpr (is_quantised) {
    each_column(row.dim, [&](int c) {
      normed(row, a.norm, c, v);
      quantiser.see(v);
    });
    quantiser.agree(Shared<float>(8 * kRowWarps, kRowWarps), Shared<float>(12 * kRowWarps, kRowWarps), a.scales + r);
  }
  const int columns = is_quantised ? static_cast<int>(a.ldq) : row.dim;
  each_column(columns, [&](int c) {
    normed(row, a.norm, c, v);
    if (a.y != nullptr && c < row.dim) put_bf16(a.y + r * a.ldy + c, row.dim - c, v);
    if constexpr (is_quantised) quantiser.put(v, a.quantised + r * a.ldq + c);
  });
}

bool is_on_boundaries(const LayerNormModulate& a) {
  const NormTerms& n = a.norm;
  return is_aligned(a.x, 16) && a.ldx % 8 == 0 && is_aligned(a.y, 16) && (a.y == nullptr || a.ldy % 8 == 0) &&
         is_aligned(n.weight, 16) && is_aligned(n.bias, 16) && is_aligned(n.scale, 16) && is_aligned(n.shift, 16) &&
         n.mod_stride % 4 == 0 && is_aligned(a.quantised, 16) && (a.quantised == nullptr || a.ldq % 16 == 0);
}

}  // namespace

Outcome layer_norm_modulate(const LayerNormModulate& a, Stream stream) {
  if (a.rows == 0) return Outcome::launched;
  const bool is_quantised = a.quantised != nullptr;
  if (a.rows < 0 || a.rows > 0x7fffffff || a.dim < 1 || a.dim > (1 << 20) || a.ldx < a.dim ||
      (a.y != nullptr && a.ldy < a.dim) || (is_quantised && (a.ldq < a.dim || a.scales == nullptr)) ||
      (!is_quantised && a.y == nullptr) || (a.norm.weight == nullptr) != (a.norm.bias == nullptr) ||
      (a.norm.scale == nullptr) != (a.norm.shift == nullptr))
    return Outcome::bad_shape;
  if (!is_on_boundaries(a)) return Outcome::misaligned;
  const LaunchShape shape{{static_cast<std::uint32_t>(a.rows), 1, 1}, kRowThreads, kScratchFloats * 4, stream};
  return launch(is_quantised ? layer_norm_kernel<true> : layer_norm_kernel<false>, shape, a);
}

}  // namespace premotor::cuda
