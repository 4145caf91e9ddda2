// Upload, corruption check, clamp and guard of the per-axis limits; see limits.h. Precedence where limits contradict
// each other: position, then velocity, then acceleration, then jerk.
#include "firmware-bridge/limits.h"

#include <math.h>
#include <string.h>

static float lesser(float a, float b) { return a < b ? a : b; }

static float between(float low, float value, float high) { return value < low ? low : lesser(value, high); }

static float magnitude(float value) { return value < 0 ? -value : value; }

void pm_limits_init(struct pm_limits* limits, uint8_t axis_count, const int32_t (*ceiling)[PM_LIMIT_FIELDS]) {
  memset(limits, 0, sizeof *limits);
  limits->axis_count = axis_count;
  limits->scrub_checksum = PM_CRC16_START;
  memcpy(limits->ceiling, ceiling, axis_count * sizeof ceiling[0]);
}

static bool exists(const struct pm_limits* limits, const struct pm_limit_item* item) {
  return item->axis < limits->axis_count && item->field < PM_LIMIT_FIELDS;
}

bool pm_limits_stage(struct pm_limits* limits, const struct pm_limit_item* item) {
  if (!exists(limits, item)) return false;
  limits->staged[item->axis][item->field] = item->value;
  limits->staged_fields[item->axis] |= (uint8_t)(1u << item->field);
  return true;
}

bool pm_limits_read(const struct pm_limits* limits, struct pm_limit_item* item) {
  if (!exists(limits, item)) return false;
  item->value = limits->is_committed ? limits->committed[item->axis][item->field] : PM_NAN_I32;
  return true;
}

static bool is_within_ceiling(const int32_t ceiling[PM_LIMIT_FIELDS], uint8_t field, int32_t value) {
  switch (field) {
    case PM_LIMIT_POSITION_MIN:
    case PM_LIMIT_POSITION_MAX:
      return value >= ceiling[PM_LIMIT_POSITION_MIN] && value <= ceiling[PM_LIMIT_POSITION_MAX];
    default:
      return value > 0 && value <= ceiling[field];
  }
}

static struct pm_axis_limits in_si_units(const int32_t values[PM_LIMIT_FIELDS]) {
  const struct pm_axis_limits axis = {
      .position_min_rad = (float)(values[PM_LIMIT_POSITION_MIN] / PM_POSITION_PER_RAD),
      .position_max_rad = (float)(values[PM_LIMIT_POSITION_MAX] / PM_POSITION_PER_RAD),
      .velocity_rad_s = (float)(values[PM_LIMIT_VELOCITY] / PM_LIMIT_PER_UNIT),
      .acceleration_rad_s2 = (float)(values[PM_LIMIT_ACCELERATION] / PM_LIMIT_PER_UNIT),
      .jerk_rad_s3 = (float)(values[PM_LIMIT_JERK] / PM_LIMIT_PER_UNIT),
      .torque_Nm = (float)(values[PM_LIMIT_TORQUE] / PM_LIMIT_PER_UNIT),
  };
  return axis;
}

// Is the stage whole, inside the ceilings and in order?
static enum pm_limit_result check_stage(const struct pm_limits* limits, struct pm_limit_item* at) {
  for (at->axis = 0; at->axis < limits->axis_count; ++at->axis) {
    for (at->field = 0; at->field < PM_LIMIT_FIELDS; ++at->field) {
      if ((limits->staged_fields[at->axis] >> at->field & 1u) == 0) return PM_LIMIT_INCOMPLETE;
    }
  }
  for (at->axis = 0; at->axis < limits->axis_count; ++at->axis) {
    const int32_t* values = limits->staged[at->axis];
    for (at->field = 0; at->field < PM_LIMIT_FIELDS; ++at->field) {
      if (!is_within_ceiling(limits->ceiling[at->axis], at->field, values[at->field])) return PM_LIMIT_CEILING;
    }
    at->field = PM_AXIS_NONE;
    if (values[PM_LIMIT_POSITION_MIN] >= values[PM_LIMIT_POSITION_MAX]) return PM_LIMIT_ORDER;
  }
  at->axis = PM_AXIS_NONE;
  return PM_LIMIT_OK;
}

