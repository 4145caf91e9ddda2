// Byte layout of cannelloni datagrams.
#include "can/cannelloni_codec.h"

#include <cassert>
#include <cstring>
#include <utility>

#include "can/bus.h"

namespace premotor::can {
namespace {

constexpr std::uint8_t version = 2;
constexpr std::uint8_t op_data = 0;
constexpr std::uint8_t fd_bit = 0x80;
constexpr std::uint8_t flag_brs = 1, flag_esi = 2;
constexpr std::uint32_t id_extended = 0x80000000u, id_remote = 0x40000000u, id_error = 0x20000000u;

}  // namespace

void cannelloni_write_header(std::uint8_t sequence, std::uint16_t count, std::span<std::uint8_t> to) {
  assert(to.size() >= cannelloni_header_bytes);
  to[0] = version;
  to[1] = op_data;
  to[2] = sequence;
  to[3] = static_cast<std::uint8_t>(count >> 8);
  to[4] = static_cast<std::uint8_t>(count & 0xff);
}

std::size_t cannelloni_write_frame(const pm_can_frame& frame, std::span<std::uint8_t> to) {
  assert(is_valid(frame));
  const std::size_t data_bytes = frame.is_remote ? 0 : frame.data_bytes;
  const std::size_t bytes = 5 + (frame.is_fd ? 1u : 0u) + data_bytes;
  if (to.size() < bytes) return 0;
  const std::uint32_t id = frame.id | (frame.is_extended ? id_extended : 0) | (frame.is_remote ? id_remote : 0);
  for (std::size_t i = 0; i < 4; ++i) to[i] = static_cast<std::uint8_t>(id >> (24 - 8 * i));
  to[4] = static_cast<std::uint8_t>(frame.data_bytes | (frame.is_fd ? fd_bit : 0));
  if (frame.is_fd) {
    to[5] = static_cast<std::uint8_t>((frame.is_bit_rate_switched ? flag_brs : 0) |
                                      (frame.is_error_passive ? flag_esi : 0));
  }
  std::memcpy(to.data() + bytes - data_bytes, frame.data, data_bytes);
  return bytes;
}

bool CannelloniReader::open(std::span<const std::uint8_t> datagram) {
  if (datagram.size() < cannelloni_header_bytes || datagram[0] != version || datagram[1] != op_data) return false;
  sequence_ = datagram[2];
  frames_left_ = static_cast<std::size_t>(datagram[3] << 8 | datagram[4]);
  rest_ = datagram.subspan(cannelloni_header_bytes);
  return true;
}

CannelloniReader::Result CannelloniReader::next(pm_can_frame* frame) {
  if (frames_left_ == 0) return std::exchange(rest_, {}).empty() ? Result::end : Result::malformed;
  *frame = {};
  const std::span<const std::uint8_t> rest = rest_;
  const std::size_t frames_before = std::exchange(frames_left_, 0);  // until the frame proves good
  rest_ = {};
  if (rest.size() < 5) return Result::malformed;
  const std::uint32_t id = static_cast<std::uint32_t>(rest[0]) << 24 | static_cast<std::uint32_t>(rest[1]) << 16 |
                           static_cast<std::uint32_t>(rest[2]) << 8 | rest[3];
  frame->is_extended = (id & id_extended) != 0;
  frame->is_remote = (id & id_remote) != 0;
  frame->id = id & 0x1fffffffu;
  frame->is_fd = (rest[4] & fd_bit) != 0;
  frame->data_bytes = rest[4] & 0x7f;
  const std::size_t head = frame->is_fd ? 6 : 5;
  if (rest.size() < head) return Result::malformed;
  if (frame->is_fd) {
    frame->is_bit_rate_switched = (rest[5] & flag_brs) != 0;
    frame->is_error_passive = (rest[5] & flag_esi) != 0;
  }
  const bool is_error = (id & id_error) != 0;
  if (!is_error && !is_valid(*frame)) return Result::malformed;
  const std::size_t data_bytes = frame->is_remote ? 0 : frame->data_bytes;
  if (data_bytes > PM_CAN_DATA_BYTES_MAX || rest.size() < head + data_bytes) return Result::malformed;
  std::memcpy(frame->data, rest.data() + head, data_bytes);
  rest_ = rest.subspan(head + data_bytes);
  frames_left_ = frames_before - 1;
  return is_error ? Result::error_frame : Result::frame;
}

}  // namespace premotor::can
