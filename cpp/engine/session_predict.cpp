// Prediction: denoising loops for video and actions over the KV cache, guidance, partial denoising (docs/MODEL.md
// sections 4 and 5). The grounded asynchronous step is in session_next.cpp.
#include <algorithm>
#include <cassert>

#include "base/half.h"
#include "base/philox.h"
#include "base/thread_pool.h"
#include "engine/session.h"
#include "engine/session_clock.h"

namespace premotor::engine {

// Valid until the next call of this function.
const std::vector<float>& Session::frame_timesteps(std::int64_t frames, float timestep, bool first_is_clean) {
  const float given = rounds() && job_.input_cast ? round_to_bf16(timestep) : timestep;
  std::vector<float>& timesteps = buffers_.timesteps;
  timesteps.assign(static_cast<std::size_t>(frames), given);
  if (first_is_clean) timesteps[0] = 0.0f;
  return timesteps;
}

// Runs passes that follow one another, each between its begin_write and end_write of the cache, as one. Several are of
// different modalities and lasting: a temporary write would be undone before the next one begins.
Status Session::run_passes(std::span<Pass> parts, WriteKind kind) {
  assert(parts.size() == 1 || (parts.size() == 2 && kind != WriteKind::temporary));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) cache_->end_write();
    PREMOTOR_TRY(cache_->begin_write(parts[i].frames * parts[i].tokens_per_frame, kind));
    PassInput& input = inputs_[static_cast<int>(parts[i].modality)];
    input.write_rows = cache_->write_rows();
    input.write_slots = cache_->write_slots();
    input.attended = cache_->attended();
    input.moved.reserve(static_cast<std::size_t>(cache_->shape().capacity));
    input.moved = cache_->moved();
    parts[i].text = &text_;
    parts[i].cache = cache_.get();
    parts[i].write_rows = &input.write_rows;
    parts[i].attended = &input.attended;
    parts[i].moved = &input.moved;
    parts[i].cancel = kind == WriteKind::committed ? nullptr : &cancel_;  // half a commit would lose the episode
  }
  const Status status = passes().forward(parts);
  cache_->end_write();
  if (!status.ok() || kind == WriteKind::temporary) return status;
  for (const Pass& pass : parts) {
    const PassInput& input = inputs_[static_cast<int>(pass.modality)];
    for (std::size_t token = 0; token < input.write_rows.size(); ++token)
      written_.emplace_back(input.write_slots[token], input.write_rows[token]);
  }
  return status;
}

// x: [C, frames, h, w] -> tokens [frames * patches, C * ph * pw], features in (c, ph, pw) order. out: [rows, tokens, C
// * ph * pw] in (ph, pw, c) order.
Pass Session::video_part(const float* x, std::int64_t frames, std::int64_t frame_start,
                         const std::vector<float>& frame_timesteps, std::int64_t guidance_rows, float* out) {
  const std::int64_t channels = transformer_->config().in_channels, ph = geometry_.patch_h, pw = geometry_.patch_w;
  const std::int64_t grid_h = latent_.height / ph, grid_w = latent_.width / pw, plane = latent_plane();
  PassInput& input = inputs_[static_cast<int>(Modality::video)];
  input.tokens.resize(static_cast<std::size_t>(channels * frames * plane));
  float* to = input.tokens.data();
  for (std::int64_t f = 0; f < frames; ++f)
    for (std::int64_t gy = 0; gy < grid_h; ++gy)
      for (std::int64_t gx = 0; gx < grid_w; ++gx)
        for (std::int64_t c = 0; c < channels; ++c)
          for (std::int64_t py = 0; py < ph; ++py) {
            const float* from = x + (c * frames + f) * plane + (gy * ph + py) * latent_.width + gx * pw;
            to = std::copy_n(from, pw, to);
          }
  // Every pass of a chunk has the same positions.
  if (input.rope_start != frame_start || input.rope_frames != frames)
    transformer_->rope().video(frame_start, frames, grid_h, grid_w, &input.rope);
  input.rope_start = frame_start;
  input.rope_frames = frames;
  return part(Modality::video, frames, grid_h * grid_w, frame_timesteps, guidance_rows, out);
}

