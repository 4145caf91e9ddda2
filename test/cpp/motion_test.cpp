// From a chunk to the motors, through every frame and the firmware: arming, following, expiry, disarming, re-arming, on
// an FD and on a classic bus.
#include "motion/motion.h"

#include <cstdio>

#include "virtual_rig.h"

using namespace premotor;
using namespace virtual_rig;
using motion::LinkState;
using stream::State;

namespace {

void test_arming(bool has_fd) {
  Rig rig(has_fd);
  rig.run(200);
  tap::ok(rig.bridge().state == PM_STATE_SILENT && rig.status().link == LinkState::off, "nobody speaks unasked");
  tap::ok(rig.arm(), "the robot is armed: limits, motors' parameters, challenge");
  bool is_home = true;
  for (std::size_t j = 0; j < joints; ++j)
    is_home = is_home && std::abs(rig.status().setpoints.position[j] - home[j]) < 4e-4;
  tap::ok(is_home, "the first setpoint is the measured pose");
  rig.run(2000);
  tap::ok(rig.status().stream == State::holding && rig.bridge().faults.first.code == PM_FAULT_NONE,
          "a deliberate hold lasts, on both sides");
  tap::ok(rig.bridge().state == PM_STATE_FOLLOWING, "the bridge follows the sets that hold it");
}

void test_following(bool has_fd) {
  Rig rig(has_fd);
  tap::ok(rig.arm(), "armed");
  rig.move(50);
  double worst = 0;
  std::vector<std::array<double, joints>> wanted;
  rig.each = [&] {
    // The bridge's last tick was 750 us after the cycle.
    const stream::Setpoints& out = rig.status().setpoints;
    std::array<double, joints> now{};
    for (std::size_t j = 0; j < joints; ++j) now[j] = out.position[j] + 0.75e-3 * out.velocity[j];
    wanted.push_back(now);
    // What the stream put out 4 ms ago is due now, and the estimate of the bridge's clock is a cycle early here: its
    // frames wait for the host's next cycle.
    if (wanted.size() > 4)
      for (std::size_t j = 0; j < joints; ++j)
        worst = std::max(worst, std::abs(rig.bridge().axes[j].position_rad - wanted[wanted.size() - 4][j]));
  };
  rig.run(970);
  tap::ok(rig.status().stream == State::following, "the stream follows");
  // A classic set is rounded to 2.5e-4 rad and comes every second time.
  tap::ok(worst < (has_fd ? 5e-5 : 2e-3), "the bridge is where the plan was, at its time: " + std::to_string(worst));
  std::printf("# %s: the bridge's reference is %.2e rad off the plan at worst\n", has_fd ? "FD" : "classic", worst);
  int executed = 0;
  bool is_exact = true;
  stream::Executed one;
  while (rig.robot->motion().executed(&one)) {
    is_exact = is_exact && !one.is_clamped;
    ++executed;
  }
  tap::ok(executed > 44 && is_exact, "executed knots come back, unclamped");
  rig.robot->motion().beat(rig.now_ns + 500 * ms);
  rig.run(150);
  tap::ok(rig.status().stream == State::holding && rig.speed() < 0.01, "the plan ends: the robot rests");
  rig.move(20);
  rig.run(100);
  tap::ok(rig.status().stream == State::following && rig.are_limits_kept(), "a late chunk resumes without a step");
  rig.robot->motion().disarm();
  const std::int64_t took_ms = rig.run_until(500, [&] { return rig.bridge().state == PM_STATE_DISARMED; });
  tap::ok(took_ms >= 0, "disarm: stops, then power off");
  tap::ok(rig.are_limits_kept(), "limits were kept throughout");
  rig.run(100);
  tap::ok(rig.status().stream == State::disarmed && rig.status().link == LinkState::ready, "both sides are disarmed");
  tap::ok(rig.arm(), "and can be armed again");
  tap::equal(rig.bridge().counters[PM_COUNT_CLAMPED], 0u, "the bridge clamped nothing");
}

// One sample per cycle, whoever looks and whether anybody looks; what they say is what the cycle did.
void test_samples() {
  Rig watched, ignored;
  std::vector<std::array<double, joints>> seen, unseen;
  bool is_told = true, is_measured = true;
  std::int64_t last_ns = watched.now_ns - ms;
  bool is_each = true;
  watched.each = [&] {
    motion::MotionSample sample;
    int count = 0;
    while (watched.robot->sample(&sample)) {
      ++count;
      is_each = is_each && sample.time_ns == last_ns + ms;
      last_ns = sample.time_ns;
      const motion::MotionStatus& status = watched.status();
      is_told = is_told && (sample.has_setpoint != 0) == status.setpoints.is_valid &&
                sample.setpoint_rad == status.setpoints.position;
      is_measured = is_measured && sample.position_rad == status.measured.position_rad &&
                    sample.measured_ns == (status.measured.received_us < 0 ? -1 : status.measured.received_us * 1000);
    }
    is_each = is_each && count == 1;
    std::array<double, joints> now{};
    std::copy_n(watched.status().setpoints.position.begin(), joints, now.begin());
    seen.push_back(now);
  };
  ignored.each = [&] {
    std::array<double, joints> now{};
    std::copy_n(ignored.status().setpoints.position.begin(), joints, now.begin());
    unseen.push_back(now);
  };
  for (Rig* rig : {&watched, &ignored}) {
    tap::ok(rig->arm(), "armed");
    rig->move(50);
    rig->run(970);
    rig->robot->motion().beat(rig->now_ns + 4000 * ms);
    rig->run(3000);
  }
  tap::ok(is_each, "one sample per cycle, a millisecond apart");
  tap::ok(is_told && is_measured, "which says what was told and measured");
  tap::ok(seen == unseen && seen.size() > 3000, "setpoints are the same bits, watched or not");
  motion::MotionSample sample;
  int kept = 0;
  while (ignored.robot->sample(&sample)) ++kept;
  tap::ok(kept == motion::kSamplesMax && sample.time_ns == ignored.now_ns - ms, "who never looked has the newest ones");
  tap::equal(ignored.robot->samples_lost(), unseen.size() - static_cast<std::size_t>(kept), "and the others counted");
  tap::equal(watched.robot->samples_lost(), std::uint64_t{0}, "who looked has lost none");
  watched.robot->set_stopped(true);
  watched.each = nullptr;
  watched.run(10);
  tap::ok(!watched.robot->sample(&sample), "a stream that stands still has no cycles");
}

void test_restart() {
  Rig rig;
  tap::ok(rig.arm(), "armed");
  rig.move(50);
  rig.run(300);
  rig.robot->set_stopped(true);
  rig.run(500);
  tap::ok(rig.bridge().state == PM_STATE_FAULT && rig.bridge().faults.first.code == PM_FAULT_HOST_LOST,
          "a silent host: the bridge stops by itself");
  rig.robot->set_stopped(false);
  rig.run(20);
  tap::ok(rig.status().stream == State::fault, "the stream sees it when it is back");
  tap::ok(rig.arm(), "arming again clears the fault first");
}

}  // namespace

