// The bridge's state machine as a table, its tick, and the commands to the drives. Every state but SILENT leads to
// SILENT; no state moves an axis without an armed session and fresh setpoints. See bridge.h and docs/SAFETY.md.
#include "firmware-bridge/bridge.h"

#include <stddef.h>
#include <string.h>

#include "firmware-bridge/internal.h"

enum { POLL_US = 10000 };
#define FIRST_SET_RAD 0.02
#define FIRST_SET_RAD_S 0.05f

static void send_command(struct pm_bridge* bridge, uint8_t axis, enum pm_drive_command command) {
  const struct pm_reference* reference = &bridge->axes[axis];
  const bool is_moving = command == PM_DRIVE_MOVE;
  const struct pm_drive_setpoint setpoint = {
      .command = command,
      .position_rad = (float)reference->position_rad,
      .velocity_rad_s = is_moving ? reference->velocity_rad_s : 0.0f,
      .torque_Nm = reference->torque_Nm,
  };
  struct pm_can_frame frame;
  if (bridge->config.drive.encode(bridge->config.drive.context, axis, &setpoint, &frame)) {
    pm_send(bridge, bridge->config.drive_bus[axis], command != PM_DRIVE_DISABLE, &frame);
  } else {
    ++bridge->counters[PM_COUNT_DROPPED];
  }
}

static void disable_drives(struct pm_bridge* bridge) {
  for (uint8_t axis = 0; axis < bridge->config.axis_count; ++axis) send_command(bridge, axis, PM_DRIVE_DISABLE);
  bridge->poll_us = bridge->seen.now_us;
}

static void act_nothing(struct pm_bridge* bridge) { (void)bridge; }

// The reference is where the robot is. Of an armed robot only ARM says so; without power it always holds.
static void refer_to_measured(struct pm_bridge* bridge) {
  for (uint8_t axis = 0; axis < bridge->config.axis_count; ++axis) {
    memset(&bridge->axes[axis], 0, sizeof bridge->axes[axis]);
    bridge->axes[axis].position_rad = (double)bridge->seen.axes[axis].feedback.position_rad;
    bridge->changed_rad[axis] = bridge->axes[axis].position_rad;
  }
}

static void act_arm(struct pm_bridge* bridge) {
  refer_to_measured(bridge);
  bridge->seen.is_powered = true;
  bridge->seen.has_first_set = false;
  bridge->seen.armed_us = bridge->seen.now_us;
}

static void act_stop(struct pm_bridge* bridge) { bridge->seen.stop_us = bridge->seen.now_us; }

static void act_power_off(struct pm_bridge* bridge) {
  bridge->seen.is_powered = false;
  pm_queue_drop_motion(&bridge->queue);
  disable_drives(bridge);
}

// At rest with a fault: the strongest fault says whether power stays.
static void act_settle(struct pm_bridge* bridge) {
  if (bridge->faults.strongest > PM_ACT_HOLD) act_power_off(bridge);
}

static void act_clear(struct pm_bridge* bridge) {
  act_power_off(bridge);
  pm_faults_clear(&bridge->faults);
  bridge->seen.is_estop_latched = false;
  bridge->limits.is_corrupt = false;
}

static void act_silence(struct pm_bridge* bridge) {
  pm_queue_clear(&bridge->queue);
  if (bridge->seen.is_powered) disable_drives(bridge);
  bridge->seen.is_powered = false;
  bridge->is_challenge_open = false;
}