// x: [action_dim, frames, H] -> tokens [frames * H, action_dim]. out: [rows, tokens, action_dim].
Pass Session::action_part(const float* x, std::int64_t frames, std::int64_t frame_start,
                          const std::vector<float>& frame_timesteps, std::int64_t guidance_rows, float* out) {
  const std::int64_t dim = transformer_->config().action_dim, count = frames * job_.action_per_frame;
  PassInput& input = inputs_[static_cast<int>(Modality::action)];
  input.tokens.resize(static_cast<std::size_t>(dim * count));
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t c = 0; c < dim; ++c) input.tokens[static_cast<std::size_t>(i * dim + c)] = x[c * count + i];
  if (input.rope_start != frame_start || input.rope_frames != frames)
    transformer_->rope().action(frame_start, frames, job_.action_per_frame, rounds() && job_.input_cast, &input.rope);
  input.rope_start = frame_start;
  input.rope_frames = frames;
  return part(Modality::action, frames, job_.action_per_frame, frame_timesteps, guidance_rows, out);
}

Pass Session::part(Modality modality, std::int64_t frames, std::int64_t tokens_per_frame,
                   const std::vector<float>& frame_timesteps, std::int64_t guidance_rows, float* out) const {
  const PassInput& input = inputs_[static_cast<int>(modality)];
  Pass pass;
  pass.modality = modality;
  pass.x = input.tokens.data();
  pass.frames = frames;
  pass.tokens_per_frame = tokens_per_frame;
  pass.frame_timesteps = frame_timesteps.data();
  pass.rope = &input.rope;
  pass.guidance_rows = guidance_rows;
  pass.out = out;
  return pass;
}

Status Session::video_pass(const float* x, std::int64_t frames, std::int64_t frame_start,
                           const std::vector<float>& frame_timesteps, WriteKind kind, std::int64_t guidance_rows,
                           float* out) {
  Pass pass = video_part(x, frames, frame_start, frame_timesteps, guidance_rows, out);
  return run_passes({&pass, 1}, kind);
}

Status Session::action_pass(const float* x, std::int64_t frames, std::int64_t frame_start,
                            const std::vector<float>& frame_timesteps, WriteKind kind, std::int64_t guidance_rows,
                            float* out) {
  Pass pass = action_part(x, frames, frame_start, frame_timesteps, guidance_rows, out);
  return run_passes({&pass, 1}, kind);
}

// guided = negative + scale * (positive - negative), or the positive row alone when scale <= 1. out: [rows, per_row].
void Session::guide(const std::vector<float>& out, float scale, std::int64_t per_row,
                    std::vector<float>* guided) const {
  guided->assign(out.begin(), out.begin() + per_row);
  if (scale <= 1) return;
  for (std::int64_t i = 0; i < per_row; ++i) {
    const float positive = out[static_cast<std::size_t>(i)], negative = out[static_cast<std::size_t>(per_row + i)];
    float& to = (*guided)[static_cast<std::size_t>(i)];
    to = rounds() ? round_to_bf16(negative + round_to_bf16(scale * round_to_bf16(positive - negative)))
                  : negative + scale * (positive - negative);
  }
}

void Session::step(std::vector<float>* x, const std::vector<float>& velocity, float size) const {
  for (std::size_t i = 0; i < x->size(); ++i)
    (*x)[i] = rounds() ? round_to_bf16((*x)[i] + round_to_bf16(velocity[i] * size)) : (*x)[i] + velocity[i] * size;
}

