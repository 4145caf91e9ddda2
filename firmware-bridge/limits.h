// What an axis may be asked to do: the limits that the host uploads within built-in ceilings, their read-back and their
// guard against corruption, the clamp for setpoints, and the step that keeps a reference inside whatever it is asked to
// follow. No state but its arguments'.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/frames.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pm_axis_limits {
  float position_min_rad;
  float position_max_rad;
  float velocity_rad_s;
  float acceleration_rad_s2;
  float jerk_rad_s3;
  float torque_Nm;
};

struct pm_limits {
  uint8_t axis_count;
  bool is_committed;
  bool is_corrupt;
  uint16_t checksum;                              // of `committed`
  int32_t ceiling[PM_AXES_MAX][PM_LIMIT_FIELDS];  // wire units, like the next two
  int32_t staged[PM_AXES_MAX][PM_LIMIT_FIELDS];
  int32_t committed[PM_AXES_MAX][PM_LIMIT_FIELDS];
  uint8_t staged_fields[PM_AXES_MAX];       // bit per field
  struct pm_axis_limits axes[PM_AXES_MAX];  // `committed` in SI units
  uint8_t scrub_axis;                       // next axis of the running check
  uint16_t scrub_checksum;                  // of the axes before it
};

// Where an axis is asked to be. The position is double: float steps by 0.5 urad at 8 rad, and its difference over a 250
// us tick would look like a velocity of 2 mrad/s.
struct pm_reference {
  double position_rad;
  float velocity_rad_s;
  float acceleration_rad_s2;
  float torque_Nm;
};

// ceiling[axis][field], wire units: uploads must lie within.
void pm_limits_init(struct pm_limits* limits, uint8_t axis_count, const int32_t (*ceiling)[PM_LIMIT_FIELDS]);
// False when there is no such axis or field.
bool pm_limits_stage(struct pm_limits* limits, const struct pm_limit_item* item);
// Fills item->value from the committed limits, "not a number" when there are none. False when there is no such axis or
// field.
bool pm_limits_read(const struct pm_limits* limits, struct pm_limit_item* item);
// Empties the stage. *at names the axis and field of a refusal.
enum pm_limit_result pm_limits_commit(struct pm_limits* limits, uint8_t axis_count, uint16_t checksum,
                                      struct pm_limit_item* at);
// Checks one axis per call; a corrupted value is found within 2 x axis_count calls, then is_corrupt is set and nothing
// is committed.
void pm_limits_scrub(struct pm_limits* limits);

// Puts position, velocity and torque of a setpoint inside; a velocity that leads out of a position limit becomes 0.
// Returns how many changed.
uint8_t pm_limits_clamp(const struct pm_axis_limits* limits, struct pm_reference* setpoint);
// Moves *reference towards *wanted for dt_s within velocity and acceleration, and so that it can always brake before a
// position limit. Follows exactly while that is possible. Returns the distance that is left, in rad.
float pm_limits_step(const struct pm_axis_limits* limits, struct pm_reference* reference,
                     const struct pm_reference* wanted, float dt_s);
// One tick of the way to rest: jerk-limited where the position limits leave room, otherwise as hard as the acceleration
// limit allows.
void pm_limits_slow(const struct pm_axis_limits* limits, struct pm_reference* reference, float dt_s);

#ifdef __cplusplus
}
#endif
