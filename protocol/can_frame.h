// One CAN frame, classic or FD, as buses, codecs and the firmware pass it around. Plain data; no byte order of its own.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PM_CAN_DATA_BYTES_MAX = 64, PM_CAN_CLASSIC_DATA_BYTES_MAX = 8 };

struct pm_can_frame {
  uint32_t id;                // 11 bits, or 29 when is_extended
  bool is_extended;           // 29-bit identifier
  bool is_remote;             // remote request; classic only, carries no data
  bool is_fd;                 // CAN FD frame (ISO 11898-1:2015)
  bool is_bit_rate_switched;  // FD: data phase at the higher rate (BRS)
  bool is_error_passive;      // FD: the sender's error state indicator (ESI)
  uint8_t data_bytes;         // classic 0 .. 8; FD 0 .. 8, 12, 16, 20, 24, 32, 48, 64
  uint8_t data[PM_CAN_DATA_BYTES_MAX];
};

#ifdef __cplusplus
}
#endif
