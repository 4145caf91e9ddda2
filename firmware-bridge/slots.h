// Two places for the firmware and the note that says which one runs: the layout of an image, the boot record, and the
// choice that the boot loader makes. Used by the boot loader and, to update itself, by the firmware. Flash is a
// parameter: no address, no register.
//
// An image is a header block and a body. The record is appended to one of two pages and never changed in place; the
// newest intact entry counts, so that a power cut at any moment leaves either the old or the new note.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PM_SLOT_A, PM_SLOT_B, PM_SLOTS, PM_SLOT_NONE = 255 };

enum pm_flash_region {
  PM_FLASH_SLOT_A,
  PM_FLASH_SLOT_B,
  PM_FLASH_RECORD_0,  // one page each
  PM_FLASH_RECORD_1,
  PM_FLASH_REGIONS,
};

enum {
  PM_FLASH_UNIT_BYTES = 8,  // written at once; every write is whole units of erased flash
  PM_BOOT_TRIES = 3,        // starts of a firmware that has not confirmed itself
  PM_IMAGE_HEADER_BYTES = 512,
  PM_IMAGE_FIELD_BYTES = 40,  // of the header that mean something
  PM_IMAGE_FORMAT = 1,
  PM_RECORD_BYTES = 32,
};
#define PM_IMAGE_MAGIC 0x57464D50u   // "PMFW"
#define PM_RECORD_MAGIC 0x52424D50u  // "PMBR"

// What a board gives. Calls return when the flash is done; false when it refused or failed.
struct pm_flash {
  void* context;
  uint32_t page_bytes;         // erased at once
  uint32_t slot_bytes;         // a multiple of page_bytes
  uint32_t address[PM_SLOTS];  // where a slot's first byte is for the processor
  bool (*erase)(void* context, enum pm_flash_region region, uint32_t offset);
  bool (*write)(void* context, enum pm_flash_region region, uint32_t offset, const uint8_t* bytes, uint32_t count);
  void (*read)(void* context, enum pm_flash_region region, uint32_t offset, uint8_t* bytes, uint32_t count);
};

struct pm_image_header {
  uint32_t board;
  uint32_t version;  // major << 24 | minor << 16 | patch
  uint32_t source;   // first 32 bits of the commit's name
  uint32_t body_bytes;
  uint32_t body_checksum;  // CRC-32
  uint32_t body_address;   // where the body was linked to
  uint32_t slot;
};

struct pm_boot_record {
  uint32_t sequence;
  uint8_t active;  // the confirmed slot
  uint8_t trial;   // the slot that is tried next, PM_SLOT_NONE when nothing is
  uint8_t tries;   // how often it was started
  uint8_t failed;  // a slot whose trial was given up
};

// Bytes to fields; false when they are no header of this format or its checksum differs.
bool pm_image_parse(const uint8_t bytes[PM_IMAGE_FIELD_BYTES], struct pm_image_header* header);
bool pm_image_read(const struct pm_flash* flash, uint8_t slot, struct pm_image_header* header);
// Does the header belong into this slot of this flash?
bool pm_image_fits(const struct pm_flash* flash, uint8_t slot, const struct pm_image_header* header);
// The header fits and the body's checksum is right. Reads the whole image.
bool pm_image_is_intact(const struct pm_flash* flash, uint8_t slot);

// The newest record; slot A is active when there is none.
void pm_record_read(const struct pm_flash* flash, struct pm_boot_record* record);
// Appends it, with the next sequence. False when it could not be read back: then the old one still counts.
bool pm_record_write(const struct pm_flash* flash, struct pm_boot_record* record);

// The boot loader's choice, once per start: a trial is counted before it is started. PM_SLOT_NONE: stay.
uint8_t pm_boot_choose(const struct pm_flash* flash);
// Starts `slot` on trial from the next start on; `running` is what to fall back to, PM_SLOT_NONE without.
bool pm_boot_try(const struct pm_flash* flash, uint8_t slot, uint8_t running);
// The trial was good.
bool pm_boot_confirm(const struct pm_flash* flash, uint8_t slot);

#ifdef __cplusplus
}
#endif
