// One unit along k of a register tile, for every product, by the compiler's vectors. Packed products on 64-bit ARM have
// tiles of their own (packed_arm.h); attention takes these there too. Like vectors.h it lies in the unnamed namespace
// of one instruction set.
#pragma once

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
constexpr int MR = W >= 16 ? 12 : (W >= 8 ? 6 : 3);
#endif

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

// Each step adds one unit of k: acc[i][j] += x[i] . w[j]. Rows of x lie `pitch` bytes apart.
struct StepF32 {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 4;

  template <std::int64_t pitch = x_bytes, int M, int C>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][C]) {
    F b[C];
    for (int j = 0; j < C; ++j) b[j] = as_floats(load_units(w + j * W * kUnitBytes));
    for (int i = 0; i < M; ++i) {
      const F a = broadcast_float(x + i * pitch);
      for (int j = 0; j < C; ++j) acc[i][j] += a * b[j];
    }
  }
};

// bf16 weights widened by a shift (the even value of a pair) and a mask (the odd one); activations are two floats.
struct StepWiden {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 8;

  template <std::int64_t pitch = x_bytes, int M, int C>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][C]) {
    F b[C];
    for (int j = 0; j < C; ++j) b[j] = as_floats(load_units(w + j * W * kUnitBytes) << 16);
    for (int i = 0; i < M; ++i) {
      const F a = broadcast_float(x + i * pitch);
      for (int j = 0; j < C; ++j) acc[i][j] += a * b[j];
    }
    for (int j = 0; j < C; ++j) b[j] = as_floats(load_units(w + j * W * kUnitBytes) & ~0xffff);
    for (int i = 0; i < M; ++i) {
      const F a = broadcast_float(x + i * pitch + 4);
      for (int j = 0; j < C; ++j) acc[i][j] += a * b[j];
    }
  }
};

#if defined(__AVX512BF16__)
struct StepDot {
  using Sum = F;
  static constexpr std::int64_t x_bytes = 4;

  template <std::int64_t pitch = x_bytes, int M, int C>
  static inline void add(const Byte* x, const Byte* w, F (&acc)[M][C]) {
    I b[C];
    for (int j = 0; j < C; ++j) b[j] = load_units(w + j * W * kUnitBytes);
    for (int i = 0; i < M; ++i) {
      const I a = broadcast_unit(x + i * pitch);
      for (int j = 0; j < C; ++j) acc[i][j] = (F)_mm512_dpbf16_ps((__m512)acc[i][j], (__m512bh)a, (__m512bh)b[j]);
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

  template <std::int64_t pitch = x_bytes, int M, int C>
  static inline void add(const Byte* x, const Byte* w, I (&acc)[M][C]) {
    I b[C];
    for (int j = 0; j < C; ++j) b[j] = load_units(w + j * W * kUnitBytes);
    for (int i = 0; i < M; ++i) {
      const I a = broadcast_unit(x + i * pitch);
      for (int j = 0; j < C; ++j) acc[i][j] = (I)_mm512_dpbusd_epi32((__m512i)acc[i][j], (__m512i)a, (__m512i)b[j]);
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

  template <std::int64_t pitch = x_bytes, int M, int C>
  static inline void add(const Byte* x, const Byte* w, I (&acc)[M][C]) {
    I b[C];
    for (int j = 0; j < C; ++j) b[j] = even_bytes(load_units(w + j * W * kUnitBytes));
    for (int i = 0; i < M; ++i) {
      const I a = broadcast_unit(x + i * pitch);
      for (int j = 0; j < C; ++j) acc[i][j] += multiply_pairs(a, b[j]);
    }
    for (int j = 0; j < C; ++j) b[j] = odd_bytes(load_units(w + j * W * kUnitBytes));
    for (int i = 0; i < M; ++i) {
      const I a = broadcast_unit(x + i * pitch + 4);
      for (int j = 0; j < C; ++j) acc[i][j] += multiply_pairs(a, b[j]);
    }
  }
};
#endif
constexpr bool kHasInt8 = kIsOffset;
// Units of one row that lie side by side in the activations.
constexpr std::int64_t kGroupDot = 1, kGroupInt8 = 1;

}  // namespace
}  // namespace premotor::ops::PREMOTOR_ISA
