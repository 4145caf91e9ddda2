// The firmware: one robot's table (robot_config.h), one board (board.h), the loop. Everything lives in static memory.
#include <string.h>

#include "firmware-bridge/board/loop.h"
#include "firmware-bridge/board/robot_config.h"

static struct pm_loop loop;
static struct pm_damiao_drives drives;

static struct pm_bridge_config configure(void) {
  struct pm_bridge_config config;
  memset(&config, 0, sizeof config);
  // A table that makes no sense leaves no axes: the bridge then refuses the configuration and stays silent.
  config.axis_count = pm_damiao_drives_init(&drives, robot_axes, ROBOT_AXES) ? ROBOT_AXES : 0;
  config.host_bus = PM_BOARD_HOST_BUS;
  config.has_fd = pm_board_has_fd();
  config.boot = pm_board_boot_number();
  config.tick_us = ROBOT_TICK_US;
  config.drive_divider = ROBOT_DRIVE_DIVIDER;
  config.tracking_max_rad = ROBOT_TRACKING_MAX_RAD;
  for (uint8_t axis = 0; axis < ROBOT_AXES; ++axis) config.drive_bus[axis] = robot_axes[axis].bus;
  memcpy(config.ceiling, robot_ceilings, sizeof robot_ceilings);
  config.drive = pm_damiao_drive(&drives);
  config.update.flash = pm_board_flash();
  config.update.running = pm_board_slot();
  config.update.board = pm_board_id();
  return config;
}

int main(void) {
  pm_board_init();
  const struct pm_bridge_config config = configure();
  // Without a tick nothing feeds the watchdog: a firmware with a bad table resets for ever, in silence.
  if (!pm_loop_start(&loop, &config)) {
    for (;;) pm_board_wait();
  }
  for (;;) {
    pm_loop_step(&loop);
    pm_board_wait();
  }
}
