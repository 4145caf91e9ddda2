// What all sessions share: states, latching, ages of setpoints and feedback.
#include "can/drive.h"

#include <cassert>
#include <cmath>
#include <cstdio>

namespace premotor::can {

const char* drive_state_name(DriveState state) {
  switch (state) {
    case DriveState::off:
      return "off";
    case DriveState::starting:
      return "starting";
    case DriveState::enabled:
      return "enabled";
    case DriveState::stopping:
      return "stopping";
    case DriveState::faulted:
      return "faulted";
  }
  return "unknown";
}

Status Drive::start(std::int64_t now_us) {
  if (state_ != DriveState::off) {
    return Status::error("DRIVE_STATE", std::string("a drive starts from off, found ") + drive_state_name(state_));
  }
  const DriveTimings& t = timings_;
  if (t.reply_timeout_us <= 0 || t.tries_max <= 0 || t.bring_up_timeout_us <= 0 || t.feedback_timeout_us <= 0 ||
      t.setpoint_timeout_us <= 0 || t.first_setpoint_timeout_us <= 0) {
    return Status::error("DRIVE_CONFIG", "every timeout and number of tries of a drive must be above 0");
  }
  PREMOTOR_TRY(check_options());
  state_ = DriveState::starting;
  feedback_ = {};
  has_setpoint_ = false;
  started_us_ = now_us;
  shut_down_retry_.restart();
  is_silenced_ = false;
  begin(clears_error_, now_us);
  clears_error_ = false;
  return Status::good();
}

void Drive::stop(std::int64_t now_us) {
  if (state_ != DriveState::starting && state_ != DriveState::enabled) return;
  static_cast<void>(now_us);
  state_ = DriveState::stopping;
  shut_down_retry_.restart();
}

Status Drive::reset() {
  if (state_ != DriveState::faulted) {
    return Status::error("DRIVE_STATE",
                         std::string("only a faulted drive is reset, found ") + drive_state_name(state_));
  }
  if (!is_silenced_) {
    return Status::error("DRIVE_STATE",
                         "the drive is still being told to end torque: step the session and reset it then");
  }
  state_ = DriveState::off;
  fault_ = {};
  clears_error_ = true;
  return Status::good();
}

bool Drive::set_setpoint(const DriveSetpoint& setpoint, std::int64_t now_us) {
  if (state_ != DriveState::enabled || !feedback_.is_valid) return false;
  if (!std::isfinite(setpoint.position_rad) || !std::isfinite(setpoint.velocity_rad_s) ||
      !std::isfinite(setpoint.torque_Nm) || !std::isfinite(setpoint.stiffness_Nm_rad) ||
      !std::isfinite(setpoint.damping_Nm_s_rad)) {
    return false;
  }
  const float error_rad = std::abs(setpoint.position_rad - feedback_.position_rad);
  if (!has_setpoint_ && error_rad > limits_.first_setpoint_error_rad_max) return false;
  setpoint_ = setpoint;
  setpoint_us_ = now_us;
  has_setpoint_ = true;
  return true;
}

bool Drive::accept(const pm_can_frame& frame, std::int64_t now_us) { return take(frame, now_us); }

bool Drive::is_due(Retry* retry, const char* what, int tries_max, std::int64_t now_us) {
  if (retry->tries > 0 && now_us < retry->next_us) return false;
  if (retry->tries == tries_max) {
    latch({"DRIVE_NO_REPLY", what, 0, 0, 0, 0}, now_us);
    return false;
  }
  ++retry->tries;
  retry->next_us = now_us + timings_.reply_timeout_us;
  return true;
}

void Drive::become_enabled(std::int64_t now_us) {
  assert(state_ == DriveState::starting && feedback_.is_valid);
  state_ = DriveState::enabled;
  enabled_us_ = now_us;
  // The first command equals the measured position.
  setpoint_ = {};
  setpoint_.position_rad = feedback_.position_rad;
  setpoint_.stiffness_Nm_rad = limits_.hold_stiffness_Nm_rad;
  setpoint_.damping_Nm_s_rad = limits_.hold_damping_Nm_s_rad;
  has_setpoint_ = false;
}

// The first fault stays: what follows is its consequence.
void Drive::latch(const DriveFault& fault, std::int64_t now_us) {
  static_cast<void>(now_us);
  if (state_ == DriveState::faulted || state_ == DriveState::off) return;
  state_ = DriveState::faulted;
  fault_ = fault;
  shut_down_retry_.restart();
}

void Drive::step(std::int64_t now_us, FrameBatch* out) {
  switch (state_) {
    case DriveState::off:
      return;
    case DriveState::starting:
      if (now_us - started_us_ > timings_.bring_up_timeout_us) {
        latch({"DRIVE_NO_REPLY", "bring-up took too long", 0, 0, 0, 0}, now_us);
        break;
      }
      bring_up(now_us, out);
      break;
    case DriveState::enabled:
      step_enabled(now_us, out);
      break;
    case DriveState::stopping:
    case DriveState::faulted:
      break;
  }
  // In the same step as the fault: no period passes between finding out and ending torque.
  if (state_ == DriveState::stopping || state_ == DriveState::faulted) step_shut_down(now_us, out);
}

void Drive::step_enabled(std::int64_t now_us, FrameBatch* out) {
  if (now_us - feedback_.received_us > timings_.feedback_timeout_us) {
    latch({"DRIVE_FEEDBACK_LOST", "no feedback within the timeout", 0, 0, 0, 0}, now_us);
    return;
  }
  const std::int64_t age_us = now_us - (has_setpoint_ ? setpoint_us_ : enabled_us_);
  if (age_us > (has_setpoint_ ? timings_.setpoint_timeout_us : timings_.first_setpoint_timeout_us)) {
    latch({"DRIVE_SETPOINT_STALE", "no new setpoint within the timeout", 0, 0, 0, 0}, now_us);
    return;
  }
  command(setpoint_, now_us, out);
}

void Drive::step_shut_down(std::int64_t now_us, FrameBatch* out) {
  if (is_silenced_) return;
  if (shut_down_retry_.tries > 0 && is_shut_down()) {
    is_silenced_ = true;
    if (state_ == DriveState::stopping) state_ = DriveState::off;
    return;
  }
  if (state_ == DriveState::faulted && shut_down_retry_.tries == shut_down_tries_max() &&
      now_us >= shut_down_retry_.next_us) {
    is_silenced_ = true;  // the drive's own watchdog is what is left
    return;
  }
  if (is_due(&shut_down_retry_, "the drive did not confirm that it is off", shut_down_tries_max(), now_us)) {
    shut_down(now_us, out);
  }
}

Status Drive::describe_fault() const {
  if (state_ != DriveState::faulted) return Status::good();
  std::string message = fault_.detail;
  char text[96];
  if (fault_.location != 0) {
    std::snprintf(text, sizeof text, ", object 0x%x", static_cast<unsigned>(fault_.location));
    message += text;
  }
  if (fault_.raw != 0) {
    std::snprintf(text, sizeof text, " (0x%x", static_cast<unsigned>(fault_.raw));
    message += text;
    const char* name = describe_raw(fault_.raw);
    if (name[0] != '\0') message += std::string(": ") + name;
    message += ')';
  }
  Status status = Status::error(fault_.code, message);
  if (fault_.expected != fault_.found) {
    std::snprintf(text, sizeof text, "%g", static_cast<double>(fault_.expected));
    status.expected = text;
    std::snprintf(text, sizeof text, "%g", static_cast<double>(fault_.found));
    status.found = text;
    status.message += "; expected " + status.expected + ", found " + status.found;
  }
  return status;
}

}  // namespace premotor::can
