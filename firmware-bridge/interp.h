// Between setpoints: a cubic from knot to knot, continuous in position and velocity (C1), sampled at every tick. Knows
// no limits: what it yields still passes pm_limits_step.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "firmware-bridge/limits.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PM_KNOTS_MAX = 16 };

struct pm_knot {
  uint64_t at_us;
  struct pm_reference axes[PM_AXES_MAX];
};

struct pm_interp {
  struct pm_knot knots[PM_KNOTS_MAX];  // ring, oldest first; the first one has been passed
  uint32_t first;
  uint32_t count;
};

// Begins anew from where the axes are.
void pm_interp_start(struct pm_interp* interp, uint64_t now_us, const struct pm_reference* axes, uint8_t axis_count);
// False when the ring is full or the knot is not later than the last one.
bool pm_interp_add(struct pm_interp* interp, const struct pm_knot* knot);
// Forgets what is past. False when now_us lies behind the last knot: the stream ran dry.
bool pm_interp_advance(struct pm_interp* interp, uint64_t now_us);
// After a pm_interp_advance that returned true.
void pm_interp_sample(const struct pm_interp* interp, uint64_t now_us, uint8_t axis, struct pm_reference* wanted);

#ifdef __cplusplus
}
#endif
