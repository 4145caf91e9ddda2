#include "addon/motion_convert.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "addon/convert.h"
#include "addon/kinematics_object.h"
#include "motion/names.h"
#include "motion/workspace_guard.h"

namespace premotor::addon {
namespace {

Napi::Float64Array from_doubles(Napi::Env env, const double* values, int count) {
  Napi::Float64Array out = Napi::Float64Array::New(env, static_cast<std::size_t>(count));
  std::copy_n(values, count, out.Data());
  return out;
}

Napi::Object from_fault(Napi::Env env, const motion::LinkFault& fault) {
  Napi::Object o = Napi::Object::New(env);
  const Status status = motion::describe(fault);
  o.Set("code", fault.code);
  o.Set("message", status.message);
  o.Set("fault", fault.fault);
  o.Set("result", fault.result);
  o.Set("axis", fault.axis == PM_AXIS_NONE ? env.Null() : Napi::Number::New(env, fault.axis));
  o.Set("detail", fault.detail);
  return o;
}

}  // namespace

std::int64_t nanoseconds(const Napi::Value& value, const char* name) {
  bool lossless = false;
  const std::int64_t ns = value.IsBigInt() ? value.As<Napi::BigInt>().Int64Value(&lossless) : 0;
  if (!lossless)
    throw Napi::TypeError::New(value.Env(), std::string("native call: \"") + name + "\" needs a bigint of 64 bits");
  return ns;
}

std::int64_t nanoseconds(const Napi::Object& object, const char* key) { return nanoseconds(field(object, key), key); }

std::uint64_t count64(const Napi::Value& value, const char* name) {
  bool lossless = false;
  const std::uint64_t count = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
  if (!lossless)
    throw Napi::TypeError::New(value.Env(), std::string("native call: \"") + name + "\" needs a bigint of 64 bits");
  return count;
}

Napi::BigInt from_ns(Napi::Env env, std::int64_t value_ns) { return Napi::BigInt::New(env, value_ns); }

stream::JointLimits to_limits(const Napi::Object& joint) {
  return {number(joint, "lowerRad"), number(joint, "upperRad"), number(joint, "velocityMaxRadPerS"),
          number(joint, "accelerationMaxRadPerS2"), number(joint, "jerkMaxRadPerS3")};
}

// [{ chain, firstJoint, lowerM, upperM }]; none when absent.
std::shared_ptr<const stream::PoseGuard> to_guard(const Napi::Value& value, int joints) {
  if (!value.IsArray()) return nullptr;
  std::vector<motion::WorkspaceGuard::Arm> arms;
  const auto list = value.As<Napi::Array>();
  for (std::uint32_t i = 0; i < list.Length(); ++i) {
    const auto each = list.Get(i).As<Napi::Object>();
    motion::WorkspaceGuard::Arm arm;
    arm.chain = KinematicsObject::chain_of(field(each, "chain"));
    arm.first_joint = static_cast<int>(integer(each, "firstJoint"));
    const auto lower = field(each, "lowerM").As<Napi::Float64Array>();
    const auto upper = field(each, "upperM").As<Napi::Float64Array>();
    if (arm.first_joint < 0 || arm.first_joint + arm.chain.joint_count() > joints || lower.ElementLength() != 3 ||
        upper.ElementLength() != 3)
      throw Napi::TypeError::New(value.Env(), "native call: a workspace needs two corners and joints that there are");
    const Status opened =
        kinematics::Workspace::open({lower[0], lower[1], lower[2]}, {upper[0], upper[1], upper[2]}, &arm.box);
    if (!opened.ok()) throw to_error(value.Env(), opened);
    arms.push_back(arm);
  }
  return std::make_shared<motion::WorkspaceGuard>(std::move(arms));
}

motion::MotionOptions to_motion_options(const Napi::Object& object) {
  motion::MotionOptions options;
  const auto joints = field(object, "joints").As<Napi::Array>();
  options.stream.joints = static_cast<int>(joints.Length());
  options.stream.period_ns = integer(object, "periodNs");
  options.stream.planner_grace_ns = integer(object, "plannerGraceNs");
  options.lead_ns = integer(object, "leadNs");
  options.link.wants_fd = boolean(object, "wantsFd");
  options.link.nonce_seed = static_cast<std::uint32_t>(integer(object, "nonceSeed") & 0xffffffff);
  options.guard = to_guard(object.Get("workspaces"), options.stream.joints);
  const std::uint32_t count = std::min<std::uint32_t>(joints.Length(), stream::kJointsMax);
  for (std::uint32_t j = 0; j < count; ++j) {
    const auto joint = joints.Get(j).As<Napi::Object>();
    options.stream.limits[j] = to_limits(joint);
    options.torque_max_Nm[j] = number(joint, "torqueMaxNm");
  }
  return options;
}

void to_chunk(const Napi::Object& plan, int joints, stream::Chunk* out) {
  const auto knots = field(plan, "knots").As<Napi::Float64Array>();
  const std::size_t count = joints > 0 ? knots.ElementLength() / static_cast<std::size_t>(joints) : 0;
  stream::ChunkHeader& h = out->header;
  h = stream::ChunkHeader();
  h.sequence = count64(field(plan, "sequence"), "sequence");
  h.liveness = count64(field(plan, "liveness"), "liveness");
  h.splice_ns = nanoseconds(plan, "spliceNs");
  h.start_ns = nanoseconds(plan, "startNs");
  h.deadline_ns = nanoseconds(plan, "deadlineNs");
  h.knot_period_ns = nanoseconds(plan, "knotNs");
  h.joint_count = joints;
  if (count == 0 || count > stream::kKnotsMax || count * static_cast<std::size_t>(joints) != knots.ElementLength())
    throw Napi::TypeError::New(plan.Env(), "native call: a plan needs 1 to " + std::to_string(stream::kKnotsMax) +
                                               " knots of " + std::to_string(joints) + " joints");
  h.knot_count = static_cast<std::int32_t>(count);
  for (std::size_t k = 0; k < count; ++k)
    std::copy_n(knots.Data() + k * static_cast<std::size_t>(joints), joints, out->knots[k].begin());
}

Napi::Value plan_move(const Napi::CallbackInfo& info) {
  const auto joints = info[0].As<Napi::Array>();
  const auto from = info[1].As<Napi::Float64Array>(), to = info[2].As<Napi::Float64Array>();
  const std::int64_t knot_ns = nanoseconds(info[3], "knotNs");
  const std::size_t count = joints.Length();
  if (count == 0 || count > stream::kJointsMax || from.ElementLength() != count || to.ElementLength() != count ||
      knot_ns <= 0)
    throw Napi::TypeError::New(info.Env(), "native call: planMove needs one pose of all joints at both ends");
  std::array<stream::MotionState, stream::kJointsMax> starts{};
  std::array<stream::JointLimits, stream::kJointsMax> limits{};
  std::array<stream::Profile, stream::kJointsMax> profiles{};
  for (std::size_t j = 0; j < count; ++j) {
    limits[j] = to_limits(joints.Get(static_cast<std::uint32_t>(j)).As<Napi::Object>());
    starts[j].position = from[j];
    if (!limits[j].is_valid() || !(to[j] >= limits[j].position_min && to[j] <= limits[j].position_max))
      throw to_error(info.Env(), Status::error("STREAM_POSE",
                                               "the target of joint " + std::to_string(j) + " is outside its range"));
  }
  const double duration_s =
      stream::plan_together(starts.data(), to.Data(), limits.data(), static_cast<int>(count), profiles.data());
  const double knot_s = static_cast<double>(knot_ns) * 1e-9;
  // Knots at the target, so that the path rests there and the limiter, which may have been held back, arrives.
  constexpr std::size_t resting = 4;
  const auto knots = static_cast<std::size_t>(std::ceil(duration_s / knot_s)) + resting;
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), knots * count);
  for (std::size_t k = 0; k < knots; ++k)
    for (std::size_t j = 0; j < count; ++j)
      out[k * count + j] = profiles[j].at(static_cast<double>(k + 1) * knot_s).position;
  return out;
}

