// DamiaoDrive: the session with a Damiao motor in MIT mode.
//
//   disable -> control mode is MIT -> PMAX, VMAX, TMAX as configured -> TIMEOUT written and read back -> feedback
//   -> enable -> commands
#pragma once

#include <cstdint>

#include "can/drive.h"
#include "protocol/motor/damiao.h"

namespace premotor::can {

struct DamiaoOptions {
  std::uint16_t motor_id = 0x01;   // where the motor listens (its register 8)
  std::uint16_t master_id = 0x11;  // where it answers (its register 7)
  pm_damiao_range range{};         // must be what its registers 21 to 23 hold
  std::uint32_t timeout_ms = 50;   // the motor's own watchdog
  bool is_fd = false;              // frames go out as FD with the bit rate switched
  DriveTimings timings{};
  DriveLimits limits{};
};

class DamiaoDrive final : public Drive {
 public:
  explicit DamiaoDrive(const DamiaoOptions& options);

  // Commands whose values were clamped to the motor's range.
  [[nodiscard]] std::uint64_t clamped() const { return clamped_; }

 protected:
  Status check_options() const override;
  void begin(bool clears_error, std::int64_t now_us) override;
  bool take(const pm_can_frame& frame, std::int64_t now_us) override;
  void bring_up(std::int64_t now_us, FrameBatch* out) override;
  void command(const DriveSetpoint& setpoint, std::int64_t now_us, FrameBatch* out) override;
  void shut_down(std::int64_t now_us, FrameBatch* out) override;
  [[nodiscard]] bool is_shut_down() const override { return is_off_; }
  [[nodiscard]] const char* describe_raw(std::uint32_t raw) const override;

 private:
  enum class Phase {
    clear_error,
    disable,
    read_mode,
    read_position_max,
    read_velocity_max,
    read_torque_max,
    write_timeout,
    read_timeout,
    refresh,
    enable,
    done
  };
  void enter(Phase phase);
  void take_feedback(const pm_damiao_feedback& feedback, std::int64_t now_us);
  void take_reply(const pm_damiao_reply& reply, std::int64_t now_us);
  void check_float(float expected, const pm_damiao_reply& reply, std::int64_t now_us);
  void check_integer(std::uint32_t expected, const pm_damiao_reply& reply, std::int64_t now_us);
  void send(pm_can_frame frame, FrameBatch* out) const;
  [[nodiscard]] std::uint32_t timeout_ticks() const;

  DamiaoOptions options_;
  Phase phase_ = Phase::disable;
  Retry retry_;
  bool is_off_ = false;  // the last feedback said so
  std::uint64_t clamped_ = 0;
};

}  // namespace premotor::can
