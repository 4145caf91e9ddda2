// Tuning a plan: how the products of its passes are best cut on this machine, measured over its own weights. Speed
// alone depends on what is found.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "engine/pass_outline.h"
#include "engine/plan_file.h"
#include "ops/cpu/cpu_ops.h"

namespace premotor::engine {

struct PlanTuningOptions {
  // Found before: taken where processor, threads, product and rows are the same, and never measured again.
  std::vector<PlanTuning> tunings;
  bool measures = true;  // what was not found before
  double seconds = 4;    // for all products together; what there is no time for keeps the rule
  // After each product; its error ends the tuning. May be empty.
  std::function<Status(std::int64_t done, std::int64_t total)> progress;
};

// A tactic takes the rule's place only when it needs at most this share of its time, so that noise changes nothing.
inline constexpr double kTacticGain = 0.95;

// A tactic for every product of the passes over prepared weights of `plan` and their rows: the rule where nothing is
// clearly faster. Empty when nothing was measured and nothing found before. Errors: those of progress.
Status tune_products(const PlanFile& plan, const std::vector<PassOutline>& passes, ops::CpuOps& ops,
                     const PlanTuningOptions& options, PlanTuning* out);

}  // namespace premotor::engine
