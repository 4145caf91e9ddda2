// The patterns and which of them counts; see led.h.
#include "firmware-bridge/led.h"

// clang-format off
static const uint16_t of_host[PM_INDICATIONS] = {
  [PM_INDICATE_STARTING] = 0x00FF,     // one second on, one off
  [PM_INDICATE_WAITING] = 0x0015,      // three short flashes
  [PM_INDICATE_READY] = 0x0005,        // two short flashes
  [PM_INDICATE_HOLDING] = 0x7FFF,      // lit, with one short gap
  [PM_INDICATE_RUNNING] = 0xFFFF,      // lit
  [PM_INDICATE_FAULT] = 0x5555,        // fast
  [PM_INDICATE_MAINTENANCE] = 0x3333,  // quarter of a second on and off
};
static const uint16_t of_state[PM_STATES] = {
  [PM_STATE_SILENT] = 0x0001,          // one short flash in two seconds
  [PM_STATE_DISARMED] = 0x0101,        // one short flash a second
  [PM_STATE_HOLDING] = 0x7FFF,
  [PM_STATE_FOLLOWING] = 0xFFFF,
  [PM_STATE_SLOWING] = 0xFFFF,
  [PM_STATE_STOPPING] = 0xFFFF,
  [PM_STATE_FAULT] = 0x5555,
};
// clang-format on
enum { UPDATING = 0x0F0F };  // half a second on and off

uint16_t pm_led_pattern(const struct pm_bridge* bridge, uint64_t now_us) {
  if (bridge->faults.first.code != PM_FAULT_NONE) return of_state[PM_STATE_FAULT];
  if (!pm_update_is_idle(&bridge->update)) return UPDATING;
  const bool is_fresh = bridge->has_indication && now_us - bridge->indication_us <= PM_INDICATION_US_MAX;
  return is_fresh ? of_host[bridge->indication] : of_state[bridge->state];
}

bool pm_led_is_on(uint16_t pattern, uint64_t now_us) {
  return (pattern >> now_us / PM_LED_STEP_US % PM_LED_STEPS & 1u) != 0;
}
