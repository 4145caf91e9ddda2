// Drive: the host's session with one motor drive, the same for every protocol. A session is a state machine that is fed
// frames and stepped with the time; it owns no bus, thread or clock and does not allocate.
//
//   off --start--> starting --verified--> enabled --stop--> stopping --confirmed--> off
//                     \___________________/_________________/--> faulted --reset--> off      (latched)
//
// Silent while off. A session reports `enabled` only after the drive's parameters were read back, its own watchdog was
// set, and its feedback said enabled. It stops feeding a drive whose setpoint is stale or whose feedback is missing.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "can/frame_batch.h"
#include "protocol/can_frame.h"

namespace premotor::can {

enum class DriveState { off, starting, enabled, stopping, faulted };
const char* drive_state_name(DriveState state);

struct DriveSetpoint {
  float position_rad = 0;
  float velocity_rad_s = 0;
  float torque_Nm = 0;         // feed-forward
  float stiffness_Nm_rad = 0;  // impedance drives only
  float damping_Nm_s_rad = 0;  // impedance drives only
};

struct DriveFeedback {
  bool is_valid = false;
  std::int64_t received_us = 0;
  float position_rad = 0;
  float velocity_rad_s = 0;
  float torque_Nm = 0;      // 0 where the drive reports none
  float temperature_C = 0;  // the hottest part that the drive reports; 0 where it reports none
};

// Why a session faulted; plain data, so that latching costs nothing. All texts are literals.
struct DriveFault {
  const char* code = "";          // of docs/ERRORS.md
  const char* detail = "";        // what was wrong
  std::uint32_t raw = 0;          // error code, register or object of the drive
  float expected = 0, found = 0;  // of a parameter that differs
  std::uint32_t location = 0;     // object of the drive, where there is one
};

// Bounds, one owner: the session that is given them.
struct DriveTimings {
  std::int64_t reply_timeout_us = 20'000;              // until a request is sent again
  int tries_max = 10;                                  // of one request
  std::int64_t bring_up_timeout_us = 5'000'000;        // from start to enabled
  std::int64_t feedback_timeout_us = 20'000;           // without feedback while enabled
  std::int64_t setpoint_timeout_us = 50'000;           // without a new setpoint while enabled
  std::int64_t first_setpoint_timeout_us = 1'000'000;  // from enabled to the first setpoint
};

struct DriveLimits {
  float first_setpoint_error_rad_max = 0.05f;  // the first setpoint against the measured position
  float hold_stiffness_Nm_rad = 0;             // until the first setpoint; impedance drives only
  float hold_damping_Nm_s_rad = 1;
};

class Drive {
 public:
  Drive(const DriveTimings& timings, const DriveLimits& limits) : timings_(timings), limits_(limits) {}
  virtual ~Drive() = default;
  Drive(const Drive&) = delete;
  Drive& operator=(const Drive&) = delete;

  // Errors: DRIVE_CONFIG (an option cannot be right, or leaves the drive without a watchdog), DRIVE_STATE.
  Status start(std::int64_t now_us);
  // Ends torque in the protocol's controlled way. Nothing happens when off or faulted.
  void stop(std::int64_t now_us);
  // A fault's only way out, once the session has given up or confirmed ending torque. The next start also clears the
  // error that the drive holds. Errors: DRIVE_STATE.
  Status reset();

  // True when taken. False, and the old one stays, when the session is not enabled, a number is not finite, or the
  // first setpoint lies too far from where the joint is.
  bool set_setpoint(const DriveSetpoint& setpoint, std::int64_t now_us);
  // Returns whether the frame was of this drive. Every frame of the bus may be given.
  bool accept(const pm_can_frame& frame, std::int64_t now_us);
  // Once per control period: appends what is to be sent.
  void step(std::int64_t now_us, FrameBatch* out);

  [[nodiscard]] DriveState state() const { return state_; }
  [[nodiscard]] const DriveFeedback& feedback() const { return feedback_; }
  [[nodiscard]] const DriveFault& fault() const { return fault_; }
  // The fault in words. Builds strings: not for the hot path.
  [[nodiscard]] Status describe_fault() const;

 protected:
  // Counts the tries of one request.
  struct Retry {
    int tries = 0;
    std::int64_t next_us = 0;
    void restart() { *this = {}; }
  };

  virtual Status check_options() const = 0;
  virtual void begin(bool clears_error, std::int64_t now_us) = 0;
  virtual bool take(const pm_can_frame& frame, std::int64_t now_us) = 0;
  virtual void bring_up(std::int64_t now_us, FrameBatch* out) = 0;
  virtual void command(const DriveSetpoint& setpoint, std::int64_t now_us, FrameBatch* out) = 0;
  // Frames that end torque; called until is_shut_down(), a bounded number of times.
  virtual void shut_down(std::int64_t now_us, FrameBatch* out) = 0;
  [[nodiscard]] virtual bool is_shut_down() const = 0;
  [[nodiscard]] virtual const char* describe_raw(std::uint32_t raw) const = 0;

  // True when a request is due; latches DRIVE_NO_REPLY naming `what` after the last try.
  bool is_due(Retry* retry, const char* what, std::int64_t now_us) {
    return is_due(retry, what, timings_.tries_max, now_us);
  }
  bool is_due(Retry* retry, const char* what, int tries_max, std::int64_t now_us);
  // For drives that brake before they let go.
  [[nodiscard]] virtual int shut_down_tries_max() const { return timings_.tries_max; }
  void become_enabled(std::int64_t now_us);
  void latch(const DriveFault& fault, std::int64_t now_us);
  void set_feedback(const DriveFeedback& feedback) { feedback_ = feedback; }
  [[nodiscard]] const DriveTimings& timings() const { return timings_; }
  [[nodiscard]] const DriveLimits& limits() const { return limits_; }
  [[nodiscard]] std::int64_t enabled_us() const { return enabled_us_; }

 private:
  void step_enabled(std::int64_t now_us, FrameBatch* out);
  void step_shut_down(std::int64_t now_us, FrameBatch* out);

  DriveTimings timings_;
  DriveLimits limits_;
  DriveState state_ = DriveState::off;
  DriveFeedback feedback_;
  DriveFault fault_;
  DriveSetpoint setpoint_;
  bool has_setpoint_ = false;
  bool clears_error_ = false;
  bool is_silenced_ = true;  // torque was seen to end, or asking for it was given up
  std::int64_t started_us_ = 0, enabled_us_ = 0, setpoint_us_ = 0;
  Retry shut_down_retry_;
};

}  // namespace premotor::can
