// The port to an STM32G474 with a 24 MHz crystal: FDCAN1 is the host's bus, FDCAN2 the drives'. UNTESTED ON HARDWARE:
// it compiles and links, nothing more is known.
//
//   PB8, PB9    FDCAN1 receive, transmit (alternate function 9), transceiver for 5 Mbit/s
//   PB12, PB13  FDCAN2 receive, transmit (alternate function 9)
//   PA5         lamp
//   PA0         emergency stop contact to ground, closed in normal operation; the pull-up makes an open wire a stop
//
// 170 MHz from the crystal; buses at 1 Mbit/s with the sample point at 80 %, FD data at 5 Mbit/s and 76 %. registers.h
// says where the addresses come from.
#include <stddef.h>
#include <string.h>

#include "firmware-bridge/board/board.h"
#include "firmware-bridge/board/flash_map.h"
#include "firmware-bridge/board/frame_ring.h"
#include "firmware-bridge/board/startup.h"
#include "firmware-bridge/board/stm32g4/registers.h"

enum { CLOCK_PER_US = 170, FLASH_WAITS = 4 };
enum {
  WATCHDOG_COUNTS = 200,  // of 125 us: 25 ms
  SUPPLY_LEVEL = 6,       // the highest threshold of the voltage detector, about 2.9 V
  STALE_US = 5000,        // a frame that the controller could not send for so long is cancelled
  BUS_OFF_US = 1000000,   // until a controller that left its bus returns: the bridge has long stopped the robot
};

// Nominal: 2 clocks a quantum, 1 + 67 + 17 = 85 quanta. Data: 1 clock, 1 + 25 + 8 = 34.
#define NOMINAL_TIMING ((17u - 1u) << 25 | (2u - 1u) << 16 | (67u - 1u) << 8 | (17u - 1u))
#define DATA_TIMING (1u << 23 | (1u - 1u) << 16 | (25u - 1u) << 8 | (8u - 1u) << 4 | (8u - 1u))
#define DELAY_OFFSET (26u << 8)  // the transmitter's own bit is compared at the sample point

static struct pm_frame_ring received[PM_BOARD_BUSES];
static uint64_t now_us;
static uint32_t timer_at;
static uint64_t queued_us[PM_BOARD_BUSES];   // when a frame was last given to the controller
static uint64_t bus_off_us[PM_BOARD_BUSES];  // since when it is off its bus; 0 it is not
// Not cleared by a reset; at power-on the memory's content is whatever it is, which serves as well.
static uint16_t boot_number __attribute__((section(".noinit")));

static const uint8_t lengths[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64};

static void read_element(const volatile uint32_t* element, struct pm_can_frame* frame) {
  const uint32_t head = element[0];
  const uint32_t form = element[1];
  memset(frame, 0, sizeof *frame);
  frame->is_extended = (head & ELEMENT_EXTENDED) != 0;
  frame->is_remote = (head & ELEMENT_REMOTE) != 0;
  frame->id = frame->is_extended ? head & 0x1FFFFFFFu : head >> 18 & 0x7FFu;
  frame->is_fd = (form & ELEMENT_FD) != 0;
  frame->is_bit_rate_switched = (form & ELEMENT_BIT_RATE_SWITCH) != 0;
  frame->data_bytes = lengths[form >> ELEMENT_LENGTH_AT & 0xFu];
  if (!frame->is_fd && frame->data_bytes > PM_CAN_CLASSIC_DATA_BYTES_MAX) {
    frame->data_bytes = PM_CAN_CLASSIC_DATA_BYTES_MAX;
  }
  for (uint32_t i = 0; i < frame->data_bytes; ++i) frame->data[i] = (uint8_t)(element[2 + i / 4] >> 8 * (i % 4));
}

static void take_frames(uint32_t bus) {
  FDCAN_IR(bus) = FDCAN_IR_RF0N;
  uint32_t status;
  while (((status = FDCAN_RXF0S(bus)) & FDCAN_RXF0S_FILL) != 0) {
    const uint32_t index = FDCAN_RXF0S_GET_INDEX(status);
    struct pm_can_frame* slot = pm_ring_slot(&received[bus]);
    if (slot != NULL) {
      read_element(FDCAN_RX_ELEMENT(bus, index), slot);
      pm_ring_commit(&received[bus]);
    }
    FDCAN_RXF0A(bus) = index;
  }
}

static void on_fdcan1(void) { take_frames(PM_BOARD_HOST_BUS); }
static void on_fdcan2(void) { take_frames(PM_BOARD_DRIVE_BUS); }

