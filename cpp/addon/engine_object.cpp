#include "addon/engine_object.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "addon/convert.h"
#include "addon/task.h"

namespace premotor::addon {
namespace {

struct Constructors {
  Napi::FunctionReference engine;
};

// Everything that one prediction needs, copied out of JavaScript.
struct PredictCall {
  OwnedMoments observation, moments;
  std::optional<std::vector<float>> noise_video, noise_action, noise_imagined, actions, forecast;
  std::optional<std::vector<float>> inpaint_actions, inpaint_weights;
  engine::ExecutingArgs executing;
  engine::InpaintArgs inpaint;
  engine::PredictArgs args;
  engine::Trace trace;
  engine::ChunkResult chunk;
  bool traced = false;
};

std::shared_ptr<PredictCall> read_predict(const Napi::Object& options) {
  auto call = std::make_shared<PredictCall>();
  bool lossless = false;
  call->args.seed = field(options, "seed").As<Napi::BigInt>().Uint64Value(&lossless);
  const Napi::Value frames = options.Get("frames");
  if (frames.IsArray()) {
    append_moment(frames.As<Napi::Array>(), &call->observation);
    call->args.observation = &call->observation.moments[0];
  }
  const auto pointer = [&](const char* key, std::optional<std::vector<float>>* to) -> const float* {
    *to = float_array(options, key);
    return to->has_value() ? (*to)->data() : nullptr;
  };
  call->args.noise_video = pointer("noiseVideo", &call->noise_video);
  call->args.noise_action = pointer("noiseAction", &call->noise_action);
  call->args.noise_imagined = pointer("noiseImagined", &call->noise_imagined);
  const auto given = [&](const char* key, std::int64_t* to) {
    if (options.Get(key).IsNumber()) *to = integer(options, key);
  };
  given("videoSteps", &call->args.video_steps);
  given("actionSteps", &call->args.action_steps);
  given("videoExecStep", &call->args.video_exec_step);
  given("imagineSteps", &call->args.imagine_steps);
  if (options.Get("guidance").IsBoolean()) call->args.guided = boolean(options, "guidance");
  const Napi::Value inpaint = options.Get("inpaint");
  if (inpaint.IsObject()) {
    const auto held = inpaint.As<Napi::Object>();
    call->inpaint_actions = float_array(held, "actions");
    call->inpaint_weights = float_array(held, "weights");
    if (!call->inpaint_actions.has_value() || !call->inpaint_weights.has_value())
      throw Napi::TypeError::New(options.Env(), "native call: inpaint needs actions and weights");
    call->inpaint = {call->inpaint_actions->data(), call->inpaint_weights->data(),
                     static_cast<float>(number(held, "betaMax"))};
    call->args.inpaint = &call->inpaint;
  }
  call->traced = boolean(options, "trace");
  if (call->traced) call->args.trace = &call->trace;
  return call;
}

// A given array must have exactly the engine's size: its pointer is all that the engine gets.
void check_size(Napi::Env env, const char* key, const std::optional<std::vector<float>>& values,
                std::int64_t expected) {
  if (!values.has_value() || static_cast<std::int64_t>(values->size()) == expected) return;
  throw Napi::TypeError::New(env, std::string("native call: \"") + key + "\" needs " + std::to_string(expected) +
                                      " values, found " + std::to_string(values->size()));
}

void check_chunk_sizes(Napi::Env env, const PredictCall& call, const engine::SessionInfo& info,
                       std::int64_t action_dim) {
  const std::int64_t video = info.latent_shape[0] * info.latent_shape[1] * info.latent_shape[2] * info.latent_shape[3];
  const std::int64_t action = action_dim * info.action_shape[1] * info.action_shape[2];
  check_size(env, "noiseVideo", call.noise_video, video);
  check_size(env, "noiseAction", call.noise_action, action);
  const std::int64_t count = info.action_shape[1] * info.action_shape[2];
  check_size(env, "inpaint.actions", call.inpaint_actions, info.action_shape[0] * count);
  check_size(env, "inpaint.weights", call.inpaint_weights, count);
}

// The actions that are being executed and, when given, their frames and the noise that imagines them: E of each.
void read_executing(const Napi::Object& options, const engine::SessionInfo& info, PredictCall* call) {
  const Napi::Env env = options.Env();
  call->actions = float_array(options, "executing");
  if (!call->actions.has_value()) throw Napi::TypeError::New(env, "native call: field \"executing\" is missing");
  const std::int64_t per_frame = info.action_shape[0] * info.action_shape[2];
  call->executing.frames = static_cast<std::int64_t>(call->actions->size()) / per_frame;
  check_size(env, "executing", call->actions, call->executing.frames * per_frame);
  const std::int64_t video =
      info.latent_shape[0] * call->executing.frames * info.latent_shape[2] * info.latent_shape[3];
  call->forecast = float_array(options, "forecast");
  check_size(env, "forecast", call->forecast, video);
  check_size(env, "noiseImagined", call->noise_imagined, video);
  call->executing.actions = call->actions->data();
  call->executing.forecast = call->forecast.has_value() ? call->forecast->data() : nullptr;
}

void check_cameras(Napi::Env env, const OwnedMoments& owned, std::int64_t cameras) {
  for (const engine::Moment& moment : owned.moments)
    if (static_cast<std::int64_t>(moment.size()) != cameras)
      throw Napi::TypeError::New(env, "native call: a moment needs " + std::to_string(cameras) + " pictures");
}

Napi::Object commit_object(Napi::Env env, const engine::CommitResult& result) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("frameIndex", static_cast<double>(result.frame_index));
  o.Set("frames", static_cast<double>(result.frames));
  o.Set("latents", from_floats(env, result.latents));
  o.Set("timing", from_timing(env, result.timing));
  return o;
}

Napi::Value chunk_object(Napi::Env env, PredictCall& call) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("actions", from_floats(env, call.chunk.actions));
  o.Set("latents", from_floats(env, call.chunk.latents));
  o.Set("frameIndex", static_cast<double>(call.chunk.frame_index));
  o.Set("timing", from_timing(env, call.chunk.timing));
  if (!call.chunk.imagined.empty()) o.Set("imagined", from_floats(env, call.chunk.imagined));
  if (call.chunk.committed.has_value()) o.Set("committed", commit_object(env, *call.chunk.committed));
  if (call.traced) o.Set("trace", from_trace(env, std::move(call.trace)));
  return o;
}

}  // namespace

