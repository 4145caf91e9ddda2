// The boot loader: chooses a slot (slots.h) and starts it. When there is none it stays, asks nothing of anybody, and
// answers what the firmware itself is asked on the host's bus, so that a board can be filled or saved without a
// debugger. It knows no drive and sends nothing on their bus: motors have no power, because nobody enables them and
// their own watchdogs have ended what was there before.
#include "firmware-bridge/board/board.h"
#include "firmware-bridge/board/startup.h"
#include "firmware-bridge/led.h"
#include "firmware-bridge/update.h"

static struct pm_update update;

static void start(uint8_t slot) {
  const uint32_t* vectors = (const uint32_t*)(uintptr_t)(pm_board_flash()->address[slot] + PM_IMAGE_HEADER_BYTES);
  pm_board_start_watchdog();
  pm_start_image(vectors);
}

static void serve(uint64_t now_us) {
  uint8_t bus;
  struct pm_can_frame frame, answer;
  while (pm_board_can_transmit(PM_BOARD_HOST_BUS) && pm_board_receive(&bus, &frame)) {
    if (bus == PM_BOARD_HOST_BUS && pm_update_on_frame(&update, &frame, true, now_us, &answer) == PM_UPDATE_ANSWERED)
      pm_board_transmit(PM_BOARD_HOST_BUS, &answer);
  }
  pm_update_tick(&update, now_us);
  pm_board_set_led(pm_led_is_on(PM_LED_BOOT_LOADER, now_us));
  if (pm_update_wants_restart(&update, now_us)) pm_board_restart();
}

int main(void) {
  const uint8_t slot = pm_boot_choose(pm_board_flash());
  if (slot != PM_SLOT_NONE) start(slot);
  const struct pm_update_config config = {pm_board_flash(), PM_SLOT_NONE, pm_board_id()};
  pm_board_init();
  pm_update_init(&update, &config);
  for (;;) {
    serve(pm_board_now_us());
    pm_board_feed_watchdog();
    pm_board_wait();
  }
}
