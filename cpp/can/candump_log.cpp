// Formatting and parsing of candump lines, and the ring that carries frames to the file's writer.
#include "can/candump_log.h"

#include <cassert>
#include <cstdio>
#include <cstring>
#include <utility>

#include "can/hex.h"

namespace premotor::can {
namespace {

constexpr std::uint8_t fd_flag_brs = 1;
constexpr std::uint8_t fd_flag_esi = 2;

Status invalid(std::size_t column, const char* expected, std::string_view line) {
  Status status =
      Status::error("CAN_LOG_INVALID", "candump line, column " + std::to_string(column + 1) + ": expected " + expected +
                                           "; found \"" + std::string(line.substr(0, 120)) + '"');
  status.expected = expected;
  return status;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// `(seconds.microseconds)`; returns the column behind it, or 0 when it is not there.
std::size_t parse_time(std::string_view line, std::int64_t* time_us) {
  if (line.empty() || line[0] != '(') return 0;
  std::size_t at = 1;
  std::int64_t seconds = 0, fraction = 0;
  for (; at < line.size() && at < 13 && is_digit(line[at]); ++at) seconds = seconds * 10 + (line[at] - '0');
  if (at == 1 || at + 8 > line.size() || line[at] != '.') return 0;
  ++at;
  for (int i = 0; i < 6; ++i, ++at) {
    if (!is_digit(line[at])) return 0;
    fraction = fraction * 10 + (line[at] - '0');
  }
  if (line[at] != ')') return 0;
  *time_us = seconds * 1'000'000 + fraction;
  return at + 1;
}

// The data bytes from `at` to a blank or the end.
bool parse_data(std::string_view text, pm_can_frame* frame) {
  if (text.size() % 2 != 0 || text.size() / 2 > PM_CAN_DATA_BYTES_MAX) return false;
  for (std::size_t i = 0; i < text.size() / 2; ++i) {
    std::uint32_t byte = 0;
    if (!get_hex(text.data() + 2 * i, 2, &byte)) return false;
    frame->data[i] = static_cast<std::uint8_t>(byte);
  }
  frame->data_bytes = static_cast<std::uint8_t>(text.size() / 2);
  return true;
}

// `044#2A366C2B`, `##` with a flag digit for FD, `#R` or `#R4` for a remote request.
bool parse_frame(std::string_view text, pm_can_frame* frame) {
  const std::size_t hash = text.find('#');
  if (hash != 3 && hash != 8) return false;
  if (!get_hex(text.data(), static_cast<int>(hash), &frame->id)) return false;
  frame->is_extended = hash == 8;
  std::string_view rest = text.substr(hash + 1);
  if (!rest.empty() && rest[0] == '#') {
    const int flags = rest.size() > 1 ? hex_value(rest[1]) : -1;
    if (flags < 0) return false;
    frame->is_fd = true;
    frame->is_bit_rate_switched = (flags & fd_flag_brs) != 0;
    frame->is_error_passive = (flags & fd_flag_esi) != 0;
    return parse_data(rest.substr(2), frame) && is_valid(*frame);
  }
  if (!rest.empty() && rest[0] == 'R') {
    frame->is_remote = true;
    if (rest.size() > 2 || (rest.size() == 2 && !is_digit(rest[1]))) return false;
    frame->data_bytes = rest.size() == 2 ? static_cast<std::uint8_t>(rest[1] - '0') : std::uint8_t{0};
    return is_valid(*frame);
  }
  return parse_data(rest, frame) && is_valid(*frame);
}

}  // namespace

std::string format_candump(std::int64_t time_us, std::string_view interface, const pm_can_frame& frame) {
  assert(is_valid(frame) && time_us >= 0 && interface.find(' ') == std::string_view::npos);
  char stamp[40];
  std::snprintf(stamp, sizeof stamp, "(%010lld.%06lld) ", static_cast<long long>(time_us / 1'000'000),
                static_cast<long long>(time_us % 1'000'000));
  char body[8 + 3 + 2 * PM_CAN_DATA_BYTES_MAX];
  char* end = put_hex(body, frame.id, frame.is_extended ? 8 : 3);
  *end++ = '#';
  if (frame.is_remote) {
    *end++ = 'R';
    if (frame.data_bytes > 0) *end++ = static_cast<char>('0' + frame.data_bytes);
  } else {
    if (frame.is_fd) {
      *end++ = '#';
      *end++ = static_cast<char>('0' + (frame.is_bit_rate_switched ? fd_flag_brs : 0) +
                                 (frame.is_error_passive ? fd_flag_esi : 0));
    }
    for (std::size_t i = 0; i < frame.data_bytes; ++i) end = put_hex(end, frame.data[i], 2);
  }
  return std::string(stamp) + std::string(interface) + ' ' + std::string(body, end);
}

Status parse_candump(std::string_view line, CandumpLine* out) {
  *out = {};
  const std::size_t behind_time = parse_time(line, &out->time_us);
  if (behind_time == 0) return invalid(0, "(seconds.microseconds)", line);
  if (behind_time >= line.size() || line[behind_time] != ' ') return invalid(behind_time, "a blank", line);
  const std::size_t name_at = behind_time + 1;
  const std::size_t name_end = line.find(' ', name_at);
  if (name_end == std::string_view::npos || name_end == name_at) return invalid(name_at, "an interface name", line);
  out->interface = line.substr(name_at, name_end - name_at);
  std::string_view text = line.substr(name_end + 1);
  const std::size_t blank = text.find(' ');
  if (blank != std::string_view::npos) {
    const std::string_view direction = text.substr(blank + 1);
    if (direction != "R" && direction != "T") return invalid(name_end + 1 + blank, "R, T or the line's end", line);
    text = text.substr(0, blank);
  }
  if (!parse_frame(text, &out->frame)) return invalid(name_end + 1, "a frame such as 044#2A366C2B", line);
  return Status::good();
}

CaptureRingDropNewest::CaptureRingDropNewest(std::string interface, std::size_t capacity_frames)
    : interface_(std::move(interface)), ring_(capacity_frames) {
  assert(capacity_frames > 0);
}

void CaptureRingDropNewest::capture(const pm_can_frame& frame, bool is_sent, std::int64_t now_us) {
  static_cast<void>(is_sent);  // candump's file format has no direction
  const std::uint64_t written = written_.load(std::memory_order_relaxed);
  if (written - read_.load(std::memory_order_acquire) == ring_.size()) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  ring_[written % ring_.size()] = {frame, now_us};
  written_.store(written + 1, std::memory_order_release);
}

std::size_t CaptureRingDropNewest::drain(std::string* text) {
  const std::uint64_t written = written_.load(std::memory_order_acquire);
  std::uint64_t read = read_.load(std::memory_order_relaxed);
  const std::uint64_t first = read;
  for (; read != written; ++read) {
    const Entry& entry = ring_[read % ring_.size()];
    *text += format_candump(entry.time_us, interface_, entry.frame) + '\n';
    read_.store(read + 1, std::memory_order_release);
  }
  return written - first;
}

}  // namespace premotor::can
