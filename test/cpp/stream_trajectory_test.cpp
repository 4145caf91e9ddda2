// Trajectories: knots are met, and position, velocity and acceleration are continuous across knots and splices, seen
// from numeric derivatives of the positions alone. PREMOTOR_SEED changes the seed.
#include "stream/trajectory.h"

#include <algorithm>
#include <memory>

#include "stream_random.h"
#include "tap.h"

using namespace premotor::stream;
using namespace stream_test;

namespace {

constexpr std::int64_t kMs = 1000000;
constexpr std::int64_t kKnotNs = 20 * kMs;
constexpr int kJoints = 2;

constexpr JointLimits kLimits{-10, 10, 8, 100, 1e5};

std::unique_ptr<Trajectory> open() {
  auto trajectory = std::make_unique<Trajectory>();
  const JointLimits limits[kJoints] = {kLimits, kLimits};
  trajectory->open(limits, kJoints);
  return trajectory;
}

// A smooth motion that every chunk samples, plus what a policy that changes its mind adds.
double plan(double t, int joint, double offset) { return std::sin(2 * t + joint) + 0.3 * std::sin(5 * t) + offset; }

std::unique_ptr<Chunk> chunk_of(std::int64_t start_ns, int knots, double offset) {
  auto chunk = std::make_unique<Chunk>();
  chunk->header.start_ns = start_ns;
  chunk->header.knot_period_ns = kKnotNs;
  chunk->header.knot_count = knots;
  chunk->header.joint_count = kJoints;
  for (int k = 0; k < knots; ++k)
    for (int j = 0; j < kJoints; ++j)
      chunk->knots[static_cast<std::size_t>(k)][static_cast<std::size_t>(j)] =
          plan(static_cast<double>(start_ns + k * kKnotNs) * 1e-9, j, offset);
  return chunk;
}

// Largest step of each order at a time: differences of the one-sided derivatives, each of the cubic through the
// position there and three on one side. Those err by the fourth derivative times h^2, or h^3, which a step does not
// shrink to.
struct Steps {
  double position = 0, velocity = 0, acceleration = 0;
};

void see_steps(const Trajectory& trajectory, std::int64_t time_ns, std::int64_t h_ns, Steps* steps) {
  const double h = static_cast<double>(h_ns) * 1e-9;
  for (int j = 0; j < kJoints; ++j) {
    const auto x = [&](int i) { return trajectory.at(time_ns + i * h_ns, j).position; };
    const double before = trajectory.at(time_ns - 1, j).position;
    const double v_after = (-11 * x(0) + 18 * x(1) - 9 * x(2) + 2 * x(3)) / (6 * h);
    const double v_before = (11 * x(0) - 18 * x(-1) + 9 * x(-2) - 2 * x(-3)) / (6 * h);
    const double a_after = (2 * x(0) - 5 * x(1) + 4 * x(2) - x(3)) / (h * h);
    const double a_before = (2 * x(0) - 5 * x(-1) + 4 * x(-2) - x(-3)) / (h * h);
    see(std::abs(x(0) - before), &steps->position);
    see(std::abs(v_after - v_before), &steps->velocity);
    see(std::abs(a_after - a_before), &steps->acceleration);
  }
}

void splice_at(Trajectory* trajectory, const Chunk& chunk, std::int64_t splice_ns, bool* ok) {
  MotionState from[kJoints];
  for (int j = 0; j < kJoints; ++j) {
    from[j] = trajectory->in_charge(splice_ns) != nullptr
                  ? trajectory->at(splice_ns, j)
                  : MotionState{plan(static_cast<double>(splice_ns) * 1e-9, j, 0), 0, 0};
  }
  *ok = *ok && trajectory->splice(chunk, splice_ns, from) == Splice::done;
}

void test_splices(Random& random) {
  const auto trajectory = open();
  bool spliced = true, meets = true;
  Steps at_splices, at_knots, model;
  std::int64_t splice = 0;
  for (int i = 0; i < 40; ++i) {
    // Chunks begin anywhere against the splice, and the policy changes its mind by centimetres.
    const std::int64_t start = splice - static_cast<std::int64_t>(random.uniform(0, 3e7));
    const double offset = i == 0 ? 0 : random.uniform(-0.03, 0.03);
    const auto chunk = chunk_of(start, 32, offset);
    splice_at(trajectory.get(), *chunk, splice, &spliced);
    const std::int64_t next = splice + static_cast<std::int64_t>(random.uniform(2e8, 5e8));
    if (i > 0) see_steps(*trajectory, splice, 20000, &at_splices);
    for (int k = 0; start + k * kKnotNs < next - kKnotNs; ++k) {
      const std::int64_t time = start + k * kKnotNs;
      if (time < splice + kMs) continue;
      see_steps(*trajectory, time, 20000, &at_knots);
      // A joint may join late, but after a tenth of a second every knot is met.
      if (time > splice + 150 * kMs)
        for (int j = 0; j < kJoints; ++j)
          meets = meets && std::abs(trajectory->at(time, j).position -
                                    chunk->knots[static_cast<std::size_t>(k)][static_cast<std::size_t>(j)]) < 1e-12;
      for (int j = 0; j < kJoints; ++j) {
        const MotionState early = trajectory->at(time - 1, j), late = trajectory->at(time, j);
        see(std::abs(early.velocity - late.velocity), &model.velocity);
        see(std::abs(early.acceleration - late.acceleration), &model.acceleration);
      }
    }
    splice = next;
    trajectory->forget_before(splice - kMs);
  }
  tap::ok(spliced, "40 chunks are spliced at random times");
  tap::ok(meets, "and their knots are met");
  tap::note("steps at splices " + text(at_splices.position) + " " + text(at_splices.velocity) + " " +
            text(at_splices.acceleration) + ", at knots " + text(at_knots.position) + " " + text(at_knots.velocity) +
            " " + text(at_knots.acceleration));
  // 1 ns of 8 rad/s is 8e-9 rad. With h = 20 us, rounding of 1e-16 over h^2 is 1e-6, and fourth derivatives of some 1e7
  // add 0.01.
  tap::ok(at_splices.position < 1e-8 && at_knots.position < 1e-8, "no step of position");
  tap::ok(at_splices.velocity < 1e-5 && at_knots.velocity < 1e-5, "no step of velocity");
  tap::ok(at_splices.acceleration < 0.05 && at_knots.acceleration < 0.05, "no step of acceleration");
  tap::ok(model.velocity < 1e-6 && model.acceleration < 1e-3, "nor in the derivatives that it reports");
}

void test_parabola() {
  // Central differences are exact for a parabola and the quintic too, so the whole path is the parabola.
  const auto trajectory = open();
  auto chunk = chunk_of(0, 20, 0);
  const auto parabola = [](double t) { return 0.2 + t + 3 * t * t; };
  for (int k = 0; k < 20; ++k) chunk->knots[static_cast<std::size_t>(k)].fill(parabola(k * 0.02));
  const MotionState from[kJoints] = {{0.2, 1, 6}, {0.2, 1, 6}};
  tap::ok(trajectory->splice(*chunk, 0, from) == Splice::done, "a parabola is spliced");
  double worst = 0;
  for (std::int64_t t = 0; t <= 18 * kKnotNs; t += kMs)
    see(std::abs(trajectory->at(t, 0).position - parabola(static_cast<double>(t) * 1e-9)), &worst);
  tap::is_near(worst, 0, 1e-13, "and reproduced");
}

void test_refusals() {
  const auto trajectory = open();
  const MotionState from[kJoints] = {{0, 0, 0}, {0, 0, 0}};
  auto chunk = chunk_of(0, 10, 0);
  for (auto& knot : chunk->knots) knot.fill(0);
  tap::ok(!trajectory->covers(0) && trajectory->in_charge(0) == nullptr, "no chunk, no path");
  tap::ok(trajectory->splice(*chunk, 181 * kMs, from) == Splice::stale, "a chunk that has ended is stale");
  tap::ok(trajectory->splice(*chunk, 175 * kMs, from) == Splice::stale, "and one whose last knot is too near");
  for (auto& knot : chunk->knots) knot.fill(5);
  tap::ok(trajectory->splice(*chunk, 0, from) == Splice::jump, "a plan out of reach is a jump");
  for (auto& knot : chunk->knots) knot.fill(0.1);
  tap::ok(trajectory->splice(*chunk, 0, from) == Splice::done, "a near one is joined");
  tap::ok(trajectory->covers(180 * kMs) && !trajectory->covers(181 * kMs), "up to its last knot");
  double fastest = 0;
  for (std::int64_t t = 0; t < 180 * kMs; t += kMs)
    see(std::max(std::abs(trajectory->at(t, 0).velocity) / kLimits.velocity_max,
                 std::abs(trajectory->at(t, 0).acceleration) / kLimits.acceleration_max),
        &fastest);
  tap::ok(fastest <= 1.01, "within the limits");
  bool ok = true;
  for (int i = 1; i < Trajectory::kPathsMax; ++i) splice_at(trajectory.get(), *chunk, i * 10 * kMs, &ok);
  tap::ok(ok && trajectory->splice(*chunk, 100 * kMs, from) == Splice::full, "waiting chunks are bounded");
  tap::ok(trajectory->splice(*chunk, 30 * kMs, from) == Splice::done, "but an earlier splice replaces later ones");
}

// A chunk that comes as its predecessor ends finds the joint braking. At the pace of a plan that uses two thirds of the
// speed nothing within the limits makes up for that, so the joint takes what exceeds them least. Numbers of a real
// case.
void test_braking() {
  constexpr JointLimits limits{-1.8, 1.8, 1, 100, 20000};
  const JointLimits all[kJoints] = {limits, limits};
  const auto trajectory = std::make_unique<Trajectory>();
  trajectory->open(all, kJoints);
  const MotionState braking{0.47777, 0.212967, -41.4878};
  const MotionState from[kJoints] = {braking, braking};
  constexpr std::int64_t knot_ns = 40 * kMs, splice_ns = 3 * kMs;
  auto chunk = chunk_of(knot_ns, 8, 0);
  chunk->header.knot_period_ns = knot_ns;
  for (int k = 0; k < 8; ++k) chunk->knots[static_cast<std::size_t>(k)].fill(0.503631 + k * 0.026667);
  tap::ok(trajectory->splice(*chunk, splice_ns, from) == Splice::done, "a plan at full pace is joined while braking");
  double fastest = 0;
  for (std::int64_t t = splice_ns; t <= 8 * knot_ns; t += kMs) see(std::abs(trajectory->at(t, 0).velocity), &fastest);
  tap::ok(fastest > 1.001 && fastest < 1.04,
          "with little too much speed, which the limiter holds back: " + text(fastest));
  const MotionState joined = trajectory->at(knot_ns, 0);
  tap::is_near(joined.position, 0.503631, 1e-12, "at the knot where it is least, the first");
}

}  // namespace

int main() {
  Random random = seeded(20250104);
  test_parabola();
  test_braking();
  test_refusals();
  test_splices(random);
  return tap::finish();
}
