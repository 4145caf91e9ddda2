// Register tiles over packed weights for 64-bit ARM; packed_kernels.cpp includes it in place of its own. A vector is
// four columns of a panel, and a quadword of activations holds several rows, each multiplied by element:
//
//     step         levels              a quadword of activations         multiplies
//     StepF32      all                 4 rows x 1 value of k             fmla by element
//     StepWiden    all                 2 rows x 2 values                 fmla by element, even values before odd ones
//     StepLong     neon (int8)         4 rows x 4 values                 smull, smlal, then sadalp
//     StepDot8     neon_dot (int8)     4 rows x 4 values                 sdot by element
//     StepMatrix8  neon_i8mm, _bf16    2 rows x 2 units x 4 values       smmla: 2 rows x 2 columns a register
//     StepMatrix16 neon_bf16           2 rows x 2 units x 2 values       bfmmla: the same
//
// The 32 registers hold 24 accumulators: 12 rows x 2 vectors, 6 x 4 or 3 x 8. An output sees the same operations in
// each.
#pragma once

#include <arm_neon.h>

#include "ops/cpu/packed_kernels.h"
#include "ops/cpu/packed_units.h"

namespace premotor::ops::PREMOTOR_ISA {
namespace {

constexpr int MR = 12;
constexpr std::int64_t kRowBytes = kPanelColumns * 4;  // one unit of all columns of a panel

// Calls function(Index<0>), ... function(Index<n - 1>): a loop whose index is a constant, as lanes must be, and which
// is unrolled before the compiler decides whether an array of accumulators can live in registers.
template <int i>
struct Index {
  static constexpr int value = i;
};
template <int n, int i = 0, typename Function>
__attribute__((always_inline)) inline void repeat(const Function& function) {
  if constexpr (i < n) {
    function(Index<i>{});
    repeat<n, i + 1>(function);
  }
}

inline I load_quad(const Byte* p) { return (I)vld1q_u8(p); }

// Values of four bytes of `count` rows, four to a quadword; reads nothing behind the last.
template <int count>
inline void load_rows(const Byte* x, I (&to)[(count + 3) / 4]) {
  const auto* p = reinterpret_cast<const std::int32_t*>(x);
  constexpr int whole = count / 4, rest = count % 4;
  repeat<whole>([&](auto i) { to[i.value] = (I)vld1q_s32(p + 4 * i.value); });
  if constexpr (rest == 1) to[whole] = (I)vld1q_dup_s32(p + 4 * whole);
  if constexpr (rest >= 2) {
    const int32x4_t two = vcombine_s32(vld1_s32(p + 4 * whole), vdup_n_s32(0));
    to[whole] = (I)(rest == 3 ? vld1q_lane_s32(p + 4 * whole + 2, two, 2) : two);
  }
}

// acc + w * a[lane]
template <int lane>
inline F multiply_lane(F acc, F w, F a) {
  return (F)vfmaq_laneq_f32((float32x4_t)acc, (float32x4_t)w, (float32x4_t)a, lane);
}

struct StepF32 {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 4;

  template <int M, int V>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][V]) {
    I a[(M + 3) / 4];
    load_rows<M>(x, a);
    repeat<V>([&](auto j) {
      const F b = (F)load_quad(w + j.value * 16);
      repeat<M>([&](auto i) {
        F& sum = acc[i.value][j.value];
        sum = multiply_lane<i.value % 4>(sum, b, (F)a[i.value / 4]);
      });
    });
  }
};

// bf16 weights widened by a shift (the even value of a pair) and a mask (the odd one); activations are two floats. With
// many rows the widened weights stay in registers while rows pass, with few the rows do.
struct StepWiden {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 8;

