// The byte layouts of canopen.h. Pure functions: no state, no heap.
#include "protocol/motor/canopen.h"

#include <stddef.h>
#include <string.h>

#include "protocol/motor/bytes.h"

static bool is_usable(const struct pm_can_frame* frame, uint32_t id, uint8_t bytes) {
  return frame->id == id && !frame->is_extended && !frame->is_remote && !frame->is_fd && frame->data_bytes == bytes;
}

static bool is_node(uint8_t node) { return node >= 1 && node <= PM_CANOPEN_NODE_MAX; }

void pm_canopen_encode_nmt(enum pm_nmt_command command, uint8_t node, struct pm_can_frame* frame) {
  pm_clear_frame(frame, PM_CANOPEN_NMT_ID, 2);
  frame->data[0] = (uint8_t)command;
  frame->data[1] = node;
}

bool pm_canopen_decode_nmt(const struct pm_can_frame* frame, uint8_t* command, uint8_t* node) {
  if (!is_usable(frame, PM_CANOPEN_NMT_ID, 2) || frame->data[1] > PM_CANOPEN_NODE_MAX) return false;
  *command = frame->data[0];
  *node = frame->data[1];
  return true;
}

void pm_canopen_encode_sync(struct pm_can_frame* frame) { pm_clear_frame(frame, PM_CANOPEN_SYNC_ID, 0); }

// A SYNC may carry a counter of one byte (CiA 301, object 1019h).
bool pm_canopen_is_sync(const struct pm_can_frame* frame) {
  return is_usable(frame, PM_CANOPEN_SYNC_ID, 0) || is_usable(frame, PM_CANOPEN_SYNC_ID, 1);
}

void pm_canopen_encode_heartbeat(uint8_t node, uint8_t state, struct pm_can_frame* frame) {
  pm_clear_frame(frame, (uint32_t)PM_CANOPEN_HEARTBEAT_ID + node, 1);
  frame->data[0] = state;
}

bool pm_canopen_decode_heartbeat(const struct pm_can_frame* frame, uint8_t node, uint8_t* state) {
  if (!is_node(node) || !is_usable(frame, (uint32_t)PM_CANOPEN_HEARTBEAT_ID + node, 1)) return false;
  *state = frame->data[0] & 0x7f;  // bit 7 is reserved here and toggles in the older node guarding
  return true;
}

void pm_canopen_encode_emergency(uint8_t node, const struct pm_emergency* emergency, struct pm_can_frame* frame) {
  pm_clear_frame(frame, (uint32_t)PM_CANOPEN_EMERGENCY_ID + node, 8);
  pm_put_u16_le(frame->data, emergency->code);
  frame->data[2] = emergency->error_register;
  memcpy(frame->data + 3, emergency->maker, sizeof emergency->maker);
}

bool pm_canopen_decode_emergency(const struct pm_can_frame* frame, uint8_t node, struct pm_emergency* emergency) {
  if (!is_node(node) || !is_usable(frame, (uint32_t)PM_CANOPEN_EMERGENCY_ID + node, 8)) return false;
  emergency->code = pm_get_u16_le(frame->data);
  emergency->error_register = frame->data[2];
  memcpy(emergency->maker, frame->data + 3, sizeof emergency->maker);
  return true;
}

// Command specifiers of expedited transfers: bit 1 expedited, bit 0 size indicated, bits 3-2 unused bytes.
enum { CS_DOWNLOAD = 0x23, CS_UPLOAD = 0x40, CS_UPLOADED = 0x43, CS_DOWNLOADED = 0x60, CS_ABORT = 0x80 };

static uint8_t with_size(uint8_t specifier, uint8_t bytes) { return (uint8_t)(specifier | ((4 - bytes) << 2)); }

