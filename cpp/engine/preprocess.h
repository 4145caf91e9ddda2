// From camera pictures to what the autoencoder reads, and back: resize, scale to [-1, 1], and the (un)folding of pixel
// patches into channels. All of it reproduces the reference's float32 arithmetic, operation by operation. Layout: [row,
// column, channel], dense.
#pragma once

#include <cstdint>

namespace premotor::engine {

// Bilinear resize with half-pixel centres, clamped at the edges, without antialiasing; the result is not rounded to
// integers. rgb: [height, width, 3] u8; out: [out_height, out_width, 3] f32 on the 0 .. 255 scale. All sizes >= 1.
void resize_bilinear(const std::uint8_t* rgb, std::int64_t height, std::int64_t width, std::int64_t out_height,
                     std::int64_t out_width, float* out);

// In place: v / 255 * 2 - 1, each step in float32, then rounded to bfloat16 when asked. values: [count] f32.
void normalise_pixels(float* values, std::int64_t count, bool to_bf16);

// Folds patch x patch pixels into channels, in the order (channel, column offset, row offset):
// out[f, y, x, (c * patch + dx) * patch + dy] = pixels[f, y * patch + dy, x * patch + dx, c].
// pixels: [frames, height, width, channels] f32, height and width multiples of patch;
// out: [frames, height / patch, width / patch, channels * patch * patch] f32, not overlapping.
void patchify(const float* pixels, std::int64_t frames, std::int64_t height, std::int64_t width, std::int64_t channels,
              std::int64_t patch, float* out);

// The inverse of patchify; height and width are those of the pictures. folded and pixels have the shapes of `out` and
// `pixels` there.
void unpatchify(const float* folded, std::int64_t frames, std::int64_t height, std::int64_t width,
                std::int64_t channels, std::int64_t patch, float* pixels);

}  // namespace premotor::engine
