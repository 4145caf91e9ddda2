#include "rig/virtual_robot.h"

namespace premotor::rig {

VirtualRobot::VirtualRobot() : host_wire_("bridge bus") {}

Status VirtualRobot::open(const VirtualRobotOptions& options, std::int64_t now_ns, std::unique_ptr<VirtualRobot>* out) {
  std::unique_ptr<VirtualRobot> made(new VirtualRobot);
  made->memory_ = std::make_unique<Block[]>(stream::Timeline::bytes() / sizeof(Block) + 1);
  PREMOTOR_TRY(stream::Timeline::create(made->memory_.get(), stream::Timeline::bytes(), &made->timeline_));
  made->host_end_ = made->host_wire_.endpoint("host");
  made->bridge_end_ = made->host_wire_.endpoint("bridge");
  PREMOTOR_TRY(made->host_end_->open());
  PREMOTOR_TRY(made->bridge_end_->open());
  PREMOTOR_TRY(motion::Motion::open(options.motion, made->timeline_, made->host_end_.get(), &made->motion_));
  PREMOTOR_TRY(SimulatedRobot::open(options.robot, made->bridge_end_.get(), now_ns / 1000, &made->robot_));
  made->samples_ = std::make_unique<motion::SampleRing>();
  made->period_ns_ = options.motion.stream.period_ns;
  made->now_ns_ = made->cycle_ns_ = now_ns;
  *out = std::move(made);
  return Status::good();
}

void VirtualRobot::advance(std::int64_t to_ns) {
  for (; now_ns_ < to_ns; now_ns_ += SimulatedRobot::kTickUs * 1000) {
    if (now_ns_ >= cycle_ns_) {
      if (!is_stopped_) {
        motion_->step(now_ns_);
        writer_.put(samples_.get(), motion::sample_of(motion_->status()));
      }
      cycle_ns_ += period_ns_;
    }
    robot_->tick(now_ns_ / 1000);
  }
}

}  // namespace premotor::rig
