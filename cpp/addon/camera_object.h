// NativeCamera of src/native.ts: one Linux camera that keeps its newest frames. Every call returns at once, on the
// event loop; opening, closing and the wait for a frame settle a promise.
#pragma once

#include <napi.h>

#include <memory>

#include "camera/capture.h"

namespace premotor::addon {

class CameraObject : public Napi::ObjectWrap<CameraObject> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  explicit CameraObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value agreed(const Napi::CallbackInfo& info);
  Napi::Value frames(const Napi::CallbackInfo& info);
  Napi::Value wait(const Napi::CallbackInfo& info);
  Napi::Value counts(const Napi::CallbackInfo& info);
  Napi::Value check(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<camera::Capture> capture_;
};

}  // namespace premotor::addon
