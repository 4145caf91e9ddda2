// The motor's side of the Damiao protocol.
#include "can/damiao_device.h"

#include "protocol/motor/bytes.h"

namespace premotor::can {

AxisDemand DamiaoDevice::demand() const {
  AxisDemand demand;
  if (!is_enabled() || !has_command_) return demand;
  demand.kind = AxisDemand::Kind::impedance;
  demand.position_rad = command_.position_rad;
  demand.velocity_rad_s = command_.velocity_rad_s;
  demand.stiffness_Nm_rad = command_.stiffness_Nm_rad;
  demand.damping_Nm_s_rad = command_.damping_Nm_s_rad;
  demand.torque_Nm = command_.torque_Nm;
  demand.torque_max_Nm = options_.range.torque_Nm;
  return demand;
}

void DamiaoDevice::answer_feedback(FrameBatch* out) const {
  const pm_damiao_feedback feedback = {static_cast<std::uint8_t>(options_.motor_id & 0xf),
                                       error_,
                                       axis().position_rad,
                                       axis().velocity_rad_s,
                                       axis().torque_Nm,
                                       35,
                                       30};
  pm_can_frame frame{};
  if (!pm_damiao_encode_feedback(options_.master_id, &options_.range, &feedback, &frame, nullptr)) return;
  frame.is_fd = frame.is_bit_rate_switched = answers_fd_;
  out->push(frame);
}

void DamiaoDevice::answer_read(std::uint8_t reg, FrameBatch* out) const {
  pm_damiao_reply reply{};
  reply.motor_id = options_.motor_id;
  reply.reg = reg;
  switch (reg) {
    case PM_DAMIAO_MASTER_ID:
      pm_put_u32_le(reply.value, options_.master_id);
      break;
    case PM_DAMIAO_MOTOR_ID:
      pm_put_u32_le(reply.value, options_.motor_id);
      break;
    case PM_DAMIAO_TIMEOUT:
      pm_put_u32_le(reply.value, options_.timeout_ticks);
      break;
    case PM_DAMIAO_CONTROL_MODE:
      pm_put_u32_le(reply.value, options_.control_mode);
      break;
    case PM_DAMIAO_PMAX:
      pm_put_f32_le(reply.value, options_.range.position_rad);
      break;
    case PM_DAMIAO_VMAX:
      pm_put_f32_le(reply.value, options_.range.velocity_rad_s);
      break;
    case PM_DAMIAO_TMAX:
      pm_put_f32_le(reply.value, options_.range.torque_Nm);
      break;
    default:
      return;
  }
  pm_can_frame frame{};
  pm_damiao_encode_reply(options_.master_id, &reply, &frame);
  frame.is_fd = frame.is_bit_rate_switched = answers_fd_;
  out->push(frame);
}

// Registers are written while disabled only; this simulation lets sessions write TIMEOUT and nothing else.
void DamiaoDevice::take_write(const pm_damiao_request& request, FrameBatch* out) {
  if (is_enabled() || request.reg != PM_DAMIAO_TIMEOUT) return;
  options_.timeout_ticks = pm_get_u32_le(request.value);
  pm_damiao_reply reply{};
  reply.motor_id = options_.motor_id;
  reply.is_write = true;
  reply.reg = request.reg;
  pm_put_u32_le(reply.value, options_.timeout_ticks);
  pm_can_frame frame{};
  pm_damiao_encode_reply(options_.master_id, &reply, &frame);
  frame.is_fd = frame.is_bit_rate_switched = answers_fd_;
  out->push(frame);
}

void DamiaoDevice::take(const pm_can_frame& frame, std::int64_t now_us, FrameBatch* out) {
  pm_damiao_request request{};
  if (!pm_damiao_decode_request(&frame, options_.motor_id, &options_.range, &request)) return;
  answers_fd_ = frame.is_fd;
  switch (request.kind) {
    case PM_DAMIAO_KIND_READ:
      answer_read(request.reg, out);
      return;
    case PM_DAMIAO_KIND_WRITE:
      take_write(request, out);
      return;
    case PM_DAMIAO_KIND_REFRESH:
      break;
    case PM_DAMIAO_KIND_COMMAND:
      fed_us_ = now_us;
      if (!is_enabled()) break;
      command_ = request.command;
      has_command_ = true;
      break;
    case PM_DAMIAO_KIND_ENABLE:
      if (error_ != PM_DAMIAO_DISABLED || options_.control_mode != PM_DAMIAO_MODE_MIT) break;
      error_ = PM_DAMIAO_ENABLED;
      has_command_ = false;
      fed_us_ = now_us;
      break;
    case PM_DAMIAO_KIND_DISABLE:
      if (is_enabled()) error_ = PM_DAMIAO_DISABLED;
      break;
    case PM_DAMIAO_KIND_SET_ZERO:
      if (!is_enabled()) shift_zero();
      break;
    case PM_DAMIAO_KIND_CLEAR_ERROR:
      if (pm_damiao_is_fault(error_)) error_ = PM_DAMIAO_DISABLED;
      break;
  }
  answer_feedback(out);
}

void DamiaoDevice::advance(std::int64_t now_us, FrameBatch*) {
  const std::int64_t timeout_us = static_cast<std::int64_t>(options_.timeout_ticks) * PM_DAMIAO_TIMEOUT_TICK_US;
  if (is_enabled() && timeout_us > 0 && now_us - fed_us_ > timeout_us) error_ = PM_DAMIAO_COMMUNICATION_LOST;
}

void DamiaoDevice::raise(std::uint32_t error, std::int64_t, FrameBatch*) {
  error_ = static_cast<std::uint8_t>(error & 0xf);
}

}  // namespace premotor::can
