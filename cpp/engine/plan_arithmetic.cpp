// The probe behind arithmetic_of. See plan_arithmetic.h.
#include "engine/plan_arithmetic.h"

#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

#include "base/checksum.h"
#include "base/half.h"

namespace premotor::engine {

namespace {

constexpr std::int64_t kRows = 40, kDepth = 1300;  // a panel and a part of one, more than two blocks of sums

// Values in [-1, 1) of no meaning.
std::vector<float> values(std::size_t count, std::uint64_t seed) {
  std::vector<float> out(count);
  for (float& value : out) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<std::int64_t>(seed >> 40) - (1 << 23)) * 0x1p-23f;
  }
  return out;
}

}  // namespace

std::string arithmetic_of(ops::Ops& ops) {
  const std::vector<float> wide = values(kRows * kDepth, 1), bias = values(kRows, 3);
  std::vector<std::uint16_t> narrow;
  for (const float value : wide) narrow.push_back(f32_to_bf16(value));
  std::vector<float> results;
  const auto probe = [&](const void* data, ops::Dtype dtype, ops::Rounding rounding) {
    ops::Matrix weight{data, dtype, kRows, kDepth};
    ops.prepare(&weight, rounding);
    std::vector<float> x = values(kDepth, 2), y(kRows);
    if (rounding == ops::Rounding::bf16)
      for (float& value : x) value = round_to_bf16(value);
    for (const ops::Activation act : {ops::Activation::none, ops::Activation::gelu_tanh, ops::Activation::silu}) {
      ops.linear(x.data(), 1, kDepth, weight, bias.data(), act, rounding, y.data(), kRows);
      results.insert(results.end(), y.begin(), y.end());
    }
  };
  probe(wide.data(), ops::Dtype::f32, ops::Rounding::none);
  probe(wide.data(), ops::Dtype::f32, ops::Rounding::bf16);
  probe(narrow.data(), ops::Dtype::bf16, ops::Rounding::none);
  probe(narrow.data(), ops::Dtype::bf16, ops::Rounding::bf16);
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx",
                static_cast<unsigned long long>(checksum64(std::as_bytes(std::span(results)))));
  return std::string(ops.name()) + " " + digits;
}

}  // namespace premotor::engine
