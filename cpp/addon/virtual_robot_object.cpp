#include "addon/virtual_robot_object.h"

#include <algorithm>
#include <limits>
#include <string>

#include "addon/convert.h"
#include "addon/motion_convert.h"

namespace premotor::addon {
namespace {

// Per joint, what the physics is told: is driven, position, velocity, stiffness, damping, torque, torque limit; and, to
// be watched, the stream's setpoint, not a number while there is none.
constexpr std::size_t kDemandValues = 8;
// Per joint, what the physics tells: position, velocity, torque.
constexpr std::size_t kMeasuredValues = 3;

pm_damiao_axis to_drive(const Napi::Object& drive) {
  const auto single = [&](const char* key) { return static_cast<float>(number(drive, key)); };
  pm_damiao_axis axis{};
  axis.motor_id = static_cast<std::uint16_t>(integer(drive, "motorId"));
  axis.master_id = static_cast<std::uint16_t>(integer(drive, "masterId"));
  axis.timeout_ms = static_cast<std::uint16_t>(integer(drive, "timeoutMs"));
  axis.range = {single("positionMaxRad"), single("velocityMaxRadPerS"), single("torqueMaxNm")};
  axis.stiffness_Nm_rad = single("stiffnessNmPerRad");
  axis.damping_Nm_s_rad = single("dampingNmSPerRad");
  axis.ratio = single("ratio");
  axis.zero_rad = single("zeroRad");
  axis.velocity_share = single("velocityShare");
  return axis;
}

// The firmware's built-in ceilings: twice what the configuration asks for, so that only a wrong upload meets them.
std::array<std::int32_t, PM_LIMIT_FIELDS> ceiling_of(const motion::AxisLimits& limits) {
  constexpr double room = 2;
  constexpr double room_rad = 1;
  const auto scaled = [](double value) { return pm_quantise(room * value, PM_LIMIT_PER_UNIT, INT32_MAX); };
  return {pm_quantise(limits.position_min - room_rad, PM_POSITION_PER_RAD, INT32_MAX),
          pm_quantise(limits.position_max + room_rad, PM_POSITION_PER_RAD, INT32_MAX),
          scaled(limits.velocity),
          scaled(limits.acceleration),
          scaled(limits.jerk),
          scaled(limits.torque)};
}

rig::VirtualRobotOptions to_options(const Napi::Object& object) {
  rig::VirtualRobotOptions options;
  options.motion = to_motion_options(field(object, "motion").As<Napi::Object>());
  options.robot.axes = options.motion.stream.joints;
  options.robot.has_fd = options.motion.link.wants_fd;
  options.robot.boot = static_cast<std::uint16_t>(integer(object, "boot") & 0xffff);
  options.robot.tracking_max_rad = static_cast<float>(number(object, "trackingMaxRad"));
  const auto drives = field(object, "drives").As<Napi::Array>();
  const auto positions = field(object, "positionRad").As<Napi::Float64Array>();
  const auto joints = static_cast<std::uint32_t>(std::max(options.robot.axes, 0));
  if (drives.Length() != joints || positions.ElementLength() != joints || joints > PM_AXES_MAX)
    throw Napi::TypeError::New(
        object.Env(), "native call: one drive and one position per joint, at most " + std::to_string(PM_AXES_MAX));
  for (std::uint32_t j = 0; j < joints; ++j) {
    options.robot.drives[j] = to_drive(drives.Get(j).As<Napi::Object>());
    options.robot.position_rad[j] = positions[j];
    options.robot.ceiling[j] = ceiling_of(motion::axis_limits(options.motion, static_cast<int>(j)));
  }
  return options;
}

}  // namespace

void VirtualRobotObject::define(Napi::Env env, Napi::Object exports) {
  using Self = VirtualRobotObject;
  exports.Set(
      "VirtualRobot",
      DefineClass(env, "NativeVirtualRobot",
                  {InstanceMethod<&Self::arm>("arm"), InstanceMethod<&Self::disarm>("disarm"),
                   InstanceMethod<&Self::stop>("stop"), InstanceMethod<&Self::estop>("estop"),
                   InstanceMethod<&Self::beat>("beat"), InstanceMethod<&Self::indicate>("indicate"),
                   InstanceMethod<&Self::push>("push"), InstanceMethod<&Self::executed>("executed"),
                   InstanceMethod<&Self::samples>("samples"), InstanceMethod<&Self::status>("status"),
                   InstanceMethod<&Self::counts>("counts"), InstanceMethod<&Self::bridge_counts>("bridgeCounts"),
                   InstanceMethod<&Self::advance>("advance"), InstanceMethod<&Self::inject>("inject")}));
}

VirtualRobotObject::VirtualRobotObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<VirtualRobotObject>(info), chunk_(new stream::Chunk) {
  const rig::VirtualRobotOptions options = to_options(info[0].As<Napi::Object>());
  const Status opened = rig::VirtualRobot::open(options, nanoseconds(info[1], "nowNs"), &robot_);
  if (!opened.ok()) throw to_error(info.Env(), opened);
  joints_ = options.robot.axes;
  samples_.open(info.Env(), joints_);
}

Napi::Value VirtualRobotObject::arm(const Napi::CallbackInfo& info) {
  robot_->motion().arm(robot_->now_ns(), count64(info[0], "liveness"));
  return info.Env().Undefined();
}

Napi::Value VirtualRobotObject::disarm(const Napi::CallbackInfo& info) {
  robot_->motion().disarm();
  return info.Env().Undefined();
}

Napi::Value VirtualRobotObject::stop(const Napi::CallbackInfo& info) {
  robot_->motion().stop(to_stop_category(info[0]));
  return info.Env().Undefined();
}

Napi::Value VirtualRobotObject::estop(const Napi::CallbackInfo& info) {
  robot_->motion().estop(robot_->now_ns());
  return info.Env().Undefined();
}

Napi::Value VirtualRobotObject::beat(const Napi::CallbackInfo& info) {
  robot_->motion().beat(nanoseconds(info[0], "untilNs"));
  return info.Env().Undefined();
}

Napi::Value VirtualRobotObject::indicate(const Napi::CallbackInfo& info) {
  robot_->motion().indicate(to_indication(info[0]));
  return info.Env().Undefined();
}

Napi::Value VirtualRobotObject::push(const Napi::CallbackInfo& info) {
  to_chunk(info[0].As<Napi::Object>(), joints_, chunk_.get());
  return Napi::Boolean::New(info.Env(), robot_->push(*chunk_));
}

Napi::Value VirtualRobotObject::executed(const Napi::CallbackInfo& info) {
  Napi::Array all = Napi::Array::New(info.Env());
  stream::Executed one;
  while (robot_->motion().executed(&one)) all.Set(all.Length(), from_executed(info.Env(), one, joints_));
  return all;
}

Napi::Value VirtualRobotObject::samples(const Napi::CallbackInfo&) {
  const auto next = [&](motion::MotionSample* out) { return robot_->sample(out); };
  return samples_.fill(next, [&] { return robot_->samples_lost(); });
}

Napi::Value VirtualRobotObject::status(const Napi::CallbackInfo& info) {
  return from_status(info.Env(), robot_->motion().status(), joints_);
}

Napi::Value VirtualRobotObject::counts(const Napi::CallbackInfo& info) {
  return from_counts(info.Env(), robot_->motion().stream().counts());
}

// The firmware's own counters, by their number (protocol/README.md, "Frames that do not count").
Napi::Value VirtualRobotObject::bridge_counts(const Napi::CallbackInfo& info) {
  Napi::Array counts = Napi::Array::New(info.Env(), PM_COUNTERS);
  for (std::uint32_t i = 0; i < PM_COUNTERS; ++i) counts.Set(i, robot_->robot().bridge().counters[i]);
  return counts;
}

// advance(toNs, measured [joints, 3], demand [joints, 8]): `demand` is written.
Napi::Value VirtualRobotObject::advance(const Napi::CallbackInfo& info) {
  const std::int64_t to_ns = nanoseconds(info[0], "toNs");
  const auto measured = info[1].As<Napi::Float64Array>();
  auto demand = info[2].As<Napi::Float64Array>();
  const auto joints = static_cast<std::size_t>(joints_);
  if (measured.ElementLength() != kMeasuredValues * joints || demand.ElementLength() != kDemandValues * joints)
    throw Napi::TypeError::New(info.Env(), "native call: advance needs [joints, 3] measured and [joints, 8] demanded");
  for (std::size_t j = 0; j < joints; ++j) {
    const double* now = measured.Data() + kMeasuredValues * j;
    robot_->robot().set_joint(static_cast<int>(j), now[0], now[1], now[2]);
  }
  robot_->advance(to_ns);
  const stream::Setpoints& setpoints = robot_->motion().status().setpoints;
  for (std::size_t j = 0; j < joints; ++j) {
    const rig::JointDemand told = robot_->robot().demand(static_cast<int>(j));
    const double values[kDemandValues] = {
        told.is_driven ? 1.0 : 0.0,
        told.position_rad,
        told.velocity_rad_s,
        told.stiffness_Nm_rad,
        told.damping_Nm_s_rad,
        told.torque_Nm,
        told.torque_max_Nm,
        setpoints.is_valid ? setpoints.position[j] : std::numeric_limits<double>::quiet_NaN()};
    std::copy_n(values, kDemandValues, demand.Data() + kDemandValues * j);
  }
  return info.Env().Undefined();
}

// inject({ axis?, mute?, deaf?, error?, frozen?, estop?, halted?, stopped?, busOff? }): what is left out stays as it
// is; mute, deaf and error belong together.
Napi::Value VirtualRobotObject::inject(const Napi::CallbackInfo& info) {
  const auto faults = info[0].As<Napi::Object>();
  const auto flag = [&](const char* key, auto&& act) {
    const Napi::Value value = faults.Get(key);
    if (value.IsBoolean()) act(value.As<Napi::Boolean>().Value());
  };
  rig::SimulatedRobot& robot = robot_->robot();
  flag("estop", [&](bool on) { robot.set_estop(on); });
  flag("halted", [&](bool on) { robot.set_halted(on); });
  flag("stopped", [&](bool on) { robot_->set_stopped(on); });
  flag("busOff", [&](bool on) {
    if (on) robot_->host_wire().force_bus_off(&robot_->host_bus());
  });
  if (!faults.Get("axis").IsNumber()) return info.Env().Undefined();
  const auto axis = static_cast<int>(integer(faults, "axis"));
  if (axis < 0 || axis >= joints_) throw Napi::TypeError::New(info.Env(), "native call: no such axis");
  can::DeviceFaults device;
  flag("mute", [&](bool on) { device.is_mute = on; });
  flag("deaf", [&](bool on) { device.is_deaf = on; });
  if (faults.Get("error").IsNumber()) device.error = static_cast<std::uint32_t>(integer(faults, "error"));
  robot.inject(axis, device);
  flag("frozen", [&](bool on) { robot.freeze_feedback(axis, on); });
  return info.Env().Undefined();
}

}  // namespace premotor::addon
