// The byte layouts of damiao.h. Pure functions: no state, no heap, no floating-point library.
#include "protocol/motor/damiao.h"

#include <stddef.h>
#include <string.h>

#include "protocol/motor/bytes.h"

enum { COMMAND_BYTES = 8, OP_READ = 0x33, OP_WRITE = 0x55, OP_REFRESH = 0xcc };

static bool is_usable(const struct pm_can_frame* frame, uint32_t id) {
  return frame->id == id && !frame->is_extended && !frame->is_remote && frame->data_bytes == COMMAND_BYTES;
}

bool pm_damiao_is_range_valid(const struct pm_damiao_range* range) {
  return pm_is_finite(range->position_rad) && pm_is_finite(range->velocity_rad_s) && pm_is_finite(range->torque_Nm) &&
         range->position_rad > 0 && range->velocity_rad_s > 0 && range->torque_Nm > 0;
}

uint32_t pm_damiao_quantise(float x, float min, float max, unsigned bits, bool* is_clamped) {
  const uint32_t steps = (1u << bits) - 1u;
  if (x < min || x > max) *is_clamped = true;
  if (x <= min) return 0;
  if (x >= max) return steps;
  const uint32_t value = (uint32_t)((x - min) * (float)steps / (max - min));
  return value < steps ? value : steps;
}

float pm_damiao_dequantise(uint32_t value, float min, float max, unsigned bits) {
  return (float)value * (max - min) / (float)((1u << bits) - 1u) + min;
}

// Packs q16, dq12, tau12 at `data`, kp12 and kd12 between them where the frame is a command.
static void pack_motion(uint8_t* data, uint32_t q, uint32_t dq, uint32_t next) {
  data[0] = (uint8_t)(q >> 8);
  data[1] = (uint8_t)(q & 0xff);
  data[2] = (uint8_t)(dq >> 4);
  data[3] = (uint8_t)(((dq & 0xf) << 4) | (next >> 8));
  data[4] = (uint8_t)(next & 0xff);
}

static enum pm_damiao_kind kind_of(const uint8_t* data) {
  for (size_t i = 0; i < 7; ++i) {
    if (data[i] != 0xff) return PM_DAMIAO_KIND_COMMAND;
  }
  switch (data[7]) {
    case 0xfb:
      return PM_DAMIAO_KIND_CLEAR_ERROR;
    case 0xfc:
      return PM_DAMIAO_KIND_ENABLE;
    case 0xfd:
      return PM_DAMIAO_KIND_DISABLE;
    case 0xfe:
      return PM_DAMIAO_KIND_SET_ZERO;
    default:
      return PM_DAMIAO_KIND_COMMAND;
  }
}

bool pm_damiao_encode_command(uint16_t motor_id, const struct pm_damiao_range* range,
                              const struct pm_damiao_command* command, struct pm_can_frame* frame, bool* is_clamped) {
  bool clamped = false;
  if (!pm_damiao_is_range_valid(range) || !pm_is_finite(command->position_rad) ||
      !pm_is_finite(command->velocity_rad_s) || !pm_is_finite(command->stiffness_Nm_rad) ||
      !pm_is_finite(command->damping_Nm_s_rad) || !pm_is_finite(command->torque_Nm)) {
    return false;
  }
  const uint32_t q = pm_damiao_quantise(command->position_rad, -range->position_rad, range->position_rad, 16, &clamped);
  const uint32_t dq =
      pm_damiao_quantise(command->velocity_rad_s, -range->velocity_rad_s, range->velocity_rad_s, 12, &clamped);
  const uint32_t kp = pm_damiao_quantise(command->stiffness_Nm_rad, 0, PM_DAMIAO_STIFFNESS_MAX, 12, &clamped);
  const uint32_t kd = pm_damiao_quantise(command->damping_Nm_s_rad, 0, PM_DAMIAO_DAMPING_MAX, 12, &clamped);
  const uint32_t tau = pm_damiao_quantise(command->torque_Nm, -range->torque_Nm, range->torque_Nm, 12, &clamped);
  pm_clear_frame(frame, motor_id, COMMAND_BYTES);
  pack_motion(frame->data, q, dq, kp);
  frame->data[5] = (uint8_t)(kd >> 4);
  frame->data[6] = (uint8_t)(((kd & 0xf) << 4) | (tau >> 8));
  frame->data[7] = (uint8_t)(tau & 0xff);
  if (kind_of(frame->data) != PM_DAMIAO_KIND_COMMAND) {
    frame->data[7] = 0xfa;
    clamped = true;
  }
  if (is_clamped != NULL) *is_clamped = clamped;
  return true;
}

