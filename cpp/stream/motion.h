// What one joint does at one moment, and what it may do: the words that the profile, the limiter, the trajectory and
// the stream share. Angles are rad (m for a joint that slides), times are seconds unless a name says otherwise.
#pragma once

#include <cmath>

namespace premotor::stream {

// Joints of one stream: two arms of seven and two grippers.
inline constexpr int kJointsMax = 16;

struct MotionState {
  double position = 0;      // rad
  double velocity = 0;      // rad/s
  double acceleration = 0;  // rad/s^2

  [[nodiscard]] bool is_finite() const {
    return std::isfinite(position) && std::isfinite(velocity) && std::isfinite(acceleration);
  }
};

// Limits are symmetric but for the position.
struct JointLimits {
  double position_min = 0;      // rad
  double position_max = 0;      // rad
  double velocity_max = 0;      // rad/s
  double acceleration_max = 0;  // rad/s^2
  double jerk_max = 0;          // rad/s^3

  [[nodiscard]] bool is_valid() const {
    return std::isfinite(position_min) && std::isfinite(position_max) && position_min < position_max &&
           std::isfinite(velocity_max) && velocity_max > 0 && std::isfinite(acceleration_max) && acceleration_max > 0 &&
           std::isfinite(jerk_max) && jerk_max > 0;
  }
};

// The state after `duration_s` of constant jerk: the Taylor polynomial, which is exact here.
inline MotionState advance(const MotionState& from, double jerk, double duration_s) {
  const double t = duration_s;
  return {from.position + t * (from.velocity + t * (from.acceleration / 2 + t * jerk / 6)),
          from.velocity + t * (from.acceleration + t * jerk / 2), from.acceleration + t * jerk};
}

}  // namespace premotor::stream