static enum pm_limit_result try_commit(struct pm_limits* limits, uint8_t axis_count, uint16_t checksum,
                                       struct pm_limit_item* at) {
  at->axis = PM_AXIS_NONE;
  at->field = PM_AXIS_NONE;
  if (axis_count != limits->axis_count) return PM_LIMIT_AXES;
  const enum pm_limit_result result = check_stage(limits, at);
  if (result == PM_LIMIT_INCOMPLETE) return result;
  if (checksum != pm_limits_crc((const int32_t(*)[PM_LIMIT_FIELDS])limits->staged, axis_count)) {
    at->axis = PM_AXIS_NONE;
    at->field = PM_AXIS_NONE;
    return PM_LIMIT_CHECKSUM;
  }
  if (result != PM_LIMIT_OK) return result;
  memcpy(limits->committed, limits->staged, sizeof limits->committed);
  for (uint8_t axis = 0; axis < axis_count; ++axis) limits->axes[axis] = in_si_units(limits->committed[axis]);
  limits->checksum = checksum;
  limits->is_committed = true;
  limits->scrub_axis = 0;
  limits->scrub_checksum = PM_CRC16_START;
  return PM_LIMIT_OK;
}

enum pm_limit_result pm_limits_commit(struct pm_limits* limits, uint8_t axis_count, uint16_t checksum,
                                      struct pm_limit_item* at) {
  const enum pm_limit_result result = try_commit(limits, axis_count, checksum, at);
  memset(limits->staged_fields, 0, sizeof limits->staged_fields);
  return result;
}

// Field by field: a comparison of bytes would compare padding, if there ever is some.
static bool are_same(const struct pm_axis_limits* a, const struct pm_axis_limits* b) {
  const float found[] = {a->position_min_rad,    a->position_max_rad, a->velocity_rad_s,
                         a->acceleration_rad_s2, a->jerk_rad_s3,      a->torque_Nm};
  const float expected[] = {b->position_min_rad,    b->position_max_rad, b->velocity_rad_s,
                            b->acceleration_rad_s2, b->jerk_rad_s3,      b->torque_Nm};
  bool same = true;
  for (uint32_t i = 0; i < sizeof found / sizeof found[0]; ++i) same &= found[i] == expected[i];
  return same;
}

void pm_limits_scrub(struct pm_limits* limits) {
  if (!limits->is_committed) return;
  const int32_t* values = limits->committed[limits->scrub_axis];
  const struct pm_axis_limits expected = in_si_units(values);
  bool is_good = are_same(&limits->axes[limits->scrub_axis], &expected);
  for (uint32_t field = 0; field < PM_LIMIT_FIELDS; ++field) {
    uint8_t bytes[4];
    pm_put_u32(bytes, (uint32_t)values[field]);
    limits->scrub_checksum = pm_crc16(limits->scrub_checksum, bytes, sizeof bytes);
  }
  if (++limits->scrub_axis == limits->axis_count) {
    is_good = is_good && limits->scrub_checksum == limits->checksum;
    limits->scrub_axis = 0;
    limits->scrub_checksum = PM_CRC16_START;
  }
  if (is_good) return;
  limits->is_corrupt = true;
  limits->is_committed = false;
}

