// A ring of outgoing frames; queue.h has its overflow policy. One writer and one reader, both called from the same
// context.
#include "firmware-bridge/queue.h"

void pm_queue_clear(struct pm_queue* queue) {
  queue->first = 0;
  queue->count = 0;
}

bool pm_queue_push(struct pm_queue* queue, const struct pm_output* output) {
  if (queue->count == PM_QUEUE_FRAMES) return false;
  queue->outputs[(queue->first + queue->count) % PM_QUEUE_FRAMES] = *output;
  ++queue->count;
  return true;
}

bool pm_queue_pop(struct pm_queue* queue, uint64_t now_us, struct pm_output* output, uint32_t* dropped) {
  while (queue->count > 0) {
    const struct pm_output* oldest = &queue->outputs[queue->first];
    queue->first = (queue->first + 1) % PM_QUEUE_FRAMES;
    --queue->count;
    if (oldest->is_motion && now_us - oldest->queued_us > PM_MOTION_AGE_US_MAX) {
      ++*dropped;
      continue;
    }
    *output = *oldest;
    return true;
  }
  return false;
}

void pm_queue_drop_motion(struct pm_queue* queue) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < queue->count; ++i) {
    const struct pm_output* output = &queue->outputs[(queue->first + i) % PM_QUEUE_FRAMES];
    if (!output->is_motion) queue->outputs[(queue->first + kept++) % PM_QUEUE_FRAMES] = *output;
  }
  queue->count = kept;
}
