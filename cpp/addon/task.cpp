#include "addon/task.h"

#include <exception>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "addon/convert.h"

namespace premotor::addon {
namespace {

struct Running {
  Napi::Promise::Deferred deferred;
  Task::Work work;
  Task::Result result;
  Task::Finally finally;
  Napi::FunctionReference on_progress;
  Napi::ThreadSafeFunction loop;
  Status status;
};

struct Report {
  std::string stage;
  std::int64_t done, total;
};

void settle(Napi::Env env, Running* running) {
  const std::unique_ptr<Running> owner(running);
  running->loop.Release();
  if (running->finally) running->finally();
  const Napi::HandleScope scope(env);
  if (!running->status.ok()) {
    running->deferred.Reject(to_error(env, running->status).Value());
    return;
  }
  try {
    running->deferred.Resolve(running->result(env));
  } catch (const Napi::Error& error) {
    running->deferred.Reject(error.Value());
  }
}

Status run_guarded(const Task::Work& work, const Progress& progress) {
  try {
    return work(progress);
  } catch (const std::bad_alloc&) {
    return Status::error(
        "OUT_OF_MEMORY",
        "This system does not give the memory that the call needs. Use precision bf16, a smaller job, or a "
        "machine with more memory.");
  } catch (const std::exception& error) {
    return Status::error("INTERNAL", std::string("An unexpected failure inside the engine: ") + error.what());
  }
}

}  // namespace

Napi::Promise Task::start(Napi::Env env, const Napi::Value& on_progress, Work work, Result result, Finally finally) {
  auto* running = new Running{
      Napi::Promise::Deferred::New(env), std::move(work), std::move(result), std::move(finally), {}, {}, {}};
  const bool reports = on_progress.IsFunction();
  if (reports) running->on_progress = Napi::Persistent(on_progress.As<Napi::Function>());
  running->loop =
      Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "premotor", 0, 1);
  const Napi::Promise promise = running->deferred.Promise();
  std::thread([running, reports] {
    const Progress progress = [running](const char* stage, std::int64_t done, std::int64_t total) {
      auto* report = new Report{stage, done, total};
      const auto call = [running](Napi::Env env, Napi::Function, Report* data) {
        const std::unique_ptr<Report> owner(data);
        if (env == nullptr) return;
        const Napi::HandleScope scope(env);
        try {
          running->on_progress.Call({Napi::String::New(env, data->stage),
                                     Napi::Number::New(env, static_cast<double>(data->done)),
                                     Napi::Number::New(env, static_cast<double>(data->total))});
        } catch (const Napi::Error&) {
          // A listener's failure must not end the prediction; the listener is the caller's own code.
        }
      };
      if (running->loop.NonBlockingCall(report, call) != napi_ok) delete report;
    };
    running->status = run_guarded(running->work, reports ? progress : Progress{});
    running->loop.BlockingCall(running, [](Napi::Env env, Napi::Function, Running* data) {
      if (env != nullptr) settle(env, data);
    });
  }).detach();
  return promise;
}

}  // namespace premotor::addon