  template <int M, int V>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][V]) {
    if constexpr (V == 2) {
      const I first = load_quad(w), second = load_quad(w + 16);
      const F b[2][2] = {{(F)(first << 16), (F)(second << 16)}, {(F)(first & ~0xffff), (F)(second & ~0xffff)}};
      repeat<(M + 1) / 2>([&](auto pair) {
        constexpr int begin = 2 * pair.value, rows = begin + 2 <= M ? 2 : 1;
        I a[1];
        load_rows<2 * rows>(x + begin * x_bytes, a);
        repeat<2 * rows * 2>([&](auto at) {
          constexpr int odd = at.value / (2 * rows), i = at.value / 2 % rows, j = at.value % 2;
          F& sum = acc[begin + i][j];
          sum = multiply_lane<2 * i + odd>(sum, b[odd][j], (F)a[0]);
        });
      });
    } else {
      I a[(M + 1) / 2];
      load_rows<2 * M>(x, a);
      repeat<V>([&](auto j) {
        const I pairs = load_quad(w + j.value * 16);
        const F b[2] = {(F)(pairs << 16), (F)(pairs & ~0xffff)};
        repeat<2 * M>([&](auto at) {
          constexpr int odd = at.value / M, i = at.value % M;
          F& sum = acc[i][j.value];
          sum = multiply_lane<i % 2 * 2 + odd>(sum, b[odd], (F)a[i / 2]);
        });
      });
    }
  }
};

template <typename Step, int M, int V>
inline void multiply_columns(const Byte* x, const Byte* w, std::int64_t units, Byte* sum, bool is_carried) {
  typename Step::Sum acc[M][V] = {};
  for (; units > 0; --units) {
    Step::template add<M, V>(x, w, acc);
    x += M * Step::x_bytes;
    w += kRowBytes;
  }
  repeat<M * V>([&](auto at) {
    constexpr int i = at.value / V, j = at.value % V;
    put_sum(sum + i * kRowBytes + j * 16, acc[i][j], is_carried);
  });
}

#if defined(__ARM_FEATURE_DOTPROD)
struct StepDot8 {
  using Sum = I;
  static constexpr std::int64_t x_bytes = 4;

  template <int M, int V>
  static inline void add(const Byte* x, const Byte* w, I (&acc)[M][V]) {
    I a[(M + 3) / 4];
    load_rows<M>(x, a);
    repeat<V>([&](auto j) {
      const auto b = (int8x16_t)load_quad(w + j.value * 16);
      repeat<M>([&](auto i) {
        I& sum = acc[i.value][j.value];
        sum = (I)vdotq_laneq_s32((int32x4_t)sum, b, (int8x16_t)a[i.value / 4], i.value % 4);
      });
    });
  }
};
#endif

// int8 products in 16 bits, where a sum of two fits (127 * 128 * 2 < 2^15), added in pairs to 32 bits. Each vector of
// columns has two accumulators of pairs of columns: unit by unit, then both sums of a column together.
struct StepLong {
  static constexpr std::int64_t x_bytes = 4;

  template <int M, int V, bool is_pair>
  static inline void add(const Byte* x, const Byte* w, int32x4_t (&acc)[M][V][2]) {
    repeat<V>([&](auto j) {
      const auto first = (int8x16_t)load_quad(w + j.value * 16);
      const auto second = is_pair ? (int8x16_t)load_quad(w + kRowBytes + j.value * 16) : vdupq_n_s8(0);
      repeat<M>([&](auto i) {
        const int8x16_t a = spread(x + i.value * x_bytes);
        int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(first)), high = vmull_high_s8(a, first);
        if constexpr (is_pair) {
          const int8x16_t next = spread(x + (M + i.value) * x_bytes);
          low = vmlal_s8(low, vget_low_s8(next), vget_low_s8(second));
          high = vmlal_high_s8(high, next, second);
        }
        auto& sum = acc[i.value][j.value];
        sum[0] = vpadalq_s16(sum[0], low);
        sum[1] = vpadalq_s16(sum[1], high);
      });
    });
  }

 private:
  // One unit of a row in each lane.
  static inline int8x16_t spread(const Byte* x) {
    return vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const std::int32_t*>(x)));
  }
};

