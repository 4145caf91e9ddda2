// The axis' side of CANSimple.
#include "can/odrive_device.h"

#include <cmath>
#include <cstring>

#include "protocol/motor/bytes.h"

namespace premotor::can {
namespace {

constexpr float tau = 6.2831853f;

std::uint32_t watchdog_error(pm_odrive_version version) { return version == PM_ODRIVE_V0_6 ? 0x1000000u : 0x800u; }
std::uint32_t estop_error(pm_odrive_version version) { return version == PM_ODRIVE_V0_6 ? 0x2000000u : 0x4000u; }

}  // namespace

AxisDemand OdriveDevice::demand() const {
  AxisDemand demand;
  if (axis_state_ != PM_ODRIVE_STATE_CLOSED_LOOP || control_mode_ != PM_ODRIVE_CONTROL_POSITION || !has_input_) {
    return demand;
  }
  const float position_rad = input_turns_ * tau / options_.turns_per_joint_turn;
  if (!std::isfinite(position_rad)) return demand;
  demand.kind = AxisDemand::Kind::position;
  demand.position_rad = position_rad;
  return demand;
}

void OdriveDevice::answer(std::uint8_t command, FrameBatch* out) const {
  pm_odrive_message message{};
  message.node = options_.node;
  message.command = command;
  switch (command) {
    case PM_ODRIVE_GET_VERSION:
      message.u.version.protocol = 2;
      message.u.version.hw_major = 4;
      message.u.version.fw_minor = options_.firmware_minor;
      message.u.version.fw_revision = 10;
      break;
    case PM_ODRIVE_HEARTBEAT:
      message.u.heartbeat.axis_error = axis_error_;
      message.u.heartbeat.axis_state = static_cast<std::uint8_t>(axis_state_);
      break;
    case PM_ODRIVE_GET_ERROR:
      message.u.error.active = axis_error_;
      break;
    case PM_ODRIVE_ENCODER_ESTIMATES:
      message.u.estimates.position_turns = axis().position_rad / tau * options_.turns_per_joint_turn;
      message.u.estimates.velocity_turns_s = axis().velocity_rad_s / tau * options_.turns_per_joint_turn;
      break;
    case PM_ODRIVE_BUS_VOLTAGE_CURRENT:
      message.u.bus.voltage_V = 24;
      break;
    default:
      return;
  }
  pm_can_frame frame{};
  if (pm_odrive_encode(options_.version, &message, &frame, nullptr)) out->push(frame);
}

void OdriveDevice::set_state(std::uint32_t wanted) {
  if (wanted == PM_ODRIVE_STATE_IDLE) axis_state_ = PM_ODRIVE_STATE_IDLE;
  if (wanted != PM_ODRIVE_STATE_CLOSED_LOOP || axis_error_ != 0 || axis_state_ == wanted) return;
  axis_state_ = PM_ODRIVE_STATE_CLOSED_LOOP;
  // The firmware starts a closed loop at the measured position, whatever was sent before.
  input_turns_ = axis().position_rad / tau * options_.turns_per_joint_turn;
  has_input_ = true;
}

void OdriveDevice::disarm(std::uint32_t error) {
  axis_error_ |= error;
  axis_state_ = PM_ODRIVE_STATE_IDLE;
  has_input_ = false;
}

void OdriveDevice::take_sdo(const pm_odrive_sdo& sdo, FrameBatch* out) {
  const bool is_enable = sdo.endpoint == options_.enable_watchdog_endpoint;
  if (sdo.endpoint == 0 || (!is_enable && sdo.endpoint != options_.watchdog_timeout_endpoint)) return;
  if (sdo.opcode == PM_ODRIVE_SDO_WRITE) {
    const float timeout_s = pm_get_f32_le(sdo.value);
    if (options_.refuses_watchdog) return;
    if (is_enable) options_.is_watchdog_enabled = sdo.value[0] != 0;
    if (!is_enable && timeout_s > 0 && timeout_s < 1e6f) options_.watchdog_timeout_s = timeout_s;
    return;
  }
  if (sdo.opcode != PM_ODRIVE_SDO_READ) return;
  pm_odrive_message message{};
  message.node = options_.node;
  message.command = PM_ODRIVE_TX_SDO;
  message.u.sdo.endpoint = sdo.endpoint;
  if (is_enable) {
    message.u.sdo.value[0] = options_.is_watchdog_enabled ? 1 : 0;
  } else {
    pm_put_f32_le(message.u.sdo.value, options_.watchdog_timeout_s);
  }
  pm_can_frame frame{};
  if (pm_odrive_encode(options_.version, &message, &frame, nullptr)) out->push(frame);
}

void OdriveDevice::take(const pm_can_frame& frame, std::int64_t now_us, FrameBatch* out) {
  pm_odrive_message message{};
  if (!pm_odrive_decode(options_.version, &frame, &message) || message.node != options_.node) return;
  fed_us_ = now_us;  // requests included, as on the real drive
  if (message.is_request) {
    answer(message.command, out);
    return;
  }
  switch (message.command) {
    case PM_ODRIVE_ESTOP:
      disarm(estop_error(options_.version));
      break;
    case PM_ODRIVE_SET_AXIS_STATE:
      set_state(message.u.axis_state);
      break;
    case PM_ODRIVE_SET_CONTROLLER_MODE:
      control_mode_ = message.u.mode.control;
      break;
    case PM_ODRIVE_SET_INPUT_POSITION:
      if (axis_state_ == PM_ODRIVE_STATE_CLOSED_LOOP) input_turns_ = message.u.input_position.position_turns;
      break;
    case PM_ODRIVE_CLEAR_ERRORS:
      axis_error_ = 0;
      break;
    case PM_ODRIVE_RX_SDO:
      take_sdo(message.u.sdo, out);
      break;
    default:
      break;  // velocity and torque input are decoded, but this axis follows positions only
  }
}

void OdriveDevice::advance(std::int64_t now_us, FrameBatch* out) {
  const auto timeout_us = static_cast<std::int64_t>(options_.watchdog_timeout_s * 1e6f);
  const bool is_armed = axis_state_ == PM_ODRIVE_STATE_CLOSED_LOOP;
  if (is_armed && options_.is_watchdog_enabled && now_us - fed_us_ > timeout_us) {
    disarm(watchdog_error(options_.version));
  }
  if (now_us - heartbeat_us_ >= options_.heartbeat_period_us) {
    heartbeat_us_ = now_us;
    answer(PM_ODRIVE_HEARTBEAT, out);
  }
  if (now_us - estimates_us_ >= options_.estimates_period_us) {
    estimates_us_ = now_us;
    answer(PM_ODRIVE_ENCODER_ESTIMATES, out);
  }
}

void OdriveDevice::raise(std::uint32_t error, std::int64_t, FrameBatch*) { disarm(error); }

}  // namespace premotor::can
