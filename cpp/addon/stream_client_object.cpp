#include "addon/stream_client_object.h"

#include <string>

#include "addon/convert.h"
#include "addon/motion_convert.h"
#include "motion/real_time.h"

namespace premotor::addon {

void StreamClientObject::define(Napi::Env env, Napi::Object exports) {
  using Self = StreamClientObject;
  exports.Set("StreamClient",
              DefineClass(env, "NativeStreamClient",
                          {InstanceMethod<&Self::arm>("arm"), InstanceMethod<&Self::disarm>("disarm"),
                           InstanceMethod<&Self::stop>("stop"), InstanceMethod<&Self::estop>("estop"),
                           InstanceMethod<&Self::beat>("beat"), InstanceMethod<&Self::indicate>("indicate"),
                           InstanceMethod<&Self::push>("push"), InstanceMethod<&Self::executed>("executed"),
                           InstanceMethod<&Self::samples>("samples"), InstanceMethod<&Self::status>("status"),
                           InstanceMethod<&Self::counts>("counts"), InstanceMethod<&Self::loop_counts>("loopCounts"),
                           InstanceMethod<&Self::histograms>("histograms"), InstanceMethod<&Self::warnings>("warnings"),
                           InstanceMethod<&Self::information>("info"), InstanceMethod<&Self::is_alive>("isAlive"),
                           InstanceMethod<&Self::now_ns>("nowNs"), InstanceMethod<&Self::detach>("detach")}));
}

StreamClientObject::StreamClientObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<StreamClientObject>(info), chunk_(new stream::Chunk) {
  const Status attached = motion::SharedClient::attach(info[0].ToString().Utf8Value(), &client_);
  if (!attached.ok()) throw to_error(info.Env(), attached);
  info_ = client_->info();
  samples_.open(info.Env(), info_.joints);
}

motion::SharedClient& StreamClientObject::client(Napi::Env env) {
  if (!client_)
    throw to_error(env, Status::error("STREAM_PROCESS_DETACHED",
                                      "this supervisor has detached from the stream process. Attach again."));
  return *client_;
}

void StreamClientObject::send(Napi::Env env, const motion::Command& command) {
  motion::SharedClient& to = client(env);
  if (to.send(command)) return;
  throw to_error(env, Status::error("STREAM_COMMANDS_FULL", "the stream process does not take commands: " +
                                                                std::to_string(motion::kCommandsMax) +
                                                                " wait. Look whether it still runs."));
}

Napi::Value StreamClientObject::arm(const Napi::CallbackInfo& info) {
  send(info.Env(), {motion::CommandKind::arm, motion::StopCategory::one, count64(info[0], "liveness"), 0});
  return info.Env().Undefined();
}

Napi::Value StreamClientObject::disarm(const Napi::CallbackInfo& info) {
  send(info.Env(), {motion::CommandKind::stop, motion::StopCategory::one, 0, 0});
  return info.Env().Undefined();
}

Napi::Value StreamClientObject::stop(const Napi::CallbackInfo& info) {
  send(info.Env(), {motion::CommandKind::stop, to_stop_category(info[0]), 0, 0});
  return info.Env().Undefined();
}

Napi::Value StreamClientObject::estop(const Napi::CallbackInfo& info) {
  send(info.Env(), {motion::CommandKind::estop, motion::StopCategory::one, 0, 0});
  return info.Env().Undefined();
}

Napi::Value StreamClientObject::beat(const Napi::CallbackInfo& info) {
  send(info.Env(), {motion::CommandKind::beat, motion::StopCategory::one, 0, nanoseconds(info[0], "untilNs")});
  return info.Env().Undefined();
}

Napi::Value StreamClientObject::indicate(const Napi::CallbackInfo& info) {
  motion::Command command;
  command.kind = motion::CommandKind::indicate;
  command.indication = to_indication(info[0]);
  send(info.Env(), command);
  return info.Env().Undefined();
}

Napi::Value StreamClientObject::push(const Napi::CallbackInfo& info) {
  motion::SharedClient& to = client(info.Env());
  to_chunk(info[0].As<Napi::Object>(), info_.joints, chunk_.get());
  return Napi::Boolean::New(info.Env(), to.push(*chunk_));
}

Napi::Value StreamClientObject::executed(const Napi::CallbackInfo& info) {
  motion::SharedClient& from = client(info.Env());
  Napi::Array all = Napi::Array::New(info.Env());
  stream::Executed one;
  // A ring at most: a stream that goes on meanwhile does not keep this call.
  for (int i = 0; i < stream::Stream::kExecutedMax && from.executed(&one); ++i)
    all.Set(all.Length(), from_executed(info.Env(), one, info_.joints));
  return all;
}

Napi::Value StreamClientObject::samples(const Napi::CallbackInfo& info) {
  motion::SharedClient& from = client(info.Env());
  const auto next = [&](motion::MotionSample* out) { return from.sample(out); };
  return samples_.fill(next, [&] { return from.samples_lost(); });
}

const motion::StreamReport& StreamClientObject::report(Napi::Env env) {
  static_cast<void>(client(env).status(&report_));
  return report_;
}

Napi::Value StreamClientObject::status(const Napi::CallbackInfo& info) {
  return from_status(info.Env(), report(info.Env()).motion, info_.joints);
}

Napi::Value StreamClientObject::counts(const Napi::CallbackInfo& info) {
  return from_counts(info.Env(), report(info.Env()).counts);
}

Napi::Value StreamClientObject::loop_counts(const Napi::CallbackInfo& info) {
  const motion::StreamReport& from = report(info.Env());
  Napi::Object o = Napi::Object::New(info.Env());
  const auto set = [&](const char* key, std::uint64_t value) { o.Set(key, static_cast<double>(value)); };
  set("cycles", from.loop.cycles);
  set("skipped", from.loop.skipped);
  set("commandsTaken", from.loop.commands_taken);
  set("commandsRefused", from.loop.commands_refused);
  set("setsSent", from.link.sets);
  set("setsUnsent", from.link.unsent);
  return o;
}

Napi::Value StreamClientObject::histograms(const Napi::CallbackInfo& info) {
  motion::SharedClient& from = client(info.Env());
  Napi::Object o = Napi::Object::New(info.Env());
  const auto histogram = std::make_unique<stream::Histogram>();
  constexpr std::array<std::pair<const char*, motion::Measure>, motion::kHistograms> all = {
      {{"wakeUp", motion::Measure::wake_up},
       {"cycle", motion::Measure::cycle},
       {"frameAge", motion::Measure::frame_age}}};
  for (const auto& [key, measure] : all) {
    from.histogram(measure, histogram.get());
    o.Set(key, from_histogram(info.Env(), *histogram));
  }
  return o;
}

Napi::Value StreamClientObject::warnings(const Napi::CallbackInfo& info) {
  Napi::Array all = Napi::Array::New(info.Env());
  for (const motion::Notice& one : client(info.Env()).warnings()) {
    Napi::Object o = Napi::Object::New(info.Env());
    o.Set("code", one.code);
    o.Set("message", one.message);
    all.Set(all.Length(), o);
  }
  return all;
}

Napi::Value StreamClientObject::information(const Napi::CallbackInfo& info) {
  Napi::Object o = Napi::Object::New(info.Env());
  o.Set("pid", static_cast<double>(info_.pid));
  o.Set("joints", info_.joints);
  o.Set("periodNs", from_ns(info.Env(), info_.period_ns));
  o.Set("leadNs", from_ns(info.Env(), info_.lead_ns));
  o.Set("configurationHash", Napi::BigInt::New(info.Env(), info_.configuration_hash));
  o.Set("generation", static_cast<double>(client(info.Env()).generation()));
  return o;
}

Napi::Value StreamClientObject::is_alive(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), client_ && client_->is_alive());
}

Napi::Value StreamClientObject::now_ns(const Napi::CallbackInfo& info) {
  return from_ns(info.Env(), motion::monotonic_ns());
}

Napi::Value StreamClientObject::detach(const Napi::CallbackInfo& info) {
  client_.reset();
  return info.Env().Undefined();
}

}  // namespace premotor::addon