void EngineObject::define(Napi::Env env) {
  const Napi::Function constructor = DefineClass(
      env, "NativeEngine",
      {InstanceMethod<&EngineObject::reset>("reset"), InstanceMethod<&EngineObject::predict>("predict"),
       InstanceMethod<&EngineObject::commit>("commit"), InstanceMethod<&EngineObject::predict_next>("predictNext"),
       InstanceMethod<&EngineObject::encoder_state>("encoderState"), InstanceMethod<&EngineObject::restore>("restore"),
       InstanceMethod<&EngineObject::occupy>("occupy"), InstanceMethod<&EngineObject::decode>("decode"),
       InstanceMethod<&EngineObject::cache>("cache"), InstanceMethod<&EngineObject::cancel>("cancel"),
       InstanceMethod<&EngineObject::close>("close"), InstanceAccessor<&EngineObject::info>("info")});
  auto* constructors = new Constructors{Napi::Persistent(constructor)};
  env.SetInstanceData(constructors);  // deleted with the environment
}

Napi::Object EngineObject::wrap(Napi::Env env, std::unique_ptr<engine::Session> session) {
  const Napi::Object object = env.GetInstanceData<Constructors>()->engine.New({});
  EngineObject* self = Unwrap(object);
  self->session_ = std::move(session);
  self->state_ = self->session_->cache_state();
  return object;
}

EngineObject::EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {}

std::shared_ptr<engine::Session> EngineObject::begin(Napi::Env env) {
  if (session_ == nullptr || !closing_.empty())
    throw to_error(env, Status::error("CLOSED", "The engine is closed; open a new one."));
  if (running_)
    throw to_error(
        env, Status::error("BUSY", "The engine runs another call. Wait for it, or cancel it; calls are not queued."));
  return session_;
}

// Marks the call as running and keeps this object alive until it has ended.
std::function<void()> EngineObject::done() {
  running_ = true;
  session_->clear_cancel();
  Ref();
  return [this] {
    running_ = false;
    state_ = session_->cache_state();
    if (!closing_.empty()) {
      session_.reset();
      for (const Napi::Promise::Deferred& waiting : std::exchange(closing_, {})) waiting.Resolve(Env().Undefined());
    }
    Unref();
  };
}

Napi::Value EngineObject::reset(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = begin(env);
  const auto positive = float_array(info[0].As<Napi::Object>(), "rows");
  if (!positive.has_value()) throw Napi::TypeError::New(env, "native call: reset needs embeddings");
  const auto negative = info[1].IsObject() ? float_array(info[1].As<Napi::Object>(), "rows") : std::nullopt;
  return Task::start(
      env, env.Undefined(),
      [session, positive, negative](const Progress&) {
        return session->reset(*positive, negative.value_or(std::vector<float>{}));
      },
      [](Napi::Env e) -> Napi::Value { return e.Undefined(); }, done());
}

Napi::Value EngineObject::predict(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = begin(env);
  const auto options = info[0].As<Napi::Object>();
  const auto call = read_predict(options);
  check_chunk_sizes(env, *call, session->info(), session->action_dim());
  check_cameras(env, call->observation, session->cameras());
  return Task::start(
      env, options.Get("onProgress"),
      [session, call](const Progress& progress) {
        call->args.progress = progress;
        return session->predict(call->args, &call->chunk);
      },
      [call](Napi::Env e) { return chunk_object(e, *call); }, done());
}