void Session::plan_chunk(const PredictArgs& args, std::int64_t frame_start, ChunkPlan* to) const {
  ChunkPlan& plan = *to;
  const std::int64_t exec_step = args.video_exec_step != 0 ? args.video_exec_step : job_.video_exec_step;
  plan.frame_start = frame_start;
  plan.frames = job_.frame_chunk_size;
  plan.condition = nullptr;
  fill_schedule(args.video_steps > 0 ? args.video_steps : job_.video_steps, job_.snr_shift, &plan.video);
  fill_schedule(args.action_steps > 0 ? args.action_steps : job_.action_steps, job_.action_snr_shift, &plan.action);
  plan.video.loop(exec_step, &plan.video_loop);
  plan.action.loop(-1, &plan.action_loop);
  plan.video_full = exec_step == -1;
  plan.video_writes = true;
  plan.guided = args.guided;
  plan.inpaint = args.inpaint;
  plan.last_action = LastAction::run;
  plan.trace = args.trace;
  plan.progress = &args.progress;
  plan.video_stage = "video";
}

void Session::make_noise(const PredictArgs& args, std::int64_t frame_start, std::vector<float>* video,
                         std::vector<float>* action) const {
  const auto fill = [&](const float* given, NoiseStream stream, std::int64_t count, std::vector<float>* to) {
    to->resize(static_cast<std::size_t>(count));
    if (given != nullptr)
      std::copy_n(given, count, to->begin());
    else
      standard_normal(args.seed, stream, static_cast<std::uint32_t>(frame_start), to->data(), count);
    if (rounds())
      for (float& value : *to) value = round_to_bf16(value);
  };
  const std::int64_t frames = job_.frame_chunk_size;
  fill(args.noise_video, NoiseStream::video, transformer_->config().in_channels * frames * latent_plane(), video);
  fill(args.noise_action, NoiseStream::action, transformer_->config().action_dim * frames * job_.action_per_frame,
       action);
}

namespace {

// Overwrites frame 0 of x [channels, frames, plane] with `value` [channels, plane], or zeros when null.
void impose_first_frame(std::vector<float>* x, std::int64_t channels, std::int64_t plane, const float* value) {
  const std::int64_t stride = std::ssize(*x) / channels;
  for (std::int64_t c = 0; c < channels; ++c) {
    if (value != nullptr)
      std::copy_n(value + c * plane, plane, x->begin() + c * stride);
    else
      std::fill_n(x->begin() + c * stride, plane, 0.0f);
  }
}

}  // namespace

