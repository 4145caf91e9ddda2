// A 64-bit checksum that finds damaged bytes in files, at the speed of memory. It is no defence against anyone who
// makes bytes fit on purpose.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace premotor {

// checksum64(bytes): words of 8 bytes, little endian, the last one filled up with zeros, dealt in turn to four lanes;
// lane = rotate(lane ^ word, 29) * kOdd, so that two inputs that differ in one word never agree. The lanes and the
// length are then joined by the same step.
[[nodiscard]] inline std::uint64_t checksum64(std::span<const std::byte> bytes) {
  constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15u;
  const auto step = [](std::uint64_t state, std::uint64_t word) { return std::rotl(state ^ word, 29) * kOdd; };
  std::uint64_t lanes[4] = {1, 2, 3, 4};
  std::size_t at = 0;
  for (; at + 32 <= bytes.size(); at += 32) {
    std::uint64_t words[4];
    std::memcpy(words, bytes.data() + at, 32);
    for (int i = 0; i < 4; ++i) lanes[i] = step(lanes[i], words[i]);
  }
  for (int i = 0; at < bytes.size(); ++i, at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, bytes.size() - at < 8 ? bytes.size() - at : 8);
    lanes[i] = step(lanes[i], word);
  }
  std::uint64_t sum = step(0, bytes.size());
  for (const std::uint64_t lane : lanes) sum = step(sum, lane);
  return sum ^ sum >> 32;
}

}  // namespace premotor
