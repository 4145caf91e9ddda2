// Opening a session, its episodes and its commits; prediction is in session_predict.cpp and session_next.cpp, pictures
// in session_observe.cpp, episodes with a past in session_restore.cpp.
#include "engine/session.h"

#include <algorithm>
#include <chrono>

#include "base/thread_pool.h"
#include "engine/session_clock.h"
#include "ops/cpu/cpu_ops.h"

namespace premotor::engine {

Session::Session(const SessionOptions& options) : options_(options), job_(options.job) {}
Session::~Session() = default;

Status Session::open(const SessionOptions& options, std::unique_ptr<Session>* out) {
  std::unique_ptr<Session> session(new Session(options));
  PREMOTOR_TRY(session->open_parts());
  *out = std::move(session);
  return Status::good();
}

Status Session::open_models() {
  // More threads than cores would only take time from each other.
  auto cpu = std::make_unique<ops::CpuOps>(std::min(options_.threads, ThreadPool::usable_cores()));
  PlanUse use;
  if (!options_.plan.empty()) {
    const PlanNeed need{"cpu",
                        name_of(options_.precision),
                        name_of(rounding()),
                        cpu->prepared_layout(),
                        options_.checkpoint,
                        cpu->processor(),
                        cpu->pool().threads()};
    PREMOTOR_TRY(PlanFile::open_for(options_.plan, need, &plan_file_, options_.plan_checked_at_open_max));
    use.from = plan_file_.get();
  }
  ops_ = std::move(cpu);
  const std::string& folder = options_.checkpoint;
  use.keeps_stored = options_.device != nullptr;
  PREMOTOR_TRY(Transformer::open(folder + "/transformer", options_.precision, rounding(), *ops_, &transformer_, use));
  use.keeps_stored = false;
  PREMOTOR_TRY(Vae::open(folder + "/vae", options_.precision, rounding(), *ops_, &vae_, use));
  if (plan_file_ != nullptr) transformer_->adopt_conditioning(plan_file_->contents());
  return Status::good();
}

Status Session::open_parts() {
  PREMOTOR_TRY(open_models());
  const TransformerConfig& config = transformer_->config();
  const VaeConfig& vae = vae_->config();
  if (vae.z_dim != config.in_channels || config.in_channels != config.out_channels)
    return Status::error("CHECKPOINT_CONFIG", "The transformer's in_channels (" + std::to_string(config.in_channels) +
                                                  "), out_channels (" + std::to_string(config.out_channels) +
                                                  ") and the VAE's z_dim (" + std::to_string(vae.z_dim) +
                                                  ") must be equal: the folders belong to different models.");
  geometry_ = {config.action_dim, vae.scale_factor_spatial, config.patch_h, config.patch_w};
  PREMOTOR_TRY(check_job(job_, geometry_));
  latent_ = latent_size(job_, geometry_);
  scaler_ = std::make_unique<ActionScaler>(job_, config.action_dim);
  groups_ = camera_groups(job_);
  streams_.resize(static_cast<std::size_t>(job_.cameras));
  const std::int64_t video_tokens = job_.frame_chunk_size * video_tokens_per_frame();
  const std::int64_t action_tokens = job_.frame_chunk_size * job_.action_per_frame;
  KvCacheShape shape;
  shape.layers = config.num_layers;
  shape.guidance_rows = job_.guided() ? 2 : 1;
  shape.heads = config.num_attention_heads;
  shape.head_dim = config.attention_head_dim;
  shape.capacity = (job_.attn_window / 2) * (video_tokens + action_tokens);
  // predict_next keeps at most the executing and the next chunk beside the committed state, and one pass that is under
  // way.
  shape.headroom = 2 * (video_tokens + action_tokens) + std::max(video_tokens, action_tokens);
  shape.dtype = options_.cache_dtype();
  const std::int64_t rows = shape.guidance_rows * (video_tokens + action_tokens);
  PREMOTOR_TRY(KvCache::open(shape, &cache_));
  if (options_.device != nullptr)
    return DeviceTransformer::open(*transformer_, format_of(options_.precision), shape, cache_->rows(), rows,
                                   *options_.device, &on_device_);
  transformer_->reserve(rows);
  return Status::good();
}

std::int64_t Session::video_tokens_per_frame() const {
  return (latent_.height / geometry_.patch_h) * (latent_.width / geometry_.patch_w);
}

SessionInfo Session::info() const {
  SessionInfo info;
  info.backend = on_device_ == nullptr ? ops_->name() : options_.device->name();
  info.weight_bytes =
      (on_device_ == nullptr ? transformer_->weight_bytes() : on_device_->weight_bytes()) + vae_->weight_bytes();
  info.cache_bytes = on_device_ == nullptr ? cache_->size_bytes() : on_device_->cache_bytes();
  info.parameters = transformer_->parameters();
  for (const std::string& name : transformer_->unread()) info.unused_tensors.push_back("transformer/" + name);
  for (const std::string& name : vae_->unread()) info.unused_tensors.push_back("vae/" + name);
  const std::int64_t latent[4] = {transformer_->config().in_channels, job_.frame_chunk_size, latent_.height,
                                  latent_.width};
  const std::int64_t action[3] = {scaler_->used(), job_.frame_chunk_size, job_.action_per_frame};
  std::copy_n(latent, 4, info.latent_shape);
  std::copy_n(action, 3, info.action_shape);
  info.text_dim = transformer_->config().text_dim;
  if (plan_file_ != nullptr) info.plan_checkpoint = plan_file_->contents().facts.checkpoint;
  return info;
}

Status Session::reset(std::span<const float> positive, std::span<const float> negative) {
  PREMOTOR_TRY(check_plan());
  const ThreadPool::CallerCores cores(ops_->pool());
  episode_ = false;
  frame_index_ = 0;
  init_latent_.clear();
  pending_.is_waiting = false;
  cache_->clear();
  for (VaeStreamState& stream : streams_) stream.clear();
  const std::int64_t dim = transformer_->config().text_dim;
  text_.resize(static_cast<std::size_t>(cache_->shape().guidance_rows));
  for (std::size_t row = 0; row < text_.size(); ++row) {
    const std::span<const float> embeddings = row == 0 ? positive : negative;
    const std::int64_t count = std::ssize(embeddings) / dim;
    if (embeddings.empty() || std::ssize(embeddings) % dim != 0 || count > job_.text_rows)
      return Status::error("TEXT_INVALID",
                           "A prompt embedding must have 1 to " + std::to_string(job_.text_rows) + " rows of " +
                               std::to_string(dim) + " values, found " + std::to_string(embeddings.size()) +
                               " values. It was made for another checkpoint, or the negative one is missing.");
    PREMOTOR_TRY(passes().project_text(embeddings.data(), count, job_.text_rows - count, cache_->shape().dtype,
                                       &cancel_, &text_[row]));
  }
  episode_ = true;
  return Status::good();
}

// frames: F, that the pictures make.
Status Session::check_commit(const CommitArgs& args, std::int64_t* frames) const {
  if (!episode_) return Status::error("NO_EPISODE", "commit needs an episode: call reset with a prompt first.");
  if (frame_index_ == 0 && init_latent_.empty())
    return Status::error(
        "NO_EPISODE", "The first commit of an episode needs its first prediction: call predict with an observation.");
  *frames = std::ssize(*args.moments) / vae_->config().scale_factor_temporal + (frame_index_ == 0 ? 1 : 0);
  if (*frames < 1 || args.action_count != *frames * job_.action_per_frame)
    return Status::error("ACTIONS_INVALID", "commit got pictures for " + std::to_string(*frames) +
                                                " latent frames, which take " +
                                                std::to_string(*frames * job_.action_per_frame) + " actions, but " +
                                                std::to_string(args.action_count) + " actions.");
  return check_frames(*frames);
}

Status Session::check_frames(std::int64_t frames) const {
  const std::int64_t tokens = frames * std::max(video_tokens_per_frame(), job_.action_per_frame);
  if (tokens > cache_->shape().capacity)
    return Status::error("CACHE_TOO_SMALL", "A commit of " + std::to_string(frames) + " latent frames writes " +
                                                std::to_string(tokens) + " tokens at once, more than the KV cache's " +
                                                std::to_string(cache_->shape().capacity) +
                                                ". Commit fewer frames at once or raise attn_window.");
  return Status::good();
}

// History as a commit leaves it: the video at t = 0, then the actions, which see it. One pass of both modalities where
// they share their blocks, else two. Every guidance row is written.
Status Session::write_clean(const float* video, const float* action, std::int64_t frames, std::int64_t frame_start,
                            WriteKind kind, const ProgressCallback& progress) {
  const std::vector<float>& clean = frame_timesteps(frames, 0.0f, false);
  const std::int64_t rows = cache_->shape().guidance_rows;
  Pass parts[2] = {video_part(video, frames, frame_start, clean, rows, nullptr),
                   action_part(action, frames, frame_start, clean, rows, nullptr)};
  if (!transformer_->can_pack()) {
    PREMOTOR_TRY(run_passes({&parts[0], 1}, kind));
    if (progress) progress("commit", 1, 2);
    PREMOTOR_TRY(run_passes({&parts[1], 1}, kind));
  } else {
    PREMOTOR_TRY(run_passes(parts, kind));
  }
  if (progress) progress("commit", 2, 2);
  return Status::good();
}

Status Session::commit(const CommitArgs& args, CommitResult* out) {
  const Stopwatch total;
  const ThreadPool::CallerCores cores(ops_->pool());
  std::int64_t frames = 0, encoded = 0;
  PREMOTOR_TRY(check_plan());
  PREMOTOR_TRY(check_commit(args, &frames));
  const std::int64_t channels = transformer_->config().in_channels, plane = latent_plane();
  const bool first = frame_index_ == 0;
  std::vector<float>& latents = buffers_.latents;
  latents.clear();
  if (!args.moments->empty()) PREMOTOR_TRY(encode(*args.moments, args.trace, false, args.progress, &latents, &encoded));
  out->timing = {};
  out->timing.encode_ms = total.elapsed_ms();
  std::vector<float>& video = out->latents;
  video.resize(static_cast<std::size_t>(channels * frames * plane));
  for (std::int64_t c = 0; c < channels; ++c) {
    float* to = video.data() + c * frames * plane;
    if (first) to = std::copy_n(init_latent_.data() + c * plane, plane, to);
    std::copy_n(latents.data() + c * encoded * plane, encoded * plane, to);
  }
  std::vector<float>& action = buffers_.committed_action;
  action.resize(static_cast<std::size_t>(transformer_->config().action_dim * args.action_count));
  scaler_->normalise(args.actions, args.action_count, rounds(), action.data());
  scaler_->zero_unused(action.data(), args.action_count);
  const Stopwatch passes;
  // A commit is all or nothing: from here on it cannot be stopped.
  pending_.is_waiting = false;
  cache_->clear_predicted();
  written_.clear();
  PREMOTOR_TRY(write_clean(video.data(), action.data(), frames, frame_index_, WriteKind::committed, args.progress));
  frame_index_ += frames;
  out->frame_index = frame_index_;
  out->frames = frames;
  out->timing.commit_ms = passes.elapsed_ms();
  out->timing.total_ms = total.elapsed_ms();
  out->timing.video_passes = out->timing.action_passes = 1;
  if (args.trace == nullptr) return Status::good();
  args.trace->add("state", {scaler_->used(), frames, job_.action_per_frame},
                  std::vector<float>(args.actions, args.actions + scaler_->used() * args.action_count));
  args.trace->add("video.input", {1, channels, frames, latent_.height, latent_.width}, std::vector<float>(video));
  args.trace->add("action.input", {1, transformer_->config().action_dim, frames, job_.action_per_frame, 1},
                  std::vector<float>(action));
  return trace_cache(args.trace);
}

CacheState Session::cache_state() const {
  return {cache_->counts(), cache_->checksum(static_cast<std::uint64_t>(frame_index_))};
}

}  // namespace premotor::engine
