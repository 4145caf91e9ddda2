// Random frames against the bridge, a million and more in the default run: noise, frames with right checksums and
// random contents, valid frames with wrong bits, replays, drive feedback of any value. Whatever arrives, nothing moves
// without an armed session and a fresh set, silence stays silent, and an armed robot's references stay inside its
// limits. An argument multiplies the number of frames.
#include <cstdlib>
#include <random>

#include "bridge_rig.h"
#include "firmware_flash.h"

using rig::Rig;

namespace {

constexpr unsigned seed = 20261124;

struct Noise {
  std::mt19937 random{seed};
  std::vector<pm_can_frame> past;  // a few frames of before, to replay

  std::uint32_t below(std::uint32_t count) { return random() % count; }

  std::uint32_t known_id() {
    static constexpr std::uint32_t ids[] = {
        PM_ID_ESTOP,        PM_ID_DISARM,           PM_ID_SILENCE,       PM_ID_FAULT,        PM_ID_HEARTBEAT,
        PM_ID_HELLO,        PM_ID_WELCOME,          PM_ID_ARM_REQUEST,   PM_ID_ARM_RESPONSE, PM_ID_LIMIT_WRITE,
        PM_ID_LIMIT_READ,   PM_ID_LIMIT_COMMIT,     PM_ID_FAULT_CLEAR,   PM_ID_SETPOINT,     PM_ID_SETPOINT + 1,
        PM_ID_SETPOINT + 2, PM_ID_SETPOINT_CLASSIC, PM_ID_INDICATE,      PM_ID_FIRMWARE_ASK, PM_ID_FIRMWARE_FACT,
        PM_ID_UPDATE,       PM_ID_UPDATE,           PM_ID_UPDATE_STATUS, PM_ID_UPDATE_WORD,  PM_ID_UPDATE_BLOCK};
    const std::uint32_t pick = below(sizeof ids / sizeof ids[0] + 10);
    return pick < sizeof ids / sizeof ids[0] ? ids[pick] : PM_ID_SETPOINT_CLASSIC + 1 + pick % 10;
  }

  pm_can_frame noise() {
    pm_can_frame frame{};
    frame.id = below(2) == 0 ? known_id() : below(0x800);
    frame.is_fd = below(2) == 0;
    frame.is_extended = below(50) == 0;
    frame.is_remote = below(50) == 0;
    frame.data_bytes = frame.is_fd && below(2) == 0 ? 64 : static_cast<std::uint8_t>(below(9));
    for (std::uint8_t& byte : frame.data) byte = static_cast<std::uint8_t>(random());
    return frame;
  }

  // A known frame of eight bytes with a right checksum; mostly small values, so that some of them mean something.
  pm_can_frame sealed() {
    std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {};
    const std::uint32_t used = below(7);
    for (std::uint32_t i = 0; i < used; ++i)
      payload[i] = static_cast<std::uint8_t>(below(2) == 0 ? below(8) : random());
    pm_can_frame frame;
    pm_short_pack(&frame, known_id(), payload);
    return frame;
  }

  // One of the frames of an update, most of them in an order that may make sense.
  pm_can_frame update() {
    static constexpr std::uint32_t sizes[] = {520, 1024, 4096, 7};
    const auto operation = static_cast<std::uint8_t>(below(PM_UPDATE_OPERATIONS));
    const pm_word_item item = {operation, 0, operation == PM_UPDATE_SIZE ? sizes[below(4)] : below(3) / 2};
    pm_can_frame frame;
    pm_word_pack(&frame, PM_ID_UPDATE, &item);
    return frame;
  }

  pm_setpoint_part part(const Rig& robot) {
    pm_setpoint_part found{};
    found.axis_count = static_cast<std::uint8_t>(robot.drives.size());
    found.part = static_cast<std::uint8_t>(below(pm_part_count(found.axis_count)));
    found.sequence = static_cast<std::uint16_t>(robot.sequence + below(4));
    found.session = robot.session;
    found.token = static_cast<std::uint16_t>(robot.token + below(3));
    found.due_us = static_cast<std::uint32_t>(robot.now + below(120000));
    for (int s = 0; s < PM_SLOTS_PER_PART && found.part * PM_SLOTS_PER_PART + s < found.axis_count; ++s) {
      found.slots[s].position = static_cast<std::int32_t>(random()) / (below(3) == 0 ? 1 : 60);
      found.slots[s].velocity = static_cast<std::int16_t>(static_cast<int>(below(65536)) - 32768);
    }
    return found;
  }