uint8_t pm_limits_clamp(const struct pm_axis_limits* limits, struct pm_reference* setpoint) {
  const struct pm_reference asked = *setpoint;
  const float velocity = limits->velocity_rad_s;
  setpoint->velocity_rad_s = between(-velocity, asked.velocity_rad_s, velocity);
  setpoint->torque_Nm = between(-limits->torque_Nm, asked.torque_Nm, limits->torque_Nm);
  if (asked.position_rad > (double)limits->position_max_rad) {
    setpoint->position_rad = (double)limits->position_max_rad;
    setpoint->velocity_rad_s = lesser(setpoint->velocity_rad_s, 0.0f);
  }
  if (asked.position_rad < (double)limits->position_min_rad) {
    setpoint->position_rad = (double)limits->position_min_rad;
    setpoint->velocity_rad_s = -lesser(-setpoint->velocity_rad_s, 0.0f);
  }
  return (uint8_t)((setpoint->position_rad != asked.position_rad) + (setpoint->velocity_rad_s != asked.velocity_rad_s) +
                   (setpoint->torque_Nm != asked.torque_Nm));
}

// The highest velocity from which braking with `a` after one more tick still ends within `room`: v dt + v^2 / 2a =
// room.
static float braking_velocity(float a, double room_rad, float dt_s) {
  const float room = room_rad > 0 ? (float)room_rad : 0.0f;
  return sqrtf(a * a * dt_s * dt_s + 2.0f * a * room) - a * dt_s;
}

float pm_limits_step(const struct pm_axis_limits* limits, struct pm_reference* reference,
                     const struct pm_reference* wanted, float dt_s) {
  const float a = limits->acceleration_rad_s2;
  const float before = reference->velocity_rad_s;
  // The distance beyond what the wanted velocity covers anyway is closed as fast as it can be without overshoot.
  const float excess = (float)(wanted->position_rad - reference->position_rad) - wanted->velocity_rad_s * dt_s;
  const float closing = lesser(magnitude(excess) / dt_s, sqrtf(a * magnitude(excess)));
  float velocity = wanted->velocity_rad_s + (excess < 0 ? -closing : closing);
  velocity = between(before - a * dt_s, velocity, before + a * dt_s);
  velocity = between(-limits->velocity_rad_s, velocity, limits->velocity_rad_s);
  const float up = braking_velocity(a, (double)limits->position_max_rad - reference->position_rad, dt_s);
  const float down = braking_velocity(a, reference->position_rad - (double)limits->position_min_rad, dt_s);
  velocity = between(-down, velocity, up);
  reference->position_rad += (double)(velocity * dt_s);
  reference->velocity_rad_s = velocity;
  reference->acceleration_rad_s2 = (velocity - before) / dt_s;
  reference->torque_Nm = wanted->torque_Nm;
  return magnitude((float)(wanted->position_rad - reference->position_rad));
}

void pm_limits_slow(const struct pm_axis_limits* limits, struct pm_reference* reference, float dt_s) {
  const float direction = reference->velocity_rad_s < 0 ? -1.0f : 1.0f;
  const float jerk_step = limits->jerk_rad_s3 * dt_s;
  float speed = magnitude(reference->velocity_rad_s);
  float braking = -reference->acceleration_rad_s2 * direction;
  // Letting go from here takes braking^2 / 2 jerk of speed: begin when that is what is left.
  const bool is_ending = braking > 0 && speed <= braking * (braking / (2.0f * limits->jerk_rad_s3) + dt_s);
  braking = is_ending ? braking - jerk_step : lesser(braking + jerk_step, limits->acceleration_rad_s2);
  // Never below one step of jerk, or the last of the speed would take for ever.
  if (is_ending) braking = braking < jerk_step ? lesser(jerk_step, limits->acceleration_rad_s2) : braking;
  speed -= braking * dt_s;
  if (speed < 0) speed = 0;
  const float velocity = speed * direction;
  const struct pm_reference wanted = {
      .position_rad = reference->position_rad + (double)(velocity * dt_s),
      .velocity_rad_s = velocity,
      .torque_Nm = reference->torque_Nm,  // what carries the arm's weight goes on carrying it
  };
  (void)pm_limits_step(limits, reference, &wanted, dt_s);
  if (speed == 0) reference->velocity_rad_s = 0;
  if (reference->velocity_rad_s == 0) reference->acceleration_rad_s2 = 0;
}
