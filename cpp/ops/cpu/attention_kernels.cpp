// Register tiles of attention, compiled once per instruction set. The tiles are those of packed products
// (packed_kernels.cpp): queries against panels of keys, then softmax weights, row-major, against panels of values.
#include "ops/cpu/attention_kernels.h"

#include "ops/cpu/packed_steps.h"

#define PREMOTOR_TEXT_(x) #x
#define PREMOTOR_TEXT(x) PREMOTOR_TEXT_(x)

namespace premotor::ops::PREMOTOR_ISA {
namespace {

constexpr std::int64_t kPitchBytes = kWeightPitch * 4;

constexpr float kUnattended = -1e30f;  // a score

// Of one weight of a row, for every step.
template <typename Step>
constexpr std::int64_t kWeightBytes = Step::x_bytes / 2;
template <>
constexpr std::int64_t kWeightBytes<StepF32> = 4;

template <typename Step, int M>
inline void score_panel(const ScoreTile& t) {
  const Byte* ahead = reinterpret_cast<const Byte*>(t.ahead);
  for (std::int64_t c = 0; c < kColumns; c += V * W) {
    F acc[M][V];
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < V; ++j) acc[i][j] = F{};
    const Byte* x = static_cast<const Byte*>(t.q);
    const Byte* w = reinterpret_cast<const Byte*>(t.keys) + c * kUnitBytes;
    for (std::int64_t u = 0; u < t.units; ++u) {
      __builtin_prefetch(ahead);
      __builtin_prefetch(ahead + 64);
      ahead += t.ahead_step;
      Step::template add<kQueryPitchBytes>(x, w, acc);
      x += Step::x_bytes;
      w += kColumns * kUnitBytes;
    }
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < V; ++j) store(t.scores + i * kColumns + c + j * W, acc[i][j]);
  }
}

template <typename Step, int M = MR>
void scores(const ScoreTile& t) {
  if (t.rows == M) return score_panel<Step, M>(t);
  if constexpr (M > 1) scores<Step, M - 1>(t);
}

template <bool is_pairs>
void convert(const float* q, std::int64_t ldq, std::int64_t rows, std::int64_t head_dim, void* to) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* from = q + r * ldq;
    Byte* row = static_cast<Byte*>(to) + r * kQueryPitchBytes;
    if constexpr (!is_pairs) {
      __builtin_memcpy(row, from, static_cast<std::size_t>(head_dim) * 4);
      if (head_dim % 2 != 0) __builtin_memset(row + head_dim * 4, 0, 4);
      continue;
    }
    for (std::int64_t c = 0; c < head_dim; c += W) {
      F values;
      if (c + W <= head_dim) {
        values = load(from + c);
      } else {
        float lanes[W] = {};
        for (std::int64_t i = c; i < head_dim; ++i) lanes[i - c] = from[i];
        values = load(lanes);
      }
      const U high = (U)as_units(round_vector(values)) >> 16;
      const H half = __builtin_convertvector(high, H);
      __builtin_memcpy(row + c * 2, &half, sizeof half);
    }
  }
}

// 2^x for x <= 0, x = n + f, |f| <= 1/2: relative error below 2e-7 by a polynomial of degree 6 (coefficients of Cephes'
// exp2f, S. Moshier), or below 5e-6 by one of degree 4 (least squares at Chebyshev points), which is enough for what is
// rounded to bf16. Below -126 zero or the smallest normal float; NaN stays. x is finite, or minus infinity when asked.
template <bool is_coarse, bool has_infinity>
inline F exp2_vector(F x) {
#if defined(__AVX512F__)
  if constexpr (has_infinity) x = -126.0f > x ? splat(-126.0f) : x;
  const F n = (F)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, 8);  // to the nearest integer
#else
  x = -126.0f > x ? splat(-126.0f) : x;
  const F shifted = x + 12582912.0f;  // 1.5 * 2^23
  const F n = shifted - 12582912.0f;
#endif
  const F f = x - n;
  F p;
  if constexpr (is_coarse) {
    p = splat(9.600395517e-03f);
    p = p * f + 5.591689383e-02f;
    p = p * f + 2.402371846e-01f;
    p = p * f + 6.931219948e-01f;
  } else {
    p = splat(1.535336188319500e-4f);
    p = p * f + 1.339887440266574e-3f;
    p = p * f + 9.618437357674640e-3f;
    p = p * f + 5.550332471162809e-2f;
    p = p * f + 2.402264791363012e-1f;
    p = p * f + 6.931472028550421e-1f;
  }
  p = p * f + 1.0f;
