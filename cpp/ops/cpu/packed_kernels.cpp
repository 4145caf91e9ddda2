// Register tiles over packed weights, compiled once per instruction set like kernels.cpp. A tile is up to MR rows by V
// vectors of a panel's 32 columns:
//
//     x unit u     w panel, unit u
//     [row 0 ]     [ col 0 .. W-1 | col W .. 2W-1 | ... ]      acc[row][vector] += broadcast(x[u][row]) . w[u][vector]
//     [ ...  ]
//     [row 11]     12 x 2 accumulators, 2 vectors of w and 1 of x fill the 32 registers of AVX-512; 6 x 2 those of AVX2
#include "ops/cpu/packed_kernels.h"

#include "ops/cpu/packed_units.h"
#include "ops/cpu/widen_int4.h"

#if defined(__aarch64__)
#include "ops/cpu/packed_arm.h"
#else
#include "ops/cpu/packed_steps.h"
#endif

#define PREMOTOR_TEXT_(x) #x
#define PREMOTOR_TEXT(x) PREMOTOR_TEXT_(x)

namespace premotor::ops::PREMOTOR_ISA {
namespace {

#if !defined(__aarch64__)  // whose tiles are those of packed_arm.h
template <typename Step, int M>
void multiply_rows(const PackedTile& t) {
  using Sum = typename Step::Sum;
  Byte* sum = static_cast<Byte*>(t.sum);
  for (std::int64_t c = 0; c < kColumns; c += V * W) {
    const Byte* x = static_cast<const Byte*>(t.x);
    const Byte* w = static_cast<const Byte*>(t.w) + c * kUnitBytes;
    Sum acc[M][V];
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < V; ++j) acc[i][j] = Sum{};
    const Byte* ahead = static_cast<const Byte*>(t.ahead);
    for (std::int64_t u = 0; u < t.units; ++u) {
      __builtin_prefetch(ahead);
      __builtin_prefetch(ahead + 64);
      ahead += t.ahead_step;
      Step::template add<kPitchUnits * Step::x_bytes>(x, w, acc);
      x += Step::x_bytes;
      w += kColumns * kUnitBytes;
    }
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < V; ++j) put_sum(sum + (i * kColumns + c + j * W) * kUnitBytes, acc[i][j], t.is_carried);
  }
}

template <typename Step, int M = MR>
void multiply(const PackedTile& t) {
  if (t.rows == M) return multiply_rows<Step, M>(t);
  if constexpr (M > 1) multiply<Step, M - 1>(t);
}

// Windows of M pixels by C vectors of columns. A pixel's address is looked up once for kStretch values of its window.
template <int M, int C>
void window_pixels(const WindowTile& t, std::int64_t column) {
  constexpr int kStretch = C == 1 ? 4 : 2;
  F acc[M][C];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < C; ++j) acc[i][j] = F{};
  const float* w = t.w + column;
  const auto add = [&]<int count>(const float* x) __attribute__((always_inline)) {
    F b[count][C];
    for (int k = 0; k < count; ++k)
      for (int j = 0; j < C; ++j) b[k][j] = load(w + k * kColumns + j * W);
    for (int i = 0; i < M; ++i) {
      const float* value = x + i * t.step;
      for (int k = 0; k < count; ++k)
        for (int j = 0; j < C; ++j) acc[i][j] += splat(value[k]) * b[k][j];
    }
    w += count * kColumns;
  };
  for (std::int64_t run = 0; run < t.runs; ++run) {
    const float* x = t.x + t.starts[run];
    std::int64_t p = 0;
    for (; p + kStretch <= t.length; p += kStretch) add.template operator()<kStretch>(x + p);
    for (; p < t.length; ++p) add.template operator()<1>(x + p);
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < C; ++j) store(t.sum + i * kColumns + column + j * W, acc[i][j]);
}

template <int C, int M>
void window_columns(const WindowTile& t, std::int64_t column) {
  if (t.pixels == M) return window_pixels<M, C>(t, column);
  if constexpr (M > 1) window_columns<C, M - 1>(t, column);
}

// Sixteen columns at a time, or 32 where two vectors hold them. Tiles of sixteen columns are taller on AVX-512.
constexpr int kHalf = 16 / W;
constexpr int kHalfPixels = W >= 16 ? 24 : MR, kWholePixels = MR;

