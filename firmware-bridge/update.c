// The update's state machine and its answers; update.h has the picture.
#include "firmware-bridge/update.h"

#include <stddef.h>
#include <string.h>

enum { VERIFY_BYTES = 1024, CHUNK_BYTES = 64 };
enum { ASKED_SIZE, ASKED_VERSION, ASKED_CHECKSUM, ASKED_BOARD };

static enum pm_flash_region region_of(const struct pm_update* update) { return (enum pm_flash_region)update->slot; }

static bool has_slots(const struct pm_update* update) { return update->config.flash != NULL; }

static bool is_slot(uint8_t slot) { return slot < PM_SLOTS; }

void pm_update_init(struct pm_update* update, const struct pm_update_config* config) {
  memset(update, 0, sizeof *update);
  update->config = *config;
  if (!has_slots(update) || !is_slot(config->running)) return;
  if (!pm_image_read(config->flash, config->running, &update->own)) memset(&update->own, 0, sizeof update->own);
  struct pm_boot_record record;
  pm_record_read(config->flash, &record);
  update->is_trial = record.trial == config->running;
}

bool pm_update_is_idle(const struct pm_update* update) { return update->state == PM_UPDATE_IDLE; }

bool pm_update_wants_restart(const struct pm_update* update, uint64_t now_us) {
  return update->state == PM_UPDATE_RESTARTING && now_us - update->restart_us >= PM_UPDATE_RESTART_US;
}

void pm_update_confirm(struct pm_update* update) {
  if (update->is_trial) update->is_trial = !pm_boot_confirm(update->config.flash, update->config.running);
}

// The slot that an update goes to: the one that does not run; of a boot loader, the one that was active.
static uint8_t target_of(const struct pm_update* update) {
  if (is_slot(update->config.running)) return update->config.running == PM_SLOT_A ? PM_SLOT_B : PM_SLOT_A;
  struct pm_boot_record record;
  pm_record_read(update->config.flash, &record);
  return record.active;
}

// PM_FACT_BOOT without slots: none runs, none has failed.
#define NOWHERE ((uint32_t)PM_SLOT_NONE << 24 | PM_SLOT_NONE)

static uint32_t boot_word(const struct pm_update* update) {
  struct pm_boot_record record;
  pm_record_read(update->config.flash, &record);
  const uint32_t tries = update->is_trial ? record.tries : 0u;
  return update->config.running | (update->is_trial ? 1u << 8 : 0u) | tries << 16 | (uint32_t)record.failed << 24;
}

static uint32_t fact(const struct pm_update* update, uint8_t key) {
  struct pm_image_header other;
  switch (key) {
    case PM_FACT_VERSION:
      return update->own.version;
    case PM_FACT_SOURCE:
      return update->own.source;
    case PM_FACT_CHECKSUM:
      return update->own.body_checksum;
    case PM_FACT_BOARD:
      return update->config.board;
    default:
      break;
  }
  if (!has_slots(update)) return key == PM_FACT_BOOT ? NOWHERE : key == PM_FACT_TARGET ? (uint32_t)PM_SLOT_NONE : 0u;
  switch (key) {
    case PM_FACT_BOOT:
      return boot_word(update);
    case PM_FACT_SLOT_BYTES:
      return update->config.flash->slot_bytes;
    case PM_FACT_OTHER_VERSION:
      return pm_image_read(update->config.flash, target_of(update), &other) ? other.version : 0u;
    default:
      return target_of(update);
  }
}

static enum pm_update_verdict answer_status(const struct pm_update* update, uint8_t operation,
                                            struct pm_can_frame* answer) {
  const struct pm_word_item item = {(uint8_t)(operation << 4 | update->state), (uint8_t)update->result, update->at};
  pm_word_pack(answer, PM_ID_UPDATE_STATUS, &item);
  return PM_UPDATE_ANSWERED;
}

static void end(struct pm_update* update, enum pm_update_result result) {
  update->state = PM_UPDATE_IDLE;
  update->result = result;
}

static enum pm_update_result begin(struct pm_update* update, bool is_forced) {
  if (!has_slots(update)) return PM_UPDATE_NO_SLOTS;
  if (update->is_trial) return PM_UPDATE_ON_TRIAL;  // what would be erased is the way back
  if (update->asked[ASKED_BOARD] != update->config.board) return PM_UPDATE_WRONG_BOARD;
  const uint32_t size = update->asked[ASKED_SIZE];
  if (size <= PM_IMAGE_HEADER_BYTES || size > update->config.flash->slot_bytes || size % PM_FLASH_UNIT_BYTES != 0)
    return PM_UPDATE_WRONG_SIZE;
  if (!is_forced && update->asked[ASKED_VERSION] < update->own.version) return PM_UPDATE_OLDER;
  update->slot = target_of(update);
  update->size = size;
  update->at = 0;
  update->state = PM_UPDATE_ERASING;
  return PM_UPDATE_OK;
}

