// The part of CANopen (CiA 301) that a drive needs: NMT, SYNC, heartbeat, emergency, and expedited SDO transfers in
// both directions, for the host and for the device side. Segmented transfers are refused: no object used here needs
// one.
//
//   NMT 000: command u8, node u8          SYNC 080: empty           EMCY 080+n: code u16, register u8, maker 5
//   heartbeat 700+n: state u8             SDO 600+n to the drive, 580+n from it: cs u8, index u16, sub u8, data 4
//
// Sources: docs/CAN.md, "CANopen and CiA 402". Little-endian; a node is 1 .. 127.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/can_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  PM_CANOPEN_NMT_ID = 0x000,
  PM_CANOPEN_SYNC_ID = 0x080,
  PM_CANOPEN_EMERGENCY_ID = 0x080,
  PM_CANOPEN_TPDO1_ID = 0x180,
  PM_CANOPEN_RPDO1_ID = 0x200,
  PM_CANOPEN_SDO_REPLY_ID = 0x580,
  PM_CANOPEN_SDO_REQUEST_ID = 0x600,
  PM_CANOPEN_HEARTBEAT_ID = 0x700,
  PM_CANOPEN_NODE_MAX = 127
};

enum pm_nmt_command {
  PM_NMT_START = 1,
  PM_NMT_STOP = 2,
  PM_NMT_ENTER_PREOPERATIONAL = 128,
  PM_NMT_RESET_NODE = 129,
  PM_NMT_RESET_COMMUNICATION = 130
};

enum pm_nmt_state {
  PM_NMT_STATE_BOOT = 0,
  PM_NMT_STATE_STOPPED = 4,
  PM_NMT_STATE_OPERATIONAL = 5,
  PM_NMT_STATE_PREOPERATIONAL = 127
};

enum pm_sdo_abort {
  PM_SDO_ABORT_TOGGLE = 0x05030000,
  PM_SDO_ABORT_TIMEOUT = 0x05040000,
  PM_SDO_ABORT_COMMAND = 0x05040001,
  PM_SDO_ABORT_ACCESS = 0x06010000,
  PM_SDO_ABORT_WRITE_ONLY = 0x06010001,
  PM_SDO_ABORT_READ_ONLY = 0x06010002,
  PM_SDO_ABORT_NO_OBJECT = 0x06020000,
  PM_SDO_ABORT_LENGTH = 0x06070010,
  PM_SDO_ABORT_NO_SUBINDEX = 0x06090011,
  PM_SDO_ABORT_VALUE = 0x06090030,
  PM_SDO_ABORT_GENERAL = 0x08000000,
  PM_SDO_ABORT_STATE = 0x08000022
};

enum pm_sdo_kind {
  PM_SDO_UPLOAD_REQUEST,    // host: read
  PM_SDO_DOWNLOAD_REQUEST,  // host: write
  PM_SDO_UPLOAD_REPLY,      // device: the value read
  PM_SDO_DOWNLOAD_REPLY,    // device: written
  PM_SDO_ABORT              // both: `value` is the abort code
};

struct pm_sdo {
  enum pm_sdo_kind kind;
  uint16_t index;
  uint8_t subindex;
  uint8_t value_bytes;  // 1 .. 4 where there is a value
  uint32_t value;       // little-endian on the wire; higher bytes zero
};

struct pm_emergency {
  uint16_t code;
  uint8_t error_register;
  uint8_t maker[5];
};

void pm_canopen_encode_nmt(enum pm_nmt_command command, uint8_t node, struct pm_can_frame* frame);
// True for a complete NMT frame; node 0 addresses all.
bool pm_canopen_decode_nmt(const struct pm_can_frame* frame, uint8_t* command, uint8_t* node);

void pm_canopen_encode_sync(struct pm_can_frame* frame);
bool pm_canopen_is_sync(const struct pm_can_frame* frame);

void pm_canopen_encode_heartbeat(uint8_t node, uint8_t state, struct pm_can_frame* frame);
bool pm_canopen_decode_heartbeat(const struct pm_can_frame* frame, uint8_t node, uint8_t* state);

void pm_canopen_encode_emergency(uint8_t node, const struct pm_emergency* emergency, struct pm_can_frame* frame);
bool pm_canopen_decode_emergency(const struct pm_can_frame* frame, uint8_t node, struct pm_emergency* emergency);

// The identifier follows from the kind and, for an abort, from `is_from_device`. False when a value has 0 or > 4 bytes.
bool pm_canopen_encode_sdo(uint8_t node, bool is_from_device, const struct pm_sdo* sdo, struct pm_can_frame* frame);
// False for other identifiers, segmented or block transfers and broken specifiers.
bool pm_canopen_decode_sdo(const struct pm_can_frame* frame, uint8_t node, bool is_from_device, struct pm_sdo* sdo);

// Consumer heartbeat time, object 1016h: watch `node` and react after `time_ms`.
uint32_t pm_canopen_consumer_heartbeat(uint8_t node, uint16_t time_ms);

const char* pm_sdo_abort_name(uint32_t abort);

#ifdef __cplusplus
}
#endif
