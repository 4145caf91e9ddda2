#include "motion/bridge_link.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace premotor::motion {

namespace {

constexpr std::uint8_t kWishFd = 1;

std::int32_t limit_value(const AxisLimits& limits, int field) {
  constexpr std::int32_t max = INT32_MAX;
  switch (field) {
    case PM_LIMIT_POSITION_MIN:
      return pm_quantise(limits.position_min, PM_POSITION_PER_RAD, max);
    case PM_LIMIT_POSITION_MAX:
      return pm_quantise(limits.position_max, PM_POSITION_PER_RAD, max);
    case PM_LIMIT_VELOCITY:
      return pm_quantise(limits.velocity, PM_LIMIT_PER_UNIT, max);
    case PM_LIMIT_ACCELERATION:
      return pm_quantise(limits.acceleration, PM_LIMIT_PER_UNIT, max);
    case PM_LIMIT_JERK:
      return pm_quantise(limits.jerk, PM_LIMIT_PER_UNIT, max);
    default:
      return pm_quantise(limits.torque, PM_LIMIT_PER_UNIT, max);
  }
}

constexpr std::array<const char*, 19> kFaultNames = {
    "none",          "e-stop",         "host lost",     "token stale",       "no first setpoint",
    "setpoint step", "tracking",       "feedback lost", "drive fault",       "over-temperature",
    "over-current",  "position range", "overspeed",     "drive not enabled", "limits corrupt",
    "tick late",     "queue stalled",  "stop late",     "feedback frozen"};
constexpr std::array<const char*, 11> kArmResults = {"armed",
                                                     "it is not disarmed",
                                                     "its version or number of axes differs",
                                                     "no challenge is open",
                                                     "a wrong answer",
                                                     "no limits are committed",
                                                     "feedback of an axis is missing",
                                                     "a drive reports a fault",
                                                     "an axis is outside its limits",
                                                     "an axis moves",
                                                     "its firmware is being updated"};
constexpr std::array<const char*, 7> kLimitResults = {"committed",
                                                      "it is not disarmed",
                                                      "another number of axes",
                                                      "a value is missing",
                                                      "the checksum differs",
                                                      "a value beyond the built-in ceiling",
                                                      "a lowest position not below the highest"};

template <std::size_t N>
const char* name_of(const std::array<const char*, N>& names, std::uint8_t index) {
  return index < N ? names[index] : "unknown to this version";
}

std::string axis_text(const LinkFault& fault) {
  return fault.axis == PM_AXIS_NONE ? "" : " (axis " + std::to_string(fault.axis) + ")";
}

}  // namespace

const char* link_state_name(LinkState state) {
  constexpr std::array<const char*, 9> names = {"off",    "connecting", "uploading", "ready",  "clearing",
                                                "arming", "armed",      "disarming", "faulted"};
  return name_of(names, static_cast<std::uint8_t>(state));
}

Status describe(const LinkFault& fault) {
  const std::string code = fault.code;
  if (code.empty()) return Status::good();
  const std::string axis = axis_text(fault);
  if (code == "BRIDGE_FAULT") {
    std::string text = "The bridge has stopped the robot: " + std::string(name_of(kFaultNames, fault.fault)) + axis;
    if (fault.detail != 0) text += ", the drive's own code " + std::to_string(fault.detail);
    return Status::error(fault.code, text + ". Remove the cause (docs/SAFETY.md, \"Faults\") and arm again.");
  }
  if (code == "BRIDGE_REFUSED")
    return Status::error(fault.code, "The bridge refuses to arm: " + std::string(name_of(kArmResults, fault.result)) +
                                         axis + ". Remove the cause and arm again.");
  if (code == "BRIDGE_LIMITS")
    return Status::error(fault.code,
                         "The bridge refuses the limits: " + std::string(name_of(kLimitResults, fault.result)) + axis +
                             ". Narrow them to what the firmware was built for.");
  if (code == "BRIDGE_VERSION")
    return Status::error(fault.code,
                         "The bridge speaks another version of the protocol or has another number of axes "
                         "than the configuration. Flash the firmware of this release, or correct the "
                         "robot's joints.");
  if (code == "BRIDGE_NO_REPLY")
    return Status::error(fault.code, "The bridge does not answer. Check its power, the bus and the bit rate.");
  if (code == "BRIDGE_BUS_OFF")
    return Status::error(fault.code,
                         "The CAN controller has gone off the bus. Check cable, termination and bit rate, bring the "
                         "bus back, then arm again.");
  if (code == "BRIDGE_LOST")
    return Status::error(fault.code,
                         "The bridge's heartbeat is missing. Check its power and the bus; it stops the "
                         "robot by itself.");
  if (code == "BRIDGE_DROPPED")
    return Status::error(fault.code,
                         "The bridge has let the robot go without being asked: it has restarted, or "
                         "somebody else disarmed it.");
  return Status::error(fault.code, "The link to the bridge was stopped by this host.");
}

