// What runs before main on a Cortex-M, and where exceptions that nobody expects end.
#pragma once

#include <stdint.h>

union pm_vector {
  void (*handler)(void);
  const void* stack_top;
};

// Symbols of the linker script.
extern uint32_t pm_stack_top[];

// The reset handler: memory, floating point unit, main.
void pm_reset(void);
// Hands the processor over to the image with these vectors, as after a reset.
void pm_start_image(const uint32_t* vectors);
// Resets the processor and what is around it.
void pm_restart(void);
// Stands still with interrupts masked: the watchdog ends it.
void pm_stop(void);