static enum pm_update_result finish(struct pm_update* update) {
  if (update->state != PM_UPDATE_RECEIVING) return PM_UPDATE_WRONG_STATE;
  if (update->at != update->size) return PM_UPDATE_WRONG_OFFSET;
  update->state = PM_UPDATE_VERIFYING;
  update->at = 0;
  update->crc = update->body_crc = 0;
  return PM_UPDATE_OK;
}

static enum pm_update_result activate(struct pm_update* update, uint64_t now_us) {
  if (update->state != PM_UPDATE_VERIFIED) return PM_UPDATE_WRONG_STATE;
  if (!pm_boot_try(update->config.flash, update->slot, update->config.running)) return PM_UPDATE_FLASH_FAILED;
  update->state = PM_UPDATE_RESTARTING;
  update->restart_us = now_us;
  return PM_UPDATE_OK;
}

static enum pm_update_result confirm(struct pm_update* update) {
  if (!has_slots(update)) return PM_UPDATE_NO_SLOTS;
  pm_update_confirm(update);
  return update->is_trial ? PM_UPDATE_FLASH_FAILED : PM_UPDATE_OK;
}

static enum pm_update_result abandon(struct pm_update* update) {
  if (update->state == PM_UPDATE_RESTARTING) return PM_UPDATE_WRONG_STATE;
  end(update, PM_UPDATE_OK);
  return PM_UPDATE_OK;
}

static enum pm_update_result operate(struct pm_update* update, const struct pm_word_item* item, bool is_at_rest,
                                     uint64_t now_us) {
  // What has begun was at rest then, and keeps the robot from being armed.
  if (!is_at_rest && pm_update_is_idle(update)) return PM_UPDATE_NOT_DISARMED;
  switch (item->key) {
    case PM_UPDATE_BEGIN:
      return pm_update_is_idle(update) ? begin(update, (item->detail & PM_UPDATE_FORCE) != 0) : PM_UPDATE_WRONG_STATE;
    case PM_UPDATE_FINISH:
      return finish(update);
    case PM_UPDATE_ACTIVATE:
      return activate(update, now_us);
    case PM_UPDATE_CONFIRM:
      return confirm(update);
    case PM_UPDATE_ABANDON:
      return abandon(update);
    default:
      update->asked[item->key - PM_UPDATE_SIZE] = item->value;
      return PM_UPDATE_OK;
  }
}

static enum pm_update_verdict on_operation(struct pm_update* update, const struct pm_can_frame* frame, bool is_at_rest,
                                           uint64_t now_us, struct pm_can_frame* answer) {
  struct pm_word_item item;
  if (!pm_word_unpack(frame, &item) || item.key >= PM_UPDATE_OPERATIONS ||
      item.detail > (item.key == PM_UPDATE_BEGIN ? PM_UPDATE_FORCE : 0))
    return PM_UPDATE_MALFORMED;
  update->heard_us = now_us;
  // A question keeps the last result, so that the host finds out why an update ended.
  if (item.key != PM_UPDATE_ASK) update->result = operate(update, &item, is_at_rest, now_us);
  return answer_status(update, item.key, answer);
}

// Writes every unit that is complete. False when the flash failed.
static bool store(struct pm_update* update, const struct pm_update_piece* piece) {
  for (uint32_t i = 0; i < piece->bytes; ++i) {
    const uint32_t in_unit = update->at % PM_FLASH_UNIT_BYTES;
    update->unit[in_unit] = piece->data[i];
    ++update->at;
    if (in_unit + 1 < PM_FLASH_UNIT_BYTES) continue;
    const struct pm_flash* flash = update->config.flash;
    const uint32_t from = update->at - PM_FLASH_UNIT_BYTES;
    if (!flash->write(flash->context, region_of(update), from, update->unit, PM_FLASH_UNIT_BYTES)) return false;
  }
  return true;
}

// A piece that does not follow what is there is answered once, with where to go on.
static enum pm_update_verdict on_gap(struct pm_update* update, struct pm_can_frame* answer) {
  if (update->is_gap_reported) return PM_UPDATE_TAKEN;
  update->is_gap_reported = true;
  update->result = PM_UPDATE_WRONG_OFFSET;
  return answer_status(update, PM_UPDATE_ASK, answer);
}

