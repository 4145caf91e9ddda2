// What a board gives the main loop: time, two kinds of buses, an emergency stop level, a supply warning, a watchdog.
// Every function returns at once; interrupt handlers behind them only move frames or bytes into rings with one writer
// and one reader, so that nothing has to be masked.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "firmware-bridge/slots.h"
#include "protocol/can_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  PM_BOARD_HOST_BUS = 0,
  PM_BOARD_DRIVE_BUS = 1,
  PM_BOARD_BUSES = 2,
};

// Clocks, buses, watchdog. The watchdog runs from here on.
void pm_board_init(void);
// Microseconds since pm_board_init; never goes back.
uint64_t pm_board_now_us(void);
// The host bus can carry FD frames.
bool pm_board_has_fd(void);
// Differs from one start to the next, as well as the board can.
uint16_t pm_board_boot_number(void);
// The oldest frame that arrived; false when there is none.
bool pm_board_receive(uint8_t* bus, struct pm_can_frame* frame);
// Is there room for one frame?
bool pm_board_can_transmit(uint8_t bus);
// Only after pm_board_can_transmit. A frame that the bus cannot carry is dropped.
void pm_board_transmit(uint8_t bus, const struct pm_can_frame* frame);
// True while the emergency stop input asks for a stop; an open wire asks too.
bool pm_board_is_estop(void);
// The supply falls: a few milliseconds are left.
bool pm_board_is_supply_low(void);
void pm_board_feed_watchdog(void);
// The watchdog alone, before pm_board_init: for the boot loader, so that an image that never comes so far is reset too.
void pm_board_start_watchdog(void);
void pm_board_set_led(bool is_on);
// The slots of this board; null when it has none.
const struct pm_flash* pm_board_flash(void);
// The slot that this code was linked for, PM_SLOT_NONE for the boot loader.
uint8_t pm_board_slot(void);
// Four letters that an image must name.
uint32_t pm_board_id(void);
// Starts anew, through the boot loader. Does not return on a board.
void pm_board_restart(void);
// Between two steps. May sleep when an interrupt wakes it at least once a tick.
void pm_board_wait(void);

#ifdef __cplusplus
}
#endif