  pm_can_frame any(const Rig& robot) {
    pm_can_frame frame{};
    switch (below(6)) {
      case 5:
        frame = update();
        break;
      case 0:
        frame = noise();
        break;
      case 1:
        frame = sealed();
        break;
      case 2: {
        const pm_setpoint_part random_part = part(robot);
        pm_setpoint_pack(&frame, &random_part);
        break;
      }
      case 3:
        frame = past.empty() ? noise() : past[below(static_cast<std::uint32_t>(past.size()))];
        break;
      default:
        frame = past.empty() ? sealed() : past[below(static_cast<std::uint32_t>(past.size()))];
        frame.data[below(64)] ^= static_cast<std::uint8_t>(1u << below(8));
        break;
    }
    if (past.size() < 64)
      past.push_back(frame);
    else
      past[below(64)] = frame;
    return frame;
  }

  // What a drive might say, from sane to absurd.
  void drive(Rig& robot) {
    pm_can_frame frame{};
    frame.id = rig::feedback_id + below(20);
    frame.data_bytes = 16;
    for (std::uint8_t& byte : frame.data) byte = static_cast<std::uint8_t>(random());
    pm_bridge_on_frame(&robot.bridge, static_cast<std::uint8_t>(1 + below(3)), &frame, robot.now);
  }
};

// What is answered in silence: questions about the firmware, nothing else.
bool is_firmware_answer(const pm_can_frame& frame) {
  return frame.id == PM_ID_FIRMWARE_FACT || frame.id == PM_ID_UPDATE_STATUS;
}

// Nobody knows the challenge's answer, so nothing may ever be powered. Updates begin, and must not touch what runs.
void never_armed(std::uint64_t frames) {
  Rig robot(14);
  rig::FakeFlash flash;
  flash.put_image(PM_SLOT_A, rig::make_image(PM_SLOT_A, 0));
  const auto image = flash.regions[PM_SLOT_A];
  robot.config.update = {&flash.flash, PM_SLOT_A, 0};
  robot.start();
  std::uint64_t updating = 0;
  Noise noise;
  robot.hello();
  robot.run_us(20000);
  robot.upload();
  std::uint64_t spoke_in_silence = 0;
  std::uint64_t states[PM_STATES] = {};
  for (std::uint64_t i = 0; i < frames; ++i) {
    const bool was_silent = robot.bridge.state == PM_STATE_SILENT;
    const std::uint64_t before = robot.frames;
    robot.send(noise.any(robot));
    if (i % 16 == 0) noise.drive(robot);
    if (i % 8 == 0) robot.tick();
    ++states[robot.bridge.state];
    updating += !pm_update_is_idle(&robot.bridge.update);
    spoke_in_silence += was_silent && robot.bridge.state == PM_STATE_SILENT && robot.frames != before &&
                        !is_firmware_answer(robot.heard.back());
    if (i % 1024 == 0) robot.hello();
    if (i % 64 == 0) robot.heard.clear();
  }
  tap::ok(robot.holds == 0 && robot.motions == 0,
          "never armed: no drive was powered by any of " + std::to_string(frames) + " frames");
  tap::equal(spoke_in_silence, 0u, "never armed: silent means silent");
  tap::ok(updating > 0 && flash.operations > 0, "never armed: updates were begun: " + std::to_string(updating));
  tap::ok(flash.regions[PM_SLOT_A] == image, "never armed: none of them touched the slot that runs");
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_A, "never armed: and it is what starts");
  tap::ok(states[PM_STATE_SILENT] > 0 && states[PM_STATE_DISARMED] > 0 && states[PM_STATE_FAULT] > 0,
          "never armed: silent, disarmed and faulted were all met");
  tap::ok(
      states[PM_STATE_HOLDING] + states[PM_STATE_FOLLOWING] + states[PM_STATE_SLOWING] + states[PM_STATE_STOPPING] == 0,
      "never armed: no powered state was entered");
}

// Stops every kind of traffic that stops the robot by right: with it the robot would hardly ever move. One in a hundred
// passes.
bool is_a_stop(const pm_can_frame& frame) { return frame.id >= PM_ID_ESTOP && frame.id <= PM_ID_SILENCE; }

