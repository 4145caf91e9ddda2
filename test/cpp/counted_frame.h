// A frame whose bytes tell their places apart, for tests of transports: data 0x11, 0x22, ... of so many bytes.
#pragma once

#include <cstdint>

#include "protocol/can_frame.h"

inline pm_can_frame counted_frame(std::uint32_t id, std::uint8_t bytes) {
  pm_can_frame frame{};
  frame.id = id;
  frame.data_bytes = bytes;
  for (std::uint8_t i = 0; i < bytes; ++i) frame.data[i] = static_cast<std::uint8_t>(0x11 * (i + 1));
  return frame;
}
