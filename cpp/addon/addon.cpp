// The addon's exports: NativeModule of src/native.ts.
#include <napi.h>

#include <atomic>
#include <memory>
#include <string>

#include "addon/camera_object.h"
#include "addon/can_object.h"
#include "addon/convert.h"
#include "addon/engine_object.h"
#include "addon/kinematics_object.h"
#include "addon/motion_convert.h"
#include "addon/plan_object.h"
#include "addon/stream_client_object.h"
#include "addon/task.h"
#include "addon/virtual_robot_object.h"
#include "base/datagram.h"
#include "base/philox.h"
#include "engine/device_library.h"
#include "engine/inspect.h"
#include "engine/text_encoder.h"
#include "ops/cpu/cpu_ops.h"

namespace premotor::addon {
namespace {

Napi::Value open_engine(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  const auto request = std::make_shared<engine::SessionOptions>();
  request->checkpoint = text(options, "checkpoint");
  request->job = to_job(field(options, "job").As<Napi::Object>());
  request->precision = to_precision(text(options, "precision"));
  request->cache = to_cache_dtype(text(options, "kvCache"));
  request->threads = static_cast<int>(integer(options, "threads"));
  if (options.Get("plan").IsString()) request->plan = text(options, "plan");
  const bool on_device = options.Get("deviceLibrary").IsString();
  const std::string library = on_device ? text(options, "deviceLibrary") : "";
  const auto session = std::make_shared<std::unique_ptr<engine::Session>>();
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [request, session, library](const Progress&) {
        if (!library.empty()) {
          std::unique_ptr<device::Device> device;
          PREMOTOR_TRY(engine::open_device(library, 0, &device));
          request->device = std::move(device);
        }
        return engine::Session::open(*request, session.get());
      },
      [session](Napi::Env env) -> Napi::Value { return EngineObject::wrap(env, std::move(*session)); });
}

Napi::Value encode_text(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  const auto ids = field(options, "ids").As<Napi::Int32Array>();
  struct Call {
    std::string folder;
    std::vector<std::int32_t> ids;
    engine::WeightPrecision precision;
    ops::Rounding rounding;
    int threads;
    std::vector<float> hidden;
  };
  const auto call = std::make_shared<Call>();
  call->folder = text(options, "folder");
  call->ids.assign(ids.Data(), ids.Data() + ids.ElementLength());
  call->precision = to_precision(text(options, "precision"));
  call->rounding = boolean(options, "deployedBf16") ? ops::Rounding::bf16 : ops::Rounding::none;
  call->threads = static_cast<int>(integer(options, "threads"));
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [call](const Progress&) {
        ops::CpuOps backend(call->threads);
        std::unique_ptr<engine::TextEncoder> encoder;
        PREMOTOR_TRY(engine::TextEncoder::open(call->folder, call->precision, call->rounding, backend, &encoder));
        return encoder->encode(call->ids, &call->hidden);
      },
      [call](Napi::Env env) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("rows", from_floats(env, call->hidden));
        o.Set("count", static_cast<double>(call->ids.size()));
        return o;
      });
}

Napi::Value noise(const Napi::CallbackInfo& info) {
  bool lossless = false;
  const std::uint64_t seed = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  const std::uint32_t stream = info[1].As<Napi::Number>().Uint32Value(),
                      frame = info[2].As<Napi::Number>().Uint32Value();
  const std::int64_t count = info[3].As<Napi::Number>().Int64Value();
  if (stream > 2 || count < 0 || count > (std::int64_t{1} << 32))
    throw Napi::TypeError::New(info.Env(), "native call: noise needs a stream of 0 .. 2 and a count of 0 .. 2^32");
  Napi::Float32Array values = Napi::Float32Array::New(info.Env(), static_cast<std::size_t>(count));
  standard_normal(seed, static_cast<NoiseStream>(stream), frame, values.Data(), count);
  return values;
}

