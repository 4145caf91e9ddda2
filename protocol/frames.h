// The frames between host and firmware bridge, packed and unpacked. protocol/README.md owns every byte; this header
// follows it. Pure functions on plain data for host (C++) and firmware (C11): no clock, no state, no allocation.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/can_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  PM_PROTOCOL_VERSION = 1,
  PM_AXES_MAX = 14,
  PM_AXIS_NONE = 255,

  PM_SLOTS_PER_PART = 6,   // axes in one FD frame
  PM_PARTS_MAX = 3,        // FD frames in a set
  PM_VALUES_PER_PART = 3,  // values in one classic frame
  PM_CLASSIC_PARTS_MAX = 10,
  PM_SHORT_BYTES = 8,
  PM_SHORT_PAYLOAD_BYTES = 6,
  PM_LONG_BYTES = 64,
  PM_SLOTS_AT = 14,  // first slot's byte in an FD frame
  PM_SLOT_BYTES = 8,
  PM_UPDATE_WORD_BYTES = 4,    // of an image in a classic frame
  PM_UPDATE_BLOCK_BYTES = 56,  // of an image in an FD frame

  PM_INT24_MAX = 8388607,
};

// The most negative value of a signed field says "not a number".
#define PM_NAN_I16 INT16_MIN
#define PM_NAN_I24 (-8388608)
#define PM_NAN_I32 INT32_MIN

enum pm_id {
  PM_ID_ESTOP = 0x010,
  PM_ID_DISARM = 0x011,
  PM_ID_SILENCE = 0x012,
  PM_ID_FAULT = 0x040,
  PM_ID_HEARTBEAT = 0x050,
  PM_ID_SETPOINT = 0x080,          // + part 0 .. 2
  PM_ID_SETPOINT_CLASSIC = 0x090,  // head; + 1 .. 10 parts
  PM_ID_FEEDBACK = 0x100,          // + part 0 .. 2
  PM_ID_AXIS_FEEDBACK = 0x110,     // + axis
  PM_ID_HELLO = 0x200,
  PM_ID_WELCOME = 0x201,
  PM_ID_ARM_REQUEST = 0x210,
  PM_ID_ARM_CHALLENGE = 0x211,
  PM_ID_ARM_RESPONSE = 0x212,
  PM_ID_ARM_RESULT = 0x213,
  PM_ID_LIMIT_WRITE = 0x220,
  PM_ID_LIMIT_READ = 0x221,
  PM_ID_LIMIT_VALUE = 0x222,
  PM_ID_LIMIT_COMMIT = 0x223,
  PM_ID_LIMIT_RESULT = 0x224,
  PM_ID_FAULT_CLEAR = 0x230,
  PM_ID_COUNTER = 0x240,
  PM_ID_INDICATE = 0x250,
  PM_ID_FIRMWARE_ASK = 0x300,
  PM_ID_FIRMWARE_FACT = 0x301,
  PM_ID_UPDATE = 0x302,
  PM_ID_UPDATE_STATUS = 0x303,
  PM_ID_UPDATE_WORD = 0x304,
  PM_ID_UPDATE_BLOCK = 0x305,
};

enum pm_limit_field {
  PM_LIMIT_POSITION_MIN,
  PM_LIMIT_POSITION_MAX,
  PM_LIMIT_VELOCITY,
  PM_LIMIT_ACCELERATION,
  PM_LIMIT_JERK,
  PM_LIMIT_TORQUE,
  PM_LIMIT_FIELDS,
};

enum pm_arm_result {
  PM_ARM_OK,
  PM_ARM_NOT_DISARMED,
  PM_ARM_VERSION,
  PM_ARM_NO_CHALLENGE,
  PM_ARM_WRONG_ANSWER,
  PM_ARM_NO_LIMITS,
  PM_ARM_NO_FEEDBACK,
  PM_ARM_DRIVE_FAULT,
  PM_ARM_POSITION,
  PM_ARM_MOVING,
  PM_ARM_UPDATING,
};

enum pm_limit_result {
  PM_LIMIT_OK,
  PM_LIMIT_NOT_DISARMED,
  PM_LIMIT_AXES,
  PM_LIMIT_INCOMPLETE,
  PM_LIMIT_CHECKSUM,
  PM_LIMIT_CEILING,
  PM_LIMIT_ORDER,
};

// What the host may let the bridge's LED say.
enum pm_indication {
  PM_INDICATE_STARTING,
  PM_INDICATE_WAITING,
  PM_INDICATE_READY,
  PM_INDICATE_HOLDING,
  PM_INDICATE_RUNNING,
  PM_INDICATE_FAULT,
  PM_INDICATE_MAINTENANCE,
  PM_INDICATIONS,
};

