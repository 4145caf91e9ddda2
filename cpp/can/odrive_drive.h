// OdriveDrive: the session with one ODrive axis over CANSimple, position control.
//
//   [clear errors] -> idle seen in the heartbeat -> firmware version (0.6) -> watchdog written and read back (0.6)
//   -> position control, passed through -> estimates -> input = measured position, closed loop -> commands
//
// The watchdog of an ODrive is opt-in, and any frame to the axis feeds it, status requests included. So this session
// sends nothing but commands once it is enabled. CANSimple of 0.5 cannot read parameters: there an operator must have
// switched the watchdog on and say so.
#pragma once

#include <cstdint>

#include "can/drive.h"
#include "protocol/motor/odrive.h"

namespace premotor::can {

struct OdriveOptions {
  std::uint8_t node = 0;  // 0 .. 63
  pm_odrive_version version = PM_ODRIVE_V0_6;
  float turns_per_joint_turn = 1;  // gear ratio; negative turns the other way
  float watchdog_timeout_s = 0.05f;
  // 0.6: endpoint numbers of axis0.config.enable_watchdog and axis0.config.watchdog_timeout, from the firmware's own
  // endpoint list; they differ between releases. 0 = unknown.
  std::uint16_t enable_watchdog_endpoint = 0;
  std::uint16_t watchdog_timeout_endpoint = 0;
  // The operator's word that the watchdog is on, where it cannot be read.
  bool is_watchdog_assured = false;
  std::int64_t heartbeat_timeout_us = 500'000;  // the drive's default period is 100 ms
  DriveTimings timings{};
  DriveLimits limits{};
};

class OdriveDrive final : public Drive {
 public:
  explicit OdriveDrive(const OdriveOptions& options);

 protected:
  Status check_options() const override;
  void begin(bool clears_error, std::int64_t now_us) override;
  bool take(const pm_can_frame& frame, std::int64_t now_us) override;
  void bring_up(std::int64_t now_us, FrameBatch* out) override;
  void command(const DriveSetpoint& setpoint, std::int64_t now_us, FrameBatch* out) override;
  void shut_down(std::int64_t now_us, FrameBatch* out) override;
  [[nodiscard]] bool is_shut_down() const override { return is_idle_; }
  [[nodiscard]] const char* describe_raw(std::uint32_t raw) const override;

 private:
  enum class Phase {
    clear_error,
    idle,
    version,
    write_watchdog,
    read_watchdog_enable,
    read_watchdog_timeout,
    estimates,
    closed_loop,
    done
  };
  void enter(Phase phase);
  void take_heartbeat(const pm_odrive_heartbeat& heartbeat, std::int64_t now_us);
  void take_version(const pm_odrive_message& message, std::int64_t now_us);
  void take_estimates(const pm_odrive_message& message, std::int64_t now_us);
  void take_sdo(const pm_odrive_sdo& sdo, std::int64_t now_us);
  bool writes_again();
  void send_request(std::uint8_t command, FrameBatch* out) const;
  void send(const pm_odrive_message& message, FrameBatch* out) const;
  void send_sdo(std::uint8_t opcode, std::uint16_t endpoint, const std::uint8_t* value, FrameBatch* out) const;
  void write_watchdog(FrameBatch* out) const;
  void send_axis_state(std::uint32_t state, FrameBatch* out) const;
  bool send_position(const DriveSetpoint& setpoint, FrameBatch* out) const;
  [[nodiscard]] pm_odrive_message message(std::uint8_t command) const;
  [[nodiscard]] bool reads_watchdog() const;

  OdriveOptions options_;
  Phase phase_ = Phase::idle;
  Retry retry_;
  int watchdog_writes_ = 0;  // a write is not answered: what was lost shows when reading back
  bool is_idle_ = false;
  std::int64_t heartbeat_us_ = 0;
};

}  // namespace premotor::can
