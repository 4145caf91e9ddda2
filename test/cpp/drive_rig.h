// A host's session and a simulated drive on two ends of a virtual wire, stepped together at 1 kHz in virtual time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "can/device.h"
#include "can/drive.h"
#include "can/virtual_bus.h"

namespace rig {

using namespace premotor::can;

constexpr std::int64_t period_us = 1000;

class DriveRig {
 public:
  DriveRig(Drive& drive, Device& device) : drive_(drive), device_(device) {
    host_ = wire_.endpoint("host");
    motor_ = wire_.endpoint("drive");
    static_cast<void>(host_->open());
    static_cast<void>(motor_->open());
  }

  void step() {
    now_us_ += period_us;
    if (is_host_alive_) {
      if (streams_) static_cast<void>(drive_.set_setpoint(setpoint_, now_us_));
      FrameBatch out;
      drive_.step(now_us_, &out);
      send(*host_, out);
    }
    BusFrame got;
    while (motor_->receive(&got, now_us_) == BusIo::ok) {
      FrameBatch answers;
      device_.accept(got.frame, now_us_, &answers);
      send(*motor_, answers);
    }
    FrameBatch cyclic;
    device_.step(now_us_, &cyclic);
    send(*motor_, cyclic);
    while (host_->receive(&got, now_us_) == BusIo::ok) {
      if (is_host_alive_) static_cast<void>(drive_.accept(got.frame, now_us_));
    }
  }

  void run_ms(int milliseconds) {
    for (int i = 0; i < milliseconds; ++i) step();
  }

  // Steps until the state or the time is reached; returns the milliseconds that it took, or -1.
  int run_until(DriveState state, int milliseconds_max) {
    for (int i = 0; i < milliseconds_max; ++i) {
      if (drive_.state() == state) return i;
      step();
    }
    return drive_.state() == state ? milliseconds_max : -1;
  }

  void stream(const DriveSetpoint& setpoint) {
    setpoint_ = setpoint;
    streams_ = true;
  }
  void stop_streaming() { streams_ = false; }
  void kill_host() { is_host_alive_ = false; }
  [[nodiscard]] std::int64_t now_us() const { return now_us_; }
  [[nodiscard]] VirtualWire& wire() { return wire_; }
  [[nodiscard]] Bus& host() { return *host_; }

 private:
  void send(Bus& bus, const FrameBatch& batch) {
    for (std::size_t i = 0; i < batch.count; ++i) static_cast<void>(bus.send(batch.frames[i], now_us_));
  }

  Drive& drive_;
  Device& device_;
  VirtualWire wire_;
  std::unique_ptr<Bus> host_, motor_;
  DriveSetpoint setpoint_;
  bool streams_ = false;
  bool is_host_alive_ = true;
  std::int64_t now_us_ = 1'000'000;
};

}  // namespace rig
