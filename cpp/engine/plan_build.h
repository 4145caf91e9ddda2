// Building a plan: everything that opening a checkpoint would convert, pack and compute, written to one file.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/plan_format.h"
#include "engine/session.h"

namespace premotor::engine {

struct PlanBuildOptions {
  SessionOptions session;       // its plan is ignored
  std::string file;             // to write
  std::string tool;             // version of premotor
  std::string checkpoint_hash;  // the supervisor's
  // Denoising steps beside the job's whose timesteps are worth a table: those of a ladder.
  std::vector<std::int64_t> video_steps, action_steps;
  bool tune = true;                 // measure how products are best cut with so many threads, on this machine
  std::vector<PlanTuning> tunings;  // what was found before: taken as it is, for this processor and as many threads
  // ("pack", weights done, weights), ("tables", timesteps done, timesteps), ("tune", products done, products)
  ProgressCallback progress;
  const std::atomic<bool>* cancel = nullptr;
};

struct PlanBuildResult {
  std::int64_t size_bytes = 0;
  std::int64_t tensors = 0, tables = 0;
  PlanArena arena;
};

// Errors: those of Session::open, FILE_WRITE, ABORTED. A file that is there is replaced only by a whole one.
Status build_plan(const PlanBuildOptions& options, PlanBuildResult* out);

}  // namespace premotor::engine
