// What the files that are compiled once per instruction set share: vector types (GCC/Clang vector extensions), loads
// and the functions of the epilogues. Everything lies in the unnamed namespace of one instruction set, so that no code
// compiled for one is shared with another. Only such files include it.
#pragma once

#include <cstdint>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef PREMOTOR_ISA
#define PREMOTOR_ISA baseline
#endif
#ifndef PREMOTOR_VECTOR_WIDTH
#define PREMOTOR_VECTOR_WIDTH 4
#endif

namespace premotor::ops::PREMOTOR_ISA {
namespace {

constexpr int W = PREMOTOR_VECTOR_WIDTH;  // float lanes of one vector

typedef float F __attribute__((vector_size(W * 4)));
typedef std::int32_t I __attribute__((vector_size(W * 4)));
typedef std::uint32_t U __attribute__((vector_size(W * 4)));
typedef std::uint16_t H __attribute__((vector_size(W * 2)));

inline F load(const float* p) {
  F v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline F load(const std::uint16_t* p) {
#if defined(__aarch64__)
  // GCC 12 takes the generic conversion of four values apart.
  const uint32x4_t wide = vshll_n_u16(vld1_u16(p), 16);
#else
  H h;
  __builtin_memcpy(&h, p, sizeof h);
  const U wide = __builtin_convertvector(h, U) << 16;
#endif
  F v;
  __builtin_memcpy(&v, &wide, sizeof v);
  return v;
}
inline void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
inline float widen(float x) { return x; }
inline float widen(std::uint16_t bits) {
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float v;
  __builtin_memcpy(&v, &wide, sizeof v);
  return v;
}
inline F splat(float x) { return x - F{}; }

// exp(x) by range reduction x = n ln2 + r, |r| <= ln2/2, and a degree-6 polynomial; relative error below 2e-7. Inputs
// are clamped to the range where the result is a normal float. Cody-Waite split of ln2 as in Cephes' expf (S. Moshier).
inline F exp_vector(F x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  const F scaled = x * 1.44269504088896341f;
  const F shifted = scaled + 12582912.0f;  // 1.5 * 2^23: rounds to the nearest integer
  const F n = shifted - 12582912.0f;
  F r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  F p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const I exponent = (__builtin_convertvector(n, I) + 127) << 23;
  F power;
  __builtin_memcpy(&power, &exponent, sizeof power);
  return p * power;
}

// gelu(x) = 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3).
inline F gelu_vector(F v) {
  const F u = (v + v * v * v * 0.044715f) * 0.7978845608028654f;
  return v / (exp_vector(u * -2.0f) + 1.0f);
}

inline F silu_vector(F v) { return v / (exp_vector(-v) + 1.0f); }

// To the nearest bfloat16, ties to even; NaN stays.
inline F round_vector(F v) {
  U bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  F y;
  __builtin_memcpy(&y, &rounded, sizeof y);
  return v == v ? y : v;
}

}  // namespace
}  // namespace premotor::ops::PREMOTOR_ISA
