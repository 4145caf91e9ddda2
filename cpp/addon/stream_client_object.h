// NativeStreamClient of src/native.ts: the supervisor's end of the memory that it shares with premotor-stream.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/sample_block.h"
#include "motion/shared_memory.h"

namespace premotor::addon {

class StreamClientObject : public Napi::ObjectWrap<StreamClientObject> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  explicit StreamClientObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value arm(const Napi::CallbackInfo& info);
  Napi::Value disarm(const Napi::CallbackInfo& info);
  Napi::Value stop(const Napi::CallbackInfo& info);
  Napi::Value estop(const Napi::CallbackInfo& info);
  Napi::Value beat(const Napi::CallbackInfo& info);
  Napi::Value indicate(const Napi::CallbackInfo& info);
  Napi::Value push(const Napi::CallbackInfo& info);
  Napi::Value executed(const Napi::CallbackInfo& info);
  Napi::Value samples(const Napi::CallbackInfo& info);
  Napi::Value status(const Napi::CallbackInfo& info);
  Napi::Value counts(const Napi::CallbackInfo& info);
  Napi::Value loop_counts(const Napi::CallbackInfo& info);
  Napi::Value histograms(const Napi::CallbackInfo& info);
  Napi::Value warnings(const Napi::CallbackInfo& info);
  Napi::Value information(const Napi::CallbackInfo& info);
  Napi::Value is_alive(const Napi::CallbackInfo& info);
  Napi::Value now_ns(const Napi::CallbackInfo& info);
  Napi::Value detach(const Napi::CallbackInfo& info);

  // The client, or an error when this was detached.
  motion::SharedClient& client(Napi::Env env);
  void send(Napi::Env env, const motion::Command& command);
  // The newest whole report.
  const motion::StreamReport& report(Napi::Env env);

  std::unique_ptr<motion::SharedClient> client_;
  std::unique_ptr<stream::Chunk> chunk_;
  SampleBlock samples_;
  motion::StreamReport report_;
  motion::SharedInfo info_;
};

}  // namespace premotor::addon
