// What lies between the projection of queries, keys and values and attention: q and k pass an RMS norm over their whole
// width and the rotation of their position, k and v go into the cache.
//
//   q = round(rope(round(q / sqrt(mean(q^2) + eps) * norm_q))), in place; k the same, to its row of the cache; v as it
//   is; mean: the sum over norm_width. rope, of the pair (re, im) at an angle: (re cos - im sin, re sin + im cos)
//
//   operand    shape                        dtype  alignment                      aliasing
//   q, k, v    [batch, rows, heads, 128]    bf16   16 bytes, ld a multiple of 8   none; often columns of one matrix
//   norm_...   [heads, 128]                 f32    16 bytes                       none
//   cos, sin   [rows, 64]                   f32    16 bytes                       none
//   cache k, v [heads, plane_rows, 128]     bf16   16 bytes                       rows of `slots` are written, no other
//   or k8, v8  [heads, plane_rows, 128]     s8     16 bytes                       the same; of what k and v would hold,
//     scales   [heads, plane_rows]          f32    4 bytes                        round(x / s), s = max|x| / 127
//   slots      [rows]                       s32    4 bytes                        no number twice
//
// The norm is over heads * 128 values, more than any tile of the product before it holds, so it cannot be that
// product's epilogue without another pass over its sums.
// One block of 256 threads per row; blocks of y = 0 turn q, those of y = 1 turn k and move v. Thread t takes the eight
// values at 8 t, 8 (t + 256), ...: a sixteenth of a head, four whole pairs.
// Bytes: 6 rows heads 128 in, as many out; FLOPs: about 12 a value. Bound by memory.
// SMs: 8.0 and later. Sums in float32. The rotation is float32 with the first product's rounding error carried along
// (Kahan's difference of products): within 1.5 ulp of float32 of the CPU's, which rotates in float64, so the result is
// at most one rounding to bfloat16 away, seldom.
#include "cuda/block.h"
#include "cuda/ops.h"