Status BridgeLink::open(const LinkOptions& options, BridgeLink* out) {
  if (options.axes < 1 || options.axes > PM_AXES_MAX)
    return Status::error("BRIDGE_OPTIONS", "a bridge has 1 to " + std::to_string(PM_AXES_MAX) + " axes, found " +
                                               std::to_string(options.axes));
  *out = BridgeLink();
  out->options_ = options;
  return Status::good();
}

void BridgeLink::go(LinkState state) {
  state_ = state;
  next_us_ = 0;
  item_ = 0;
  is_answered_ = false;
}

void BridgeLink::latch(const LinkFault& fault) {
  if (state_ == LinkState::faulted) return;
  fault_ = fault;
  is_arm_wanted_ = false;
  go(LinkState::faulted);
}

bool BridgeLink::is_due(std::int64_t now_us) {
  if (now_us < next_us_) return false;
  next_us_ = now_us + options_.reply_us;
  return true;
}

void BridgeLink::start(std::int64_t now_us) {
  if (state_ != LinkState::off) return;
  host_nonce_ = options_.nonce_seed ^ static_cast<std::uint32_t>(now_us);
  go(LinkState::connecting);
}

void BridgeLink::arm(std::int64_t now_us) {
  if (state_ == LinkState::off || state_ == LinkState::armed) return;
  is_arm_wanted_ = true;
  wanted_us_ = now_us;  // asking again starts the time anew
  refused_ = LinkFault();
  if (state_ != LinkState::faulted) return;
  fault_ = LinkFault();
  go(LinkState::clearing);
}

void BridgeLink::disarm(std::int64_t) {
  is_arm_wanted_ = false;
  if (state_ == LinkState::armed || state_ == LinkState::arming) go(LinkState::disarming);
}

void BridgeLink::estop(std::int64_t now_us, can::Bus* bus) {
  constexpr std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {};
  if (state_ != LinkState::off) send_short(PM_ID_ESTOP, payload, now_us, bus);
}

// A bus that is off is left by somebody's recover() and by arm(), never by itself.
void BridgeLink::send(const pm_can_frame& frame, std::int64_t now_us, can::Bus* bus) {
  const can::BusIo sent = bus->send(frame, now_us);
  if (sent == can::BusIo::ok || sent == can::BusIo::queued) return;
  ++counts_.unsent;
  if (sent == can::BusIo::bus_off && (state_ == LinkState::armed || state_ == LinkState::arming))
    latch({"BRIDGE_BUS_OFF"});
}

void BridgeLink::send_short(std::uint32_t id, const std::uint8_t* payload, std::int64_t now_us, can::Bus* bus) {
  pm_can_frame frame{};
  pm_short_pack(&frame, id, payload);
  send(frame, now_us, bus);
}

void BridgeLink::send_indication(std::int64_t now_us, can::Bus* bus) {
  if (!has_indication_ || state_ == LinkState::off) return;
  has_indication_ = false;
  const std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {static_cast<std::uint8_t>(indication_)};
  send_short(PM_ID_INDICATE, payload, now_us, bus);
}