motion::StopCategory to_stop_category(const Napi::Value& value) {
  return value.IsNumber() && value.As<Napi::Number>().Int32Value() == 1 ? motion::StopCategory::one
                                                                        : motion::StopCategory::two;
}

pm_indication to_indication(const Napi::Value& value) {
  const std::int64_t number = value.IsNumber() ? value.As<Napi::Number>().Int64Value() : -1;
  if (number < 0 || number >= PM_INDICATIONS)
    throw Napi::TypeError::New(value.Env(),
                               "native call: an indication is a number of 0 to " + std::to_string(PM_INDICATIONS - 1));
  return static_cast<pm_indication>(number);
}

Napi::Object from_executed(Napi::Env env, const stream::Executed& one, int joints) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("sequence", Napi::BigInt::New(env, one.sequence));
  o.Set("knot", one.knot);
  o.Set("timeNs", from_ns(env, one.time_ns));
  o.Set("isClamped", one.is_clamped);
  o.Set("positionRad", from_doubles(env, one.position.data(), joints));
  return o;
}

Napi::Object from_status(Napi::Env env, const motion::MotionStatus& status, int joints) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("timeNs", from_ns(env, status.time_ns));
  o.Set("stream", motion::stream_state_name(status.stream));
  o.Set("link", motion::link_state_name(status.link));
  o.Set("bridge", motion::bridge_state_name(status.bridge));
  o.Set("faultCode", status.fault_code);
  o.Set("linkFault", status.link_fault.code[0] == '\0' ? env.Null() : from_fault(env, status.link_fault));
  o.Set("sequence", Napi::BigInt::New(env, status.sequence));
  o.Set("judgedSequence", Napi::BigInt::New(env, status.newest_sequence));
  o.Set("refusal", stream::refusal_code(status.newest_refusal));
  o.Set("hasSetpoints", status.setpoints.is_valid);
  o.Set("isAtRest", status.is_at_rest);
  o.Set("setpointTimeNs", from_ns(env, status.setpoints.time_ns));
  o.Set("setpointRad", from_doubles(env, status.setpoints.position.data(), joints));
  o.Set("measuredNs", from_ns(env, status.measured.received_us < 0 ? -1 : status.measured.received_us * 1000));
  o.Set("measuredRad", from_doubles(env, status.measured.position_rad.data(), joints));
  o.Set("measuredRadPerS", from_doubles(env, status.measured.velocity_rad_s.data(), joints));
  return o;
}