#if defined(__AVX512F__)
  return (F)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)n);
#else
  const I exponent = (__builtin_convertvector(n, I) + 127) << 23;
  return p * as_floats(exponent);
#endif
}

inline I lane_numbers() {
  I lanes;
  for (int i = 0; i < W; ++i) lanes[i] = i;
  return lanes;
}

inline F larger(F a, F b) { return a > b ? a : b; }

// Scores that are not attended become so low that their weights are zero.
void mask_panel(float* scores, std::int64_t rows, std::uint32_t mask) {
  const I lanes = lane_numbers();
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < kColumns; c += W) {
      const I bits = (static_cast<std::int32_t>(mask >> c) >> lanes) & 1;
      const F s = load(scores + r * kColumns + c);
      store(scores + r * kColumns + c, bits != 0 ? s : splat(kUnattended));
    }
}

// Of all lanes, halving the vector.
template <int lanes, typename Function>
inline float reduce(const float* v, Function function) {
  if constexpr (lanes == 1) {
    return v[0];
  } else {
    float half[lanes / 2];
    for (int i = 0; i < lanes / 2; ++i) half[i] = function(v[i], v[i + lanes / 2]);
    return reduce<lanes / 2>(half, function);
  }
}
inline float reduce_largest(F v) {
  float lanes[W];
  store(lanes, v);
  return reduce<W>(lanes, [](float a, float b) { return a > b ? a : b; });
}
inline float reduce_sum(F v) {
  float lanes[W];
  store(lanes, v);
  return reduce<W>(lanes, [](float a, float b) { return a + b; });
}

// Two vectors of weights, rounded, as bf16 values in order.
inline void store_pairs(std::uint16_t* to, F a, F b) {
#if defined(__AVX512BF16__)
  const auto both = _mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
  __builtin_memcpy(to, &both, sizeof both);
#else
  const U high_a = (U)as_units(round_vector(a)) >> 16, high_b = (U)as_units(round_vector(b)) >> 16;
  const H half_a = __builtin_convertvector(high_a, H), half_b = __builtin_convertvector(high_b, H);
  __builtin_memcpy(to, &half_a, sizeof half_a);
  __builtin_memcpy(to + W, &half_b, sizeof half_b);
#endif
}

// Scores of an int8 cache's integers become scores of what they stand for.
void scale_scores(const WeighTile& t) {
  for (std::int64_t p = 0; p < t.count; ++p)
    for (std::int64_t r = 0; r < t.rows; ++r) {
      float* row = t.scores + (p * t.rows + r) * kColumns;
      for (std::int64_t c = 0; c < kColumns; c += W)
        store(row + c, load(row + c) * load(t.key_scales + p * kColumns + c));
    }
}

// The chunk's largest scores, and what becomes of what is there: top, keep and the rescaled sum of every row.
void raise_tops(const WeighTile& t) {
  alignas(64) float chunk[kQueriesMost] = {}, keep[kQueriesMost] = {};
  for (std::int64_t r = 0; r < t.rows; ++r) {
    F most = splat(-__builtin_inff());
    for (std::int64_t p = 0; p < t.count; ++p)
      for (std::int64_t c = 0; c < kColumns; c += W)
        most = larger(load(t.scores + (p * t.rows + r) * kColumns + c), most);
    chunk[r] = reduce_largest(most) * t.scale_log2;
  }
  for (std::int64_t r = 0; r < t.rows; ++r) {
    chunk[r] = chunk[r] > t.top[r] ? chunk[r] : t.top[r];
    keep[r] = t.top[r] - chunk[r];  // minus infinity for the first chunk
    t.top[r] = chunk[r];
  }
  for (std::int64_t r = 0; r < kQueriesMost; r += W) store(keep + r, exp2_vector<false, true>(load(keep + r)));
  for (std::int64_t r = 0; r < t.rows; ++r) {
    t.keep[r] = keep[r];
    t.sum[r] *= keep[r];  // 0 before the first chunk
  }
}

