// Profiles: every limit at every extremum, exact landing, durations against an independent search, arrival together.
// PREMOTOR_PROFILE_CASES and PREMOTOR_ORACLE_CASES change the sizes, PREMOTOR_SEED the seed.
#include "stream/profile.h"

#include <algorithm>
#include <string>

#include "stream_oracle.h"
#include "stream_random.h"
#include "tap.h"

using namespace premotor::stream;
using namespace stream_test;

namespace {

struct Case {
  MotionState start;
  double target = 0;
  JointLimits limits;
};

JointLimits random_limits(Random& random) {
  JointLimits limits;
  limits.position_min = -1e9;
  limits.position_max = 1e9;
  limits.velocity_max = random.log_uniform(0.05, 20);
  limits.acceleration_max = random.log_uniform(0.1, 200);
  limits.jerk_max = random.log_uniform(1, 2e4);
  return limits;
}

// A start inside the limits from which they can be kept: the velocity that the acceleration leads to is inside too.
Case random_case(Random& random) {
  Case one;
  one.limits = random_limits(random);
  const double v = one.limits.velocity_max, j = one.limits.jerk_max;
  const double a = std::min(one.limits.acceleration_max, 2 * std::sqrt(j * v));
  const int kind = random.below(8);
  one.start.position = random.uniform(-3, 3);
  one.start.acceleration = kind == 0 ? 0 : kind == 1 ? random.sign() * a : random.uniform(-a, a);
  const double drift = one.start.acceleration * std::abs(one.start.acceleration) / (2 * j);
  const double low = std::max(-v, -v - drift), high = std::min(v, v - drift);
  one.start.velocity = kind == 2   ? std::clamp(0.0, low, high)
                       : kind == 3 ? (random.below(2) == 0 ? low : high)
                                   : random.uniform(low, high);
  const double stop = Profile::stop(one.start, one.limits).target();
  switch (random.below(6)) {
    case 0:
      one.target = stop;
      break;
    case 1:
      one.target = stop + random.sign() * random.log_uniform(1e-12, 1e-3);
      break;
    case 2:
      one.target = one.start.position;
      break;
    case 3:
      one.target = one.start.position + random.sign() * random.log_uniform(1e-6, 1e3);
      break;
    default:
      one.target = random.uniform(-6, 6);
      break;
  }
  return one;
}

struct Worst {
  double velocity = 0, acceleration = 0, jerk = 0;  // shares of the limit
  double landing = 0, rest_velocity = 0, rest_acceleration = 0, seam = 0;
};

// The largest velocity inside a segment: at its ends, or where the acceleration is zero.
double fastest(const Profile::Segment& one) {
  double speed =
      std::max(std::abs(one.start.velocity), std::abs(advance(one.start, one.jerk, one.duration_s).velocity));
  if (one.jerk != 0) {
    const double zero = -one.start.acceleration / one.jerk;
    if (zero > 0 && zero < one.duration_s) see(std::abs(advance(one.start, one.jerk, zero).velocity), &speed);
  }
  return speed;
}

void measure(const Profile& profile, const Case& one, const JointLimits& limits, Worst* worst) {
  MotionState state{one.start.position - profile.target(), one.start.velocity, one.start.acceleration};
  // The length that rounding is measured against: the largest position on the way, from the target or from zero.
  double scale = std::abs(profile.target());
  for (int i = 0; i < profile.segment_count(); ++i)
    scale = std::max(scale, std::abs(profile.segment(i).start.position));
  for (int i = 0; i < profile.segment_count(); ++i) {
    const Profile::Segment& part = profile.segment(i);
    see(std::abs(part.start.position - state.position) / scale, &worst->seam);
    see(std::abs(part.start.velocity - state.velocity) / limits.velocity_max, &worst->seam);
    see(std::abs(part.start.acceleration - state.acceleration) / limits.acceleration_max, &worst->seam);
    state = advance(part.start, part.jerk, part.duration_s);
    see(std::abs(part.jerk) / limits.jerk_max, &worst->jerk);
    see(fastest(part) / limits.velocity_max, &worst->velocity);
    see(std::max(std::abs(part.start.acceleration), std::abs(state.acceleration)) / limits.acceleration_max,
        &worst->acceleration);
  }
  see(std::abs(state.position) / scale, &worst->landing);
  see(std::abs(state.velocity) / limits.velocity_max, &worst->rest_velocity);
  see(std::abs(state.acceleration) / limits.acceleration_max, &worst->rest_acceleration);
}

// Sums of seven segments round to some 1e-15; 1e-12 of a limit, or of the way, leaves room for a million cases and is
// far below what an encoder of 24 bits resolves. A wrong formula misses by far more.
void report(const Worst& worst, const std::string& name) {
  tap::note(name + ": seam " + text(worst.seam) + ", landing " + text(worst.landing) + ", rest " +
            text(worst.rest_velocity) + " " + text(worst.rest_acceleration) + ", over the limits " +
            text(worst.velocity - 1) + " " + text(worst.acceleration - 1) + " " + text(worst.jerk - 1));
  tap::ok(worst.velocity <= 1 + 1e-12, name + ": velocity limit at every extremum");
  tap::ok(worst.acceleration <= 1 + 1e-12, name + ": acceleration limit at every extremum");
  tap::ok(worst.jerk <= 1, name + ": jerk limit");
  tap::ok(worst.seam <= 1e-12, name + ": position, velocity and acceleration are continuous");
  tap::ok(worst.landing <= 1e-12, name + ": lands on the target");
  tap::ok(worst.rest_velocity <= 1e-12 && worst.rest_acceleration <= 1e-12, name + ": at rest");
}

void test_limits(Random& random, long long cases) {
  Worst moves, stops;
  bool ends = true;
  for (long long i = 0; i < cases; ++i) {
    const Case one = random_case(random);
    const Profile move = Profile::to_rest(one.start, one.target, one.limits);
    measure(move, one, one.limits, &moves);
    const MotionState end = move.at(move.duration_s() * (1 + 1e-12));
    ends = ends && end.position == one.target && end.velocity == 0 && end.acceleration == 0;
    measure(Profile::stop(one.start, one.limits), one, one.limits, &stops);
  }
  report(moves, std::to_string(cases) + " moves");
  report(stops, std::to_string(cases) + " stops");
  tap::ok(ends, "after its end a profile is bitwise at rest on the target");
}

void test_against_oracle(Random& random, long long cases, int lead_grid) {
  double slowest = 0, quickest = 10, found_none = 0;
  for (long long i = 0; i < cases; ++i) {
    Case one = random_case(random);
    // The search resolves times to about a microsecond, so the moves are of a robot's order.
    one.limits.velocity_max = std::max(one.limits.velocity_max, 0.2);
    const double ours = Profile::to_rest(one.start, one.target, one.limits).duration_s();
    if (ours < 1e-3) continue;
    oracle::Search search({one.start.position, one.start.velocity, one.start.acceleration}, one.target,
                          {one.limits.velocity_max, one.limits.acceleration_max, one.limits.jerk_max});
    const double theirs = search.fastest(lead_grid);
    if (!std::isfinite(theirs)) {
      ++found_none;
      continue;
    }
    slowest = std::max(slowest, ours / theirs);
    quickest = std::min(quickest, ours / theirs);
  }
  const std::string name = std::to_string(cases) + " cases, " + std::to_string(lead_grid) + " leading arcs: ";
  tap::note(name + "time over the search's minus 1 between " + text(quickest - 1) + " and " + text(slowest - 1) + ", " +
            text(found_none) + " without a result");
  tap::ok(slowest <= 1.05, name + "at most 1.05 of the fastest that the search finds");
  tap::ok(found_none <= 0.01 * static_cast<double>(cases), name + "the search finds a way nearly always");
}

// A start beyond the limits comes back and then stays inside: the acceleration at once, the velocity without growing
// beyond where the acceleration already leads.
void test_illegal_starts(Random& random, long long cases) {
  bool returns = true, lands = true;
  for (long long i = 0; i < cases; ++i) {
    Case one = random_case(random);
    one.start.velocity = random.uniform(-3, 3) * one.limits.velocity_max;
    one.start.acceleration = random.uniform(-3, 3) * one.limits.acceleration_max;
    const double a = one.start.acceleration, j = one.limits.jerk_max;
    const double drift = a * std::abs(a) / (2 * j);
    const double v_limit =
        std::max({one.limits.velocity_max, std::abs(one.start.velocity), std::abs(one.start.velocity + drift)});
    const Profile move = Profile::to_rest(one.start, one.target, one.limits);
    Worst worst;
    JointLimits reached = one.limits;  // what rounding is measured against
    reached.velocity_max = v_limit;
    reached.acceleration_max = std::max(std::abs(a), one.limits.acceleration_max);
    measure(move, one, reached, &worst);
    lands = lands && worst.landing <= 1e-12 && worst.seam <= 1e-12 && worst.jerk <= 1;
    double time = 0;
    bool was_inside = false;
    for (int k = 0; k < move.segment_count(); ++k) {
      const Profile::Segment& part = move.segment(k);
      const double end = part.start.acceleration + part.jerk * part.duration_s;
      const double inside = one.limits.acceleration_max * (1 + 1e-12);
      returns = returns && fastest(part) <= v_limit * (1 + 1e-12);
      // Outside, the jerk points back at full size until the limit is reached.
      if (std::abs(part.start.acceleration) > inside)
        returns = returns && part.jerk * part.start.acceleration < 0 && std::abs(part.jerk) == j && !was_inside;
      else
        was_inside = true;
      if (was_inside) returns = returns && std::abs(end) <= inside;
      time += part.duration_s;
    }
    returns = returns && std::abs(time - move.duration_s()) <= 1e-9 * time;
  }
  tap::ok(returns, std::to_string(cases) + " starts beyond the limits come back as fast as the jerk allows");
  tap::ok(lands, "and land");
}

void test_together(Random& random, long long cases) {
  Worst worst;
  double early = 0;
  for (long long i = 0; i < cases; ++i) {
    constexpr int joints = 4;
    Case ones[joints];
    MotionState starts[joints];
    double targets[joints];
    JointLimits limits[joints];
    Profile profiles[joints];
    for (int k = 0; k < joints; ++k) {
      ones[k] = random_case(random);
      starts[k] = ones[k].start, targets[k] = ones[k].target, limits[k] = ones[k].limits;
    }
    const double duration_s = plan_together(starts, targets, limits, joints, profiles);
    for (int k = 0; k < joints; ++k) {
      measure(profiles[k], ones[k], limits[k], &worst);
      const double way = std::abs(targets[k] - Profile::stop(starts[k], limits[k]).target());
      // Where the stop ends on the target there is no slower way, and next to it none that rounding can tell apart.
      if (way > 1e-9) see(std::abs(profiles[k].duration_s() - duration_s) / duration_s, &early);
    }
  }
  report(worst, std::to_string(cases) + " moves of four joints");
  tap::note("largest difference of arrival " + text(early) + " of the duration");
  tap::ok(early <= 1e-6, "joints arrive together");
}

void test_known() {
  JointLimits limits;
  limits.position_min = -10, limits.position_max = 10;
  limits.velocity_max = 1, limits.acceleration_max = 2, limits.jerk_max = 10;
  // T = D / V + V / A + A / J, by hand, for a way long enough for all seven segments.
  const Profile longest = Profile::to_rest({0, 0, 0}, 3, limits);
  tap::is_near(longest.duration_s(), 3.0 + 0.5 + 0.2, 1e-12, "a long way takes D / V + V / A + A / J");
  tap::equal(longest.segment_count(), 7, "in seven segments");
  // T = (32 D / J)^(1/3) when neither limit is reached.
  tap::is_near(Profile::to_rest({0, 0, 0}, 0.01, limits).duration_s(), std::cbrt(0.032), 1e-12, "a short one");
  tap::is_near(Profile::to_rest({1, 0, 0}, 1.01, limits).at(std::cbrt(0.032) / 2).position, 1.005, 1e-12,
               "is halfway after half its time");
  const Profile still = Profile::to_rest({2, 0, 0}, 2, limits);
  tap::ok(still.duration_s() == 0 && still.at(0).position == 2 && still.at(1).position == 2, "no way takes no time");
  tap::is_near(Profile::stop({0, 1, 0}, limits).duration_s(), 0.7, 1e-12, "a stop takes V / A + A / J");
  tap::is_near(Profile::stop({0, 1, 0}, limits).target(), 0.35, 1e-12, "over V T / 2");
  tap::equal(Profile::rest(3).at(5).position, 3.0, "rest is rest");
}

}  // namespace

int main() {
  Random random = seeded(20250101);
  test_known();
  test_illegal_starts(random, 100000);
  test_together(random, 2000);
  const long long searched = from_environment("PREMOTOR_ORACLE_CASES", 8000);
  test_against_oracle(random, searched, 0);
  test_against_oracle(random, searched / 20, 12);
  test_limits(random, from_environment("PREMOTOR_PROFILE_CASES", 1000000));
  return tap::finish();
}
