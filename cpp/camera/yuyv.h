// YUYV (YUY2, 4:2:2) to RGB, BT.601, limited range: what cameras send who know no better.
#pragma once

#include <cstddef>
#include <cstdint>

namespace premotor::camera {

// For a pixel with luma y of 16 .. 235 and the pair's chroma u, v of 16 .. 240 (ITU-R BT.601-7, 2.5.3):
//   r = 255/219 (y - 16)                        + 255/224 1.402    (v - 128)
//   g = 255/219 (y - 16) - 255/224 0.344136 (u - 128) - 255/224 0.714136 (v - 128)
//   b = 255/219 (y - 16) + 255/224 1.772    (u - 128)
// rounded and clamped to 0 .. 255; within 1 of that in real numbers, because it is computed in 16 bits of fraction.
//
// yuyv  [height, stride_bytes] u8; a row is y0 u y1 v for every two pixels, and may be longer than its pixels
// rgb   [height, width, 3] u8, no padding; no overlap with yuyv
// `width` is even and stride_bytes >= 2 width: whoever negotiates the format checks.
void yuyv_to_rgb(const std::uint8_t* yuyv, std::size_t stride_bytes, int width, int height, std::uint8_t* rgb);

}  // namespace premotor::camera
