#include "rig/simulated_robot.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

namespace premotor::rig {

namespace {

constexpr std::uint8_t kHostBus = 0;
constexpr std::uint8_t kDriveBus = 1;
constexpr std::uint32_t kDriveDivider = 4;  // each motor is told 1000 times a second
constexpr int kFramesMax = 64;              // per bus and tick

double ratio_of(const pm_damiao_axis& drive) { return static_cast<double>(drive.ratio); }

can::AxisState motor_state(const pm_damiao_axis& drive, double position, double velocity, double torque) {
  const double ratio = ratio_of(drive);
  return {static_cast<float>(ratio * position + static_cast<double>(drive.zero_rad)),
          static_cast<float>(ratio * velocity), static_cast<float>(torque / ratio)};
}

// A body that begins with these bytes is a firmware that hangs: the watchdog resets it before anybody has heard of it.
bool hangs(const pm_flash& flash, std::uint8_t slot) {
  constexpr std::array<std::uint8_t, 4> mark = {'H', 'A', 'N', 'G'};
  std::array<std::uint8_t, 4> begins{};
  flash.read(flash.context, static_cast<pm_flash_region>(slot), PM_IMAGE_HEADER_BYTES, begins.data(), begins.size());
  return begins == mark;
}

}  // namespace

double JointDemand::torque_at(double q, double dq) const {
  if (!is_driven) return 0;
  const double wanted = stiffness_Nm_rad * (position_rad - q) + damping_Nm_s_rad * (velocity_rad_s - dq) + torque_Nm;
  return torque_max_Nm > 0 ? std::clamp(wanted, -torque_max_Nm, torque_max_Nm) : wanted;
}

SimulatedRobot::SimulatedRobot() : drive_wire_("drives") {}

Status SimulatedRobot::open(const SimulatedRobotOptions& options, can::Bus* host, std::int64_t now_us,
                            std::unique_ptr<SimulatedRobot>* out) {
  if (options.axes < 1 || options.axes > PM_AXES_MAX)
    return Status::error("RIG_OPTIONS", "a simulated robot has 1 to " + std::to_string(PM_AXES_MAX) + " axes, found " +
                                            std::to_string(options.axes));
  std::unique_ptr<SimulatedRobot> made(new SimulatedRobot);
  made->options_ = options;
  made->host_ = host;
  made->bridge_end_ = made->drive_wire_.endpoint("bridge");
  made->drives_end_ = made->drive_wire_.endpoint("motors");
  PREMOTOR_TRY(made->bridge_end_->open());
  PREMOTOR_TRY(made->drives_end_->open());
  pm_bridge_config& config = made->config_;
  config.axis_count = static_cast<std::uint8_t>(options.axes);
  config.host_bus = kHostBus;
  config.has_fd = options.has_fd;
  config.boot = options.boot;
  config.tick_us = kTickUs;
  config.drive_divider = kDriveDivider;
  config.tracking_max_rad = options.tracking_max_rad;
  std::fill_n(config.frozen_max_rad, options.axes, options.frozen_max_rad);
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(options.axes); ++axis) {
    pm_damiao_axis& drive = made->options_.drives[axis];
    drive.bus = kDriveBus;
    config.drive_bus[axis] = kDriveBus;
    std::copy(options.ceiling[axis].begin(), options.ceiling[axis].end(), config.ceiling[axis]);
    can::DamiaoDeviceOptions device;
    device.motor_id = drive.motor_id;
    device.master_id = drive.master_id;
    device.range = drive.range;
    device.position_rad = motor_state(drive, options.position_rad[axis], 0, 0).position_rad;
    made->devices_[axis] = std::make_unique<can::DamiaoDevice>(device);
    made->devices_[axis]->ideal_axis().friction_Nm_s_rad = options.friction_Nm_s_rad;
  }
  PREMOTOR_TRY(made->start_firmware(now_us));
  *out = std::move(made);
  return Status::good();
}

Status SimulatedRobot::start_firmware(std::int64_t now_us) {
  slot_ = PM_SLOT_NONE;
  if (options_.flash != nullptr) {
    slot_ = pm_boot_choose(options_.flash);
    for (int resets = 0; resets < PM_BOOT_TRIES && slot_ != PM_SLOT_NONE && hangs(*options_.flash, slot_); ++resets)
      slot_ = pm_boot_choose(options_.flash);
  }
  config_.update = {options_.flash, slot_, kBoardId};
  pm_update_init(&boot_loader_, &config_.update);
  if (!pm_damiao_drives_init(&drives_, options_.drives.data(), config_.axis_count))
    return Status::error("RIG_OPTIONS", "the table of motors makes no sense: identifiers, gains, ranges or time-outs");
  config_.drive = pm_damiao_drive(&drives_);
  if (!pm_bridge_init(&bridge_, &config_, static_cast<std::uint64_t>(now_us)))
    return Status::error("RIG_OPTIONS", "the bridge's configuration makes no sense");
  ++config_.boot;
  return Status::good();
}