enum pm_firmware_fact {
  PM_FACT_VERSION,        // of what runs: major << 24 | minor << 16 | patch
  PM_FACT_SOURCE,         // the first 32 bits of the commit's name
  PM_FACT_BOOT,           // slot | trial << 8 | tries << 16 | failed slot << 24
  PM_FACT_CHECKSUM,       // CRC-32 of the body of what runs
  PM_FACT_BOARD,          // four letters
  PM_FACT_SLOT_BYTES,     // the largest image
  PM_FACT_OTHER_VERSION,  // of the slot that does not run, 0 none
  PM_FACT_TARGET,         // the slot that an update is written to
  PM_FACTS,
};

enum pm_update_operation {
  PM_UPDATE_ASK,
  PM_UPDATE_SIZE,  // this and the next three set what BEGIN is about
  PM_UPDATE_VERSION,
  PM_UPDATE_CHECKSUM,
  PM_UPDATE_BOARD,
  PM_UPDATE_BEGIN,
  PM_UPDATE_FINISH,
  PM_UPDATE_ACTIVATE,
  PM_UPDATE_CONFIRM,
  PM_UPDATE_ABANDON,
  PM_UPDATE_OPERATIONS,
};

enum pm_update_state {
  PM_UPDATE_IDLE,
  PM_UPDATE_ERASING,
  PM_UPDATE_RECEIVING,
  PM_UPDATE_VERIFYING,
  PM_UPDATE_VERIFIED,
  PM_UPDATE_RESTARTING,
};

enum pm_update_result {
  PM_UPDATE_OK,
  PM_UPDATE_NOT_DISARMED,
  PM_UPDATE_WRONG_BOARD,
  PM_UPDATE_WRONG_SIZE,
  PM_UPDATE_OLDER,
  PM_UPDATE_WRONG_STATE,
  PM_UPDATE_WRONG_OFFSET,
  PM_UPDATE_FLASH_FAILED,
  PM_UPDATE_WRONG_CHECKSUM,
  PM_UPDATE_WRONG_HEADER,
  PM_UPDATE_ON_TRIAL,
  PM_UPDATE_NO_SLOTS,
  PM_UPDATE_LATE,
  PM_UPDATE_RESULTS,
};

// Raw units of the wire; PM_*_PER_* below converts.
struct pm_slot {
  int32_t position;  // 1e-7 rad
  int16_t velocity;  // 1e-3 rad/s
  int16_t torque;    // 1e-2 N m
};

struct pm_setpoint_part {
  uint8_t part;
  uint16_t sequence;
  uint16_t session;
  uint16_t token;
  uint32_t due_us;  // bridge clock, modulo 2^32
  bool has_torque;
  uint8_t axis_count;                       // of the whole set
  struct pm_slot slots[PM_SLOTS_PER_PART];  // axis = part * 6 + slot
};

struct pm_feedback_part {
  uint8_t part;
  uint16_t sequence;
  uint16_t accepted_sequence;
  uint8_t state;
  uint8_t fault;
  uint32_t clock_us;
  uint8_t valid;  // bit per slot
  uint8_t axis_count;
  struct pm_slot slots[PM_SLOTS_PER_PART];
};

struct pm_classic_head {
  uint16_t sequence;
  uint16_t token;
  uint16_t due_100us;
  uint16_t set_crc;
};

struct pm_classic_part {
  uint8_t part;  // 1 .. 10
  uint8_t sequence_low;
  int16_t values[PM_VALUES_PER_PART];
};

struct pm_axis_feedback {
  uint8_t axis;
  int32_t position_e6;  // 1e-6 rad, i24
  int16_t velocity;     // 1e-3 rad/s
  bool is_valid;
};

struct pm_fault_report {
  uint8_t fault, axis, detail, later_count;
  uint16_t age_ms;
};

struct pm_limit_item {
  uint8_t axis, field;
  int32_t value;
};

// FIRMWARE_FACT: `key` is the fact, `detail` 0. UPDATE: operation and flags. UPDATE_STATUS: operation << 4 | state, and
// the result. All with a word.
struct pm_word_item {
  uint8_t key, detail;
  uint32_t value;
};

// A piece of an image: UPDATE_WORD when it has four bytes and came in a classic frame, else UPDATE_BLOCK.
struct pm_update_piece {
  uint32_t offset;  // from the image's first byte, a multiple of 4
  uint8_t bytes;    // 4 .. 56, a multiple of 4
  uint8_t data[PM_UPDATE_BLOCK_BYTES];
};

