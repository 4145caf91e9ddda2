// Motion: everything between a plan and the bus, once per cycle: what arrived, one step of the setpoint stream, what is
// sent. The real-time process calls it from its loop, a simulation with its own time. Owns no thread, no clock, no bus.
//
// The stream runs ahead of the clock by the lead: a plan's setpoint for time t leaves at t - lead, so that the bridge
// has it before it is due and interpolates towards it.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "can/bus.h"
#include "motion/bridge_link.h"
#include "stream/stream.h"

namespace premotor::motion {

struct MotionOptions {
  stream::StreamOptions stream;
  std::array<double, stream::kJointsMax> torque_max_Nm{};
  LinkOptions link;                                // axes and limits are filled in from `stream`
  std::shared_ptr<const stream::PoseGuard> guard;  // null: no workspace
  std::int64_t lead_ns = 4000000;
  // Feedback older than this while armed is a fault. Later than the bridge's own 50 ms, which names the joint.
  std::int64_t feedback_age_ns_max = 60000000;
};

// What the bridge is told of one joint: the stream's limits with a little room, so that rounding on the wire is no
// fault.
AxisLimits axis_limits(const MotionOptions& options, int axis);

// IEC 60204-1: 1 = controlled stop, then power removed; 2 = controlled stop, power kept.
enum class StopCategory : std::uint8_t { one = 1, two = 2 };

struct MotionStatus {
  std::int64_t time_ns = 0;  // of the last cycle
  stream::State stream = stream::State::disarmed;
  LinkState link = LinkState::off;
  std::uint8_t bridge = 0;      // BridgeState
  const char* fault_code = "";  // the stream's
  LinkFault link_fault;
  bool is_at_rest = true;
  std::uint64_t sequence = 0;         // of the chunk in charge
  std::uint64_t newest_sequence = 0;  // of the newest chunk that was judged
  stream::Refusal newest_refusal = stream::Refusal::none;
  stream::Setpoints setpoints;
  LinkMeasured measured;
};

class Motion {
 public:
  // `timeline` is created or attached; `bus` is open and outlives this. Errors: STREAM_*, BRIDGE_OPTIONS.
  static Status open(const MotionOptions& options, const stream::Timeline& timeline, can::Bus* bus,
                     std::unique_ptr<Motion>* out);

  // Looks for the bridge without asking for power: its feedback comes from then on. arm() does it too.
  void connect(std::int64_t now_ns) { link_.start(now_ns / 1000); }
  // Asks for power once the robot rests, and holds where it is once it has it. A latched fault is left by this alone.
  // `liveness` is the token whose chunks will be followed.
  void arm(std::int64_t now_ns, std::uint64_t liveness);
  void stop(StopCategory category);
  // Stop category 1 by the bridge itself, latched there.
  void estop(std::int64_t now_ns);
  // Comes to rest, then power is removed.
  void disarm() { stop(StopCategory::one); }
  void beat(std::int64_t until_ns) { stream_->beat(until_ns); }
  // What the bridge's lamp says for the next three seconds.
  void indicate(pm_indication what) { link_.indicate(what); }

  // One cycle. `now_ns` stamps what the bus does; `grid_ns` is when the cycle was due, for a loop that wakes up late:
  // the stream's grid is that of the loop then, whatever the wake-up of the cycle that armed it.
  void step(std::int64_t now_ns) { step(now_ns, now_ns); }
  void step(std::int64_t now_ns, std::int64_t grid_ns);

  [[nodiscard]] const MotionStatus& status() const { return status_; }
  [[nodiscard]] bool executed(stream::Executed* out) { return stream_->executed(out); }
  [[nodiscard]] const stream::Stream& stream() const { return *stream_; }
  [[nodiscard]] const BridgeLink& link() const { return link_; }
  [[nodiscard]] std::int64_t lead_ns() const { return options_.lead_ns; }
  // From a setpoint's time in the plan to the moment it was handed to the bus.
  [[nodiscard]] const stream::Histogram& frame_age() const { return frame_age_; }

 private:
  Motion() = default;
  void receive(std::int64_t now_us);
  void begin_arming(std::int64_t now_ns);
  void follow_link(std::int64_t now_ns, std::int64_t grid_ns);
  void watch_feedback(std::int64_t now_ns);
  [[nodiscard]] std::uint32_t all_axes() const;

  MotionOptions options_;
  can::Bus* bus_ = nullptr;
  std::unique_ptr<stream::Stream> stream_;
  BridgeLink link_;
  MotionStatus status_;
  stream::Histogram frame_age_;
  bool is_arm_wanted_ = false;  // arm() was called, and the robot does not rest yet
  bool resumes_ = false;        // it holds with power: it is armed where it is told to be
  std::array<double, stream::kJointsMax> resume_{};
  bool is_arming_ = false;     // the link was asked for power, the stream waits for it
  bool is_disarming_ = false;  // at rest, the link lets go
  std::uint64_t liveness_ = 0;
};

}  // namespace premotor::motion
