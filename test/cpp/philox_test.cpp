// The noise generator: the published Philox4x32-10 vectors, moments of the normal values, and independence of seed,
// stream and frame.
#include <cmath>
#include <vector>

#include "base/philox.h"
#include "tap.h"

using namespace premotor;

namespace {

using Words = std::array<std::uint32_t, 4>;

// Known-answer vectors of the Random123 distribution for philox4x32-10.
void test_vectors() {
  tap::ok(philox4x32_10({0, 0, 0, 0}, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, "all zeros");
  tap::ok(philox4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff) ==
              Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
          "all ones");
  tap::ok(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822) ==
              Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
          "digits of pi");
}

void test_normal() {
  const std::int64_t count = 400000;
  std::vector<float> values(static_cast<std::size_t>(count));
  standard_normal(42, NoiseStream::video, 6, values.data(), count);
  double mean = 0, variance = 0, fourth = 0, neighbour = 0;
  for (const float v : values) mean += v / static_cast<double>(count);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double d = values[i] - mean;
    variance += d * d / static_cast<double>(count);
    fourth += d * d * d * d / static_cast<double>(count);
    if (i > 0) neighbour += d * (values[i - 1] - mean) / static_cast<double>(count);
  }
  // Five standard errors each.
  tap::is_near(mean, 0, 5 / std::sqrt(count), "mean");
  tap::is_near(variance, 1, 5 * std::sqrt(2.0 / count), "variance");
  tap::is_near(fourth, 3, 5 * std::sqrt(96.0 / count), "fourth moment");
  tap::is_near(neighbour, 0, 5 / std::sqrt(count), "neighbours are uncorrelated");
}

void test_counters() {
  const auto draw = [](std::uint64_t seed, NoiseStream stream, std::uint32_t frame, std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    standard_normal(seed, stream, frame, values.data(), count);
    return values;
  };
  const auto base = draw(1, NoiseStream::video, 0, 10);
  tap::ok(base == draw(1, NoiseStream::video, 0, 10), "equal counters give equal values");
  tap::ok(base != draw(2, NoiseStream::video, 0, 10), "another seed differs");
  tap::ok(base != draw(1 + (std::uint64_t{1} << 32), NoiseStream::video, 0, 10), "the seed's high word counts");
  tap::ok(base != draw(1, NoiseStream::action, 0, 10), "another stream differs");
  tap::ok(base != draw(1, NoiseStream::video, 2, 10), "another frame differs");
  auto longer = draw(1, NoiseStream::video, 0, 13);
  longer.resize(10);
  tap::ok(longer == base, "a value does not depend on how many are drawn");
}

}  // namespace

int main() {
  test_vectors();
  test_normal();
  test_counters();
  return tap::finish();
}