void multiply_window(const WindowTile& t) {
  if constexpr (W >= 16) {
    if (t.columns > 16) return window_columns<2, MR>(t, 0);
  }
  for (std::int64_t column = 0; column < t.columns; column += 16) window_columns<kHalf, kHalfPixels>(t, column);
}
#endif

// `fill(row, first, count, out)` writes the units first .. first + count of one row. They go where PackedKernels says:
// blocks of a row one below the other, or else units of all rows together, converted a stretch at a time so that what
// shares cache lines is written while those are near; a row's units of a group then lie together, and the last group
// may be smaller.
template <std::int64_t unit_bytes, std::int64_t group, typename Fill>
inline void convert_rows(std::int64_t rows, std::int64_t units, Byte* to, Fill fill) {
  constexpr std::int64_t kStretch = 128;
  if constexpr (kPitchUnits > 0) {
    for (std::int64_t first = 0; first < units; first += kStretch) {
      const std::int64_t count = units - first < kStretch ? units - first : kStretch;
      const std::int64_t in_block = first % kPackedBlock;
      Byte* block = to + (first / kPackedBlock * kPitchUnits * rows + in_block) * unit_bytes;
      for (std::int64_t r = 0; r < rows; ++r) fill(r, first, count, block + r * kPitchUnits * unit_bytes);
    }
    return;
  }
  alignas(64) Byte stretch[kStretch * unit_bytes];
  for (std::int64_t first = 0; first < units; first += kStretch) {
    const std::int64_t count = units - first < kStretch ? units - first : kStretch;
    for (std::int64_t r = 0; r < rows; ++r) {
      fill(r, first, count, stretch);
      Byte* out = to + first * rows * unit_bytes;
      std::int64_t u = 0;
      for (; u + group <= count; u += group)
        __builtin_memcpy(out + (u * rows + r * group) * unit_bytes, stretch + u * unit_bytes, group * unit_bytes);
      const std::int64_t rest = (count - u) * unit_bytes;
      if (rest > 0) __builtin_memcpy(out + u * rows * unit_bytes + r * rest, stretch + u * unit_bytes, rest);
    }
  }
}

// Writes function(x[0 .. n)) as floats to `to`, zeros behind it up to `padded`.
template <typename Function>
inline void map_floats(const float* x, std::int64_t n, std::int64_t padded, float* to, Function function) {
  std::int64_t i = 0;
  for (; i + W <= n; i += W) store(to + i, function(load(x + i)));
  if (i < n) {
    float tail[W] = {};
    for (std::int64_t j = i; j < n; ++j) tail[j - i] = x[j];
    store(tail, function(load(tail)));
    for (std::int64_t j = i; j < n; ++j) to[j] = tail[j - i];
  }
  for (i = n; i < padded; ++i) to[i] = 0;
}

// f32 activations, `unit` of them in a unit.
template <int unit, bool is_rounded>
void convert_floats(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t k, void* to, float*) {
  const auto fill = [=](std::int64_t r, std::int64_t first, std::int64_t count, Byte* out) {
    const std::int64_t begin = first * unit, end = begin + count * unit < k ? begin + count * unit : k;
    map_floats(x + r * ldx + begin, end - begin, count * unit, reinterpret_cast<float*>(out),
               [](F v) { return is_rounded ? round_vector(v) : v; });
  };
  convert_rows<unit * 4, 1>(rows, (k + unit - 1) / unit, static_cast<Byte*>(to), fill);
}

// A vector as bf16 values.
inline void store_halves(Byte* to, F v) {
  const U high = (U)as_units(round_vector(v)) >> 16;
  const H half = __builtin_convertvector(high, H);
  __builtin_memcpy(to, &half, sizeof half);
}

// Activations rounded to bf16, two to a unit.
void convert_pairs(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t k, void* to, float*) {
  const auto fill = [=](std::int64_t r, std::int64_t first, std::int64_t count, Byte* out) {
    const std::int64_t begin = first * 2, end = begin + count * 2 < k ? begin + count * 2 : k;
    const float* from = x + r * ldx + begin;
    std::int64_t i = 0;
    for (; begin + i + W <= end; i += W) store_halves(out + i * 2, load(from + i));
    if (i >= count * 2) return;
    float tail[2 * W] = {};  // the rest, and zeros
    for (std::int64_t j = i; begin + j < end; ++j) tail[j - i] = from[j];
    Byte halves[4 * W];
    for (int j = 0; j < 2; ++j) store_halves(halves + j * 2 * W, load(tail + j * W));
    __builtin_memcpy(out + i * 2, halves, static_cast<std::size_t>(count * 2 - i) * 2);
  };
  convert_rows<4, kGroupDot>(rows, (k + 1) / 2, static_cast<Byte*>(to), fill);
}

