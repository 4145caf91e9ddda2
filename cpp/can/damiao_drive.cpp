// Bring-up, commands and faults of a Damiao motor.
#include "can/damiao_drive.h"

#include <cmath>
#include <string>
#include <string_view>

#include "protocol/motor/bytes.h"

namespace premotor::can {
namespace {

constexpr float range_tolerance = 1e-4f;  // relative: a register holds the f32 that was written

// Registers that a session asks for. A frame that reads as the reply for one of them is never taken for feedback: at
// worst that loses feedback of a disabled motor that stands at -PMAX.
bool is_register_of_session(std::uint8_t reg) {
  return reg == PM_DAMIAO_TIMEOUT || reg == PM_DAMIAO_CONTROL_MODE || (reg >= PM_DAMIAO_PMAX && reg <= PM_DAMIAO_TMAX);
}

}  // namespace

DamiaoDrive::DamiaoDrive(const DamiaoOptions& options) : Drive(options.timings, options.limits), options_(options) {}

std::uint32_t DamiaoDrive::timeout_ticks() const { return options_.timeout_ms * (1000 / PM_DAMIAO_TIMEOUT_TICK_US); }

Status DamiaoDrive::check_options() const {
  if (options_.motor_id == options_.master_id || options_.motor_id >= PM_DAMIAO_PARAMETER_ID ||
      options_.master_id >= PM_DAMIAO_PARAMETER_ID || options_.motor_id == 0) {
    return Status::error("DRIVE_CONFIG", "Damiao: expected two different ids of 0x001 to 0x7FE, found motor " +
                                             std::to_string(options_.motor_id) + " and master " +
                                             std::to_string(options_.master_id));
  }
  if (!pm_damiao_is_range_valid(&options_.range)) {
    return Status::error("DRIVE_CONFIG", "Damiao: PMAX, VMAX and TMAX must be finite and above 0");
  }
  if (options_.timeout_ms == 0 || options_.timeout_ms > 1000) {
    return Status::error("DRIVE_CONFIG", "Damiao: expected a TIMEOUT of 1 to 1000 ms, found " +
                                             std::to_string(options_.timeout_ms) +
                                             "; without one the motor obeys a dead host's last command");
  }
  return Status::good();
}

void DamiaoDrive::enter(Phase phase) {
  phase_ = phase;
  retry_.restart();
}

void DamiaoDrive::begin(bool clears_error, std::int64_t) {
  is_off_ = false;
  enter(clears_error ? Phase::clear_error : Phase::disable);
}

void DamiaoDrive::send(pm_can_frame frame, FrameBatch* out) const {
  frame.is_fd = frame.is_bit_rate_switched = options_.is_fd;
  out->push(frame);
}

void DamiaoDrive::bring_up(std::int64_t now_us, FrameBatch* out) {
  const std::uint16_t id = options_.motor_id;
  pm_can_frame frame{};
  const char* what = "the motor does not answer";
  switch (phase_) {
    case Phase::clear_error:
      pm_damiao_encode_special(id, PM_DAMIAO_KIND_CLEAR_ERROR, &frame);
      break;
    case Phase::disable:
      pm_damiao_encode_special(id, PM_DAMIAO_KIND_DISABLE, &frame);
      break;
    case Phase::read_mode:
      pm_damiao_encode_read(id, PM_DAMIAO_CONTROL_MODE, &frame);
      break;
    case Phase::read_position_max:
      pm_damiao_encode_read(id, PM_DAMIAO_PMAX, &frame);
      break;
    case Phase::read_velocity_max:
      pm_damiao_encode_read(id, PM_DAMIAO_VMAX, &frame);
      break;
    case Phase::read_torque_max:
      pm_damiao_encode_read(id, PM_DAMIAO_TMAX, &frame);
      break;
    case Phase::write_timeout:
      pm_damiao_encode_write_u32(id, PM_DAMIAO_TIMEOUT, timeout_ticks(), &frame);
      break;
    case Phase::read_timeout:
      pm_damiao_encode_read(id, PM_DAMIAO_TIMEOUT, &frame);
      break;
    case Phase::refresh:
      pm_damiao_encode_refresh(id, &frame);
      break;
    case Phase::enable:
      what = "the motor does not report that it is enabled";
      pm_damiao_encode_special(id, PM_DAMIAO_KIND_ENABLE, &frame);
      break;
    case Phase::done:
      return;
  }
  if (phase_ >= Phase::read_mode && phase_ <= Phase::read_timeout) what = "the motor does not answer for a register";
  if (!is_due(&retry_, what, now_us)) return;
  send(frame, out);
  if (phase_ != Phase::clear_error) return;
  // Whether clearing is answered with feedback is not documented: ask.
  pm_damiao_encode_refresh(id, &frame);
  send(frame, out);
}

bool DamiaoDrive::take(const pm_can_frame& frame, std::int64_t now_us) {
  pm_damiao_reply reply{};
  if (pm_damiao_decode_reply(&frame, options_.motor_id, options_.master_id, &reply) &&
      is_register_of_session(reply.reg)) {
    if (state() == DriveState::starting) take_reply(reply, now_us);
    return true;
  }
  pm_damiao_feedback feedback{};
  if (!pm_damiao_decode_feedback(&frame, options_.motor_id, options_.master_id, &options_.range, &feedback)) {
    return false;
  }
  take_feedback(feedback, now_us);
  return true;
}

void DamiaoDrive::take_feedback(const pm_damiao_feedback& feedback, std::int64_t now_us) {
  is_off_ = feedback.error != PM_DAMIAO_ENABLED;
  if (state() == DriveState::off) return;
  // Before the ranges are verified a position would be a guess.
  if (phase_ >= Phase::refresh) {
    const std::uint8_t hottest_C = feedback.mosfet_C > feedback.rotor_C ? feedback.mosfet_C : feedback.rotor_C;
    set_feedback({true, now_us, feedback.position_rad, feedback.velocity_rad_s, feedback.torque_Nm,
                  static_cast<float>(hottest_C)});
  }
  if (pm_damiao_is_fault(feedback.error) && phase_ != Phase::clear_error) {
    latch({"DRIVE_FAULT", "the motor reports an error", feedback.error, 0, 0, 0}, now_us);
    return;
  }
  const bool is_enabled = feedback.error == PM_DAMIAO_ENABLED;
  if (state() == DriveState::starting) {
    if (phase_ == Phase::clear_error && feedback.error == PM_DAMIAO_DISABLED) enter(Phase::disable);
    if (phase_ == Phase::disable && !is_enabled) enter(Phase::read_mode);
    if (phase_ == Phase::refresh && !is_enabled) enter(Phase::enable);
    if (phase_ == Phase::enable && is_enabled) {
      enter(Phase::done);
      become_enabled(now_us);
    }
    return;
  }
  // Feedback from before the enable frame may still be on its way; later it means that the motor left by itself.
  if (state() == DriveState::enabled && !is_enabled && now_us - enabled_us() > timings().reply_timeout_us) {
    latch({"DRIVE_DISABLED", "the motor left its enabled state by itself", 0, 0, 0, 0}, now_us);
  }
}

void DamiaoDrive::take_reply(const pm_damiao_reply& reply, std::int64_t now_us) {
  switch (phase_) {
    case Phase::read_mode:
      if (!reply.is_write && reply.reg == PM_DAMIAO_CONTROL_MODE) check_integer(PM_DAMIAO_MODE_MIT, reply, now_us);
      break;
    case Phase::read_position_max:
      if (!reply.is_write && reply.reg == PM_DAMIAO_PMAX) check_float(options_.range.position_rad, reply, now_us);
      break;
    case Phase::read_velocity_max:
      if (!reply.is_write && reply.reg == PM_DAMIAO_VMAX) check_float(options_.range.velocity_rad_s, reply, now_us);
      break;
    case Phase::read_torque_max:
      if (!reply.is_write && reply.reg == PM_DAMIAO_TMAX) check_float(options_.range.torque_Nm, reply, now_us);
      break;
    case Phase::write_timeout:
      if (reply.is_write && reply.reg == PM_DAMIAO_TIMEOUT) enter(Phase::read_timeout);
      break;
    case Phase::read_timeout:
      if (!reply.is_write && reply.reg == PM_DAMIAO_TIMEOUT) check_integer(timeout_ticks(), reply, now_us);
      break;
    default:
      break;  // a reply that nobody waits for any more
  }
}

void DamiaoDrive::check_float(float expected, const pm_damiao_reply& reply, std::int64_t now_us) {
  const float found = pm_get_f32_le(reply.value);
  if (std::abs(found - expected) <= range_tolerance * expected) {
    enter(static_cast<Phase>(static_cast<int>(phase_) + 1));
    return;
  }
  latch({"DRIVE_PARAMETER", "a range of the motor differs from the configured one", reply.reg, expected, found, 0},
        now_us);
}

void DamiaoDrive::check_integer(std::uint32_t expected, const pm_damiao_reply& reply, std::int64_t now_us) {
  const std::uint32_t found = pm_get_u32_le(reply.value);
  if (found == expected) {
    enter(static_cast<Phase>(static_cast<int>(phase_) + 1));
    return;
  }
  latch({"DRIVE_PARAMETER", "a register of the motor is not what it must be", reply.reg, static_cast<float>(expected),
         static_cast<float>(found), 0},
        now_us);
}

void DamiaoDrive::command(const DriveSetpoint& setpoint, std::int64_t now_us, FrameBatch* out) {
  const pm_damiao_command command = {setpoint.position_rad, setpoint.velocity_rad_s, setpoint.stiffness_Nm_rad,
                                     setpoint.damping_Nm_s_rad, setpoint.torque_Nm};
  pm_can_frame frame{};
  bool is_clamped = false;
  if (!pm_damiao_encode_command(options_.motor_id, &options_.range, &command, &frame, &is_clamped)) {
    latch({"DRIVE_CONFIG", "a command could not be encoded", 0, 0, 0, 0}, now_us);
    return;
  }
  if (is_clamped) ++clamped_;
  send(frame, out);
}

void DamiaoDrive::shut_down(std::int64_t, FrameBatch* out) {
  is_off_ = false;  // only feedback that follows this frame counts
  pm_can_frame frame{};
  pm_damiao_encode_special(options_.motor_id, PM_DAMIAO_KIND_DISABLE, &frame);
  send(frame, out);
}

const char* DamiaoDrive::describe_raw(std::uint32_t raw) const {
  if (fault().code == std::string_view("DRIVE_FAULT")) return pm_damiao_error_name(static_cast<std::uint8_t>(raw));
  switch (raw) {
    case PM_DAMIAO_TIMEOUT:
      return "TIMEOUT";
    case PM_DAMIAO_CONTROL_MODE:
      return "control mode";
    case PM_DAMIAO_PMAX:
      return "PMAX";
    case PM_DAMIAO_VMAX:
      return "VMAX";
    case PM_DAMIAO_TMAX:
      return "TMAX";
    default:
      return "";
  }
}

}  // namespace premotor::can
