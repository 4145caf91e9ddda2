// NativeSamples of src/native.ts: arrays that are made once, filled with what the motors did since the last call.
#pragma once

#include <napi.h>

#include <limits>

#include "motion/sample_ring.h"

namespace premotor::addon {

class SampleBlock {
 public:
  void open(Napi::Env env, int joints);

  // `next(MotionSample*)` gives the oldest one that was not taken yet, or false; `lost()` counts. At most a ring: a
  // stream that goes on meanwhile does not keep this call.
  template <typename Next, typename Lost>
  Napi::Value fill(const Next& next, const Lost& lost) {
    motion::MotionSample sample;
    std::size_t count = 0;
    while (count < static_cast<std::size_t>(motion::kSamplesMax) && next(&sample)) put(count++, sample);
    return close(count, lost());
  }

 private:
  void put(std::size_t at, const motion::MotionSample& sample);
  Napi::Value close(std::size_t count, std::uint64_t lost);

  std::size_t joints_ = 0;
  Napi::ObjectReference object_;
  // Of the arrays in the object, which keeps them.
  std::int64_t* times_ns_ = nullptr;
  std::int64_t* measured_ns_ = nullptr;
  std::uint8_t* has_setpoint_ = nullptr;
  double* setpoints_ = nullptr;   // [sample, joint] rad
  double* positions_ = nullptr;   // [sample, joint] rad
  double* velocities_ = nullptr;  // [sample, joint] rad/s
};

}  // namespace premotor::addon
