// What the stream's random tests share: a seeded generator that is the same on every platform, and sizes from the
// environment.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "stream/motion.h"
#include "tap.h"

namespace stream_test {

inline long long from_environment(const char* name, long long otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atoll(text) : otherwise;
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(engine_() >> 11) * 0x1.0p-53;
  }
  double log_uniform(double low, double high) { return std::exp(uniform(std::log(low), std::log(high))); }
  int below(int count) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(count)); }
  double sign() { return below(2) == 0 ? 1.0 : -1.0; }

 private:
  std::mt19937_64 engine_;
};

// The generator of a test program; PREMOTOR_SEED chooses another sequence.
inline Random seeded(std::uint64_t otherwise) {
  const long long seed = from_environment("PREMOTOR_SEED", static_cast<long long>(otherwise));
  tap::note("seed " + std::to_string(seed));
  return Random(static_cast<std::uint64_t>(seed));
}

inline std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.3g", value);
  return buffer;
}

// The larger of both into `worst`; NaN counts as largest.
inline void see(double value, double* worst) {
  if (!(value <= *worst)) *worst = value;
}

}  // namespace stream_test
