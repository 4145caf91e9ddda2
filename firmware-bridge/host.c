// The host's requests: version, arming, limits, stops. A table says which identifiers exist and how many payload bytes
// each uses; whatever is not in it, or not intact, is counted and ignored.
#include <stddef.h>

#include "firmware-bridge/internal.h"

enum { CHALLENGE_US = 100000, WISH_FD = 1 };
#define AT_REST_RAD_S 0.05f

static void count_out_of_place(struct pm_bridge* bridge) { ++bridge->counters[PM_COUNT_OUT_OF_PLACE]; }

static void on_estop(struct pm_bridge* bridge, const uint8_t* payload) {
  (void)payload;
  bridge->seen.is_estop_latched = true;  // the scan of the next tick acts
}

static void on_disarm(struct pm_bridge* bridge, const uint8_t* payload) {
  (void)payload;
  if (!pm_bridge_trigger(bridge, PM_TRIGGER_DISARM)) count_out_of_place(bridge);
}

static void on_silence(struct pm_bridge* bridge, const uint8_t* payload) {
  (void)payload;
  (void)pm_bridge_trigger(bridge, PM_TRIGGER_SILENCE);
}

static void on_hello(struct pm_bridge* bridge, const uint8_t* payload) {
  if (bridge->state != PM_STATE_SILENT && bridge->state != PM_STATE_DISARMED) {
    count_out_of_place(bridge);
    return;
  }
  const bool is_known = payload[0] <= PM_PROTOCOL_VERSION && payload[1] >= PM_PROTOCOL_VERSION;
  const bool is_agreed = is_known && payload[3] == bridge->config.axis_count;
  const bool is_fd = bridge->config.has_fd && (payload[2] & WISH_FD) != 0;
  uint8_t answer[PM_SHORT_PAYLOAD_BYTES] = {is_agreed ? PM_PROTOCOL_VERSION : 0, PM_PROTOCOL_VERSION,
                                            is_agreed && is_fd ? WISH_FD : 0, bridge->config.axis_count};
  pm_put_u16(answer + 4, bridge->config.boot);
  if (is_agreed) {
    const bool is_clean = bridge->faults.first.code == PM_FAULT_NONE;
    bridge->is_fd_agreed = is_fd;
    (void)pm_bridge_trigger(bridge, is_clean ? PM_TRIGGER_HELLO : PM_TRIGGER_HELLO_FAULTED);
  }
  // Silence outlives a HELLO that cannot be accepted.
  if (bridge->state != PM_STATE_SILENT) pm_report_short(bridge, PM_ID_WELCOME, answer);
}

static void answer_arming(struct pm_bridge* bridge, enum pm_arm_result result, uint8_t axis) {
  uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {(uint8_t)result, axis};
  pm_put_u16(payload + 2, result == PM_ARM_OK ? bridge->setpoints.session : 0);
  pm_report_short(bridge, PM_ID_ARM_RESULT, payload);
}

static void on_arm_request(struct pm_bridge* bridge, const uint8_t* payload) {
  bridge->is_challenge_open = false;
  if (bridge->state != PM_STATE_DISARMED) {
    answer_arming(bridge, PM_ARM_NOT_DISARMED, PM_AXIS_NONE);
    return;
  }
  if (payload[4] != PM_PROTOCOL_VERSION || payload[5] != bridge->config.axis_count) {
    answer_arming(bridge, PM_ARM_VERSION, PM_AXIS_NONE);
    return;
  }
  bridge->is_challenge_open = true;
  bridge->host_nonce = pm_get_u32(payload);
  // Never the same twice in a row, and it depends on the time of asking: no secret, a proof of now.
  bridge->nonce = (bridge->nonce * 1664525u + 1013904223u) ^ (uint32_t)(bridge->seen.now_us & 0xFFFFFFFFu);
  bridge->challenge_us = bridge->seen.now_us;
  uint8_t challenge[PM_SHORT_PAYLOAD_BYTES] = {0};
  pm_put_u32(challenge, bridge->nonce);
  pm_report_short(bridge, PM_ID_ARM_CHALLENGE, challenge);
}

