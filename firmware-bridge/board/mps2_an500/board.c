// The emulated board: QEMU's mps2-an500 (Cortex-M7). The host's bus is serial line 0, which speaks slcan; the drives'
// bus ends at simulated motors inside the board (motors.h). Serial line 2 stands for the inputs of a real board, one
// letter each: E and e press and release the emergency stop, B and b lower and restore the supply, T and t make one
// motor hot and cool, M and m take and give its voice, H hangs the loop so that the watchdog can be seen to work. On
// the same line the board says how many motors have power, a digit at each change, and what its lamp does, L on, l off.
//
// Addresses and register fields: QEMU's hw/arm/mps2.c, hw/char/cmsdk-apb-uart.c, hw/timer/cmsdk-apb-dualtimer.c. Time
// is a free-running timer and not SysTick, whose periods are lost when the emulator falls behind. Never run on the
// FPGA.
#include <stddef.h>
#include <string.h>

#include "firmware-bridge/board/board.h"
#include "firmware-bridge/board/flash_map.h"
#include "firmware-bridge/board/mps2_an500/motors.h"
#include "firmware-bridge/board/slcan_port.h"
#include "firmware-bridge/board/startup.h"

#define REGISTER(address) (*(volatile uint32_t*)(address))

enum { CLOCK_PER_US = 25 };

// CMSDK APB UART: data, state, control, interrupt status, divider.
#define UART_BASE(n) (0x40004000u + 0x1000u * (n))
#define UART_DATA(n) REGISTER(UART_BASE(n) + 0x00)
#define UART_STATE(n) REGISTER(UART_BASE(n) + 0x04)
#define UART_CONTROL(n) REGISTER(UART_BASE(n) + 0x08)
#define UART_INTERRUPT(n) REGISTER(UART_BASE(n) + 0x0C)
#define UART_DIVIDER(n) REGISTER(UART_BASE(n) + 0x10)
enum { UART_TX_FULL = 1, UART_RX_FULL = 2 };               // state
enum { UART_TX_ON = 1, UART_RX_ON = 2, UART_RX_IRQ = 8 };  // control
enum { UART_RX_PENDING = 2 };                              // interrupt status
enum { UART_DIVIDER_MIN = 16 };

// CMSDK dual timer, its first half: counts down from 2^32 - 1 at 25 MHz and wraps.
#define DUAL_VALUE REGISTER(0x40002004u)
#define DUAL_CONTROL REGISTER(0x40002008u)
enum { DUAL_32_BIT = 2, DUAL_ON = 0x80 };

// CMSDK watchdog: the first expiry raises NMI, the second resets.
#define WATCHDOG_LOAD REGISTER(0x40008000u)
#define WATCHDOG_CONTROL REGISTER(0x40008008u)
#define WATCHDOG_CLEAR REGISTER(0x4000800Cu)
enum { WATCHDOG_IRQ = 1, WATCHDOG_RESET = 2, WATCHDOG_US = 25000 };

// FPGAIO: two lamps.
#define FPGAIO_LEDS REGISTER(0x40028000u)

#define NVIC_ENABLE REGISTER(0xE000E100u)
enum { IRQ_UART0_RX = 0, IRQ_UART2_RX = 4 };

enum { HOST_UART = 0, INPUT_UART = 2, UARTS = 3 };
enum { RX_BYTES = 4096, TX_BYTES = 4096, ANSWERS = 64 };  // rings: powers of two
enum { WAIT_TURNS = 12000 };

// One writer (the interrupt handler), one reader (the loop): each index is written by one side only.
struct byte_ring {
  uint8_t bytes[RX_BYTES];
  volatile uint32_t written;
  volatile uint32_t read;
  volatile uint32_t lost;
};

struct text_ring {
  char text[TX_BYTES];
  uint32_t written;
  uint32_t read;
};

static struct byte_ring received[UARTS];
static struct text_ring sending;
static struct pm_slcan line;
static struct pm_can_frame answers[ANSWERS];  // of the motors; one context, so plain indices
static uint32_t answers_written, answers_read;
static uint8_t powered_said;
static uint64_t now_us;
static uint32_t clock_at;    // the timer's value that now_us belongs to
static uint32_t clock_rest;  // of a microsecond, in clocks
static bool is_estop_pressed, is_supply_low;
static bool is_lit, is_lit_said;
// Survives a reset: the start-up code leaves it alone.
static uint16_t boot_number __attribute__((section(".noinit")));