Napi::Object from_counts(Napi::Env env, const stream::StreamCounts& counts) {
  Napi::Object o = Napi::Object::New(env);
  const auto set = [&](const char* key, std::uint64_t value) { o.Set(key, static_cast<double>(value)); };
  set("cycles", counts.cycles);
  set("missed", counts.missed);
  set("early", counts.early);
  set("accepted", counts.accepted);
  set("expired", counts.expired);
  set("executedLost", counts.executed_lost);
  Napi::Object refused = Napi::Object::New(env);
  for (int i = 1; i < stream::kRefusals; ++i)
    refused.Set(stream::refusal_code(static_cast<stream::Refusal>(i)),
                static_cast<double>(counts.refused[static_cast<std::size_t>(i)]));
  o.Set("refused", refused);
  return o;
}

Napi::Object from_histogram(Napi::Env env, const stream::Histogram& histogram) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("count", static_cast<double>(histogram.count()));
  o.Set("p50Ns", static_cast<double>(histogram.percentile_ns(50)));
  o.Set("p99Ns", static_cast<double>(histogram.percentile_ns(99)));
  o.Set("p999Ns", static_cast<double>(histogram.percentile_ns(99.9)));
  o.Set("p9999Ns", static_cast<double>(histogram.percentile_ns(99.99)));
  o.Set("maxNs", static_cast<double>(histogram.max_ns()));
  std::vector<double> buckets;
  histogram.each([&](std::int64_t middle_ns, std::uint64_t count) {
    buckets.push_back(static_cast<double>(middle_ns));
    buckets.push_back(static_cast<double>(count));
  });
  o.Set("buckets", from_doubles(env, buckets.data(), static_cast<int>(buckets.size())));
  return o;
}

}  // namespace premotor::addon
