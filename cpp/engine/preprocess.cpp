#include "engine/preprocess.h"

#include <algorithm>
#include <cassert>
#include <cstddef>

#include "base/half.h"

namespace premotor::engine {
namespace {

// a * b + c, rounded once: the reference's kernels are compiled to fused operations, and the picture's weights depend
// on it. A product of floats is exact in double precision; unlike std::fma this needs no hardware support to be fast.
inline float fused(float a, float b, float c) { return static_cast<float>(static_cast<double>(a) * b + c); }

// Where one output row (or column) lies between two input ones: value = near * in[first] + far * in[second].
struct Tap {
  std::int64_t first;
  std::int64_t second;
  float near;
  float far;
};

// The tap of output i of an axis. Every step is float32 on purpose: the source position of a pixel, and so its weights,
// must round as the reference's.
Tap tap_of(std::int64_t i, std::int64_t in, std::int64_t out) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  const float position = std::max(fused(scale, static_cast<float>(i) + 0.5f, -0.5f), 0.0f);
  const std::int64_t first = std::min(static_cast<std::int64_t>(position), in - 1);
  const float far = std::clamp(position - static_cast<float>(first), 0.0f, 1.0f);
  return {first, std::min(first + 1, in - 1), 1.0f - far, far};
}

// Calls visit(index of the pixel value, index of the folded value) for every value of one frame, in the order of the
// folded layout.
template <typename Visit>
void for_each_pair(std::int64_t height, std::int64_t width, std::int64_t channels, std::int64_t patch, Visit visit) {
  std::int64_t folded = 0;
  for (std::int64_t y = 0; y < height; y += patch)
    for (std::int64_t x = 0; x < width; x += patch)
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t dx = 0; dx < patch; ++dx)
          for (std::int64_t dy = 0; dy < patch; ++dy) visit(((y + dy) * width + x + dx) * channels + c, folded++);
}

}  // namespace

void resize_bilinear(const std::uint8_t* rgb, std::int64_t height, std::int64_t width, std::int64_t out_height,
                     std::int64_t out_width, float* out) {
  assert(height >= 1 && width >= 1 && out_height >= 1 && out_width >= 1);
  // A strip of columns at a time, whose taps serve all rows.
  constexpr std::int64_t kStrip = 128;
  Tap columns[kStrip];
  for (std::int64_t left_end = 0; left_end < out_width; left_end += kStrip) {
    const std::int64_t count = std::min(kStrip, out_width - left_end);
    for (std::int64_t i = 0; i < count; ++i) columns[i] = tap_of(left_end + i, width, out_width);
    for (std::int64_t y = 0; y < out_height; ++y) {
      const Tap row = tap_of(y, height, out_height);
      const std::uint8_t* above = rgb + row.first * width * 3;
      const std::uint8_t* below = rgb + row.second * width * 3;
      float* to = out + (y * out_width + left_end) * 3;
      for (std::int64_t i = 0; i < count; ++i) {
        const Tap& column = columns[i];
        for (std::int64_t c = 0; c < 3; ++c) {
          const std::int64_t left = column.first * 3 + c, right = column.second * 3 + c;
          const float top = fused(column.near, above[left], column.far * above[right]);
          const float bottom = fused(column.near, below[left], column.far * below[right]);
          *to++ = fused(row.near, top, row.far * bottom);
        }
      }
    }
  }
}

void normalise_pixels(float* values, std::int64_t count, bool to_bf16) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = values[i] / 255.0f * 2.0f - 1.0f;
  if (to_bf16)
    for (std::int64_t i = 0; i < count; ++i) values[i] = round_to_bf16(values[i]);
}

void patchify(const float* pixels, std::int64_t frames, std::int64_t height, std::int64_t width, std::int64_t channels,
              std::int64_t patch, float* out) {
  assert(patch >= 1 && height % patch == 0 && width % patch == 0);
  const std::int64_t frame_floats = height * width * channels;
  for (std::int64_t f = 0; f < frames; ++f, pixels += frame_floats, out += frame_floats)
    for_each_pair(height, width, channels, patch,
                  [&](std::int64_t pixel, std::int64_t folded) { out[folded] = pixels[pixel]; });
}

void unpatchify(const float* folded, std::int64_t frames, std::int64_t height, std::int64_t width,
                std::int64_t channels, std::int64_t patch, float* pixels) {
  assert(patch >= 1 && height % patch == 0 && width % patch == 0);
  const std::int64_t frame_floats = height * width * channels;
  for (std::int64_t f = 0; f < frames; ++f, pixels += frame_floats, folded += frame_floats)
    for_each_pair(height, width, channels, patch,
                  [&](std::int64_t pixel, std::int64_t value) { pixels[pixel] = folded[value]; });
}

}  // namespace premotor::engine