bool pm_damiao_encode_special(uint16_t motor_id, enum pm_damiao_kind kind, struct pm_can_frame* frame) {
  uint8_t last;
  switch (kind) {
    case PM_DAMIAO_KIND_CLEAR_ERROR:
      last = 0xfb;
      break;
    case PM_DAMIAO_KIND_ENABLE:
      last = 0xfc;
      break;
    case PM_DAMIAO_KIND_DISABLE:
      last = 0xfd;
      break;
    case PM_DAMIAO_KIND_SET_ZERO:
      last = 0xfe;
      break;
    default:
      return false;
  }
  pm_clear_frame(frame, motor_id, COMMAND_BYTES);
  memset(frame->data, 0xff, 7);
  frame->data[7] = last;
  return true;
}

static void encode_parameter(uint32_t id, uint16_t motor_id, uint8_t op, uint8_t reg, const uint8_t* value,
                             struct pm_can_frame* frame) {
  pm_clear_frame(frame, id, COMMAND_BYTES);
  pm_put_u16_le(frame->data, motor_id);
  frame->data[2] = op;
  frame->data[3] = reg;
  if (value != NULL) memcpy(frame->data + 4, value, 4);
}

void pm_damiao_encode_read(uint16_t motor_id, uint8_t reg, struct pm_can_frame* frame) {
  encode_parameter(PM_DAMIAO_PARAMETER_ID, motor_id, OP_READ, reg, NULL, frame);
}

void pm_damiao_encode_write_u32(uint16_t motor_id, uint8_t reg, uint32_t value, struct pm_can_frame* frame) {
  uint8_t bytes[4];
  pm_put_u32_le(bytes, value);
  encode_parameter(PM_DAMIAO_PARAMETER_ID, motor_id, OP_WRITE, reg, bytes, frame);
}

bool pm_damiao_encode_write_f32(uint16_t motor_id, uint8_t reg, float value, struct pm_can_frame* frame) {
  uint8_t bytes[4];
  if (!pm_is_finite(value)) return false;
  pm_put_f32_le(bytes, value);
  encode_parameter(PM_DAMIAO_PARAMETER_ID, motor_id, OP_WRITE, reg, bytes, frame);
  return true;
}

void pm_damiao_encode_refresh(uint16_t motor_id, struct pm_can_frame* frame) {
  encode_parameter(PM_DAMIAO_PARAMETER_ID, motor_id, OP_REFRESH, 0, NULL, frame);
}

bool pm_damiao_decode_feedback(const struct pm_can_frame* frame, uint16_t motor_id, uint16_t master_id,
                               const struct pm_damiao_range* range, struct pm_damiao_feedback* feedback) {
  if (!is_usable(frame, master_id) || !pm_damiao_is_range_valid(range)) return false;
  const uint8_t* data = frame->data;
  if ((data[0] & 0xf) != (motor_id & 0xf)) return false;
  const uint32_t q = ((uint32_t)data[1] << 8) | data[2];
  const uint32_t dq = ((uint32_t)data[3] << 4) | (data[4] >> 4);
  const uint32_t tau = ((uint32_t)(data[4] & 0xf) << 8) | data[5];
  feedback->motor_nibble = data[0] & 0xf;
  feedback->error = data[0] >> 4;
  feedback->position_rad = pm_damiao_dequantise(q, -range->position_rad, range->position_rad, 16);
  feedback->velocity_rad_s = pm_damiao_dequantise(dq, -range->velocity_rad_s, range->velocity_rad_s, 12);
  feedback->torque_Nm = pm_damiao_dequantise(tau, -range->torque_Nm, range->torque_Nm, 12);
  feedback->mosfet_C = data[6];
  feedback->rotor_C = data[7];
  return true;
}

bool pm_damiao_decode_reply(const struct pm_can_frame* frame, uint16_t motor_id, uint16_t master_id,
                            struct pm_damiao_reply* reply) {
  if (!is_usable(frame, master_id) || pm_get_u16_le(frame->data) != motor_id) return false;
  if (frame->data[2] != OP_READ && frame->data[2] != OP_WRITE) return false;
  reply->motor_id = motor_id;
  reply->is_write = frame->data[2] == OP_WRITE;
  reply->reg = frame->data[3];
  memcpy(reply->value, frame->data + 4, 4);
  return true;
}

static bool decode_parameter_request(const uint8_t* data, uint16_t motor_id, struct pm_damiao_request* request) {
  if (pm_get_u16_le(data) != motor_id) return false;
  switch (data[2]) {
    case OP_READ:
      request->kind = PM_DAMIAO_KIND_READ;
      break;
    case OP_WRITE:
      request->kind = PM_DAMIAO_KIND_WRITE;
      break;
    case OP_REFRESH:
      request->kind = PM_DAMIAO_KIND_REFRESH;
      break;
    default:
      return false;
  }
  request->reg = data[3];
  memcpy(request->value, data + 4, 4);
  return true;
}

