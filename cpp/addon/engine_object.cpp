#include "addon/engine_object.h"

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
  std::optional<std::vector<float>> noise_video, noise_action, noise_imagined, executed, executing;
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
  if (options.Get("videoSteps").IsNumber()) call->args.video_steps = integer(options, "videoSteps");
  if (options.Get("actionSteps").IsNumber()) call->args.action_steps = integer(options, "actionSteps");
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

void check_noise(Napi::Env env, const PredictCall& call, const engine::SessionInfo& info, std::int64_t action_dim) {
  const std::int64_t video = info.latent_shape[0] * info.latent_shape[1] * info.latent_shape[2] * info.latent_shape[3];
  const std::int64_t action = action_dim * info.action_shape[1] * info.action_shape[2];
  check_size(env, "noiseVideo", call.noise_video, video);
  check_size(env, "noiseImagined", call.noise_imagined, video);
  check_size(env, "noiseAction", call.noise_action, action);
}

void check_cameras(Napi::Env env, const OwnedMoments& owned, std::int64_t cameras) {
  for (const engine::Moment& moment : owned.moments)
    if (static_cast<std::int64_t>(moment.size()) != cameras)
      throw Napi::TypeError::New(env, "native call: a moment needs " + std::to_string(cameras) + " pictures");
}

Napi::Value chunk_object(Napi::Env env, PredictCall& call) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("actions", from_floats(env, call.chunk.actions));
  o.Set("latents", from_floats(env, call.chunk.latents));
  o.Set("frameIndex", static_cast<double>(call.chunk.frame_index));
  o.Set("timing", from_timing(env, call.chunk.timing));
  if (call.traced) o.Set("trace", from_trace(env, std::move(call.trace)));
  return o;
}

}  // namespace

void EngineObject::define(Napi::Env env) {
  const Napi::Function constructor = DefineClass(
      env, "NativeEngine",
      {InstanceMethod<&EngineObject::reset>("reset"), InstanceMethod<&EngineObject::predict>("predict"),
       InstanceMethod<&EngineObject::commit>("commit"), InstanceMethod<&EngineObject::predict_next>("predictNext"),
       InstanceMethod<&EngineObject::decode>("decode"), InstanceMethod<&EngineObject::cache>("cache"),
       InstanceMethod<&EngineObject::cancel>("cancel"), InstanceMethod<&EngineObject::close>("close"),
       InstanceAccessor<&EngineObject::info>("info")});
  auto* constructors = new Constructors{Napi::Persistent(constructor)};
  env.SetInstanceData(constructors);  // deleted with the environment
}

Napi::Object EngineObject::wrap(Napi::Env env, std::unique_ptr<engine::Session> session) {
  const Napi::Object object = env.GetInstanceData<Constructors>()->engine.New({});
  EngineObject* self = Unwrap(object);
  self->session_ = std::move(session);
  self->counts_ = self->session_->cache_counts();
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
    counts_ = session_->cache_counts();
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
  check_noise(env, *call, session->info(), session->action_dim());
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
        Napi::Object o = Napi::Object::New(e);
        o.Set("frameIndex", static_cast<double>(call->result.frame_index));
        o.Set("timing", from_timing(e, call->result.timing));
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
  const auto seen = read_commit(options, "executed", *session);
  check_noise(env, *call, session->info(), session->action_dim());
  const engine::SessionInfo shape = session->info();
  call->executing = float_array(options, "executing");
  if (!call->executing.has_value()) throw Napi::TypeError::New(env, "native call: field \"executing\" is missing");
  check_size(env, "executing", call->executing, shape.action_shape[0] * shape.action_shape[1] * shape.action_shape[2]);
  return Task::start(
      env, options.Get("onProgress"),
      [session, call, seen](const Progress& progress) {
        call->args.progress = progress;
        seen->args.progress = progress;
        return session->predict_next(seen->args, call->executing->data(), call->args, &call->chunk);
      },
      [call](Napi::Env e) { return chunk_object(e, *call); }, done());
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
  o.Set("capacity", static_cast<double>(counts_.capacity));
  o.Set("valid", static_cast<double>(counts_.valid));
  o.Set("committed", static_cast<double>(counts_.committed));
  o.Set("predicted", static_cast<double>(counts_.predicted));
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