namespace {

struct CommitCall {
  OwnedMoments moments;
  std::vector<float> actions;
  engine::Trace trace;
  engine::CommitArgs args;
  engine::CommitResult result;
};

std::shared_ptr<CommitCall> read_commit(const Napi::Object& options, const char* key, const engine::Session& session) {
  auto call = std::make_shared<CommitCall>();
  const auto actions = float_array(options, key);
  if (!actions.has_value())
    throw Napi::TypeError::New(options.Env(), std::string("native call: field \"") + key + "\" is missing");
  call->actions = *actions;
  call->moments = to_moments(field(options, "moments").As<Napi::Array>());
  check_cameras(options.Env(), call->moments, session.cameras());
  call->args.moments = &call->moments.moments;
  call->args.actions = call->actions.data();
  call->args.action_count = static_cast<std::int64_t>(call->actions.size()) / session.info().action_shape[0];
  return call;
}

}  // namespace

Napi::Value EngineObject::commit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = begin(env);
  const auto options = info[0].As<Napi::Object>();
  const auto call = read_commit(options, "actions", *session);
  const bool traced = boolean(options, "trace");
  if (traced) call->args.trace = &call->trace;
  return Task::start(
      env, options.Get("onProgress"),
      [session, call](const Progress& progress) {
        call->args.progress = progress;
        return session->commit(call->args, &call->result);
      },
      [call, traced](Napi::Env e) -> Napi::Value {
        Napi::Object o = commit_object(e, call->result);
        if (traced) o.Set("trace", from_trace(e, std::move(call->trace)));
        return o;
      },
      done());
}

Napi::Value EngineObject::predict_next(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = begin(env);
  const auto options = info[0].As<Napi::Object>();
  const auto call = read_predict(options);
  const auto seen = options.Get("moments").IsArray() ? read_commit(options, "executed", *session) : nullptr;
  check_chunk_sizes(env, *call, session->info(), session->action_dim());
  read_executing(options, session->info(), call.get());
  return Task::start(
      env, options.Get("onProgress"),
      [session, call, seen](const Progress& progress) {
        call->args.progress = progress;
        if (seen != nullptr) seen->args.progress = progress;
        const engine::CommitArgs* commit = seen == nullptr ? nullptr : &seen->args;
        return session->predict_next(commit, call->executing, call->args, &call->chunk);
      },
      [call](Napi::Env e) { return chunk_object(e, *call); }, done());
}

Napi::Value EngineObject::encoder_state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = begin(env);
  const std::string tag = info[0].As<Napi::String>();
  const auto bytes = std::make_shared<std::vector<std::uint8_t>>();
  return Task::start(
      env, env.Undefined(), [session, tag, bytes](const Progress&) { return session->encoder_state(tag, bytes.get()); },
      [bytes](Napi::Env e) -> Napi::Value {
        Napi::Uint8Array data = Napi::Uint8Array::New(e, bytes->size());
        std::copy(bytes->begin(), bytes->end(), data.Data());
        return data;
      },
      done());
}

namespace {

// An episode's past, copied out of JavaScript.
struct RestoreCall {
  std::vector<float> positive, negative;
  std::vector<std::vector<float>> latents, actions;
  std::vector<std::uint8_t> encoder;
  engine::RestoreArgs args;
};

std::shared_ptr<RestoreCall> read_restore(const Napi::Object& options, const engine::SessionInfo& shape) {
  auto call = std::make_shared<RestoreCall>();
  const auto rows = [&](const char* key) {
    const Napi::Value embedding = options.Get(key);
    return embedding.IsObject() ? float_array(embedding.As<Napi::Object>(), "rows") : std::nullopt;
  };
  call->positive = rows("positive").value_or(std::vector<float>{});
  call->negative = rows("negative").value_or(std::vector<float>{});
  auto encoder = field(options, "encoder").As<Napi::Uint8Array>();
  call->encoder.assign(encoder.Data(), encoder.Data() + encoder.ElementLength());
  call->args.tag = text(options, "tag");
  const auto commits = field(options, "commits").As<Napi::Array>();
  for (std::uint32_t i = 0; i < commits.Length(); ++i) {
    const auto past = commits.Get(i).As<Napi::Object>();
    const std::int64_t frames = integer(past, "frames");
    const auto latents = float_array(past, "latents"), actions = float_array(past, "actions");
    if (frames < 1 || !latents.has_value() || !actions.has_value())
      throw Napi::TypeError::New(options.Env(), "native call: a commit needs frames, latents and actions");
    check_size(options.Env(), "latents", latents,
               shape.latent_shape[0] * frames * shape.latent_shape[2] * shape.latent_shape[3]);
    check_size(options.Env(), "actions", actions, shape.action_shape[0] * frames * shape.action_shape[2]);
    call->latents.push_back(*latents);
    call->actions.push_back(*actions);
    const bool predicted = past.Get("predicted").ToBoolean();
    call->args.commits.push_back({call->latents.back().data(), call->actions.back().data(), frames, predicted});
  }
  call->args.positive = call->positive;
  call->args.negative = call->negative;
  call->args.encoder = call->encoder;
  return call;
}

}  // namespace