// The lamp reaches the bridge in any state of the link, ends by itself, and changes no setpoint.
void test_lamp() {
  Rig told, silent;
  told.robot->motion().indicate(PM_INDICATE_STARTING);
  told.run(10);
  tap::ok(!told.bridge().has_indication, "nothing is sent before the link begins");
  silent.run(10);
  tap::ok(told.arm() && silent.arm(), "armed");
  tap::ok(told.bridge().has_indication && told.bridge().indication == PM_INDICATE_STARTING, "then what was said last");
  bool is_same = true;
  for (int i = 0; i < 100; ++i) {
    told.robot->motion().indicate(i % 2 == 0 ? PM_INDICATE_HOLDING : PM_INDICATE_RUNNING);
    told.run(10);
    silent.run(10);
    is_same = is_same && told.status().setpoints.position == silent.status().setpoints.position &&
              told.status().setpoints.velocity == silent.status().setpoints.velocity;
  }
  tap::ok(told.bridge().indication == PM_INDICATE_RUNNING, "the newest is shown");
  tap::ok(is_same, "the setpoints are those of a robot without it, bit for bit");
}

int main() {
  test_lamp();
  test_arming(true);
  test_arming(false);
  test_following(true);
  test_following(false);
  test_samples();
  test_restart();
  return tap::finish();
}
