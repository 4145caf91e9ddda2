// The datagrams of cannelloni (CAN over UDP), version 2, big-endian:
//
//   version u8 = 2 | op u8 = 0 | sequence u8 | count u16 | count x { id u32 | length u8 | [flags u8] | data }
//
// The id carries SocketCAN's flags in its top bits (29-bit, remote, error). Bit 7 of the length marks an FD frame and
// is followed by the flags byte. A remote frame has a length but no data. Source: docs/CAN.md, "cannelloni".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "protocol/can_frame.h"

namespace premotor::can {

inline constexpr std::size_t cannelloni_header_bytes = 5;
inline constexpr std::size_t cannelloni_frame_bytes_max = 4 + 1 + 1 + PM_CAN_DATA_BYTES_MAX;
inline constexpr std::size_t cannelloni_datagram_bytes_max = 1472;  // one Ethernet frame

void cannelloni_write_header(std::uint8_t sequence, std::uint16_t count, std::span<std::uint8_t> to);
// Returns the bytes written, 0 when they do not fit.
std::size_t cannelloni_write_frame(const pm_can_frame& frame, std::span<std::uint8_t> to);

// Walks one datagram: open it, then take frame after frame.
class CannelloniReader {
 public:
  enum class Result { frame, error_frame, end, malformed };

  // False when this is no data packet of version 2.
  bool open(std::span<const std::uint8_t> datagram);
  // `end` after the frames that the header counts; bytes behind them are malformed. After `malformed` the rest of the
  // datagram is lost: the frames have no marks to find the next by.
  Result next(pm_can_frame* frame);
  [[nodiscard]] std::uint8_t sequence() const { return sequence_; }

 private:
  std::span<const std::uint8_t> rest_;
  std::uint8_t sequence_ = 0;
  std::size_t frames_left_ = 0;
};

}  // namespace premotor::can
