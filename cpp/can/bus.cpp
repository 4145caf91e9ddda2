// What all buses share: validity of frames, counting and the capture hook.
#include "can/bus.h"

#include <cassert>
#include <cstring>

namespace premotor::can {

bool is_same(const pm_can_frame& a, const pm_can_frame& b) {
  return a.id == b.id && a.is_extended == b.is_extended && a.is_remote == b.is_remote && a.is_fd == b.is_fd &&
         a.is_bit_rate_switched == b.is_bit_rate_switched && a.is_error_passive == b.is_error_passive &&
         a.data_bytes == b.data_bytes && (a.is_remote || std::memcmp(a.data, b.data, a.data_bytes) == 0);
}

bool is_valid(const pm_can_frame& frame) {
  if (frame.id > (frame.is_extended ? 0x1fffffffu : 0x7ffu)) return false;
  if (!frame.is_fd) {
    return frame.data_bytes <= PM_CAN_CLASSIC_DATA_BYTES_MAX && !frame.is_bit_rate_switched && !frame.is_error_passive;
  }
  if (frame.is_remote) return false;
  switch (frame.data_bytes) {
    case 12:
    case 16:
    case 20:
    case 24:
    case 32:
    case 48:
    case 64:
      return true;
    default:
      return frame.data_bytes <= PM_CAN_CLASSIC_DATA_BYTES_MAX;
  }
}

BusIo Bus::send(const pm_can_frame& frame, std::int64_t now_us) {
  const BusIo result = !is_open() ? BusIo::closed : is_valid(frame) ? send_frame(frame, now_us) : BusIo::refused;
  if (result == BusIo::closed || result == BusIo::refused || result == BusIo::bus_off) ++counters_.refused;
  return result;
}

BusIo Bus::receive(BusFrame* out, std::int64_t now_us) {
  assert(out != nullptr);
  if (!is_open()) return BusIo::closed;
  const BusIo result = receive_frame(out, now_us);
  if (result != BusIo::ok) return result;
  assert(is_valid(out->frame));
  if (out->is_own) {
    ++counters_.confirmed;
  } else {
    ++counters_.received;
    if (capture_ != nullptr) capture_->capture(out->frame, false, now_us);
  }
  return result;
}

void Bus::note_sent(const pm_can_frame& frame, std::int64_t now_us) {
  ++counters_.sent;
  if (capture_ != nullptr) capture_->capture(frame, true, now_us);
}

}  // namespace premotor::can