// May the robot be powered as it stands? *axis names the one that may not.
static enum pm_arm_result check_robot(const struct pm_bridge* bridge, uint8_t* axis) {
  const struct pm_seen* seen = &bridge->seen;
  *axis = PM_AXIS_NONE;
  if (!pm_update_is_idle(&bridge->update)) return PM_ARM_UPDATING;
  if (!bridge->limits.is_committed) return PM_ARM_NO_LIMITS;
  for (*axis = 0; *axis < seen->axis_count; ++*axis) {
    const struct pm_drive_feedback* feedback = &seen->axes[*axis].feedback;
    if (!pm_feedback_is_fresh(seen, *axis)) return PM_ARM_NO_FEEDBACK;
    if (feedback->is_faulted || feedback->is_hot || feedback->is_over_current) return PM_ARM_DRIVE_FAULT;
    if (pm_is_outside(seen, *axis)) return PM_ARM_POSITION;
    if (feedback->velocity_rad_s > AT_REST_RAD_S || feedback->velocity_rad_s < -AT_REST_RAD_S) return PM_ARM_MOVING;
  }
  *axis = PM_AXIS_NONE;
  return PM_ARM_OK;
}

static void on_arm_response(struct pm_bridge* bridge, const uint8_t* payload) {
  const bool is_open = bridge->is_challenge_open && bridge->seen.now_us - bridge->challenge_us <= CHALLENGE_US;
  bridge->is_challenge_open = false;
  const uint32_t answer = pm_arm_answer(bridge->host_nonce, bridge->nonce);
  uint8_t axis = PM_AXIS_NONE;
  enum pm_arm_result result = PM_ARM_OK;
  if (bridge->state != PM_STATE_DISARMED) {
    result = PM_ARM_NOT_DISARMED;
  } else if (!is_open) {
    result = PM_ARM_NO_CHALLENGE;
  } else if (pm_get_u32(payload) != answer) {
    result = PM_ARM_WRONG_ANSWER;
  } else {
    result = check_robot(bridge, &axis);
  }
  if (result == PM_ARM_OK) {
    const uint16_t session = (uint16_t)(answer & 0xFFFFu);
    pm_setpoints_begin(&bridge->setpoints, bridge->config.axis_count, bridge->is_fd_agreed, session);
    (void)pm_bridge_trigger(bridge, PM_TRIGGER_ARM);
  }
  answer_arming(bridge, result, axis);
}

static void answer_limit(struct pm_bridge* bridge, const struct pm_limit_item* item) {
  struct pm_can_frame frame;
  pm_limit_pack(&frame, PM_ID_LIMIT_VALUE, item);
  pm_send(bridge, bridge->config.host_bus, false, &frame);
}

static void on_limit_write(struct pm_bridge* bridge, const uint8_t* payload) {
  const struct pm_limit_item item = {payload[0], payload[1], pm_get_i32(payload + 2)};
  if (bridge->state != PM_STATE_DISARMED || !pm_limits_stage(&bridge->limits, &item)) {
    count_out_of_place(bridge);
  } else {
    answer_limit(bridge, &item);
  }
}

static void on_limit_read(struct pm_bridge* bridge, const uint8_t* payload) {
  struct pm_limit_item item = {payload[0], payload[1], 0};
  if (!pm_limits_read(&bridge->limits, &item)) {
    count_out_of_place(bridge);
  } else {
    answer_limit(bridge, &item);
  }
}

