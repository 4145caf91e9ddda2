#include "engine/vae_pointwise.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <vector>

#include "base/half.h"

namespace premotor::engine::vae {
namespace {

constexpr std::int64_t kFloatsPerTask = 4096;  // enough work to pay for handing a range to a thread

constexpr std::int64_t kBrickMost = 8;  // factors are 1 or 2

std::int64_t grain_of(std::int64_t channels) {
  return std::max<std::int64_t>(1, kFloatsPerTask / std::max<std::int64_t>(1, channels));
}

// round_to_bf16 in a form that loops can vectorise: a NaN is passed through as it is.
inline float rounded(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const float nearest = std::bit_cast<float>((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
  return value == value ? nearest : value;
}

}  // namespace

void average_down(ThreadPool& pool, const float* x, const Shape& in, std::int64_t factor_t, std::int64_t factor_s,
                  std::int64_t channels_out, ops::Rounding rounding, float* y) {
  const std::int64_t brick = factor_t * factor_s * factor_s;
  assert(brick <= kBrickMost);
  const std::int64_t group = in.channels * brick / channels_out;
  const std::int64_t frames = (in.frames + factor_t - 1) / factor_t;
  const std::int64_t height = in.height / factor_s, width = in.width / factor_s;
  const std::int64_t missing = frames * factor_t - in.frames;
  const float count = static_cast<float>(group);
  pool.parallel_for(frames * height * width, grain_of(channels_out), [&](std::int64_t begin, std::int64_t end) {
    std::array<const float*, kBrickMost> corner;  // the brick's pixels; null for the zero frames in front
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t column = p % width, row = p / width % height, frame = p / width / height;
      for (std::int64_t j = 0; j < brick; ++j) {
        const std::int64_t t = frame * factor_t + j / (factor_s * factor_s) - missing;
        const std::int64_t r = row * factor_s + j / factor_s % factor_s, c = column * factor_s + j % factor_s;
        corner[static_cast<std::size_t>(j)] = t < 0 ? nullptr : x + ((t * in.height + r) * in.width + c) * in.channels;
      }
      float* out = y + p * channels_out;
      std::int64_t channel = 0;
      std::size_t j = 0;
      for (std::int64_t o = 0; o < channels_out; ++o) {
        float sum = 0;
        for (std::int64_t k = 0; k < group; ++k) {
          if (corner[j] != nullptr) sum += corner[j][channel];
          if (++j == static_cast<std::size_t>(brick)) {
            j = 0;
            ++channel;
          }
        }
        out[o] = sum / count;
        if (rounding == ops::Rounding::bf16) out[o] = rounded(out[o]);
      }
    }
  });
}

void add_repeated_up(ThreadPool& pool, const float* x, const Shape& in, std::int64_t factor_t, std::int64_t skip,
                     const Shape& out, ops::Rounding rounding, float* y) {
  const std::int64_t brick = factor_t * 4;
  const std::int64_t repeats = out.channels * brick / in.channels;
  // The input channel that feeds output channel o of the brick's pixel j.
  std::vector<std::int32_t> source(static_cast<std::size_t>(brick * out.channels));
  for (std::int64_t j = 0; j < brick; ++j)
    for (std::int64_t o = 0; o < out.channels; ++o)
      source[static_cast<std::size_t>(j * out.channels + o)] = static_cast<std::int32_t>((o * brick + j) / repeats);
  pool.parallel_for(out.pixels(), grain_of(out.channels), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t column = p % out.width, row = p / out.width % out.height,
                         frame = p / out.width / out.height + skip;
      const std::int64_t j = (frame % factor_t * 2 + row % 2) * 2 + column % 2;
      const float* from = x + ((frame / factor_t * in.height + row / 2) * in.width + column / 2) * in.channels;
      const std::int32_t* channel = source.data() + j * out.channels;
      float* to = y + p * out.channels;
      for (std::int64_t o = 0; o < out.channels; ++o) to[o] += from[channel[o]];
      if (rounding == ops::Rounding::bf16)
        for (std::int64_t o = 0; o < out.channels; ++o) to[o] = rounded(to[o]);
    }
  });
}

void double_pixels(ThreadPool& pool, const float* x, std::int64_t height, std::int64_t width, std::int64_t channels,
                   float* y) {
  const std::size_t pixel_bytes = static_cast<std::size_t>(channels) * sizeof(float);
  const std::int64_t row_floats = 2 * width * channels;
  pool.parallel_for(height, grain_of(row_floats), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* first = y + 2 * r * row_floats;
      for (std::int64_t c = 0; c < width; ++c) {
        const float* from = x + (r * width + c) * channels;
        std::memcpy(first + 2 * c * channels, from, pixel_bytes);
        std::memcpy(first + (2 * c + 1) * channels, from, pixel_bytes);
      }
      std::memcpy(first + row_floats, first, static_cast<std::size_t>(row_floats) * sizeof(float));
    }
  });
}

}  // namespace premotor::engine::vae
