#include "stream/limiter.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <string>

#include "stream/profile.h"

namespace premotor::stream {

namespace {

// One joint in units of one cycle, seen so that the limit in question is the upper one.
struct Chain {
  double x, v, a;

  [[nodiscard]] Chain next(double jerk) const { return {x + (v + (a + jerk)), v + (a + jerk), a + jerk}; }
  [[nodiscard]] Chain mirrored() const { return {-x, -v, -a}; }
};

struct Bounds {
  double x, v, a, j;  // upper position, and the symmetric others
};

// The highest velocity still to come under full braking jerk: a falls by j each cycle until it is negative.
double velocity_peak(const Chain& s, const Bounds& b) {
  if (s.a <= 0) return s.v;
  const double n = std::floor(s.a / b.j);
  return s.v + n * s.a - b.j * n * (n + 1) / 2;
}

// The highest position still to come under the hardest braking: a falls by j each cycle down to -a_max and stays.
// Every other admissible motion from here is above this one at every later cycle.
double position_peak(const Chain& s, const Bounds& b) {
  const double lead = s.a - b.j / 2;
  const double root = lead * lead + 2 * b.j * s.v;
  if (root < 0) return s.x;  // the velocity never becomes positive
  const double n = std::floor((lead + std::sqrt(root)) / b.j);
  if (n < 0) return s.x;
  const double ramp = std::max(std::floor((s.a + b.a) / b.j), 0.0);
  const double k = std::min(n, ramp);
  double x = s.x + k * s.v + s.a * k * (k + 1) / 2 - b.j * k * (k + 1) * (k + 2) / 6;
  // The step after the ramp is smaller than j, so the velocity may still be positive where the ramp alone would end.
  if (n >= ramp) {
    const double v = s.v + k * s.a - b.j * k * (k + 1) / 2;
    const double i = std::max(std::floor(v / b.a), 0.0);
    x += i * v - b.a * i * (i + 1) / 2;
  }
  return std::max(x, s.x);
}

bool is_safe(const Chain& s, const Bounds& b) { return velocity_peak(s, b) <= b.v && position_peak(s, b) <= b.x; }

// The largest jerk in [low, high] whose next state is safe; `low` when none is. Safety is monotone in the jerk.
double largest_safe(const Chain& s, const Bounds& b, double low, double high) {
  if (is_safe(s.next(high), b)) return high;
  for (int i = 0; i < 60; ++i) {
    const double middle = low + (high - low) / 2;
    (is_safe(s.next(middle), b) ? low : high) = middle;
  }
  return low;
}

Status invalid(int joint, const std::string& what) {
  return Status::error("STREAM_LIMITS", "joint " + std::to_string(joint) + ": " + what);
}

}  // namespace

Status Limiter::open(const JointLimits* limits, int joints, double period_s, Limiter* out) {
  if (joints < 1 || joints > kJointsMax)
    return Status::error("STREAM_LIMITS",
                         "expected 1 to " + std::to_string(kJointsMax) + " joints, found " + std::to_string(joints));
  if (!(std::isfinite(period_s) && period_s > 0))
    return Status::error("STREAM_LIMITS", "the cycle must be longer than 0 s, found " + std::to_string(period_s));
  Limiter made;
  made.joints_ = joints;
  made.period_s_ = period_s;
  for (int i = 0; i < joints; ++i) {
    const JointLimits& l = limits[i];
    if (!l.is_valid()) return invalid(i, "limits must be finite and positive, and position_min below position_max");
    Joint& joint = made.each_[static_cast<std::size_t>(i)];
    made.limits_[static_cast<std::size_t>(i)] = l;
    joint.lower = l.position_min;
    joint.upper = l.position_max;
    joint.velocity_max = l.velocity_max * period_s;
    joint.acceleration_max = l.acceleration_max * period_s * period_s;
    joint.jerk_max = l.jerk_max * period_s * period_s * period_s;
    const double scale = std::max(std::abs(l.position_min), std::abs(l.position_max));
    joint.rounding = 16 * std::numeric_limits<double>::epsilon() * scale;
    // Below this, one unit in the last place of a position would already break the jerk limit.
    if (joint.jerk_max < 16 * joint.rounding)
      return invalid(i, "its jerk limit is too small for this cycle: it drowns in the rounding of positions");
  }
  *out = made;
  return Status::good();
}

bool Limiter::reset(const double* positions) {
  for (int i = 0; i < joints_; ++i) {
    const Joint& joint = each_[static_cast<std::size_t>(i)];
    if (!(positions[i] >= joint.lower && positions[i] <= joint.upper)) return false;
  }
  for (int i = 0; i < joints_; ++i) {
    Joint& joint = each_[static_cast<std::size_t>(i)];
    joint.position = joint.wanted = joint.hold = positions[i];
    joint.velocity = joint.acceleration = 0;
    joint.is_refused = false;
  }
  return true;
}

MotionState Limiter::state(int index) const {
  const Joint& joint = each_[static_cast<std::size_t>(index)];
  // The parabola through the last three outputs.
  return {joint.position, (joint.velocity + joint.acceleration / 2) / period_s_,
          joint.acceleration / (period_s_ * period_s_)};
}

// The jerk that brings the joint nearest to `wanted` and keeps every limit.
double Limiter::admissible(const Joint& joint, double wanted, std::uint8_t* clamped) {
  const Chain s{joint.position, joint.velocity, joint.acceleration};
  const Bounds up{joint.upper, joint.velocity_max, joint.acceleration_max, joint.jerk_max};
  const Bounds down{-joint.lower, joint.velocity_max, joint.acceleration_max, joint.jerk_max};
  const double low = std::max(-up.j, -up.a - s.a), high = std::min(up.j, up.a - s.a);
  const double direct = wanted - s.x - s.v - s.a;
  const Chain asked = s.next(direct);
  // An input that rides on a limit breaks it by rounding. Cutting that off would let a difference grow.
  const double r = joint.rounding;
  if (direct >= low - r && direct <= high + r && is_safe(asked, up) && is_safe(asked.mirrored(), down)) return direct;
  if (std::abs(direct) > up.j) *clamped |= kClampJerk;
  if (std::abs(asked.a) > up.a) *clamped |= kClampAcceleration;
  if (velocity_peak(asked, up) > up.v || velocity_peak(asked.mirrored(), down) > up.v) *clamped |= kClampVelocity;
  if (position_peak(asked, up) > up.x || position_peak(asked.mirrored(), down) > down.x) *clamped |= kClampPosition;

  const double most = largest_safe(s, up, low, high);
  const double least = -largest_safe(s.mirrored(), down, -high, -low);
  if (least > most) {
    // By rounding only, on a limit that both sides touch.
    if (least > most + r) ++conflict_count_;
    return least + (most - least) / 2;
  }
  const double nearest = std::clamp(direct, least, most);
  if (std::abs(nearest - direct) <= r) return nearest;

  // Out of reach: catch up with the input as fast as the limits allow, as if it went on at its present speed. A profile
  // is continuous; the state of the chain that it continues exactly is (x - v + a/6, v - a/2, a). A switch of the jerk
  // inside a cycle is averaged, so a stop may swing over the input by less than one cycle's way, and then settles.
  const double step = wanted - joint.wanted;
  const double speed = std::abs(step) <= up.v ? step : 0;
  JointLimits relative;
  // Without some acceleration in reserve, what the averaging misses could not be made up while braking.
  relative.velocity_max = up.v, relative.acceleration_max = 0.95 * up.a, relative.jerk_max = up.j;
  relative.position_max = 1;
  const double v = s.v - speed;
  const MotionState start{s.x - (wanted - speed) - v + s.a / 6, v - s.a / 2, s.a};
  const double jerk = Profile::to_rest(start, 0, relative).at(1).acceleration - s.a;
  return std::clamp(jerk, least, most);
}

void Limiter::step(const double* wanted, double* out, std::uint8_t* clamped) {
  for (int i = 0; i < joints_; ++i) {
    Joint& joint = each_[static_cast<std::size_t>(i)];
    std::uint8_t bits = kClampNone;
    double target = wanted[i];
    if (!std::isfinite(target)) {
      if (!joint.is_refused) {
        const MotionState now = state(i);
        joint.hold = Profile::stop(now, limits_[static_cast<std::size_t>(i)]).target();
      }
      ++refused_count_;
      bits |= kClampRefused;
      target = joint.hold;
    }
    joint.is_refused = !std::isfinite(wanted[i]);
    const double inside = std::clamp(target, joint.lower, joint.upper);
    if (inside != target) bits |= kClampPosition;
    std::uint8_t why = kClampNone;
    const double jerk = admissible(joint, inside, &why);
    const Chain s = Chain{joint.position, joint.velocity, joint.acceleration}.next(jerk);
    joint.acceleration = s.a;
    joint.velocity = s.v;
    // What is reached is put out bit for bit; the sum's rounding must not carry it over the range either.
    const bool is_reached = std::abs(s.x - inside) <= joint.rounding;
    joint.position = is_reached ? inside : std::clamp(s.x, joint.lower, joint.upper);
    // Rest is exact, so that whoever waits for it need not know what rounding is.
    if (is_reached && inside == joint.wanted && std::abs(s.v) <= joint.rounding && std::abs(s.a) <= joint.rounding)
      joint.velocity = joint.acceleration = 0;
    joint.wanted = inside;
    out[i] = joint.position;
    clamped[i] = static_cast<std::uint8_t>(is_reached ? bits : bits | why);
  }
}

}  // namespace premotor::stream
