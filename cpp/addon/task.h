// One native call that computes: runs on a thread of its own and settles a promise on the event loop. The thread is
// detached from libuv's pool, so that a prediction of seconds never starves file or network work.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>

#include "base/status.h"
#include "engine/session.h"

namespace premotor::addon {

// Reports (stage, done, total) to JavaScript from any thread.
using Progress = engine::ProgressCallback;

class Task {
 public:
  using Work = std::function<Status(const Progress& progress)>;  // on the task's thread
  using Result = std::function<Napi::Value(Napi::Env env)>;      // on the event loop, after success
  using Finally = std::function<void()>;                         // on the event loop, before the promise settles

  // Starts the task. `on_progress` may be undefined. Exceptions of `work` become OUT_OF_MEMORY or INTERNAL errors.
  static Napi::Promise start(Napi::Env env, const Napi::Value& on_progress, Work work, Result result,
                             Finally finally = {});
};

}  // namespace premotor::addon
