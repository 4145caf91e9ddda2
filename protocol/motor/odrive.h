// ODrive CANSimple: one message type for both directions, versioned by the firmware's generation.
//
// id = node << 5 | command, 11 bits, little-endian. The generations differ in the heartbeat and in commands 0x00 to
// 0x05: 0x03 to 0x05 are motor, encoder and sensorless error there (0.5), error, RxSdo and TxSdo here (0.6).
//
//   0.5 heartbeat  error u32 | state u8 | motor error b0 | encoder error b0 | controller error b0, trajectory done b7
//   0.6 heartbeat  error u32 | state u8 | procedure result u8 | trajectory done b0 | -
//
// Sources: docs/CAN.md, "ODrive".
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/can_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pm_odrive_version { PM_ODRIVE_V0_5, PM_ODRIVE_V0_6 };

enum pm_odrive_command {
  PM_ODRIVE_GET_VERSION = 0x00,  // 0.6
  PM_ODRIVE_HEARTBEAT = 0x01,
  PM_ODRIVE_ESTOP = 0x02,
  PM_ODRIVE_GET_ERROR = 0x03,  // 0.6
  PM_ODRIVE_RX_SDO = 0x04,     // 0.6, host to drive
  PM_ODRIVE_TX_SDO = 0x05,     // 0.6, drive to host
  PM_ODRIVE_SET_AXIS_STATE = 0x07,
  PM_ODRIVE_ENCODER_ESTIMATES = 0x09,
  PM_ODRIVE_SET_CONTROLLER_MODE = 0x0b,
  PM_ODRIVE_SET_INPUT_POSITION = 0x0c,
  PM_ODRIVE_SET_INPUT_VELOCITY = 0x0d,
  PM_ODRIVE_SET_INPUT_TORQUE = 0x0e,
  PM_ODRIVE_BUS_VOLTAGE_CURRENT = 0x17,
  PM_ODRIVE_CLEAR_ERRORS = 0x18
};

enum pm_odrive_axis_state { PM_ODRIVE_STATE_IDLE = 1, PM_ODRIVE_STATE_CLOSED_LOOP = 8 };
enum pm_odrive_control_mode {
  PM_ODRIVE_CONTROL_TORQUE = 1,
  PM_ODRIVE_CONTROL_VELOCITY = 2,
  PM_ODRIVE_CONTROL_POSITION = 3
};
enum pm_odrive_input_mode { PM_ODRIVE_INPUT_PASSTHROUGH = 1 };
enum pm_odrive_opcode { PM_ODRIVE_SDO_READ = 0, PM_ODRIVE_SDO_WRITE = 1 };

struct pm_odrive_heartbeat {
  uint32_t axis_error;  // 0.6: active errors or, when idle, the disarm reason
  uint8_t axis_state;
  bool is_trajectory_done;
  bool has_motor_error;       // 0.5 only
  bool has_encoder_error;     // 0.5 only
  bool has_controller_error;  // 0.5 only
  uint8_t procedure_result;   // 0.6 only
};

struct pm_odrive_sdo {
  uint8_t opcode;  // host to drive only
  uint16_t endpoint;
  uint8_t value[4];
};

struct pm_odrive_message {
  uint8_t node;     // 0 .. 63
  uint8_t command;  // enum pm_odrive_command
  bool is_request;  // a remote request of the host for this message: no fields
  union {
    struct {
      uint8_t protocol, hw_major, hw_minor, hw_variant, fw_major, fw_minor, fw_revision, fw_unreleased;
    } version;
    struct pm_odrive_heartbeat heartbeat;
    struct {
      uint32_t active;
      uint32_t disarm_reason;
    } error;
    struct pm_odrive_sdo sdo;
    uint32_t axis_state;
    struct {
      float position_turns;
      float velocity_turns_s;
    } estimates;
    struct {
      uint32_t control;
      uint32_t input;
    } mode;
    struct {
      float position_turns;
      float velocity_turns_s;  // feed-forward; sent in steps of 0.001, at most +-32.767
      float torque_Nm;         // feed-forward; sent in steps of 0.001, at most +-32.767
    } input_position;
    struct {
      float velocity_turns_s;
      float torque_Nm;
    } input_velocity;
    float input_torque_Nm;
    struct {
      float voltage_V;
      float current_A;
    } bus;
  } u;
};

// False when the message does not exist in this version, the node does not fit, or a number is not finite; `frame` is
// then untouched. `is_clamped` (may be null): a feed-forward did not fit its 16 bits.
bool pm_odrive_encode(enum pm_odrive_version version, const struct pm_odrive_message* message,
                      struct pm_can_frame* frame, bool* is_clamped);
// False for frames of other protocols, short ones, unknown commands and numbers that are not finite.
bool pm_odrive_decode(enum pm_odrive_version version, const struct pm_can_frame* frame,
                      struct pm_odrive_message* message);

// The name of the lowest error bit set; "no error" for 0. Never null.
const char* pm_odrive_error_name(enum pm_odrive_version version, uint32_t axis_error);

#ifdef __cplusplus
}
#endif
