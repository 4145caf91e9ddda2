// Tiles over 4-bit weights, compiled once per instruction set like packed_kernels.cpp, whose tiles these are. A value
// is taken out of its unit without its scale, which is exact in bf16 and in f32; the scale multiplies the sum of a
// group: In AVX-512 a tile has 8 rows: 16 sums of the group, which begin anew so often that those of the block have to
// lie in registers too.
//
//     unit of output c   [ 7  5  3  1 | 6  4  2  0 ]   (values along k, 4 bits each, the lowest bits at the right)
//     >> 4 i             two indices in the low bits of two words -> a table of 16 words -> the bf16 pair 2i, 2i + 1
#include "ops/cpu/int4_kernels.h"

#include "ops/cpu/packed_units.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace premotor::ops::PREMOTOR_ISA {
namespace {

constexpr int V = W >= 8 ? 2 : 4;
#if defined(__aarch64__)
constexpr int MR = 6;
#else
constexpr int MR = W >= 16 ? 8 : (W >= 8 ? 6 : 3);
#endif
constexpr std::int64_t kPanelUnitBytes = kUnitBytes * kColumns;
constexpr std::int64_t kScaleBytes = 2 * kColumns;  // of a group
constexpr int kPairs = 4;                           // in a unit
// How far ahead weights are fetched when each is used once, in bytes; see packed_kernels.cpp.
constexpr std::int64_t kAhead = 32 * kPanelUnitBytes;

inline F load_floats(const Byte* p) {
  F v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline F scales_at(const Byte* group, std::int64_t column) {
  H h;
  __builtin_memcpy(&h, group + 2 * column, sizeof h);
  const U wide = __builtin_convertvector(h, U) << 16;
  F v;
  __builtin_memcpy(&v, &wide, sizeof v);
  return v;
}

#if defined(__AVX512BF16__)
// A pair of weights is a vector of bf16 pairs.
constexpr std::int64_t kPairBytes = 4;
using Pair = I;

template <int i>
inline Pair pair_of(I unit) {
  // -8 .. 7 in bf16; an index's fifth bit belongs to the next value, so the table is there twice.
  alignas(64) static constexpr std::uint16_t table[32] = {
      0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0,
      0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
      0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80};
  return (I)_mm512_permutexvar_epi16((__m512i)(unit >> (4 * i)), _mm512_load_si512(table));
}
inline Pair load_pair(const Byte* p) { return load_units(p); }
inline void store_pair(Byte* p, Pair pair) { __builtin_memcpy(p, &pair, sizeof pair); }

template <int M>
inline void add_pair(const Byte* x, const Pair (&b)[V], F (&acc)[M][V]) {
  for (int r = 0; r < M; ++r) {
    std::int32_t bits;
    __builtin_memcpy(&bits, x + r * kPairBytes, sizeof bits);
    const I a = bits + I{};
    for (int j = 0; j < V; ++j) acc[r][j] = (F)_mm512_dpbf16_ps((__m512)acc[r][j], (__m512bh)a, (__m512bh)b[j]);
  }
}
#else
// A pair of weights is two vectors of floats, the even value and the odd one.
constexpr std::int64_t kPairBytes = 8;
struct Pair {
  F even, odd;
};

template <int i>
inline Pair pair_of(I unit) {
  return {__builtin_convertvector((unit << (28 - 4 * i)) >> 28, F),
          __builtin_convertvector((unit << (12 - 4 * i)) >> 28, F)};
}
inline Pair load_pair(const Byte* p) { return {load_floats(p), load_floats(p + kPanelUnitBytes)}; }
inline void store_pair(Byte* p, const Pair& pair) {
  __builtin_memcpy(p, &pair.even, sizeof pair.even);
  __builtin_memcpy(p + kPanelUnitBytes, &pair.odd, sizeof pair.odd);
}

template <int M>
inline void add_pair(const Byte* x, const Pair (&b)[V], F (&acc)[M][V]) {
  for (int r = 0; r < M; ++r) {
    float a[2];
    __builtin_memcpy(a, x + r * kPairBytes, sizeof a);
    for (int j = 0; j < V; ++j) acc[r][j] += splat(a[0]) * b[j].even;
    for (int j = 0; j < V; ++j) acc[r][j] += splat(a[1]) * b[j].odd;
  }
}
#endif

constexpr std::int64_t kWidenedPairBytes = kPairBytes * kColumns;

// Where a tile's weights come from: out of their units, or widened before.
struct FromUnits {
  template <int M>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][V]) {
    for (int b = 0; b < V * W * 4; b += 64) __builtin_prefetch(w + kAhead + b, 0, 0);
    I unit[V];
    for (int j = 0; j < V; ++j) unit[j] = load_units(w + j * W * 4);
    const auto step = [&]<int i>() __attribute__((always_inline)) {
      Pair pair[V];
      for (int j = 0; j < V; ++j) pair[j] = pair_of<i>(unit[j]);
      add_pair<M>(x + i * M * kPairBytes, pair, acc);
    };
    step.template operator()<0>();
    step.template operator()<1>();
    step.template operator()<2>();
    step.template operator()<3>();
  }
  static constexpr std::int64_t unit_bytes = kPanelUnitBytes;
};

