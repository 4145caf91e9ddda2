// The CPU backend's convolution. y[p, o] = bias[o] + sum_j patch[p, j] weight[o, j], where patch[p] is the window of
// output pixel p laid out in the weight's order (time, row, column, channel). Patches are gathered for a tile of pixels
// at a time, so that the scratch stays a few megabytes whatever the picture's size. A pixel's sum is one row of
// Ops::linear: it depends on neither the tiling nor the thread count.
#include "ops/cpu/conv.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "base/thread_pool.h"

namespace premotor::ops {
namespace {

// Floats of gathered patches held at once for each thread (2 MiB), unless a single group of rows needs more.
constexpr std::int64_t kTileFloatsPerThread = std::int64_t{1} << 19;
// A tile holds whole groups of this many pixels: the row block of the linear layer.
constexpr std::int64_t kRowGroup = 48;
constexpr std::int64_t kGatherGrain = 16;  // pixels that a thread gathers at once

// Copies the window of output pixel (t, y, x) to `to`, [kernel_t, kernel_s, kernel_s, channels_in]; pixels outside the
// picture become zero.
void gather_window(const Conv3d& a, std::int64_t t, std::int64_t y, std::int64_t x, float* to) {
  const std::int64_t left = x * a.stride_s - a.pad_left;
  const std::int64_t first = std::clamp<std::int64_t>(-left, 0, a.kernel_s);
  const std::int64_t last = std::clamp<std::int64_t>(a.width_in - left, first, a.kernel_s);
  const std::int64_t row_floats = a.kernel_s * a.channels_in;
  for (std::int64_t kt = 0; kt < a.kernel_t; ++kt) {
    const std::int64_t frame = t * a.stride_t + kt;
    for (std::int64_t ky = 0; ky < a.kernel_s; ++ky, to += row_floats) {
      const std::int64_t row = y * a.stride_s - a.pad_top + ky;
      if (row < 0 || row >= a.height_in || first == last) {
        std::fill_n(to, row_floats, 0.0f);
        continue;
      }
      const float* from = a.x + ((frame * a.height_in + row) * a.width_in + left + first) * a.channels_in;
      std::fill_n(to, first * a.channels_in, 0.0f);
      std::memcpy(to + first * a.channels_in, from,
                  static_cast<std::size_t>((last - first) * a.channels_in) * sizeof(float));
      std::fill_n(to + last * a.channels_in, (a.kernel_s - last) * a.channels_in, 0.0f);
    }
  }
}

// True when every output pixel reads exactly the input pixel of the same index: then the convolution is a plain linear
// layer.
bool is_pointwise(const Conv3d& a) {
  return a.kernel_t == 1 && a.kernel_s == 1 && a.stride_t == 1 && a.stride_s == 1 && a.pad_top == 0 &&
         a.pad_left == 0 && a.height_out == a.height_in && a.width_out == a.width_in;
}

}  // namespace

void cpu_conv3d(Ops& self, const Conv3d& a, Rounding rounding) {
  const std::int64_t pixels = a.frames_out * a.height_out * a.width_out;
  const std::int64_t window = a.kernel_t * a.kernel_s * a.kernel_s * a.channels_in;
  const std::int64_t channels_out = a.weight.rows;
  assert(a.weight.cols == window);
  assert(pixels == 0 || (a.frames_out - 1) * a.stride_t + a.kernel_t <= a.frames_in);
  if (is_pointwise(a)) {
    self.linear(a.x, pixels, a.channels_in, a.weight, a.bias, Activation::none, rounding, a.y, channels_out);
    return;
  }
  const std::int64_t groups =
      std::max<std::int64_t>(1, kTileFloatsPerThread * self.pool().threads() / (window * kRowGroup));
  const std::int64_t tile_pixels = std::min(pixels, groups * kRowGroup);
  // Kept between calls; its bound is kTileFloatsPerThread per thread, or one group of rows where a single group is
  // larger than that.
  thread_local std::vector<float> tile;
  if (static_cast<std::int64_t>(tile.size()) < tile_pixels * window)
    tile.resize(static_cast<std::size_t>(tile_pixels * window));
  float* const patches = tile.data();
  for (std::int64_t base = 0; base < pixels; base += tile_pixels) {
    const std::int64_t count = std::min(tile_pixels, pixels - base);
    self.pool().parallel_for(count, kGatherGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t pixel = base + i, row = pixel / a.width_out;
        gather_window(a, row / a.height_out, row % a.height_out, pixel % a.width_out, patches + i * window);
      }
    });
    self.linear(patches, count, window, a.weight, a.bias, Activation::none, rounding, a.y + base * channels_out,
                channels_out);
  }
}

}  // namespace premotor::ops
