// Bring-up, commands and faults of an ODrive axis.
#include "can/odrive_drive.h"

#include <cmath>
#include <cstring>
#include <string>
#include <string_view>

#include "protocol/motor/bytes.h"

namespace premotor::can {
namespace {

constexpr float tau = 6.2831853f;
constexpr int watchdog_writes_max = 4;

bool has_any_error(const pm_odrive_heartbeat& heartbeat) {
  return heartbeat.axis_error != 0 || heartbeat.has_motor_error || heartbeat.has_encoder_error ||
         heartbeat.has_controller_error;
}

}  // namespace

OdriveDrive::OdriveDrive(const OdriveOptions& options) : Drive(options.timings, options.limits), options_(options) {}

bool OdriveDrive::reads_watchdog() const {
  return options_.version == PM_ODRIVE_V0_6 && options_.enable_watchdog_endpoint != 0 &&
         options_.watchdog_timeout_endpoint != 0;
}

Status OdriveDrive::check_options() const {
  if (options_.node > 63) {
    return Status::error("DRIVE_CONFIG", "ODrive: expected a node of 0 to 63, found " + std::to_string(options_.node));
  }
  if (!std::isfinite(options_.turns_per_joint_turn) || options_.turns_per_joint_turn == 0) {
    return Status::error("DRIVE_CONFIG", "ODrive: the gear ratio must be finite and not 0");
  }
  if (!(options_.watchdog_timeout_s > 0) || !(options_.watchdog_timeout_s <= 1) || options_.heartbeat_timeout_us <= 0) {
    return Status::error("DRIVE_CONFIG", "ODrive: expected a watchdog of at most 1 s and a heartbeat timeout above 0");
  }
  if (!reads_watchdog() && !options_.is_watchdog_assured) {
    return Status::error(
        "DRIVE_CONFIG",
        "ODrive: the drive's watchdog is off unless switched on. Give the two endpoint numbers (0.6), or "
        "switch it on and assure it (is_watchdog_assured)");
  }
  return Status::good();
}

void OdriveDrive::enter(Phase phase) {
  phase_ = phase;
  retry_.restart();
}

void OdriveDrive::begin(bool clears_error, std::int64_t now_us) {
  is_idle_ = false;
  watchdog_writes_ = 0;
  heartbeat_us_ = now_us;
  enter(clears_error ? Phase::clear_error : Phase::idle);
}

pm_odrive_message OdriveDrive::message(std::uint8_t command) const {
  pm_odrive_message made{};
  made.node = options_.node;
  made.command = command;
  return made;
}

void OdriveDrive::send(const pm_odrive_message& message, FrameBatch* out) const {
  pm_can_frame frame{};
  if (pm_odrive_encode(options_.version, &message, &frame, nullptr)) out->push(frame);
}

void OdriveDrive::send_request(std::uint8_t command, FrameBatch* out) const {
  pm_odrive_message request = message(command);
  request.is_request = true;
  send(request, out);
}

void OdriveDrive::send_sdo(std::uint8_t opcode, std::uint16_t endpoint, const std::uint8_t* value,
                           FrameBatch* out) const {
  pm_odrive_message sdo = message(PM_ODRIVE_RX_SDO);
  sdo.u.sdo.opcode = opcode;
  sdo.u.sdo.endpoint = endpoint;
  if (value != nullptr) std::memcpy(sdo.u.sdo.value, value, 4);
  send(sdo, out);
}

// The timeout first: a watchdog that is switched on with a leftover timeout could expire at once.
void OdriveDrive::write_watchdog(FrameBatch* out) const {
  std::uint8_t value[4];
  pm_put_f32_le(value, options_.watchdog_timeout_s);
  send_sdo(PM_ODRIVE_SDO_WRITE, options_.watchdog_timeout_endpoint, value, out);
  pm_put_u32_le(value, 1);
  send_sdo(PM_ODRIVE_SDO_WRITE, options_.enable_watchdog_endpoint, value, out);
}

void OdriveDrive::send_axis_state(std::uint32_t state, FrameBatch* out) const {
  pm_odrive_message set = message(PM_ODRIVE_SET_AXIS_STATE);
  set.u.axis_state = state;
  send(set, out);
}

bool OdriveDrive::send_position(const DriveSetpoint& setpoint, FrameBatch* out) const {
  const float turns = options_.turns_per_joint_turn / tau;
  pm_odrive_message set = message(PM_ODRIVE_SET_INPUT_POSITION);
  set.u.input_position.position_turns = setpoint.position_rad * turns;
  set.u.input_position.velocity_turns_s = setpoint.velocity_rad_s * turns;
  set.u.input_position.torque_Nm = setpoint.torque_Nm / options_.turns_per_joint_turn;
  pm_can_frame frame{};
  if (!pm_odrive_encode(options_.version, &set, &frame, nullptr)) return false;
  out->push(frame);
  return true;
}

void OdriveDrive::bring_up(std::int64_t now_us, FrameBatch* out) {
  if (phase_ == Phase::done || !is_due(&retry_, "the axis does not answer", now_us)) return;
  switch (phase_) {
    case Phase::clear_error:
      send(message(PM_ODRIVE_CLEAR_ERRORS), out);
      enter(Phase::idle);
      break;
    case Phase::idle:
      send_axis_state(PM_ODRIVE_STATE_IDLE, out);
      // A heartbeat comes by itself every 100 ms; waiting for it is not a lost reply.
      retry_.next_us = now_us + options_.heartbeat_timeout_us;
      break;
    case Phase::version:
      send_request(PM_ODRIVE_GET_VERSION, out);
      break;
    case Phase::write_watchdog:
      write_watchdog(out);
      ++watchdog_writes_;
      enter(Phase::read_watchdog_enable);
      break;
    case Phase::read_watchdog_enable:
      send_sdo(PM_ODRIVE_SDO_READ, options_.enable_watchdog_endpoint, nullptr, out);
      break;
    case Phase::read_watchdog_timeout:
      send_sdo(PM_ODRIVE_SDO_READ, options_.watchdog_timeout_endpoint, nullptr, out);
      break;
    case Phase::estimates: {
      pm_odrive_message mode = message(PM_ODRIVE_SET_CONTROLLER_MODE);
      mode.u.mode.control = PM_ODRIVE_CONTROL_POSITION;
      mode.u.mode.input = PM_ODRIVE_INPUT_PASSTHROUGH;
      send(mode, out);
      send_request(PM_ODRIVE_ENCODER_ESTIMATES, out);
      break;
    }
    case Phase::closed_loop: {
      DriveSetpoint measured;
      measured.position_rad = feedback().position_rad;
      send_position(measured, out);
      send_axis_state(PM_ODRIVE_STATE_CLOSED_LOOP, out);
      break;
    }
    case Phase::done:
      break;
  }
}

bool OdriveDrive::take(const pm_can_frame& frame, std::int64_t now_us) {
  pm_odrive_message message{};
  if (!pm_odrive_decode(options_.version, &frame, &message)) return false;
  if (message.node != options_.node || message.is_request) return false;
  switch (message.command) {
    case PM_ODRIVE_HEARTBEAT:
      take_heartbeat(message.u.heartbeat, now_us);
      return true;
    case PM_ODRIVE_GET_VERSION:
      take_version(message, now_us);
      return true;
    case PM_ODRIVE_ENCODER_ESTIMATES:
      take_estimates(message, now_us);
      return true;
    case PM_ODRIVE_TX_SDO:
      take_sdo(message.u.sdo, now_us);
      return true;
    default:
      return false;  // a host's command, or a message that no session needs
  }
}

void OdriveDrive::take_heartbeat(const pm_odrive_heartbeat& heartbeat, std::int64_t now_us) {
  heartbeat_us_ = now_us;
  is_idle_ = heartbeat.axis_state == PM_ODRIVE_STATE_IDLE;
  if (state() == DriveState::off) return;
  // After errors were cleared, one heartbeat from before may still arrive; the next one counts.
  const bool is_clearing = phase_ == Phase::clear_error || (phase_ == Phase::idle && retry_.tries == 0);
  if (has_any_error(heartbeat) && !is_clearing) {
    latch({"DRIVE_FAULT", "the axis reports an error", heartbeat.axis_error, 0, 0, 0}, now_us);
    return;
  }
  const bool is_closed_loop = heartbeat.axis_state == PM_ODRIVE_STATE_CLOSED_LOOP;
  if (state() == DriveState::starting) {
    if (phase_ == Phase::idle && is_idle_ && retry_.tries > 0) {
      enter(options_.version == PM_ODRIVE_V0_6 ? Phase::version : Phase::estimates);
    } else if (phase_ == Phase::closed_loop && is_closed_loop && retry_.tries > 0) {
      enter(Phase::done);
      become_enabled(now_us);
    }
    return;
  }
  if (state() == DriveState::enabled && !is_closed_loop && now_us - enabled_us() > timings().reply_timeout_us) {
    latch({"DRIVE_DISABLED", "the axis left closed-loop control by itself", heartbeat.axis_state, 0, 0, 0}, now_us);
  }
}

void OdriveDrive::take_version(const pm_odrive_message& message, std::int64_t now_us) {
  if (state() != DriveState::starting || phase_ != Phase::version) return;
  if (message.u.version.fw_major != 0 || message.u.version.fw_minor != 6) {
    latch({"DRIVE_PARAMETER", "the firmware is not of the 0.6 generation", 0, 0.6f,
           static_cast<float>(message.u.version.fw_major) + 0.1f * static_cast<float>(message.u.version.fw_minor), 0},
          now_us);
    return;
  }
  enter(reads_watchdog() ? Phase::write_watchdog : Phase::estimates);
}

void OdriveDrive::take_estimates(const pm_odrive_message& message, std::int64_t now_us) {
  if (state() == DriveState::off) return;
  const float joint = tau / options_.turns_per_joint_turn;
  const float position_rad = message.u.estimates.position_turns * joint;
  const float velocity_rad_s = message.u.estimates.velocity_turns_s * joint;
  if (!std::isfinite(position_rad) || !std::isfinite(velocity_rad_s)) return;
  set_feedback({true, now_us, position_rad, velocity_rad_s, 0, 0});
  if (state() == DriveState::starting && phase_ == Phase::estimates && retry_.tries > 0) enter(Phase::closed_loop);
}

bool OdriveDrive::writes_again() {
  if (watchdog_writes_ >= watchdog_writes_max) return false;
  enter(Phase::write_watchdog);
  return true;
}

void OdriveDrive::take_sdo(const pm_odrive_sdo& sdo, std::int64_t now_us) {
  if (state() != DriveState::starting) return;
  if (phase_ == Phase::read_watchdog_enable && sdo.endpoint == options_.enable_watchdog_endpoint) {
    if (sdo.value[0] == 1) {
      enter(Phase::read_watchdog_timeout);
    } else if (!writes_again()) {
      latch({"DRIVE_PARAMETER", "the axis' watchdog could not be switched on", sdo.endpoint, 1,
             static_cast<float>(sdo.value[0]), 0},
            now_us);
    }
  } else if (phase_ == Phase::read_watchdog_timeout && sdo.endpoint == options_.watchdog_timeout_endpoint) {
    const float found = pm_get_f32_le(sdo.value);
    if (std::abs(found - options_.watchdog_timeout_s) <= 1e-4f * options_.watchdog_timeout_s) {
      enter(Phase::estimates);
    } else if (!writes_again()) {
      latch({"DRIVE_PARAMETER", "the axis' watchdog timeout differs", sdo.endpoint, options_.watchdog_timeout_s, found,
             0},
            now_us);
    }
  }
}

void OdriveDrive::command(const DriveSetpoint& setpoint, std::int64_t now_us, FrameBatch* out) {
  if (now_us - heartbeat_us_ > options_.heartbeat_timeout_us) {
    latch({"DRIVE_FEEDBACK_LOST", "no heartbeat within the timeout", 0, 0, 0, 0}, now_us);
  } else if (!send_position(setpoint, out)) {
    latch({"DRIVE_CONFIG", "a command could not be encoded", 0, 0, 0, 0}, now_us);
  }
}

void OdriveDrive::shut_down(std::int64_t, FrameBatch* out) {
  is_idle_ = false;  // only a heartbeat that follows this frame counts
  send_axis_state(PM_ODRIVE_STATE_IDLE, out);
}

const char* OdriveDrive::describe_raw(std::uint32_t raw) const {
  if (fault().code == std::string_view("DRIVE_FAULT")) return pm_odrive_error_name(options_.version, raw);
  return "";
}

}  // namespace premotor::can