struct FromWidened {
  template <int M>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][V]) {
    for (int i = 0; i < kPairs; ++i) {
      Pair pair[V];
      for (int j = 0; j < V; ++j) pair[j] = load_pair(w + i * kWidenedPairBytes + j * W * 4);
      add_pair<M>(x + i * M * kPairBytes, pair, acc);
    }
  }
  static constexpr std::int64_t unit_bytes = kPairs * kWidenedPairBytes;
};

// widened: null when From reads the units, which lie behind the scales of their group.
template <typename From, int M>
void multiply_rows(const Int4Tile& t, const Byte* widened) {
  const std::int64_t group_bytes = kScaleBytes + t.group * kPanelUnitBytes;
  for (std::int64_t c = 0; c < kColumns; c += V * W) {
    const Byte* x = static_cast<const Byte*>(t.x);
    const Byte* group = static_cast<const Byte*>(t.w);
    F total[M][V];
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < V; ++j) total[i][j] = F{};
    const Byte* next = widened == nullptr ? nullptr : widened + c * 4;
    for (std::int64_t first = 0; first < t.units; first += t.group, group += group_bytes) {
      const std::int64_t count = t.units - first < t.group ? t.units - first : t.group;
      const Byte* w = widened == nullptr ? group + kScaleBytes + c * 4 : next;
      F acc[M][V];
      for (int i = 0; i < M; ++i)
        for (int j = 0; j < V; ++j) acc[i][j] = F{};
      for (std::int64_t u = 0; u < count; ++u) {
        From::template add<M>(x, w, acc);
        x += M * kPairs * kPairBytes;
        w += From::unit_bytes;
      }
      next = w;
      for (int j = 0; j < V; ++j) {
        const F scale = scales_at(group, c + j * W);
        for (int i = 0; i < M; ++i) total[i][j] += acc[i][j] * scale;
      }
    }
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < V; ++j) store(t.sum + i * kColumns + c + j * W, total[i][j]);
  }
}

template <typename From, int M = MR>
void multiply_tile(const Int4Tile& t, const Byte* widened) {
  if (t.rows == M) return multiply_rows<From, M>(t, widened);
  if constexpr (M > 1) multiply_tile<From, M - 1>(t, widened);
}

void multiply(const Int4Tile& t) { multiply_tile<FromUnits>(t, nullptr); }
void multiply_widened(const Int4Tile& t, const void* widened) {
  multiply_tile<FromWidened>(t, static_cast<const Byte*>(widened));
}

void widen(const void* w, std::int64_t units, std::int64_t group, void* to) {
  const Byte* from = static_cast<const Byte*>(w);
  Byte* out = static_cast<Byte*>(to);
  for (std::int64_t u = 0; u < units; ++u) {
    if (u % group == 0) from += kScaleBytes;
    for (std::int64_t c = 0; c < kColumns; c += W) {
      const I unit = load_units(from + c * 4);
      store_pair(out + c * 4, pair_of<0>(unit));
      store_pair(out + kWidenedPairBytes + c * 4, pair_of<1>(unit));
      store_pair(out + 2 * kWidenedPairBytes + c * 4, pair_of<2>(unit));
      store_pair(out + 3 * kWidenedPairBytes + c * 4, pair_of<3>(unit));
    }
    from += kPanelUnitBytes;
    out += kPairs * kWidenedPairBytes;
  }
}

// Writes `count` floats, rounded to bf16, of which the first `given` are there and the rest is zero.
inline void rounded_floats(const float* x, std::int64_t given, std::int64_t count, float* to) {
  std::int64_t i = 0;
  for (; i + W <= given; i += W) store(to + i, round_vector(load(x + i)));
  for (; i < count; i += W) {
    float tail[W] = {};
    for (std::int64_t j = i; j < given && j < i + W; ++j) tail[j - i] = x[j];
    store(to + i, round_vector(load(tail)));
  }
}

// A stretch of each row at a time, so that the pairs of a tile that share cache lines are written while those are near.
void convert(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t k, void* to) {
  constexpr std::int64_t kStretch = 256;  // values
  static_assert(kStretch % W == 0);
  const std::int64_t padded = (k + kInt4Unit - 1) / kInt4Unit * kInt4Unit;
  for (std::int64_t first = 0; first < padded; first += kStretch) {
    const std::int64_t count = padded - first < kStretch ? padded - first : kStretch;
    const std::int64_t given = k - first < count ? k - first : count;
    for (std::int64_t r = 0; r < rows; ++r) {
      float values[kStretch];
      std::uint32_t bits[kStretch];
      rounded_floats(x + r * ldx + first, given, count, values);
      __builtin_memcpy(bits, values, static_cast<std::size_t>(count) * 4);
      Byte* out = static_cast<Byte*>(to) + (first / 2 * rows + r) * kPairBytes;
      for (std::int64_t i = 0; i < count; i += 2, out += rows * kPairBytes) {
        if constexpr (kPairBytes == 4) {
          const std::uint32_t pair = (bits[i] >> 16) | (bits[i + 1] & 0xffff0000u);
          __builtin_memcpy(out, &pair, sizeof pair);
        } else {
          __builtin_memcpy(out, values + i, 2 * sizeof(float));
        }
      }
    }
  }
}

}  // namespace

const Int4Kernels& int4_kernels() {
  static_assert(kInt4Block * kPairs * kWidenedPairBytes <= kInt4WidenedBytes);
  static const Int4Kernels table = {MR, kPairBytes, convert, multiply, widen, multiply_widened};
  return table;
}

}  // namespace premotor::ops::PREMOTOR_ISA