void BridgeLink::step(std::int64_t now_us, const LinkSet* set, can::Bus* bus) {
  watch(now_us);
  send_indication(now_us, bus);
  switch (state_) {
    case LinkState::off:
    case LinkState::faulted:
      return;
    case LinkState::connecting: {
      const std::uint8_t hello[PM_SHORT_PAYLOAD_BYTES] = {PM_PROTOCOL_VERSION, PM_PROTOCOL_VERSION,
                                                          options_.wants_fd ? kWishFd : std::uint8_t{0},
                                                          static_cast<std::uint8_t>(options_.axes)};
      if (is_due(now_us)) send_short(PM_ID_HELLO, hello, now_us, bus);
      return;
    }
    case LinkState::uploading:
      return step_uploading(now_us, bus);
    case LinkState::ready:
      if (is_arm_wanted_) go(LinkState::arming);
      return;
    case LinkState::clearing:
      return step_clearing(now_us, bus);
    case LinkState::arming:
      return step_arming(now_us, bus);
    case LinkState::armed:
      if (set != nullptr) send_set(*set, bus, now_us);
      return;
    case LinkState::disarming: {
      constexpr std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {};
      if (is_due(now_us)) send_short(PM_ID_DISARM, payload, now_us, bus);
      return;
    }
  }
}

// What does not depend on a frame: silence of the bridge, and an arming that takes too long.
void BridgeLink::watch(std::int64_t now_us) {
  const bool is_heard = now_us - heard_us_ <= options_.lost_us;
  if (is_arm_wanted_ && now_us - wanted_us_ > options_.arming_us)
    return latch(refused_.code[0] != 0 ? refused_ : LinkFault{"BRIDGE_NO_REPLY"});
  if (state_ == LinkState::off || state_ == LinkState::faulted || is_heard) return;
  if (state_ == LinkState::armed) return latch({"BRIDGE_LOST"});
  if (state_ != LinkState::connecting && state_ != LinkState::clearing) {
    is_limits_current_ = false;
    go(LinkState::connecting);
  }
}

void BridgeLink::step_uploading(std::int64_t now_us, can::Bus* bus) {
  if (!is_due(now_us)) return;
  if (item_ < options_.axes * PM_LIMIT_FIELDS) {
    const auto axis = static_cast<std::uint8_t>(item_ / PM_LIMIT_FIELDS);
    const auto field = static_cast<std::uint8_t>(item_ % PM_LIMIT_FIELDS);
    const pm_limit_item item = {axis, field, expected_limit(item_)};
    pm_can_frame frame{};
    pm_limit_pack(&frame, PM_ID_LIMIT_WRITE, &item);
    send(frame, now_us, bus);
    return;
  }
  std::array<std::int32_t[PM_LIMIT_FIELDS], PM_AXES_MAX> values{};
  for (int axis = 0; axis < options_.axes; ++axis)
    for (int field = 0; field < PM_LIMIT_FIELDS; ++field)
      values[static_cast<std::size_t>(axis)][field] = expected_limit(axis * PM_LIMIT_FIELDS + field);
  std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {static_cast<std::uint8_t>(options_.axes)};
  pm_put_u16(payload + 2, pm_limits_crc(values.data(), static_cast<std::uint8_t>(options_.axes)));
  send_short(PM_ID_LIMIT_COMMIT, payload, now_us, bus);
}

std::int32_t BridgeLink::expected_limit(std::int32_t item) const {
  return limit_value(options_.limits[static_cast<std::size_t>(item / PM_LIMIT_FIELDS)], item % PM_LIMIT_FIELDS);
}

// FAULT_CLEAR is refused silently while the cause is there, so it is repeated until the arming's time is over.
void BridgeLink::step_clearing(std::int64_t now_us, can::Bus* bus) {
  if (now_us - heard_us_ > options_.lost_us || bridge_state_ == kBridgeSilent || bridge_state_ == kBridgeDisarmed)
    return go(LinkState::connecting);
  if (bridge_state_ != kBridgeFault || !is_due(now_us)) return;
  const std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {bridge_fault_};
  send_short(PM_ID_FAULT_CLEAR, payload, now_us, bus);
}

