#include "addon/sample_block.h"

namespace premotor::addon {

void SampleBlock::open(Napi::Env env, int joints) {
  constexpr auto samples = static_cast<std::size_t>(motion::kSamplesMax);
  joints_ = static_cast<std::size_t>(joints);
  Napi::Object o = Napi::Object::New(env);
  const auto times = Napi::BigInt64Array::New(env, samples);
  const auto measured = Napi::BigInt64Array::New(env, samples);
  const auto has_setpoint = Napi::Uint8Array::New(env, samples);
  const auto setpoints = Napi::Float64Array::New(env, samples * joints_);
  const auto positions = Napi::Float64Array::New(env, samples * joints_);
  const auto velocities = Napi::Float64Array::New(env, samples * joints_);
  times_ns_ = const_cast<std::int64_t*>(times.Data());
  measured_ns_ = const_cast<std::int64_t*>(measured.Data());
  has_setpoint_ = const_cast<std::uint8_t*>(has_setpoint.Data());
  setpoints_ = const_cast<double*>(setpoints.Data());
  positions_ = const_cast<double*>(positions.Data());
  velocities_ = const_cast<double*>(velocities.Data());
  o.Set("count", 0);
  o.Set("lost", 0);
  o.Set("timesNs", times);
  o.Set("measuredNs", measured);
  o.Set("hasSetpoint", has_setpoint);
  o.Set("setpointRad", setpoints);
  o.Set("positionRad", positions);
  o.Set("velocityRadPerS", velocities);
  object_ = Napi::Persistent(o);
}

// What nobody told or measured is no number.
void SampleBlock::put(std::size_t at, const motion::MotionSample& sample) {
  constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
  times_ns_[at] = sample.time_ns;
  measured_ns_[at] = sample.measured_ns;
  has_setpoint_[at] = sample.has_setpoint != 0 ? 1 : 0;
  for (std::size_t j = 0; j < joints_; ++j) {
    const bool is_measured = (sample.valid >> j & 1) != 0;
    setpoints_[at * joints_ + j] = sample.has_setpoint != 0 ? sample.setpoint_rad[j] : nothing;
    positions_[at * joints_ + j] = is_measured ? sample.position_rad[j] : nothing;
    velocities_[at * joints_ + j] = is_measured ? sample.velocity_rad_s[j] : nothing;
  }
}

Napi::Value SampleBlock::close(std::size_t count, std::uint64_t lost) {
  Napi::Object o = object_.Value();
  o.Set("count", static_cast<double>(count));
  o.Set("lost", static_cast<double>(lost));
  return o;
}

}  // namespace premotor::addon
