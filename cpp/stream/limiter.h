// The last word on every setpoint: whatever is asked for, the positions that come out keep the limits of position,
// velocity, acceleration and jerk of every joint, each cycle and for ever. Owned by the stream; it knows no plan.
//
// The limits hold for the differences of the positions that are put out, x_k at cycle k of length h:
//   v_k = (x_k - x_(k-1)) / h     a_k = (v_k - v_(k-1)) / h     j_k = (a_k - a_(k-1)) / h
#pragma once

#include <array>
#include <cstdint>

#include "base/status.h"
#include "stream/motion.h"

namespace premotor::stream {

// Why a joint's output differs from its input in this cycle; a set of bits.
enum Clamp : std::uint8_t {
  kClampNone = 0,
  kClampPosition = 1,
  kClampVelocity = 2,
  kClampAcceleration = 4,
  kClampJerk = 8,
  kClampRefused = 16,  // the input was not a number: the joint comes to rest and holds
};

class Limiter {
 public:
  // `limits` has `joints` elements; `period_s` is one cycle.
  static Status open(const JointLimits* limits, int joints, double period_s, Limiter* out);

  // Every joint at rest at `positions`. False, and nothing changes, where one is not inside its range.
  [[nodiscard]] bool reset(const double* positions);

  // One cycle: [joints] wanted positions in, [joints] positions out, and a Clamp set per joint.
  void step(const double* wanted, double* out, std::uint8_t* clamped);

  // The motion that the last three outputs describe: a path that starts here with continuous velocity and
  // acceleration, and keeps the limits, passes unchanged.
  [[nodiscard]] MotionState state(int joint) const;
  [[nodiscard]] const JointLimits& limits(int joint) const { return limits_[static_cast<std::size_t>(joint)]; }
  [[nodiscard]] int joints() const { return joints_; }
  [[nodiscard]] double period_s() const { return period_s_; }
  [[nodiscard]] std::uint64_t refused_count() const { return refused_count_; }
  // Cycles in which braking for one limit and for another excluded each other by more than rounding. Stays 0 when every
  // motion began with reset() (docs/STREAM.md says why).
  [[nodiscard]] std::uint64_t conflict_count() const { return conflict_count_; }

 private:
  // Position in rad; velocity, acceleration and jerk per cycle, so that the chain is a += j, v += a, x += v.
  struct Joint {
    double position = 0, velocity = 0, acceleration = 0;
    double wanted = 0;  // the last input
    double hold = 0;    // where a joint whose input is refused comes to rest
    bool is_refused = false;
    double lower = 0, upper = 0, velocity_max = 0, acceleration_max = 0, jerk_max = 0;
    double rounding = 0;  // differences below this are no clamp
  };

  double admissible(const Joint& joint, double wanted, std::uint8_t* clamped);

  int joints_ = 0;
  double period_s_ = 0;
  std::array<JointLimits, kJointsMax> limits_{};
  std::array<Joint, kJointsMax> each_{};
  std::uint64_t refused_count_ = 0;
  std::uint64_t conflict_count_ = 0;
};

}  // namespace premotor::stream