// x: noise in, denoised latents out, [C, frames, h, w].
Status Session::denoise_video(const ChunkPlan& plan, std::vector<float>* x, Timing* timing) {
  const Stopwatch watch;
  const std::int64_t channels = transformer_->config().in_channels, frames = plan.frames, plane = latent_plane();
  const std::int64_t all = cache_->shape().guidance_rows, per_row = channels * frames * plane;
  const float scale = plan.guided ? job_.guidance_scale : 1.0f;
  const std::int64_t ph = geometry_.patch_h, pw = geometry_.patch_w, grid_w = latent_.width / pw;
  std::vector<float>&out = buffers_.out, &guided = buffers_.guided, &velocity = buffers_.velocity;
  out.resize(static_cast<std::size_t>(all * per_row));
  velocity.resize(static_cast<std::size_t>(per_row));
  for (std::size_t i = 0; i < plan.video_loop.size(); ++i) {
    const bool last = i + 1 == plan.video_loop.size(), steps = !last || !plan.video_full;
    const bool writes = last && plan.video_writes;
    // The second guidance row is read when video is guided or when it stays in the cache; a trace shows it always.
    const std::int64_t rows = scale > 1 || writes || plan.trace != nullptr ? all : 1;
    if (plan.condition != nullptr) impose_first_frame(x, channels, plane, plan.condition);
    const bool wanted = steps || plan.trace != nullptr;
    PREMOTOR_TRY(video_pass(x->data(), frames, plan.frame_start,
                            frame_timesteps(frames, plan.video_loop[i], plan.condition != nullptr),
                            writes ? WriteKind::predicted : WriteKind::temporary, rows, wanted ? out.data() : nullptr));
    ++timing->video_passes;
    if (plan.trace != nullptr)
      plan.trace->add("video.s" + std::to_string(i) + ".out", {rows, frames * plane, channels},
                      std::vector<float>(out));
    if (steps) {
      guide(out, scale, per_row, &guided);
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t f = 0; f < frames; ++f)
          for (std::int64_t y = 0; y < latent_.height; ++y)
            for (std::int64_t xx = 0; xx < latent_.width; ++xx) {
              const std::int64_t token = f * (plane / (ph * pw)) + y / ph * grid_w + xx / pw,
                                 part = y % ph * pw + xx % pw;
              velocity[static_cast<std::size_t>(((c * frames + f) * latent_.height + y) * latent_.width + xx)] =
                  guided[static_cast<std::size_t>((token * ph * pw + part) * channels + c)];
            }
      step(x, velocity, plan.video.step_size(i));
    }
    if (plan.condition != nullptr) impose_first_frame(x, channels, plane, plan.condition);
    if (plan.trace != nullptr && steps) {
      const std::string name = "video.s" + std::to_string(i);
      const std::vector<std::int64_t> shape{1, channels, frames, latent_.height, latent_.width};
      plan.trace->add(name + ".pred", shape, std::vector<float>(velocity));
      plan.trace->add(name + ".x", shape, std::vector<float>(*x));
    }
    if (*plan.progress)
      (*plan.progress)(plan.video_stage, static_cast<std::int64_t>(i) + 1, std::ssize(plan.video_loop));
  }
  timing->video_ms += watch.elapsed_ms();
  return Status::good();
}

// The pass at t = 0 writes the predicted actions into the cache. Nothing reads them before the next commit drops them,
// unless another prediction comes first: so it can wait. What it evicts is evicted now, as in the reference.
Status Session::last_action_pass(const ChunkPlan& plan, const std::vector<float>& x, std::size_t step, float timestep,
                                 Timing* timing) {
  const std::int64_t frames = job_.frame_chunk_size, dim = transformer_->config().action_dim,
                     count = frames * job_.action_per_frame;
  const std::int64_t rows = cache_->shape().guidance_rows;
  const std::vector<float>& timesteps = frame_timesteps(frames, timestep, plan.condition != nullptr);
  if (plan.last_action == LastAction::skip) return Status::good();
  if (plan.last_action == LastAction::run) {
    std::vector<float> out(static_cast<std::size_t>(plan.trace != nullptr ? rows * count * dim : 0));
    ++timing->action_passes;
    PREMOTOR_TRY(action_pass(x.data(), frames, plan.frame_start, timesteps, WriteKind::predicted, rows,
                             plan.trace != nullptr ? out.data() : nullptr));
    if (plan.trace != nullptr)
      plan.trace->add("action.s" + std::to_string(step) + ".out", {rows, count, dim}, std::move(out));
    return Status::good();
  }
  PREMOTOR_TRY(cache_->begin_write(count, WriteKind::predicted));
  pending_.is_waiting = true;
  pending_.tokens = x;
  pending_.frame_timesteps = timesteps;
  pending_.frame_start = plan.frame_start;
  pending_.write_rows = cache_->write_rows();
  pending_.attended = cache_->attended();
  pending_.moved.reserve(static_cast<std::size_t>(cache_->shape().capacity));
  pending_.moved = cache_->moved();
  cache_->end_write();
  return Status::good();
}

