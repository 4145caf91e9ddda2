// The byte layouts of odrive.h. Pure functions: no state, no heap, no floating-point library.
#include "protocol/motor/odrive.h"

#include <stddef.h>
#include <string.h>

#include "protocol/motor/bytes.h"

enum { NODE_MAX = 63 };

// Payload bytes of a command; -1 when this version has none of that number.
static int payload_bytes(enum pm_odrive_version version, uint8_t command) {
  switch (command) {
    case PM_ODRIVE_GET_VERSION:
    case PM_ODRIVE_GET_ERROR:
    case PM_ODRIVE_RX_SDO:
    case PM_ODRIVE_TX_SDO:
      return version == PM_ODRIVE_V0_6 ? 8 : -1;
    case PM_ODRIVE_ESTOP:
    case PM_ODRIVE_CLEAR_ERRORS:
      return 0;
    case PM_ODRIVE_SET_AXIS_STATE:
    case PM_ODRIVE_SET_INPUT_TORQUE:
      return 4;
    case PM_ODRIVE_HEARTBEAT:
    case PM_ODRIVE_ENCODER_ESTIMATES:
    case PM_ODRIVE_SET_CONTROLLER_MODE:
    case PM_ODRIVE_SET_INPUT_POSITION:
    case PM_ODRIVE_SET_INPUT_VELOCITY:
    case PM_ODRIVE_BUS_VOLTAGE_CURRENT:
      return 8;
    default:
      return -1;
  }
}

static bool are_numbers_finite(const struct pm_odrive_message* message) {
  switch (message->command) {
    case PM_ODRIVE_ENCODER_ESTIMATES:
      return pm_is_finite(message->u.estimates.position_turns) && pm_is_finite(message->u.estimates.velocity_turns_s);
    case PM_ODRIVE_SET_INPUT_POSITION:
      return pm_is_finite(message->u.input_position.position_turns) &&
             pm_is_finite(message->u.input_position.velocity_turns_s) &&
             pm_is_finite(message->u.input_position.torque_Nm);
    case PM_ODRIVE_SET_INPUT_VELOCITY:
      return pm_is_finite(message->u.input_velocity.velocity_turns_s) &&
             pm_is_finite(message->u.input_velocity.torque_Nm);
    case PM_ODRIVE_SET_INPUT_TORQUE:
      return pm_is_finite(message->u.input_torque_Nm);
    case PM_ODRIVE_BUS_VOLTAGE_CURRENT:
      return pm_is_finite(message->u.bus.voltage_V) && pm_is_finite(message->u.bus.current_A);
    default:
      return true;
  }
}

// Thousandths in 16 bits, rounded to the nearest step.
static uint16_t milli(float value, bool* is_clamped) {
  const float scaled = value * 1000.0f;
  int32_t steps;
  if (scaled > 32767.0f || scaled < -32768.0f) *is_clamped = true;
  if (scaled >= 32767.0f) {
    steps = 32767;
  } else if (scaled <= -32768.0f) {
    steps = -32768;
  } else {
    steps = (int32_t)(scaled + (scaled < 0 ? -0.5f : 0.5f));
  }
  return (uint16_t)((uint32_t)steps & 0xffffu);
}

static void encode_heartbeat(enum pm_odrive_version version, const struct pm_odrive_heartbeat* beat, uint8_t* data) {
  pm_put_u32_le(data, beat->axis_error);
  data[4] = beat->axis_state;
  if (version == PM_ODRIVE_V0_6) {
    data[5] = beat->procedure_result;
    data[6] = beat->is_trajectory_done ? 1 : 0;
    return;
  }
  data[5] = beat->has_motor_error ? 1 : 0;
  data[6] = beat->has_encoder_error ? 1 : 0;
  data[7] = (uint8_t)((beat->has_controller_error ? 1 : 0) | (beat->is_trajectory_done ? 0x80 : 0));
}

static void decode_heartbeat(enum pm_odrive_version version, const uint8_t* data, struct pm_odrive_heartbeat* beat) {
  beat->axis_error = pm_get_u32_le(data);
  beat->axis_state = data[4];
  if (version == PM_ODRIVE_V0_6) {
    beat->procedure_result = data[5];
    beat->is_trajectory_done = (data[6] & 1) != 0;
    return;
  }
  beat->has_motor_error = (data[5] & 1) != 0;
  beat->has_encoder_error = (data[6] & 1) != 0;
  beat->has_controller_error = (data[7] & 1) != 0;
  beat->is_trajectory_done = (data[7] & 0x80) != 0;
}

