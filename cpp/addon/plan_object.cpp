#include "addon/plan_object.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>

#include "addon/convert.h"
#include "addon/task.h"
#include "engine/pass_outline.h"
#include "engine/plan_build.h"
#include "engine/plan_file.h"
#include "ops/cpu/ceilings.h"
#include "ops/cpu/cpu_ops.h"

namespace premotor::addon {
namespace {

// {done: Promise, cancel()}: a task that can be stopped.
Napi::Object stoppable(Napi::Env env, const std::shared_ptr<std::atomic<bool>>& cancel, const Napi::Promise& done) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("done", done);
  o.Set("cancel", Napi::Function::New(env, [cancel](const Napi::CallbackInfo& info) -> Napi::Value {
          cancel->store(true);
          return info.Env().Undefined();
        }));
  return o;
}

Napi::Value build_plan(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  const auto options = std::make_shared<engine::PlanBuildOptions>();
  options->session.checkpoint = text(given, "checkpoint");
  options->session.job = to_job(field(given, "job").As<Napi::Object>());
  options->session.precision = to_precision(text(given, "precision"));
  options->session.cache = to_cache_dtype(text(given, "kvCache"));
  options->session.threads = static_cast<int>(integer(given, "threads"));
  options->file = text(given, "file");
  options->tool = text(given, "tool");
  options->checkpoint_hash = text(given, "checkpointHash");
  options->video_steps = integers(given, "videoSteps");
  options->action_steps = integers(given, "actionSteps");
  options->tune = boolean(given, "tune");
  const std::string tactics = text(given, "tactics"), tactics_file = text(given, "tacticsFile");
  const auto cancel = std::make_shared<std::atomic<bool>>(false);
  const auto result = std::make_shared<engine::PlanBuildResult>();
  return stoppable(info.Env(), cancel,
                   Task::start(
                       info.Env(), given.Get("onProgress"),
                       [options, cancel, result, tactics, tactics_file](const Progress& progress) {
                         if (!tactics.empty())
                           PREMOTOR_TRY(engine::parse_tunings(tactics, tactics_file, &options->tunings));
                         options->progress = progress;
                         options->cancel = cancel.get();
                         return engine::build_plan(*options, result.get());
                       },
                       [result](Napi::Env env) -> Napi::Value {
                         Napi::Object o = Napi::Object::New(env);
                         o.Set("bytes", static_cast<double>(result->size_bytes));
                         o.Set("tensors", static_cast<double>(result->tensors));
                         o.Set("tables", static_cast<double>(result->tables));
                         return o;
                       }));
}

Napi::Value verify_plan(const Napi::CallbackInfo& info) {
  const std::string file = info[0].ToString().Utf8Value();
  const auto cancel = std::make_shared<std::atomic<bool>>(false);
  return stoppable(info.Env(), cancel,
                   Task::start(
                       info.Env(), info[1],
                       [file, cancel](const Progress& progress) {
                         std::unique_ptr<engine::PlanFile> plan;
                         PREMOTOR_TRY(engine::PlanFile::open(file, &plan));
                         return plan->verify(
                             [&progress](std::int64_t done, std::int64_t total) {
                               if (progress) progress("check", done, total);
                             },
                             cancel.get());
                       },
                       [](Napi::Env env) -> Napi::Value { return env.Undefined(); }));
}

Napi::Value plan_directory(const Napi::CallbackInfo& info) {
  const std::string file = info[0].ToString().Utf8Value();
  const auto directory = std::make_shared<std::string>();
  const auto bytes = std::make_shared<std::uint64_t>(0);
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [file, directory, bytes](const Progress&) {
        std::unique_ptr<engine::PlanFile> plan;
        PREMOTOR_TRY(engine::PlanFile::open(file, &plan));
        *directory = plan->contents().directory;
        *bytes = plan->size_bytes();
        return Status::good();
      },
      [directory, bytes](Napi::Env env) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("json", *directory);
        o.Set("bytes", static_cast<double>(*bytes));
        return o;
      });
}

// The passes of a checkpoint of which config.json is enough, as the JSON text that a plan has.
Napi::Value outline_checkpoint(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  const auto session = std::make_shared<engine::SessionOptions>();
  session->checkpoint = text(given, "checkpoint");
  session->job = to_job(field(given, "job").As<Napi::Object>());
  session->precision = to_precision(text(given, "precision"));
  session->cache = to_cache_dtype(text(given, "kvCache"));
  const ops::Dtype stored = text(given, "stored") == "bf16" ? ops::Dtype::bf16 : ops::Dtype::f32;
  const auto json = std::make_shared<std::string>();
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [session, stored, json](const Progress&) {
        std::vector<engine::PassOutline> passes;
        PREMOTOR_TRY(engine::outline_sketch(*session, stored, ops::CpuOps(1), &passes));
        *json = engine::outline_json(passes);
        return Status::good();
      },
      [json](Napi::Env env) -> Napi::Value { return Napi::String::New(env, *json); });
}

// The processor as a plan's tuning has it, and as many threads of those that were asked for as a session takes.
Napi::Value tuned_for(const Napi::CallbackInfo& info) {
  const auto asked = static_cast<int>(info[0].ToNumber().Int64Value());
  Napi::Object o = Napi::Object::New(info.Env());
  o.Set("processor", ops::CpuOps(1).processor());
  o.Set("threads", std::min(asked, ThreadPool::usable_cores()));
  return o;
}

Napi::Value measure_ceilings(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  const int threads = static_cast<int>(integer(options, "threads"));
  const double seconds = number(options, "seconds");
  const std::int64_t bytes = std::max<std::int64_t>(integer(options, "bytes"), 1 << 16);
  struct Found {
    ops::ceilings::Bandwidth bandwidth;
    ops::ceilings::Peaks peaks;
  };
  const auto found = std::make_shared<Found>();
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [found, threads, seconds, bytes](const Progress&) {
        constexpr int kTries = 3;
        found->bandwidth = ops::ceilings::bandwidth(threads, bytes, kTries);
        found->peaks = ops::ceilings::peaks(ops::cpu_packed_kernels(), threads, kTries, seconds);
        return Status::good();
      },
      [found](Napi::Env env) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("gigabytesPerSecond", found->bandwidth.best());
        o.Set("f32", found->peaks.f32);
        o.Set("bf16Dot", found->peaks.bf16_dot);
        o.Set("int8Dot", found->peaks.int8_dot);
        return o;
      });
}

}  // namespace

void define_plans(Napi::Env env, Napi::Object exports) {
  exports.Set("buildPlan", Napi::Function::New(env, build_plan));
  exports.Set("verifyPlan", Napi::Function::New(env, verify_plan));
  exports.Set("planDirectory", Napi::Function::New(env, plan_directory));
  exports.Set("outlineCheckpoint", Napi::Function::New(env, outline_checkpoint));
  exports.Set("tunedFor", Napi::Function::New(env, tuned_for));
  exports.Set("ceilings", Napi::Function::New(env, measure_ceilings));
}

}  // namespace premotor::addon
