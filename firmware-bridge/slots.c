// Images, the boot record and the choice between slots; slots.h has the layout in words.
#include "firmware-bridge/slots.h"

#include <string.h>

#include "protocol/frames.h"

enum { CHUNK_BYTES = 64, RECORD_CHECKED_BYTES = PM_RECORD_BYTES - 4, HEADER_CHECKED_BYTES = PM_IMAGE_FIELD_BYTES - 4 };

_Static_assert(PM_RECORD_BYTES % PM_FLASH_UNIT_BYTES == 0, "a record is whole units");
_Static_assert(PM_IMAGE_HEADER_BYTES % CHUNK_BYTES == 0, "a body begins with a chunk");

bool pm_image_parse(const uint8_t bytes[PM_IMAGE_FIELD_BYTES], struct pm_image_header* header) {
  if (pm_get_u32(bytes) != PM_IMAGE_MAGIC || pm_get_u32(bytes + 4) != PM_IMAGE_FORMAT) return false;
  header->board = pm_get_u32(bytes + 8);
  header->version = pm_get_u32(bytes + 12);
  header->source = pm_get_u32(bytes + 16);
  header->body_bytes = pm_get_u32(bytes + 20);
  header->body_checksum = pm_get_u32(bytes + 24);
  header->body_address = pm_get_u32(bytes + 28);
  header->slot = pm_get_u32(bytes + 32);
  return pm_get_u32(bytes + HEADER_CHECKED_BYTES) == pm_crc32(0, bytes, HEADER_CHECKED_BYTES);
}

bool pm_image_read(const struct pm_flash* flash, uint8_t slot, struct pm_image_header* header) {
  uint8_t bytes[PM_IMAGE_FIELD_BYTES];
  flash->read(flash->context, (enum pm_flash_region)slot, 0, bytes, sizeof bytes);
  return pm_image_parse(bytes, header);
}

bool pm_image_fits(const struct pm_flash* flash, uint8_t slot, const struct pm_image_header* header) {
  return header->slot == slot && header->body_bytes > 0 && header->body_bytes % PM_FLASH_UNIT_BYTES == 0 &&
         header->body_bytes <= flash->slot_bytes - PM_IMAGE_HEADER_BYTES &&
         header->body_address == flash->address[slot] + PM_IMAGE_HEADER_BYTES;
}

bool pm_image_is_intact(const struct pm_flash* flash, uint8_t slot) {
  struct pm_image_header header;
  if (!pm_image_read(flash, slot, &header) || !pm_image_fits(flash, slot, &header)) return false;
  uint32_t crc = 0;
  for (uint32_t at = 0; at < header.body_bytes; at += CHUNK_BYTES) {
    uint8_t chunk[CHUNK_BYTES];
    const uint32_t left = header.body_bytes - at;
    const uint32_t count = left < CHUNK_BYTES ? left : CHUNK_BYTES;
    flash->read(flash->context, (enum pm_flash_region)slot, PM_IMAGE_HEADER_BYTES + at, chunk, count);
    crc = pm_crc32(crc, chunk, count);
  }
  return crc == header.body_checksum;
}

// Where a record stands: its page and its number there.
struct place {
  enum pm_flash_region page;
  uint32_t index;
};

static bool is_slot(uint8_t slot) { return slot < PM_SLOTS; }

static void read_entry(const struct pm_flash* flash, struct place at, uint8_t bytes[PM_RECORD_BYTES]) {
  flash->read(flash->context, at.page, at.index * PM_RECORD_BYTES, bytes, PM_RECORD_BYTES);
}

static bool parse_record(const uint8_t bytes[PM_RECORD_BYTES], struct pm_boot_record* record) {
  if (pm_get_u32(bytes) != PM_RECORD_MAGIC) return false;
  if (pm_get_u32(bytes + RECORD_CHECKED_BYTES) != pm_crc32(0, bytes, RECORD_CHECKED_BYTES)) return false;
  record->sequence = pm_get_u32(bytes + 4);
  record->active = bytes[8];
  record->trial = bytes[9];
  record->tries = bytes[10];
  record->failed = bytes[11];
  return is_slot(record->active);
}

static uint32_t entries(const struct pm_flash* flash) { return flash->page_bytes / PM_RECORD_BYTES; }