static void on_limit_commit(struct pm_bridge* bridge, const uint8_t* payload) {
  if (payload[1] != 0) {
    ++bridge->counters[PM_COUNT_MALFORMED];
    return;
  }
  struct pm_limit_item at = {PM_AXIS_NONE, PM_AXIS_NONE, 0};
  enum pm_limit_result result = PM_LIMIT_NOT_DISARMED;
  if (bridge->state == PM_STATE_DISARMED) {
    result = pm_limits_commit(&bridge->limits, payload[0], pm_get_u16(payload + 2), &at);
  }
  uint8_t answer[PM_SHORT_PAYLOAD_BYTES] = {(uint8_t)result, at.axis, at.field};
  pm_put_u16(answer + 4, bridge->limits.is_committed ? bridge->limits.checksum : 0);
  pm_report_short(bridge, PM_ID_LIMIT_RESULT, answer);
}

static void on_fault_clear(struct pm_bridge* bridge, const uint8_t* payload) {
  if (bridge->state == PM_STATE_FAULT && pm_faults_may_clear(&bridge->faults, &bridge->seen, payload[0])) {
    (void)pm_bridge_trigger(bridge, PM_TRIGGER_CLEAR);
  } else {
    count_out_of_place(bridge);
  }
}

static void on_indicate(struct pm_bridge* bridge, const uint8_t* payload) {
  if (payload[0] >= PM_INDICATIONS) {
    ++bridge->counters[PM_COUNT_MALFORMED];
    return;
  }
  bridge->has_indication = true;
  bridge->indication = (enum pm_indication)payload[0];
  bridge->indication_us = bridge->seen.now_us;
}

struct request {
  uint32_t id;
  uint8_t used_bytes;
  void (*act)(struct pm_bridge* bridge, const uint8_t* payload);
};

static const struct request requests[] = {
    {PM_ID_ESTOP, 0, on_estop},
    {PM_ID_DISARM, 0, on_disarm},
    {PM_ID_SILENCE, 0, on_silence},
    {PM_ID_HELLO, 4, on_hello},
    {PM_ID_ARM_REQUEST, 6, on_arm_request},
    {PM_ID_ARM_RESPONSE, 4, on_arm_response},
    {PM_ID_LIMIT_WRITE, 6, on_limit_write},
    {PM_ID_LIMIT_READ, 2, on_limit_read},
    {PM_ID_LIMIT_COMMIT, 4, on_limit_commit},
    {PM_ID_FAULT_CLEAR, 1, on_fault_clear},
    {PM_ID_INDICATE, 1, on_indicate},
};

static const struct request* request_of(const struct pm_can_frame* frame) {
  for (uint32_t i = 0; i < sizeof requests / sizeof requests[0]; ++i) {
    if (requests[i].id == frame->id) return &requests[i];
  }
  return NULL;
}

// What the firmware itself is asked: the only frames that are answered in silence.
static void on_firmware_frame(struct pm_bridge* bridge, const struct pm_can_frame* frame) {
  const bool is_at_rest = bridge->state == PM_STATE_SILENT || bridge->state == PM_STATE_DISARMED;
  struct pm_can_frame answer;
  switch (pm_update_on_frame(&bridge->update, frame, is_at_rest, bridge->seen.now_us, &answer)) {
    case PM_UPDATE_FOREIGN:
      ++bridge->counters[PM_COUNT_FOREIGN];
      break;
    case PM_UPDATE_MALFORMED:
      ++bridge->counters[PM_COUNT_MALFORMED];
      break;
    case PM_UPDATE_ANSWERED:
      pm_send(bridge, bridge->config.host_bus, false, &answer);
      break;
    default:
      break;
  }
}

void pm_host_on_frame(struct pm_bridge* bridge, const struct pm_can_frame* frame) {
  const struct request* request = frame->is_extended || frame->is_remote ? NULL : request_of(frame);
  if (request == NULL) {
    on_firmware_frame(bridge, frame);
  } else if (!pm_short_is_intact(frame, request->used_bytes)) {
    ++bridge->counters[PM_COUNT_MALFORMED];
  } else if (bridge->state == PM_STATE_SILENT && request->id != PM_ID_HELLO && request->id != PM_ID_INDICATE) {
    count_out_of_place(bridge);  // and nothing is answered: silent at boot
  } else {
    request->act(bridge, frame->data);
  }
}
