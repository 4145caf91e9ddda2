// The bridge's narrow view of a motor drive: what it may be told and what it tells. An adapter fills the two calls with
// a motor protocol's codec (protocol/motor); the bridge knows no identifiers and no bytes of any drive.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/can_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pm_drive_command {
  PM_DRIVE_DISABLE,  // power removed; also the poll of a drive that answers commands only
  PM_DRIVE_ENABLE,   // power on, no movement
  PM_DRIVE_HOLD,     // stay at position_rad
  PM_DRIVE_MOVE,     // be at position_rad with velocity_rad_s
};

struct pm_drive_setpoint {
  enum pm_drive_command command;
  float position_rad;
  float velocity_rad_s;
  float torque_Nm;  // feed-forward
};

struct pm_drive_feedback {
  uint8_t axis;
  bool is_enabled;
  bool is_faulted;
  bool is_hot;  // over-temperature, of the motor or the power stage
  bool is_over_current;
  uint8_t code;  // the drive's own fault code, 0 none
  float position_rad;
  float velocity_rad_s;
  float torque_Nm;
};

struct pm_drive {
  void* context;
  // One frame for one axis; false when this drive has no frame for the command.
  bool (*encode)(void* context, uint8_t axis, const struct pm_drive_setpoint* setpoint, struct pm_can_frame* frame);
  // False when the frame is no intact feedback of a known axis.
  bool (*decode)(void* context, uint8_t bus, const struct pm_can_frame* frame, struct pm_drive_feedback* feedback);
};

#ifdef __cplusplus
}
#endif
