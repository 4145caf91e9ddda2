// The steps of building a plan. Weights stream from the checkpoint to the file; then a transformer that uses them from
// there computes the tables of the job's schedules. See plan_build.h.
#include "engine/plan_build.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/half.h"
#include "engine/pass_outline.h"
#include "engine/plan_arithmetic.h"
#include "engine/plan_file.h"
#include "engine/plan_identity.h"
#include "engine/plan_tuning.h"
#include "engine/schedule.h"
#include "ops/cpu/cpu_ops.h"

namespace premotor::engine {

namespace {

bool is_cancelled(const PlanBuildOptions& options) { return options.cancel != nullptr && options.cancel->load(); }
Status stopped() { return Status::error("ABORTED", "Building the plan was stopped on request; no file was written."); }

ops::Rounding rounding_of(const JobConfig& job) {
  return job.deployed_bf16 ? ops::Rounding::bf16 : ops::Rounding::none;
}

// Elements of all tensors, for the progress.
Status count_elements(const std::string& checkpoint, std::int64_t* out) {
  for (const char* part : {"/transformer", "/vae"}) {
    TensorStore store;
    PREMOTOR_TRY(TensorStore::open_folder(checkpoint + part, diffusers_stems, &store));
    for (const StoredTensor& tensor : store.tensors()) *out += tensor.elements();
  }
  return Status::good();
}

// The timesteps of whole denoising loops of so many steps each, and 0: ascending, each once.
std::vector<float> timesteps_of(const std::vector<std::int64_t>& steps, float shift, const JobConfig& job) {
  std::vector<float> timesteps = {0.0f};
  for (const std::int64_t count : steps) {
    if (count < 1) continue;
    for (const float timestep : make_schedule(count, shift).timesteps)
      timesteps.push_back(job.deployed_bf16 && job.input_cast ? round_to_bf16(timestep) : timestep);
  }
  std::sort(timesteps.begin(), timesteps.end());
  timesteps.erase(std::unique(timesteps.begin(), timesteps.end()), timesteps.end());
  return timesteps;
}

Status write_weights(const PlanBuildOptions& options, ops::Ops& ops, PlanWriter* writer) {
  const SessionOptions& session = options.session;
  const ops::Rounding rounding = rounding_of(session.job);
  std::int64_t done = 0, total = 0;
  PREMOTOR_TRY(count_elements(session.checkpoint, &total));
  writer->on_added = [&](std::int64_t elements) {
    done += elements;
    if (options.progress) options.progress("pack", done, std::max(done, total));
    return is_cancelled(options) ? stopped() : Status::good();
  };
  std::unique_ptr<Transformer> transformer;
  PREMOTOR_TRY(Transformer::open(session.checkpoint + "/transformer", session.precision, rounding, ops, &transformer,
                                 {nullptr, writer}));
  std::unique_ptr<Vae> vae;
  PREMOTOR_TRY(Vae::open(session.checkpoint + "/vae", session.precision, rounding, ops, &vae, {nullptr, writer}));
  writer->on_added = nullptr;
  if (options.progress) options.progress("pack", total, total);
  return Status::good();
}

Status write_tuning(const PlanBuildOptions& options, const PlanFile& plan, const std::vector<PassOutline>& passes,
                    ops::CpuOps& ops, PlanWriter* writer) {
  PlanTuningOptions tuning;
  tuning.tunings = options.tunings;
  tuning.measures = options.tune;
  tuning.progress = [&](std::int64_t done, std::int64_t total) {
    if (options.progress) options.progress("tune", done, total);
    return is_cancelled(options) ? stopped() : Status::good();
  };
  return tune_products(plan, passes, ops, tuning, &writer->contents().tuning);
}

Status write_tables(const PlanBuildOptions& options, ops::CpuOps& ops, PlanWriter* writer) {
  const JobConfig& job = options.session.job;
  std::unique_ptr<PlanFile> plan;
  PREMOTOR_TRY(PlanFile::open(writer->partial_path(), &plan));
  std::vector<PassOutline> passes;
  PREMOTOR_TRY(outline_passes(*plan, options.session, &passes));
  PREMOTOR_TRY(outline_encoding(*plan, options.session, &passes));
  writer->contents().passes = outline_json(passes);
  PREMOTOR_TRY(write_tuning(options, *plan, passes, ops, writer));
  std::unique_ptr<Transformer> transformer;
  PREMOTOR_TRY(Transformer::open(options.session.checkpoint + "/transformer", options.session.precision,
                                 rounding_of(job), ops, &transformer, {plan.get(), nullptr}));
  std::int64_t rows = 0;
  for (const PassOutline& pass : passes)
    rows = std::max(rows, pass.guidance_rows * (pass.video_tokens + pass.action_tokens));
  transformer->reserve(rows);
  writer->contents().arena = transformer->arena();
  std::vector<std::int64_t> video = options.video_steps, action = options.action_steps;
  video.insert(video.end(), {job.video_steps, job.imagine_steps});
  action.push_back(job.action_steps);
  const std::vector<float> timesteps[2] = {timesteps_of(video, job.snr_shift, job),
                                           timesteps_of(action, job.action_snr_shift, job)};
  const std::int64_t total = std::ssize(timesteps[0]) + std::ssize(timesteps[1]);
  std::int64_t done = 0;
  for (const Modality modality : {Modality::video, Modality::action}) {
    for (const float timestep : timesteps[static_cast<int>(modality)]) {
      if (is_cancelled(options)) return stopped();
      PREMOTOR_TRY(transformer->record_conditioning(modality, {timestep}, writer));
      if (options.progress) options.progress("tables", ++done, total);
    }
  }
  return Status::good();
}

}  // namespace

Status build_plan(const PlanBuildOptions& options, PlanBuildResult* out) {
  const SessionOptions& session = options.session;
  PlanWriter writer;
  PlanContents& contents = writer.contents();
  PREMOTOR_TRY(read_sources(session.checkpoint, &contents.sources));
  // As many threads as a session would have.
  ops::CpuOps ops(std::min(session.threads, ThreadPool::usable_cores()));
  contents.facts = {options.tool,
                    "cpu",
                    arithmetic_of(ops),
                    name_of(session.precision),
                    name_of(rounding_of(session.job)),
                    ops.prepared_layout(),
                    options.checkpoint_hash};
  PREMOTOR_TRY(writer.create(options.file));
  PREMOTOR_TRY(write_weights(options, ops, &writer));
  PREMOTOR_TRY(writer.seal());
  PREMOTOR_TRY(write_tables(options, ops, &writer));
  PREMOTOR_TRY(writer.seal());
  PREMOTOR_TRY(writer.commit());
  out->size_bytes = static_cast<std::int64_t>(writer.size_bytes());
  out->tensors = std::ssize(contents.tensors);
  out->tables = std::ssize(contents.conditioning);
  out->arena = contents.arena;
  return Status::good();
}

}  // namespace premotor::engine
