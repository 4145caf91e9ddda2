// A firmware that replaces itself: takes a new image over the host's bus into the slot that does not run, checks it,
// and makes the next start its trial. Used by the bridge and by the boot loader. It knows frames, flash and time as
// arguments; no state of the robot but what the caller says, no register. Bytes and results: protocol/README.md.
//
//   idle --BEGIN--> erasing --> receiving --FINISH--> verifying --> verified --ACTIVATE--> restarting
//     ^                |            |                     |             |
//     +---- ABANDON, ten seconds without a frame, a flash that fails, a checksum that differs
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "firmware-bridge/slots.h"
#include "protocol/frames.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  PM_UPDATE_SILENCE_US_MAX = 10000000,  // the host is gone: arming is possible again
  PM_UPDATE_RESTART_US = 50000,         // for the answer to ACTIVATE to leave
  PM_UPDATE_REPORT_BYTES = 64,          // taken between two answers to data
  PM_UPDATE_FORCE = 1,                  // flag of BEGIN: an older version is meant
};

struct pm_update_config {
  const struct pm_flash* flash;  // null: this build has no slots and cannot be updated
  uint8_t running;               // slot, PM_SLOT_NONE for the boot loader
  uint32_t board;
};

// What became of a frame.
enum pm_update_verdict {
  PM_UPDATE_FOREIGN,
  PM_UPDATE_MALFORMED,
  PM_UPDATE_TAKEN,
  PM_UPDATE_ANSWERED,  // the answer is there
};

struct pm_update {
  struct pm_update_config config;
  struct pm_image_header own;  // of what runs; all 0 without
  bool is_trial;
  enum pm_update_state state;
  enum pm_update_result result;  // of what was last asked for, or why the update ended
  uint32_t asked[4];             // size, version, checksum, board, as they were set
  uint8_t slot;                  // that is written
  uint32_t size;                 // of the image
  uint32_t at;                   // erased, received or verified so far, bytes
  uint32_t crc, body_crc;        // of what was verified so far
  uint32_t reported;             // received when the host was last answered
  bool is_gap_reported;
  uint64_t heard_us;    // the host's last frame
  uint64_t restart_us;  // when ACTIVATE was taken
  uint8_t unit[PM_FLASH_UNIT_BYTES];
};

void pm_update_init(struct pm_update* update, const struct pm_update_config* config);
// A frame of the host. `is_at_rest`: silent or disarmed, the drives without power.
enum pm_update_verdict pm_update_on_frame(struct pm_update* update, const struct pm_can_frame* frame, bool is_at_rest,
                                          uint64_t now_us, struct pm_can_frame* answer);
// One step: a page erased, or 1 KiB verified. Regularly.
void pm_update_tick(struct pm_update* update, uint64_t now_us);
// While it is not, the robot may not be armed.
bool pm_update_is_idle(const struct pm_update* update);
// The port should start anew now.
bool pm_update_wants_restart(const struct pm_update* update, uint64_t now_us);
// What runs is good: its trial is over. Nothing without a trial.
void pm_update_confirm(struct pm_update* update);

#ifdef __cplusplus
}
#endif
