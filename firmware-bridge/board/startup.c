// Memory as C expects it, then main; see startup.h. The core registers are those of ARMv7-M: VTOR holds
// the vectors' address, AIRCR asks for a reset, CPACR enables the floating point unit, whose registers the compiler
// uses
// from the first function on.
#include "firmware-bridge/board/startup.h"

extern const uint32_t pm_vectors[];
extern uint32_t pm_data_load[], pm_data_begin[], pm_data_end[], pm_bss_begin[], pm_bss_end[];
int main(void);

#define VTOR (*(volatile uint32_t*)0xE000ED08u)
#define CPACR (*(volatile uint32_t*)0xE000ED88u)
#define AIRCR (*(volatile uint32_t*)0xE000ED0Cu)
enum { AIRCR_KEY = 0x05FA, AIRCR_SYSTEM_RESET = 4 };

void pm_stop(void) {
  __asm volatile("cpsid i");
  for (;;) {
  }
}

// Nothing of the caller is left: its stack may be where the image's memory is.
void pm_start_image(const uint32_t* vectors) {
  VTOR = (uint32_t)vectors;
  __asm volatile(
      "dsb\n"
      "isb\n"
      "ldr r1, [%0]\n"
      "ldr r2, [%0, #4]\n"
      "msr msp, r1\n"
      "bx r2\n"
      :
      : "r"(vectors)
      : "r1", "r2", "memory");
  __builtin_unreachable();
}

void pm_restart(void) {
  __asm volatile("dsb" ::: "memory");
  AIRCR = (uint32_t)AIRCR_KEY << 16 | AIRCR_SYSTEM_RESET;
  pm_stop();
}

void pm_reset(void) {
  VTOR = (uint32_t)pm_vectors;  // a boot loader may have left its own
  CPACR |= 0xFu << 20;
  __asm volatile("dsb\n isb");
  const uint32_t* from = pm_data_load;
  for (uint32_t* to = pm_data_begin; to < pm_data_end; ++to) *to = *from++;
  for (uint32_t* to = pm_bss_begin; to < pm_bss_end; ++to) *to = 0;
  (void)main();
  pm_stop();
}