static void encode_version(const struct pm_odrive_message* message, uint8_t* data) {
  data[0] = message->u.version.protocol;
  data[1] = message->u.version.hw_major;
  data[2] = message->u.version.hw_minor;
  data[3] = message->u.version.hw_variant;
  data[4] = message->u.version.fw_major;
  data[5] = message->u.version.fw_minor;
  data[6] = message->u.version.fw_revision;
  data[7] = message->u.version.fw_unreleased;
}

static void decode_version(const uint8_t* data, struct pm_odrive_message* message) {
  message->u.version.protocol = data[0];
  message->u.version.hw_major = data[1];
  message->u.version.hw_minor = data[2];
  message->u.version.hw_variant = data[3];
  message->u.version.fw_major = data[4];
  message->u.version.fw_minor = data[5];
  message->u.version.fw_revision = data[6];
  message->u.version.fw_unreleased = data[7];
}

static void encode_fields(enum pm_odrive_version version, const struct pm_odrive_message* message, uint8_t* data,
                          bool* is_clamped) {
  switch (message->command) {
    case PM_ODRIVE_GET_VERSION:
      encode_version(message, data);
      break;
    case PM_ODRIVE_HEARTBEAT:
      encode_heartbeat(version, &message->u.heartbeat, data);
      break;
    case PM_ODRIVE_GET_ERROR:
      pm_put_u32_le(data, message->u.error.active);
      pm_put_u32_le(data + 4, message->u.error.disarm_reason);
      break;
    case PM_ODRIVE_RX_SDO:
    case PM_ODRIVE_TX_SDO:
      data[0] = message->command == PM_ODRIVE_RX_SDO ? message->u.sdo.opcode : 0;
      pm_put_u16_le(data + 1, message->u.sdo.endpoint);
      memcpy(data + 4, message->u.sdo.value, 4);
      break;
    case PM_ODRIVE_SET_AXIS_STATE:
      pm_put_u32_le(data, message->u.axis_state);
      break;
    case PM_ODRIVE_SET_CONTROLLER_MODE:
      pm_put_u32_le(data, message->u.mode.control);
      pm_put_u32_le(data + 4, message->u.mode.input);
      break;
    case PM_ODRIVE_SET_INPUT_POSITION:
      pm_put_f32_le(data, message->u.input_position.position_turns);
      pm_put_u16_le(data + 4, milli(message->u.input_position.velocity_turns_s, is_clamped));
      pm_put_u16_le(data + 6, milli(message->u.input_position.torque_Nm, is_clamped));
      break;
    case PM_ODRIVE_ENCODER_ESTIMATES:
      pm_put_f32_le(data, message->u.estimates.position_turns);
      pm_put_f32_le(data + 4, message->u.estimates.velocity_turns_s);
      break;
    case PM_ODRIVE_SET_INPUT_VELOCITY:
      pm_put_f32_le(data, message->u.input_velocity.velocity_turns_s);
      pm_put_f32_le(data + 4, message->u.input_velocity.torque_Nm);
      break;
    case PM_ODRIVE_SET_INPUT_TORQUE:
      pm_put_f32_le(data, message->u.input_torque_Nm);
      break;
    case PM_ODRIVE_BUS_VOLTAGE_CURRENT:
      pm_put_f32_le(data, message->u.bus.voltage_V);
      pm_put_f32_le(data + 4, message->u.bus.current_A);
      break;
    default:
      break;  // ESTOP and CLEAR_ERRORS carry nothing
  }
}

bool pm_odrive_encode(enum pm_odrive_version version, const struct pm_odrive_message* message,
                      struct pm_can_frame* frame, bool* is_clamped) {
  bool clamped = false;
  const int bytes = payload_bytes(version, message->command);
  if (bytes < 0 || message->node > NODE_MAX) return false;
  if (!message->is_request && !are_numbers_finite(message)) return false;
  pm_clear_frame(frame, ((uint32_t)message->node << 5) | message->command, message->is_request ? 0 : (uint8_t)bytes);
  frame->is_remote = message->is_request;
  if (!message->is_request) encode_fields(version, message, frame->data, &clamped);
  if (is_clamped != NULL) *is_clamped = clamped;
  return true;
}