#define PM_POSITION_PER_RAD 1e7
#define PM_CLASSIC_POSITION_PER_RAD 4e3
#define PM_FEEDBACK_POSITION_PER_RAD 1e6
#define PM_VELOCITY_PER_RAD_S 1e3
#define PM_TORQUE_PER_NM 1e2
#define PM_LIMIT_PER_UNIT 1e3

// Nearest integer of value * scale, saturated at +-max; -max - 1 ("not a number") for NaN.
int32_t pm_quantise(double value, double scale, int32_t max);

// CRC-16/CCITT-FALSE, continued from `crc` (0xFFFF to begin).
uint16_t pm_crc16(uint16_t crc, const uint8_t* bytes, uint32_t count);
enum { PM_CRC16_START = 0xFFFF };
// CRC-32/ISO-HDLC, continued from what an earlier call gave (0 to begin).
uint32_t pm_crc32(uint32_t crc, const uint8_t* bytes, uint32_t count);

uint16_t pm_get_u16(const uint8_t* at);
uint32_t pm_get_u32(const uint8_t* at);
int16_t pm_get_i16(const uint8_t* at);
int32_t pm_get_i24(const uint8_t* at);
int32_t pm_get_i32(const uint8_t* at);
void pm_put_u16(uint8_t* at, uint16_t value);
void pm_put_i24(uint8_t* at, int32_t value);
void pm_put_u32(uint8_t* at, uint32_t value);

// Frames of eight bytes: six of payload and the checksum.
void pm_short_pack(struct pm_can_frame* frame, uint32_t id, const uint8_t payload[PM_SHORT_PAYLOAD_BYTES]);
// Is the frame's form right (length, checksum) and are the payload bytes from `used` on zero?
bool pm_short_is_intact(const struct pm_can_frame* frame, uint8_t used);

void pm_setpoint_pack(struct pm_can_frame* frame, const struct pm_setpoint_part* part);
bool pm_setpoint_unpack(const struct pm_can_frame* frame, struct pm_setpoint_part* part);
void pm_feedback_pack(struct pm_can_frame* frame, const struct pm_feedback_part* part);
bool pm_feedback_unpack(const struct pm_can_frame* frame, struct pm_feedback_part* part);

void pm_classic_head_pack(struct pm_can_frame* frame, const struct pm_classic_head* head);
bool pm_classic_head_unpack(const struct pm_can_frame* frame, struct pm_classic_head* head);
void pm_classic_part_pack(struct pm_can_frame* frame, const struct pm_classic_part* part);
bool pm_classic_part_unpack(const struct pm_can_frame* frame, struct pm_classic_part* part);
// Checksum of a whole classic set: the head without its own checksum, values[3 * part_count].
uint16_t pm_classic_set_crc(const struct pm_classic_head* head, uint16_t session, const int16_t* values,
                            uint8_t part_count);

void pm_axis_feedback_pack(struct pm_can_frame* frame, const struct pm_axis_feedback* feedback);
bool pm_axis_feedback_unpack(const struct pm_can_frame* frame, struct pm_axis_feedback* feedback);
void pm_fault_pack(struct pm_can_frame* frame, const struct pm_fault_report* report);
bool pm_fault_unpack(const struct pm_can_frame* frame, struct pm_fault_report* report);
// LIMIT_WRITE and LIMIT_VALUE; `id` says which.
void pm_limit_pack(struct pm_can_frame* frame, uint32_t id, const struct pm_limit_item* item);
bool pm_limit_unpack(const struct pm_can_frame* frame, struct pm_limit_item* item);
// FIRMWARE_FACT, UPDATE and UPDATE_STATUS; `id` says which.
void pm_word_pack(struct pm_can_frame* frame, uint32_t id, const struct pm_word_item* item);
bool pm_word_unpack(const struct pm_can_frame* frame, struct pm_word_item* item);
// UPDATE_WORD when `is_fd` is false: then bytes is 4 and the offset below 2^18. Otherwise UPDATE_BLOCK.
void pm_update_piece_pack(struct pm_can_frame* frame, const struct pm_update_piece* piece, bool is_fd);
bool pm_update_piece_unpack(const struct pm_can_frame* frame, struct pm_update_piece* piece);
// values[axis_count][PM_LIMIT_FIELDS]
uint16_t pm_limits_crc(const int32_t (*values)[PM_LIMIT_FIELDS], uint8_t axis_count);
uint32_t pm_arm_answer(uint32_t host_nonce, uint32_t bridge_nonce);

// Number of frames of a set.
uint8_t pm_part_count(uint8_t axis_count);
uint8_t pm_classic_part_count(uint8_t axis_count);  // without the head

#ifdef __cplusplus
}
#endif