__attribute__((section(".vectors"), used)) static const union pm_vector vectors[16 + IRQS] = {
    [0] = {.stack_top = pm_stack_top},
    [1] = {.handler = pm_reset},
    [2] = {.handler = pm_stop},  // NMI and the faults
    [3] = {.handler = pm_stop},
    [4] = {.handler = pm_stop},
    [5] = {.handler = pm_stop},
    [6] = {.handler = pm_stop},
    [11] = {.handler = pm_stop},
    [12] = {.handler = pm_stop},
    [14] = {.handler = pm_stop},
    [15] = {.handler = pm_stop},
    [16 + IRQ_FDCAN1] = {.handler = on_fdcan1},
    [16 + IRQ_FDCAN2] = {.handler = on_fdcan2},
};

// First of all: a crystal that does not start then ends in one reset after the other, in silence.
void pm_board_start_watchdog(void) {
  IWDG_KR = IWDG_START;
  IWDG_KR = IWDG_UNLOCK;
  IWDG_PR = 0;  // 32 kHz / 4
  IWDG_RLR = WATCHDOG_COUNTS;
  while (IWDG_SR != 0) {
  }
  IWDG_KR = IWDG_FEED;
}

static void start_clocks(void) {
  RCC_APB1ENR1 |= RCC_APB1ENR1_PWR | RCC_APB1ENR1_TIM2 | RCC_APB1ENR1_FDCAN;
  RCC_AHB2ENR |= RCC_AHB2ENR_GPIOA | RCC_AHB2ENR_GPIOB;
  (void)RCC_AHB2ENR;  // the clocks are there after a read
  PWR_CR5 &= ~PWR_CR5_R1MODE;
  FLASH_ACR = (FLASH_ACR & ~FLASH_ACR_LATENCY_MASK) | FLASH_WAITS | FLASH_ACR_CACHES;
  while ((FLASH_ACR & FLASH_ACR_LATENCY_MASK) != FLASH_WAITS) {
  }
  RCC_CR |= RCC_CR_HSEON;
  while ((RCC_CR & RCC_CR_HSERDY) == 0) {
  }
  RCC_PLLCFGR = RCC_PLLCFGR_SOURCE_HSE | RCC_PLLCFGR_M(6u) | RCC_PLLCFGR_N(85u) | RCC_PLLCFGR_REN;
  RCC_CR |= RCC_CR_PLLON;
  while ((RCC_CR & RCC_CR_PLLRDY) == 0) {
  }
  // By half speed to full speed: a step from 16 to 170 MHz at once is too much for the regulator.
  RCC_CFGR = RCC_CFGR_HPRE_DIV2 | RCC_CFGR_SW_PLL;
  while ((RCC_CFGR & RCC_CFGR_SWS_PLL) != RCC_CFGR_SWS_PLL) {
  }
  for (volatile uint32_t i = 0; i < 100; ++i) {
  }
  RCC_CFGR = RCC_CFGR_SW_PLL;
  RCC_CCIPR |= RCC_CCIPR_FDCAN_PCLK1;
  PWR_CR2 = PWR_CR2_PVDE | PWR_CR2_PLS(SUPPLY_LEVEL);
  TIM2_PSC = CLOCK_PER_US - 1;
  TIM2_ARR = 0xFFFFFFFFu;
  TIM2_EGR = 1;
  TIM2_CR1 = 1;
}

static void start_pins(void) {
  const uint32_t pins[] = {8, 9, 12, 13};
  for (uint32_t i = 0; i < sizeof pins / sizeof pins[0]; ++i) {
    const uint32_t at = 2 * pins[i];
    GPIO_AFR(1, 1) = (GPIO_AFR(1, 1) & ~(0xFu << 4 * (pins[i] - 8))) | 9u << 4 * (pins[i] - 8);
    GPIO_OSPEEDR(1) |= 2u << at;
    GPIO_MODER(1) = (GPIO_MODER(1) & ~(3u << at)) | 2u << at;
  }
  GPIO_PUPDR(0) = (GPIO_PUPDR(0) & ~3u) | 1u;
  GPIO_MODER(0) = (GPIO_MODER(0) & ~(3u | 3u << 10)) | 1u << 10;
}

