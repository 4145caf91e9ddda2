#include "addon/convert.h"

#include <cstring>

namespace premotor::addon {

Napi::Error to_error(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message);
  error.Set("code", Napi::String::New(env, status.code));
  const auto set = [&](const char* key, const std::string& value) {
    if (!value.empty()) error.Set(key, Napi::String::New(env, value));
  };
  set("file", status.file);
  set("tensor", status.tensor);
  set("expected", status.expected);
  set("found", status.found);
  return error;
}

Napi::Value field(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (value.IsUndefined())
    throw Napi::TypeError::New(object.Env(), std::string("native call: field \"") + key + "\" is missing");
  return value;
}

double number(const Napi::Object& object, const char* key) {
  const Napi::Value value = field(object, key);
  if (!value.IsNumber())
    throw Napi::TypeError::New(object.Env(), std::string("native call: field \"") + key + "\" is no number");
  return value.As<Napi::Number>().DoubleValue();
}

std::int64_t integer(const Napi::Object& object, const char* key) {
  return static_cast<std::int64_t>(number(object, key));
}
bool boolean(const Napi::Object& object, const char* key) { return field(object, key).ToBoolean().Value(); }
std::string text(const Napi::Object& object, const char* key) { return field(object, key).ToString().Utf8Value(); }

std::vector<std::int64_t> integers(const Napi::Object& object, const char* key) {
  const auto array = field(object, key).As<Napi::Array>();
  std::vector<std::int64_t> values;
  for (std::uint32_t i = 0; i < array.Length(); ++i) values.push_back(array.Get(i).As<Napi::Number>().Int64Value());
  return values;
}

std::vector<float> floats(const Napi::Object& object, const char* key) {
  const auto array = field(object, key).As<Napi::Array>();
  std::vector<float> values;
  for (std::uint32_t i = 0; i < array.Length(); ++i) values.push_back(array.Get(i).As<Napi::Number>().FloatValue());
  return values;
}

std::optional<std::vector<float>> float_array(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (value.IsUndefined() || value.IsNull()) return std::nullopt;
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array)
    throw Napi::TypeError::New(object.Env(), std::string("native call: field \"") + key + "\" is no Float32Array");
  const auto array = value.As<Napi::Float32Array>();
  return std::vector<float>(array.Data(), array.Data() + array.ElementLength());
}

engine::WeightPrecision to_precision(const std::string& name) {
  if (name == "bf16") return engine::WeightPrecision::bf16;
  if (name == "int8") return engine::WeightPrecision::int8;
  // The group that keeps most of the accuracy; what it costs is in docs/PRECISION.md.
  return name == "int4" ? engine::WeightPrecision::int4_32 : engine::WeightPrecision::f32;
}

ops::Dtype to_cache_dtype(const std::string& name) {
  if (name == "int8") return ops::Dtype::int8;
  return name == "bf16" ? ops::Dtype::bf16 : ops::Dtype::f32;
}

engine::JobConfig to_job(const Napi::Object& o) {
  engine::JobConfig job;
  job.deployed_bf16 = boolean(o, "deployedBf16");
  job.input_cast = boolean(o, "inputCast");
  job.i2va = boolean(o, "i2va");
  job.tshape = boolean(o, "tshape");
  job.cameras = integer(o, "cameras");
  job.guidance_scale = static_cast<float>(number(o, "guidanceScale"));
  job.action_guidance_scale = static_cast<float>(number(o, "actionGuidanceScale"));
  job.video_steps = integer(o, "videoSteps");
  job.video_exec_step = integer(o, "videoExecStep");
  job.action_steps = integer(o, "actionSteps");
  job.snr_shift = static_cast<float>(number(o, "snrShift"));
  job.action_snr_shift = static_cast<float>(number(o, "actionSnrShift"));
  job.used_channels = integers(o, "usedActionChannelIds");
  job.q01 = floats(o, "q01");
  job.q99 = floats(o, "q99");
  job.attn_window = integer(o, "attnWindow");
  job.height = integer(o, "height");
  job.width = integer(o, "width");
  job.frame_chunk_size = integer(o, "frameChunkSize");
  job.action_per_frame = integer(o, "actionPerFrame");
  job.imagine_steps = integer(o, "imagineSteps");
  job.text_rows = integer(o, "textRows");
  return job;
}

void append_moment(const Napi::Array& frames, OwnedMoments* out) {
  engine::Moment moment;
  for (std::uint32_t i = 0; i < frames.Length(); ++i) {
    const auto frame = frames.Get(i).As<Napi::Object>();
    const auto data = field(frame, "data").As<Napi::Uint8Array>();
    const std::int64_t width = integer(frame, "width"), height = integer(frame, "height");
    if (width < 1 || height < 1 || static_cast<std::int64_t>(data.ElementLength()) != width * height * 3)
      throw Napi::TypeError::New(frames.Env(), "native call: a picture needs width * height * 3 bytes");
    out->bytes.emplace_back(data.Data(), data.Data() + data.ElementLength());
    moment.push_back({nullptr, width, height});
  }
  out->moments.push_back(std::move(moment));
  std::size_t at = 0;  // the outer vector may have moved, the pictures' own memory does not; set every pointer anew
  for (engine::Moment& each : out->moments)
    for (engine::Picture& picture : each) picture.rgb = out->bytes[at++].data();
}

OwnedMoments to_moments(const Napi::Array& moments) {
  OwnedMoments owned;
  for (std::uint32_t i = 0; i < moments.Length(); ++i) append_moment(moments.Get(i).As<Napi::Array>(), &owned);
  return owned;
}

Napi::Object from_timing(Napi::Env env, const engine::Timing& timing) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("encodeMs", timing.encode_ms);
  o.Set("videoMs", timing.video_ms);
  o.Set("actionMs", timing.action_ms);
  o.Set("commitMs", timing.commit_ms);
  o.Set("imagineMs", timing.imagine_ms);
  o.Set("totalMs", timing.total_ms);
  o.Set("videoPasses", static_cast<double>(timing.video_passes));
  o.Set("actionPasses", static_cast<double>(timing.action_passes));
  return o;
}

Napi::Float32Array from_floats(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
  return array;
}

Napi::Object from_trace(Napi::Env env, engine::Trace&& trace) {
  Napi::Object all = Napi::Object::New(env);
  for (const auto& [name, tensor] : trace.tensors()) {
    Napi::Object o = Napi::Object::New(env);
    Napi::Array shape = Napi::Array::New(env, tensor.shape.size());
    for (std::uint32_t i = 0; i < tensor.shape.size(); ++i) shape.Set(i, static_cast<double>(tensor.shape[i]));
    o.Set("shape", shape);
    if (const auto* values = std::get_if<std::vector<float>>(&tensor.data)) {
      o.Set("dtype", "float32");
      o.Set("data", from_floats(env, *values));
    } else if (const auto* numbers = std::get_if<std::vector<std::int32_t>>(&tensor.data)) {
      Napi::Int32Array array = Napi::Int32Array::New(env, numbers->size());
      std::copy(numbers->begin(), numbers->end(), array.Data());
      o.Set("dtype", "int32");
      o.Set("data", array);
    } else {
      const auto& bytes = std::get<std::vector<std::uint8_t>>(tensor.data);
      Napi::Uint8Array array = Napi::Uint8Array::New(env, bytes.size());
      std::copy(bytes.begin(), bytes.end(), array.Data());
      o.Set("dtype", "uint8");
      o.Set("data", array);
    }
    all.Set(name, o);
  }
  return all;
}

}  // namespace premotor::addon
