#include "stream/profile.h"

#include <algorithm>
#include <cassert>
#include <limits>

namespace premotor::stream {

namespace {

// The fastest change of velocity to `velocity_target` at zero acceleration: jerk, plateau, jerk back.
struct Transfer {
  std::array<Profile::Segment, 3> segments{};

  [[nodiscard]] double duration_s() const {
    return segments[0].duration_s + segments[1].duration_s + segments[2].duration_s;
  }
};

// v_0 is where the velocity ends when the acceleration goes straight to zero; the target's side of v_0 is the direction
// of the plateau. In that direction, peak^2 = J dv + a^2 / 2 (docs/STREAM.md, "Velocity transfer").
Transfer transfer(double velocity, double acceleration, double velocity_target, const JointLimits& limits) {
  const double jerk = limits.jerk_max;
  const double reached = velocity + acceleration * std::abs(acceleration) / (2 * jerk);
  const double sign = velocity_target >= reached ? 1.0 : -1.0;
  const double a = sign * acceleration;
  const double change = sign * (velocity_target - velocity);
  const double peak_squared = std::max(jerk * change + a * a / 2, 0.0);
  const double limit = limits.acceleration_max;
  Transfer result;
  if (peak_squared <= limit * limit) {
    // Rounding may put the peak a little below an acceleration that is already there.
    const double peak = std::max(std::sqrt(peak_squared), a);
    result.segments[0] = {(peak - a) / jerk, sign * jerk};
    result.segments[2] = {peak / jerk, -sign * jerk};
  } else {
    const double first = (limit - a) / jerk;  // negative: above the limit, so the jerk points back
    const double first_change = (limit + a) / 2 * std::abs(first);
    const double plateau = (change - first_change - limit * limit / (2 * jerk)) / limit;
    result.segments[0] = {std::abs(first), first < 0 ? -sign * jerk : sign * jerk};
    result.segments[1] = {std::max(plateau, 0.0), 0};
    result.segments[2] = {limit / jerk, -sign * jerk};
  }
  return result;
}

MotionState after(MotionState state, const Transfer& plan) {
  for (const Profile::Segment& segment : plan.segments) state = advance(state, segment.jerk, segment.duration_s);
  return state;
}

// Where the fastest stop from `state` ends.
double stop_position(const MotionState& state, const JointLimits& limits) {
  return after(state, transfer(state.velocity, state.acceleration, 0, limits)).position;
}

// The time in [0, duration_s] at which a segment of the way to full speed must be left for the stop to end at 0:
// Chandrupatla's method, a bisection that takes inverse quadratic steps where they are safe. `low` and `high` are the
// signed misses at both ends; they have different signs.
double leave_time(const MotionState& start, const Profile::Segment& segment, double low, double high,
                  const JointLimits& limits) {
  double a = segment.duration_s, b = 0, c = a;
  double miss_a = high, miss_b = low, miss_c = high;
  double fraction = 0.5;
  for (int i = 0; i < 100; ++i) {
    const double x = a + fraction * (b - a);
    const double miss = stop_position(advance(start, segment.jerk, x), limits);
    if ((miss > 0) == (miss_a > 0)) {
      c = a, miss_c = miss_a;
    } else {
      c = b, miss_c = miss_b;
      b = a, miss_b = miss_a;
    }
    a = x, miss_a = miss;
    const double best = std::abs(miss_a) < std::abs(miss_b) ? a : b;
    const double tolerance = 2 * std::numeric_limits<double>::epsilon() * std::abs(best);
    const double width = std::abs(b - a);
    if (miss_a == 0 || width <= tolerance) return best;
    const double xi = (a - b) / (c - b), phi = (miss_a - miss_b) / (miss_c - miss_b);
    fraction = 0.5;
    if (phi * phi < xi && (1 - phi) * (1 - phi) < 1 - xi) {
      fraction = miss_a / (miss_b - miss_a) * miss_c / (miss_b - miss_c) +
                 (c - a) / (b - a) * miss_a / (miss_c - miss_a) * miss_b / (miss_c - miss_b);
    }
    const double edge = tolerance / 2 / width;
    fraction = std::clamp(fraction, edge, 1 - edge);
  }
  return std::abs(miss_a) < std::abs(miss_b) ? a : b;
}

}  // namespace

MotionState Profile::add(const MotionState& state, double duration_s, double jerk) {
  if (!(duration_s > 0)) return state;
  assert(count_ < kSegmentsMax);
  segments_[static_cast<std::size_t>(count_++)] = {duration_s, jerk, state};
  duration_s_ += duration_s;
  return advance(state, jerk, duration_s);
}

Profile Profile::rest(double position) {
  Profile profile;
  profile.start_.position = position;
  profile.target_ = position;
  return profile;
}

Profile Profile::stop(const MotionState& start, const JointLimits& limits) {
  assert(start.is_finite() && limits.is_valid());
  Profile profile;
  profile.start_ = start;
  const double way = stop_position({0, start.velocity, start.acceleration}, limits);
  profile.target_ = start.position + way;
  MotionState state{-way, start.velocity, start.acceleration};
  for (const Segment& segment : transfer(start.velocity, start.acceleration, 0, limits).segments)
    state = profile.add(state, segment.duration_s, segment.jerk);
  return profile;
}

Profile Profile::to_rest(const MotionState& start, double target, const JointLimits& limits) {
  assert(start.is_finite() && std::isfinite(target) && limits.is_valid());
  Profile profile;
  profile.start_ = start;
  profile.target_ = target;
  // Positions are counted from the target, so that a joint far from zero loses no digits.
  MotionState state{start.position - target, start.velocity, start.acceleration};
  double miss = stop_position(state, limits);
  const double sign = miss <= 0 ? 1.0 : -1.0;
  const Transfer go = transfer(state.velocity, state.acceleration, sign * limits.velocity_max, limits);
  bool left = miss == 0;  // the stop alone ends on the target
  for (const Segment& segment : go.segments) {
    if (left) break;
    const MotionState next = advance(state, segment.jerk, segment.duration_s);
    const double next_miss = stop_position(next, limits);
    left = next_miss * sign > 0;
    const double time = left ? leave_time(state, segment, miss, next_miss, limits) : segment.duration_s;
    state = profile.add(state, time, segment.jerk);
    miss = next_miss;
  }
  if (!left) {
    // What was reached is full speed to rounding. Exactly full speed and no acceleration keep a long cruise straight.
    state.velocity = sign * limits.velocity_max;
    state.acceleration = 0;
    const double cruise = std::max(-sign * stop_position(state, limits), 0.0) / limits.velocity_max;
    state = profile.add(state, cruise, 0);
  }
  for (const Segment& segment : transfer(state.velocity, state.acceleration, 0, limits).segments)
    state = profile.add(state, segment.duration_s, segment.jerk);
  return profile;
}

Profile Profile::to_rest_in(const MotionState& start, double target, const JointLimits& limits, double duration_s) {
  Profile fastest = to_rest(start, target, limits);
  if (fastest.duration_s() >= duration_s) return fastest;
  // The duration falls with the cruise velocity and is continuous in it: bisection over its logarithm, because the
  // cruise velocity of a short way in a long time is many orders of magnitude below the limit.
  JointLimits slower = limits;
  double low = std::log(limits.velocity_max) - 40, high = std::log(limits.velocity_max);
  Profile best = fastest;
  for (int i = 0; i < 60; ++i) {
    const double middle = low + (high - low) / 2;
    slower.velocity_max = std::exp(middle);
    const Profile found = to_rest(start, target, slower);
    const bool late = found.duration_s() > duration_s;
    if (std::abs(found.duration_s() - duration_s) < std::abs(best.duration_s() - duration_s)) best = found;
    (late ? low : high) = middle;
    if (std::abs(best.duration_s() - duration_s) <= 1e-12 * duration_s) break;
  }
  return best;
}

MotionState Profile::at(double time_s) const {
  double left = std::max(time_s, 0.0);
  for (int i = 0; i < count_; ++i) {
    const Segment& one = segments_[static_cast<std::size_t>(i)];
    if (left < one.duration_s) {
      MotionState state = advance(one.start, one.jerk, left);
      state.position += target_;
      return state;
    }
    left -= one.duration_s;
  }
  return {target_, 0, 0};
}

double plan_together(const MotionState* starts, const double* targets, const JointLimits* limits, int joints,
                     Profile* out) {
  assert(joints >= 0 && joints <= kJointsMax);
  double duration_s = 0;
  for (int i = 0; i < joints; ++i) {
    out[i] = Profile::to_rest(starts[i], targets[i], limits[i]);
    duration_s = std::max(duration_s, out[i].duration_s());
  }
  for (int i = 0; i < joints; ++i) {
    if (out[i].duration_s() < duration_s) out[i] = Profile::to_rest_in(starts[i], targets[i], limits[i], duration_s);
  }
  return duration_s;
}

}  // namespace premotor::stream