// Every frame goes to FIFO 0: the bridge counts what is foreign.
static void start_bus(uint32_t bus) {
  FDCAN_CCCR(bus) = FDCAN_CCCR_INIT;
  while ((FDCAN_CCCR(bus) & FDCAN_CCCR_INIT) == 0) {
  }
  FDCAN_CCCR(bus) = FDCAN_CCCR_INIT | FDCAN_CCCR_CCE;
  FDCAN_CCCR(bus) = FDCAN_CCCR_INIT | FDCAN_CCCR_CCE | FDCAN_CCCR_FDOE | FDCAN_CCCR_BRSE;
  FDCAN_NBTP(bus) = NOMINAL_TIMING;
  FDCAN_DBTP(bus) = DATA_TIMING;
  FDCAN_TDCR(bus) = DELAY_OFFSET;
  for (uint32_t i = 0; i < FDCAN_RAM_WORDS; ++i) REGISTER(FDCAN_RAM(bus) + 4 * i) = 0;
  FDCAN_RXGFC(bus) = 0;
  FDCAN_TXBC(bus) = 0;  // a FIFO: frames leave in order
  FDCAN_IE(bus) = FDCAN_IR_RF0N;
  FDCAN_ILE(bus) = FDCAN_ILE_LINE0;
  FDCAN_CCCR(bus) &= ~FDCAN_CCCR_INIT;
}

void pm_board_init(void) {
  pm_board_start_watchdog();
  ++boot_number;
  start_clocks();
  start_pins();
  for (uint32_t bus = 0; bus < PM_BOARD_BUSES; ++bus) start_bus(bus);
  NVIC_ENABLE(IRQ_FDCAN1) = 1u << IRQ_FDCAN1 % 32;
  NVIC_ENABLE(IRQ_FDCAN2) = 1u << IRQ_FDCAN2 % 32;
}

// The timer wraps after 71 minutes; the loop asks far more often.
uint64_t pm_board_now_us(void) {
  const uint32_t value = TIM2_CNT;
  now_us += value - timer_at;
  timer_at = value;
  return now_us;
}

bool pm_board_has_fd(void) { return true; }

uint16_t pm_board_boot_number(void) { return boot_number; }

bool pm_board_receive(uint8_t* bus, struct pm_can_frame* frame) {
  for (*bus = 0; *bus < PM_BOARD_BUSES; ++*bus) {
    if (pm_ring_pop(&received[*bus], frame)) return true;
  }
  return false;
}

// A bus without a listener keeps its frames: they must not be sent when it comes back. One that left its bus returns
// after a while, when nothing of what it had to send matters any more.
static void watch_bus(uint8_t bus) {
  const uint64_t at_us = pm_board_now_us();
  if (FDCAN_TXBRP(bus) != 0 && at_us - queued_us[bus] > STALE_US) FDCAN_TXBCR(bus) = FDCAN_TXBRP(bus);
  if ((FDCAN_PSR(bus) & FDCAN_PSR_BUS_OFF) == 0) {
    bus_off_us[bus] = 0;
  } else if (bus_off_us[bus] == 0) {
    bus_off_us[bus] = at_us;
  } else if (at_us - bus_off_us[bus] > BUS_OFF_US) {
    bus_off_us[bus] = 0;
    FDCAN_CCCR(bus) &= ~FDCAN_CCCR_INIT;
  }
}

bool pm_board_can_transmit(uint8_t bus) {
  watch_bus(bus);
  return (FDCAN_TXFQS(bus) & FDCAN_TXFQS_FREE) != 0 && (FDCAN_CCCR(bus) & FDCAN_CCCR_INIT) == 0;
}

void pm_board_transmit(uint8_t bus, const struct pm_can_frame* frame) {
  uint32_t code = 0;
  while (code < 15 && lengths[code] < frame->data_bytes) ++code;
  if (lengths[code] != frame->data_bytes) return;
  const uint32_t index = FDCAN_TXFQS_PUT_INDEX(FDCAN_TXFQS(bus));
  volatile uint32_t* element = FDCAN_TX_ELEMENT(bus, index);
  element[0] =
      (frame->is_extended ? frame->id | ELEMENT_EXTENDED : frame->id << 18) | (frame->is_remote ? ELEMENT_REMOTE : 0u);
  element[1] = code << ELEMENT_LENGTH_AT | (frame->is_fd ? ELEMENT_FD : 0u) |
               (frame->is_bit_rate_switched ? ELEMENT_BIT_RATE_SWITCH : 0u);
  // The message RAM takes whole words only.
  for (uint32_t i = 0; i < (frame->data_bytes + 3u) / 4; ++i) {
    uint32_t word;
    memcpy(&word, &frame->data[4 * i], sizeof word);
    element[2 + i] = word;
  }
  queued_us[bus] = pm_board_now_us();
  FDCAN_TXBAR(bus) = 1u << index;
}

