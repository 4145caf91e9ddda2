// Register tiles over packed weights, compiled once per instruction set like kernels.cpp. A tile is up to MR rows by V
// vectors of a panel's 32 columns:
//
//     x unit u     w panel, unit u
//     [row 0 ]     [ col 0 .. W-1 | col W .. 2W-1 | ... ]      acc[row][vector] += broadcast(x[u][row]) . w[u][vector]
//     [ ...  ]
//     [row 11]     12 x 2 accumulators, 2 vectors of w and 1 of x fill the 32 registers of AVX-512; 6 x 2 those of AVX2
#include "ops/cpu/packed_kernels.h"

#include "ops/cpu/vectors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PREMOTOR_TEXT_(x) #x
#define PREMOTOR_TEXT(x) PREMOTOR_TEXT_(x)

namespace premotor::ops::PREMOTOR_ISA {
namespace {

constexpr int V = W >= 8 ? 2 : 4;
#if defined(__aarch64__)
constexpr int MR = 6;
#else
constexpr int MR = W >= 16 ? 12 : (W >= 8 ? 6 : 3);
#endif
constexpr std::int64_t kColumns = kPanelColumns;
constexpr std::int64_t kUnitBytes = 4;

// How far ahead weights are fetched, in bytes: as data that is read once, past the second-level cache, where it would
// push out activations. Faster than the processor's own prefetcher with few rows, no slower with many (docs/SPEED.md).
// Reaches past the matrix's end, where a prefetch does nothing.
constexpr std::int64_t kAhead = 48 * kColumns * kUnitBytes;

typedef unsigned char Byte;

inline I load_units(const Byte* p) {
  I v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline F as_floats(I v) {
  F f;
  __builtin_memcpy(&f, &v, sizeof f);
  return f;
}
inline I as_units(F v) {
  I i;
  __builtin_memcpy(&i, &v, sizeof i);
  return i;
}
inline F broadcast_float(const Byte* p) {
  float x;
  __builtin_memcpy(&x, p, sizeof x);
  return splat(x);
}
inline I broadcast_unit(const Byte* p) {
  std::int32_t x;
  __builtin_memcpy(&x, p, sizeof x);
  return x + I{};
}

// Each step adds one unit of k: acc[i][j] += x[i] . w[j].
struct StepF32 {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 4;

  template <int M>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][V]) {
    F b[V];
    for (int j = 0; j < V; ++j) b[j] = as_floats(load_units(w + j * W * kUnitBytes));
    for (int i = 0; i < M; ++i) {
      const F a = broadcast_float(x + i * x_bytes);
      for (int j = 0; j < V; ++j) acc[i][j] += a * b[j];
    }
  }
};

// bf16 weights widened by a shift (the even value of a pair) and a mask (the odd one); activations are two floats.
struct StepWiden {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 8;

  template <int M>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][V]) {
    F b[V];
    for (int j = 0; j < V; ++j) b[j] = as_floats(load_units(w + j * W * kUnitBytes) << 16);
    for (int i = 0; i < M; ++i) {
      const F a = broadcast_float(x + i * x_bytes);
      for (int j = 0; j < V; ++j) acc[i][j] += a * b[j];
    }
    for (int j = 0; j < V; ++j) b[j] = as_floats(load_units(w + j * W * kUnitBytes) & ~0xffff);
    for (int i = 0; i < M; ++i) {
      const F a = broadcast_float(x + i * x_bytes + 4);
      for (int j = 0; j < V; ++j) acc[i][j] += a * b[j];
    }
  }
};

#if defined(__AVX512BF16__)
struct StepDot {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 4;

  template <int M>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][V]) {
    I b[V];
    for (int j = 0; j < V; ++j) b[j] = load_units(w + j * W * kUnitBytes);
    for (int i = 0; i < M; ++i) {
      const I a = broadcast_unit(x + i * x_bytes);
      for (int j = 0; j < V; ++j) acc[i][j] = (F)_mm512_dpbf16_ps((__m512)acc[i][j], (__m512bh)a, (__m512bh)b[j]);
    }
  }
};
#else
using StepDot = StepWiden;
#endif

#if defined(__AVX512VNNI__)
// Unsigned activations, offset by 128: `finish` takes 128 times the weights' sum out again.
constexpr bool kIsOffset = true;

struct StepInt8 {
  using Sum = I;
  static constexpr std::int64_t x_bytes = 4;

  template <int M>
  static inline void add(const Byte* x, const Byte* w, I (&acc)[M][V]) {
    I b[V];
    for (int j = 0; j < V; ++j) b[j] = load_units(w + j * W * kUnitBytes);
    for (int i = 0; i < M; ++i) {
      const I a = broadcast_unit(x + i * x_bytes);
      for (int j = 0; j < V; ++j) acc[i][j] = (I)_mm512_dpbusd_epi32((__m512i)acc[i][j], (__m512i)a, (__m512i)b[j]);
    }
  }
};
#else
constexpr bool kIsOffset = false;

