// The row-wise kernels' loops over vectors (kernels.h has what they compute). Part of kernels.cpp, which is compiled
// once per instruction set; like vectors.h, everything lies in the unnamed namespace of one.
//
// Sums run in kSums vectors side by side, which are added in a fixed tree: with 16 to 64 partial sums a row of some
// thousand floats is summed as exactly as its values deserve, and a row's result does not depend on its neighbours.
#pragma once

#include "ops/cpu/vectors.h"

namespace premotor::ops::PREMOTOR_ISA {
namespace {

constexpr int kSums = 4;

// Sums the lanes in a fixed tree.
inline float lane_sum(F v) {
  float a[W];
  __builtin_memcpy(a, &v, sizeof a);
  for (int half = W / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) a[i] += a[i + half];
  return a[0];
}

// The sum of function(x[i]) for i < n. The last floats go through a vector padded with `neutral`, whose function is 0.
template <typename Function>
inline float sum_of(const float* x, std::int64_t n, float neutral, Function function) {
  F sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums * W <= n; i += kSums * W)
    for (int j = 0; j < kSums; ++j) sums[j] += function(load(x + i + j * W));
  for (; i + W <= n; i += W) sums[0] += function(load(x + i));
  if (i < n) {
    float tail[W];
    for (int j = 0; j < W; ++j) tail[j] = i + j < n ? x[i + j] : neutral;
    sums[1] += function(load(tail));
  }
  return lane_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

inline float root(float x) { return __builtin_sqrtf(x); }

// n floats from up to three rows and back, whole vectors and a padded one: to[i] = function(i, vector of x).
template <typename Function>
inline void map_row(const float* x, std::int64_t n, float* to, Function function) {
  std::int64_t i = 0;
  for (; i + W <= n; i += W) store(to + i, function(load(x + i), [i](const float* p) { return load(p + i); }));
  if (i == n) return;
  float tail[W] = {};
  for (std::int64_t j = i; j < n; ++j) tail[j - i] = x[j];
  const F y = function(load(tail), [i, n](const float* p) {
    float part[W] = {};
    for (std::int64_t j = i; j < n; ++j) part[j - i] = p[j];
    return load(part);
  });
  store(tail, y);
  for (std::int64_t j = i; j < n; ++j) to[j] = tail[j - i];
}

template <bool is_affine, bool is_modulated>
inline void normalise_row(const float* x, float mean, float inverse, const RowNorm& a, float* y) {
  map_row(x, a.dim, y, [&](F v, auto at) {
    v = (v - mean) * inverse;
    if constexpr (is_affine) v = v * at(a.weight) + at(a.bias);
    if constexpr (is_modulated) v = v * (at(a.scale) + 1.0f) + at(a.shift);
    return v;
  });
}

inline void round_row(float* x, std::int64_t n) {
  map_row(x, n, x, [](F v, auto) { return round_vector(v); });
}

void layer_norm_row(const float* x, const RowNorm& a, float* y) {
  const auto count = static_cast<float>(a.dim);
  const float mean = sum_of(x, a.dim, 0.0f, [](F v) { return v; }) / count;
  const float squares = sum_of(x, a.dim, mean, [mean](F v) { return (v - mean) * (v - mean); });
  const float inverse = 1.0f / root(squares / count + a.eps);
  if (a.weight != nullptr)
    a.scale != nullptr ? normalise_row<true, true>(x, mean, inverse, a, y)
                       : normalise_row<true, false>(x, mean, inverse, a, y);
  else
    a.scale != nullptr ? normalise_row<false, true>(x, mean, inverse, a, y)
                       : normalise_row<false, false>(x, mean, inverse, a, y);
  if (a.rounding == Rounding::bf16) round_row(y, a.dim);
}

void rms_norm_row(float* x, std::int64_t n, float eps, const float* weight, Rounding rounding) {
  const float squares = sum_of(x, n, 0.0f, [](F v) { return v * v; });
  const float inverse = 1.0f / root(squares / static_cast<float>(n) + eps);
  map_row(x, n, x, [&](F v, auto at) { return v * inverse * at(weight); });
  if (rounding == Rounding::bf16) round_row(x, n);
}

// Half a vector of floats and as many doubles.
typedef float P __attribute__((vector_size(W * 2)));
typedef double D __attribute__((vector_size(W * 4)));
constexpr int kDoubles = W / 2;
static_assert(kDoubles == 2 || kDoubles == 4 || kDoubles == 8);

inline D load_doubles(const float* p) {
  P v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, D);
}

// The two of each pair change places.
template <int count, typename Doubles>
inline Doubles swap_pairs(Doubles v) {
  if constexpr (count == 2)
    return __builtin_shufflevector(v, v, 1, 0);
  else if constexpr (count == 4)
    return __builtin_shufflevector(v, v, 1, 0, 3, 2);
  else
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
}

// Products of floats are exact in double precision, so each result is rounded twice, to double and to float, whether or
// not the compiler fuses: all instruction sets agree in every bit.
void rope_row(float* x, std::int64_t heads, std::int64_t head_dim, const float* cos, const float* sin,
              Rounding rounding) {
  constexpr std::int64_t kStretch = 128;  // values of a head whose angles are spread out at once
  float spread_cos[kStretch], spread_sin[kStretch];
  for (std::int64_t begin = 0; begin < head_dim; begin += kStretch) {
    const std::int64_t count = head_dim - begin < kStretch ? head_dim - begin : kStretch;
    for (std::int64_t p = 0; p < count / 2; ++p) {
      spread_cos[2 * p] = spread_cos[2 * p + 1] = cos[begin / 2 + p];
      spread_sin[2 * p + 1] = sin[begin / 2 + p];
      spread_sin[2 * p] = -sin[begin / 2 + p];
    }
    for (std::int64_t h = 0; h < heads; ++h) {
      float* v = x + h * head_dim + begin;
      std::int64_t i = 0;
      for (; i + kDoubles <= count; i += kDoubles) {
        const D value = load_doubles(v + i);
        const P turned = __builtin_convertvector(
            value * load_doubles(spread_cos + i) + swap_pairs<kDoubles>(value) * load_doubles(spread_sin + i), P);
        __builtin_memcpy(v + i, &turned, sizeof turned);
      }
      for (; i < count; i += 2) {
        const double re = v[i], im = v[i + 1], c = spread_cos[i], s = spread_sin[i + 1];
        v[i] = static_cast<float>(re * c - im * s);
        v[i + 1] = static_cast<float>(re * s + im * c);
      }
    }
  }
  if (rounding == Rounding::bf16) round_row(x, heads * head_dim);
}

void add_gated_row(float* h, const float* a, const float* gate, std::int64_t n, Rounding rounding) {
  if (gate == nullptr)
    map_row(h, n, h, [&](F v, auto at) { return v + at(a); });
  else
    map_row(h, n, h, [&](F v, auto at) { return v + at(a) * at(gate); });
  if (rounding == Rounding::bf16) round_row(h, n);
}

template <bool is_silu, bool is_rounded>
inline void normalise_pixel(const float* x, std::int64_t n, const float* gamma, float norm, float scale, float* y) {
  const auto held = [](F v) { return is_rounded ? round_vector(v) : v; };
  map_row(x, n, y, [&](F v, auto at) {
    v = held(held(held(v / norm) * scale) * at(gamma));
    return is_silu ? held(silu_vector(v)) : v;
  });
}

template <bool is_silu, bool is_rounded>
void normalise_pixels(const float* x, std::int64_t rows, std::int64_t n, const float* gamma, float* y) {
  const float scale = root(static_cast<float>(n));
  for (std::int64_t r = 0; r < rows; ++r) {
    float norm = root(sum_of(x + r * n, n, 0.0f, [](F v) { return v * v; }));
    if (is_rounded) norm = round_vector(splat(norm))[0];
    // Not the other way round: the norm of a broken pixel is no number, and stays none.
    normalise_pixel<is_silu, is_rounded>(x + r * n, n, gamma, norm < 1e-12f ? 1e-12f : norm, scale, y + r * n);
  }
}

void normalise_channels(const float* x, std::int64_t rows, std::int64_t n, const float* gamma, bool is_silu,
                        Rounding rounding, float* y) {
  if (rounding == Rounding::bf16)
    (is_silu ? normalise_pixels<true, true> : normalise_pixels<false, true>)(x, rows, n, gamma, y);
  else
    (is_silu ? normalise_pixels<true, false> : normalise_pixels<false, false>)(x, rows, n, gamma, y);
}

}  // namespace
}  // namespace premotor::ops::PREMOTOR_ISA
