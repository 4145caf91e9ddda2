// The Lawicel ASCII protocol that USB-CAN adapters speak, without any transport: text of one frame, and a parser that
// is fed bytes as they arrive. Classic frames only.
//
//   tIIILDD..CR   11-bit data     TIIIIIIIILDD..CR  29-bit data      r, R: the same without data, remote request
//   CR = done, BEL = refused;  z CR, Z CR = frame queued;  Fxx CR = status flags;  V.. CR, N.. CR = version, serial
//   number with timestamps (Z1) four more digits follow the data: milliseconds, 0 .. 59999
//
// Source: docs/CAN.md, "slcan".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "protocol/can_frame.h"

namespace premotor::can {

inline constexpr std::size_t slcan_text_max = 1 + 8 + 1 + 16 + 4 + 1;  // bytes: 'T', id, length, data, timestamp, CR

// Writes the frame with its CR; returns the bytes written, 0 for an FD frame, which the protocol cannot carry.
std::size_t slcan_encode(const pm_can_frame& frame, std::span<char, slcan_text_max> text);

enum class SlcanEvent {
  none,      // more bytes are needed
  frame,     // a frame is in `frame()`
  done,      // CR, or z / Z before it
  refused,   // BEL
  status,    // F: flags in `status_flags()`
  text,      // V or N: an answer that nobody here waits for
  malformed  // a line that is none of these; it was skipped
};

// One reader of one serial line. A line that grows too long is skipped to its end.
class SlcanParser {
 public:
  SlcanEvent push(char byte);
  void reset();
  [[nodiscard]] const pm_can_frame& frame() const { return frame_; }
  [[nodiscard]] std::uint8_t status_flags() const { return status_flags_; }

 private:
  SlcanEvent finish_line();
  SlcanEvent parse_frame_line();

  std::array<char, slcan_text_max> line_{};
  std::size_t length_ = 0;
  bool is_overlong_ = false;
  pm_can_frame frame_{};
  std::uint8_t status_flags_ = 0;
};

}  // namespace premotor::can