static void take_byte(uint32_t uart) {
  struct byte_ring* ring = &received[uart];
  UART_INTERRUPT(uart) = UART_RX_PENDING;
  while ((UART_STATE(uart) & UART_RX_FULL) != 0) {
    const uint8_t byte = (uint8_t)UART_DATA(uart);
    if (ring->written - ring->read == RX_BYTES) {
      ++ring->lost;
    } else {
      ring->bytes[ring->written % RX_BYTES] = byte;
      ++ring->written;
    }
  }
}

static void on_uart0(void) { take_byte(HOST_UART); }
static void on_uart2(void) { take_byte(INPUT_UART); }

__attribute__((section(".vectors"), used)) static const union pm_vector vectors[16 + 32] = {
    {.stack_top = pm_stack_top},
    {.handler = pm_reset},  // then NMI (the watchdog) and the faults
    {.handler = pm_stop},
    {.handler = pm_stop},
    {.handler = pm_stop},
    {.handler = pm_stop},
    {.handler = pm_stop},
    [11] = {.handler = pm_stop},
    [12] = {.handler = pm_stop},
    [14] = {.handler = pm_stop},
    [15] = {.handler = pm_stop},
    [16 + IRQ_UART0_RX] = {.handler = on_uart0},
    [16 + IRQ_UART2_RX] = {.handler = on_uart2},
};

void pm_board_start_watchdog(void) {
  WATCHDOG_LOAD = WATCHDOG_US * CLOCK_PER_US;
  WATCHDOG_CONTROL = WATCHDOG_IRQ | WATCHDOG_RESET;
}

void pm_board_init(void) {
  pm_board_start_watchdog();
  ++boot_number;
  DUAL_CONTROL = DUAL_32_BIT | DUAL_ON;
  clock_at = DUAL_VALUE;
  pm_motors_init(now_us, boot_number == 1);
  for (uint32_t uart = 0; uart < UARTS; uart += INPUT_UART) {
    UART_DIVIDER(uart) = UART_DIVIDER_MIN;
    UART_CONTROL(uart) = UART_TX_ON | UART_RX_ON | UART_RX_IRQ;
  }
  NVIC_ENABLE = 1u << IRQ_UART0_RX | 1u << IRQ_UART2_RX;
}

// The timer wraps after 171 s; the loop asks far more often.
uint64_t pm_board_now_us(void) {
  const uint32_t value = DUAL_VALUE;
  const uint32_t clocks = clock_at - value + clock_rest;
  clock_at = value;
  clock_rest = clocks % CLOCK_PER_US;
  now_us += clocks / CLOCK_PER_US;
  return now_us;
}

bool pm_board_has_fd(void) { return false; }

uint16_t pm_board_boot_number(void) { return boot_number; }

static bool next_byte(uint32_t uart, uint8_t* byte) {
  struct byte_ring* ring = &received[uart];
  if (ring->read == ring->written) return false;
  *byte = ring->bytes[ring->read % RX_BYTES];
  ++ring->read;
  return true;
}

static void flush(void) {
  while (sending.read != sending.written && (UART_STATE(HOST_UART) & UART_TX_FULL) == 0) {
    UART_DATA(HOST_UART) = (uint8_t)sending.text[sending.read++ % TX_BYTES];
  }
}

// A text that does not fit is dropped whole.
static void write(const char* text, uint8_t bytes) {
  if (sending.written - sending.read + bytes > TX_BYTES) return;
  for (uint8_t i = 0; i < bytes; ++i) sending.text[sending.written++ % TX_BYTES] = text[i];
  flush();
}

static bool receive_host(struct pm_can_frame* frame) {
  uint8_t byte;
  while (next_byte(HOST_UART, &byte)) {
    char answer[PM_SLCAN_ANSWER_MAX];
    uint8_t answer_bytes;
    const bool is_frame = pm_slcan_push(&line, (char)byte, frame, answer, &answer_bytes);
    if (answer_bytes > 0) write(answer, answer_bytes);
    if (is_frame) return true;
  }
  return false;
}

