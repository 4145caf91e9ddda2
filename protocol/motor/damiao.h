// Damiao motors in MIT mode: bytes of commands, feedback and parameters, for the host and for the device side.
//
//   command   id = motor   | q 16 | dq 12 | kp 12 | kd 12 | tau 12 |            big-endian, packed without gaps
//   feedback  id = master  | err 4, motor 4 | q 16 | dq 12 | tau 12 | T_mos 8 | T_rotor 8 |
//   special   id = motor   | FF x 7 | FB clear, FC enable, FD disable, FE zero |
//   request   id = 0x7FF   | motor u16 le | 33 read, 55 write, CC refresh | register | value 32 le |
//   reply     id = master  | motor u16 le | 33 or 55 | register | value 32 le |
//
// Sources: docs/CAN.md, "Damiao". A reply and a feedback frame share their identifier and have no type field: only who
// waits for the reply of one register can tell them apart, so both decoders may accept the same bytes.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/can_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  PM_DAMIAO_PARAMETER_ID = 0x7ff,
  PM_DAMIAO_STIFFNESS_MAX = 500,  // Nm/rad, fixed by the protocol
  PM_DAMIAO_DAMPING_MAX = 5       // Nm s/rad, fixed by the protocol
};

enum pm_damiao_error {
  PM_DAMIAO_DISABLED = 0x0,
  PM_DAMIAO_ENABLED = 0x1,
  PM_DAMIAO_OVERVOLTAGE = 0x8,
  PM_DAMIAO_UNDERVOLTAGE = 0x9,
  PM_DAMIAO_OVERCURRENT = 0xa,
  PM_DAMIAO_MOSFET_HOT = 0xb,
  PM_DAMIAO_COIL_HOT = 0xc,
  PM_DAMIAO_COMMUNICATION_LOST = 0xd,
  PM_DAMIAO_OVERLOAD = 0xe
};

enum pm_damiao_register {
  PM_DAMIAO_MASTER_ID = 7,
  PM_DAMIAO_MOTOR_ID = 8,
  PM_DAMIAO_TIMEOUT = 9,        // u32, ticks of 50 us without a command until COMMUNICATION_LOST; 0 = never
  PM_DAMIAO_CONTROL_MODE = 10,  // u32, 1 = MIT
  PM_DAMIAO_PMAX = 21,          // f32, rad
  PM_DAMIAO_VMAX = 22,          // f32, rad/s
  PM_DAMIAO_TMAX = 23           // f32, Nm
};

enum { PM_DAMIAO_TIMEOUT_TICK_US = 50, PM_DAMIAO_MODE_MIT = 1 };

// What full scale means; the motor's registers 21 to 23 hold the truth.
struct pm_damiao_range {
  float position_rad;
  float velocity_rad_s;
  float torque_Nm;
};

struct pm_damiao_command {
  float position_rad;
  float velocity_rad_s;
  float stiffness_Nm_rad;  // 0 .. 500
  float damping_Nm_s_rad;  // 0 .. 5
  float torque_Nm;         // feed-forward
};

struct pm_damiao_feedback {
  uint8_t motor_nibble;  // low four bits of the motor's id
  uint8_t error;         // enum pm_damiao_error, or a value without a name
  float position_rad;
  float velocity_rad_s;
  float torque_Nm;
  uint8_t mosfet_C;
  uint8_t rotor_C;
};

enum pm_damiao_kind {
  PM_DAMIAO_KIND_COMMAND,
  PM_DAMIAO_KIND_ENABLE,
  PM_DAMIAO_KIND_DISABLE,
  PM_DAMIAO_KIND_SET_ZERO,
  PM_DAMIAO_KIND_CLEAR_ERROR,
  PM_DAMIAO_KIND_READ,
  PM_DAMIAO_KIND_WRITE,
  PM_DAMIAO_KIND_REFRESH
};

// What a motor finds in a frame that is addressed to it.
struct pm_damiao_request {
  enum pm_damiao_kind kind;
  struct pm_damiao_command command;  // of COMMAND
  uint8_t reg;                       // of READ and WRITE
  uint8_t value[4];                  // of WRITE: little-endian u32 or f32, as the register has it
};

struct pm_damiao_reply {
  uint16_t motor_id;
  bool is_write;
  uint8_t reg;
  uint8_t value[4];
};

// True when all three are finite and above zero.
bool pm_damiao_is_range_valid(const struct pm_damiao_range* range);

// Linear quantisation as the reference code does it: trunc((x - min) * (2^bits - 1) / span), x clamped first. `x`
// finite.
uint32_t pm_damiao_quantise(float x, float min, float max, unsigned bits, bool* is_clamped);
float pm_damiao_dequantise(uint32_t value, float min, float max, unsigned bits);

// --- host to motor -----------------------------------------------------------------------------------------------
// False when a value is not finite or the range is invalid; `frame` is then untouched. `is_clamped` (may be null) says
// whether a value lay outside its range and was clamped. The one packed command that would read as a special frame
// (everything at its maximum) has its torque lowered by a few steps and counts as clamped.
bool pm_damiao_encode_command(uint16_t motor_id, const struct pm_damiao_range* range,
                              const struct pm_damiao_command* command, struct pm_can_frame* frame, bool* is_clamped);
// kind: ENABLE, DISABLE, SET_ZERO or CLEAR_ERROR; false for others.
bool pm_damiao_encode_special(uint16_t motor_id, enum pm_damiao_kind kind, struct pm_can_frame* frame);
void pm_damiao_encode_read(uint16_t motor_id, uint8_t reg, struct pm_can_frame* frame);
void pm_damiao_encode_write_u32(uint16_t motor_id, uint8_t reg, uint32_t value, struct pm_can_frame* frame);
bool pm_damiao_encode_write_f32(uint16_t motor_id, uint8_t reg, float value, struct pm_can_frame* frame);
// Asks for a feedback frame without commanding anything.
void pm_damiao_encode_refresh(uint16_t motor_id, struct pm_can_frame* frame);

// --- motor to host -----------------------------------------------------------------------------------------------
// True when the frame can be feedback of this motor to this master.
bool pm_damiao_decode_feedback(const struct pm_can_frame* frame, uint16_t motor_id, uint16_t master_id,
                               const struct pm_damiao_range* range, struct pm_damiao_feedback* feedback);
bool pm_damiao_decode_reply(const struct pm_can_frame* frame, uint16_t motor_id, uint16_t master_id,
                            struct pm_damiao_reply* reply);

// --- device side -------------------------------------------------------------------------------------------------
// True when the frame is addressed to this motor and is complete.
bool pm_damiao_decode_request(const struct pm_can_frame* frame, uint16_t motor_id, const struct pm_damiao_range* range,
                              struct pm_damiao_request* request);
bool pm_damiao_encode_feedback(uint16_t master_id, const struct pm_damiao_range* range,
                               const struct pm_damiao_feedback* feedback, struct pm_can_frame* frame, bool* is_clamped);
void pm_damiao_encode_reply(uint16_t master_id, const struct pm_damiao_reply* reply, struct pm_can_frame* frame);

// A short English name, also for values without one. Never null.
const char* pm_damiao_error_name(uint8_t error);
// True for every value but DISABLED and ENABLED: a value without a name is treated as a fault.
bool pm_damiao_is_fault(uint8_t error);

#ifdef __cplusplus
}
#endif