// a.low * b.low + a.high * b.high of the signed 16-bit halves of each lane.
inline I multiply_pairs(I a, I b) {
#if defined(__AVX512BW__)
  return (I)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (I)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (I)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// The signed bytes 0 and 2 of each lane as a pair of 16-bit values.
inline I even_bytes(I v) {
  typedef std::int16_t S __attribute__((vector_size(W * 4)));
  S s;
  __builtin_memcpy(&s, &v, sizeof s);
  s = (s << 8) >> 8;
  __builtin_memcpy(&v, &s, sizeof v);
  return v;
}
inline I odd_bytes(I v) {
  typedef std::int16_t S __attribute__((vector_size(W * 4)));
  S s;
  __builtin_memcpy(&s, &v, sizeof s);
  s = s >> 8;
  __builtin_memcpy(&v, &s, sizeof v);
  return v;
}

// Activations are widened to 16 bits, values 0 and 2 of a unit before 1 and 3.
struct StepInt8 {
  using Sum = I;
  static constexpr std::int64_t x_bytes = 8;

  template <int M>
  static inline void add(const Byte* x, const Byte* w, I (&acc)[M][V]) {
    I b[V];
    for (int j = 0; j < V; ++j) b[j] = even_bytes(load_units(w + j * W * kUnitBytes));
    for (int i = 0; i < M; ++i) {
      const I a = broadcast_unit(x + i * x_bytes);
      for (int j = 0; j < V; ++j) acc[i][j] += multiply_pairs(a, b[j]);
    }
    for (int j = 0; j < V; ++j) b[j] = odd_bytes(load_units(w + j * W * kUnitBytes));
    for (int i = 0; i < M; ++i) {
      const I a = broadcast_unit(x + i * x_bytes + 4);
      for (int j = 0; j < V; ++j) acc[i][j] += multiply_pairs(a, b[j]);
    }
  }
};
#endif

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
    for (std::int64_t u = 0; u < t.units; ++u) {
      for (int b = 0; b < V * W * kUnitBytes; b += 64) __builtin_prefetch(w + kAhead + b, 0, 0);
      Step::template add<M>(x, w, acc);
      x += M * Step::x_bytes;
      w += kColumns * kUnitBytes;
    }
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < V; ++j)
        __builtin_memcpy(sum + (i * kColumns + c + j * W) * kUnitBytes, &acc[i][j], sizeof acc[i][j]);
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
constexpr int kHalfPixels = W >= 16 ? 24 : MR;

void multiply_window(const WindowTile& t) {
  if constexpr (W >= 16) {
    if (t.columns > 16) return window_columns<2, MR>(t, 0);
  }
  for (std::int64_t column = 0; column < t.columns; column += 16) window_columns<kHalf, kHalfPixels>(t, column);
}

