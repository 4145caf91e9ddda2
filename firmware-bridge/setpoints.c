// Assembly of setpoint sets and the judgement of their freshness; see setpoints.h.
#include "firmware-bridge/setpoints.h"

#include <string.h>

#include "firmware-bridge/faults.h"

void pm_setpoints_begin(struct pm_setpoints* setpoints, uint8_t axis_count, bool is_fd, uint16_t session) {
  memset(setpoints, 0, sizeof *setpoints);
  setpoints->axis_count = axis_count;
  setpoints->is_fd = is_fd;
  setpoints->session = session;
}

// `a` is 1 .. 32767 ahead of `b`, modulo 65536.
static bool is_newer(uint16_t a, uint16_t b) {
  const uint16_t ahead = (uint16_t)(a - b);
  return ahead != 0 && ahead < 0x8000u;
}

static bool has_newer_sequence(const struct pm_setpoints* setpoints, uint16_t sequence) {
  return !setpoints->has_accepted || is_newer(sequence, setpoints->sequence);
}

// An unfinished set makes room for a newer one.
static void abandon(struct pm_setpoints* setpoints, uint32_t counters[PM_COUNTERS]) {
  if (setpoints->parts != 0 || setpoints->has_classic_head) ++counters[PM_COUNT_INCOMPLETE];
  setpoints->parts = 0;
  setpoints->has_classic_head = false;
}

// Rules 4 and 5; `ahead_us` is how far the due time lies ahead of now.
static bool is_fresh(const struct pm_setpoints* setpoints, const struct pm_set* set, uint64_t now_us, bool is_ahead,
                     uint32_t counters[PM_COUNTERS]) {
  if (!is_ahead || set->due_us <= now_us || (setpoints->has_accepted && set->due_us <= setpoints->due_us)) {
    ++counters[PM_COUNT_LATE];
    return false;
  }
  if (set->due_us - now_us > PM_DUE_AHEAD_US_MAX) {
    ++counters[PM_COUNT_EARLY];
    return false;
  }
  if (!setpoints->has_accepted || is_newer(set->token, setpoints->token)) return true;
  if (set->token == setpoints->token && now_us - setpoints->token_us <= PM_TOKEN_AGE_US_MAX) return true;
  ++counters[PM_COUNT_STALE_TOKEN];
  return false;
}

// Both are of the session and the sequence that is being put together.
static bool same_set(const struct pm_setpoint_part* a, const struct pm_setpoint_part* b) {
  return a->token == b->token && a->due_us == b->due_us && a->has_torque == b->has_torque;
}

static bool on_part(struct pm_setpoints* setpoints, const struct pm_can_frame* frame, uint64_t now_us,
                    uint32_t counters[PM_COUNTERS], struct pm_set* set) {
  struct pm_setpoint_part part;
  if (!pm_setpoint_unpack(frame, &part) || part.axis_count != setpoints->axis_count) {
    ++counters[PM_COUNT_MALFORMED];
    return false;
  }
  if (part.session != setpoints->session) {
    ++counters[PM_COUNT_WRONG_SESSION];
    return false;
  }
  const bool is_same = setpoints->parts != 0 && part.sequence == setpoints->head.sequence;
  const bool is_old = setpoints->parts != 0 && !is_same && !is_newer(part.sequence, setpoints->head.sequence);
  const uint32_t bit = 1u << part.part;
  if (!has_newer_sequence(setpoints, part.sequence) || is_old || (is_same && (setpoints->parts & bit) != 0)) {
    ++counters[PM_COUNT_REPLAYED];
    return false;
  }
  if (is_same && !same_set(&part, &setpoints->head)) {
    ++counters[PM_COUNT_MALFORMED];
    abandon(setpoints, counters);
    return false;
  }
  if (!is_same) abandon(setpoints, counters);
  setpoints->head = part;
  setpoints->parts |= bit;
  memcpy(&setpoints->slots[part.part * PM_SLOTS_PER_PART], part.slots, sizeof part.slots);
  if (setpoints->parts != (1u << pm_part_count(setpoints->axis_count)) - 1u) return false;
  setpoints->parts = 0;
  const uint32_t ahead = part.due_us - (uint32_t)(now_us & 0xFFFFFFFFu);
  set->sequence = part.sequence;
  set->token = part.token;
  set->due_us = now_us + ahead;
  set->has_torque = part.has_torque;
  memcpy(set->slots, setpoints->slots, sizeof set->slots);
  return is_fresh(setpoints, set, now_us, ahead < 0x80000000u, counters);
}