template <int M, int V>
inline void multiply_columns_long(const Byte* x, const Byte* w, std::int64_t units, Byte* sum, bool is_carried) {
  int32x4_t acc[M][V][2] = {};
  for (; units >= 2; units -= 2) {
    StepLong::add<M, V, true>(x, w, acc);
    x += 2 * M * StepLong::x_bytes;
    w += 2 * kRowBytes;
  }
  if (units > 0) StepLong::add<M, V, false>(x, w, acc);
  repeat<M * V>([&](auto at) {
    constexpr int i = at.value / V, j = at.value % V;
    put_sum(sum + i * kRowBytes + j * 16, (I)vpaddq_s32(acc[i][j][0], acc[i][j][1]), is_carried);
  });
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
struct StepMatrix8 {
  using Sum = I;
  static constexpr std::int64_t x_bytes = 4;
  static inline I add(I acc, I a, I b) { return (I)vmmlaq_s32((int32x4_t)acc, (int8x16_t)a, (int8x16_t)b); }
};
#endif
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
struct StepMatrix16 {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 4;
  static inline F add(F acc, I a, I b) { return (F)vbfmmlaq_f32((float32x4_t)acc, (bfloat16x8_t)a, (bfloat16x8_t)b); }
};
#endif

// acc += a pair of units: a quadword of weights holds two columns of both, an accumulator two rows of two columns. A
// single last unit is a pair with zeros, an odd last row has zeros beside it. As in StepWiden, what is fewer stays.
template <typename Step, int P, int V, bool is_pair, typename Rows>
inline void add_matrices(const Rows& rows, const Byte* w, typename Step::Sum (&acc)[P][2 * V]) {
  const auto columns = [&](auto j, I(&b)[2]) {
    const auto first = (int32x4_t)load_quad(w + j.value * 16);
    const auto second = is_pair ? (int32x4_t)load_quad(w + kRowBytes + j.value * 16) : vdupq_n_s32(0);
    b[0] = (I)vzip1q_s32(first, second);
    b[1] = (I)vzip2q_s32(first, second);
  };
  if constexpr (V == 2) {
    I b[2][2];
    repeat<2>([&](auto j) { columns(j, b[j.value]); });
    repeat<P>([&](auto p) {
      const I a = rows(p);
      repeat<4>(
          [&](auto c) { acc[p.value][c.value] = Step::add(acc[p.value][c.value], a, b[c.value / 2][c.value % 2]); });
    });
  } else {
    I a[P];
    repeat<P>([&](auto p) { a[p.value] = rows(p); });
    repeat<V>([&](auto j) {
      I b[2];
      columns(j, b);
      repeat<2 * P>([&](auto at) {
        constexpr int p = at.value / 2, side = at.value % 2;
        typename Step::Sum& sum = acc[p][2 * j.value + side];
        sum = Step::add(sum, a[p], b[side]);
      });
    });
  }
}

template <typename Step, int M, int V>
inline void multiply_matrices(const Byte* x, const Byte* w, std::int64_t units, Byte* sum, bool is_carried) {
  constexpr int P = (M + 1) / 2;
  using Sum = typename Step::Sum;
  Sum acc[P][2 * V] = {};
  const auto pair = [&](auto p) {
    I a[1];
    load_rows<(2 * p.value + 2 <= M ? 4 : 2)>(x + 4 * p.value * Step::x_bytes, a);
    return a[0];
  };
  for (; units >= 2; units -= 2) {
    add_matrices<Step, P, V, true>(pair, w, acc);
    x += 2 * M * Step::x_bytes;
    w += 2 * kRowBytes;
  }
  if (units > 0) {
    std::int32_t values[4 * P] = {};
    for (int i = 0; i < M; ++i) __builtin_memcpy(values + 2 * i, x + i * Step::x_bytes, sizeof values[0]);
    add_matrices<Step, P, V, false>([&](auto p) { return (I)vld1q_s32(values + 4 * p.value); }, w, acc);
  }
  repeat<M * V>([&](auto at) {
    constexpr int i = at.value / V, j = at.value % V;
    const auto left = (int64x2_t)acc[i / 2][2 * j], right = (int64x2_t)acc[i / 2][2 * j + 1];
    put_sum(sum + i * kRowBytes + j * 16, (Sum)(i % 2 == 0 ? vzip1q_s64(left, right) : vzip2q_s64(left, right)),
            is_carried);
  });
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
using StepDot = StepMatrix16;
constexpr std::int64_t kGroupDot = 2;
#else
using StepDot = StepWiden;
constexpr std::int64_t kGroupDot = 1;
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
using StepInt8 = StepMatrix8;
constexpr std::int64_t kGroupInt8 = 2;
#elif defined(__ARM_FEATURE_DOTPROD)
using StepInt8 = StepDot8;
constexpr std::int64_t kGroupInt8 = 1;
#else
using StepInt8 = StepLong;
constexpr std::int64_t kGroupInt8 = 1;
#endif
constexpr std::int64_t kPitchUnits = 0;  // activations of a tile: units of all rows together
constexpr bool kIsOffset = false;        // activations are signed bytes at every level
constexpr bool kHasInt8 = !__is_same(StepInt8, StepLong);

template <typename Step>
constexpr bool is_matrix() {
  return (__is_same(Step, StepDot) && kGroupDot == 2) || (__is_same(Step, StepInt8) && kGroupInt8 == 2);
}

// Vectors of columns of a tile of `rows`: the fewer rows, the more, so that as many sums are under way and weights are
// read in fewer turns. A row of StepLong has two accumulators a vector, StepWiden needs one more register of weights.
template <typename Step>
constexpr int vectors(int rows) {
  if (__is_same(Step, StepLong)) return rows <= 2 ? 4 : (rows <= 4 ? 2 : 1);
  if (is_matrix<Step>()) return rows <= 2 ? 8 : (rows <= 6 ? 4 : 2);
  return rows <= 3 ? 8 : (rows <= (__is_same(Step, StepWiden) ? 5 : 6) ? 4 : 2);
}

template <typename Step, int M>
void multiply_rows(const PackedTile& t) {
  constexpr int V = vectors<Step>(M);
  const Byte* x = static_cast<const Byte*>(t.x);
  for (std::int64_t c = 0; c < kRowBytes; c += V * 16) {
    const Byte* w = static_cast<const Byte*>(t.w) + c;
    Byte* sum = static_cast<Byte*>(t.sum) + c;
    if constexpr (is_matrix<Step>()) {
      multiply_matrices<Step, M, V>(x, w, t.units, sum, t.is_carried);
    } else if constexpr (__is_same(Step, StepLong)) {
      multiply_columns_long<M, V>(x, w, t.units, sum, t.is_carried);
    } else {
      multiply_columns<Step, M, V>(x, w, t.units, sum, t.is_carried);
    }
  }
}

template <typename Step, int M = MR>
void multiply(const PackedTile& t) {
  if (t.rows == M) return multiply_rows<Step, M>(t);
  if constexpr (M > 1) multiply<Step, M - 1>(t);
}

// Windows of up to 6 pixels by 16 columns, four values of a window at a time.
constexpr int kHalfPixels = 6, kWholePixels = 6;

template <int M>
void window_pixels(const WindowTile& t, std::int64_t column) {
  F acc[M][4] = {};
  const float* w = t.w + column;
  for (std::int64_t run = 0; run < t.runs; ++run) {
    const float* x = t.x + t.starts[run];
    std::int64_t p = 0;
    for (; p + 4 <= t.length; p += 4, w += 4 * kPanelColumns) {
      F a[M];
      repeat<M>([&](auto i) { a[i.value] = load(x + i.value * t.step + p); });
      repeat<16>([&](auto at) {
        constexpr int k = at.value / 4, j = at.value % 4;
        const F b = load(w + k * kPanelColumns + j * W);
        repeat<M>([&](auto i) { acc[i.value][j] = multiply_lane<k>(acc[i.value][j], b, a[i.value]); });
      });
    }
    for (; p < t.length; ++p, w += kPanelColumns)
      repeat<M>([&](auto i) {
        const F a = (F)vld1q_dup_f32(x + i.value * t.step + p);
        repeat<4>([&](auto j) {
          F& sum = acc[i.value][j.value];
          sum = multiply_lane<0>(sum, load(w + j.value * W), a);
        });
      });
  }
  repeat<M * 4>([&](auto at) {
    constexpr int i = at.value / 4, j = at.value % 4;
    vst1q_f32(t.sum + i * kPanelColumns + column + j * W, (float32x4_t)acc[i][j]);
  });
}

template <int M = kHalfPixels>
void window_columns(const WindowTile& t, std::int64_t column) {
  if (t.pixels == M) return window_pixels<M>(t, column);
  if constexpr (M > 1) window_columns<M - 1>(t, column);
}

void multiply_window(const WindowTile& t) {
  for (std::int64_t column = 0; column < t.columns; column += 16) window_columns(t, column);
}

}  // namespace
}  // namespace premotor::ops::PREMOTOR_ISA
