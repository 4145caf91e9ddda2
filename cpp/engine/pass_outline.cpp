// Running the passes of a job on a backend that counts. See pass_outline.h.
#include "engine/pass_outline.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/kv_cache.h"
#include "engine/plan_sketch.h"
#include "engine/transformer.h"
#include "engine/vae.h"

namespace premotor::engine {

namespace {

// The job's passes over one transformer.
class Outliner {
 public:
  Outliner(Transformer& transformer, CountingOps& ops, const JobConfig& job, std::int64_t tokens_per_frame,
           ops::Dtype cached)
      : transformer_(transformer), ops_(ops), job_(job), tokens_per_frame_(tokens_per_frame), cached_(cached) {}

  Status run(std::vector<PassOutline>* out);

 private:
  struct Inputs {
    std::vector<float> x, timesteps, out;
    RopeTable rope;
    std::vector<std::int32_t> write_rows;
  };

  [[nodiscard]] std::int64_t tokens_per_frame(Modality modality) const {
    return modality == Modality::video ? tokens_per_frame_ : job_.action_per_frame;
  }
  Pass pass(Modality modality, std::int64_t guidance_rows, bool wanted);
  Status add(const std::string& name, std::int64_t per_chunk, const std::vector<Modality>& parts,
             std::int64_t guidance_rows, bool wanted, std::vector<PassOutline>* out);

