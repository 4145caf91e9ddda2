// What the bridge tells the host, unasked: heartbeat, feedback, faults, counters. Periods are those of
// protocol/README.md; nothing is sent while silent.
#include <string.h>

#include "firmware-bridge/internal.h"

enum { HEARTBEAT_US = 10000, FAULT_US = 100000, COUNTER_US = 10000, FEEDBACK_FD_US = 2000, FEEDBACK_AXIS_US = 1000 };

void pm_send(struct pm_bridge* bridge, uint8_t bus, bool is_motion, const struct pm_can_frame* frame) {
  struct pm_output output = {.bus = bus, .is_motion = is_motion, .queued_us = bridge->seen.now_us, .frame = *frame};
  bridge->seen.is_queue_full = !pm_queue_push(&bridge->queue, &output);
  bridge->counters[PM_COUNT_DROPPED] += bridge->seen.is_queue_full;
}

void pm_report_short(struct pm_bridge* bridge, uint32_t id, const uint8_t payload[PM_SHORT_PAYLOAD_BYTES]) {
  struct pm_can_frame frame;
  pm_short_pack(&frame, id, payload);
  pm_send(bridge, bridge->config.host_bus, false, &frame);
}

static uint32_t clock_of(const struct pm_bridge* bridge) { return (uint32_t)(bridge->seen.now_us & 0xFFFFFFFFu); }

static void report_heartbeat(struct pm_bridge* bridge) {
  uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {(uint8_t)(PM_PROTOCOL_VERSION << 4 | bridge->state),
                                             (uint8_t)bridge->faults.first.code};
  pm_put_u32(payload + 2, clock_of(bridge));
  pm_report_short(bridge, PM_ID_HEARTBEAT, payload);
}

void pm_report_fault(struct pm_bridge* bridge) {
  const struct pm_first_fault* first = &bridge->faults.first;
  const uint64_t age_ms = (bridge->seen.now_us - first->at_us) / 1000;
  const struct pm_fault_report report = {
      .fault = (uint8_t)first->code,
      .axis = first->axis,
      .detail = first->detail,
      .later_count = bridge->faults.later_count,
      .age_ms = age_ms < UINT16_MAX ? (uint16_t)age_ms : UINT16_MAX,
  };
  struct pm_can_frame frame;
  pm_fault_pack(&frame, &report);
  pm_send(bridge, bridge->config.host_bus, false, &frame);
  bridge->fault_report_us = bridge->seen.now_us;
}

static void report_counter(struct pm_bridge* bridge) {
  uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {bridge->next_counter};
  pm_put_u32(payload + 2, bridge->counters[bridge->next_counter]);
  pm_report_short(bridge, PM_ID_COUNTER, payload);
  bridge->next_counter = (uint8_t)((bridge->next_counter + 1) % PM_COUNTERS);
}

static struct pm_slot slot_of(const struct pm_bridge* bridge, uint8_t axis) {
  const struct pm_drive_feedback* feedback = &bridge->seen.axes[axis].feedback;
  const struct pm_slot slot = {
      .position = pm_quantise((double)feedback->position_rad, PM_POSITION_PER_RAD, INT32_MAX),
      .velocity = (int16_t)pm_quantise((double)feedback->velocity_rad_s, PM_VELOCITY_PER_RAD_S, INT16_MAX),
      .torque = (int16_t)pm_quantise((double)feedback->torque_Nm, PM_TORQUE_PER_NM, INT16_MAX),
  };
  return slot;
}

static void report_feedback_fd(struct pm_bridge* bridge) {
  const uint8_t axis_count = bridge->config.axis_count;
  for (uint8_t p = 0; p < pm_part_count(axis_count); ++p) {
    struct pm_feedback_part part;
    memset(&part, 0, sizeof part);
    part.part = p;
    part.sequence = bridge->feedback_sequence;
    part.accepted_sequence = bridge->setpoints.sequence;
    part.state = (uint8_t)bridge->state;
    part.fault = (uint8_t)bridge->faults.first.code;
    part.clock_us = clock_of(bridge);
    part.axis_count = axis_count;
    for (uint8_t s = 0; s < PM_SLOTS_PER_PART; ++s) {
      const uint8_t axis = (uint8_t)(p * PM_SLOTS_PER_PART + s);
      if (axis >= axis_count) break;
      part.slots[s] = slot_of(bridge, axis);
      if (pm_feedback_is_fresh(&bridge->seen, axis)) part.valid |= (uint8_t)(1u << s);
    }
    struct pm_can_frame frame;
    pm_feedback_pack(&frame, &part);
    pm_send(bridge, bridge->config.host_bus, false, &frame);
  }
  ++bridge->feedback_sequence;
}

static void report_feedback_axis(struct pm_bridge* bridge) {
  const uint8_t axis = bridge->next_axis;
  const struct pm_drive_feedback* feedback = &bridge->seen.axes[axis].feedback;
  const struct pm_axis_feedback report = {
      .axis = axis,
      .position_e6 = pm_quantise((double)feedback->position_rad, PM_FEEDBACK_POSITION_PER_RAD, PM_INT24_MAX),
      .velocity = (int16_t)pm_quantise((double)feedback->velocity_rad_s, PM_VELOCITY_PER_RAD_S, INT16_MAX),
      .is_valid = pm_feedback_is_fresh(&bridge->seen, axis),
  };
  struct pm_can_frame frame;
  pm_axis_feedback_pack(&frame, &report);
  pm_send(bridge, bridge->config.host_bus, false, &frame);
  bridge->next_axis = (uint8_t)((axis + 1) % bridge->config.axis_count);
}

// Has `period_us` passed since *last_us? Then it begins anew, without catching up.
static bool is_time(const struct pm_bridge* bridge, uint64_t* last_us, uint32_t period_us) {
  if (bridge->seen.now_us - *last_us < period_us) return false;
  *last_us = bridge->seen.now_us;
  return true;
}

void pm_report_tick(struct pm_bridge* bridge) {
  if (is_time(bridge, &bridge->heartbeat_us, HEARTBEAT_US)) report_heartbeat(bridge);
  if (is_time(bridge, &bridge->counter_us, COUNTER_US)) report_counter(bridge);
  if (bridge->faults.first.code != PM_FAULT_NONE && is_time(bridge, &bridge->fault_report_us, FAULT_US)) {
    pm_report_fault(bridge);
  }
  if (bridge->is_fd_agreed) {
    if (is_time(bridge, &bridge->feedback_us, FEEDBACK_FD_US)) report_feedback_fd(bridge);
  } else if (is_time(bridge, &bridge->feedback_us, FEEDBACK_AXIS_US)) {
    report_feedback_axis(bridge);
  }
}
