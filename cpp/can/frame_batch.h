// FrameBatch: the frames that one step of a drive or a device gives out, in order; a fixed number, without allocation.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>

#include "protocol/can_frame.h"

namespace premotor::can {

struct FrameBatch {
  static constexpr std::size_t capacity = 8;  // no step of a session or device needs more than five

  void push(const pm_can_frame& frame) {
    assert(count < capacity);
    if (count < capacity) frames[count++] = frame;
  }
  void clear() { count = 0; }

  std::array<pm_can_frame, capacity> frames{};
  std::size_t count = 0;
};

}  // namespace premotor::can