#define IN(state) (1u << PM_STATE_##state)
#define POWERED (IN(HOLDING) | IN(FOLLOWING) | IN(SLOWING) | IN(STOPPING))
#define ANY (POWERED | IN(SILENT) | IN(DISARMED) | IN(FAULT))
#define ROW(from, trigger, to, act, why) \
  { from, PM_TRIGGER_##trigger, PM_STATE_##to, act_##act, why }
// clang-format off
const struct pm_transition pm_transitions[] = {
  //  from                         trigger        to         action     why
  ROW(IN(SILENT) | IN(DISARMED),   HELLO,         DISARMED,  nothing,   "a host that speaks this version is there"),
  ROW(IN(SILENT),                  HELLO_FAULTED, FAULT,     nothing,   "silence clears nothing"),
  ROW(IN(DISARMED),                ARM,           HOLDING,   arm,       "power on, where the robot is"),
  ROW(IN(HOLDING) | IN(FOLLOWING), SET,           FOLLOWING, nothing,   "fresh setpoints move the robot"),
  ROW(IN(SLOWING),                 SET,           FOLLOWING, nothing,   "the stream is back in time"),
  ROW(IN(FOLLOWING),               DRY,           SLOWING,   nothing,   "the last setpoint is past"),
  ROW(IN(SLOWING),                 REST,          HOLDING,   nothing,   "the robot stands"),
  ROW(IN(HOLDING),                 DISARM,        DISARMED,  power_off, "the host lets go of a standing robot"),
  ROW(IN(FOLLOWING) | IN(SLOWING), DISARM,        STOPPING,  stop,      "stop first, then let go"),
  ROW(IN(FAULT),                   DISARM,        FAULT,     power_off, "the host lets go of a held robot"),
  ROW(IN(STOPPING),                REST,          DISARMED,  power_off, "the stop that DISARM asked for is done"),
  ROW(IN(STOPPING),                REST_FAULTED,  FAULT,     settle,    "the stop that a fault asked for is done"),
  ROW(IN(HOLDING) | IN(FOLLOWING), FAULT,         STOPPING,  stop,      "controlled stop"),
  ROW(IN(SLOWING),                 FAULT,         STOPPING,  stop,      "controlled stop, already begun"),
  ROW(IN(STOPPING),                FAULT,         STOPPING,  nothing,   "one more fault on the way to rest"),
  ROW(IN(DISARMED),                FAULT,         FAULT,     power_off, "nothing moves, but it is latched"),
  ROW(IN(FAULT),                   FAULT,         FAULT,     settle,    "a worse fault takes a held robot's power"),
  ROW(POWERED,                     FAULT_OFF,     FAULT,     power_off, "not even a controlled stop can be trusted"),
  ROW(IN(DISARMED) | IN(FAULT),    FAULT_OFF,     FAULT,     power_off, "latched, whatever was there"),
  ROW(IN(FAULT),                   CLEAR,         DISARMED,  clear,     "the cause is gone and the host says so"),
  ROW(ANY,                         SILENCE,       SILENT,    silence,   "power off, then nothing"),
};
// clang-format on
const uint32_t pm_transition_count = sizeof pm_transitions / sizeof pm_transitions[0];

bool pm_bridge_trigger(struct pm_bridge* bridge, enum pm_trigger trigger) {
  for (uint32_t i = 0; i < pm_transition_count; ++i) {
    const struct pm_transition* row = &pm_transitions[i];
    if (row->trigger != trigger || (row->from >> bridge->state & 1u) == 0) continue;
    bridge->state = row->to;
    row->act(bridge);
    return true;
  }
  return false;
}

static bool makes_sense(const struct pm_bridge_config* config) {
  return config->axis_count >= 1 && config->axis_count <= PM_AXES_MAX && config->tick_us >= 1 &&
         config->tick_us <= PM_TICK_GAP_US_MAX && config->drive_divider >= 1 && config->drive.encode != NULL &&
         config->drive.decode != NULL && config->tracking_max_rad > 0;
}

bool pm_bridge_init(struct pm_bridge* bridge, const struct pm_bridge_config* config, uint64_t now_us) {
  memset(bridge, 0, sizeof *bridge);
  bridge->state = PM_STATE_SILENT;
  pm_faults_clear(&bridge->faults);
  if (!makes_sense(config)) return false;
  bridge->config = *config;
  bridge->seen.now_us = now_us;
  bridge->tick_us = now_us;
  bridge->seen.axis_count = config->axis_count;
  bridge->seen.tracking_max_rad = config->tracking_max_rad;
  for (uint8_t axis = 0; axis < config->axis_count; ++axis) {
    bridge->seen.axes[axis].frozen_max_rad = config->frozen_max_rad[axis];
  }
  bridge->seen.limits = &bridge->limits;
  bridge->nonce = (uint32_t)config->boot << 16;
  bridge->unhealthy_us = now_us;
  pm_update_init(&bridge->update, &config->update);
  pm_limits_init(&bridge->limits, config->axis_count, (const int32_t(*)[PM_LIMIT_FIELDS])config->ceiling);
  return true;
}

static struct pm_reference reference_of(const struct pm_set* set, uint8_t axis) {
  const struct pm_slot* slot = &set->slots[axis];
  const struct pm_reference reference = {
      .position_rad = slot->position / PM_POSITION_PER_RAD,
      .velocity_rad_s = (float)(slot->velocity / PM_VELOCITY_PER_RAD_S),
      .torque_Nm = (float)(slot->torque / PM_TORQUE_PER_NM),
  };
  return reference;
}

// Rule 6: the first set meets a standing robot, powered, where it is.
static bool may_begin(const struct pm_bridge* bridge, const struct pm_knot* knot) {
  for (uint8_t axis = 0; axis < bridge->config.axis_count; ++axis) {
    const struct pm_drive_feedback* feedback = &bridge->seen.axes[axis].feedback;
    const double away = knot->axes[axis].position_rad - (double)feedback->position_rad;
    const float velocity = knot->axes[axis].velocity_rad_s;
    if (!feedback->is_enabled) return false;
    if (away > FIRST_SET_RAD || away < -FIRST_SET_RAD) return false;
    if (velocity > FIRST_SET_RAD_S || velocity < -FIRST_SET_RAD_S) return false;
  }
  return true;
}

static void on_set(struct pm_bridge* bridge) {
  const struct pm_set* set = &bridge->set;
  struct pm_knot knot = {.at_us = set->due_us};
  uint32_t clamped = 0;
  for (uint8_t axis = 0; axis < bridge->config.axis_count; ++axis) {
    knot.axes[axis] = reference_of(set, axis);
    clamped += pm_limits_clamp(&bridge->limits.axes[axis], &knot.axes[axis]);
  }
  if (bridge->state == PM_STATE_HOLDING && !may_begin(bridge, &knot)) {
    ++bridge->counters[PM_COUNT_FIRST_REFUSED];
    return;
  }
  if (bridge->state != PM_STATE_FOLLOWING) {
    pm_interp_start(&bridge->interp, bridge->seen.now_us, bridge->axes, bridge->config.axis_count);
  }
  if (!pm_interp_add(&bridge->interp, &knot)) {
    ++bridge->counters[PM_COUNT_EARLY];  // the ring is full: the host is too far ahead
    return;
  }
  pm_setpoints_accept(&bridge->setpoints, set, bridge->seen.now_us);
  ++bridge->counters[PM_COUNT_ACCEPTED];
  bridge->counters[PM_COUNT_CLAMPED] += clamped;
  bridge->seen.fresh_us = bridge->seen.now_us;
  bridge->seen.token_us = bridge->setpoints.token_us;
  bridge->seen.has_first_set = true;
  (void)pm_bridge_trigger(bridge, PM_TRIGGER_SET);
}

static bool is_setpoint(const struct pm_can_frame* frame) {
  const uint32_t id = frame->id;
  return !frame->is_extended && !frame->is_remote &&
         ((id >= PM_ID_SETPOINT && id < PM_ID_SETPOINT + PM_PARTS_MAX) ||
          (id >= PM_ID_SETPOINT_CLASSIC && id <= PM_ID_SETPOINT_CLASSIC + PM_CLASSIC_PARTS_MAX));
}

static bool expects_sets(const struct pm_bridge* bridge) {
  return bridge->state == PM_STATE_HOLDING || bridge->state == PM_STATE_FOLLOWING || bridge->state == PM_STATE_SLOWING;
}

static bool is_finite(float value) { return value - value == 0.0f; }

static void on_drive_frame(struct pm_bridge* bridge, uint8_t bus, const struct pm_can_frame* frame) {
  struct pm_drive_feedback feedback;
  memset(&feedback, 0, sizeof feedback);
  const struct pm_drive* drive = &bridge->config.drive;
  if (!drive->decode(drive->context, bus, frame, &feedback) || feedback.axis >= bridge->config.axis_count ||
      bridge->config.drive_bus[feedback.axis] != bus || !is_finite(feedback.position_rad) ||
      !is_finite(feedback.velocity_rad_s) || !is_finite(feedback.torque_Nm)) {
    ++bridge->counters[PM_COUNT_DRIVE_UNKNOWN];
    return;
  }
  struct pm_axis_seen* axis = &bridge->seen.axes[feedback.axis];
  if (feedback.position_rad < axis->feedback.position_rad || feedback.position_rad > axis->feedback.position_rad) {
    bridge->changed_rad[feedback.axis] = bridge->axes[feedback.axis].position_rad;
  }
  axis->feedback = feedback;
  axis->has_feedback = true;
  axis->feedback_us = bridge->seen.now_us;
}

void pm_bridge_on_frame(struct pm_bridge* bridge, uint8_t bus, const struct pm_can_frame* frame, uint64_t now_us) {
  if (bridge->config.axis_count == 0) return;
  bridge->seen.now_us = now_us;
  if (bus != bridge->config.host_bus) {
    on_drive_frame(bridge, bus, frame);
  } else if (!is_setpoint(frame)) {
    pm_host_on_frame(bridge, frame);
  } else if (!expects_sets(bridge)) {
    ++bridge->counters[PM_COUNT_OUT_OF_PLACE];
  } else if (pm_setpoints_on_frame(&bridge->setpoints, frame, now_us, bridge->counters, &bridge->set)) {
    on_set(bridge);
  }
}

static void follow(struct pm_bridge* bridge, float dt_s) {
  for (uint8_t axis = 0; axis < bridge->config.axis_count; ++axis) {
    struct pm_reference wanted;
    pm_interp_sample(&bridge->interp, bridge->seen.now_us, axis, &wanted);
    bridge->seen.axes[axis].lag_rad = pm_limits_step(&bridge->limits.axes[axis], &bridge->axes[axis], &wanted, dt_s);
  }
}

static void slow(struct pm_bridge* bridge, float dt_s) {
  bool stands = true;
  for (uint8_t axis = 0; axis < bridge->config.axis_count; ++axis) {
    pm_limits_slow(&bridge->limits.axes[axis], &bridge->axes[axis], dt_s);
    stands &= bridge->axes[axis].velocity_rad_s == 0;
  }
  const bool is_clean = bridge->faults.first.code == PM_FAULT_NONE;
  if (stands) (void)pm_bridge_trigger(bridge, is_clean ? PM_TRIGGER_REST : PM_TRIGGER_REST_FAULTED);
}

static void move_axes(struct pm_bridge* bridge, float dt_s) {
  for (uint8_t axis = 0; axis < bridge->config.axis_count; ++axis) bridge->seen.axes[axis].lag_rad = 0;
  if (bridge->state == PM_STATE_FOLLOWING && !pm_interp_advance(&bridge->interp, bridge->seen.now_us)) {
    (void)pm_bridge_trigger(bridge, PM_TRIGGER_DRY);
  }
  if (bridge->state == PM_STATE_FOLLOWING) follow(bridge, dt_s);
  if (bridge->state == PM_STATE_SLOWING || bridge->state == PM_STATE_STOPPING) slow(bridge, dt_s);
  if (!bridge->seen.is_powered) refer_to_measured(bridge);
}

static void scan_faults(struct pm_bridge* bridge) {
  struct pm_seen* seen = &bridge->seen;
  seen->expects_sets = expects_sets(bridge);
  seen->is_stopping = bridge->state == PM_STATE_STOPPING;
  for (uint8_t axis = 0; axis < seen->axis_count; ++axis) {
    const double way = bridge->axes[axis].position_rad - bridge->changed_rad[axis];
    seen->axes[axis].reference_rad = (float)bridge->axes[axis].position_rad;
    seen->axes[axis].unseen_rad = (float)(way < 0 ? -way : way);
  }
  const enum pm_fault_action action = pm_faults_scan(&bridge->faults, seen);
  if (action == PM_ACT_NONE) return;
  (void)pm_bridge_trigger(bridge, action == PM_ACT_OFF ? PM_TRIGGER_FAULT_OFF : PM_TRIGGER_FAULT);
  pm_report_fault(bridge);
}

static enum pm_drive_command command_of(const struct pm_bridge* bridge, uint8_t axis) {
  // A drive that drops out later is not powered again behind the host's back: fault 13 stops the others.
  if (!bridge->seen.has_first_set) {
    const bool is_arming = bridge->state == PM_STATE_HOLDING;
    return is_arming && !bridge->seen.axes[axis].feedback.is_enabled ? PM_DRIVE_ENABLE : PM_DRIVE_HOLD;
  }
  const uint32_t moving = IN(FOLLOWING) | IN(SLOWING) | IN(STOPPING);
  return (moving >> bridge->state & 1u) != 0 ? PM_DRIVE_MOVE : PM_DRIVE_HOLD;
}

static void command_drives(struct pm_bridge* bridge) {
  if (!bridge->seen.is_powered) {
    if (bridge->seen.now_us - bridge->poll_us >= POLL_US) disable_drives(bridge);
    return;
  }
  if (++bridge->drive_ticks < bridge->config.drive_divider) return;
  bridge->drive_ticks = 0;
  for (uint8_t axis = 0; axis < bridge->config.axis_count; ++axis) {
    send_command(bridge, axis, command_of(bridge, axis));
  }
}

// Reachable, agreed with a host and without a fault for a while: what a firmware on trial has to show.
static void confirm_when_healthy(struct pm_bridge* bridge) {
  if (bridge->state != PM_STATE_DISARMED) bridge->unhealthy_us = bridge->seen.now_us;
  if (bridge->seen.now_us - bridge->unhealthy_us >= PM_HEALTHY_US) pm_update_confirm(&bridge->update);
}

void pm_bridge_tick(struct pm_bridge* bridge, uint64_t now_us) {
  if (bridge->config.axis_count == 0) return;
  bridge->seen.tick_gap_us = now_us - bridge->tick_us;
  bridge->tick_us = now_us;
  bridge->seen.now_us = now_us;
  pm_update_tick(&bridge->update, now_us);
  confirm_when_healthy(bridge);
  if (bridge->state == PM_STATE_SILENT) return;
  // A late tick covers what really passed, up to the gap that is a fault; a clock that runs backwards counts as the
  // longest gap.
  const uint64_t gap_us = bridge->seen.tick_gap_us;
  const uint64_t dt_us = gap_us < 1 ? 1 : gap_us > PM_TICK_GAP_US_MAX ? PM_TICK_GAP_US_MAX : gap_us;
  pm_limits_scrub(&bridge->limits);
  move_axes(bridge, (float)dt_us * 1e-6f);
  scan_faults(bridge);
  command_drives(bridge);
  pm_report_tick(bridge);
}

bool pm_bridge_pop(struct pm_bridge* bridge, uint64_t now_us, struct pm_output* output) {
  bridge->seen.is_queue_full = false;
  return pm_queue_pop(&bridge->queue, now_us, output, &bridge->counters[PM_COUNT_DROPPED]);
}

void pm_bridge_set_estop(struct pm_bridge* bridge, bool is_pressed) { bridge->seen.is_estop_input = is_pressed; }

void pm_bridge_silence(struct pm_bridge* bridge, uint64_t now_us) {
  bridge->seen.now_us = now_us;
  (void)pm_bridge_trigger(bridge, PM_TRIGGER_SILENCE);
}
