// Seeded noise: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and Box-Muller.
// Counter-based: value i of a stream depends on (seed, stream, frame index, i) alone, so CPU and GPU give the same
// noise in any order. docs/NOISE.md is the specification.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace premotor {

// Streams of noise within one prediction.
enum class NoiseStream : std::uint32_t { video = 0, action = 1, imagined = 2 };

inline std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter, std::uint64_t key) {
  std::uint32_t key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = static_cast<std::uint64_t>(counter[0]) * 0xD2511F53u;
    const std::uint64_t b = static_cast<std::uint64_t>(counter[2]) * 0xCD9E8D57u;
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(a)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Fills out[0 .. count) with standard normal values. Counter words: (i / 4, frame index, stream, 0). Each pair of words
// (u, v) gives r cos(a), r sin(a) with r = sqrt(-2 ln((u + 1) 2^-32)), a = 2 pi v 2^-32, in float64, rounded to
// float32.
inline void standard_normal(std::uint64_t seed, NoiseStream stream, std::uint32_t frame_index, float* out,
                            std::int64_t count) {
  for (std::int64_t base = 0; base < count; base += 4) {
    const auto words =
        philox4x32_10({static_cast<std::uint32_t>(base / 4), frame_index, static_cast<std::uint32_t>(stream), 0}, seed);
    for (int pair = 0; pair < 2; ++pair) {
      const double u = (static_cast<double>(words[2 * pair]) + 1.0) * 0x1p-32;
      const double angle = 2.0 * std::numbers::pi * static_cast<double>(words[2 * pair + 1]) * 0x1p-32;
      const double radius = std::sqrt(-2.0 * std::log(u));
      const std::int64_t at = base + 2 * pair;
      if (at < count) out[at] = static_cast<float>(radius * std::cos(angle));
      if (at + 1 < count) out[at + 1] = static_cast<float>(radius * std::sin(angle));
    }
  }
}

}  // namespace premotor
