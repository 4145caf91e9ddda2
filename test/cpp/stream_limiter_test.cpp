// The limiter: hostile inputs never break a limit, feasible inputs pass unchanged, refused inputs come to rest.
// PREMOTOR_LIMITER_RUNS changes the number of random runs, PREMOTOR_SEED the seed.
#include "stream/limiter.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "stream/profile.h"
#include "stream_meter.h"
#include "stream_random.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::stream;
using namespace stream_test;

namespace {

constexpr double kPeriodS = 1e-3;

Limiter open(const JointLimits& limits, double period_s = kPeriodS) {
  Limiter limiter;
  const Status status = Limiter::open(&limits, 1, period_s, &limiter);
  if (!status.ok()) tap::ok(false, status.message);
  return limiter;
}

JointLimits arm() { return {-2.0, 2.5, 2.0, 10.0, 200.0}; }

JointLimits random_limits(Random& random) {
  JointLimits l;
  // Ranges from far larger than any stop down to ones that leave room for a few cycles only.
  const double middle = random.uniform(-1, 1), half = random.log_uniform(1e-4, 5);
  l.position_min = middle - half, l.position_max = middle + half;
  l.velocity_max = random.log_uniform(0.01, 20);
  l.acceleration_max = random.log_uniform(0.1, 500);
  l.jerk_max = random.log_uniform(5, 1e5);
  return l;
}

// One of many kinds of input that no limit knows: jumps, noise, waves too fast, ramps too steep, values at the ends of
// double, NaN, and the input that rides on a limit until the last moment.
class Hostile {
 public:
  Hostile(Random& random, const JointLimits& limits) : random_(random), limits_(limits) { choose(); }

  double next(int cycle) {
    if (random_.below(400) == 0) choose();
    const double middle = (limits_.position_min + limits_.position_max) / 2;
    const double half = (limits_.position_max - limits_.position_min) / 2;
    const double t = cycle * kPeriodS;
    switch (kind_) {
      case 0:
        return middle + half * random_.uniform(-1.5, 1.5);
      case 1:
        return level_;
      case 2:
        return middle + 1.2 * half * std::sin(rate_ * t);
      case 3:
        return middle + 1.2 * half * (std::sin(rate_ * t) > 0 ? 1 : -1);
      case 4:
        return level_ + slope_ * (t - since_);
      case 5:
        return random_.below(2) == 0 ? 1e308 : -1e308;
      case 6:
        return random_.below(3) == 0 ? std::numeric_limits<double>::quiet_NaN() : middle;
      case 7:
        return std::numeric_limits<double>::infinity();
      case 8:
        since_ = t;
        return random_.below(2) == 0 ? limits_.position_max : limits_.position_min;
      default:
        return middle + half * std::sin(rate_ * t) + half * 1e-3 * random_.uniform(-1, 1);
    }
  }

 private:
  void choose() {
    kind_ = random_.below(10);
    level_ = random_.uniform(limits_.position_min, limits_.position_max);
    rate_ = random_.log_uniform(0.5, 500);
    slope_ = random_.sign() * random_.log_uniform(0.1, 3) * limits_.velocity_max;
  }

