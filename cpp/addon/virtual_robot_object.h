// NativeVirtualRobot of src/native.ts: the whole motion path in this process and in virtual time.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/sample_block.h"
#include "rig/virtual_robot.h"

namespace premotor::addon {

class VirtualRobotObject : public Napi::ObjectWrap<VirtualRobotObject> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  explicit VirtualRobotObject(const Napi::CallbackInfo& info);

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
  Napi::Value bridge_counts(const Napi::CallbackInfo& info);
  Napi::Value advance(const Napi::CallbackInfo& info);
  Napi::Value inject(const Napi::CallbackInfo& info);

  std::unique_ptr<rig::VirtualRobot> robot_;
  std::unique_ptr<stream::Chunk> chunk_;
  SampleBlock samples_;
  int joints_ = 0;
};

}  // namespace premotor::addon