static bool find_newest(const struct pm_flash* flash, struct pm_boot_record* record, struct place* at) {
  bool is_found = false;
  for (uint32_t page = PM_FLASH_RECORD_0; page <= PM_FLASH_RECORD_1; ++page) {
    for (uint32_t index = 0; index < entries(flash); ++index) {
      const struct place here = {(enum pm_flash_region)page, index};
      uint8_t bytes[PM_RECORD_BYTES];
      struct pm_boot_record found;
      read_entry(flash, here, bytes);
      if (!parse_record(bytes, &found) || (is_found && found.sequence < record->sequence)) continue;
      *record = found;
      *at = here;
      is_found = true;
    }
  }
  return is_found;
}

void pm_record_read(const struct pm_flash* flash, struct pm_boot_record* record) {
  struct place at;
  if (find_newest(flash, record, &at)) return;
  const struct pm_boot_record none = {0, PM_SLOT_A, PM_SLOT_NONE, 0, PM_SLOT_NONE};
  *record = none;
}

static bool is_blank(const struct pm_flash* flash, struct place at) {
  uint8_t bytes[PM_RECORD_BYTES];
  read_entry(flash, at, bytes);
  for (uint32_t i = 0; i < PM_RECORD_BYTES; ++i) {
    if (bytes[i] != 0xFF) return false;
  }
  return true;
}

// A blank place from `*at` on in its page; when that is full, the first place of the other page, erased. The page that
// has the newest record is never erased.
static bool find_blank(const struct pm_flash* flash, bool has_record, struct place* at) {
  for (; at->index < entries(flash); ++at->index) {
    if (is_blank(flash, *at)) return true;
  }
  if (has_record) at->page = at->page == PM_FLASH_RECORD_0 ? PM_FLASH_RECORD_1 : PM_FLASH_RECORD_0;
  at->index = 0;
  return flash->erase(flash->context, at->page, 0);
}

bool pm_record_write(const struct pm_flash* flash, struct pm_boot_record* record) {
  struct pm_boot_record newest = {0, 0, 0, 0, 0};
  struct place at = {PM_FLASH_RECORD_0, 0};
  const bool has_record = find_newest(flash, &newest, &at);
  if (!find_blank(flash, has_record, &at)) return false;
  record->sequence = newest.sequence + 1;
  uint8_t bytes[PM_RECORD_BYTES];
  memset(bytes, 0, sizeof bytes);
  pm_put_u32(bytes, PM_RECORD_MAGIC);
  pm_put_u32(bytes + 4, record->sequence);
  bytes[8] = record->active;
  bytes[9] = record->trial;
  bytes[10] = record->tries;
  bytes[11] = record->failed;
  pm_put_u32(bytes + RECORD_CHECKED_BYTES, pm_crc32(0, bytes, RECORD_CHECKED_BYTES));
  if (!flash->write(flash->context, at.page, at.index * PM_RECORD_BYTES, bytes, sizeof bytes)) return false;
  uint8_t back[PM_RECORD_BYTES];
  read_entry(flash, at, back);
  return parse_record(back, &newest) && newest.sequence == record->sequence;
}

static uint8_t other_of(uint8_t slot) { return slot == PM_SLOT_A ? PM_SLOT_B : PM_SLOT_A; }

uint8_t pm_boot_choose(const struct pm_flash* flash) {
  struct pm_boot_record record;
  pm_record_read(flash, &record);
  if (is_slot(record.trial)) {
    const uint8_t trial = record.trial;
    if (record.tries < PM_BOOT_TRIES && pm_image_is_intact(flash, trial)) {
      ++record.tries;
      // A start that cannot be counted would be tried for ever.
      if (pm_record_write(flash, &record)) return trial;
    }
    record.trial = PM_SLOT_NONE;
    record.tries = 0;
    record.failed = trial;
    // When this fails the next start comes to the same end.
    (void)pm_record_write(flash, &record);
  }
  const uint8_t other = other_of(record.active);
  if (record.active != record.failed && pm_image_is_intact(flash, record.active)) return record.active;
  if (other != record.failed && pm_image_is_intact(flash, other)) return other;
  return PM_SLOT_NONE;
}

bool pm_boot_try(const struct pm_flash* flash, uint8_t slot, uint8_t running) {
  struct pm_boot_record record;
  pm_record_read(flash, &record);
  record.active = is_slot(running) ? running : slot;
  record.trial = slot;
  record.tries = 0;
  record.failed = PM_SLOT_NONE;
  return pm_record_write(flash, &record);
}

bool pm_boot_confirm(const struct pm_flash* flash, uint8_t slot) {
  struct pm_boot_record record;
  pm_record_read(flash, &record);
  if (record.trial != slot) return record.active == slot;
  record.active = slot;
  record.trial = PM_SLOT_NONE;
  record.tries = 0;
  record.failed = PM_SLOT_NONE;
  return pm_record_write(flash, &record);
}