void arm_again(Rig& robot) {
  robot.run_us(20000);
  robot.hello();
  robot.send_short(PM_ID_FAULT_CLEAR, {static_cast<std::uint8_t>(robot.fault())});
  robot.send_short(PM_ID_DISARM);
  robot.hello();
  robot.run_us(20000);
  robot.upload();
  robot.arm();
  robot.run_us(1000);
}

// The noise knows session, sequence, token and time. It may move the robot, but only inside the limits and only while
// sets are fresh.
void armed(std::uint64_t frames) {
  Rig robot(6);
  Noise noise;
  robot.bring_up();
  double position = 0, velocity = 0;
  std::uint64_t stale = 0, unpowered = 0, armings = 1, followed = 0;
  for (std::uint64_t i = 0; i < frames; ++i) {
    const std::uint64_t motions = robot.motions;
    const pm_can_frame frame = noise.any(robot);
    if (!is_a_stop(frame) || noise.below(100) == 0) robot.send(frame);
    if (i % 4 == 0) robot.tick();
    if (i % 32 == 0) {
      robot.sequence = robot.bridge.setpoints.sequence;
      robot.token = robot.bridge.setpoints.token;
      std::vector<double> here(6);
      for (std::size_t axis = 0; axis < 6; ++axis) here[axis] = robot.bridge.axes[axis].position_rad;
      robot.send_set(here, std::vector<double>(6));
    }
    followed += robot.bridge.state == PM_STATE_FOLLOWING;
    const bool moved = robot.motions != motions;
    const pm_seen& seen = robot.bridge.seen;
    unpowered += moved && !(seen.is_powered && seen.has_first_set);
    stale += moved && robot.now - seen.fresh_us > PM_HOST_LOST_US + PM_STOP_US_MAX + 2 * rig::tick_us;
    for (const pm_reference& axis : robot.bridge.axes) {
      position = std::max(position, std::abs(axis.position_rad) - 2);
      velocity = std::max(velocity, std::abs(double(axis.velocity_rad_s)) - 3);
    }
    if (i % 64 == 0) robot.heard.clear();
    if (i % 1024 == 0 && robot.bridge.state != PM_STATE_FOLLOWING) {
      arm_again(robot);
      armings += robot.bridge.state == PM_STATE_HOLDING;
    }
  }
  tap::note(std::to_string(armings) + " armings, " + std::to_string(followed) + " of " + std::to_string(frames) +
            " steps following, " + std::to_string(robot.count(PM_COUNT_ACCEPTED)) + " sets accepted");
  tap::ok(armings > 10 && followed > frames / 20, "armed: the noise was obeyed where it was right");
  tap::equal(unpowered, 0u, "armed: no movement without an armed session and its first set");
  tap::equal(stale, 0u, "armed: no movement later than watchdog and longest stop after the last fresh set");
  tap::ok(position < 1e-5 && velocity < 1e-5, "armed: references stayed inside position and velocity limits");
}

// Noise beside a healthy host does not disturb it: garbage may fill the bus, the robot follows.
void beside_a_host(std::uint64_t frames) {
  Rig robot(14);
  Noise noise;
  robot.bring_up();
  robot.stream(1000);
  const std::uint64_t per_tick = 25;
  robot.stream(frames / per_tick * rig::tick_us, 0.1, 1000, [&](Rig& r) {
    for (std::uint64_t i = 0; i < per_tick; ++i) {
      pm_can_frame frame = noise.noise();
      r.send(frame);
    }
    r.heard.clear();
    return false;
  });
  tap::ok(robot.bridge.state == PM_STATE_FOLLOWING && robot.fault() == PM_FAULT_NONE,
          "beside a host: the robot follows through noise");
  tap::ok(robot.count(PM_COUNT_FOREIGN) + robot.count(PM_COUNT_MALFORMED) + robot.count(PM_COUNT_OUT_OF_PLACE) >=
              frames * 9 / 10,
          "beside a host: the noise was counted");
}

}  // namespace

int main(int count, char** arguments) {
  const std::uint64_t times = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1;
  tap::note("seed " + std::to_string(seed));
  never_armed(700000 * times);
  armed(300000 * times);
  beside_a_host(200000 * times);
  return tap::finish();
}
