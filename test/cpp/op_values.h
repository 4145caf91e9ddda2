// What the tests of operations share: random operands, memory on a boundary, and comparison bit by bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/half.h"
#include "ops/ops.h"

namespace op_values {

inline std::vector<float> normal_values(std::mt19937& generator, std::int64_t count, float size) {
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

// Rounds the values in place, and returns their bits.
inline std::vector<std::uint16_t> to_bf16(std::vector<float>* values) {
  std::vector<std::uint16_t> bits;
  for (float& value : *values) {
    bits.push_back(premotor::f32_to_bf16(value));
    value = premotor::bf16_to_f32(bits.back());
  }
  return bits;
}

// Memory on a boundary of 64 bytes, filled with a pattern so that bytes that nobody wrote show.
struct Aligned {
  explicit Aligned(std::int64_t bytes) : memory(static_cast<std::size_t>(bytes) + 64, 0xa5) {}
  [[nodiscard]] unsigned char* data() {
    const auto at = reinterpret_cast<std::uintptr_t>(memory.data());
    return memory.data() + (64 - at % 64) % 64;
  }
  std::vector<unsigned char> memory;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline double activate(double x, premotor::ops::Activation act) {
  if (act == premotor::ops::Activation::silu) return x / (1.0 + std::exp(-x));
  if (act == premotor::ops::Activation::gelu_tanh)
    return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
  return x;
}

}  // namespace op_values