Napi::Value cpu(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object o = Napi::Object::New(env);
  o.Set("name", ops::cpu_kernels().name);
  Napi::Array features = Napi::Array::New(env);
#if defined(__x86_64__)
  __builtin_cpu_init();
  const std::pair<const char*, bool> known[] = {{"avx2", __builtin_cpu_supports("avx2") != 0},
                                                {"fma", __builtin_cpu_supports("fma") != 0},
                                                {"avx512f", __builtin_cpu_supports("avx512f") != 0},
                                                {"avx512bw", __builtin_cpu_supports("avx512bw") != 0},
                                                {"avx512vnni", __builtin_cpu_supports("avx512vnni") != 0},
                                                {"avx512bf16", __builtin_cpu_supports("avx512bf16") != 0}};
  for (const auto& [name, present] : known)
    if (present) features.Set(features.Length(), name);
#endif
  o.Set("features", features);
  return o;
}

Napi::Object component_object(Napi::Env env, const engine::ComponentInspection& part) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("name", part.name);
  o.Set("present", part.present);
  const auto parse = env.Global().Get("JSON").As<Napi::Object>().Get("parse").As<Napi::Function>();
  o.Set("config", part.config_json.empty() ? env.Null() : parse.Call({Napi::String::New(env, part.config_json)}));
  Napi::Array files = Napi::Array::New(env), tensors = Napi::Array::New(env), problems = Napi::Array::New(env);
  for (const auto& file : part.files) {
    Napi::Object f = Napi::Object::New(env);
    f.Set("path", file.path);
    f.Set("bytes", static_cast<double>(file.size_bytes));
    files.Set(files.Length(), f);
  }
  for (const auto& tensor : part.tensors) {
    Napi::Object t = Napi::Object::New(env);
    t.Set("name", tensor.name);
    t.Set("dtype", tensor.dtype);
    Napi::Array shape = Napi::Array::New(env);
    for (const std::int64_t size : tensor.shape) shape.Set(shape.Length(), static_cast<double>(size));
    t.Set("shape", shape);
    t.Set("bytes", static_cast<double>(tensor.size_bytes));
    t.Set("used", tensor.used);
    tensors.Set(tensors.Length(), t);
  }
  for (const Status& problem : part.problems) {
    Napi::Object p = Napi::Object::New(env);
    p.Set("code", problem.code);
    p.Set("message", problem.message);
    problems.Set(problems.Length(), p);
  }
  o.Set("files", files);
  o.Set("tensors", tensors);
  o.Set("problems", problems);
  o.Set("parameters", static_cast<double>(part.parameters));
  o.Set("bytes", static_cast<double>(part.size_bytes));
  return o;
}

Napi::Value inspect(const Napi::CallbackInfo& info) {
  const std::string folder = info[0].ToString().Utf8Value();
  const auto inspection = std::make_shared<engine::Inspection>();
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [folder, inspection](const Progress&) { return engine::inspect_checkpoint(folder, inspection.get()); },
      [inspection](Napi::Env env) -> Napi::Value {
        Napi::Array components = Napi::Array::New(env);
        for (const auto& part : inspection->components)
          components.Set(components.Length(), component_object(env, part));
        Napi::Object o = Napi::Object::New(env);
        o.Set("components", components);
        return o;
      });
}

// notify(address, text): a datagram to the service manager.
void notify(const Napi::CallbackInfo& info) {
  const Status status = send_datagram(info[0].ToString().Utf8Value(), info[1].ToString().Utf8Value());
  if (!status.ok()) throw to_error(info.Env(), status);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  EngineObject::define(env);
  VirtualRobotObject::define(env, exports);
  CameraObject::define(env, exports);
  StreamClientObject::define(env, exports);
  exports.Set("openEngine", Napi::Function::New(env, open_engine));
  exports.Set("encodeText", Napi::Function::New(env, encode_text));
  exports.Set("inspect", Napi::Function::New(env, inspect));
  exports.Set("noise", Napi::Function::New(env, noise));
  exports.Set("notify", Napi::Function::New(env, notify));
  exports.Set("cpu", Napi::Function::New(env, cpu));
  exports.Set("planMove", Napi::Function::New(env, plan_move));
  define_plans(env, exports);
  exports.Set("Chain", KinematicsObject::define(env));
  exports.Set("CanBus", CanObject::define(env));
  return exports;
}

NODE_API_MODULE(premotor, init)

}  // namespace
}  // namespace premotor::addon
