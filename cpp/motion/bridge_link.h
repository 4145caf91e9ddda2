// BridgeLink: the host's session with a firmware bridge (protocol/README.md): version, limits with read-back, arming,
// setpoint sets in the bridge's clock, and the watch over its heartbeat and faults. A state machine that is fed frames
// and stepped with the time; it owns no bus, thread or clock and allocates nothing.
//
//   off --start--> connecting --WELCOME--> uploading --committed--> ready --arm--> arming --ARM_RESULT 0--> armed
//                      ^                                              ^               |                       |
//                      |                                              +--disarming <--|------- disarm --------+
//                      +--- the bridge is gone while disarmed                         v   refusal, fault, loss
//                                                        (latched) faulted --arm--> clearing --> connecting
//
// Nothing is armed that was not asked for: a fault, on either side, is left by arm() alone.
#pragma once

#include <array>
#include <cstdint>

#include "base/status.h"
#include "can/bus.h"
#include "protocol/frames.h"

namespace premotor::motion {

enum class LinkState : std::uint8_t {
  off,
  connecting,  // asking for a bridge that speaks our version
  uploading,   // limits, one by one, each read back
  ready,       // disarmed: may be armed
  clearing,    // a latched fault of the bridge is being cleared, because arm() asked for it
  arming,      // challenge and response
  armed,       // sets go out
  disarming,   // DISARM was sent, the bridge is coming to rest
  faulted,     // latched
};
const char* link_state_name(LinkState state);

// In the units of the joint: rad, rad/s, rad/s^2, rad/s^3, N m.
struct AxisLimits {
  double position_min = 0, position_max = 0, velocity = 0, acceleration = 0, jerk = 0, torque = 0;
};

struct LinkOptions {
  int axes = 0;
  std::array<AxisLimits, PM_AXES_MAX> limits{};
  bool wants_fd = true;              // classic sets go out when the bridge cannot carry FD
  std::int64_t period_us = 1000;     // between two sets; classic sets go out every second time
  std::uint32_t nonce_seed = 1;      // should differ at each start
  std::int64_t reply_us = 20000;     // a request is repeated after so long
  std::int64_t arming_us = 3000000;  // from arm() to armed
  std::int64_t lost_us = 50000;      // heartbeat missing while armed
};

// Of HEARTBEAT and FEEDBACK (protocol/README.md, "States").
enum BridgeState : std::uint8_t {
  kBridgeSilent,
  kBridgeDisarmed,
  kBridgeHolding,
  kBridgeFollowing,
  kBridgeSlowing,
  kBridgeStopping,
  kBridgeFault,
};

// Why the link is faulted: plain data, all texts are literals.
struct LinkFault {
  const char* code = "";             // of docs/ERRORS.md: BRIDGE_*
  std::uint8_t fault = 0;            // the bridge's fault code, 0 none
  std::uint8_t result = 0;           // of ARM_RESULT or LIMIT_RESULT
  std::uint8_t axis = PM_AXIS_NONE;  // the axis that it names
  std::uint8_t detail = 0;           // the drive's own code
};
// In words: what was expected, what was found, what to do. Builds strings: not for the hot path.
Status describe(const LinkFault& fault);

struct LinkSet {
  std::uint16_t token = 0;
  std::int64_t at_us = 0;  // host clock: when the axes shall be there
  std::array<double, PM_AXES_MAX> position_rad{};
  std::array<double, PM_AXES_MAX> velocity_rad_s{};
};

struct LinkMeasured {
  std::int64_t received_us = -1;  // host clock; -1 before the first
  std::uint32_t valid = 0;        // bit per axis: it reported to the bridge in the last 50 ms
  std::array<double, PM_AXES_MAX> position_rad{};
  std::array<double, PM_AXES_MAX> velocity_rad_s{};
  std::array<double, PM_AXES_MAX> torque_Nm{};  // 0 on a classic bus
};

struct LinkCounts {
  std::uint64_t sets = 0;                  // sent
  std::uint64_t unsent = 0;                // the bus took no more
  std::uint64_t foreign = 0;               // frames that are not the bridge's
  std::uint64_t malformed = 0;             // with an identifier of the bridge, but not intact
  std::array<std::uint32_t, 16> bridge{};  // the bridge's own counters, by their number
};

class BridgeLink {
 public:
  // Errors: BRIDGE_OPTIONS.
  static Status open(const LinkOptions& options, BridgeLink* out);

  void start(std::int64_t now_us);
  // Asks for power. From every state but off: what is missing is done first, and a fault is cleared first.
  void arm(std::int64_t now_us);
  // The bridge stops the robot and removes its power.
  void disarm(std::int64_t now_us);
  // The same, latched in the bridge as an e-stop.
  void estop(std::int64_t now_us, can::Bus* bus);

