// y[p, o] = round(bias[o] + sum over the window of p of x w[o]). The window of an output pixel consists of runs: for
// each of its frames and rows, kernel_s neighbouring pixels with all their channels, which lie side by side in memory.
// A tile is a stretch of pixels in one output row, whose windows are a constant step apart.
#include "ops/cpu/window_conv.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace premotor::ops {
namespace {

constexpr std::int64_t kRunsMax = 64;

// The input as the windows see it, borders included.
struct Plane {
  const float* x;
  std::int64_t height, width;
};

std::int64_t reach(std::int64_t out, const Conv3d& a) { return (out - 1) * a.stride_s + a.kernel_s; }

bool needs_border(const Conv3d& a) {
  return a.pad_top != 0 || a.pad_left != 0 || reach(a.height_out, a) > a.height_in ||
         reach(a.width_out, a) > a.width_in;
}

// Copies the pictures into frames of zeros.
Plane with_border(ThreadPool& pool, const Conv3d& a, float* to) {
  const std::int64_t height = reach(a.height_out, a), width = reach(a.width_out, a), channels = a.channels_in;
  const std::int64_t columns = std::clamp<std::int64_t>(width - a.pad_left, 0, a.width_in);
  const std::int64_t right = width - a.pad_left - columns;
  pool.parallel_for(a.frames_in * height, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* row = to + i * width * channels;
      const std::int64_t y = i % height - a.pad_top;
      if (y < 0 || y >= a.height_in) {
        std::fill_n(row, width * channels, 0.0f);
        continue;
      }
      const float* from = a.x + (i / height * a.height_in + y) * a.width_in * channels;
      std::fill_n(row, a.pad_left * channels, 0.0f);
      std::memcpy(row + a.pad_left * channels, from, static_cast<std::size_t>(columns * channels) * sizeof(float));
      std::fill_n(row + (a.pad_left + columns) * channels, right * channels, 0.0f);
    }
  });
  return {to, height, width};
}

struct Windows {
  const PackedKernels& kernels;
  const PackedMatrix& w;
  const Conv3d& args;
  Rounding rounding;
  std::int64_t starts[kRunsMax];
  std::int64_t runs, length, step;

  // `pixels` windows whose first one begins at x; their outputs go to y.
  void run(const float* x, std::int64_t pixels, float* y) const {
    constexpr std::int64_t kPixelsMost = 32;
    alignas(64) float sum[kPixelsMost * kPanelColumns];
    for (std::int64_t panel = 0; panel < packed_panels(w.n); ++panel) {
      const std::int64_t column = panel * kPanelColumns, columns = std::min(kPanelColumns, w.n - column);
      const std::int64_t most = kernels.window_pixels[columns > kPanelColumns / 2 ? 1 : 0];
      assert(most <= kPixelsMost);
      for (std::int64_t first = 0; first < pixels; first += most) {
        const std::int64_t count = std::min(most, pixels - first);
        kernels.multiply_window({x + first * step, count, step, starts, runs, length,
                                 static_cast<const float*>(w.data) + panel * w.k * kPanelColumns, columns, sum});
        PackedFinish finish = {};
        finish.sum = sum;
        finish.rows = count;
        finish.columns = columns;
        finish.bias = args.bias == nullptr ? nullptr : args.bias + column;
        finish.rounding = rounding;
        finish.y = y + first * w.n + column;
        finish.ldy = w.n;
        kernels.finish(finish);
      }
    }
  }
};

}  // namespace

std::int64_t window_scratch_floats(const Conv3d& a) {
  return needs_border(a) ? a.frames_in * reach(a.height_out, a) * reach(a.width_out, a) * a.channels_in : 0;
}

void window_conv(ThreadPool& pool, const PackedKernels& kernels, const PackedMatrix& w, const Conv3d& a,
                 Rounding rounding, float* scratch) {
  assert(w.precision == PackedPrecision::f32 && w.k == a.kernel_t * a.kernel_s * a.kernel_s * a.channels_in);
  assert(a.kernel_t * a.kernel_s <= kRunsMax);
  if (a.frames_out * a.height_out * a.width_out == 0) return;
  assert((a.frames_out - 1) * a.stride_t + a.kernel_t <= a.frames_in);
  const Plane plane = needs_border(a) ? with_border(pool, a, scratch) : Plane{a.x, a.height_in, a.width_in};
  const std::int64_t row_floats = plane.width * a.channels_in, frame_floats = plane.height * row_floats;
  Windows windows{
      kernels, w, a, rounding, {}, a.kernel_t * a.kernel_s, a.kernel_s * a.channels_in, a.stride_s * a.channels_in};
  for (std::int64_t kt = 0; kt < a.kernel_t; ++kt)
    for (std::int64_t ky = 0; ky < a.kernel_s; ++ky)
      windows.starts[kt * a.kernel_s + ky] = kt * frame_floats + ky * row_floats;
  // Windows of one pixel's width follow each other across rows too.
  const bool is_flat = a.kernel_s == 1 && a.stride_s == 1 && plane.width == a.width_out;
  const std::int64_t rows = is_flat ? 1 : a.height_out, pixels = is_flat ? a.height_out * a.width_out : a.width_out;
  pool.parallel_for(a.frames_out * rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      windows.run(plane.x + i / rows * a.stride_t * frame_floats + i % rows * a.stride_s * row_floats, pixels,
                  a.y + i * pixels * w.n);
  });
}

}  // namespace premotor::ops