bool pm_board_receive(uint8_t* bus, struct pm_can_frame* frame) {
  *bus = PM_BOARD_HOST_BUS;
  if (receive_host(frame)) return true;
  if (answers_read == answers_written) return false;
  *bus = PM_BOARD_DRIVE_BUS;
  *frame = answers[answers_read++ % ANSWERS];
  return true;
}

// A closed channel takes everything and drops it: nobody is on that bus.
bool pm_board_can_transmit(uint8_t bus) {
  if (bus == PM_BOARD_DRIVE_BUS) return answers_written - answers_read < ANSWERS;
  return !line.is_open || sending.written - sending.read + PM_SLCAN_TEXT_MAX <= TX_BYTES;
}

void pm_board_transmit(uint8_t bus, const struct pm_can_frame* frame) {
  if (bus == PM_BOARD_DRIVE_BUS) {
    struct pm_can_frame* answer = &answers[answers_written % ANSWERS];
    answers_written += pm_motors_take(frame, pm_board_now_us(), answer);
  } else if (line.is_open) {
    char text[PM_SLCAN_TEXT_MAX];
    write(text, pm_slcan_encode(frame, text));
  }
}

static void read_inputs(void) {
  uint8_t letter;
  while (next_byte(INPUT_UART, &letter)) {
    if (letter == 'E' || letter == 'e') is_estop_pressed = letter == 'E';
    if (letter == 'B' || letter == 'b') is_supply_low = letter == 'B';
    if (letter == 'T' || letter == 't') pm_motors_set_hot(letter == 'T');
    if (letter == 'M' || letter == 'm') pm_motors_set_mute(letter == 'M');
    while (letter == 'H') {
    }
  }
}

// The lamp on the same line as the motors: L when it goes on, l when it goes off.
static void say_lamp(void) {
  if (is_lit == is_lit_said || (UART_STATE(INPUT_UART) & UART_TX_FULL) != 0) return;
  UART_DATA(INPUT_UART) = is_lit ? 'L' : 'l';
  is_lit_said = is_lit;
}

static void say_powered(void) {
  const uint8_t powered = pm_motors_powered();
  if (powered == powered_said || (UART_STATE(INPUT_UART) & UART_TX_FULL) != 0) return;
  UART_DATA(INPUT_UART) = (uint32_t)'0' + powered;
  powered_said = powered;
}

bool pm_board_is_estop(void) { return is_estop_pressed; }

bool pm_board_is_supply_low(void) { return is_supply_low; }

// Memory that plays flash: bits go from 1 to 0 only, until their page is erased.
enum { PAGE_BYTES = 2048, SLOT_BYTES = 0x20000 };

static bool erase_page(void* context, enum pm_flash_region region, uint32_t offset) {
  (void)context;
  memset((void*)(uintptr_t)pm_flash_address(region, PAGE_BYTES, offset), 0xFF, PAGE_BYTES);
  return true;
}

static bool write_units(void* context, enum pm_flash_region region, uint32_t offset, const uint8_t* bytes,
                        uint32_t count) {
  (void)context;
  uint8_t* to = (uint8_t*)(uintptr_t)pm_flash_address(region, PAGE_BYTES, offset);
  for (uint32_t i = 0; i < count; ++i) {
    if (to[i] != 0xFF) return false;
  }
  memcpy(to, bytes, count);
  return true;
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

uint32_t pm_board_id(void) { return 0x3532504Du; }  // "MP25"

void pm_board_restart(void) { pm_restart(); }

void pm_board_set_led(bool is_on) {
  FPGAIO_LEDS = is_on;
  is_lit = is_on;
}

void pm_board_feed_watchdog(void) { WATCHDOG_CLEAR = 1; }

// No sleep: the emulator's clock counts instructions (-icount), but while the processor sleeps it follows the
// machine's, whose stalls would look like late ticks. And no register meanwhile: each access locks out the emulator's
// thread that brings the serial lines' bytes. At 1 ns an instruction (shift=0) the turns take some 80 us of the
// firmware's time.
void pm_board_wait(void) {
  flush();
  read_inputs();
  pm_motors_step(pm_board_now_us());
  say_powered();
  say_lamp();
  for (volatile uint32_t i = 0; i < WAIT_TURNS; ++i) {
  }
}