  // What the bridge's lamp says for the next three seconds, sent with the next step. It keeps nothing alive.
  void indicate(pm_indication what) { indication_ = what, has_indication_ = true; }

  void accept(const pm_can_frame& frame, std::int64_t now_us);
  // Once per period. `set` is sent while armed; null sends none.
  void step(std::int64_t now_us, const LinkSet* set, can::Bus* bus);
  // The host itself found a reason to stop streaming.
  void fail(const char* code) { latch({code, 0, 0, PM_AXIS_NONE, 0}); }

  [[nodiscard]] LinkState state() const { return state_; }
  [[nodiscard]] const LinkFault& fault() const { return fault_; }
  [[nodiscard]] const LinkMeasured& measured() const { return measured_; }
  [[nodiscard]] const LinkCounts& counts() const { return counts_; }
  // As its last heartbeat or feedback said; `silent` before the first.
  [[nodiscard]] std::uint8_t bridge_state() const { return bridge_state_; }
  [[nodiscard]] std::uint16_t session() const { return session_; }
  [[nodiscard]] bool is_fd() const { return is_fd_; }
  [[nodiscard]] std::uint16_t accepted_sequence() const { return accepted_sequence_; }
  // The bridge's clock at a host time, never ahead of it (protocol/README.md, "Time").
  [[nodiscard]] std::int64_t bridge_time_us(std::int64_t host_us) const { return host_us + offset_us(); }

 private:
  void go(LinkState state);
  void latch(const LinkFault& fault);
  bool is_due(std::int64_t now_us);
  void send(const pm_can_frame& frame, std::int64_t now_us, can::Bus* bus);
  void send_short(std::uint32_t id, const std::uint8_t* payload, std::int64_t now_us, can::Bus* bus);
  void send_indication(std::int64_t now_us, can::Bus* bus);
  void step_uploading(std::int64_t now_us, can::Bus* bus);
  void step_clearing(std::int64_t now_us, can::Bus* bus);
  void step_arming(std::int64_t now_us, can::Bus* bus);
  void watch(std::int64_t now_us);
  void send_set(const LinkSet& set, can::Bus* bus, std::int64_t now_us);
  void send_classic(const LinkSet& set, can::Bus* bus, std::int64_t now_us);
  void on_short(const pm_can_frame& frame, std::int64_t now_us);
  void on_heartbeat(const std::uint8_t* payload, std::int64_t now_us);
  void on_welcome(const std::uint8_t* payload);
  void on_limit_value(const std::uint8_t* payload);
  void on_limit_result(const std::uint8_t* payload);
  void on_challenge(const std::uint8_t* payload);
  void on_arm_result(const std::uint8_t* payload);
  void on_feedback(const pm_can_frame& frame, std::int64_t now_us);
  void on_axis_feedback(const pm_can_frame& frame, std::int64_t now_us);
  void note_clock(std::uint32_t clock_us, std::int64_t now_us);
  void note_state(std::uint8_t state, std::uint8_t fault);
  [[nodiscard]] std::int64_t offset_us() const;
  [[nodiscard]] std::int32_t expected_limit(std::int32_t item) const;

  LinkOptions options_;
  LinkState state_ = LinkState::off;
  LinkFault fault_;
  LinkFault refused_;  // the bridge's last reason not to arm yet
  LinkMeasured measured_;
  LinkCounts counts_;

  bool has_indication_ = false;  // to be sent
  pm_indication indication_ = PM_INDICATE_STARTING;
  bool is_arm_wanted_ = false;
  std::int64_t wanted_us_ = 0;  // when arm() was called
  std::int64_t next_us_ = 0;    // when the request is repeated
  std::int32_t item_ = 0;       // of the limits: axis * PM_LIMIT_FIELDS + field
  bool is_answered_ = false;    // the challenge came; the response is due
  bool is_limits_current_ = false;
  std::uint32_t host_nonce_ = 0, bridge_nonce_ = 0;

  std::uint8_t bridge_state_ = 0, bridge_fault_ = 0, bridge_axis_ = PM_AXIS_NONE, bridge_detail_ = 0;
  std::int64_t heard_us_ = INT64_MIN / 2;  // any intact frame of the bridge
  bool has_boot_ = false;
  std::uint16_t boot_ = 0;
  bool is_fd_ = false;
  std::uint16_t session_ = 0, sequence_ = 0, accepted_sequence_ = 0;
  bool is_second_ = false;  // classic: every second period

  bool has_clock_ = false;
  std::int64_t clock_us_ = 0;  // the bridge's, without its wraps
  std::int64_t bucket_us_ = 0, newest_offset_us_ = 0, older_offset_us_ = 0;
};

}  // namespace premotor::motion
