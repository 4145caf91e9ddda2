// One step of the main loop; loop.h has its place.
#include "firmware-bridge/board/loop.h"

#include <string.h>

#include "firmware-bridge/led.h"

bool pm_loop_start(struct pm_loop* loop, const struct pm_bridge_config* config) {
  memset(loop, 0, sizeof *loop);
  const uint64_t now_us = pm_board_now_us();
  loop->next_tick_us = now_us;
  return pm_bridge_init(&loop->bridge, config, now_us);
}

static void take_frames(struct pm_loop* loop) {
  uint8_t bus = 0;
  struct pm_can_frame frame;
  for (uint32_t i = 0; i < PM_LOOP_FRAMES_MAX && pm_board_receive(&bus, &frame); ++i) {
    pm_bridge_on_frame(&loop->bridge, bus, &frame, pm_board_now_us());
  }
}

// Power off while there is still power to say so. Once per dip: after it the host must say hello again.
static void watch_supply(struct pm_loop* loop, uint64_t now_us) {
  const bool is_low = pm_board_is_supply_low();
  if (is_low && !loop->was_supply_low) pm_bridge_silence(&loop->bridge, now_us);
  loop->was_supply_low = is_low;
}

// A tick that came late is not made up for: the bridge is told the time and judges the gap itself. The watchdog is fed
// here and nowhere else, so that it bites when ticks cease for whatever reason.
static void tick_when_due(struct pm_loop* loop, uint64_t now_us) {
  if (now_us < loop->next_tick_us) return;
  const uint32_t tick_us = loop->bridge.config.tick_us;
  loop->next_tick_us += tick_us;
  if (loop->next_tick_us <= now_us) loop->next_tick_us = now_us + tick_us;
  pm_bridge_set_estop(&loop->bridge, pm_board_is_estop());
  pm_bridge_tick(&loop->bridge, now_us);
  pm_board_set_led(pm_led_is_on(pm_led_pattern(&loop->bridge, now_us), now_us));
  pm_board_feed_watchdog();
}

// From the bridge's queue into those of the buses. Reports to a host that does not listen are dropped; when the drives'
// bus stands still frames stay with the bridge, which then sees that its queue is not drained (fault 16).
static void sort_frames(struct pm_loop* loop, uint64_t now_us) {
  struct pm_output output;
  while (loop->out[PM_BOARD_DRIVE_BUS].count < PM_QUEUE_FRAMES && pm_bridge_pop(&loop->bridge, now_us, &output)) {
    if (!pm_queue_push(&loop->out[output.bus], &output)) ++loop->dropped;
  }
}

static void send_frames(struct pm_loop* loop, uint64_t now_us) {
  struct pm_output output;
  for (uint8_t bus = 0; bus < PM_BOARD_BUSES; ++bus) {
    while (pm_board_can_transmit(bus) && pm_queue_pop(&loop->out[bus], now_us, &output, &loop->dropped)) {
      pm_board_transmit(bus, &output.frame);
    }
  }
}

void pm_loop_step(struct pm_loop* loop) {
  take_frames(loop);
  const uint64_t now_us = pm_board_now_us();
  watch_supply(loop, now_us);
  tick_when_due(loop, now_us);
  sort_frames(loop, now_us);
  send_frames(loop, now_us);
  if (pm_update_wants_restart(&loop->bridge.update, now_us)) pm_board_restart();
}