void SimulatedRobot::run_boot_loader(std::int64_t now_us) {
  can::BusFrame got;
  pm_can_frame answer{};
  for (int i = 0; i < kFramesMax && host_->receive(&got, now_us) == can::BusIo::ok; ++i) {
    const pm_update_verdict verdict =
        pm_update_on_frame(&boot_loader_, &got.frame, true, static_cast<std::uint64_t>(now_us), &answer);
    if (verdict == PM_UPDATE_ANSWERED) static_cast<void>(host_->send(answer, now_us));
  }
  pm_update_tick(&boot_loader_, static_cast<std::uint64_t>(now_us));
  if (pm_update_wants_restart(&boot_loader_, static_cast<std::uint64_t>(now_us)))
    static_cast<void>(start_firmware(now_us));
}

void SimulatedRobot::run_bridge(std::int64_t now_us) {
  const auto bridge_us = static_cast<std::uint64_t>(now_us);
  can::BusFrame got;
  for (int i = 0; i < kFramesMax && host_->receive(&got, now_us) == can::BusIo::ok; ++i)
    if (!got.is_own) pm_bridge_on_frame(&bridge_, kHostBus, &got.frame, bridge_us);
  for (int i = 0; i < kFramesMax && bridge_end_->receive(&got, now_us) == can::BusIo::ok; ++i)
    pm_bridge_on_frame(&bridge_, kDriveBus, &got.frame, bridge_us);
  pm_bridge_tick(&bridge_, bridge_us);
  pm_output output;
  while (pm_bridge_pop(&bridge_, bridge_us, &output)) {
    can::Bus* bus = output.bus == kHostBus ? host_ : bridge_end_.get();
    motion_frames_ += output.is_motion;
    static_cast<void>(bus->send(output.frame, now_us));
  }
  if (pm_update_wants_restart(&bridge_.update, bridge_us)) static_cast<void>(start_firmware(now_us));
}

void SimulatedRobot::run_drives(std::int64_t now_us) {
  can::BusFrame got;
  can::FrameBatch answers;
  const auto answer = [&] {
    for (std::size_t i = 0; i < answers.count; ++i) static_cast<void>(drives_end_->send(answers.frames[i], now_us));
    answers.clear();
  };
  for (int i = 0; i < kFramesMax && drives_end_->receive(&got, now_us) == can::BusIo::ok; ++i) {
    for (int axis = 0; axis < options_.axes; ++axis) {
      devices_[static_cast<std::size_t>(axis)]->accept(got.frame, now_us, &answers);
      answer();
    }
  }
  for (int axis = 0; axis < options_.axes; ++axis) {
    devices_[static_cast<std::size_t>(axis)]->step(now_us, &answers);
    answer();
  }
}

void SimulatedRobot::tick(std::int64_t now_us) {
  if (!is_halted_) is_boot_loader() ? run_boot_loader(now_us) : run_bridge(now_us);
  run_drives(now_us);
}

JointDemand SimulatedRobot::demand(int axis) const {
  const auto i = static_cast<std::size_t>(axis);
  const pm_damiao_axis& drive = options_.drives[i];
  const double ratio = ratio_of(drive);
  const can::AxisDemand motor = devices_[i]->demand();
  JointDemand joint;
  joint.is_driven = motor.kind == can::AxisDemand::Kind::impedance;
  if (!joint.is_driven) return joint;
  joint.position_rad = (static_cast<double>(motor.position_rad) - static_cast<double>(drive.zero_rad)) / ratio;
  joint.velocity_rad_s = static_cast<double>(motor.velocity_rad_s) / ratio;
  joint.stiffness_Nm_rad = static_cast<double>(motor.stiffness_Nm_rad) * ratio * ratio;
  joint.damping_Nm_s_rad = static_cast<double>(motor.damping_Nm_s_rad) * ratio * ratio;
  joint.torque_Nm = static_cast<double>(motor.torque_Nm) * ratio;
  joint.torque_max_Nm = static_cast<double>(motor.torque_max_Nm) * (ratio < 0 ? -ratio : ratio);
  return joint;
}

void SimulatedRobot::set_joint(int axis, double position_rad, double velocity_rad_s, double torque_Nm) {
  const auto i = static_cast<std::size_t>(axis);
  const can::AxisState now = motor_state(options_.drives[i], position_rad, velocity_rad_s, torque_Nm);
  if (!is_frozen_[i]) frozen_[i] = now;
  devices_[i]->set_axis(frozen_[i]);
}

double SimulatedRobot::joint_rad(int axis) const {
  const auto i = static_cast<std::size_t>(axis);
  const pm_damiao_axis& drive = options_.drives[i];
  const auto motor_rad = static_cast<double>(devices_[i]->axis().position_rad);
  return (motor_rad - static_cast<double>(drive.zero_rad)) / ratio_of(drive);
}

double SimulatedRobot::joint_rad_s(int axis) const {
  const auto i = static_cast<std::size_t>(axis);
  return static_cast<double>(devices_[i]->axis().velocity_rad_s) / ratio_of(options_.drives[i]);
}

}  // namespace premotor::rig
