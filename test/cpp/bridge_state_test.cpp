// Every row of the bridge's transition table from every state that it names, every pair of state and trigger that it
// does not name, silence at boot, the version and arming conversations, and what reaches the drives in each state.
#include "bridge_rig.h"

extern "C" {
#include "firmware-bridge/internal.h"
}

using rig::name_of;
using rig::Rig;

namespace {

// Brings a fresh robot into a state by the front door.
bool reach(Rig& robot, pm_state state) {
  if (state == PM_STATE_SILENT) return robot.bridge.state == state;
  if (state == PM_STATE_DISARMED) {
    robot.hello();
    robot.run_us(20000);
    return robot.upload() == PM_LIMIT_OK && robot.bridge.state == state;
  }
  if (!robot.bring_up()) return false;
  if (state == PM_STATE_HOLDING) return robot.bridge.state == state;
  if (state == PM_STATE_FAULT) {
    robot.stream(100000);
    return robot.run_until(PM_STATE_FAULT, 200000) <= 200000;  // host lost: latched, power kept
  }
  robot.stream(250000);  // in the middle of the movement
  if (state == PM_STATE_SLOWING) return robot.run_until(PM_STATE_SLOWING, 20000) <= 20000;
  if (state == PM_STATE_STOPPING) robot.send_short(PM_ID_DISARM);
  return robot.bridge.state == state;
}

void every_row() {
  std::uint32_t seen[PM_STATES] = {};
  for (std::uint32_t i = 0; i < pm_transition_count; ++i) {
    const pm_transition& row = pm_transitions[i];
    for (int from = 0; from < PM_STATES; ++from) {
      if ((row.from >> from & 1) == 0) continue;
      const auto state = static_cast<pm_state>(from);
      Rig robot;
      const bool reached = reach(robot, state);
      const bool taken = pm_bridge_trigger(&robot.bridge, row.trigger);
      tap::ok(reached && taken && robot.bridge.state == row.to,
              name_of(state) + ", trigger " + std::to_string(row.trigger) + " -> " + name_of(row.to) + ": " + row.why);
      tap::ok((seen[from] >> row.trigger & 1) == 0, "no other row has the same state and trigger");
      seen[from] |= 1u << row.trigger;
    }
  }
  int moved = 0;
  for (int from = 0; from < PM_STATES; ++from) {
    for (int trigger = 0; trigger < PM_TRIGGERS; ++trigger) {
      if ((seen[from] >> trigger & 1) != 0) continue;
      Rig robot;
      const bool reached = reach(robot, static_cast<pm_state>(from));
      moved += !reached || pm_bridge_trigger(&robot.bridge, static_cast<pm_trigger>(trigger)) ||
               robot.bridge.state != static_cast<pm_state>(from);
    }
  }
  tap::equal(moved, 0, "every other pair of state and trigger changes nothing");
}

void table_of_states() {
  const bool silence_everywhere = pm_transitions[pm_transition_count - 1].trigger == PM_TRIGGER_SILENCE &&
                                  pm_transitions[pm_transition_count - 1].from == (1u << PM_STATES) - 1;
  tap::ok(silence_everywhere, "the silent state is reachable from every state");
}

void silent_at_boot() {
  Rig robot;
  robot.run_us(300000);
  tap::equal(robot.frames, 0u, "300 ms after boot nothing was sent");
  for (const std::uint32_t id : {PM_ID_ESTOP, PM_ID_DISARM, PM_ID_SILENCE, PM_ID_ARM_REQUEST, PM_ID_ARM_RESPONSE,
                                 PM_ID_LIMIT_READ, PM_ID_LIMIT_COMMIT, PM_ID_FAULT_CLEAR}) {
    robot.send_short(id);
  }
  robot.write_limit(0, 0, 0);
  robot.send_set(0, 0);
  pm_bridge_set_estop(&robot.bridge, true);
  robot.run_us(50000);
  tap::equal(robot.frames, 0u, "no frame but HELLO makes it speak, nor does the e-stop input");
  tap::equal(robot.count(PM_COUNT_OUT_OF_PLACE), 12u, "each frame of them was counted");
  pm_bridge_set_estop(&robot.bridge, false);
  robot.send_short(PM_ID_HELLO, {2, 3, 1, 2});
  robot.send_short(PM_ID_HELLO, {0, 0, 1, 2});
  robot.send_short(PM_ID_HELLO, {1, 1, 1, 3});
  tap::ok(robot.frames == 0 && robot.bridge.state == PM_STATE_SILENT, "a HELLO it cannot accept leaves it silent");
  robot.send_short(PM_ID_HELLO, {0, 9, 3, 2});
  const pm_can_frame* welcome = robot.last(PM_ID_WELCOME);
  tap::ok(welcome != nullptr && welcome->data[0] == 1 && welcome->data[2] == 1 && welcome->data[3] == 2 &&
              pm_get_u16(welcome->data + 4) == 515,
          "HELLO is answered with version, FD, axes and boot number");
  tap::equal(robot.ask(PM_ID_HELLO, {2, 3, 1, 2}, PM_ID_WELCOME), 0, "disarmed, a HELLO is refused in words");
  tap::ok(robot.bridge.is_fd_agreed, "and changes nothing");
  robot.ask(PM_ID_HELLO, {1, 1, 0, 2}, PM_ID_WELCOME);
  tap::ok(!robot.bridge.is_fd_agreed, "the host may ask for classic frames");
  Rig classic(2, false);
  classic.hello(true);
  tap::ok(!classic.bridge.is_fd_agreed && classic.bridge.state == PM_STATE_DISARMED, "a bus without FD agrees on none");
}

void heartbeat_and_reports() {
  Rig robot(14);
  robot.bring_up();
  robot.heard.clear();
  robot.run_us(280000);
  int beats = 0, feedbacks = 0, counters = 0;
  for (const pm_can_frame& frame : robot.heard) {
    beats += frame.id == PM_ID_HEARTBEAT;
    feedbacks += frame.id == PM_ID_FEEDBACK + 2;
    counters += frame.id == PM_ID_COUNTER;
  }
  tap::equal(beats, 28, "a heartbeat every 10 ms");
  tap::equal(feedbacks, 140, "FD feedback every 2 ms");
  tap::equal(counters, 28, "a counter every 10 ms");
  const pm_can_frame* beat = robot.last(PM_ID_HEARTBEAT);
  tap::ok(beat->data[0] == (1 << 4 | PM_STATE_HOLDING) && pm_get_u32(beat->data + 2) > robot.now - 10000,
          "the heartbeat has version, state and clock");
  pm_feedback_part part;
  tap::ok(pm_feedback_unpack(robot.last(PM_ID_FEEDBACK + 2), &part) && part.valid == 3 && part.axis_count == 14,
          "feedback of the last two axes");
  robot.drives[13].is_mute = true;
  robot.run_us(60000);
  tap::ok(pm_feedback_unpack(robot.last(PM_ID_FEEDBACK + 2), &part) && part.valid == 1, "a mute axis is marked");

  Rig classic(3, false);
  classic.bring_up(false);
  classic.drives[1].position = 0.25f;
  classic.heard.clear();
  classic.run_us(9000);
  int axis_feedbacks = 0;
  for (const pm_can_frame& frame : classic.heard) axis_feedbacks += frame.id - PM_ID_AXIS_FEEDBACK < 3;
  tap::equal(axis_feedbacks, 9, "classic: one axis every 1 ms");
  pm_axis_feedback axis;
  tap::ok(pm_axis_feedback_unpack(classic.last(PM_ID_AXIS_FEEDBACK + 1), &axis) && axis.is_valid && axis.axis == 1,
          "classic feedback names its axis");
}

void arming() {
  Rig robot;
  robot.hello();
  robot.run_us(20000);
  tap::equal(robot.respond(0), int(PM_ARM_NO_CHALLENGE), "an answer without a challenge");
  tap::equal(robot.arm(), int(PM_ARM_NO_LIMITS), "no arming without limits");
  tap::equal(robot.upload(), int(PM_LIMIT_OK), "limits are uploaded");
  std::uint32_t answer = 0;
  tap::ok(robot.challenge(1, &answer), "a challenge");
  const std::uint32_t first = answer;
  tap::equal(robot.respond(answer ^ 1), int(PM_ARM_WRONG_ANSWER), "a wrong answer");
  tap::equal(robot.respond(answer), int(PM_ARM_NO_CHALLENGE), "which used the challenge up");
  tap::ok(robot.challenge(1, &answer) && answer != first, "the next challenge is another one");
  tap::equal(robot.respond(first), int(PM_ARM_WRONG_ANSWER), "an old answer is wrong");
  robot.challenge(1, &answer);
  robot.run_us(100000);
  const std::uint32_t late = answer;
  robot.now += 1;
  tap::equal(robot.respond(late), int(PM_ARM_NO_CHALLENGE), "an answer after 100 ms");
  tap::equal(robot.ask(PM_ID_ARM_REQUEST, {0, 0, 0, 0, 2, 2}, PM_ID_ARM_RESULT), int(PM_ARM_VERSION),
             "another version");
  tap::equal(robot.ask(PM_ID_ARM_REQUEST, {0, 0, 0, 0, 1, 3}, PM_ID_ARM_RESULT), int(PM_ARM_VERSION), "other axes");

  const auto refused = [&](pm_arm_result expected, const char* why, const std::function<void(rig::Drive&, bool)>& set) {
    set(robot.drives[1], true);
    robot.run_us(60000);
    const int result = robot.arm();
    const int axis = robot.last(PM_ID_ARM_RESULT)->data[1];
    set(robot.drives[1], false);
    robot.run_us(20000);
    tap::ok(result == expected && axis == 1 && robot.bridge.state == PM_STATE_DISARMED,
            std::string("no arming: ") + why);
  };
  refused(PM_ARM_NO_FEEDBACK, "an axis is mute", [](rig::Drive& drive, bool on) { drive.is_mute = on; });
  refused(PM_ARM_DRIVE_FAULT, "a drive has a fault", [](rig::Drive& drive, bool on) { drive.is_faulted = on; });
  refused(PM_ARM_DRIVE_FAULT, "a drive is hot", [](rig::Drive& drive, bool on) { drive.is_hot = on; });
  refused(PM_ARM_DRIVE_FAULT, "too much current", [](rig::Drive& drive, bool on) { drive.is_over_current = on; });
  refused(PM_ARM_POSITION, "above its range", [](rig::Drive& drive, bool on) { drive.position = on ? 2.03f : 0; });
  refused(PM_ARM_POSITION, "below its range", [](rig::Drive& drive, bool on) { drive.position = on ? -2.03f : 0; });
  refused(PM_ARM_MOVING, "an axis moves", [](rig::Drive& drive, bool on) { drive.velocity = on ? 0.051f : 0; });
  refused(PM_ARM_MOVING, "an axis moves back", [](rig::Drive& drive, bool on) { drive.velocity = on ? -0.051f : 0; });

  const std::uint64_t motions = robot.motions + robot.holds;
  tap::equal(motions, 0u, "until here no drive was powered");
  robot.drives[0].position = 2.01f;  // inside the margin of what was measured
  robot.run_us(20000);
  tap::equal(robot.arm(), int(PM_ARM_OK), "armed");
  tap::ok(pm_get_u16(robot.last(PM_ID_ARM_RESULT)->data + 2) == robot.session, "the session is the answer's low half");
  robot.run_us(1000);
  tap::ok(robot.drives[0].is_enabled && robot.drives[1].is_enabled, "the drives are on within 1 ms");
  tap::is_near(robot.drives[0].last.position_rad, 2.01f, 1e-6, "held where it was measured, not where a limit is");
  tap::equal(robot.arm(), int(PM_ARM_NOT_DISARMED), "an armed robot is not armed again");
  tap::equal(robot.respond(answer), int(PM_ARM_NOT_DISARMED), "nor by an answer");
  tap::equal(robot.motions, 0u, "holding sends no movement");
  robot.send_short(PM_ID_HELLO, {1, 1, 1, 2});
  robot.send_short(PM_ID_FAULT_CLEAR, {1});
  tap::equal(robot.bridge.state, PM_STATE_HOLDING, "HELLO and FAULT_CLEAR are out of place");
  robot.write_limit(0, 0, 0);
  tap::equal(robot.ask(PM_ID_LIMIT_COMMIT, {2}, PM_ID_LIMIT_RESULT), int(PM_LIMIT_NOT_DISARMED), "so is a commit");
}

void limits_over_the_wire() {
  Rig robot;
  robot.hello();
  pm_limit_item item{};
  robot.send_short(PM_ID_LIMIT_READ, {1, 2});
  tap::ok(pm_limit_unpack(robot.last(PM_ID_LIMIT_VALUE), &item) && item.value == PM_NAN_I32, "before: not a number");
  robot.write_limit(1, 2, 1234);
  tap::ok(
      pm_limit_unpack(robot.last(PM_ID_LIMIT_VALUE), &item) && item.axis == 1 && item.field == 2 && item.value == 1234,
      "a write is read back");
  tap::equal(robot.upload(), int(PM_LIMIT_OK), "a commit");
  const std::uint16_t checksum = pm_get_u16(robot.last(PM_ID_LIMIT_RESULT)->data + 4);
  tap::equal(checksum, robot.bridge.limits.checksum, "is answered with the checksum");
  robot.send_short(PM_ID_LIMIT_READ, {1, 2});
  tap::ok(pm_limit_unpack(robot.last(PM_ID_LIMIT_VALUE), &item) && item.value == 3000,
          "a read gives what is committed");
  robot.heard.clear();
  robot.write_limit(2, 0, 1);
  robot.write_limit(0, 6, 1);
  robot.send_short(PM_ID_LIMIT_READ, {2, 0});
  robot.send_short(PM_ID_LIMIT_READ, {0, 6});
  tap::ok(robot.heard.empty() && robot.count(PM_COUNT_OUT_OF_PLACE) == 4, "no such axis, no such field: counted");
  robot.send_short(PM_ID_LIMIT_COMMIT, {2, 1});
  tap::ok(robot.heard.empty() && robot.count(PM_COUNT_MALFORMED) == 1, "a reserved byte of a commit");
}

void moving_and_stopping() {
  Rig robot(14);
  robot.bring_up();
  robot.stream(1000000);
  tap::equal(robot.bridge.state, PM_STATE_FOLLOWING, "follows");
  tap::ok(robot.count(PM_COUNT_ACCEPTED) == 1000 && robot.count(PM_COUNT_CLAMPED) == 0, "every set counted once");
  robot.stream(250000);
  const std::uint64_t last_set_us = robot.now;
  const float speed = robot.bridge.axes[0].velocity_rad_s;
  tap::ok(speed > 0.5f, "in the middle of the movement");
  tap::ok(robot.run_until(PM_STATE_SLOWING, 10000) <= 4000, "the stream stops: slows when the last set is past");
  const std::uint64_t stopping_us = robot.run_until(PM_STATE_HOLDING, 200000);
  tap::ok(stopping_us <= 90000, "and stands " + std::to_string(stopping_us) + " us later");
  tap::ok(robot.run_until(PM_STATE_FAULT, 200000) <= 200000 && robot.now - last_set_us <= 100500,
          "latched 100 ms after the last set");
  tap::ok(robot.drives[5].is_enabled && robot.drives[5].last.command == PM_DRIVE_HOLD, "held with power");

  Rig again(2);
  again.bring_up();
  again.stream(250000);
  again.run_until(PM_STATE_SLOWING, 10000);
  again.run_us(5000);
  again.stream_from += 9000;
  again.stream(250000);
  tap::ok(again.bridge.state == PM_STATE_FOLLOWING && again.fault() == PM_FAULT_NONE, "a short gap is resumed");
  again.send_short(PM_ID_DISARM);
  tap::equal(again.bridge.state, PM_STATE_STOPPING, "DISARM stops first");
  again.send_set(0, 0);
  tap::equal(again.bridge.state, PM_STATE_STOPPING, "a set resumes nothing then");
  const std::uint64_t us = again.run_until(PM_STATE_DISARMED, 500000);
  tap::ok(us <= 100000 && !again.drives[0].is_enabled, "then lets go, " + std::to_string(us) + " us later");
  again.run_us(10000);
  again.stream_from = 0;
  tap::equal(again.arm(), int(PM_ARM_OK), "and may be armed again");
  again.run_us(1000);
  again.send_short(PM_ID_DISARM);
  tap::ok(again.bridge.state == PM_STATE_DISARMED && !again.drives[1].is_enabled,
          "DISARM of a standing robot is at once");
}

void silence() {
  Rig robot(2);
  robot.bring_up();
  robot.stream(250000);
  robot.is_draining = false;
  robot.run_us(1000);
  robot.is_draining = true;
  robot.send_short(PM_ID_SILENCE);
  tap::ok(robot.bridge.state == PM_STATE_SILENT && !robot.drives[0].is_enabled && !robot.drives[1].is_enabled,
          "SILENCE powers off at once");
  tap::ok(robot.drives[0].last.command == PM_DRIVE_DISABLE, "and no queued movement follows");
  const std::uint64_t frames = robot.frames;
  robot.run_us(100000);
  tap::equal(robot.frames, frames, "then nothing is sent");

  Rig latched(2);
  reach(latched, PM_STATE_FAULT);
  pm_bridge_silence(&latched.bridge, latched.now);
  latched.hello();
  tap::ok(latched.bridge.state == PM_STATE_FAULT && latched.fault() == PM_FAULT_HOST_LOST, "silence clears no fault");
  latched.run_us(20000);
  latched.send_short(PM_ID_FAULT_CLEAR, {PM_FAULT_HOST_LOST});
  tap::equal(latched.bridge.state, PM_STATE_DISARMED, "FAULT_CLEAR does");
}

// A port that drains late finds no movement that was queued before the power went off, and none that is old.
void undrained() {
  Rig robot(2);
  robot.bring_up();
  robot.stream(250000);
  robot.is_draining = false;
  robot.run_us(2000);
  robot.bridge.limits.is_corrupt = true;  // power off at once
  robot.run_us(250);
  const std::uint64_t before = robot.motions + robot.holds;
  robot.drain();
  tap::ok(robot.bridge.state == PM_STATE_FAULT && robot.motions + robot.holds == before && !robot.drives[0].is_enabled,
          "power off takes queued movement with it, not itself");
  Rig late(2);
  late.bring_up();
  late.is_draining = false;
  late.run_us(1000);
  late.now += PM_MOTION_AGE_US_MAX + 1;
  const std::uint64_t holds = late.holds;
  late.drain();
  tap::ok(late.holds == holds && late.count(PM_COUNT_DROPPED) == 8, "old commands are dropped and counted");
}

void first_set() {
  Rig robot(2);
  robot.bring_up();
  const auto refused = [&](double position, double velocity, const char* why) {
    const std::uint32_t before = robot.count(PM_COUNT_FIRST_REFUSED);
    robot.send_set({0, position}, {0, velocity});
    tap::ok(robot.count(PM_COUNT_FIRST_REFUSED) == before + 1 && robot.bridge.state == PM_STATE_HOLDING, why);
  };
  refused(0.0201, 0, "first set refused: above the measured position");
  refused(-0.0201, 0, "first set refused: below");
  refused(0, 0.051, "first set refused: moving up");
  refused(0, -0.051, "first set refused: moving down");
  robot.drives[1].is_enabled = false;
  robot.drives[1].is_deaf = true;
  robot.run_us(250);
  refused(0, 0, "first set refused: a drive is off");
  robot.drives[1].is_deaf = false;
  robot.run_us(500);
  robot.send_set({0.02, -0.02}, {0.05, -0.05});
  tap::equal(robot.bridge.state, PM_STATE_FOLLOWING, "a set near the measured position begins the movement");
  for (int i = 0; i < 14; ++i) {
    robot.ahead_us += 1000;
    robot.send_set(0, 0);
  }
  const std::uint32_t early = robot.count(PM_COUNT_EARLY);
  robot.ahead_us += 1000;
  robot.send_set(0, 0);
  tap::ok(early == 0 && robot.count(PM_COUNT_EARLY) == 1, "a ring full of sets refuses the next one");
}

void configuration() {
  const auto makes_sense = [](const std::function<void(pm_bridge_config&)>& change) {
    Rig robot(2);
    change(robot.config);
    const bool good = robot.start();
    robot.hello();
    robot.send_short(PM_ID_HELLO, {1, 1, 1, 0});
    robot.run_us(20000);
    return good || robot.frames != 0;
  };
  tap::ok(makes_sense([](pm_bridge_config&) {}), "the usual configuration starts");
  tap::ok(makes_sense([](pm_bridge_config& c) { c.tick_us = 5000; }), "5 ms ticks are the longest");
  tap::ok(makes_sense([](pm_bridge_config& c) { c.tick_us = 1; }), "1 us ticks are the shortest");
  tap::ok(makes_sense([](pm_bridge_config& c) { c.axis_count = 1; }), "one axis is the least");
  tap::ok(makes_sense([](pm_bridge_config& c) { c.axis_count = 14; }), "14 axes are the most");
  tap::ok(!makes_sense([](pm_bridge_config& c) { c.axis_count = 0; }), "no axes: silent for ever");
  tap::ok(!makes_sense([](pm_bridge_config& c) { c.axis_count = 15; }), "15 axes: silent for ever");
  tap::ok(!makes_sense([](pm_bridge_config& c) { c.tick_us = 0; }), "no tick: silent for ever");
  tap::ok(!makes_sense([](pm_bridge_config& c) { c.tick_us = 5001; }), "a tick that is a fault: silent for ever");
  tap::ok(!makes_sense([](pm_bridge_config& c) { c.drive_divider = 0; }), "no divider: silent for ever");
  tap::ok(!makes_sense([](pm_bridge_config& c) { c.drive.encode = nullptr; }), "no encoder: silent for ever");
  tap::ok(!makes_sense([](pm_bridge_config& c) { c.drive.decode = nullptr; }), "no decoder: silent for ever");
  tap::ok(!makes_sense([](pm_bridge_config& c) { c.tracking_max_rad = 0; }), "no tracking bound: silent for ever");

  Rig disarmed(2);
  tap::ok(disarmed.start(), "a configuration that makes sense is accepted");
  disarmed.hello();
  const std::uint64_t frames = disarmed.frames;
  disarmed.heard.clear();
  disarmed.run_us(100000);
  tap::equal(disarmed.frames - frames - disarmed.heard.size(), 20u, "disarmed, each drive is polled every 10 ms");

  Rig divided(2);
  divided.config.drive_divider = 4;
  divided.start();
  divided.bring_up();
  const std::uint64_t holds = divided.holds;
  divided.run_us(100000);
  tap::equal(divided.holds - holds, 200u, "a divider of 4 commands each drive every 1 ms");

  bool is_refusing = false;
  Rig odd(2);
  odd.config.drive.context = &is_refusing;
  odd.start();
  odd.bring_up();
  is_refusing = true;
  odd.run_us(1000);
  tap::equal(odd.count(PM_COUNT_DROPPED), 8u, "commands that a drive has no frame for are counted");
}

void odd_ticks() {
  Rig robot(2);
  robot.bring_up();
  robot.stream(250000);
  const pm_reference before = robot.bridge.axes[0];
  pm_bridge_tick(&robot.bridge, robot.now);
  const pm_reference after = robot.bridge.axes[0];
  tap::ok(std::abs(after.position_rad - before.position_rad) < 1e-5 && robot.fault() == PM_FAULT_NONE &&
              std::abs(after.velocity_rad_s - before.velocity_rad_s) < 1e-3,
          "a second tick at the same moment moves nothing");
  robot.now += 4000 - 2 * rig::tick_us;
  robot.tick();
  tap::ok(robot.fault() == PM_FAULT_NONE, "a tick that comes 4 ms late is no fault yet");
  Rig disarmed(2);
  disarmed.hello();
  disarmed.send_short(PM_ID_DISARM);
  tap::equal(disarmed.count(PM_COUNT_OUT_OF_PLACE), 1u, "DISARM of a disarmed robot is out of place");
  tap::equal(disarmed.ask(PM_ID_LIMIT_COMMIT, {2}, PM_ID_LIMIT_RESULT), int(PM_LIMIT_INCOMPLETE),
             "a commit of nothing");
}

void drive_frames() {
  Rig robot(2);
  robot.config.drive_bus[2] = 1;  // of no axis
  robot.start();
  robot.hello();
  pm_can_frame frame{};
  frame.id = rig::feedback_id + 1;
  frame.data_bytes = 16;
  const auto refused = [&](std::uint8_t bus, const char* why) {
    const std::uint32_t before = robot.count(PM_COUNT_DRIVE_UNKNOWN);
    pm_bridge_on_frame(&robot.bridge, bus, &frame, robot.now);
    tap::ok(robot.count(PM_COUNT_DRIVE_UNKNOWN) == before + 1 && !robot.bridge.seen.axes[1].has_feedback, why);
  };
  refused(2, "feedback from another bus than the drive's");
  frame.id = rig::feedback_id + 2;
  refused(1, "feedback of an axis that does not exist");
  frame.id = 0x7FF;
  refused(1, "a frame the codec does not know");
  frame.id = rig::feedback_id + 1;
  for (const int at : {1, 5, 9}) {
    const float not_a_number = std::nanf("");
    std::memset(frame.data, 0, sizeof frame.data);
    std::memcpy(frame.data + at, &not_a_number, 4);
    refused(1, "feedback that is not a number");
  }
  std::memset(frame.data, 0, sizeof frame.data);
  pm_bridge_on_frame(&robot.bridge, 1, &frame, robot.now);
  tap::ok(robot.bridge.seen.axes[1].has_feedback, "intact feedback is taken");
}

}  // namespace

int main() {
  table_of_states();
  every_row();
  silent_at_boot();
  heartbeat_and_reports();
  arming();
  limits_over_the_wire();
  moving_and_stopping();
  silence();
  undrained();
  first_set();
  configuration();
  odd_ticks();
  drive_frames();
  return tap::finish();
}
