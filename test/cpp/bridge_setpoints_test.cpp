// What makes a set fresh, rule by rule, on both kinds of bus: valid, invalid and valid-becoming-invalid sets against a
// bridge that follows. A set that does not count must raise exactly its own counter, leave the watchdog hungry and the
// reference where it was going.
#include "bridge_rig.h"

using rig::Rig;

namespace {

using Frames = std::vector<pm_can_frame>;

struct Moving : Rig {
  explicit Moving(bool has_fd, std::uint8_t axes = 14) : Rig(axes, has_fd) {
    bring_up(has_fd);
    send_next();
    tap::ok(bridge.state == PM_STATE_FOLLOWING, has_fd ? "an FD robot follows" : "a classic robot follows");
  }
  // A set that counts: at 0, due later than the last.
  Frames next() {
    ++sequence;
    ahead_us += 1000;
    return set_frames(std::vector<double>(drives.size()), std::vector<double>(drives.size()), now + ahead_us);
  }
  void send_all(const Frames& frames) {
    for (const pm_can_frame& frame : frames) send(frame);
  }
  void send_next() { send_all(next()); }
  // Sends the frames; true when exactly one counter rose, by `times`, and nothing was accepted.
  bool counts_only(pm_counter counter, const Frames& frames, std::uint32_t times = 1) {
    std::array<std::uint32_t, PM_COUNTERS> before;
    std::copy(std::begin(bridge.counters), std::end(bridge.counters), before.begin());
    const std::uint64_t fresh_us = bridge.seen.fresh_us;
    const std::uint32_t knots = bridge.interp.count;
    now += 1;
    send_all(frames);
    before[static_cast<std::size_t>(counter)] += times;
    return std::equal(before.begin(), before.end(), std::begin(bridge.counters)) && bridge.seen.fresh_us == fresh_us &&
           bridge.interp.count == knots && bridge.state == PM_STATE_FOLLOWING;
  }
};

// Complete and in order.
void rules_of_order(bool has_fd) {
  const std::string bus = has_fd ? "FD: " : "classic: ";
  {
    Moving robot(has_fd);
    const std::uint32_t accepted = robot.count(PM_COUNT_ACCEPTED);
    const Frames set = robot.next();
    for (std::size_t i = 0; i + 1 < set.size(); ++i) robot.send(set[i]);
    tap::ok(robot.count(PM_COUNT_ACCEPTED) == accepted, bus + "an incomplete set does not count");
    tap::ok(robot.counts_only(PM_COUNT_REPLAYED, {set[1]}), bus + "a repeated part");
    robot.send(set.back());
    tap::ok(robot.count(PM_COUNT_ACCEPTED) == accepted + 1, bus + "its last part completes it");
    const std::uint32_t parts = static_cast<std::uint32_t>(set.size());
    tap::ok(robot.counts_only(PM_COUNT_REPLAYED, set, parts), bus + "the same set again");
  }
  {
    Moving robot(has_fd);
    const Frames lost = robot.next();
    robot.send_all({lost[0], lost[1]});
    const std::uint32_t accepted = robot.count(PM_COUNT_ACCEPTED);
    robot.send_next();
    tap::ok(robot.count(PM_COUNT_INCOMPLETE) == 1 && robot.count(PM_COUNT_ACCEPTED) == accepted + 1,
            bus + "a newer set abandons an unfinished one");
    tap::ok(robot.counts_only(PM_COUNT_REPLAYED, {lost[2]}), bus + "and a straggler is out of date");
  }
  {
    Moving robot(has_fd);
    const Frames older = robot.next();
    const Frames newer = robot.next();
    robot.send_all(newer);
    tap::ok(robot.counts_only(PM_COUNT_REPLAYED, older, static_cast<std::uint32_t>(older.size())),
            bus + "a set that was overtaken");
    robot.sequence = static_cast<std::uint16_t>(robot.sequence + 32766);
    robot.send_next();
    tap::equal(robot.count(PM_COUNT_ACCEPTED), 3u, bus + "32767 ahead is newer, across the wrap too");
    robot.sequence = static_cast<std::uint16_t>(robot.sequence + 32767);
    const Frames far = robot.next();
    tap::ok(robot.counts_only(PM_COUNT_REPLAYED, far, static_cast<std::uint32_t>(far.size())), bus + "32768 is older");
  }
}

// In time, with a live planner, of this session.
void rules_of_time(bool has_fd) {
  const std::string bus = has_fd ? "FD: " : "classic: ";
  {
    Moving robot(has_fd);
    robot.sequence += 1;
    const auto at = [&](std::uint64_t due_us) {
      ++robot.sequence;
      return robot.set_frames(std::vector<double>(14), std::vector<double>(14), due_us);
    };
    const std::uint64_t last_due_us = robot.bridge.setpoints.due_us;
    tap::ok(robot.counts_only(PM_COUNT_LATE, at(last_due_us)), bus + "not due after the last set");
    robot.run_us(3000);
    // counts_only moves the clock by 1 us; a classic due time is a multiple of 100 us.
    robot.now += 99 - robot.now % 100;
    tap::ok(robot.counts_only(PM_COUNT_LATE, at(robot.now + 1)), bus + "due now");
    tap::ok(robot.counts_only(PM_COUNT_LATE, at(robot.now - 10000)), bus + "due 10 ms ago");
    robot.now += 99 - robot.now % 100;
    tap::ok(robot.counts_only(PM_COUNT_EARLY, at(robot.now + 1 + 100100)), bus + "due in 100.1 ms");
    robot.now += 99 - robot.now % 100;
    ++robot.now;
    robot.send_all(at(robot.now + 100000));
    tap::equal(robot.count(PM_COUNT_ACCEPTED), 2u, bus + "due in 100 ms");
  }
  {
    Moving robot(has_fd);
    --robot.token;
    tap::ok(robot.counts_only(PM_COUNT_STALE_TOKEN, robot.next()), bus + "a token that went back");
    robot.token = static_cast<std::uint16_t>(robot.token + 1 + 32767);
    robot.send_next();
    tap::equal(robot.count(PM_COUNT_ACCEPTED), 2u, bus + "a token that advanced");
    robot.now += 1;
    robot.ahead_us = 90000;
    robot.bridge.setpoints.token_us = robot.now - 1000000 + 1;
    robot.send_next();
    tap::equal(robot.count(PM_COUNT_ACCEPTED), 3u, bus + "a token 999 999 us old");
    robot.bridge.setpoints.token_us = robot.now - 1000000;
    tap::ok(robot.counts_only(PM_COUNT_STALE_TOKEN, robot.next()), bus + "a token 1 000 001 us old");
    ++robot.token;
    robot.send_next();
    tap::equal(robot.count(PM_COUNT_ACCEPTED), 4u, bus + "until it advances");
  }
  {
    Moving robot(has_fd);
    ++robot.session;
    const Frames set = robot.next();
    if (has_fd) {
      tap::ok(robot.counts_only(PM_COUNT_WRONG_SESSION, set, 3), bus + "another session");
    } else {
      tap::ok(robot.counts_only(PM_COUNT_MALFORMED, set), bus + "another session fails the checksum");
    }
  }
}

void reordered_parts() {
  Moving robot(true);
  Frames set = robot.next();
  std::swap(set[0], set[2]);
  robot.send_all(set);
  tap::equal(robot.count(PM_COUNT_ACCEPTED), 2u, "FD: parts come in any order");
  Moving classic(false);
  set = classic.next();
  std::swap(set[1], set[10]);
  classic.send_all(set);
  tap::equal(classic.count(PM_COUNT_ACCEPTED), 2u, "classic: parts after the head come in any order");
  set = classic.next();
  std::swap(set[0], set[1]);
  const std::uint32_t replayed = classic.count(PM_COUNT_REPLAYED);
  classic.send_all(set);
  tap::ok(classic.count(PM_COUNT_ACCEPTED) == 2 && classic.count(PM_COUNT_REPLAYED) == replayed + 1,
          "classic: a part before its head is lost");
}

void overtaken_parts() {
  Moving robot(true);
  const Frames older = robot.next();
  const Frames newer = robot.next();
  robot.send(newer[0]);
  tap::ok(robot.counts_only(PM_COUNT_REPLAYED, {older[0]}), "FD: a part of an older set than the one that is coming");
  robot.send_all({newer[1], newer[2]});
  tap::equal(robot.count(PM_COUNT_ACCEPTED), 2u, "FD: which then completes");
  Moving classic(false);
  const Frames set = classic.next();
  classic.send(set[0]);
  tap::ok(classic.counts_only(PM_COUNT_REPLAYED, {set[0]}), "classic: a repeated head");
  tap::ok(classic.counts_only(PM_COUNT_INCOMPLETE, {classic.next()[0]}), "classic: a newer head abandons the set");
}

// One field of one part differs and the checksum is right: the parts are not of one set.
void mixed_sets() {
  for (const int at : {4, 6, 8, 12}) {
    Moving robot(true);
    Frames set = robot.next();
    pm_setpoint_part part;
    pm_setpoint_unpack(&set[1], &part);
    if (at == 6) part.token ^= 1;
    if (at == 8) part.due_us ^= 1;
    if (at == 12) part.has_torque = true;
    if (at == 4) part.session ^= 1;
    pm_setpoint_pack(&set[1], &part);
    robot.send_all(set);
    const bool is_session = at == 4;
    tap::ok(robot.count(PM_COUNT_ACCEPTED) == 1 && robot.count(PM_COUNT_MALFORMED) == !is_session &&
                robot.count(PM_COUNT_WRONG_SESSION) == is_session,
            "FD: a part that differs in byte " + std::to_string(at) + " drops the set");
  }
  Moving robot(true);
  Frames set = robot.next();
  pm_setpoint_part part;
  pm_setpoint_unpack(&set[0], &part);
  part.axis_count = 13;
  pm_setpoint_pack(&set[0], &part);
  tap::ok(robot.counts_only(PM_COUNT_MALFORMED, {set[0]}), "FD: another number of axes");
}

// Each single-bit error of each frame of a set: the set must not be accepted, and nothing may move.
void corrupted(bool has_fd) {
  Moving robot(has_fd);
  int accepted = 0;
  int bits = 0;
  const Frames pattern = robot.next();
  for (std::size_t f = 0; f < pattern.size(); ++f) {
    for (int bit = 0; bit < pattern[f].data_bytes * 8; bit += has_fd ? 3 : 1) {
      robot.ahead_us = 4000;
      robot.run_us(1000);
      Frames set = robot.next();
      set[f].data[bit / 8] = static_cast<std::uint8_t>(set[f].data[bit / 8] ^ 1u << bit % 8);
      const std::uint32_t before = robot.count(PM_COUNT_ACCEPTED);
      robot.send_all(set);
      accepted += robot.count(PM_COUNT_ACCEPTED) != before;
      ++bits;
      if (bit % 32 == 0) ++robot.token;
      robot.ahead_us += 1000;
      robot.send_next();
      if (robot.bridge.state != PM_STATE_FOLLOWING) break;
    }
  }
  tap::ok(accepted == 0 && robot.fault() == PM_FAULT_NONE, std::string(has_fd ? "FD: " : "classic: ") + "none of " +
                                                               std::to_string(bits) + " corrupted sets was accepted");
}

void classic_form() {
  Moving locked(false);
  Frames wrong = locked.next();
  wrong[0].data[0] ^= 0x80;  // 128 ahead of what was meant, or behind
  locked.send_all({wrong[0]});
  wrong[0].data[1] ^= 0x40;
  locked.send_all({wrong[0]});
  locked.send_next();
  tap::equal(locked.count(PM_COUNT_ACCEPTED), 2u, "classic: a corrupted head locks nobody out");
  Moving robot(false, 2);  // two parts; two values of the second are padding
  Frames set = robot.next();
  pm_can_frame third = set[2];
  third.id += 1;
  third.data[1] = 0x13;
  tap::ok(robot.counts_only(PM_COUNT_MALFORMED, {third}), "classic: a part that two axes do not have");
  std::int16_t values[6] = {0, 0, 0, 0, 1, 0};
  pm_classic_head head;
  pm_classic_head_unpack(&set[0], &head);
  head.set_crc = pm_classic_set_crc(&head, robot.session, values, 2);
  pm_classic_head_pack(&set[0], &head);
  set[2].data[4] = 1;
  tap::ok(robot.counts_only(PM_COUNT_MALFORMED, set), "classic: padding that is not zero");
  pm_can_frame short_head = set[0];
  short_head.data_bytes = 7;
  tap::ok(robot.counts_only(PM_COUNT_MALFORMED, {short_head}), "classic: a short head");
}

void foreign() {
  Moving robot(true);
  pm_can_frame frame{};
  frame.data_bytes = 8;
  for (const std::uint32_t id :
       {0x000u, 0x00Fu, 0x040u, 0x07Fu, 0x083u, 0x08Fu, 0x09Bu, 0x100u, 0x110u, 0x201u, 0x7FFu}) {
    frame.id = id;
    tap::ok(robot.counts_only(PM_COUNT_FOREIGN, {frame}), "foreign identifier " + std::to_string(id));
  }
  Frames set = robot.next();
  pm_can_frame extended = set[0];
  extended.is_extended = true;
  tap::ok(robot.counts_only(PM_COUNT_FOREIGN, {extended}), "a setpoint with a 29-bit identifier");
  pm_can_frame remote = set[0];
  remote.is_remote = true;
  tap::ok(robot.counts_only(PM_COUNT_FOREIGN, {remote}), "a remote request for a setpoint");
  pm_can_frame disarm{};
  const std::uint8_t payload[6] = {};
  pm_short_pack(&disarm, PM_ID_DISARM, payload);
  disarm.is_remote = true;
  tap::ok(robot.counts_only(PM_COUNT_FOREIGN, {disarm}), "a remote request for DISARM");
  disarm.is_remote = false;
  disarm.data[2] = 1;
  tap::ok(robot.counts_only(PM_COUNT_MALFORMED, {disarm}), "DISARM with a wrong checksum");
  frame.id = PM_ID_SETPOINT_CLASSIC;
  tap::ok(robot.counts_only(PM_COUNT_OUT_OF_PLACE, {frame}), "a classic head when FD was agreed");
  Moving classic(false);
  set[0].id = PM_ID_SETPOINT;
  tap::ok(classic.counts_only(PM_COUNT_OUT_OF_PLACE, {set[0]}), "an FD set when classic was agreed");
}

// Traffic that does not count feeds no watchdog: replays, status requests, refused sets at full rate.
void traffic_is_no_life() {
  Rig robot(2);
  robot.bring_up();
  robot.stream(250000);
  const Frames old = robot.set_frames({0, 0}, {0, 0}, robot.now + 4000);
  const std::uint64_t start_us = robot.now;
  while (robot.fault() == PM_FAULT_NONE && robot.now - start_us < 200000) {
    for (const pm_can_frame& frame : old) robot.send(frame);
    robot.send_short(PM_ID_LIMIT_READ, {0, 0});
    robot.send_short(PM_ID_HELLO, {1, 1, 1, 2});
    robot.tick();
  }
  tap::ok(robot.fault() == PM_FAULT_HOST_LOST && robot.now - start_us <= 100500, "traffic alone feeds no watchdog");
  tap::ok(robot.count(PM_COUNT_REPLAYED) > 300, "it was counted");
}

void yesterday() {
  Rig robot(2);
  robot.bring_up();
  std::vector<Frames> recording;
  for (int i = 0; i < 50; ++i) {
    ++robot.sequence;
    recording.push_back(robot.set_frames({0, 0}, {0, 0}, robot.now + 4000));
    for (const pm_can_frame& frame : recording.back()) robot.send(frame);
    robot.run_us(1000);
  }
  robot.send_short(PM_ID_DISARM);
  robot.run_until(PM_STATE_DISARMED, 100000);
  tap::equal(robot.arm(), int(PM_ARM_OK), "armed again");
  robot.run_us(2000);
  const std::uint32_t accepted = robot.count(PM_COUNT_ACCEPTED);
  for (const Frames& set : recording) {
    for (const pm_can_frame& frame : set) robot.send(frame);
    robot.run_us(1000);
  }
  tap::ok(robot.count(PM_COUNT_ACCEPTED) == accepted && robot.count(PM_COUNT_WRONG_SESSION) == 50 &&
              robot.motions > 0 && robot.bridge.state == PM_STATE_HOLDING,
          "a recording from the last session moves nothing");
}

void clamped() {
  Rig robot(2);
  robot.drives[0].position = robot.drives[1].position = 1.99f;
  robot.bring_up();
  for (int i = 0; i < 20; ++i) {
    robot.send_set(1.99, 0);
    robot.run_us(1000);
  }
  const double step = 0.0002;
  for (int i = 0; i < 400; ++i) {
    if (i % 100 == 0) ++robot.token;
    robot.send_set(std::min(1.99 + i * step, 2.04), 0.1);
    robot.run_us(1000);
  }
  tap::ok(robot.fault() == PM_FAULT_NONE && robot.count(PM_COUNT_CLAMPED) > 100,
          "setpoints beyond a limit are clamped and counted");
  tap::is_near(robot.drives[0].last.position_rad, 2, 1e-5, "the robot stands at the limit");
}

void torques() {
  Rig robot(2);
  robot.bring_up();
  for (int i = 0; i < 10; ++i) {
    ++robot.sequence;
    for (const pm_can_frame& frame : robot.set_frames({0, 0}, {0, 0}, robot.now + 4000, 2.5)) robot.send(frame);
    robot.run_us(1000);
  }
  tap::is_near(robot.drives[1].last.torque_Nm, 2.5, 1e-3, "feed-forward torque reaches the drive");
  robot.run_until(PM_STATE_HOLDING, 20000);
  robot.run_us(1000);
  tap::is_near(robot.drives[1].last.torque_Nm, 2.5, 1e-3, "and carries on while it is held");
}

void clock_wrap() {
  Rig robot(2);
  robot.now = 0xFFFFFFFFull - 300000;
  robot.start();
  robot.bring_up();
  robot.stream(1000000);
  tap::ok(
      robot.bridge.state == PM_STATE_FOLLOWING && robot.now > 0xFFFFFFFFull && robot.count(PM_COUNT_ACCEPTED) == 1000,
      "the 32 bits of the bridge's clock may wrap");
  Rig classic(2, false);
  classic.now = 6553600 - 500000;
  classic.start();
  classic.bring_up(false);
  // Two axes take three frames of eight bytes: 500 Hz.
  classic.stream(1000000, 0.1, 2000);
  tap::ok(classic.bridge.state == PM_STATE_FOLLOWING && classic.count(PM_COUNT_ACCEPTED) == 500,
          "so may the 16 bits of a classic due time");
}

}  // namespace

int main() {
  rules_of_order(true);
  rules_of_order(false);
  rules_of_time(true);
  rules_of_time(false);
  reordered_parts();
  overtaken_parts();
  mixed_sets();
  corrupted(true);
  corrupted(false);
  classic_form();
  foreign();
  traffic_is_no_life();
  yesterday();
  clamped();
  torques();
  clock_wrap();
  return tap::finish();
}
