// Jerk-limited motion of one joint from any state to rest: at a target, or as soon as the limits allow. At most seven
// segments of constant jerk. Used for stops, holds and the move to a start pose; docs/STREAM.md derives it.
#pragma once

#include <array>

#include "stream/motion.h"

namespace premotor::stream {

// A plan of constant-jerk segments that ends at rest. A value: no memory outside itself.
class Profile {
 public:
  static constexpr int kSegmentsMax = 7;

  struct Segment {
    double duration_s = 0;
    double jerk = 0;
    MotionState start{};  // position counted from the target
  };

  // Rest at a place: the profile of a joint that has nowhere to go.
  static Profile rest(double position);

  // Rest as soon as velocity, acceleration and jerk allow, wherever that is. Position limits are the limiter's.
  static Profile stop(const MotionState& start, const JointLimits& limits);

  // Rest at `target`, as soon as velocity, acceleration and jerk allow. `target` and `start` are finite.
  // A start that breaks a limit is brought inside with full jerk first: the acceleration returns to its limit at
  // once, and the velocity follows the fastest way there.
  static Profile to_rest(const MotionState& start, double target, const JointLimits& limits);

  // Rest at `target` after `duration_s`, which is at least the time of to_rest(): cruises more slowly. Arrives sooner
  // where no slower way exists in this family: when the shortest stop ends on the target.
  static Profile to_rest_in(const MotionState& start, double target, const JointLimits& limits, double duration_s);

  // At or after the end the joint rests exactly at target().
  [[nodiscard]] MotionState at(double time_s) const;
  [[nodiscard]] double duration_s() const { return duration_s_; }
  [[nodiscard]] double target() const { return target_; }
  [[nodiscard]] const MotionState& start() const { return start_; }
  [[nodiscard]] int segment_count() const { return count_; }
  [[nodiscard]] const Segment& segment(int index) const { return segments_[static_cast<std::size_t>(index)]; }

 private:
  // Appends a segment and returns the state at its end.
  MotionState add(const MotionState& state, double duration_s, double jerk);

  MotionState start_;
  double target_ = 0;
  double duration_s_ = 0;
  int count_ = 0;
  std::array<Segment, kSegmentsMax> segments_{};
};

// Plans all joints so that they arrive together, after the time of the slowest: returns that time. Arrays have `joints`
// elements, at most kJointsMax. Costs about 50 single profiles per joint: not for the control cycle.
double plan_together(const MotionState* starts, const double* targets, const JointLimits* limits, int joints,
                     Profile* out);

}  // namespace premotor::stream