static enum pm_update_verdict on_piece(struct pm_update* update, const struct pm_can_frame* frame, uint64_t now_us,
                                       struct pm_can_frame* answer) {
  struct pm_update_piece piece;
  if (!pm_update_piece_unpack(frame, &piece)) return PM_UPDATE_MALFORMED;
  if (update->state != PM_UPDATE_RECEIVING) return PM_UPDATE_TAKEN;
  update->heard_us = now_us;
  if (piece.offset != update->at || piece.bytes > update->size - update->at) return on_gap(update, answer);
  update->is_gap_reported = false;
  update->result = PM_UPDATE_OK;
  if (!store(update, &piece)) {
    end(update, PM_UPDATE_FLASH_FAILED);
    return answer_status(update, PM_UPDATE_ASK, answer);
  }
  if (update->at - update->reported < PM_UPDATE_REPORT_BYTES && update->at < update->size) return PM_UPDATE_TAKEN;
  update->reported = update->at;
  return answer_status(update, PM_UPDATE_ASK, answer);
}

static enum pm_update_verdict on_question(const struct pm_update* update, const struct pm_can_frame* frame,
                                          struct pm_can_frame* answer) {
  if (!pm_short_is_intact(frame, 1) || frame->data[0] >= PM_FACTS) return PM_UPDATE_MALFORMED;
  const struct pm_word_item item = {frame->data[0], 0, fact(update, frame->data[0])};
  pm_word_pack(answer, PM_ID_FIRMWARE_FACT, &item);
  return PM_UPDATE_ANSWERED;
}

enum pm_update_verdict pm_update_on_frame(struct pm_update* update, const struct pm_can_frame* frame, bool is_at_rest,
                                          uint64_t now_us, struct pm_can_frame* answer) {
  if (frame->is_extended || frame->is_remote) return PM_UPDATE_FOREIGN;
  switch (frame->id) {
    case PM_ID_FIRMWARE_ASK:
      return on_question(update, frame, answer);
    case PM_ID_UPDATE:
      return on_operation(update, frame, is_at_rest, now_us, answer);
    case PM_ID_UPDATE_WORD:
    case PM_ID_UPDATE_BLOCK:
      return on_piece(update, frame, now_us, answer);
    default:
      return PM_UPDATE_FOREIGN;
  }
}

static void erase_page(struct pm_update* update) {
  const struct pm_flash* flash = update->config.flash;
  if (!flash->erase(flash->context, region_of(update), update->at)) {
    end(update, PM_UPDATE_FLASH_FAILED);
    return;
  }
  update->at += flash->page_bytes;
  if (update->at < update->size) return;
  update->at = update->reported = 0;
  update->is_gap_reported = false;
  update->state = PM_UPDATE_RECEIVING;
}

// What was written is what was announced, and it is an image for this slot of this board.
static enum pm_update_result judge(const struct pm_update* update) {
  struct pm_image_header header;
  if (update->crc != update->asked[ASKED_CHECKSUM]) return PM_UPDATE_WRONG_CHECKSUM;
  const bool is_header = pm_image_read(update->config.flash, update->slot, &header) &&
                         pm_image_fits(update->config.flash, update->slot, &header) &&
                         header.body_bytes == update->size - PM_IMAGE_HEADER_BYTES &&
                         header.board == update->config.board && header.version == update->asked[ASKED_VERSION];
  if (!is_header) return PM_UPDATE_WRONG_HEADER;
  return header.body_checksum == update->body_crc ? PM_UPDATE_OK : PM_UPDATE_WRONG_CHECKSUM;
}

static void verify_some(struct pm_update* update) {
  const struct pm_flash* flash = update->config.flash;
  for (uint32_t n = 0; n < VERIFY_BYTES / CHUNK_BYTES && update->at < update->size; ++n) {
    uint8_t chunk[CHUNK_BYTES];
    const uint32_t left = update->size - update->at;
    const uint32_t count = left < CHUNK_BYTES ? left : CHUNK_BYTES;
    flash->read(flash->context, region_of(update), update->at, chunk, count);
    update->crc = pm_crc32(update->crc, chunk, count);
    if (update->at >= PM_IMAGE_HEADER_BYTES) update->body_crc = pm_crc32(update->body_crc, chunk, count);
    update->at += count;
  }
  if (update->at < update->size) return;
  const enum pm_update_result result = judge(update);
  if (result != PM_UPDATE_OK) {
    end(update, result);
    return;
  }
  update->state = PM_UPDATE_VERIFIED;
}

void pm_update_tick(struct pm_update* update, uint64_t now_us) {
  switch (update->state) {
    case PM_UPDATE_ERASING:
      erase_page(update);
      break;
    case PM_UPDATE_VERIFYING:
      verify_some(update);
      break;
    case PM_UPDATE_RECEIVING:
    case PM_UPDATE_VERIFIED:
      if (now_us - update->heard_us > PM_UPDATE_SILENCE_US_MAX) end(update, PM_UPDATE_LATE);
      break;
    default:
      break;
  }
}
