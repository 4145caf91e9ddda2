// The firmware bridge: the last hop before the motors. Frames and time go in, frames come out of a bounded queue that
// the port drains; no register, no clock, no heap, so that the same code runs on the microcontroller and in the host's
// tests. docs/SAFETY.md has states and faults in words.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "firmware-bridge/drive.h"
#include "firmware-bridge/faults.h"
#include "firmware-bridge/interp.h"
#include "firmware-bridge/limits.h"
#include "firmware-bridge/queue.h"
#include "firmware-bridge/setpoints.h"
#include "firmware-bridge/update.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pm_state {
  PM_STATE_SILENT,     // sends nothing on any bus
  PM_STATE_DISARMED,   // reports, drives without power
  PM_STATE_HOLDING,    // drives powered at a fixed position
  PM_STATE_FOLLOWING,  // fresh setpoints
  PM_STATE_SLOWING,    // the stream ran dry: on the way to rest, a fresh set resumes
  PM_STATE_STOPPING,   // on the way to rest because of a fault or DISARM: nothing resumes
  PM_STATE_FAULT,      // latched
  PM_STATES,
};

enum pm_trigger {
  PM_TRIGGER_HELLO,          // a version was agreed, nothing is latched
  PM_TRIGGER_HELLO_FAULTED,  // a version was agreed, but a fault from before the silence is latched
  PM_TRIGGER_ARM,            // the challenge was answered and the checks passed
  PM_TRIGGER_SET,            // a fresh set was accepted
  PM_TRIGGER_DRY,            // the last setpoint is past
  PM_TRIGGER_REST,           // every axis stands, nothing is latched
  PM_TRIGGER_REST_FAULTED,   // every axis stands, a fault is latched
  PM_TRIGGER_DISARM,
  PM_TRIGGER_FAULT,      // controlled stop
  PM_TRIGGER_FAULT_OFF,  // power off
  PM_TRIGGER_CLEAR,      // the cause is gone and the host says so
  PM_TRIGGER_SILENCE,
  PM_TRIGGERS,
};

struct pm_bridge_config {
  uint8_t axis_count;  // 1 .. PM_AXES_MAX
  uint8_t host_bus;
  uint8_t drive_bus[PM_AXES_MAX];
  bool has_fd;             // the host bus can carry FD frames
  uint16_t boot;           // differs at each start
  uint32_t tick_us;        // 250: 4 kHz
  uint32_t drive_divider;  // ticks from one command of an axis to the next
  float tracking_max_rad;
  // How far an axis may be told to go while its measured position stays the same, bit for bit; 0: any way. Grippers
  // hold things: they need 0.
  float frozen_max_rad[PM_AXES_MAX];
  int32_t ceiling[PM_AXES_MAX][PM_LIMIT_FIELDS];  // wire units
  struct pm_drive drive;
  struct pm_update_config update;  // without a flash: the firmware cannot be replaced
};

enum { PM_HEALTHY_US = 1000000 };  // disarmed for so long after a HELLO: a firmware on trial is good

struct pm_bridge {
  struct pm_bridge_config config;
  enum pm_state state;
  bool is_fd_agreed;
  struct pm_seen seen;
  struct pm_faults faults;
  struct pm_limits limits;
  struct pm_setpoints setpoints;
  struct pm_interp interp;
  struct pm_queue queue;
  struct pm_reference axes[PM_AXES_MAX];  // where each axis is told to be
  struct pm_set set;                      // the one that is being judged
  double changed_rad[PM_AXES_MAX];        // the reference when the measured position last changed
  uint32_t counters[PM_COUNTERS];
  // Arming.
  bool is_challenge_open;
  uint32_t nonce;
  uint32_t host_nonce;
  uint64_t challenge_us;
  // Reports and polls.
  uint64_t tick_us;  // the last tick
  uint32_t drive_ticks;
  uint64_t poll_us, heartbeat_us, fault_report_us, counter_us, feedback_us;
  uint8_t next_counter;
  uint8_t next_axis;
  uint16_t feedback_sequence;
  // The firmware itself, and its lamp.
  struct pm_update update;
  uint64_t unhealthy_us;  // the last tick that was not disarmed and without fault
  bool has_indication;
  enum pm_indication indication;
  uint64_t indication_us;
};

// One row: in any of the states of `from` (bit per state), `trigger` leads to `to` and does `act` on the way.
struct pm_transition {
  uint32_t from;
  enum pm_trigger trigger;
  enum pm_state to;
  void (*act)(struct pm_bridge* bridge);
  const char* why;
};
extern const struct pm_transition pm_transitions[];
extern const uint32_t pm_transition_count;

// False when the configuration makes no sense: the bridge then stays silent whatever happens. The bridge points into
// itself: do not move it.
bool pm_bridge_init(struct pm_bridge* bridge, const struct pm_bridge_config* config, uint64_t now_us);
// A frame that arrived on `bus`.
void pm_bridge_on_frame(struct pm_bridge* bridge, uint8_t bus, const struct pm_can_frame* frame, uint64_t now_us);
// Every config.tick_us.
void pm_bridge_tick(struct pm_bridge* bridge, uint64_t now_us);
// The next frame to send; false when there is none.
bool pm_bridge_pop(struct pm_bridge* bridge, uint64_t now_us, struct pm_output* output);
// The level of an emergency stop input of the port.
void pm_bridge_set_estop(struct pm_bridge* bridge, bool is_pressed);
// Power off at once, then silence: for brown-outs and shutdown.
void pm_bridge_silence(struct pm_bridge* bridge, uint64_t now_us);

#ifdef __cplusplus
}
#endif