// max|x| / 127, not below the smallest normal float; not finite when x is not. Magnitudes compare as integers, where a
// NaN is the largest.
inline float row_scale(const float* x, std::int64_t k) {
  I most = I{};
  float lanes[W];
  for (std::int64_t i = 0; i < k; i += W) {
    if (i + W <= k) {
      __builtin_memcpy(lanes, x + i, sizeof lanes);
    } else {
      for (int j = 0; j < W; ++j) lanes[j] = i + j < k ? x[i + j] : 0.0f;
    }
    const I size = as_units(load(lanes)) & 0x7fffffff;
    most = size > most ? size : most;
  }
  std::int32_t best = most[0];
  for (int j = 1; j < W; ++j) best = most[j] > best ? most[j] : best;
  float amax;
  __builtin_memcpy(&amax, &best, sizeof amax);
  const float scale = amax / 127.0f;
  return scale < 1.17549435e-38f ? 1.17549435e-38f : scale;
}

// To the nearest integers, ties to even.
inline I to_integers(F v) {
#if defined(__AVX512F__)
  return (I)_mm512_maskz_cvtps_epi32(0xffff, (__m512)v);
#elif defined(__AVX2__)
  return (I)_mm256_cvtps_epi32((__m256)v);
#elif defined(__SSE2__)
  return (I)_mm_cvtps_epi32((__m128)v);
#elif defined(__aarch64__)
  return (I)vcvtnq_s32_f32((float32x4_t)v);
#endif
}

// A vector of quantised values as units.
inline void store_quantised(Byte* to, I q) {
  if constexpr (StepInt8::x_bytes == 4) {
#if defined(__AVX512F__)
    const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)(kIsOffset ? q + 128 : q));
    __builtin_memcpy(to, &bytes, sizeof bytes);
#else
    for (int i = 0; i < W; ++i) to[i] = static_cast<Byte>(q[i] + (kIsOffset ? 128 : 0));
#endif
  } else {
    for (int i = 0; i < W; i += 4) {
      const std::int16_t wide[4] = {static_cast<std::int16_t>(q[i]), static_cast<std::int16_t>(q[i + 2]),
                                    static_cast<std::int16_t>(q[i + 1]), static_cast<std::int16_t>(q[i + 3])};
      __builtin_memcpy(to + i * 2, wide, sizeof wide);
    }
  }
}

// Activations quantised per row, four to a unit. One multiplication and a conversion, nothing that one compiler would
// fuse and another not: all instruction sets quantise alike. The last vector may reach past the units, in the place
// that a block has for them.
void convert_int8(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t k, void* to, float* scales) {
  for (std::int64_t r = 0; r < rows; ++r) scales[r] = row_scale(x + r * ldx, k);
  const auto fill = [=](std::int64_t r, std::int64_t first, std::int64_t count, Byte* out) {
    const std::int64_t begin = first * 4, end = begin + count * 4 < k ? begin + count * 4 : k;
    const float* from = x + r * ldx + begin;
    const F inverse = splat(1.0f / scales[r]);
    for (std::int64_t i = 0; i < count * 4; i += W) {
      float tail[W] = {};
      const bool is_whole = begin + i + W <= end;
      if (!is_whole)
        for (std::int64_t j = i; begin + j < end; ++j) tail[j - i] = from[j];
      store_quantised(out + i / 4 * StepInt8::x_bytes, to_integers(load(is_whole ? from + i : tail) * inverse));
    }
  };
  convert_rows<StepInt8::x_bytes, kGroupInt8>(rows, (k + 3) / 4, static_cast<Byte*>(to), fill);
}

inline F to_output(F sum, const PackedFinish&, std::int64_t, std::int64_t) { return sum; }
inline F to_output(I sum, const PackedFinish& a, std::int64_t r, std::int64_t c) {
  if constexpr (kIsOffset) sum -= load_units(reinterpret_cast<const Byte*>(a.sums + c)) << 7;
  return __builtin_convertvector(sum, F) * (load(a.w_scale + c) * a.x_scale[r]);
}

