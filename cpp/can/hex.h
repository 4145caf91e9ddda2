// Hexadecimal digits, as slcan and candump logs write them.
#pragma once

#include <cstdint>

namespace premotor::can {

inline constexpr char hex_digits[] = "0123456789ABCDEF";

// The digit's value, or -1. Both cases are read.
constexpr int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// Writes `digits` digits, most significant first; returns the place behind them.
constexpr char* put_hex(char* to, std::uint32_t value, int digits) {
  for (int i = digits - 1; i >= 0; --i) *to++ = hex_digits[(value >> (4 * i)) & 0xf];
  return to;
}

// Reads exactly `digits` digits; false when one is none.
constexpr bool get_hex(const char* from, int digits, std::uint32_t* value) {
  *value = 0;
  for (int i = 0; i < digits; ++i) {
    const int digit = hex_value(from[i]);
    if (digit < 0) return false;
    *value = (*value << 4) | static_cast<std::uint32_t>(digit);
  }
  return true;
}

}  // namespace premotor::can