namespace premotor::cuda {
namespace {

constexpr int kHeadDim = 128;

// a b + c d with one rounding error of the products left out. FMA's exactness is the point: nothing may reorder it.
__device__ __forceinline__ float sum_of_products(float a, float b, float c, float d) {
  const float product = c * d;
  const float lost = fmaf(c, d, -product);
  return fmaf(a, b, product) + lost;
}

// The eight values at column c of a row after norm and rotation.
__device__ __forceinline__ void turned(const CacheHeads& a, const std::uint16_t* x, const float* weight,
                                       std::int64_t row, int c, float inverse, float (&v)[kTaken]) {
  float by[kTaken];
  take_bf16(x + c, kTaken, v);
  take_f32(weight + c, kTaken, by);
  PREMOTOR_UNROLL
  for (int i = 0; i < kTaken; ++i) v[i] = round_bf16(v[i] * inverse * by[i]);
  if (a.cos == nullptr) return;
  const std::int64_t at = row * (kHeadDim / 2) + c % kHeadDim / 2;
  const Chunk cos = load16(a.cos + at), sin = load16(a.sin + at);
  PREMOTOR_UNROLL
  for (int pair = 0; pair < kTaken / 2; ++pair) {
    const float re = v[2 * pair], im = v[2 * pair + 1];
    const float c_angle = float_of(cos.word[pair]), s_angle = float_of(sin.word[pair]);
    v[2 * pair] = sum_of_products(re, c_angle, -im, s_angle);
    v[2 * pair + 1] = sum_of_products(re, s_angle, im, c_angle);
  }
}

// Eight values of a head's vector, of which fifteen other lanes have the rest.
__device__ __forceinline__ void put_quantised(const float (&v)[kTaken], std::int8_t* to, float* scale) {
  RowQuantiser quantiser;
  quantiser.see(v);
  quantiser.agree_in_sixteen(scale);
  quantiser.put(v, to);
}

template <bool is_quantised>
__global__ void __launch_bounds__(kRowThreads) cache_heads_kernel(const CacheHeads a) {
  const std::int64_t at = blockIdx.x, row = at % a.rows;
  const CachePlanes& planes = a.cache[at / a.rows];
  const bool is_query = a.q != nullptr && blockIdx.y == 0;
  std::uint16_t* x = (is_query ? a.q : a.k) + at * a.ld;
  const float* weight = is_query ? a.norm_q : a.norm_k;
  const int inner = static_cast<int>(a.heads) * kHeadDim, first = static_cast<int>(threadIdx.x) * kTaken;
  float v[kTaken], squares = 0;
  for (int c = first; c < inner; c += kRowThreads * kTaken) {
    take_bf16(x + c, kTaken, v);
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) squares += v[i] * v[i];
  }
  const float mean = block_sum(squares, Shared<float>(0, kRowWarps)) / static_cast<float>(a.norm_width);
  const float inverse = 1.0f / sqrtf(mean + a.eps);
  for (int c = first; c < inner; c += kRowThreads * kTaken) {
    turned(a, x, weight, row, c, inverse, v);
    if (is_query) {
      put_bf16(x + c, kTaken, v);
      continue;
    }
    const std::int64_t entry = c / kHeadDim * a.plane_rows + a.slots[row], to = entry * kHeadDim + c % kHeadDim;
    if constexpr (is_quantised) {
      PREMOTOR_UNROLL
      for (int i = 0; i < kTaken; ++i) v[i] = round_bf16(v[i]);
      put_quantised(v, planes.k8 + to, planes.k_scales + entry);
      take_bf16(a.v + at * a.ld + c, kTaken, v);
      put_quantised(v, planes.v8 + to, planes.v_scales + entry);
    } else {
      put_bf16(planes.k + to, kTaken, v);
      store16(planes.v + to, load16(a.v + at * a.ld + c));
    }
  }
}

bool is_on_boundaries(const CacheHeads& a) {
  bool planes = true;
  for (int b = 0; b < a.batch; ++b) {
    const CachePlanes& to = a.cache[b];
    planes = planes && is_aligned(to.k, 16) && is_aligned(to.v, 16) && is_aligned(to.k8, 16) && is_aligned(to.v8, 16);
  }
  return planes && is_aligned(a.q, 16) && is_aligned(a.k, 16) && is_aligned(a.v, 16) && a.ld % 8 == 0 &&
         is_aligned(a.norm_q, 16) && is_aligned(a.norm_k, 16) && is_aligned(a.cos, 16) && is_aligned(a.sin, 16);
}

// Planes of one kind with all that belongs to them.
bool is_whole(const CachePlanes& planes, bool is_quantised) {
  if (!is_quantised) return planes.k != nullptr && planes.v != nullptr && planes.k8 == nullptr;
  return planes.k8 != nullptr && planes.v8 != nullptr && planes.k_scales != nullptr && planes.v_scales != nullptr;
}

}  // namespace

Outcome cache_heads(const CacheHeads& a, Stream stream) {
  if (a.rows == 0) return Outcome::launched;
  if (a.rows < 0 || a.batch < 1 || a.batch > kGuidanceRows || a.heads < 1 || a.heads > 1024 || a.norm_width < 1 ||
      a.norm_width > a.heads * kHeadDim || a.ld < a.heads * kHeadDim || (a.q == nullptr && a.k == nullptr) ||
      (a.q != nullptr && a.norm_q == nullptr) || (a.cos == nullptr) != (a.sin == nullptr))
    return Outcome::bad_shape;
  const bool is_quantised = a.k != nullptr && a.cache[0].k8 != nullptr;
  if (a.k != nullptr) {
    if (a.norm_k == nullptr || a.v == nullptr || a.slots == nullptr || a.plane_rows < a.rows) return Outcome::bad_shape;
    for (int b = 0; b < a.batch; ++b)
      if (!is_whole(a.cache[b], is_quantised)) return Outcome::bad_shape;
  }
  if (!is_on_boundaries(a)) return Outcome::misaligned;
  const std::uint32_t parts = a.q != nullptr && a.k != nullptr ? 2 : 1;
  const LaunchShape shape{{static_cast<std::uint32_t>(a.rows * a.batch), parts, 1}, kRowThreads, kRowWarps * 4, stream};
  return launch(is_quantised ? cache_heads_kernel<true> : cache_heads_kernel<false>, shape, a);
}

}  // namespace premotor::cuda