// x: noise in, denoised normalised actions out, [action_dim, K, H].
Status Session::denoise_action(const ChunkPlan& plan, std::vector<float>* x, Timing* timing) {
  const Stopwatch watch;
  const std::int64_t frames = job_.frame_chunk_size, per_frame = job_.action_per_frame,
                     dim = transformer_->config().action_dim;
  const std::int64_t count = frames * per_frame, per_row = dim * count;
  const float scale = plan.guided ? job_.action_guidance_scale : 1.0f;
  // The second guidance row of a denoising pass is read only when actions are guided; a trace shows it all the same.
  const std::int64_t all = cache_->shape().guidance_rows, rows = scale > 1 || plan.trace != nullptr ? all : 1;
  std::vector<float>&out = buffers_.out, &guided = buffers_.guided, &velocity = buffers_.velocity,
  &wanted = buffers_.wanted;
  out.resize(static_cast<std::size_t>(rows * per_row));
  velocity.resize(static_cast<std::size_t>(per_row));
  wanted.resize(static_cast<std::size_t>(plan.inpaint != nullptr ? per_row : 0));
  if (plan.inpaint != nullptr) scaler_->normalise(plan.inpaint->actions, count, rounds(), wanted.data());
  for (std::size_t i = 0; i < plan.action_loop.size(); ++i) {
    const bool last = i + 1 == plan.action_loop.size();
    if (plan.condition != nullptr) impose_first_frame(x, dim, per_frame, nullptr);
    scaler_->zero_unused(x->data(), count);
    if (last) {
      PREMOTOR_TRY(last_action_pass(plan, *x, i, plan.action_loop[i], timing));
    } else {
      PREMOTOR_TRY(action_pass(x->data(), frames, plan.frame_start,
                               frame_timesteps(frames, plan.action_loop[i], plan.condition != nullptr),
                               WriteKind::temporary, rows, out.data()));
      ++timing->action_passes;
      guide(out, scale, per_row, &guided);
      for (std::int64_t c = 0; c < dim; ++c)
        for (std::int64_t t = 0; t < count; ++t)
          velocity[static_cast<std::size_t>(c * count + t)] = guided[static_cast<std::size_t>(t * dim + c)];
      if (plan.inpaint != nullptr)
        draw_towards(*plan.inpaint, wanted, *x, plan.action.sigmas[i], plan.action.step_size(i),
                     plan.condition != nullptr ? per_frame : 0, &velocity);
      step(x, velocity, plan.action.step_size(i));
      if (plan.condition != nullptr) impose_first_frame(x, dim, per_frame, nullptr);
    }
    if (plan.trace != nullptr && !last) {
      const std::string name = "action.s" + std::to_string(i);
      const std::vector<std::int64_t> shape{1, dim, frames, per_frame, 1};
      plan.trace->add(name + ".out", {rows, count, dim}, std::vector<float>(out));
      plan.trace->add(name + ".pred", shape, std::vector<float>(velocity));
      plan.trace->add(name + ".x", shape, std::vector<float>(*x));
    }
    if (*plan.progress) (*plan.progress)("action", static_cast<std::int64_t>(i) + 1, std::ssize(plan.action_loop));
  }
  timing->action_ms += watch.elapsed_ms();
  return Status::good();
}

Status Session::run_pending() {
  if (!pending_.is_waiting) return Status::good();
  const PendingPass& waiting = pending_;
  Pass pass = action_part(waiting.tokens.data(), job_.frame_chunk_size, waiting.frame_start, waiting.frame_timesteps,
                          cache_->shape().guidance_rows, nullptr);
  pass.text = &text_;
  pass.cache = cache_.get();
  pass.write_rows = &waiting.write_rows;
  pass.attended = &waiting.attended;
  pass.moved = &waiting.moved;
  pass.cancel = &cancel_;
  PREMOTOR_TRY(passes().forward(pass));
  pending_.is_waiting = false;
  return Status::good();
}