bool pm_board_is_estop(void) { return (GPIO_IDR(0) & 1u) != 0; }

bool pm_board_is_supply_low(void) { return (PWR_SR2 & PWR_SR2_PVDO) != 0; }

void pm_board_feed_watchdog(void) { IWDG_KR = IWDG_FEED; }

void pm_board_set_led(bool is_on) { GPIO_BSRR(0) = is_on ? 1u << 5 : 1u << 21; }

// Pages of 2 KiB, written in double words. A page takes some 22 ms to erase: the watchdog, 25 ms, is fed right before.
// The slot that does not run is in the other bank, so that the processor goes on meanwhile; the record is in the first
// bank, and a firmware in slot A stands still while its page is erased, which happens once in 64 records, disarmed.
enum { PAGE_BYTES = 2048, SLOT_BYTES = 0x38000, FLASH_BASE = 0x08000000, BANK_BYTES = 0x40000 };

static bool flash_is_done(void) {
  while ((FLASH_SR & FLASH_SR_BUSY) != 0) {
  }
  const bool is_good = (FLASH_SR & FLASH_SR_ERRORS) == 0;
  FLASH_SR = FLASH_SR_ERRORS;
  FLASH_CR = FLASH_CR_LOCK;
  // What the data cache holds of it is old.
  FLASH_ACR &= ~FLASH_ACR_DATA_CACHE;
  FLASH_ACR |= FLASH_ACR_DATA_RESET;
  FLASH_ACR &= ~FLASH_ACR_DATA_RESET;
  FLASH_ACR |= FLASH_ACR_DATA_CACHE;
  return is_good;
}

static void flash_unlock(void) {
  FLASH_KEYR = FLASH_KEY_1;
  FLASH_KEYR = FLASH_KEY_2;
  FLASH_SR = FLASH_SR_ERRORS;
}

static bool erase_page(void* context, enum pm_flash_region region, uint32_t offset) {
  (void)context;
  const uint32_t at = pm_flash_address(region, PAGE_BYTES, offset) - FLASH_BASE;
  const uint32_t page = at % BANK_BYTES / PAGE_BYTES;
  IWDG_KR = IWDG_FEED;
  flash_unlock();
  const uint32_t what = FLASH_CR_ERASE_PAGE | FLASH_CR_PAGE(page) | (at >= BANK_BYTES ? FLASH_CR_BANK_2 : 0u);
  FLASH_CR = what;
  FLASH_CR = what | FLASH_CR_START;
  return flash_is_done();
}

static bool write_units(void* context, enum pm_flash_region region, uint32_t offset, const uint8_t* bytes,
                        uint32_t count) {
  (void)context;
  flash_unlock();
  FLASH_CR = FLASH_CR_PROGRAM;
  for (uint32_t at = 0; at < count; at += PM_FLASH_UNIT_BYTES) {
    volatile uint32_t* to = (volatile uint32_t*)(uintptr_t)pm_flash_address(region, PAGE_BYTES, offset + at);
    uint32_t words[2];
    memcpy(words, bytes + at, sizeof words);
    to[0] = words[0];
    __asm volatile("isb" ::: "memory");
    to[1] = words[1];
    while ((FLASH_SR & FLASH_SR_BUSY) != 0) {
    }
  }
  return flash_is_done();
}

static void read_bytes(void* context, enum pm_flash_region region, uint32_t offset, uint8_t* bytes, uint32_t count) {
  (void)context;
  memcpy(bytes, (const void*)(uintptr_t)pm_flash_address(region, PAGE_BYTES, offset), count);
}

const struct pm_flash* pm_board_flash(void) {
  static struct pm_flash flash = {NULL, PAGE_BYTES, SLOT_BYTES, {0, 0}, erase_page, write_units, read_bytes};
  flash.address[PM_SLOT_A] = (uint32_t)pm_slot_a_origin;
  flash.address[PM_SLOT_B] = (uint32_t)pm_slot_b_origin;
  return &flash;
}

uint8_t pm_board_slot(void) { return pm_linked_slot(); }

uint32_t pm_board_id(void) { return 0x34473253u; }  // "S2G4"

void pm_board_restart(void) { pm_restart(); }

// Nothing to sleep for: the loop asks the timer.
void pm_board_wait(void) {}
