// Packing and unpacking of the bridge protocol's frames, byte by byte with explicit shifts; protocol/README.md has the
// tables.
#include "protocol/frames.h"

#include <stddef.h>
#include <string.h>

_Static_assert(PM_SLOTS_AT + PM_SLOTS_PER_PART * PM_SLOT_BYTES + 2 == PM_LONG_BYTES,
               "slots and checksum fill an FD frame");
_Static_assert(PM_PARTS_MAX* PM_SLOTS_PER_PART >= PM_AXES_MAX, "an FD set has room for every axis");
_Static_assert(PM_CLASSIC_PARTS_MAX* PM_VALUES_PER_PART >= 2 * PM_AXES_MAX, "a classic set has room for every axis");
_Static_assert(2 + 2 * PM_VALUES_PER_PART == PM_SHORT_BYTES, "values fill a classic frame");
_Static_assert(PM_SHORT_PAYLOAD_BYTES + 2 == PM_SHORT_BYTES, "a short frame is payload and checksum");
_Static_assert((int)PM_LONG_BYTES == (int)PM_CAN_DATA_BYTES_MAX, "an FD frame is full");
_Static_assert(sizeof(struct pm_slot) == PM_SLOT_BYTES, "a slot in memory is as long as on the wire");
_Static_assert(offsetof(struct pm_slot, velocity) == 4 && offsetof(struct pm_slot, torque) == 6, "slot layout");
_Static_assert(PM_ID_SETPOINT + PM_PARTS_MAX <= PM_ID_SETPOINT_CLASSIC, "identifiers do not overlap");
_Static_assert(PM_ID_FEEDBACK + PM_PARTS_MAX <= PM_ID_AXIS_FEEDBACK, "identifiers do not overlap");
_Static_assert(-1 >> 1 == -1, "right shifts of negative numbers keep the sign");

