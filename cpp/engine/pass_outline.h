// What the passes of a job consist of: their steps in order, with arithmetic and bytes, repeated layers folded. Part of
// every plan, so that it can explain itself on any machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/counting_ops.h"
#include "engine/plan_file.h"
#include "engine/session.h"

namespace premotor::engine {

// Text rows that an instruction is taken to have, the one that stands for the padding among them.
inline constexpr std::int64_t kOutlineTextRows = 33;

struct StepGroup {
  std::int64_t times = 1;  // one after another: layers
  std::vector<PassStep> steps;
};

struct PassOutline {
  std::string name;            // "video", "video (cache)", "action", "action (cache)", "commit", ...
  std::int64_t per_chunk = 0;  // how often in a control cycle
  std::int64_t guidance_rows = 0, video_tokens = 0, action_tokens = 0;
  std::int64_t entries = 0;            // of the KV cache that are attended to: it is full
  ops::Dtype cache = ops::Dtype::f32;  // what the entries are held in
  std::vector<StepGroup> groups;
  std::int64_t pictures = 0, height = 0, width = 0;  // of one camera, where it encodes any
};

// Steps in order -> groups: the longest stretch that repeats itself is folded.
std::vector<StepGroup> folded(std::vector<PassStep> steps);

// The passes of the control cycle of a session's job over the weights of `plan`; the checkpoint is the folder of its
// config.json files. Errors: those of Transformer::open, JOB_INVALID.
Status outline_passes(const PlanFile& plan, const SessionOptions& session, std::vector<PassOutline>* out);

// Encoding the pictures of a chunk, which its commit does: a pass of the autoencoder for each size of pictures, once
// for every camera of that size. Loops that are no operation (averages of shortcuts) are not counted. Errors: those of
// Vae::open and Vae::encode.
Status outline_encoding(const PlanFile& plan, const SessionOptions& session, std::vector<PassOutline>* out);

// The same passes, and encoding, of a checkpoint of which config.json is enough: `stored` is what its tensors are (or
// would be), `forms` how the backend keeps them. Errors as above.
Status outline_sketch(const SessionOptions& session, ops::Dtype stored, const ops::Ops& forms,
                      std::vector<PassOutline>* out);

// JSON: an array of passes.
std::string outline_json(const std::vector<PassOutline>& passes);

}  // namespace premotor::engine
