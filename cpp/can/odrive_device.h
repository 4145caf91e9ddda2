// OdriveDevice: a simulated ODrive axis over CANSimple: heartbeat, cyclic estimates, position control, and the watchdog
// that any frame to the axis feeds.
#pragma once

#include <cstdint>

#include "can/device.h"
#include "protocol/motor/odrive.h"

namespace premotor::can {

struct OdriveDeviceOptions {
  std::uint8_t node = 0;
  pm_odrive_version version = PM_ODRIVE_V0_6;
  float turns_per_joint_turn = 1;
  std::int64_t heartbeat_period_us = 100'000;
  std::int64_t estimates_period_us = 1'000;
  std::uint16_t enable_watchdog_endpoint = 0;
  std::uint16_t watchdog_timeout_endpoint = 0;
  bool is_watchdog_enabled = false;  // as delivered
  bool refuses_watchdog = false;     // writes of it have no effect
  float watchdog_timeout_s = 0;
  std::uint8_t firmware_minor = 6;
  float position_rad = 0;
};

class OdriveDevice final : public Device {
 public:
  explicit OdriveDevice(const OdriveDeviceOptions& options) : Device(options.position_rad), options_(options) {}

  [[nodiscard]] AxisDemand demand() const override;
  [[nodiscard]] std::uint32_t axis_state() const { return axis_state_; }
  [[nodiscard]] std::uint32_t axis_error() const { return axis_error_; }

 protected:
  void take(const pm_can_frame& frame, std::int64_t now_us, FrameBatch* out) override;
  void advance(std::int64_t now_us, FrameBatch* out) override;
  void raise(std::uint32_t error, std::int64_t now_us, FrameBatch* out) override;

 private:
  void answer(std::uint8_t command, FrameBatch* out) const;
  void take_sdo(const pm_odrive_sdo& sdo, FrameBatch* out);
  void set_state(std::uint32_t wanted);
  void disarm(std::uint32_t error);

  OdriveDeviceOptions options_;
  std::uint32_t axis_state_ = PM_ODRIVE_STATE_IDLE;
  std::uint32_t axis_error_ = 0;
  std::uint32_t control_mode_ = PM_ODRIVE_CONTROL_POSITION;
  bool has_input_ = false;
  float input_turns_ = 0;
  std::int64_t fed_us_ = 0, heartbeat_us_ = 0, estimates_us_ = 0;
};

}  // namespace premotor::can
