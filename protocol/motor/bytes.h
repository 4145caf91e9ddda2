// Byte order and finite-number helpers that the motor codecs share. They use no C library beyond memcpy, so that the
// same sources run on a host and on a microcontroller without a math library.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "protocol/can_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

// False for infinities and for NaN, which compares false with everything.
static inline bool pm_is_finite(float value) { return value >= -3.4028235e38f && value <= 3.4028235e38f; }

static inline void pm_put_u16_le(uint8_t* to, uint16_t value) {
  to[0] = (uint8_t)(value & 0xff);
  to[1] = (uint8_t)(value >> 8);
}

static inline void pm_put_u32_le(uint8_t* to, uint32_t value) {
  pm_put_u16_le(to, (uint16_t)(value & 0xffff));
  pm_put_u16_le(to + 2, (uint16_t)(value >> 16));
}

static inline void pm_put_f32_le(uint8_t* to, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  pm_put_u32_le(to, bits);
}

static inline uint16_t pm_get_u16_le(const uint8_t* from) { return (uint16_t)(from[0] | (uint16_t)(from[1] << 8)); }

static inline uint32_t pm_get_u32_le(const uint8_t* from) {
  return (uint32_t)pm_get_u16_le(from) | ((uint32_t)pm_get_u16_le(from + 2) << 16);
}

static inline float pm_get_f32_le(const uint8_t* from) {
  const uint32_t bits = pm_get_u32_le(from);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Two's complement without an implementation-defined conversion.
static inline int32_t pm_get_i32_le(const uint8_t* from) {
  const uint32_t bits = pm_get_u32_le(from);
  int32_t value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline int16_t pm_get_i16_le(const uint8_t* from) {
  const uint16_t bits = pm_get_u16_le(from);
  int16_t value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// A data frame with an 11-bit identifier and `data_bytes` zero bytes. Flags of CAN FD are the sender's to set.
static inline void pm_clear_frame(struct pm_can_frame* frame, uint32_t id, uint8_t data_bytes) {
  memset(frame, 0, sizeof *frame);
  frame->id = id;
  frame->data_bytes = data_bytes;
}

#ifdef __cplusplus
}
#endif
