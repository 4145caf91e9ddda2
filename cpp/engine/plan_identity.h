// Which checkpoint a plan was made of: names, sizes and headers of its files and samples of every tensor. Comparing
// costs a few small reads; it tells checkpoints apart and proves no byte intact.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "engine/plan_format.h"

namespace premotor::engine {

// The files of `folder`/transformer and `folder`/vae. Errors: CHECKPOINT_MISSING_FILE, and those of parse_safetensors.
Status read_sources(const std::string& folder, std::vector<PlanSource>* out);

// Whether the folder still holds what the plan was made of. Headers are read always, tensors only of a file whose time
// of change differs. Errors: PLAN_CHECKPOINT, those of read_sources.
Status check_sources(const std::string& folder, const std::vector<PlanSource>& sources, const std::string& plan);

}  // namespace premotor::engine