bool pm_canopen_encode_sdo(uint8_t node, bool is_from_device, const struct pm_sdo* sdo, struct pm_can_frame* frame) {
  const bool has_value = sdo->kind == PM_SDO_DOWNLOAD_REQUEST || sdo->kind == PM_SDO_UPLOAD_REPLY;
  const bool is_device_kind = sdo->kind == PM_SDO_UPLOAD_REPLY || sdo->kind == PM_SDO_DOWNLOAD_REPLY;
  if (!is_node(node) || (has_value && (sdo->value_bytes < 1 || sdo->value_bytes > 4))) return false;
  if (sdo->kind != PM_SDO_ABORT && is_device_kind != is_from_device) return false;
  const uint32_t base = is_from_device ? PM_CANOPEN_SDO_REPLY_ID : PM_CANOPEN_SDO_REQUEST_ID;
  pm_clear_frame(frame, base + node, 8);
  switch (sdo->kind) {
    case PM_SDO_UPLOAD_REQUEST:
      frame->data[0] = CS_UPLOAD;
      break;
    case PM_SDO_DOWNLOAD_REQUEST:
      frame->data[0] = with_size(CS_DOWNLOAD, sdo->value_bytes);
      break;
    case PM_SDO_UPLOAD_REPLY:
      frame->data[0] = with_size(CS_UPLOADED, sdo->value_bytes);
      break;
    case PM_SDO_DOWNLOAD_REPLY:
      frame->data[0] = CS_DOWNLOADED;
      break;
    case PM_SDO_ABORT:
      frame->data[0] = CS_ABORT;
      break;
  }
  pm_put_u16_le(frame->data + 1, sdo->index);
  frame->data[3] = sdo->subindex;
  if (sdo->kind == PM_SDO_ABORT) pm_put_u32_le(frame->data + 4, sdo->value);
  for (uint8_t i = 0; has_value && i < sdo->value_bytes; ++i) frame->data[4 + i] = (uint8_t)(sdo->value >> (8 * i));
  return true;
}

// True when the specifier is an expedited transfer of `specifier`; `bytes` is 4 where the sender gave no size.
static bool is_expedited(uint8_t found, uint8_t specifier, uint8_t* bytes) {
  if ((found & 0xe2) != (specifier & 0xe2) || (found & 0x10) != 0) return false;
  *bytes = (found & 1) != 0 ? (uint8_t)(4 - ((found >> 2) & 3)) : 4;
  return true;
}

static bool decode_specifier(uint8_t specifier, bool is_from_device, struct pm_sdo* sdo) {
  sdo->value_bytes = 0;
  if (specifier == CS_ABORT) {
    sdo->kind = PM_SDO_ABORT;
    sdo->value_bytes = 4;
  } else if (is_from_device && is_expedited(specifier, CS_UPLOADED, &sdo->value_bytes)) {
    sdo->kind = PM_SDO_UPLOAD_REPLY;
  } else if (is_from_device && specifier == CS_DOWNLOADED) {
    sdo->kind = PM_SDO_DOWNLOAD_REPLY;
  } else if (!is_from_device && is_expedited(specifier, CS_DOWNLOAD, &sdo->value_bytes)) {
    sdo->kind = PM_SDO_DOWNLOAD_REQUEST;
  } else if (!is_from_device && specifier == CS_UPLOAD) {
    sdo->kind = PM_SDO_UPLOAD_REQUEST;
  } else {
    return false;
  }
  return true;
}

bool pm_canopen_decode_sdo(const struct pm_can_frame* frame, uint8_t node, bool is_from_device, struct pm_sdo* sdo) {
  const uint32_t base = is_from_device ? PM_CANOPEN_SDO_REPLY_ID : PM_CANOPEN_SDO_REQUEST_ID;
  if (!is_node(node) || !is_usable(frame, base + node, 8)) return false;
  if (!decode_specifier(frame->data[0], is_from_device, sdo)) return false;
  sdo->index = pm_get_u16_le(frame->data + 1);
  sdo->subindex = frame->data[3];
  sdo->value = 0;
  for (uint8_t i = 0; i < sdo->value_bytes; ++i) sdo->value |= (uint32_t)frame->data[4 + i] << (8 * i);
  return true;
}

uint32_t pm_canopen_consumer_heartbeat(uint8_t node, uint16_t time_ms) { return ((uint32_t)node << 16) | time_ms; }

const char* pm_sdo_abort_name(uint32_t abort) {
  switch (abort) {
    case PM_SDO_ABORT_TOGGLE:
      return "toggle bit not alternated";
    case PM_SDO_ABORT_TIMEOUT:
      return "SDO timed out";
    case PM_SDO_ABORT_COMMAND:
      return "command specifier unknown";
    case PM_SDO_ABORT_ACCESS:
      return "unsupported access";
    case PM_SDO_ABORT_WRITE_ONLY:
      return "object is write-only";
    case PM_SDO_ABORT_READ_ONLY:
      return "object is read-only";
    case PM_SDO_ABORT_NO_OBJECT:
      return "object does not exist";
    case PM_SDO_ABORT_LENGTH:
      return "length does not match";
    case PM_SDO_ABORT_NO_SUBINDEX:
      return "subindex does not exist";
    case PM_SDO_ABORT_VALUE:
      return "value out of range";
    case PM_SDO_ABORT_GENERAL:
      return "general error";
    case PM_SDO_ABORT_STATE:
      return "not possible in the present state";
    default:
      return "unknown abort code";
  }
}