static void decode_fields(enum pm_odrive_version version, const uint8_t* data, struct pm_odrive_message* message) {
  switch (message->command) {
    case PM_ODRIVE_GET_VERSION:
      decode_version(data, message);
      break;
    case PM_ODRIVE_HEARTBEAT:
      decode_heartbeat(version, data, &message->u.heartbeat);
      break;
    case PM_ODRIVE_GET_ERROR:
      message->u.error.active = pm_get_u32_le(data);
      message->u.error.disarm_reason = pm_get_u32_le(data + 4);
      break;
    case PM_ODRIVE_RX_SDO:
    case PM_ODRIVE_TX_SDO:
      message->u.sdo.opcode = data[0];
      message->u.sdo.endpoint = pm_get_u16_le(data + 1);
      memcpy(message->u.sdo.value, data + 4, 4);
      break;
    case PM_ODRIVE_SET_AXIS_STATE:
      message->u.axis_state = pm_get_u32_le(data);
      break;
    case PM_ODRIVE_SET_CONTROLLER_MODE:
      message->u.mode.control = pm_get_u32_le(data);
      message->u.mode.input = pm_get_u32_le(data + 4);
      break;
    case PM_ODRIVE_SET_INPUT_POSITION:
      message->u.input_position.position_turns = pm_get_f32_le(data);
      message->u.input_position.velocity_turns_s = (float)pm_get_i16_le(data + 4) * 0.001f;
      message->u.input_position.torque_Nm = (float)pm_get_i16_le(data + 6) * 0.001f;
      break;
    case PM_ODRIVE_ENCODER_ESTIMATES:
      message->u.estimates.position_turns = pm_get_f32_le(data);
      message->u.estimates.velocity_turns_s = pm_get_f32_le(data + 4);
      break;
    case PM_ODRIVE_SET_INPUT_VELOCITY:
      message->u.input_velocity.velocity_turns_s = pm_get_f32_le(data);
      message->u.input_velocity.torque_Nm = pm_get_f32_le(data + 4);
      break;
    case PM_ODRIVE_SET_INPUT_TORQUE:
      message->u.input_torque_Nm = pm_get_f32_le(data);
      break;
    case PM_ODRIVE_BUS_VOLTAGE_CURRENT:
      message->u.bus.voltage_V = pm_get_f32_le(data);
      message->u.bus.current_A = pm_get_f32_le(data + 4);
      break;
    default:
      break;
  }
}

bool pm_odrive_decode(enum pm_odrive_version version, const struct pm_can_frame* frame,
                      struct pm_odrive_message* message) {
  if (frame->is_extended || frame->is_fd || frame->id > 0x7ff || frame->data_bytes > 8) return false;
  memset(message, 0, sizeof *message);
  message->node = (uint8_t)(frame->id >> 5);
  message->command = (uint8_t)(frame->id & 0x1f);
  message->is_request = frame->is_remote;
  const int bytes = payload_bytes(version, message->command);
  if (bytes < 0) return false;
  if (message->is_request) return true;
  if (frame->data_bytes < bytes) return false;
  decode_fields(version, frame->data, message);
  return are_numbers_finite(message);
}

struct error_name {
  uint32_t bit;
  const char* name;
};

static const struct error_name names_0_5[] = {
    {0x1, "invalid state"},         {0x40, "motor failed"},
    {0x80, "sensorless estimator"}, {0x100, "encoder failed"},
    {0x200, "controller failed"},   {0x800, "watchdog timer expired"},
    {0x1000, "lower endstop"},      {0x2000, "upper endstop"},
    {0x4000, "emergency stop"},     {0x20000, "homing without endstop"},
    {0x40000, "too hot"},           {0x80000, "unknown position"},
};

static const struct error_name names_0_6[] = {
    {0x1, "initializing"},
    {0x2, "system level"},
    {0x4, "timing error"},
    {0x8, "missing estimate"},
    {0x10, "bad configuration"},
    {0x20, "gate driver fault"},
    {0x40, "missing input"},
    {0x100, "bus overvoltage"},
    {0x200, "bus undervoltage"},
    {0x400, "bus overcurrent"},
    {0x800, "bus regeneration overcurrent"},
    {0x1000, "current limit violation"},
    {0x2000, "motor too hot"},
    {0x4000, "inverter too hot"},
    {0x8000, "velocity limit violation"},
    {0x10000, "position limit violation"},
    {0x1000000, "watchdog timer expired"},
    {0x2000000, "emergency stop"},
    {0x4000000, "spinout detected"},
    {0x8000000, "brake resistor disarmed"},
    {0x10000000, "thermistor disconnected"},
    {0x40000000, "calibration error"},
};

const char* pm_odrive_error_name(enum pm_odrive_version version, uint32_t axis_error) {
  const struct error_name* names = version == PM_ODRIVE_V0_6 ? names_0_6 : names_0_5;
  const size_t count =
      version == PM_ODRIVE_V0_6 ? sizeof names_0_6 / sizeof *names_0_6 : sizeof names_0_5 / sizeof *names_0_5;
  for (size_t i = 0; i < count; ++i) {
    if ((axis_error & names[i].bit) != 0) return names[i].name;
  }
  return axis_error == 0 ? "no error" : "unknown error";
}
