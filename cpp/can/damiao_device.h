// DamiaoDevice: a simulated Damiao motor in MIT mode. It answers every frame addressed to it with feedback or a
// register reply, moves only while enabled, and disables itself with COMMUNICATION_LOST when TIMEOUT runs out.
#pragma once

#include <cstdint>

#include "can/device.h"
#include "protocol/motor/damiao.h"

namespace premotor::can {

struct DamiaoDeviceOptions {
  std::uint16_t motor_id = 0x01;
  std::uint16_t master_id = 0x11;
  pm_damiao_range range{};
  std::uint32_t control_mode = PM_DAMIAO_MODE_MIT;
  std::uint32_t timeout_ticks = 0;  // of 50 us; 0 = no watchdog, as delivered
  float position_rad = 0;
};

class DamiaoDevice final : public Device {
 public:
  explicit DamiaoDevice(const DamiaoDeviceOptions& options) : Device(options.position_rad), options_(options) {}

  [[nodiscard]] AxisDemand demand() const override;
  [[nodiscard]] std::uint8_t error() const { return error_; }

 protected:
  void take(const pm_can_frame& frame, std::int64_t now_us, FrameBatch* out) override;
  void advance(std::int64_t now_us, FrameBatch* out) override;
  void raise(std::uint32_t error, std::int64_t now_us, FrameBatch* out) override;

 private:
  void answer_feedback(FrameBatch* out) const;
  void answer_read(std::uint8_t reg, FrameBatch* out) const;
  void take_write(const pm_damiao_request& request, FrameBatch* out);
  [[nodiscard]] bool is_enabled() const { return error_ == PM_DAMIAO_ENABLED; }

  DamiaoDeviceOptions options_;
  std::uint8_t error_ = PM_DAMIAO_DISABLED;
  pm_damiao_command command_{};
  bool has_command_ = false;
  bool answers_fd_ = false;  // as the last frame was
  std::int64_t fed_us_ = 0;
};

}  // namespace premotor::can
