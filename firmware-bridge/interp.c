// Cubic Hermite interpolation between the knots of a short ring; see interp.h.
#include "firmware-bridge/interp.h"

#include <string.h>

static const struct pm_knot* knot_at(const struct pm_interp* interp, uint32_t index) {
  return &interp->knots[(interp->first + index) % PM_KNOTS_MAX];
}

void pm_interp_start(struct pm_interp* interp, uint64_t now_us, const struct pm_reference* axes, uint8_t axis_count) {
  interp->first = 0;
  interp->count = 1;
  interp->knots[0].at_us = now_us;
  memcpy(interp->knots[0].axes, axes, axis_count * sizeof axes[0]);
}

bool pm_interp_add(struct pm_interp* interp, const struct pm_knot* knot) {
  if (interp->count == PM_KNOTS_MAX || knot->at_us <= knot_at(interp, interp->count - 1)->at_us) return false;
  interp->knots[(interp->first + interp->count) % PM_KNOTS_MAX] = *knot;
  ++interp->count;
  return true;
}

bool pm_interp_advance(struct pm_interp* interp, uint64_t now_us) {
  // At most PM_KNOTS_MAX rounds: each one takes a knot away.
  while (interp->count > 1 && knot_at(interp, 1)->at_us < now_us) {
    interp->first = (interp->first + 1) % PM_KNOTS_MAX;
    --interp->count;
  }
  return interp->count > 1;
}

void pm_interp_sample(const struct pm_interp* interp, uint64_t now_us, uint8_t axis, struct pm_reference* wanted) {
  const struct pm_knot* from = knot_at(interp, 0);
  const struct pm_knot* to = knot_at(interp, 1);
  const struct pm_reference* a = &from->axes[axis];
  const struct pm_reference* b = &to->axes[axis];
  const float span_s = (float)(to->at_us - from->at_us) * 1e-6f;
  const float s = (float)(now_us - from->at_us) / (float)(to->at_us - from->at_us);
  const float distance = (float)(b->position_rad - a->position_rad);
  const float v0 = a->velocity_rad_s * span_s;
  const float v1 = b->velocity_rad_s * span_s;
  // h(s) = v0 s + c2 s^2 + c3 s^3 with h(1) = distance and h'(1) = v1.
  const float c2 = 3.0f * distance - 2.0f * v0 - v1;
  const float c3 = v0 + v1 - 2.0f * distance;
  wanted->position_rad = a->position_rad + (double)(((c3 * s + c2) * s + v0) * s);
  wanted->velocity_rad_s = ((3.0f * c3 * s + 2.0f * c2) * s + v0) / span_s;
  wanted->acceleration_rad_s2 = 0;
  wanted->torque_Nm = a->torque_Nm + (b->torque_Nm - a->torque_Nm) * s;
}
