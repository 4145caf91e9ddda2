// The bounded queue of frames that the port drains onto its buses. When it is full the newest frame is dropped and
// counted; a motion command that waited too long is dropped at the exit, so that a stalled bus never replays old
// movement.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/can_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PM_QUEUE_FRAMES = 96, PM_MOTION_AGE_US_MAX = 5000 };

struct pm_output {
  uint8_t bus;
  bool is_motion;  // holds or moves an axis, or powers it: worthless when late
  uint64_t queued_us;
  struct pm_can_frame frame;
};

struct pm_queue {
  struct pm_output outputs[PM_QUEUE_FRAMES];  // ring
  uint32_t first;
  uint32_t count;
};

void pm_queue_clear(struct pm_queue* queue);
bool pm_queue_push(struct pm_queue* queue, const struct pm_output* output);
// The oldest frame that is still worth sending. Adds the stale ones to *dropped.
bool pm_queue_pop(struct pm_queue* queue, uint64_t now_us, struct pm_output* output, uint32_t* dropped);
// Takes out everything that holds or moves.
void pm_queue_drop_motion(struct pm_queue* queue);

#ifdef __cplusplus
}
#endif
