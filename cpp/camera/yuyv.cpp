#include "camera/yuyv.h"

#include <algorithm>

namespace premotor::camera {
namespace {

// 2^16 times the coefficients.
constexpr int kShift = 16;
constexpr std::int32_t kLuma = 76309;    // 255/219
constexpr std::int32_t kRedV = 104597;   // 255/224 1.402
constexpr std::int32_t kGreenU = 25675;  // 255/224 0.344136
constexpr std::int32_t kGreenV = 53279;  // 255/224 0.714136
constexpr std::int32_t kBlueU = 132201;  // 255/224 1.772
constexpr std::int32_t kHalf = 1 << (kShift - 1);

std::uint8_t clamped(std::int32_t value) {
  return static_cast<std::uint8_t>(std::clamp<std::int32_t>(value >> kShift, 0, 255));
}

}  // namespace

void yuyv_to_rgb(const std::uint8_t* yuyv, std::size_t stride_bytes, int width, int height, std::uint8_t* rgb) {
  for (int row = 0; row < height; ++row) {
    const std::uint8_t* from = yuyv + static_cast<std::size_t>(row) * stride_bytes;
    for (int pair = 0; pair < width / 2; ++pair, from += 4) {
      const std::int32_t u = from[1] - 128, v = from[3] - 128;
      const std::int32_t red = kRedV * v + kHalf, green = kHalf - kGreenU * u - kGreenV * v, blue = kBlueU * u + kHalf;
      for (const std::int32_t y : {from[0] - 16, from[2] - 16}) {
        const std::int32_t luma = kLuma * y;
        *rgb++ = clamped(luma + red);
        *rgb++ = clamped(luma + green);
        *rgb++ = clamped(luma + blue);
      }
    }
  }
}

}  // namespace premotor::camera
