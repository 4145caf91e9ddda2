// Measures, from the setpoints of one joint alone, by how much they break its limits.
#pragma once

#include <algorithm>
#include <cmath>

#include "stream/motion.h"
#include "stream_random.h"

namespace stream_test {

using premotor::stream::JointLimits;

// Largest excess over each limit, measured on the outputs alone and counted in positions. The third difference of
// positions that are rounded to 2^-53 is uncertain by 8 such units, whatever the jerk; a braking of thousands of cycles
// that ends on a position limit adds up to a hundred more. 1e-13 rad is 0.0002 % of a jerk limit of 50 rad/s^3 at 1
// kHz.
inline constexpr double kRounding = 1e-13;

struct Meter {
  double position = 0, velocity = 0, acceleration = 0, jerk = 0;  // rad, each relative to the largest position
  double x = 0, v = 0, a = 0;

  void start(double at) { x = at, v = 0, a = 0; }
  void see_output(double next, const JointLimits& l, double period_s) {
    const double scale = std::max(std::abs(l.position_min), std::abs(l.position_max));
    const double nv = next - x, na = nv - v, nj = na - a, h = period_s;
    see(std::max(next - l.position_max, l.position_min - next) / scale, &position);
    see((std::abs(nv) - l.velocity_max * h) / scale, &velocity);
    see((std::abs(na) - l.acceleration_max * h * h) / scale, &acceleration);
    see((std::abs(nj) - l.jerk_max * h * h * h) / scale, &jerk);
    x = next, v = nv, a = na;
  }
  [[nodiscard]] bool is_kept() const {
    return position <= 0 && velocity <= kRounding && acceleration <= kRounding && jerk <= kRounding;
  }
};

}  // namespace stream_test
