// Text of Lawicel frames and the byte-wise parser.
#include "can/slcan_codec.h"

#include <cassert>

#include "can/bus.h"
#include "can/hex.h"

namespace premotor::can {
namespace {

constexpr char cr = '\r';
constexpr char bel = '\a';

}  // namespace

std::size_t slcan_encode(const pm_can_frame& frame, std::span<char, slcan_text_max> text) {
  assert(is_valid(frame));
  if (frame.is_fd) return 0;
  char* end = text.data();
  const char letter = frame.is_remote ? 'r' : 't';
  *end++ = frame.is_extended ? static_cast<char>(letter - 'a' + 'A') : letter;
  end = put_hex(end, frame.id, frame.is_extended ? 8 : 3);
  *end++ = static_cast<char>('0' + frame.data_bytes);
  for (std::size_t i = 0; !frame.is_remote && i < frame.data_bytes; ++i) end = put_hex(end, frame.data[i], 2);
  *end++ = cr;
  return static_cast<std::size_t>(end - text.data());
}

void SlcanParser::reset() {
  length_ = 0;
  is_overlong_ = false;
}

SlcanEvent SlcanParser::push(char byte) {
  if (byte == bel) {
    // A refusal stands alone. In the middle of a line it means that bytes were lost.
    const bool is_alone = length_ == 0 && !is_overlong_;
    reset();
    return is_alone ? SlcanEvent::refused : SlcanEvent::malformed;
  }
  if (byte == cr) {
    const SlcanEvent event = is_overlong_ ? SlcanEvent::malformed : finish_line();
    reset();
    return event;
  }
  if (length_ == line_.size()) {
    is_overlong_ = true;
  } else {
    line_[length_++] = byte;
  }
  return SlcanEvent::none;
}

SlcanEvent SlcanParser::finish_line() {
  if (length_ == 0) return SlcanEvent::done;
  switch (line_[0]) {
    case 't':
    case 'T':
    case 'r':
    case 'R':
      return parse_frame_line();
    case 'z':
    case 'Z':
      return length_ == 1 ? SlcanEvent::done : SlcanEvent::malformed;
    case 'V':
    case 'v':
    case 'N':
      return SlcanEvent::text;
    case 'F': {
      std::uint32_t flags = 0;
      if (length_ != 3 || !get_hex(&line_[1], 2, &flags)) return SlcanEvent::malformed;
      status_flags_ = static_cast<std::uint8_t>(flags);
      return SlcanEvent::status;
    }
    default:
      return SlcanEvent::malformed;
  }
}

SlcanEvent SlcanParser::parse_frame_line() {
  const bool is_extended = line_[0] == 'T' || line_[0] == 'R';
  const bool is_remote = line_[0] == 'r' || line_[0] == 'R';
  const std::size_t id_digits = is_extended ? 8 : 3;
  pm_can_frame frame{};
  frame.is_extended = is_extended;
  frame.is_remote = is_remote;
  if (length_ < id_digits + 2 || !get_hex(&line_[1], static_cast<int>(id_digits), &frame.id)) {
    return SlcanEvent::malformed;
  }
  const char length = line_[1 + id_digits];
  if (length < '0' || length > '8') return SlcanEvent::malformed;
  frame.data_bytes = static_cast<std::uint8_t>(length - '0');
  const std::size_t data_bytes = is_remote ? 0 : frame.data_bytes;
  const std::size_t expected = 2 + id_digits + 2 * data_bytes;
  if (length_ != expected && length_ != expected + 4) return SlcanEvent::malformed;
  for (std::size_t i = 0; i < data_bytes; ++i) {
    std::uint32_t byte = 0;
    if (!get_hex(&line_[2 + id_digits + 2 * i], 2, &byte)) return SlcanEvent::malformed;
    frame.data[i] = static_cast<std::uint8_t>(byte);
  }
  std::uint32_t stamp = 0;
  if (length_ != expected && !get_hex(&line_[expected], 4, &stamp)) return SlcanEvent::malformed;
  if (!is_valid(frame)) return SlcanEvent::malformed;
  frame_ = frame;
  return SlcanEvent::frame;
}

}  // namespace premotor::can