static void on_classic_head(struct pm_setpoints* setpoints, const struct pm_can_frame* frame,
                            uint32_t counters[PM_COUNTERS]) {
  struct pm_classic_head head;
  if (!pm_classic_head_unpack(frame, &head)) {
    ++counters[PM_COUNT_MALFORMED];
    return;
  }
  // A head has no checksum of its own: one that is newer only by a wrong bit must not lock out those that follow it, so
  // a head gives way to any other that the last accepted set allows.
  const bool is_same = setpoints->has_classic_head && head.sequence == setpoints->classic_head.sequence;
  if (!has_newer_sequence(setpoints, head.sequence) || is_same) {
    ++counters[PM_COUNT_REPLAYED];
    return;
  }
  abandon(setpoints, counters);
  setpoints->has_classic_head = true;
  setpoints->classic_head = head;
}

// The values that no axis uses are zero, and the checksum of the set is right.
static bool is_intact(const struct pm_setpoints* setpoints, uint8_t part_count) {
  bool good = true;
  for (uint32_t i = 2u * setpoints->axis_count; i < (uint32_t)part_count * PM_VALUES_PER_PART; ++i) {
    good &= setpoints->values[i] == 0;
  }
  return good && setpoints->classic_head.set_crc ==
                     pm_classic_set_crc(&setpoints->classic_head, setpoints->session, setpoints->values, part_count);
}

static bool on_classic_part(struct pm_setpoints* setpoints, const struct pm_can_frame* frame, uint64_t now_us,
                            uint32_t counters[PM_COUNTERS], struct pm_set* set) {
  struct pm_classic_part part;
  const uint8_t part_count = pm_classic_part_count(setpoints->axis_count);
  if (!pm_classic_part_unpack(frame, &part) || part.part > part_count) {
    ++counters[PM_COUNT_MALFORMED];
    return false;
  }
  const struct pm_classic_head* head = &setpoints->classic_head;
  const uint32_t bit = 1u << part.part;
  if (!setpoints->has_classic_head || part.sequence_low != (head->sequence & 0xFFu) || (setpoints->parts & bit) != 0) {
    ++counters[PM_COUNT_REPLAYED];
    return false;
  }
  setpoints->parts |= bit;
  memcpy(&setpoints->values[(part.part - 1) * PM_VALUES_PER_PART], part.values, sizeof part.values);
  if (setpoints->parts != (1u << (part_count + 1)) - 2u) return false;
  setpoints->parts = 0;
  setpoints->has_classic_head = false;
  if (!is_intact(setpoints, part_count)) {
    ++counters[PM_COUNT_MALFORMED];
    return false;
  }
  const uint64_t now_100us = now_us / 100;
  const uint16_t ahead = (uint16_t)(head->due_100us - (uint16_t)(now_100us & 0xFFFFu));
  memset(set, 0, sizeof *set);
  set->sequence = head->sequence;
  set->token = head->token;
  set->due_us = (now_100us + ahead) * 100;
  const int32_t grid = (int32_t)(PM_POSITION_PER_RAD / PM_CLASSIC_POSITION_PER_RAD);
  for (uint32_t axis = 0; axis < setpoints->axis_count; ++axis) {
    set->slots[axis].position = setpoints->values[2 * axis] * grid;
    set->slots[axis].velocity = setpoints->values[2 * axis + 1];
  }
  return is_fresh(setpoints, set, now_us, ahead < 0x8000u, counters);
}

bool pm_setpoints_on_frame(struct pm_setpoints* setpoints, const struct pm_can_frame* frame, uint64_t now_us,
                           uint32_t counters[PM_COUNTERS], struct pm_set* set) {
  const bool is_classic = frame->id >= PM_ID_SETPOINT_CLASSIC;
  if (is_classic == setpoints->is_fd) {
    ++counters[PM_COUNT_OUT_OF_PLACE];
    return false;
  }
  if (!is_classic) return on_part(setpoints, frame, now_us, counters, set);
  if (frame->id == PM_ID_SETPOINT_CLASSIC) {
    on_classic_head(setpoints, frame, counters);
    return false;
  }
  return on_classic_part(setpoints, frame, now_us, counters, set);
}

void pm_setpoints_accept(struct pm_setpoints* setpoints, const struct pm_set* set, uint64_t now_us) {
  if (!setpoints->has_accepted || set->token != setpoints->token) setpoints->token_us = now_us;
  setpoints->has_accepted = true;
  setpoints->sequence = set->sequence;
  setpoints->token = set->token;
  setpoints->due_us = set->due_us;
}
