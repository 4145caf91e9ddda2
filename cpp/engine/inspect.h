// What a checkpoint folder holds and what is wrong with it, without reading weights. Unlike opening, which stops at the
// first error, an inspection lists them all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace premotor::engine {

struct FileInspection {
  std::string path;
  std::int64_t size_bytes = 0;
};

struct TensorInspection {
  std::string name;
  std::string dtype;  // "F32", ... as stored
  std::vector<std::int64_t> shape;
  std::int64_t size_bytes = 0;
  bool used = false;  // false: vestigial, or not known at all (then there is a problem about it)
};

struct ComponentInspection {
  std::string name;         // "transformer", "vae", "text_encoder"
  bool present = false;     // its folder exists
  std::string config_json;  // config.json as written; empty when it is absent or no JSON object
  std::vector<FileInspection> files;
  std::vector<TensorInspection> tensors;  // sorted by name
  std::int64_t parameters = 0;            // elements of all tensors whose data is whole
  std::int64_t size_bytes = 0;            // bytes of the same
  std::vector<Status> problems;           // at most 1000, then one that counts the rest
};

struct Inspection {
  std::vector<ComponentInspection> components;  // transformer, vae, text_encoder
};

// Errors: CHECKPOINT_MISSING_FILE (`folder` is no folder). Everything else is listed as a problem: those of opening,
// and CHECKPOINT_UNKNOWN_TENSOR (config.json has no place for it; the engine would ignore it). A missing text encoder
// is no problem: a robot may run from embeddings computed elsewhere.
Status inspect_checkpoint(const std::string& folder, Inspection* out);

}  // namespace premotor::engine
