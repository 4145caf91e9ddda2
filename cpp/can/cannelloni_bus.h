// CannelloniBus: CAN frames in UDP datagrams, as the tool cannelloni sends them. One frame a datagram, so that a
// setpoint never waits for company. UDP has no protection of its own: the default address is loopback, and only the
// configured peer is heard.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "can/bus.h"
#include "can/cannelloni_codec.h"
#include "can/file_descriptor.h"
#include "can/newest_queue.h"

namespace premotor::can {

struct CannelloniOptions {
  std::string local_address = "127.0.0.1";  // IPv4
  std::uint16_t local_port = 20000;         // 0: any; local_port() tells which
  std::string remote_address = "127.0.0.1";
  std::uint16_t remote_port = 20001;
  std::int64_t stale_us = 5'000;  // a frame that waited longer is dropped
};

class CannelloniBus final : public Bus {
 public:
  explicit CannelloniBus(CannelloniOptions options);

  // Errors: ARGUMENT_INVALID (an address), CAN_OPEN.
  Status open() override;
  void close() override;
  [[nodiscard]] bool is_open() const override { return fd_.is_open(); }
  [[nodiscard]] std::string name() const override;
  [[nodiscard]] int descriptor() const override { return fd_.get(); }
  [[nodiscard]] Status problem() const override;
  [[nodiscard]] std::uint16_t local_port() const { return bound_port_; }
  // A peer that is known only once it has bound a port. Errors as open().
  Status set_remote(const std::string& address, std::uint16_t port);

 protected:
  BusIo send_frame(const pm_can_frame& frame, std::int64_t now_us) override;
  BusIo receive_frame(BusFrame* out, std::int64_t now_us) override;

 private:
  BusIo write_datagram(const pm_can_frame& frame, std::int64_t now_us);
  BusIo flush(std::int64_t now_us);
  void note_sequence(std::uint8_t sequence);

  CannelloniOptions options_;
  FileDescriptor fd_;
  std::uint16_t bound_port_ = 0;
  NewestPerIdQueue waiting_;
  std::array<std::uint8_t, 65536> datagram_{};  // a peer may fill more than one Ethernet frame
  CannelloniReader reader_;
  bool is_reading_ = false;
  std::uint8_t next_sequence_ = 0;
  int expected_sequence_ = -1;
  int last_errno_ = 0;
};

}  // namespace premotor::can
