// 4-bit weights as bf16 pairs, for packed_kernels.cpp, which is compiled once per instruction set.
//
//     unit of output c   [ 7  5  3  1 | 6  4  2  0 ]   (values along k, 4 bits each, the lowest bits at the right)
//     pair i             values 2i (bits 4i ..) and 2i + 1 (bits 16 + 4i ..), each times the group's scale of c
#pragma once

#include "ops/cpu/packed_units.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace premotor::ops::PREMOTOR_ISA {
namespace {

constexpr std::int64_t kInt4ScaleBytes = 2 * kColumns;  // of a group

#if defined(__AVX512BF16__)
// A table of 16 floats looks at the low four bits of a lane alone.
template <int i>
inline I int4_pair(I unit, F scale) {
  const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  alignas(64) static constexpr std::uint16_t kTurns[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512 even = _mm512_maskz_permutexvar_ps(0xffff, (__m512i)(unit >> (4 * i)), values) * (__m512)scale;
  const __m512 odd = _mm512_maskz_permutexvar_ps(0xffff, (__m512i)(unit >> (16 + 4 * i)), values) * (__m512)scale;
  const __m512bh both = _mm512_cvtne2ps_pbh(odd, even);
  return (I)_mm512_permutexvar_epi16(_mm512_load_si512(kTurns), (__m512i)both);
}
#else
template <int i>
inline I int4_pair(I unit, F scale) {
  const F even = round_vector(__builtin_convertvector((unit << (28 - 4 * i)) >> 28, F) * scale);
  const F odd = round_vector(__builtin_convertvector((unit << (12 - 4 * i)) >> 28, F) * scale);
  return (I)((U)as_units(even) >> 16) | as_units(odd);
}
#endif

void widen_int4(const Int4Block& b) {
  const Byte* from = static_cast<const Byte*>(b.groups);
  Byte* to = static_cast<Byte*>(b.to);
  constexpr std::int64_t kPairBytes = kColumns * kUnitBytes;  // of all columns
  for (std::int64_t first = 0; first < b.units; first += b.group) {
    const auto* scales = reinterpret_cast<const std::uint16_t*>(from);
    from += kInt4ScaleBytes;
    const std::int64_t count = b.units - first < b.group ? b.units - first : b.group;
    for (std::int64_t c = 0; c < kColumns; c += W) {
      const F scale = load(scales + c);
      for (std::int64_t u = 0; u < count; ++u) {
        const I unit = load_units(from + (u * kColumns + c) * kUnitBytes);
        Byte* pairs = to + 4 * u * kPairBytes + c * kUnitBytes;
        const I pair[4] = {int4_pair<0>(unit, scale), int4_pair<1>(unit, scale), int4_pair<2>(unit, scale),
                           int4_pair<3>(unit, scale)};
        for (int i = 0; i < 4; ++i) __builtin_memcpy(pairs + i * kPairBytes, &pair[i], sizeof pair[i]);
      }
    }
    from += count * kColumns * kUnitBytes;
    to += 4 * count * kPairBytes;
  }
}

}  // namespace
}  // namespace premotor::ops::PREMOTOR_ISA