  Random& random_;
  JointLimits limits_;
  int kind_ = 0;
  double level_ = 0, rate_ = 1, slope_ = 0, since_ = 0;
};

void test_hostile(Random& random, long long runs) {
  Meter meter;
  std::uint64_t conflicts = 0;
  long long cycles = 0;
  for (long long run = 0; run < runs; ++run) {
    const JointLimits limits = random_limits(random);
    Limiter limiter = open(limits);
    const double at = random.uniform(limits.position_min, limits.position_max);
    if (!limiter.reset(&at)) tap::ok(false, "a start inside the range");
    meter.start(at);
    Hostile input(random, limits);
    for (int cycle = 0; cycle < 1500; ++cycle) {
      const double wanted = input.next(cycle);
      double out = 0;
      std::uint8_t bits = 0;
      limiter.step(&wanted, &out, &bits);
      meter.see_output(out, limits, kPeriodS);
      ++cycles;
    }
    conflicts += limiter.conflict_count();
  }
  tap::note(std::to_string(cycles) + " cycles; excess in rad per rad of range: " + text(meter.position) + ", " +
            text(meter.velocity) + ", " + text(meter.acceleration) + ", " + text(meter.jerk));
  tap::ok(meter.position <= 0, "hostile inputs never leave the range");
  tap::ok(meter.velocity <= kRounding, "nor break the velocity limit");
  tap::ok(meter.acceleration <= kRounding, "nor the acceleration limit");
  tap::ok(meter.jerk <= kRounding, "nor the jerk limit");
  tap::equal(conflicts, std::uint64_t{0}, "and no two limits ever exclude each other");
}

// Motion that keeps the limits: moves to random targets, replanned under way at random, and ends on a position limit.
void test_feasible(Random& random, long long runs) {
  double worst = 0;
  long long cycles = 0, changed = 0, flagged = 0;
  for (long long run = 0; run < runs; ++run) {
    JointLimits limits = random_limits(random);
    limits.position_min -= 50, limits.position_max += 50;  // a replanned move may swing beyond its targets
    Limiter limiter = open(limits);
    MotionState start{random.uniform(-3, 3), 0, 0};
    if (!limiter.reset(&start.position)) tap::ok(false, "a start inside the range");
    double target = random.uniform(-3, 3);
    Profile profile = Profile::to_rest(start, target, limits);
    double t = 0;
    for (int cycle = 0; cycle < 3000; ++cycle) {
      t += kPeriodS;
      if (random.below(700) == 0) {
        profile = Profile::to_rest(profile.at(t - kPeriodS), random.uniform(-3, 3), limits);
        t = kPeriodS;
      }
      const double wanted = profile.at(t).position;
      double out = 0;
      std::uint8_t bits = 0;
      limiter.step(&wanted, &out, &bits);
      see(std::abs(out - wanted) / limits.position_max, &worst);
      ++cycles;
      changed += out != wanted ? 1 : 0;
      flagged += bits != 0 ? 1 : 0;
    }
  }
  tap::note(std::to_string(cycles) + " cycles, " + std::to_string(changed) + " not bit for bit, " +
            std::to_string(flagged) + " flagged, largest difference " + text(worst) + " of the range");
  tap::ok(worst == 0 && changed == 0 && flagged == 0, "moves at the limits pass bit for bit, and unflagged");
}

// Inputs that touch a limit without crossing it: the range's end with curvature, full speed, full acceleration.
void test_touching() {
  JointLimits limits{-1, 1, 2, 8, 100};
  for (const double rate : {1.9, 1.0}) {
    Limiter limiter = open(limits);
    const double start = -1;
    if (!limiter.reset(&start)) tap::ok(false, "the range's end is inside");
    // Come up to speed first: a wave from rest would begin with a step of acceleration.
    double worst = 0;
    for (int cycle = 1; cycle <= 20000; ++cycle) {
      const double t = cycle * kPeriodS, blend = std::min(t / 4, 1.0);
      const double rise = blend * blend * blend * (10 - blend * (15 - 6 * blend));
      const double wanted = -1 + (1 - std::cos(rate * t)) * rise;
      double out = 0;
      std::uint8_t bits = 0;
      limiter.step(&wanted, &out, &bits);
      see(std::abs(out - wanted), &worst);
    }
    tap::is_near(worst, 0, 1e-12, "a wave that touches both ends of the range passes, " + text(rate) + " rad/s");
  }
}

// Runs a constant input until the output stands on it; the number of cycles, or -1.
int settle(Limiter* limiter, double wanted, Meter* meter, double* overshoot) {
  const JointLimits& limits = limiter->limits(0);
  const double from = meter->x;
  for (int cycle = 1; cycle <= 20000; ++cycle) {
    double out = 0;
    std::uint8_t bits = 0;
    limiter->step(&wanted, &out, &bits);
    meter->see_output(out, limits, limiter->period_s());
    see((out - wanted) * (wanted > from ? 1 : -1), overshoot);
    if (out == wanted && meter->v == 0 && meter->a == 0) return cycle;
  }
  return -1;
}

void test_catching_up(Random& random, int runs) {
  double worst = 0, overshoot = 0, slowest = 0;
  bool settles = true;
  Meter meter;
  for (int run = 0; run < runs; ++run) {
    JointLimits limits = random_limits(random);
    limits.position_min = -3, limits.position_max = 3;
    limits.velocity_max = std::max(limits.velocity_max, 0.5), limits.jerk_max = std::min(limits.jerk_max, 1e4);
    Limiter limiter = open(limits);
    const double from = random.uniform(-3, 3), to = run % 4 == 0 ? 3 : random.uniform(-3, 3);
    if (!limiter.reset(&from)) tap::ok(false, "a start inside the range");
    meter.start(from);
    const int cycles = settle(&limiter, to, &meter, &overshoot);
    settles = settles && cycles > 0;
    const double fastest_s = Profile::to_rest({from, 0, 0}, to, limits).duration_s();
    see(cycles * kPeriodS - fastest_s, &slowest);
    see(overshoot / (limits.velocity_max * kPeriodS), &worst);
    overshoot = 0;
  }
  tap::ok(settles && meter.is_kept(), "a step is reached bit for bit within the limits");
  tap::note("overshoot " + text(worst) + " of one cycle at full speed, " + text(slowest) +
            " s after the fastest profile");
  tap::ok(slowest <= 1, "not long after the fastest profile");
  tap::ok(worst <= 1, "and overshot by less than one cycle at full speed");
}

void test_refused() {
  const JointLimits limits = arm();
  Limiter limiter = open(limits);
  const double from = 0;
  if (!limiter.reset(&from)) tap::ok(false, "a start inside the range");
  Meter meter;
  meter.start(from);
  double out = 0;
  std::uint8_t bits = 0;
  const double far = 2;
  for (int cycle = 0; cycle < 600; ++cycle) {
    limiter.step(&far, &out, &bits);
    meter.see_output(out, limits, kPeriodS);
  }
  const double stop = Profile::stop(limiter.state(0), limits).target();
  const double bad = std::numeric_limits<double>::quiet_NaN();
  for (int cycle = 0; cycle < 2000; ++cycle) {
    limiter.step(&bad, &out, &bits);
    meter.see_output(out, limits, kPeriodS);
    if ((bits & kClampRefused) == 0) tap::ok(false, "a refused input is reported");
  }
  tap::is_near(out, stop, 1e-4, "inputs that are no numbers bring the joint to rest at once");
  tap::ok(meter.v == 0 && meter.a == 0 && meter.is_kept(), "and keep the limits");
  tap::equal(limiter.refused_count(), std::uint64_t{2000}, "and are counted");
  limiter.step(&out, &out, &bits);
  tap::equal(bits, std::uint8_t{0}, "a good input ends it");
}

void test_reports() {
  const JointLimits limits = arm();
  Limiter limiter = open(limits);
  double at = 0, out = 0;
  std::uint8_t bits = 0;
  const auto ask = [&](double wanted) {
    if (!limiter.reset(&at)) tap::ok(false, "a start inside the range");
    limiter.step(&wanted, &out, &bits);
    return int{bits};
  };
  tap::equal(ask(1e-7), 0, "a step within the jerk limit is not clamped");
  tap::equal(out, 1e-7, "and passes bit for bit");
  tap::equal(ask(3e-7), int{kClampJerk}, "jerk is reported");
  tap::equal(ask(1.5e-5), kClampJerk | kClampAcceleration, "acceleration too");
  tap::ok((ask(2.1e-3) & kClampVelocity) != 0, "velocity too");
  tap::ok((ask(3.0) & kClampPosition) != 0, "position too");
  at = 2.6;
  tap::ok(!limiter.reset(&at), "a start outside the range is refused");
  at = std::numeric_limits<double>::quiet_NaN();
  tap::ok(!limiter.reset(&at), "and one that is no number");
  JointLimits wrong = limits;
  wrong.jerk_max = 0;
  tap::equal(std::string(Limiter::open(&wrong, 1, kPeriodS, &limiter).code), std::string("STREAM_LIMITS"), "no jerk");
  wrong.jerk_max = 1e-7;
  tap::ok(!Limiter::open(&wrong, 1, kPeriodS, &limiter).ok(), "a jerk that drowns in rounding");
  tap::ok(!Limiter::open(&limits, kJointsMax + 1, kPeriodS, &limiter).ok(), "too many joints");
  tap::ok(!Limiter::open(&limits, 1, 0, &limiter).ok(), "no period");
}

}  // namespace

int main() {
  Random random = seeded(20250102);
  test_reports();
  test_refused();
  test_touching();
  test_catching_up(random, 300);
  test_feasible(random, 600);
  test_hostile(random, from_environment("PREMOTOR_LIMITER_RUNS", 2500));
  return tap::finish();
}