  Transformer& transformer_;
  CountingOps& ops_;
  const JobConfig& job_;
  std::int64_t tokens_per_frame_;
  ops::Dtype cached_;
  Inputs inputs_[2];
  std::unique_ptr<KvCache> cache_;
  std::vector<TextKeysValues> text_;
  std::int64_t entries_ = 0;  // of the full cache
  std::vector<std::uint32_t> attended_;
  std::vector<ops::MovedSlot> moved_;  // none
};

Pass Outliner::pass(Modality modality, std::int64_t guidance_rows, bool wanted) {
  const TransformerConfig& config = transformer_.config();
  const bool video = modality == Modality::video;
  Inputs& in = inputs_[static_cast<int>(modality)];
  const std::int64_t tokens = job_.frame_chunk_size * tokens_per_frame(modality);
  const std::int64_t features = video ? config.in_channels * config.patch_volume() : config.action_dim;
  in.x.assign(static_cast<std::size_t>(tokens * features), 0.0f);
  in.out.assign(static_cast<std::size_t>(guidance_rows * tokens * features), 0.0f);
  in.timesteps.assign(static_cast<std::size_t>(job_.frame_chunk_size), 0.0f);
  in.write_rows.assign(static_cast<std::size_t>(tokens), 0);
  in.rope.cos.assign(static_cast<std::size_t>(tokens * config.attention_head_dim / 2), 0.0f);
  in.rope.sin = in.rope.cos;
  Pass pass;
  pass.modality = modality;
  pass.x = in.x.data();
  pass.frames = job_.frame_chunk_size;
  pass.tokens_per_frame = tokens_per_frame(modality);
  pass.frame_timesteps = in.timesteps.data();
  pass.rope = &in.rope;
  pass.guidance_rows = guidance_rows;
  pass.text = &text_;
  pass.cache = cache_.get();
  pass.write_rows = &in.write_rows;
  pass.attended = &attended_;
  pass.moved = &moved_;
  pass.out = wanted ? in.out.data() : nullptr;
  return pass;
}

Status Outliner::add(const std::string& name, std::int64_t per_chunk, const std::vector<Modality>& parts,
                     std::int64_t guidance_rows, bool wanted, std::vector<PassOutline>* out) {
  if (per_chunk < 1) return Status::good();
  std::vector<Pass> passes;
  for (const Modality modality : parts) passes.push_back(pass(modality, guidance_rows, wanted));
  // The second time the timesteps' conditioning is known, as it is while a robot runs.
  for (int i = 0; i < 2; ++i) {
    ops_.take();
    PREMOTOR_TRY(transformer_.forward(passes));
  }
  PassOutline outline{name, per_chunk, guidance_rows, 0, 0, entries_, cached_, folded(ops_.take())};
  for (const Pass& one : passes)
    (one.modality == Modality::video ? outline.video_tokens : outline.action_tokens) +=
        one.frames * one.tokens_per_frame;
  out->push_back(std::move(outline));
  return Status::good();
}

Status Outliner::run(std::vector<PassOutline>* out) {
  const TransformerConfig& config = transformer_.config();
  const std::int64_t all = job_.guided() ? 2 : 1;
  const std::int64_t chunk = job_.frame_chunk_size * (tokens_per_frame_ + job_.action_per_frame);
  entries_ = job_.attn_window / 2 * chunk;
  // One value a token: where it lies is all that a counting pass asks.
  KvCacheShape shape;
  shape.layers = config.num_layers;
  shape.guidance_rows = all;
  shape.heads = shape.head_dim = 1;
  shape.capacity = entries_;
  shape.dtype = cached_;
  PREMOTOR_TRY(KvCache::open(shape, &cache_));
  attended_.assign(static_cast<std::size_t>(cache_->rows() / 32), 0);
  for (std::int64_t row = 0; row < entries_; ++row)
    attended_[static_cast<std::size_t>(row / 32)] |= std::uint32_t{1} << (row % 32);
  const std::vector<float> prompt(static_cast<std::size_t>((kOutlineTextRows - 1) * config.text_dim));
  text_.resize(static_cast<std::size_t>(all));
  for (TextKeysValues& one : text_)
    PREMOTOR_TRY(transformer_.project_text(prompt.data(), kOutlineTextRows - 1, 1, cached_, nullptr, &one));

  const std::int64_t guided_video = job_.guidance_scale > 1 ? all : 1;
  const std::int64_t guided_action = job_.action_guidance_scale > 1 ? all : 1;
  const bool whole = job_.video_exec_step == -1;
  const std::int64_t steps = whole ? job_.video_steps : job_.video_exec_step;
  // The last pass leaves its keys and values for all guidance rows; after a whole loop it does nothing else.
  PREMOTOR_TRY(add("video", whole ? steps : steps - 1, {Modality::video}, guided_video, true, out));
  PREMOTOR_TRY(add(whole ? "video (cache)" : "video (last)", 1, {Modality::video}, all, !whole, out));
  PREMOTOR_TRY(add("action", job_.action_steps, {Modality::action}, guided_action, true, out));
  if (job_.i2va) return add("action (cache)", 1, {Modality::action}, all, false, out);
  if (transformer_.can_pack()) return add("commit", 1, {Modality::video, Modality::action}, all, false, out);
  PREMOTOR_TRY(add("commit video", 1, {Modality::video}, all, false, out));
  return add("commit action", 1, {Modality::action}, all, false, out);
}

std::string quoted(const std::string& text) { return '"' + text + '"'; }  // names without anything to escape

std::string shown(const PassStep& step) {
  std::string out = "{\"op\":" + quoted(step.op) + ",\"product\":" + quoted(step.product);
  if (!step.weight.empty()) out += ",\"weight\":" + quoted(step.weight);
  if (!step.fused.empty()) out += ",\"fused\":" + quoted(step.fused);
  const std::pair<const char*, double> numbers[] = {
      {"rows", static_cast<double>(step.rows)},     {"outputs", static_cast<double>(step.outputs)},
      {"inputs", static_cast<double>(step.inputs)}, {"flops", step.flops},
      {"weightBytes", step.weight_bytes},           {"cacheBytes", step.cache_bytes},
      {"activationBytes", step.activation_bytes}};
  // Whole numbers, all below 2^53.
  for (const auto& [key, value] : numbers)
    out += ",\"" + std::string(key) + "\":" + std::to_string(static_cast<std::int64_t>(value));
  return out + "}";
}

template <typename T>
std::string list(const std::vector<T>& items, std::string (*show)(const T&)) {
  std::string out = "[";
  for (const T& item : items) out += (out.size() == 1 ? "" : ",\n") + show(item);
  return out + "]";
}

std::string shown(const StepGroup& group) {
  return "{\"times\":" + std::to_string(group.times) + ",\"steps\":" + list<PassStep>(group.steps, shown) + "}";
}

std::string shown(const PassOutline& pass) {
  return "{\"name\":" + quoted(pass.name) + ",\"perChunk\":" + std::to_string(pass.per_chunk) +
         ",\"guidanceRows\":" + std::to_string(pass.guidance_rows) +
         ",\"videoTokens\":" + std::to_string(pass.video_tokens) +
         ",\"actionTokens\":" + std::to_string(pass.action_tokens) + ",\"entries\":" + std::to_string(pass.entries) +
         ",\"pictures\":" + std::to_string(pass.pictures) + ",\"height\":" + std::to_string(pass.height) +
         ",\"width\":" + std::to_string(pass.width) + ",\"kvCache\":" + quoted(name_of(pass.cache)) +
         ",\"groups\":" + list<StepGroup>(pass.groups, shown) + "}";
}

}  // namespace

std::vector<StepGroup> folded(std::vector<PassStep> steps) {
  const std::size_t count = steps.size();
  std::size_t from = 0, period = 0, times = 0;
  for (std::size_t p = 1; p <= count / 2; ++p) {
    // Steps in a row that equal the one a period later.
    std::size_t same = 0;
    for (std::size_t i = 0; i + p < count; ++i) {
      same = steps[i] == steps[i + p] ? same + 1 : 0;
      const std::size_t repeats = same / p + 1;
      if (same < p || repeats * p <= times * period) continue;
      period = p;
      times = repeats;
      from = i + 1 - same;
    }
  }
  const auto piece = [&](std::size_t begin, std::size_t end) {
    return std::vector<PassStep>(steps.begin() + static_cast<std::ptrdiff_t>(begin),
                                 steps.begin() + static_cast<std::ptrdiff_t>(end));
  };
  std::vector<StepGroup> groups;
  if (from > 0 || period == 0) groups.push_back({1, piece(0, period == 0 ? count : from)});
  if (period == 0) return groups;
  groups.push_back({static_cast<std::int64_t>(times), piece(from, from + period)});
  if (from + times * period < count) groups.push_back({1, piece(from + times * period, count)});
  return groups;
}

namespace {

ops::Rounding rounding_of(const JobConfig& job) {
  return job.deployed_bf16 ? ops::Rounding::bf16 : ops::Rounding::none;
}

// The passes over weights that `use` says, which `ops` learns of.
Status outline_transformer(PlanUse use, const SessionOptions& session, CountingOps& ops,
                           std::vector<PassOutline>* out) {
  const JobConfig& job = session.job;
  std::unique_ptr<Transformer> transformer;
  PREMOTOR_TRY(Transformer::open(session.checkpoint + "/transformer", session.precision, rounding_of(job), ops,
                                 &transformer, use));
  if (use.sketch != nullptr) ops.learn(use.sketch->contents());
  VaeConfig vae;
  PREMOTOR_TRY(read_vae_config(session.checkpoint + "/vae", &vae));
  const TransformerConfig& config = transformer->config();
  const JobGeometry geometry{config.action_dim, vae.scale_factor_spatial, config.patch_h, config.patch_w};
  PREMOTOR_TRY(check_job(job, geometry));
  const LatentSize latent = latent_size(job, geometry);
  const std::int64_t tokens_per_frame = (latent.height / config.patch_h) * (latent.width / config.patch_w);
  return Outliner(*transformer, ops, job, tokens_per_frame, session.cache_dtype()).run(out);
}

Status outline_vae(PlanUse use, const SessionOptions& session, CountingOps& ops, std::vector<PassOutline>* out) {
  const JobConfig& job = session.job;
  // There a prediction goes on from what it imagined.
  if (job.i2va) return Status::good();
  std::unique_ptr<Vae> vae;
  PREMOTOR_TRY(Vae::open(session.checkpoint + "/vae", session.precision, rounding_of(job), ops, &vae, use));
  if (use.sketch != nullptr) ops.learn(use.sketch->contents());
  for (const CameraGroup& group : camera_groups(job)) {
    PassOutline outline;
    outline.name = group.first == 0 ? "encode" : "encode (half size)";
    outline.per_chunk = group.count;
    outline.pictures = job.frame_chunk_size * vae->config().scale_factor_temporal;
    outline.height = group.height;
    outline.width = group.width;
    const std::vector<float> pixels(static_cast<std::size_t>(outline.pictures * group.height * group.width * 3));
    VaeStreamState stream;
    std::vector<float> moments;
    PREMOTOR_TRY(vae->encode(pixels.data(), 1, group.height, group.width, &stream, &moments));
    ops.take();  // an episode's first picture
    PREMOTOR_TRY(vae->encode(pixels.data(), outline.pictures, group.height, group.width, &stream, &moments));
    outline.groups = folded(ops.take());
    out->push_back(std::move(outline));
  }
  return Status::good();
}

}  // namespace

Status outline_passes(const PlanFile& plan, const SessionOptions& session, std::vector<PassOutline>* out) {
  CountingOps ops(plan.contents());
  return outline_transformer({.from = &plan}, session, ops, out);
}

Status outline_encoding(const PlanFile& plan, const SessionOptions& session, std::vector<PassOutline>* out) {
  CountingOps ops(plan.contents());
  return outline_vae({.from = &plan}, session, ops, out);
}

Status outline_sketch(const SessionOptions& session, ops::Dtype stored, const ops::Ops& forms,
                      std::vector<PassOutline>* out) {
  // What is stored wider is rounded while it is read.
  if (session.precision == WeightPrecision::bf16) stored = ops::Dtype::bf16;
  PlanSketch transformer(forms, rounding_of(session.job), stored), vae(forms, rounding_of(session.job), stored);
  CountingOps ops;
  PREMOTOR_TRY(outline_transformer({.sketch = &transformer}, session, ops, out));
  return outline_vae({.sketch = &vae}, session, ops, out);
}

std::string outline_json(const std::vector<PassOutline>& passes) { return list<PassOutline>(passes, shown); }

}  // namespace premotor::engine
