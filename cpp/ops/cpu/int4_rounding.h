// How a group of weights becomes 4-bit values and a scale.
#pragma once

#include <cstdint>

namespace premotor::ops {

constexpr std::int64_t kInt4GroupMax = 128;

// plain     scale max|w| / 7, each value rounded to the nearest: what a converter without a search does
// searched  among scales around max|w| / 8 of either sign the one whose rounded values leave the least squared error
//           when the scale is then fitted to them; never worse than plain
enum class Int4Rounding : std::uint8_t { plain, searched };

struct Int4Group {
  float scale;   // a bf16 value
  double error;  // sum of (w - scale q)^2
};

// q[i] in -8 .. 7 and the scale that stand for w[0 .. count), 1 <= count <= kInt4GroupMax, finite.
Int4Group round_int4(const float* w, std::int64_t count, Int4Rounding how, std::int8_t* q);

}  // namespace premotor::ops
