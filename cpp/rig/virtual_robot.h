// VirtualRobot: the whole way from a chunk to the motors in one process and in virtual time: timeline, setpoint stream,
// bridge protocol over a virtual CAN FD bus, firmware bridge, simulated motors. The simulated robot of `premotor demo`
// and the fault tests step it; equal calls give equal bits.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "can/virtual_bus.h"
#include "motion/motion.h"
#include "motion/sample_ring.h"
#include "rig/simulated_robot.h"

namespace premotor::rig {

struct VirtualRobotOptions {
  motion::MotionOptions motion;
  SimulatedRobotOptions robot;
};

class VirtualRobot {
 public:
  static Status open(const VirtualRobotOptions& options, std::int64_t now_ns, std::unique_ptr<VirtualRobot>* out);

  // All cycles and ticks up to, and not including, `to_ns`. Never back.
  void advance(std::int64_t to_ns);
  // False when the ring is full.
  [[nodiscard]] bool push(const stream::Chunk& chunk) { return timeline_.push(chunk); }

  // The oldest cycle that was not taken yet; false when there is none.
  [[nodiscard]] bool sample(motion::MotionSample* out) { return reader_.next(*samples_, out); }
  [[nodiscard]] std::uint64_t samples_lost() const { return reader_.lost(); }

  [[nodiscard]] motion::Motion& motion() { return *motion_; }
  [[nodiscard]] SimulatedRobot& robot() { return *robot_; }
  [[nodiscard]] can::VirtualWire& host_wire() { return host_wire_; }
  // The host's end of the wire, to be captured or taken off the bus.
  [[nodiscard]] can::Bus& host_bus() { return *host_end_; }
  [[nodiscard]] std::int64_t now_ns() const { return now_ns_; }
  // The stream process stands still: what SIGSTOP does to it.
  void set_stopped(bool is_stopped) { is_stopped_ = is_stopped; }

 private:
  struct alignas(stream::Timeline::kAlignment) Block {
    unsigned char bytes[stream::Timeline::kAlignment];
  };

  VirtualRobot();

  std::unique_ptr<Block[]> memory_;
  stream::Timeline timeline_;
  can::VirtualWire host_wire_;
  std::unique_ptr<can::Bus> host_end_, bridge_end_;
  std::unique_ptr<motion::Motion> motion_;
  std::unique_ptr<SimulatedRobot> robot_;
  std::unique_ptr<motion::SampleRing> samples_;
  motion::SampleWriter writer_;
  motion::SampleReader reader_;
  std::int64_t period_ns_ = 1000000;
  std::int64_t now_ns_ = 0, cycle_ns_ = 0;
  bool is_stopped_ = false;
};

}  // namespace premotor::rig