template <bool is_pairs, bool is_scaled>
void weigh_rows(const WeighTile& t) {
  for (std::int64_t r = 0; r < t.rows; ++r) {
    const F top = splat(t.top[r]);
    F sum[2] = {F{}, F{}};
    float* weights = t.weights + r * kWeightPitch;
    for (std::int64_t p = 0; p < t.count; ++p) {
      const float* scores = t.scores + (p * t.rows + r) * kColumns;
      for (std::int64_t c = 0; c < kColumns; c += 2 * W) {
        F e[2];
        for (int j = 0; j < 2; ++j) {
          e[j] = exp2_vector<is_pairs, false>(load(scores + c + j * W) * t.scale_log2 - top);
          sum[j] += e[j];
          if constexpr (is_scaled) e[j] *= load(t.value_scales + p * kColumns + c + j * W);
        }
        if constexpr (is_pairs) {
          store_pairs(reinterpret_cast<std::uint16_t*>(weights) + p * kColumns + c, e[0], e[1]);
        } else {
          for (int j = 0; j < 2; ++j)
            store(weights + p * kColumns + c + j * W, t.is_rounded ? round_vector(e[j]) : e[j]);
        }
      }
    }
    t.sum[r] += reduce_sum(sum[0] + sum[1]);
  }
}

template <bool is_pairs>
void weigh(const WeighTile& t) {
  if (t.key_scales != nullptr) scale_scores(t);
  for (std::int64_t p = 0; p < t.count; ++p)
    if (t.masks[p] != ~std::uint32_t{0}) mask_panel(t.scores + p * t.rows * kColumns, t.rows, t.masks[p]);
  raise_tops(t);
  t.value_scales != nullptr ? weigh_rows<is_pairs, true>(t) : weigh_rows<is_pairs, false>(t);
}

void widen(const WidenTile& t) {
  for (std::int64_t i = 0; i < t.count; i += 32) {
#if defined(__AVX512BF16__)
    const __m512 low = _mm512_maskz_cvtepi32_ps(
        0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(t.from + i))));
    const __m512 high = _mm512_maskz_cvtepi32_ps(
        0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(t.from + i + 16))));
    const auto both = _mm512_cvtne2ps_pbh(high, low);
    __builtin_memcpy(t.to + i, &both, sizeof both);
#else
    for (std::int64_t j = i; j < i + 32; ++j) {
      const float value = t.from[j];
      std::uint32_t bits;
      __builtin_memcpy(&bits, &value, sizeof bits);
      t.to[j] = static_cast<std::uint16_t>(bits >> 16);
    }
#endif
  }
}

// C vectors of columns, all runs.
template <typename Step, int M, int C>
inline void accumulate_columns(const ValueTile& t, std::int64_t column) {
  const Byte* ahead = reinterpret_cast<const Byte*>(t.ahead);
  F acc[M][C];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < C; ++j) acc[i][j] = F{};
  for (std::int64_t run = 0; run < t.count; ++run) {
    const ValueRun& from = t.runs[run];
    const Byte* x = reinterpret_cast<const Byte*>(t.weights) + from.first * kWeightBytes<Step>;
    const Byte* w = reinterpret_cast<const Byte*>(from.values) + t.panel * from.stride + column * kUnitBytes;
    for (std::int64_t u = 0; u < from.units; ++u) {
      __builtin_prefetch(ahead);
      __builtin_prefetch(ahead + 64);
      ahead += t.ahead_step;
      Step::template add<kPitchBytes>(x, w, acc);
      x += Step::x_bytes;
      w += kColumns * kUnitBytes;
    }
  }
  for (int i = 0; i < M; ++i) {
    float* out = t.out + i * t.pitch + column;
    for (int j = 0; j < C; ++j) store(out + j * W, load(out + j * W) * t.keep[i] + acc[i][j]);
  }
}

template <typename Step, int M = MR>
void accumulate(const ValueTile& t) {
  if (t.rows != M) {
    if constexpr (M > 1) accumulate<Step, M - 1>(t);
    return;
  }
  std::int64_t c = 0;
  for (; c + V * W <= t.columns; c += V * W) accumulate_columns<Step, M, V>(t, c);
  for (; c < t.columns; c += W) accumulate_columns<Step, M, 1>(t, c);
}

}  // namespace

const AttentionKernels& attention_kernels() {
  constexpr bool is_dot = StepDot::x_bytes == 4;
  static const AttentionKernels table = {
      "cpu-" PREMOTOR_TEXT(PREMOTOR_ISA),
      MR,
      is_dot,
      {convert<false>, convert<false>, convert<is_dot>},
      {scores<StepF32>, scores<StepWiden>, scores<StepDot>},
      {weigh<false>, weigh<false>, weigh<is_dot>},
      {accumulate<StepF32>, accumulate<StepWiden>, accumulate<StepDot>},
      widen,
  };
  return table;
}

}  // namespace premotor::ops::PREMOTOR_ISA
