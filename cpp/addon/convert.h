// Between JavaScript values and the engine's types. Node-API only; nothing here computes.
#pragma once

#include <napi.h>

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/session.h"

namespace premotor::addon {

// A JavaScript Error with code, file, tensor, expected and found of a Status.
Napi::Error to_error(Napi::Env env, const Status& status);

// Field access with a TypeError that names the field.
Napi::Value field(const Napi::Object& object, const char* key);
std::int64_t integer(const Napi::Object& object, const char* key);
double number(const Napi::Object& object, const char* key);
bool boolean(const Napi::Object& object, const char* key);
std::string text(const Napi::Object& object, const char* key);
std::vector<std::int64_t> integers(const Napi::Object& object, const char* key);
std::vector<float> floats(const Napi::Object& object, const char* key);
// A copy of a Float32Array field, or nothing when it is undefined or null.
std::optional<std::vector<float>> float_array(const Napi::Object& object, const char* key);

engine::WeightPrecision to_precision(const std::string& name);
ops::Dtype to_cache_dtype(const std::string& name);
engine::JobConfig to_job(const Napi::Object& object);

// Pictures copied out of JavaScript memory, so that the caller may reuse its buffers while the engine runs.
struct OwnedMoments {
  std::vector<std::vector<std::uint8_t>> bytes;
  std::vector<engine::Moment> moments;
};
// frames: NativeFrame[] of one moment, appended.
void append_moment(const Napi::Array& frames, OwnedMoments* out);
OwnedMoments to_moments(const Napi::Array& moments);

Napi::Object from_timing(Napi::Env env, const engine::Timing& timing);
Napi::Object from_trace(Napi::Env env, engine::Trace&& trace);
Napi::Float32Array from_floats(Napi::Env env, const std::vector<float>& values);

}  // namespace premotor::addon