inline F activate(F v, Activation act) {
  if (act == Activation::gelu_tanh) return gelu_vector(v);
  return act == Activation::silu ? silu_vector(v) : v;
}

// A whole panel's width is copied by vectors, not by a call.
inline void copy_columns(float* to, const float* from, std::int64_t columns) {
  if (columns == kColumns)
    __builtin_memcpy(to, from, kColumns * 4);
  else
    __builtin_memcpy(to, from, static_cast<std::size_t>(columns) * 4);
}

// A row of at most a panel's width, whole: the row itself, or a padded copy of a narrow one.
inline const float* whole_row(const float* row, std::int64_t columns, float (&copy)[kColumns]) {
  if (columns == kColumns) return row;
  copy_columns(copy, row, columns);
  return copy;
}

// One finished row onto its residual.
inline void add_to_residual(const PackedFinish& a, std::int64_t r, const float* result) {
  float* to = a.residual + r * a.residual_stride;
  float old_copy[kColumns] = {}, gate_copy[kColumns] = {}, sum[kColumns];
  const float* old = whole_row(to, a.columns, old_copy);
  const float* gate = nullptr;
  if (a.gate != nullptr)
    gate = whole_row(a.gate + (a.row_map == nullptr ? 0 : a.row_map[r]) * a.gate_stride, a.columns, gate_copy);
  for (std::int64_t c = 0; c < kColumns; c += W) {
    F v = load(result + c);
    v = gate == nullptr ? load(old + c) + v : load(old + c) + v * load(gate + c);
    store(sum + c, a.rounding == Rounding::bf16 ? round_vector(v) : v);
  }
  copy_columns(to, sum, a.columns);
}

template <typename Sum>
inline void finish_row(const PackedFinish& a, std::int64_t r, const Byte* sums, const float* bias, float* to) {
  for (std::int64_t c = 0; c < kColumns; c += W) {
    Sum sum;
    __builtin_memcpy(&sum, sums + c * kUnitBytes, sizeof sum);
    F v = to_output(sum, a, r, c) + load(bias + c);
    if (a.rounding == Rounding::bf16) v = round_vector(v);
    if (a.act != Activation::none) {
      v = activate(v, a.act);
      if (a.rounding == Rounding::bf16) v = round_vector(v);
    }
    store(to + c, v);
  }
}

template <typename Sum>
void finish(const PackedFinish& a) {
  float bias[kColumns] = {};
  if (a.bias != nullptr) copy_columns(bias, a.bias, a.columns);
  const Byte* sums = static_cast<const Byte*>(a.sum);
  for (std::int64_t r = 0; r < a.rows; ++r, sums += kColumns * kUnitBytes) {
    float* y = a.y + r * a.ldy;
    if (a.columns == kColumns && a.residual == nullptr) {
      finish_row<Sum>(a, r, sums, bias, y);
      continue;
    }
    float edge[kColumns];  // a narrow panel goes through a padded row, and so does what is added to a residual
    finish_row<Sum>(a, r, sums, bias, edge);
    if (a.residual != nullptr)
      add_to_residual(a, r, edge);
    else
      copy_columns(y, edge, a.columns);
  }
}

}  // namespace

const PackedKernels& packed_kernels() {
  constexpr bool is_dot = StepDot::x_bytes == 4, is_int8 = kHasInt8;
  static const PackedKernels table = {
      "cpu-" PREMOTOR_TEXT(PREMOTOR_ISA),
      MR,
      kPitchUnits,
      {StepF32::x_bytes, StepWiden::x_bytes, StepDot::x_bytes, StepInt8::x_bytes},
      {true, true, is_dot, is_int8},
      {convert_floats<1, false>, convert_floats<2, false>, is_dot ? convert_pairs : convert_floats<2, true>,
       convert_int8},
      {multiply<StepF32>, multiply<StepWiden>, multiply<StepDot>, multiply<StepInt8>},
      {kHalfPixels, kWholePixels},
      multiply_window,
      finish<F>,
      finish<I>,
      widen_int4,
  };
  return table;
}

}  // namespace premotor::ops::PREMOTOR_ISA
