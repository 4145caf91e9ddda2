// Between JavaScript values and the types of cpp/motion: what the in-process robot and the client of the stream process
// share. NativeMotion of src/native.ts.
#pragma once

#include <napi.h>

#include "motion/motion.h"

namespace premotor::addon {

// A BigInt field as int64 nanoseconds; a TypeError that names the field when it does not fit.
std::int64_t nanoseconds(const Napi::Object& object, const char* key);
std::int64_t nanoseconds(const Napi::Value& value, const char* name);
Napi::BigInt from_ns(Napi::Env env, std::int64_t value_ns);
std::uint64_t count64(const Napi::Value& value, const char* name);

// NativeMotionOptions
motion::MotionOptions to_motion_options(const Napi::Object& object);
// NativePlan, [knot, joint] rad
void to_chunk(const Napi::Object& plan, int joints, stream::Chunk* out);
motion::StopCategory to_stop_category(const Napi::Value& value);
// Number of an indication (protocol/README.md).
pm_indication to_indication(const Napi::Value& value);

// planMove(joints, fromRad, toRad, knotNs): knots [knot, joint] of a move from rest to rest in which every joint
// arrives at the same time within its limits; the last knot is the target, bit for bit.
Napi::Value plan_move(const Napi::CallbackInfo& info);

Napi::Object from_executed(Napi::Env env, const stream::Executed& one, int joints);
Napi::Object from_status(Napi::Env env, const motion::MotionStatus& status, int joints);
Napi::Object from_counts(Napi::Env env, const stream::StreamCounts& counts);
// NativeHistogram: percentiles in nanoseconds, and every bucket.
Napi::Object from_histogram(Napi::Env env, const stream::Histogram& histogram);

}  // namespace premotor::addon
