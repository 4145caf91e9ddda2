// libFuzzer target: motor codecs, drive sessions, simulated drives and the buses' byte streams. docs/CAN.md says how to
// run it. The input is a row of records of 11 bytes: identifier (2), length and flags (1), data (8).
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "can_targets.h"

namespace {

void demand(const char* violated) {
  if (violated[0] == '\0') return;
  std::fprintf(stderr, "property violated: %s\n", violated);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  demand(can_fuzz::check_streams({data, size}));
  can_fuzz::Fleet fleet;
  for (std::size_t at = 0; at + 11 <= size; at += 11) {
    pm_can_frame frame{};
    frame.id = static_cast<std::uint32_t>(data[at] | (data[at + 1] & 7) << 8);
    frame.data_bytes = data[at + 2] & 0xf;
    if (frame.data_bytes > 8) frame.data_bytes = 8;
    frame.is_remote = (data[at + 2] & 0x40) != 0;
    std::memcpy(frame.data, data + at + 3, 8);
    demand(can_fuzz::check_decoders(frame));
    demand(fleet.feed(frame, false));
  }
  return 0;
}
