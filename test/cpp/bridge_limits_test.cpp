// Limits and interpolation by themselves: each result of a commit, the ceilings from both sides, corruption found
// whatever bit flips, the clamp, and the two steps under random demands: never outside position, velocity and
// acceleration, exact where the demand is legal, always an end to slowing.
#include "firmware-bridge/limits.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "firmware-bridge/interp.h"
#include "firmware-bridge/queue.h"
#include "tap.h"

namespace {

constexpr float dt_s = 250e-6f;
using Values = std::int32_t[PM_LIMIT_FIELDS];
constexpr Values ceilings[2] = {{-30000000, 30000000, 5000, 50000, 900000, 20000},
                                {-10000000, 10000000, 5000, 50000, 900000, 20000}};
constexpr Values good[2] = {{-20000000, 20000000, 3000, 20000, 400000, 10000},
                            {-10000000, 10000000, 5000, 50000, 900000, 20000}};

struct Upload {
  pm_limits limits;
  Values values[2];
  pm_limit_item at{};
  Upload() {
    pm_limits_init(&limits, 2, ceilings);
    std::memcpy(values, good, sizeof good);
  }
  void stage() {
    for (std::uint8_t axis = 0; axis < 2; ++axis) {
      for (std::uint8_t field = 0; field < PM_LIMIT_FIELDS; ++field) {
        const pm_limit_item item{axis, field, values[axis][field]};
        pm_limits_stage(&limits, &item);
      }
    }
  }
  int commit(std::uint16_t wrong = 0, std::uint8_t axes = 2) {
    return pm_limits_commit(&limits, axes, static_cast<std::uint16_t>(pm_limits_crc(values, 2) ^ wrong), &at);
  }
};

void commits() {
  Upload upload;
  tap::ok(upload.commit() == PM_LIMIT_INCOMPLETE && upload.at.axis == 0 && upload.at.field == 0, "nothing staged");
  upload.stage();
  upload.limits.staged_fields[1] = 0b101111;
  tap::ok(upload.commit() == PM_LIMIT_INCOMPLETE && upload.at.axis == 1 && upload.at.field == 4, "one field missing");
  tap::ok(upload.commit() == PM_LIMIT_INCOMPLETE && upload.at.axis == 0, "a refused commit empties the stage");
  upload.stage();
  tap::ok(upload.commit(0, 1) == PM_LIMIT_AXES && upload.at.axis == PM_AXIS_NONE, "another number of axes");
  upload.stage();
  tap::ok(upload.commit(1) == PM_LIMIT_CHECKSUM && upload.at.axis == PM_AXIS_NONE && upload.at.field == PM_AXIS_NONE,
          "a wrong checksum");
  tap::ok(!upload.limits.is_committed, "nothing was committed so far");
  const auto result = [](int axis, int field, std::int32_t value, int expected_field) {
    Upload changed;
    changed.values[axis][field] = value;
    changed.stage();
    const int found = changed.commit();
    return found == PM_LIMIT_OK || (changed.at.axis == axis && changed.at.field == expected_field) ? found : -1;
  };
  for (int field = 0; field < PM_LIMIT_FIELDS; ++field) {
    const std::int32_t inside = field == 0 ? ceilings[0][0] : ceilings[0][field];
    const std::int32_t outside = field == 0 ? inside - 1 : inside + 1;
    const std::string name = "field " + std::to_string(field);
    tap::equal(result(0, field, inside, field), int(PM_LIMIT_OK), name + " at its ceiling");
    tap::equal(result(0, field, outside, field), int(PM_LIMIT_CEILING), name + " beyond it");
    if (field >= PM_LIMIT_VELOCITY) {
      tap::equal(result(1, field, 0, field), int(PM_LIMIT_CEILING), name + " of zero");
      tap::equal(result(1, field, 1, field), int(PM_LIMIT_OK), name + " of one");
    }
  }
  tap::equal(result(0, 0, 30000001, 0), int(PM_LIMIT_CEILING), "a lowest position above the ceiling");
  tap::equal(result(0, 1, -30000001, 1), int(PM_LIMIT_CEILING), "a highest position below it");
  tap::equal(result(0, 0, 20000000, PM_AXIS_NONE), int(PM_LIMIT_ORDER), "lowest equal to highest");
  tap::equal(result(0, 1, -20000001, PM_AXIS_NONE), int(PM_LIMIT_ORDER), "lowest above highest");
  tap::equal(result(0, 1, -19999999, PM_AXIS_NONE), int(PM_LIMIT_OK), "lowest just below highest");
  upload.stage();
  tap::ok(upload.commit() == PM_LIMIT_OK && upload.at.axis == PM_AXIS_NONE && upload.limits.is_committed, "a commit");
  upload.values[0][2] = 6000;
  upload.stage();
  tap::ok(upload.commit() == PM_LIMIT_CEILING && upload.limits.is_committed && upload.limits.committed[0][2] == 3000,
          "a refused commit changes nothing");
  const pm_axis_limits& axis = upload.limits.axes[0];
  tap::ok(axis.position_min_rad == -2 && axis.position_max_rad == 2 && axis.velocity_rad_s == 3 &&
              axis.acceleration_rad_s2 == 20 && axis.jerk_rad_s3 == 400 && axis.torque_Nm == 10,
          "in SI units");
  pm_limit_item item{2, 0, 0};
  tap::ok(!pm_limits_stage(&upload.limits, &item) && !pm_limits_read(&upload.limits, &item), "no third axis");
  item = {0, PM_LIMIT_FIELDS, 0};
  tap::ok(!pm_limits_stage(&upload.limits, &item) && !pm_limits_read(&upload.limits, &item), "no seventh field");
  item = {1, 5, 0};
  tap::ok(pm_limits_read(&upload.limits, &item) && item.value == 20000, "read back");
}

void scrubbing() {
  Upload clean;
  for (int i = 0; i < 4; ++i) pm_limits_scrub(&clean.limits);
  tap::ok(!clean.limits.is_corrupt && clean.limits.scrub_axis == 0, "without limits there is nothing to check");
  clean.stage();
  clean.commit();
  for (int i = 0; i < 101; ++i) pm_limits_scrub(&clean.limits);
  tap::ok(!clean.limits.is_corrupt && clean.limits.is_committed, "intact limits stay");
  clean.stage();
  clean.commit();
  for (int i = 0; i < 101; ++i) pm_limits_scrub(&clean.limits);
  tap::ok(!clean.limits.is_corrupt, "a commit in the middle of a round begins a new one");
  int missed = 0;
  int late = 0;
  const auto flip = [&](std::size_t offset, std::size_t bytes) {
    for (std::size_t bit = 0; bit < 8 * bytes; ++bit) {
      Upload upload;
      upload.stage();
      upload.commit();
      reinterpret_cast<unsigned char*>(&upload.limits)[offset + bit / 8] ^= static_cast<unsigned char>(1u << bit % 8);
      int calls = 0;
      while (!upload.limits.is_corrupt && calls < 10) {
        pm_limits_scrub(&upload.limits);
        ++calls;
      }
      missed += !upload.limits.is_corrupt || upload.limits.is_committed;
      late += calls > 4;
    }
  };
  flip(offsetof(pm_limits, committed), 2 * sizeof(Values));
  flip(offsetof(pm_limits, axes), 2 * sizeof(pm_axis_limits));
  flip(offsetof(pm_limits, checksum), sizeof(std::uint16_t));
  // A float's sign bit of zero and its lowest bits: values that compare equal are no corruption, but none of these is
  // 0.
  tap::ok(missed == 0 && late == 0, "each flipped bit of the limits is found within 2 x axes calls");
}

pm_axis_limits usual() { return {-2, 2, 3, 20, 400, 10}; }

void clamps() {
  const pm_axis_limits limits = usual();
  const auto check = [&](pm_reference asked, pm_reference expected, int changed, const char* name) {
    const int found = pm_limits_clamp(&limits, &asked);
    tap::ok(found == changed && asked.position_rad == expected.position_rad &&
                asked.velocity_rad_s == expected.velocity_rad_s && asked.torque_Nm == expected.torque_Nm,
            name);
  };
  check({2, 3, 0, 10}, {2, 3, 0, 10}, 0, "at the upper limits nothing changes");
  check({-2, -3, 0, -10}, {-2, -3, 0, -10}, 0, "nor at the lower ones");
  check({2.01, 1, 0, 0}, {2, 0, 0, 0}, 2, "above: at the limit, no velocity outwards");
  check({2.01, -1, 0, 0}, {2, -1, 0, 0}, 1, "above: inwards it may move");
  check({-2.01, -1, 0, 0}, {-2, 0, 0, 0}, 2, "below: at the limit, no velocity outwards");
  check({-2.01, 1, 0, 0}, {-2, 1, 0, 0}, 1, "below: inwards it may move");
  check({0, 3.5f, 0, 10.5f}, {0, 3, 0, 10}, 2, "velocity and torque, too high");
  check({0, -3.5f, 0, -10.5f}, {0, -3, 0, -10}, 2, "velocity and torque, too low");
  check({5, 9, 0, 99}, {2, 0, 0, 10}, 3, "everything at once");
}

// Follows a random demand that jumps about and reports the worst excess over each limit.
void random_demands() {
  constexpr unsigned seed = 7;
  tap::note("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(-1, 1);
  const pm_axis_limits limits = usual();
  pm_reference at{};
  double position = 0, velocity = 0, acceleration = 0;
  for (int i = 0; i < 400000; ++i) {
    static pm_reference wanted{};
    if (random() % 400 == 0) wanted.position_rad = 3 * unit(random);
    if (random() % 400 == 0) wanted.velocity_rad_s = static_cast<float>(6 * unit(random));
    const float before = at.velocity_rad_s;
    const double room = std::min(2 - at.position_rad, at.position_rad + 2);
    if (random() % 3000 < 1000)
      pm_limits_slow(&limits, &at, dt_s);
    else
      pm_limits_step(&limits, &at, &wanted, dt_s);
    position = std::max(position, std::abs(at.position_rad) - 2);
    velocity = std::max(velocity, std::abs(double(at.velocity_rad_s)) - 3);
    if (room > 0.01) acceleration = std::max(acceleration, std::abs(at.velocity_rad_s - before) / double(dt_s) - 20);
  }
  tap::note("worst excess: " + std::to_string(position) + " rad, " + std::to_string(velocity) + " rad/s, " +
            std::to_string(acceleration) + " rad/s^2");
  // f32 rounding of sqrt and of velocity x dt; 0.01 rad/s^2 is 2.5e-6 rad/s in a tick.
  tap::ok(position < 1e-6 && velocity < 1e-6 && acceleration < 0.01, "no demand leads outside the limits");
}

void following() {
  const pm_axis_limits limits = usual();
  pm_reference at{};
  double worst = 0;
  for (int i = 1; i <= 8000; ++i) {
    const double t = i * 250e-6;
    const pm_reference wanted{0.5 * (1 - std::cos(4 * t)), static_cast<float>(2 * std::sin(4 * t)), 0, 1};
    const float left = pm_limits_step(&limits, &at, &wanted, dt_s);
    worst = std::max({worst, std::abs(at.position_rad - wanted.position_rad), double(left)});
  }
  tap::ok(worst < 1e-6 && at.torque_Nm == 1, "a legal movement is followed exactly");
  at = {};
  const pm_reference step{1, 0, 0, 0};
  int ticks = 0;
  double most = 0;
  while (pm_limits_step(&limits, &at, &step, dt_s) > 1e-5f && ++ticks < 20000) most = std::max(most, at.position_rad);
  tap::note("1 rad in " + std::to_string(ticks * 250e-6) + " s");
  tap::ok(ticks < 20000 && most < 1.0001, "a step is reached without overshoot");
  tap::ok(pm_limits_step(&limits, &at, &step, dt_s) < 1e-5f && std::abs(at.velocity_rad_s) < 0.05f, "and held");
  at = {};
  tap::is_near(pm_limits_step(&limits, &at, &step, dt_s), 1 - 20 * 250e-6 * 250e-6, 1e-6, "what is left is returned");
}

// Where no reference should be: beyond a limit, by rounding or because it was measured there. The only way is back.
void outside() {
  const pm_axis_limits limits = usual();
  for (const double side : {1.0, -1.0}) {
    pm_reference at{side * 2.1, 0, 0, 0};
    const pm_reference outwards{side * 3, static_cast<float>(side), 0, 0};
    bool stays = true;
    for (int i = 0; i < 100; ++i) {
      pm_limits_step(&limits, &at, &outwards, dt_s);
      // f32 rounding of the braking velocity: 1e-9 rad/s.
      stays = stays && std::abs(at.position_rad - side * 2.1) < 1e-9 && std::abs(at.velocity_rad_s) < 1e-6f;
    }
    tap::ok(stays, "outside a position limit nothing leads further out");
    const pm_reference back{side * 1.9, 0, 0, 0};
    int ticks = 0;
    while (pm_limits_step(&limits, &at, &back, dt_s) > 1e-4f && ticks < 4000) ++ticks;
    tap::ok(ticks < 4000, "and the way back is open");
  }
}

void slowing() {
  constexpr unsigned seed = 11;
  tap::note("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> unit(-1, 1);
  int endless = 0, turned = 0;
  double jerk = 0, longest = 0, distance = 0;
  for (int i = 0; i < 3000; ++i) {
    const pm_axis_limits limits = usual();
    pm_reference at{0, 3 * unit(random), 20 * unit(random), 5};
    const pm_reference begin = at;
    int ticks = 0;
    while (at.velocity_rad_s != 0 && ticks < 4000) {
      const pm_reference before = at;
      pm_limits_slow(&limits, &at, dt_s);
      // The last tick lands on zero: what is left then is less than one tick's velocity.
      if (at.velocity_rad_s != 0 && std::abs(at.velocity_rad_s) < 2.999f) {
        jerk = std::max(jerk, std::abs(double(at.acceleration_rad_s2 - before.acceleration_rad_s2)) / double(dt_s));
      }
      turned += at.velocity_rad_s * before.velocity_rad_s < 0;
      ++ticks;
    }
    endless += ticks == 4000 || at.torque_Nm != 5;
    longest = std::max(longest, ticks * double(dt_s));
    distance = std::max(distance, std::abs(at.position_rad - begin.position_rad));
  }
  tap::note("longest stop " + std::to_string(longest) + " s, " + std::to_string(distance) + " rad, jerk " +
            std::to_string(jerk));
  tap::ok(endless == 0 && turned == 0, "slowing ends, turns nowhere and keeps the torque");
  // (v + a^2 / 2j) / a + 2 a / j with everything at its limit: 0.175 + 0.1 s.
  tap::ok(longest < 0.28, "within the time that the limits allow");
  // The accelerations are differences of f32 velocities: 2.4e-7 / dt^2 is 4 rad/s^3.
  tap::ok(jerk < 400 + 10, "within the jerk limit");
  pm_axis_limits limits = usual();
  limits.jerk_rad_s3 = 900000;  // one tick of it is more than the acceleration limit
  pm_reference at{0, 0.5f, 0, 0};
  int ticks = 0;
  float hardest = 0;
  while (at.velocity_rad_s != 0 && ++ticks < 1000) {
    const float before = at.velocity_rad_s;
    pm_limits_slow(&limits, &at, dt_s);
    hardest = std::max(hardest, std::abs(at.velocity_rad_s - before) / dt_s);
  }
  tap::ok(ticks <= 101 && hardest < 20.01f, "with a loose jerk limit the acceleration limit holds");
  pm_reference edge{1.9, 2.5f, 0, 0};
  pm_limits_step(&limits, &edge, &edge, dt_s);
  limits = usual();
  edge = {1.9, 1.9f, 0, 0};
  for (int i = 0; i < 2000; ++i) pm_limits_slow(&limits, &edge, dt_s);
  tap::ok(edge.position_rad <= 2 + 1e-6 && edge.velocity_rad_s == 0, "near a position limit it brakes harder");
  edge = {-1.9, -1.9f, 0, 0};
  for (int i = 0; i < 2000; ++i) pm_limits_slow(&limits, &edge, dt_s);
  tap::ok(edge.position_rad >= -2 - 1e-6 && edge.velocity_rad_s == 0, "on both sides");
}

void interpolation() {
  pm_interp interp;
  pm_reference start[1] = {{0.5, 1.0f, 0, 2}};
  pm_interp_start(&interp, 1000, start, 1);
  tap::ok(!pm_interp_advance(&interp, 1000), "nothing to follow yet");
  pm_knot knot{};
  knot.at_us = 1000;
  tap::ok(!pm_interp_add(&interp, &knot), "a knot that is not later");
  for (int i = 1; i <= 15; ++i) {
    knot.at_us = 1000 + 1000ull * i;
    const double t = i * 1e-3;
    knot.axes[0] = {0.5 + std::sin(t), static_cast<float>(std::cos(t)), 0, static_cast<float>(2 + i)};
    pm_interp_add(&interp, &knot);
  }
  ++knot.at_us;
  tap::ok(interp.count == PM_KNOTS_MAX && !pm_interp_add(&interp, &knot), "the ring is full");
  double position = 0, velocity = 0, torque = 0, jump = 0;
  float last = 1;
  for (std::uint64_t now = 1250; now <= 16000; now += 250) {
    pm_reference wanted;
    if (!pm_interp_advance(&interp, now)) tap::ok(false, "the ring ran dry too early");
    pm_interp_sample(&interp, now, 0, &wanted);
    const double t = static_cast<double>(now - 1000) * 1e-6;
    position = std::max(position, std::abs(wanted.position_rad - 0.5 - std::sin(t)));
    velocity = std::max(velocity, std::abs(wanted.velocity_rad_s - std::cos(t)));
    torque = std::max(torque, std::abs(wanted.torque_Nm - 2 - t * 1e3));
    jump = std::max(jump, std::abs(double(wanted.velocity_rad_s - last)));
    last = wanted.velocity_rad_s;
  }
  // Hermite: h^4 / 384 of the fourth derivative is far below f32.
  tap::ok(position < 1e-9 && velocity < 1e-5 && torque < 1e-4, "a sine is met between the knots");
  tap::ok(jump < 1e-4, "the velocity is continuous across knots");
  tap::ok(!pm_interp_advance(&interp, 16001), "dry after the last knot");
}

void queueing() {
  static pm_queue queue;
  pm_queue_clear(&queue);
  pm_output output{};
  std::uint32_t dropped = 0;
  for (int round = 0; round < 3; ++round) {
    int pushed = 0;
    output.queued_us = 1000;
    for (int i = 0; i < PM_QUEUE_FRAMES + 2; ++i) {
      output.frame.id = static_cast<std::uint32_t>(i);
      output.is_motion = i % 3 == 0;
      pushed += pm_queue_push(&queue, &output);
    }
    bool order = pushed == PM_QUEUE_FRAMES;
    for (int i = 0; i < 40; ++i)
      order = order && pm_queue_pop(&queue, 6000, &output, &dropped) && output.frame.id == std::uint32_t(i);
    tap::ok(order && dropped == 0, "the queue is bounded and keeps its order");
    pm_queue_drop_motion(&queue);
    int left = 0;
    bool still = true;
    while (pm_queue_pop(&queue, 6000, &output, &dropped)) {
      ++left;
      still = still && !output.is_motion;
    }
    tap::ok(left == 38 && still, "motion is taken out, the rest stays");
  }
  output.is_motion = true;
  pm_queue_push(&queue, &output);
  output.is_motion = false;
  output.frame.id = 7;
  pm_queue_push(&queue, &output);
  tap::ok(pm_queue_pop(&queue, 6001, &output, &dropped) && output.frame.id == 7 && dropped == 1,
          "motion that waited 5 ms is dropped at the exit");
  tap::ok(!pm_queue_pop(&queue, 6001, &output, &dropped), "empty");
}

}  // namespace

int main() {
  commits();
  scrubbing();
  clamps();
  random_demands();
  following();
  outside();
  slowing();
  interpolation();
  queueing();
  return tap::finish();
}
