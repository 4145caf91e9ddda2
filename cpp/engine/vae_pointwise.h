// The autoencoder's loops that are no operation of the contract: shortcuts and upsampling. Channels last, float32; with
// Rounding::bf16 every value that a bfloat16 deployment would store is rounded. Part of vae.cpp's implementation.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "ops/ops.h"

namespace premotor::engine::vae {

// The shape of an activation, [frames, height, width, channels].
struct Shape {
  std::int64_t frames = 0, height = 0, width = 0, channels = 0;

  [[nodiscard]] std::int64_t pixels() const { return frames * height * width; }
  [[nodiscard]] std::int64_t frame_floats() const { return height * width * channels; }
  [[nodiscard]] std::int64_t floats() const { return frames * frame_floats(); }
};

// The encoder's shortcut: the pixels of each factor_t x factor_s x factor_s brick are laid side by side as channels, in
// the order (channel, frame, row, column), and every run of in.channels * factor / channels_out neighbours is averaged.
// Zero frames are put in front where the frame count does not divide. y: [ceil(frames / factor_t), height / factor_s,
// width / factor_s, channels_out].
void average_down(ThreadPool& pool, const float* x, const Shape& in, std::int64_t factor_t, std::int64_t factor_s,
                  std::int64_t channels_out, ops::Rounding rounding, float* y);

// The decoder's shortcut, the other way round: every input value is repeated, the repeats are dealt to channel, frame,
// row and column, and the first `skip` frames of the result are dropped. Adds the result to y, of shape `out` =
// [in.frames * factor_t - skip, 2 height, 2 width, ...].
void add_repeated_up(ThreadPool& pool, const float* x, const Shape& in, std::int64_t factor_t, std::int64_t skip,
                     const Shape& out, ops::Rounding rounding, float* y);

// One frame, every pixel made a 2 x 2 square. x: [height, width, channels]; y: [2 height, 2 width, channels].
void double_pixels(ThreadPool& pool, const float* x, std::int64_t height, std::int64_t width, std::int64_t channels,
                   float* y);

}  // namespace premotor::engine::vae