bool pm_damiao_decode_request(const struct pm_can_frame* frame, uint16_t motor_id, const struct pm_damiao_range* range,
                              struct pm_damiao_request* request) {
  const uint8_t* data = frame->data;
  memset(request, 0, sizeof *request);
  if (is_usable(frame, PM_DAMIAO_PARAMETER_ID)) return decode_parameter_request(data, motor_id, request);
  if (!is_usable(frame, motor_id) || !pm_damiao_is_range_valid(range)) return false;
  request->kind = kind_of(data);
  if (request->kind != PM_DAMIAO_KIND_COMMAND) return true;
  const uint32_t q = ((uint32_t)data[0] << 8) | data[1];
  const uint32_t dq = ((uint32_t)data[2] << 4) | (data[3] >> 4);
  const uint32_t kp = ((uint32_t)(data[3] & 0xf) << 8) | data[4];
  const uint32_t kd = ((uint32_t)data[5] << 4) | (data[6] >> 4);
  const uint32_t tau = ((uint32_t)(data[6] & 0xf) << 8) | data[7];
  struct pm_damiao_command* command = &request->command;
  command->position_rad = pm_damiao_dequantise(q, -range->position_rad, range->position_rad, 16);
  command->velocity_rad_s = pm_damiao_dequantise(dq, -range->velocity_rad_s, range->velocity_rad_s, 12);
  command->stiffness_Nm_rad = pm_damiao_dequantise(kp, 0, PM_DAMIAO_STIFFNESS_MAX, 12);
  command->damping_Nm_s_rad = pm_damiao_dequantise(kd, 0, PM_DAMIAO_DAMPING_MAX, 12);
  command->torque_Nm = pm_damiao_dequantise(tau, -range->torque_Nm, range->torque_Nm, 12);
  return true;
}

bool pm_damiao_encode_feedback(uint16_t master_id, const struct pm_damiao_range* range,
                               const struct pm_damiao_feedback* feedback, struct pm_can_frame* frame,
                               bool* is_clamped) {
  bool clamped = false;
  if (!pm_damiao_is_range_valid(range) || !pm_is_finite(feedback->position_rad) ||
      !pm_is_finite(feedback->velocity_rad_s) || !pm_is_finite(feedback->torque_Nm)) {
    return false;
  }
  const uint32_t q =
      pm_damiao_quantise(feedback->position_rad, -range->position_rad, range->position_rad, 16, &clamped);
  const uint32_t dq =
      pm_damiao_quantise(feedback->velocity_rad_s, -range->velocity_rad_s, range->velocity_rad_s, 12, &clamped);
  const uint32_t tau = pm_damiao_quantise(feedback->torque_Nm, -range->torque_Nm, range->torque_Nm, 12, &clamped);
  pm_clear_frame(frame, master_id, COMMAND_BYTES);
  frame->data[0] = (uint8_t)((feedback->motor_nibble & 0xf) | ((feedback->error & 0xf) << 4));
  pack_motion(frame->data + 1, q, dq, tau);
  frame->data[6] = feedback->mosfet_C;
  frame->data[7] = feedback->rotor_C;
  if (is_clamped != NULL) *is_clamped = clamped;
  return true;
}

void pm_damiao_encode_reply(uint16_t master_id, const struct pm_damiao_reply* reply, struct pm_can_frame* frame) {
  encode_parameter(master_id, reply->motor_id, reply->is_write ? OP_WRITE : OP_READ, reply->reg, reply->value, frame);
}

const char* pm_damiao_error_name(uint8_t error) {
  switch (error) {
    case PM_DAMIAO_DISABLED:
      return "disabled";
    case PM_DAMIAO_ENABLED:
      return "enabled";
    case PM_DAMIAO_OVERVOLTAGE:
      return "overvoltage";
    case PM_DAMIAO_UNDERVOLTAGE:
      return "undervoltage";
    case PM_DAMIAO_OVERCURRENT:
      return "overcurrent";
    case PM_DAMIAO_MOSFET_HOT:
      return "MOSFET too hot";
    case PM_DAMIAO_COIL_HOT:
      return "motor coil too hot";
    case PM_DAMIAO_COMMUNICATION_LOST:
      return "communication lost";
    case PM_DAMIAO_OVERLOAD:
      return "overload";
    default:
      return "unknown error";
  }
}

bool pm_damiao_is_fault(uint8_t error) { return error != PM_DAMIAO_DISABLED && error != PM_DAMIAO_ENABLED; }
