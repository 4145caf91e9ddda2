// Where boot loader, record and slots are on this board: symbols of its linker script.
#pragma once

#include <stdint.h>

#include "firmware-bridge/slots.h"

extern const uint8_t pm_record_origin[], pm_slot_a_origin[], pm_slot_b_origin[];
extern const uint32_t pm_vectors[];

// Where a region's byte is for the processor.
static inline uint32_t pm_flash_address(enum pm_flash_region region, uint32_t page_bytes, uint32_t offset) {
  switch (region) {
    case PM_FLASH_SLOT_A:
      return (uint32_t)pm_slot_a_origin + offset;
    case PM_FLASH_SLOT_B:
      return (uint32_t)pm_slot_b_origin + offset;
    case PM_FLASH_RECORD_0:
      return (uint32_t)pm_record_origin + offset;
    default:
      return (uint32_t)pm_record_origin + page_bytes + offset;
  }
}

// The slot that this code was linked for.
static inline uint8_t pm_linked_slot(void) {
  const uint32_t here = (uint32_t)pm_vectors;
  if (here == (uint32_t)pm_slot_a_origin + PM_IMAGE_HEADER_BYTES) return PM_SLOT_A;
  if (here == (uint32_t)pm_slot_b_origin + PM_IMAGE_HEADER_BYTES) return PM_SLOT_B;
  return PM_SLOT_NONE;
}