Napi::Value EngineObject::restore(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = begin(env);
  const auto options = info[0].As<Napi::Object>();
  const auto call = read_restore(options, session->info());
  return Task::start(
      env, options.Get("onProgress"),
      [session, call](const Progress& progress) {
        call->args.progress = progress;
        return session->restore(call->args);
      },
      [](Napi::Env e) -> Napi::Value { return e.Undefined(); }, done());
}

Napi::Value EngineObject::occupy(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = begin(env);
  return Task::start(
      env, env.Undefined(), [session](const Progress&) { return session->occupy(); },
      [](Napi::Env e) -> Napi::Value { return e.Undefined(); }, done());
}

Napi::Value EngineObject::decode(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto session = begin(env);
  const auto source = info[0].As<Napi::Float32Array>();
  const auto latents = std::make_shared<std::vector<float>>(source.Data(), source.Data() + source.ElementLength());
  const std::int64_t frames = info[1].As<Napi::Number>().Int64Value();
  struct Decoded {
    std::vector<float> pictures;
    std::int64_t shape[4];
  };
  const auto decoded = std::make_shared<Decoded>();
  return Task::start(
      env, info[2],
      [session, latents, frames, decoded](const Progress& progress) {
        const Status status = session->decode(*latents, frames, &decoded->pictures, decoded->shape);
        if (status.ok() && progress) progress("decode", frames, frames);
        return status;
      },
      [decoded](Napi::Env e) -> Napi::Value {
        Napi::Object o = Napi::Object::New(e);
        o.Set("data", from_floats(e, decoded->pictures));
        Napi::Array shape = Napi::Array::New(e, 4);
        for (std::uint32_t i = 0; i < 4; ++i) shape.Set(i, static_cast<double>(decoded->shape[i]));
        o.Set("shape", shape);
        return o;
      },
      done());
}

Napi::Value EngineObject::cache(const Napi::CallbackInfo& info) {
  Napi::Object o = Napi::Object::New(info.Env());
  o.Set("capacity", static_cast<double>(state_.counts.capacity));
  o.Set("valid", static_cast<double>(state_.counts.valid));
  o.Set("committed", static_cast<double>(state_.counts.committed));
  o.Set("predicted", static_cast<double>(state_.counts.predicted));
  std::array<char, 17> digits{};
  std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(state_.checksum));
  o.Set("checksum", std::string(digits.data()));
  return o;
}

Napi::Value EngineObject::cancel(const Napi::CallbackInfo& info) {
  if (running_ && session_ != nullptr) session_->cancel();
  return info.Env().Undefined();
}

Napi::Value EngineObject::close(const Napi::CallbackInfo& info) {
  const auto deferred = Napi::Promise::Deferred::New(info.Env());
  if (running_) {
    session_->cancel();
    closing_.push_back(deferred);
  } else {
    session_.reset();
    deferred.Resolve(info.Env().Undefined());
  }
  return deferred.Promise();
}

Napi::Value EngineObject::info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (session_ == nullptr) throw to_error(env, Status::error("CLOSED", "The engine is closed; open a new one."));
  const engine::SessionInfo about = session_->info();
  Napi::Object o = Napi::Object::New(env);
  o.Set("backend", about.backend);
  o.Set("weightBytes", static_cast<double>(about.weight_bytes));
  o.Set("cacheBytes", static_cast<double>(about.cache_bytes));
  o.Set("parameters", static_cast<double>(about.parameters));
  o.Set("textDim", static_cast<double>(about.text_dim));
  if (!about.plan_checkpoint.empty()) o.Set("planCheckpoint", about.plan_checkpoint);
  Napi::Array names = Napi::Array::New(env);
  for (const std::string& name : about.unused_tensors) names.Set(names.Length(), name);
  o.Set("unusedTensors", names);
  Napi::Array latent = Napi::Array::New(env), action = Napi::Array::New(env);
  for (std::uint32_t i = 0; i < 4; ++i) latent.Set(i, static_cast<double>(about.latent_shape[i]));
  for (std::uint32_t i = 0; i < 3; ++i) action.Set(i, static_cast<double>(about.action_shape[i]));
  o.Set("latentShape", latent);
  o.Set("actionShape", action);
  return o;
}

}  // namespace premotor::addon