// What was denoised, as the caller gets it.
void Session::finish_chunk(Trace* trace, ChunkResult* out) {
  std::vector<float>&video = buffers_.video, &action = buffers_.action;
  const std::int64_t frames = job_.frame_chunk_size, per_frame = job_.action_per_frame, count = frames * per_frame;
  scaler_->zero_unused(action.data(), count);
  out->actions.resize(static_cast<std::size_t>(scaler_->used() * count));
  scaler_->denormalise(action.data(), count, rounds(), out->actions.data());
  out->latents = video;
  if (trace == nullptr) return;
  trace->add("action.final_norm", {1, transformer_->config().action_dim, frames, per_frame, 1},
             std::vector<float>(action));
  trace->add("latents", {1, transformer_->config().in_channels, frames, latent_.height, latent_.width},
             std::vector<float>(video));
  trace->add("action", {scaler_->used(), frames, per_frame}, std::vector<float>(out->actions));
}

Status Session::predict(const PredictArgs& args, ChunkResult* out) {
  PREMOTOR_TRY(check_plan());
  if (!episode_) return Status::error("NO_EPISODE", "predict needs an episode: call reset with a prompt first.");
  if (frame_index_ == 0 && args.observation == nullptr && init_latent_.empty())
    return Status::error("OBS_REQUIRED",
                         "The first prediction of an episode needs an observation: one picture per camera.");
  const ThreadPool::CallerCores cores(ops_->pool());
  PREMOTOR_TRY(run_pending());
  // A failed or stopped prediction leaves no trace: the cache rolls back, and so does what the first observation
  // changed.
  std::vector<float> saved_latent;
  std::vector<VaeStreamState> saved_streams;
  if (frame_index_ == 0) saved_latent = init_latent_, saved_streams = streams_;
  const std::int64_t saved_index = frame_index_;
  cache_->mark();
  const Status status = predict_checked(args, out);
  if (status.ok()) {
    cache_->release();
    return status;
  }
  cache_->rollback();
  pending_.is_waiting = false;
  frame_index_ = saved_index;
  if (frame_index_ == 0) init_latent_ = std::move(saved_latent), streams_ = std::move(saved_streams);
  return status;
}

Status Session::predict_checked(const PredictArgs& args, ChunkResult* out) {
  const Stopwatch total;
  out->timing = {};
  out->imagined.clear();
  written_.clear();
  const bool first = frame_index_ == 0;
  if (first && args.observation != nullptr) {
    for (VaeStreamState& stream : streams_) stream.clear();
    std::int64_t frames = 0;
    PREMOTOR_TRY(encode({*args.observation}, args.trace, true, args.progress, &init_latent_, &frames));
    out->timing.encode_ms = total.elapsed_ms();
  }
  std::vector<float>&video = buffers_.video, &action = buffers_.action;
  make_noise(args, frame_index_, &video, &action);
  ChunkPlan& plan = plan_;
  plan_chunk(args, frame_index_, &plan);
  plan.condition = first ? init_latent_.data() : nullptr;
  plan.last_action = args.trace != nullptr || job_.i2va ? LastAction::run : LastAction::defer;
  if (args.trace != nullptr) {
    const std::int64_t frames = job_.frame_chunk_size;
    trace_schedules(plan);
    args.trace->add("noise.video", {1, transformer_->config().in_channels, frames, latent_.height, latent_.width},
                    std::vector<float>(video));
    args.trace->add("noise.action", {1, transformer_->config().action_dim, frames, job_.action_per_frame, 1},
                    std::vector<float>(action));
  }
  PREMOTOR_TRY(denoise_video(plan, &video, &out->timing));
  PREMOTOR_TRY(denoise_action(plan, &action, &out->timing));
  out->frame_index = frame_index_;
  finish_chunk(args.trace, out);
  if (job_.i2va) frame_index_ += job_.frame_chunk_size;
  if (args.trace != nullptr) PREMOTOR_TRY(trace_cache(args.trace));
  out->timing.total_ms = total.elapsed_ms();
  return Status::good();
}

}  // namespace premotor::engine
