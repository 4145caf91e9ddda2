// What the benches of the operations and of passes share.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

#include "ops/cpu/ceilings.h"

// FNV-1a of the values' bits: two runs that print the same hash computed the same.
inline std::uint32_t hash_of(std::span<const float> values) {
  std::uint32_t hash = 2166136261u;
  for (const float value : values) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    hash = (hash ^ bits) * 16777619u;
  }
  return hash;
}

// Peaks around a case: taken before and after it, the larger of each count.
inline premotor::ops::ceilings::Peaks find_peaks(int threads, bool is_tiny) {
  return premotor::ops::ceilings::peaks(premotor::ops::cpu_packed_kernels(), threads, is_tiny ? 1 : 3,
                                        is_tiny ? 1e-3 : 0.02);
}