// Rows are converted a stretch of units at a time, so that the units of a tile that share cache lines are written while
// those are near. `fill(row, first, count, out)` writes the units first .. first + count of one row.
template <std::int64_t unit_bytes, typename Fill>
inline void convert_rows(std::int64_t rows, std::int64_t units, Byte* to, Fill fill) {
  constexpr std::int64_t kStretch = 128;
  alignas(64) Byte stretch[kStretch * unit_bytes];
  for (std::int64_t first = 0; first < units; first += kStretch) {
    const std::int64_t count = units - first < kStretch ? units - first : kStretch;
    for (std::int64_t r = 0; r < rows; ++r) {
      fill(r, first, count, stretch);
      Byte* out = to + (first * rows + r) * unit_bytes;
      for (std::int64_t u = 0; u < count; ++u)
        __builtin_memcpy(out + u * rows * unit_bytes, stretch + u * unit_bytes, unit_bytes);
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
    float values[128 * unit];
    map_floats(x + r * ldx + begin, end - begin, count * unit, values,
               [](F v) { return is_rounded ? round_vector(v) : v; });
    __builtin_memcpy(out, values, static_cast<std::size_t>(count * unit) * sizeof(float));
  };
  convert_rows<unit * 4>(rows, (k + unit - 1) / unit, static_cast<Byte*>(to), fill);
}

// Activations rounded to bf16, two to a unit.
void convert_pairs(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t k, void* to, float*) {
  const auto fill = [=](std::int64_t r, std::int64_t first, std::int64_t count, Byte* out) {
    const std::int64_t begin = first * 2, end = begin + count * 2 < k ? begin + count * 2 : k;
    std::uint32_t bits[256];
    float values[256];
    map_floats(x + r * ldx + begin, end - begin, count * 2, values, round_vector);
    __builtin_memcpy(bits, values, sizeof bits);
    for (std::int64_t u = 0; u < count; ++u) {
      const std::uint32_t pair = (bits[2 * u] >> 16) | (bits[2 * u + 1] & 0xffff0000u);
      __builtin_memcpy(out + u * 4, &pair, sizeof pair);
    }
  };
  convert_rows<4>(rows, (k + 1) / 2, static_cast<Byte*>(to), fill);
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

// Activations quantised per row, four to a unit. A division and an addition that rounds to an integer, and no
// multiplication that one compiler would fuse and another not: all instruction sets quantise alike.
void convert_int8(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t k, void* to, float* scales) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  for (std::int64_t r = 0; r < rows; ++r) scales[r] = row_scale(x + r * ldx, k);
  const auto fill = [=](std::int64_t r, std::int64_t first, std::int64_t count, Byte* out) {
    const std::int64_t begin = first * 4, end = begin + count * 4 < k ? begin + count * 4 : k;
    float values[512];
    const F scale = splat(scales[r]);
    map_floats(x + r * ldx + begin, end - begin, count * 4, values,
               [=](F v) { return as_floats(as_units(v / scale + kRound) - as_units(splat(kRound))); });
    std::int32_t q[512];  // the low mantissa bits hold the integer; the padding is 0 as a float and as an integer
    __builtin_memcpy(q, values, sizeof q);
    for (std::int64_t u = 0; u < count; ++u) {
      const std::int32_t* v = q + 4 * u;
      if constexpr (kIsOffset) {
        for (int j = 0; j < 4; ++j) out[u * 4 + j] = static_cast<Byte>(v[j] + 128);
      } else {
        const std::int16_t wide[4] = {static_cast<std::int16_t>(v[0]), static_cast<std::int16_t>(v[2]),
                                      static_cast<std::int16_t>(v[1]), static_cast<std::int16_t>(v[3])};
        __builtin_memcpy(out + u * 8, wide, sizeof wide);
      }
    }
  };
  convert_rows<StepInt8::x_bytes>(rows, (k + 3) / 4, static_cast<Byte*>(to), fill);
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

template <typename Sum>
void finish(const PackedFinish& a) {
  float bias[kColumns] = {};
  if (a.bias != nullptr && a.is_last) __builtin_memcpy(bias, a.bias, static_cast<std::size_t>(a.columns) * 4);
  const Byte* sums = static_cast<const Byte*>(a.sum);
  for (std::int64_t r = 0; r < a.rows; ++r) {
    float edge[kColumns] = {};
    float* y = a.y + r * a.ldy;
    float* at = a.columns == kColumns ? y : edge;  // a narrow panel goes through a padded row
    if (at == edge && !a.is_first) __builtin_memcpy(edge, y, static_cast<std::size_t>(a.columns) * 4);
    for (std::int64_t c = 0; c < kColumns; c += W) {
      Sum sum, carried = {};
      __builtin_memcpy(&sum, sums + (r * kColumns + c) * kUnitBytes, sizeof sum);
      if (!a.is_first) __builtin_memcpy(&carried, at + c, sizeof carried);
      sum = carried + sum;
      if (!a.is_last) {
        __builtin_memcpy(at + c, &sum, sizeof sum);
        continue;
      }
      F v = to_output(sum, a, r, c);
      if (a.bias != nullptr) v += load(bias + c);
      if (a.rounding == Rounding::bf16) v = round_vector(v);
      if (a.act != Activation::none) {
        v = activate(v, a.act);
        if (a.rounding == Rounding::bf16) v = round_vector(v);
      }
      store(at + c, v);
    }
    if (at == edge) __builtin_memcpy(y, edge, static_cast<std::size_t>(a.columns) * 4);
  }
}

}  // namespace

const PackedKernels& packed_kernels() {
  constexpr bool is_dot = StepDot::x_bytes == 4, is_vnni = kIsOffset;
  static const PackedKernels table = {
      "cpu-" PREMOTOR_TEXT(PREMOTOR_ISA),
      MR,
      {StepF32::x_bytes, StepWiden::x_bytes, StepDot::x_bytes, StepInt8::x_bytes},
      {true, true, is_dot, is_vnni},
      {convert_floats<1, false>, convert_floats<2, false>, is_dot ? convert_pairs : convert_floats<2, true>,
       convert_int8},
      {multiply<StepF32>, multiply<StepWiden>, multiply<StepDot>, multiply<StepInt8>},
      {kHalfPixels, MR},
      multiply_window,
      finish<F>,
      finish<I>,
      &int4_kernels(),
  };
  return table;
}

}  // namespace premotor::ops::PREMOTOR_ISA
