// From frames to one complete, fresh set of setpoints: rules 1 to 5 of "What makes a set fresh" in protocol/README.md.
// Whatever does not count is counted and changes nothing. Knows neither limits nor states.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/frames.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pm_counter {
  PM_COUNT_FOREIGN,
  PM_COUNT_MALFORMED,
  PM_COUNT_OUT_OF_PLACE,
  PM_COUNT_WRONG_SESSION,
  PM_COUNT_REPLAYED,
  PM_COUNT_INCOMPLETE,
  PM_COUNT_LATE,
  PM_COUNT_EARLY,
  PM_COUNT_STALE_TOKEN,
  PM_COUNT_FIRST_REFUSED,
  PM_COUNT_ACCEPTED,
  PM_COUNT_CLAMPED,
  PM_COUNT_DROPPED,
  PM_COUNT_DRIVE_UNKNOWN,
  PM_COUNTERS,
};

enum { PM_DUE_AHEAD_US_MAX = 100000 };

struct pm_set {
  uint16_t sequence;
  uint16_t token;
  uint64_t due_us;
  bool has_torque;
  struct pm_slot slots[PM_AXES_MAX];  // position 1e-7 rad, velocity 1e-3 rad/s, torque 1e-2 N m
};

struct pm_setpoints {
  uint8_t axis_count;
  bool is_fd;
  uint16_t session;
  bool has_accepted;  // a set, in this session: the next three are its
  uint16_t sequence;
  uint16_t token;
  uint64_t due_us;
  uint64_t token_us;  // when the token last advanced
  // The set that is being put together.
  uint32_t parts;  // bit per part that is here; 0 when nothing is
  struct pm_setpoint_part head;
  struct pm_slot slots[PM_PARTS_MAX * PM_SLOTS_PER_PART];
  bool has_classic_head;
  struct pm_classic_head classic_head;
  int16_t values[PM_CLASSIC_PARTS_MAX * PM_VALUES_PER_PART];
};

// A new session: what came before is forgotten.
void pm_setpoints_begin(struct pm_setpoints* setpoints, uint8_t axis_count, bool is_fd, uint16_t session);
// Takes a frame with a setpoint's identifier. True when it completed a fresh set, which is then in *set.
bool pm_setpoints_on_frame(struct pm_setpoints* setpoints, const struct pm_can_frame* frame, uint64_t now_us,
                           uint32_t counters[PM_COUNTERS], struct pm_set* set);
// The bridge follows this set: the next one must be newer.
void pm_setpoints_accept(struct pm_setpoints* setpoints, const struct pm_set* set, uint64_t now_us);

#ifdef __cplusplus
}
#endif
