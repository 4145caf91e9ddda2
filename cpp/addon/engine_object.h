// NativeEngine of src/native.ts: one open session as a JavaScript object.
#pragma once

#include <napi.h>

#include <memory>

#include "engine/session.h"

namespace premotor::addon {

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static void define(Napi::Env env);
  static Napi::Object wrap(Napi::Env env, std::unique_ptr<engine::Session> session);
  explicit EngineObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value reset(const Napi::CallbackInfo& info);
  Napi::Value predict(const Napi::CallbackInfo& info);
  Napi::Value commit(const Napi::CallbackInfo& info);
  Napi::Value predict_next(const Napi::CallbackInfo& info);
  Napi::Value encoder_state(const Napi::CallbackInfo& info);
  Napi::Value restore(const Napi::CallbackInfo& info);
  Napi::Value occupy(const Napi::CallbackInfo& info);
  Napi::Value decode(const Napi::CallbackInfo& info);
  Napi::Value cache(const Napi::CallbackInfo& info);
  Napi::Value cancel(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value info(const Napi::CallbackInfo& info);

  // The session for a call that computes; throws BUSY or CLOSED. The call must end with `done`.
  std::shared_ptr<engine::Session> begin(Napi::Env env);
  std::function<void()> done();

  std::shared_ptr<engine::Session> session_;
  engine::CacheState state_;  // as of the last finished call: the cache itself belongs to the running call
  bool running_ = false;
  std::vector<Napi::Promise::Deferred> closing_;
};

}  // namespace premotor::addon
