// NewestPerIdQueue: frames that a full transport could not take. A setpoint that waits is worth less than the one
// behind it, so one frame waits per identifier (the newest, at the place of the oldest, so that no identifier starves),
// and one that waited longer than `stale_us` is not sent at all. When every place is taken the oldest goes.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "protocol/can_frame.h"

namespace premotor::can {

// One owner; no allocation.
class NewestPerIdQueue {
 public:
  static constexpr std::size_t capacity = 64;  // frames; more identifiers than two arms and a bridge use

  explicit NewestPerIdQueue(std::int64_t stale_us) : stale_us_(stale_us) { assert(stale_us > 0); }

  [[nodiscard]] bool is_empty() const { return count_ == 0; }
  [[nodiscard]] std::size_t count() const { return count_; }

  // Returns the frames that were dropped for it: 0 or 1.
  std::uint64_t push(const pm_can_frame& frame, std::int64_t now_us) {
    for (std::size_t i = 0; i < count_; ++i) {
      pm_can_frame& old = entries_[i].frame;
      if (old.id != frame.id || old.is_extended != frame.is_extended) continue;
      entries_[i] = {frame, now_us};
      return 1;
    }
    std::uint64_t dropped = 0;
    if (count_ == capacity) {
      pop();
      dropped = 1;
    }
    entries_[count_++] = {frame, now_us};
    return dropped;
  }

  // Drops what is too old; returns how many.
  std::uint64_t drop_stale(std::int64_t now_us) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      if (now_us - entries_[i].pushed_us <= stale_us_) entries_[kept++] = entries_[i];
    }
    const std::size_t dropped = count_ - kept;
    count_ = kept;
    return dropped;
  }

  [[nodiscard]] const pm_can_frame& front() const {
    assert(count_ > 0);
    return entries_[0].frame;
  }

  void pop() {
    assert(count_ > 0);
    for (std::size_t i = 1; i < count_; ++i) entries_[i - 1] = entries_[i];
    --count_;
  }

  std::uint64_t clear() {
    const std::size_t dropped = count_;
    count_ = 0;
    return dropped;
  }

 private:
  struct Entry {
    pm_can_frame frame{};
    std::int64_t pushed_us = 0;
  };
  std::array<Entry, capacity> entries_{};
  std::size_t count_ = 0;
  std::int64_t stale_us_;
};

}  // namespace premotor::can