void BridgeLink::step_arming(std::int64_t now_us, can::Bus* bus) {
  std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {};
  if (is_answered_) {
    is_answered_ = false;
    pm_put_u32(payload, pm_arm_answer(host_nonce_, bridge_nonce_));
    send_short(PM_ID_ARM_RESPONSE, payload, now_us, bus);
  } else if (is_due(now_us)) {
    host_nonce_ = host_nonce_ * 1664525u + 1013904223u;
    pm_put_u32(payload, host_nonce_);
    payload[4] = PM_PROTOCOL_VERSION;
    payload[5] = static_cast<std::uint8_t>(options_.axes);
    send_short(PM_ID_ARM_REQUEST, payload, now_us, bus);
  }
}

void BridgeLink::send_set(const LinkSet& set, can::Bus* bus, std::int64_t now_us) {
  if (!is_fd_) return send_classic(set, bus, now_us);
  pm_setpoint_part part{};
  part.sequence = ++sequence_;
  part.session = session_;
  part.token = set.token;
  part.due_us = static_cast<std::uint32_t>(bridge_time_us(set.at_us) & 0xffffffff);
  part.axis_count = static_cast<std::uint8_t>(options_.axes);
  const std::uint8_t parts = pm_part_count(part.axis_count);
  for (std::uint8_t p = 0; p < parts; ++p) {
    part.part = p;
    for (int slot = 0; slot < PM_SLOTS_PER_PART; ++slot) {
      const auto axis = static_cast<std::size_t>(p * PM_SLOTS_PER_PART + slot);
      part.slots[slot] = {};
      if (axis >= static_cast<std::size_t>(options_.axes)) continue;
      part.slots[slot].position = pm_quantise(set.position_rad[axis], PM_POSITION_PER_RAD, INT32_MAX);
      part.slots[slot].velocity =
          static_cast<std::int16_t>(pm_quantise(set.velocity_rad_s[axis], PM_VELOCITY_PER_RAD_S, INT16_MAX));
    }
    pm_can_frame frame{};
    pm_setpoint_pack(&frame, &part);
    send(frame, now_us, bus);
  }
  ++counts_.sets;
}

void BridgeLink::send_classic(const LinkSet& set, can::Bus* bus, std::int64_t now_us) {
  is_second_ = !is_second_;
  if (is_second_) return;
  std::array<std::int16_t, PM_CLASSIC_PARTS_MAX * PM_VALUES_PER_PART> values{};
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(options_.axes); ++axis) {
    values[2 * axis] =
        static_cast<std::int16_t>(pm_quantise(set.position_rad[axis], PM_CLASSIC_POSITION_PER_RAD, INT16_MAX));
    values[2 * axis + 1] =
        static_cast<std::int16_t>(pm_quantise(set.velocity_rad_s[axis], PM_VELOCITY_PER_RAD_S, INT16_MAX));
  }
  pm_classic_head head{};
  head.sequence = ++sequence_;
  head.token = set.token;
  head.due_100us = static_cast<std::uint16_t>(bridge_time_us(set.at_us) / 100 & 0xffff);
  const std::uint8_t parts = pm_classic_part_count(static_cast<std::uint8_t>(options_.axes));
  head.set_crc = pm_classic_set_crc(&head, session_, values.data(), parts);
  pm_can_frame frame{};
  pm_classic_head_pack(&frame, &head);
  send(frame, now_us, bus);
  for (std::uint8_t p = 1; p <= parts; ++p) {
    pm_classic_part part{};
    part.part = p;
    part.sequence_low = static_cast<std::uint8_t>(head.sequence & 0xff);
    std::copy_n(values.begin() + PM_VALUES_PER_PART * (p - 1), PM_VALUES_PER_PART, part.values);
    pm_classic_part_pack(&frame, &part);
    send(frame, now_us, bus);
  }
  ++counts_.sets;
}

}  // namespace premotor::motion