int32_t pm_quantise(double value, double scale, int32_t max) {
  const double scaled = value * scale;
  if (scaled != scaled) return -max - 1;
  if (scaled >= (double)max) return max;
  if (scaled <= -(double)max) return -max;
  return (int32_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

uint16_t pm_crc16(uint16_t crc, const uint8_t* bytes, uint32_t count) {
  uint32_t state = crc;
  for (uint32_t i = 0; i < count; ++i) {
    state ^= (uint32_t)bytes[i] << 8;
    for (int bit = 0; bit < 8; ++bit) state = (state & 0x8000u) != 0 ? (state << 1) ^ 0x1021u : state << 1;
    state &= 0xFFFFu;
  }
  return (uint16_t)state;
}

uint32_t pm_crc32(uint32_t crc, const uint8_t* bytes, uint32_t count) {
  // Half a byte at a time: a table of 64 bytes instead of 1024.
  static const uint32_t table[16] = {0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
                                     0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
                                     0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
  uint32_t state = ~crc;
  for (uint32_t i = 0; i < count; ++i) {
    state ^= bytes[i];
    state = state >> 4 ^ table[state & 0xFu];
    state = state >> 4 ^ table[state & 0xFu];
  }
  return ~state;
}

uint16_t pm_get_u16(const uint8_t* at) { return (uint16_t)(at[0] | (uint32_t)at[1] << 8); }

uint32_t pm_get_u32(const uint8_t* at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

// Two's complement without relying on how a conversion out of range behaves.
static int32_t signed_of(uint32_t raw, uint32_t sign_bit) {
  return raw < sign_bit ? (int32_t)raw : (int32_t)(raw - sign_bit) - (int32_t)(sign_bit - 1) - 1;
}

int16_t pm_get_i16(const uint8_t* at) { return (int16_t)signed_of(pm_get_u16(at), 0x8000u); }

int32_t pm_get_i24(const uint8_t* at) { return signed_of(pm_get_u16(at) | (uint32_t)at[2] << 16, 0x800000u); }

int32_t pm_get_i32(const uint8_t* at) { return signed_of(pm_get_u32(at), 0x80000000u); }

void pm_put_u16(uint8_t* at, uint16_t value) {
  at[0] = (uint8_t)(value & 0xFFu);
  at[1] = (uint8_t)(value >> 8);
}

void pm_put_i24(uint8_t* at, int32_t value) {
  const uint32_t raw = (uint32_t)value;
  pm_put_u16(at, (uint16_t)(raw & 0xFFFFu));
  at[2] = (uint8_t)(raw >> 16 & 0xFFu);
}

void pm_put_u32(uint8_t* at, uint32_t value) {
  pm_put_u16(at, (uint16_t)(value & 0xFFFFu));
  pm_put_u16(at + 2, (uint16_t)(value >> 16));
}

static uint16_t frame_crc(const struct pm_can_frame* frame, uint32_t bytes) {
  uint8_t id[2];
  pm_put_u16(id, (uint16_t)frame->id);
  return pm_crc16(pm_crc16(PM_CRC16_START, id, 2), frame->data, bytes);
}

static void clear_frame(struct pm_can_frame* frame, uint32_t id, uint8_t bytes) {
  memset(frame, 0, sizeof *frame);
  frame->id = id;
  frame->data_bytes = bytes;
  frame->is_fd = bytes > PM_CAN_CLASSIC_DATA_BYTES_MAX;
  frame->is_bit_rate_switched = frame->is_fd;
}

static bool is_short(const struct pm_can_frame* frame) {
  return !frame->is_extended && !frame->is_remote && frame->data_bytes == PM_SHORT_BYTES;
}

void pm_short_pack(struct pm_can_frame* frame, uint32_t id, const uint8_t payload[PM_SHORT_PAYLOAD_BYTES]) {
  clear_frame(frame, id, PM_SHORT_BYTES);
  memcpy(frame->data, payload, PM_SHORT_PAYLOAD_BYTES);
  pm_put_u16(frame->data + PM_SHORT_PAYLOAD_BYTES, frame_crc(frame, PM_SHORT_PAYLOAD_BYTES));
}

bool pm_short_is_intact(const struct pm_can_frame* frame, uint8_t used) {
  if (!is_short(frame)) return false;
  for (uint32_t i = used; i < PM_SHORT_PAYLOAD_BYTES; ++i) {
    if (frame->data[i] != 0) return false;
  }
  return pm_get_u16(frame->data + PM_SHORT_PAYLOAD_BYTES) == frame_crc(frame, PM_SHORT_PAYLOAD_BYTES);
}

static void put_slots(uint8_t* at, const struct pm_slot slots[PM_SLOTS_PER_PART]) {
  for (uint32_t s = 0; s < PM_SLOTS_PER_PART; ++s) {
    uint8_t* slot = at + s * PM_SLOT_BYTES;
    pm_put_u32(slot, (uint32_t)slots[s].position);
    pm_put_u16(slot + 4, (uint16_t)slots[s].velocity);
    pm_put_u16(slot + 6, (uint16_t)slots[s].torque);
  }
}

static void get_slots(const uint8_t* at, struct pm_slot slots[PM_SLOTS_PER_PART]) {
  for (uint32_t s = 0; s < PM_SLOTS_PER_PART; ++s) {
    const uint8_t* slot = at + s * PM_SLOT_BYTES;
    slots[s].position = pm_get_i32(slot);
    slots[s].velocity = pm_get_i16(slot + 4);
    slots[s].torque = pm_get_i16(slot + 6);
  }
}

static void finish_long(struct pm_can_frame* frame) {
  pm_put_u16(frame->data + PM_LONG_BYTES - 2, frame_crc(frame, PM_LONG_BYTES - 2));
}

// Form, checksum, version, part number and number of axes, which setpoint and feedback frames have at the same places.
static bool long_is_intact(const struct pm_can_frame* frame, uint32_t id) {
  if (frame->is_extended || !frame->is_fd || frame->data_bytes != PM_LONG_BYTES) return false;
  if (frame->data[0] != PM_PROTOCOL_VERSION || frame->id != id + frame->data[1]) return false;
  const uint8_t axis_count = frame->data[13];
  if (axis_count == 0 || axis_count > PM_AXES_MAX || frame->data[1] >= pm_part_count(axis_count)) return false;
  return pm_get_u16(frame->data + PM_LONG_BYTES - 2) == frame_crc(frame, PM_LONG_BYTES - 2);
}

void pm_setpoint_pack(struct pm_can_frame* frame, const struct pm_setpoint_part* part) {
  clear_frame(frame, (uint32_t)PM_ID_SETPOINT + part->part, PM_LONG_BYTES);
  frame->data[0] = PM_PROTOCOL_VERSION;
  frame->data[1] = part->part;
  pm_put_u16(frame->data + 2, part->sequence);
  pm_put_u16(frame->data + 4, part->session);
  pm_put_u16(frame->data + 6, part->token);
  pm_put_u32(frame->data + 8, part->due_us);
  frame->data[12] = part->has_torque ? 1 : 0;
  frame->data[13] = part->axis_count;
  put_slots(frame->data + PM_SLOTS_AT, part->slots);
  finish_long(frame);
}

// Slots that no axis uses are zero, torques are zero unless announced, and every value is a number.
static bool slots_are_valid(const struct pm_setpoint_part* part) {
  for (uint32_t s = 0; s < PM_SLOTS_PER_PART; ++s) {
    const struct pm_slot* slot = &part->slots[s];
    const bool is_used = part->part * (uint32_t)PM_SLOTS_PER_PART + s < part->axis_count;
    if (!is_used && (slot->position != 0 || slot->velocity != 0)) return false;
    if ((!is_used || !part->has_torque) && slot->torque != 0) return false;
    if (slot->position == PM_NAN_I32 || slot->velocity == PM_NAN_I16 || slot->torque == PM_NAN_I16) return false;
  }
  return true;
}

bool pm_setpoint_unpack(const struct pm_can_frame* frame, struct pm_setpoint_part* part) {
  if (!long_is_intact(frame, PM_ID_SETPOINT) || frame->data[12] > 1) return false;
  part->part = frame->data[1];
  part->sequence = pm_get_u16(frame->data + 2);
  part->session = pm_get_u16(frame->data + 4);
  part->token = pm_get_u16(frame->data + 6);
  part->due_us = pm_get_u32(frame->data + 8);
  part->has_torque = frame->data[12] == 1;
  part->axis_count = frame->data[13];
  get_slots(frame->data + PM_SLOTS_AT, part->slots);
  return slots_are_valid(part);
}

void pm_feedback_pack(struct pm_can_frame* frame, const struct pm_feedback_part* part) {
  clear_frame(frame, (uint32_t)PM_ID_FEEDBACK + part->part, PM_LONG_BYTES);
  frame->data[0] = PM_PROTOCOL_VERSION;
  frame->data[1] = part->part;
  pm_put_u16(frame->data + 2, part->sequence);
  pm_put_u16(frame->data + 4, part->accepted_sequence);
  frame->data[6] = part->state;
  frame->data[7] = part->fault;
  pm_put_u32(frame->data + 8, part->clock_us);
  frame->data[12] = part->valid;
  frame->data[13] = part->axis_count;
  put_slots(frame->data + PM_SLOTS_AT, part->slots);
  finish_long(frame);
}

bool pm_feedback_unpack(const struct pm_can_frame* frame, struct pm_feedback_part* part) {
  if (!long_is_intact(frame, PM_ID_FEEDBACK) || frame->data[12] >= 1u << PM_SLOTS_PER_PART) return false;
  part->part = frame->data[1];
  part->sequence = pm_get_u16(frame->data + 2);
  part->accepted_sequence = pm_get_u16(frame->data + 4);
  part->state = frame->data[6];
  part->fault = frame->data[7];
  part->clock_us = pm_get_u32(frame->data + 8);
  part->valid = frame->data[12];
  part->axis_count = frame->data[13];
  get_slots(frame->data + PM_SLOTS_AT, part->slots);
  return true;
}

static void put_head(uint8_t* at, const struct pm_classic_head* head) {
  pm_put_u16(at, head->sequence);
  pm_put_u16(at + 2, head->token);
  pm_put_u16(at + 4, head->due_100us);
}

void pm_classic_head_pack(struct pm_can_frame* frame, const struct pm_classic_head* head) {
  clear_frame(frame, PM_ID_SETPOINT_CLASSIC, PM_SHORT_BYTES);
  put_head(frame->data, head);
  pm_put_u16(frame->data + 6, head->set_crc);
}

bool pm_classic_head_unpack(const struct pm_can_frame* frame, struct pm_classic_head* head) {
  if (!is_short(frame) || frame->id != PM_ID_SETPOINT_CLASSIC) return false;
  head->sequence = pm_get_u16(frame->data);
  head->token = pm_get_u16(frame->data + 2);
  head->due_100us = pm_get_u16(frame->data + 4);
  head->set_crc = pm_get_u16(frame->data + 6);
  return true;
}

void pm_classic_part_pack(struct pm_can_frame* frame, const struct pm_classic_part* part) {
  clear_frame(frame, (uint32_t)PM_ID_SETPOINT_CLASSIC + part->part, PM_SHORT_BYTES);
  frame->data[0] = part->sequence_low;
  frame->data[1] = (uint8_t)(PM_PROTOCOL_VERSION << 4 | part->part);
  for (uint32_t i = 0; i < PM_VALUES_PER_PART; ++i) pm_put_u16(frame->data + 2 + 2 * i, (uint16_t)part->values[i]);
}

bool pm_classic_part_unpack(const struct pm_can_frame* frame, struct pm_classic_part* part) {
  if (!is_short(frame)) return false;
  part->part = frame->data[1] & 0x0Fu;
  if (part->part == 0 || part->part > PM_CLASSIC_PARTS_MAX) return false;
  if (frame->data[1] >> 4 != PM_PROTOCOL_VERSION || frame->id != (uint32_t)PM_ID_SETPOINT_CLASSIC + part->part)
    return false;
  part->sequence_low = frame->data[0];
  for (uint32_t i = 0; i < PM_VALUES_PER_PART; ++i) {
    part->values[i] = pm_get_i16(frame->data + 2 + 2 * i);
    if (part->values[i] == PM_NAN_I16) return false;
  }
  return true;
}

uint16_t pm_classic_set_crc(const struct pm_classic_head* head, uint16_t session, const int16_t* values,
                            uint8_t part_count) {
  uint8_t bytes[11];
  pm_put_u16(bytes, PM_ID_SETPOINT_CLASSIC);
  bytes[2] = PM_PROTOCOL_VERSION;
  pm_put_u16(bytes + 3, session);
  put_head(bytes + 5, head);
  uint16_t crc = pm_crc16(PM_CRC16_START, bytes, sizeof bytes);
  for (uint32_t i = 0; i < (uint32_t)part_count * PM_VALUES_PER_PART; ++i) {
    pm_put_u16(bytes, (uint16_t)values[i]);
    crc = pm_crc16(crc, bytes, 2);
  }
  return crc;
}

void pm_axis_feedback_pack(struct pm_can_frame* frame, const struct pm_axis_feedback* feedback) {
  uint8_t payload[PM_SHORT_PAYLOAD_BYTES];
  pm_put_i24(payload, feedback->position_e6);
  pm_put_u16(payload + 3, (uint16_t)feedback->velocity);
  payload[5] = feedback->is_valid ? 1 : 0;
  pm_short_pack(frame, (uint32_t)PM_ID_AXIS_FEEDBACK + feedback->axis, payload);
}

bool pm_axis_feedback_unpack(const struct pm_can_frame* frame, struct pm_axis_feedback* feedback) {
  if (!pm_short_is_intact(frame, PM_SHORT_PAYLOAD_BYTES) || frame->data[5] > 1) return false;
  if (frame->id < PM_ID_AXIS_FEEDBACK || frame->id >= (uint32_t)PM_ID_AXIS_FEEDBACK + PM_AXES_MAX) return false;
  feedback->axis = (uint8_t)(frame->id - PM_ID_AXIS_FEEDBACK);
  feedback->position_e6 = pm_get_i24(frame->data);
  feedback->velocity = pm_get_i16(frame->data + 3);
  feedback->is_valid = frame->data[5] == 1;
  return true;
}

void pm_fault_pack(struct pm_can_frame* frame, const struct pm_fault_report* report) {
  uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {report->fault, report->axis, report->detail, report->later_count, 0, 0};
  pm_put_u16(payload + 4, report->age_ms);
  pm_short_pack(frame, PM_ID_FAULT, payload);
}

bool pm_fault_unpack(const struct pm_can_frame* frame, struct pm_fault_report* report) {
  if (!pm_short_is_intact(frame, PM_SHORT_PAYLOAD_BYTES) || frame->id != PM_ID_FAULT) return false;
  report->fault = frame->data[0];
  report->axis = frame->data[1];
  report->detail = frame->data[2];
  report->later_count = frame->data[3];
  report->age_ms = pm_get_u16(frame->data + 4);
  return true;
}

void pm_limit_pack(struct pm_can_frame* frame, uint32_t id, const struct pm_limit_item* item) {
  uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {item->axis, item->field, 0, 0, 0, 0};
  pm_put_u32(payload + 2, (uint32_t)item->value);
  pm_short_pack(frame, id, payload);
}

bool pm_limit_unpack(const struct pm_can_frame* frame, struct pm_limit_item* item) {
  if (!pm_short_is_intact(frame, PM_SHORT_PAYLOAD_BYTES)) return false;
  item->axis = frame->data[0];
  item->field = frame->data[1];
  item->value = pm_get_i32(frame->data + 2);
  return true;
}

void pm_word_pack(struct pm_can_frame* frame, uint32_t id, const struct pm_word_item* item) {
  uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {item->key, item->detail, 0, 0, 0, 0};
  pm_put_u32(payload + 2, item->value);
  pm_short_pack(frame, id, payload);
}

bool pm_word_unpack(const struct pm_can_frame* frame, struct pm_word_item* item) {
  if (!pm_short_is_intact(frame, PM_SHORT_PAYLOAD_BYTES)) return false;
  item->key = frame->data[0];
  item->detail = frame->data[1];
  item->value = pm_get_u32(frame->data + 2);
  return true;
}

enum { BLOCK_AT = 6 };
_Static_assert(BLOCK_AT + PM_UPDATE_BLOCK_BYTES + 2 == PM_LONG_BYTES, "a block fills an FD frame");

void pm_update_piece_pack(struct pm_can_frame* frame, const struct pm_update_piece* piece, bool is_fd) {
  if (!is_fd) {
    uint8_t payload[PM_SHORT_PAYLOAD_BYTES];
    pm_put_u16(payload, (uint16_t)(piece->offset / PM_UPDATE_WORD_BYTES));
    memcpy(payload + 2, piece->data, PM_UPDATE_WORD_BYTES);
    pm_short_pack(frame, PM_ID_UPDATE_WORD, payload);
    return;
  }
  clear_frame(frame, PM_ID_UPDATE_BLOCK, PM_LONG_BYTES);
  frame->data[0] = PM_PROTOCOL_VERSION;
  frame->data[1] = piece->bytes;
  pm_put_u32(frame->data + 2, piece->offset);
  memcpy(frame->data + BLOCK_AT, piece->data, piece->bytes);
  finish_long(frame);
}

static bool block_unpack(const struct pm_can_frame* frame, struct pm_update_piece* piece) {
  if (frame->is_extended || !frame->is_fd || frame->data_bytes != PM_LONG_BYTES) return false;
  const uint8_t bytes = frame->data[1];
  if (frame->data[0] != PM_PROTOCOL_VERSION || bytes == 0 || bytes > PM_UPDATE_BLOCK_BYTES || bytes % 4 != 0)
    return false;
  piece->offset = pm_get_u32(frame->data + 2);
  if (piece->offset % 4 != 0) return false;
  if (pm_get_u16(frame->data + PM_LONG_BYTES - 2) != frame_crc(frame, PM_LONG_BYTES - 2)) return false;
  for (uint32_t i = bytes; i < PM_UPDATE_BLOCK_BYTES; ++i) {
    if (frame->data[BLOCK_AT + i] != 0) return false;
  }
  piece->bytes = bytes;
  memcpy(piece->data, frame->data + BLOCK_AT, PM_UPDATE_BLOCK_BYTES);
  return true;
}

bool pm_update_piece_unpack(const struct pm_can_frame* frame, struct pm_update_piece* piece) {
  if (frame->id == PM_ID_UPDATE_BLOCK) return block_unpack(frame, piece);
  if (frame->id != PM_ID_UPDATE_WORD || !pm_short_is_intact(frame, PM_SHORT_PAYLOAD_BYTES)) return false;
  piece->offset = (uint32_t)pm_get_u16(frame->data) * PM_UPDATE_WORD_BYTES;
  piece->bytes = PM_UPDATE_WORD_BYTES;
  memset(piece->data, 0, sizeof piece->data);
  memcpy(piece->data, frame->data + 2, PM_UPDATE_WORD_BYTES);
  return true;
}

uint16_t pm_limits_crc(const int32_t (*values)[PM_LIMIT_FIELDS], uint8_t axis_count) {
  uint16_t crc = PM_CRC16_START;
  for (uint32_t axis = 0; axis < axis_count; ++axis) {
    for (uint32_t field = 0; field < PM_LIMIT_FIELDS; ++field) {
      uint8_t bytes[4];
      pm_put_u32(bytes, (uint32_t)values[axis][field]);
      crc = pm_crc16(crc, bytes, 4);
    }
  }
  return crc;
}

uint32_t pm_arm_answer(uint32_t host_nonce, uint32_t bridge_nonce) {
  uint8_t bytes[12];
  pm_put_u32(bytes, host_nonce);
  pm_put_u32(bytes + 4, bridge_nonce);
  pm_put_u32(bytes + 8, host_nonce);
  const uint32_t low = pm_crc16(PM_CRC16_START, bytes, 8);
  const uint32_t high = pm_crc16(PM_CRC16_START, bytes + 4, 8);
  return high << 16 | low;
}

uint8_t pm_part_count(uint8_t axis_count) {
  return (uint8_t)((axis_count + PM_SLOTS_PER_PART - 1) / PM_SLOTS_PER_PART);
}

uint8_t pm_classic_part_count(uint8_t axis_count) {
  return (uint8_t)((2 * axis_count + PM_VALUES_PER_PART - 1) / PM_VALUES_PER_PART);
}
