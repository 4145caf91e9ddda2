// What the bridge's one lamp says: a pattern of sixteen eighths of a second, over and over. The bridge's own fault and
// an update come first, then what the host last let it say, while that is fresh, then the bridge's own state. The table
// in words: docs/FIRMWARE.md. It has no influence on anything.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "firmware-bridge/bridge.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PM_LED_STEP_US = 125000, PM_LED_STEPS = 16, PM_INDICATION_US_MAX = 3000000 };

// Bit n: lit in the n-th eighth of a second.
uint16_t pm_led_pattern(const struct pm_bridge* bridge, uint64_t now_us);
bool pm_led_is_on(uint16_t pattern, uint64_t now_us);
// Of the boot loader that found no firmware.
#define PM_LED_BOOT_LOADER 0x0055u

#ifdef __cplusplus
}
#endif
