// The log format of can-utils' candump: one line a frame, `(1436509052.249713) vcan0 044#2A366C2B`, FD frames with `##`
// and a flag digit, remote frames `#R`. Written by a capture hook, read back by tests and by can-utils' own tools.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "can/bus.h"

namespace premotor::can {

struct CandumpLine {
  std::int64_t time_us = 0;
  std::string interface;
  pm_can_frame frame{};
};

// One line without its line break. `interface` must hold no blank.
std::string format_candump(std::int64_t time_us, std::string_view interface, const pm_can_frame& frame);

// Errors: CAN_LOG_INVALID, with the column. A trailing direction (`R` or `T`, as candump -x writes) is accepted.
Status parse_candump(std::string_view line, CandumpLine* out);

// The capture hook: a ring from the bus' thread to whoever writes the file. One writer, one reader. DropNewest: when
// the reader is late the frames that do not fit are dropped and counted; the bus never waits.
class CaptureRingDropNewest final : public FrameCapture {
 public:
  CaptureRingDropNewest(std::string interface, std::size_t capacity_frames);

  void capture(const pm_can_frame& frame, bool is_sent, std::int64_t now_us) override;
  // Reader: appends the waiting frames as lines; returns how many.
  std::size_t drain(std::string* text);
  [[nodiscard]] std::uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    pm_can_frame frame;
    std::int64_t time_us;
  };
  std::string interface_;
  std::vector<Entry> ring_;
  std::atomic<std::uint64_t> written_{0};
  std::atomic<std::uint64_t> read_{0};
  std::atomic<std::uint64_t> dropped_{0};
};

}  // namespace premotor::can
