// SlcanBus: an adapter that speaks Lawicel ASCII on a serial line (or any descriptor: a pty, a socket). Classic CAN at
// a fixed bit rate; about 22 bytes a frame, so prefer a native interface where there is one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "can/bus.h"
#include "can/file_descriptor.h"
#include "can/newest_queue.h"
#include "can/slcan_codec.h"

namespace premotor::can {

struct SlcanOptions {
  std::string device;             // path of the serial port; ignored when `borrowed_fd` is given
  int borrowed_fd = -1;           // an open descriptor: the bus duplicates it and leaves its settings alone
  int bit_rate_code = 8;          // S0 .. S8: 10, 20, 50, 100, 125, 250, 500, 800, 1000 kbit/s
  int serial_baud = 0;            // 0 keeps the port's; USB adapters ignore it
  bool is_listen_only = false;    // opens with L: receives, never sends, never acknowledges
  std::int64_t stale_us = 5'000;  // a frame that waited longer is dropped
};

class SlcanBus final : public Bus {
 public:
  explicit SlcanBus(SlcanOptions options);
  ~SlcanBus() override;

  // Opens the port raw, closes a channel that may be open, sets the bit rate and opens the channel. It does not wait
  // for the adapter's answers: `refusals()` counts them as they come.
  // Errors: ARGUMENT_INVALID, CAN_DEVICE_MISSING, CAN_OPEN.
  Status open() override;
  void close() override;
  [[nodiscard]] bool is_open() const override { return fd_.is_open(); }
  [[nodiscard]] std::string name() const override;
  [[nodiscard]] int descriptor() const override { return fd_.get(); }
  [[nodiscard]] Status problem() const override;
  [[nodiscard]] std::uint64_t refusals() const { return refusals_; }

 protected:
  BusIo send_frame(const pm_can_frame& frame, std::int64_t now_us) override;
  BusIo receive_frame(BusFrame* out, std::int64_t now_us) override;

 private:
  Status open_port();
  Status write_setup();
  BusIo flush(std::int64_t now_us);
  BusIo start_frame(const pm_can_frame& frame, std::int64_t now_us);
  bool write_rest();

  SlcanOptions options_;
  FileDescriptor fd_;
  NewestPerIdQueue waiting_;
  std::array<char, slcan_text_max> partial_{};  // the frame that is half written: it must be finished first
  std::size_t partial_bytes_ = 0, partial_at_ = 0;
  std::array<char, 4096> input_{};
  std::size_t input_bytes_ = 0, input_at_ = 0;
  SlcanParser parser_;
  std::uint64_t refusals_ = 0;
  int last_errno_ = 0;
};

}  // namespace premotor::can
