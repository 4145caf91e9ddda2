// The grounded asynchronous step (docs/MODEL.md section 7, docs/ENGINE.md): commit what was seen, append what is being
// executed on a marked cache, predict what comes after it, roll back.
#include <algorithm>

#include "base/half.h"
#include "base/philox.h"
#include "base/thread_pool.h"
#include "engine/session.h"
#include "engine/session_clock.h"

namespace premotor::engine {

Status Session::check_executing(const ExecutingArgs& executing) const {
  if (executing.frames < 0 || executing.frames > job_.frame_chunk_size)
    return Status::error("ACTIONS_INVALID", "predictNext takes executing actions of 0 to " +
                                                std::to_string(job_.frame_chunk_size) + " latent frames, found " +
                                                std::to_string(executing.frames) + ". Pass those of one chunk.");
  return Status::good();
}

Status Session::predict_next(const CommitArgs* seen, const ExecutingArgs& executing, const PredictArgs& args,
                             ChunkResult* out) {
  const Stopwatch total;
  PREMOTOR_TRY(check_plan());
  const ThreadPool::CallerCores cores(ops_->pool());
  if (!episode_) return Status::error("NO_EPISODE", "predictNext needs an episode: call reset with a prompt first.");
  PREMOTOR_TRY(check_executing(executing));
  out->timing = {};
  out->imagined.clear();
  if (seen == nullptr) {
    out->committed.reset();
  } else {
    if (!out->committed) out->committed.emplace();
    PREMOTOR_TRY(commit(*seen, &*out->committed));
    out->timing = out->committed->timing;
  }
  if (frame_index_ == 0)
    return Status::error("OBS_REQUIRED",
                         "predictNext follows a commit, and this episode has none: commit its first frame with the "
                         "padding group of its first chunk, or call predict.");
  // A prediction that was not committed yet is no history; under the mark it is dropped only for this call.
  cache_->mark();
  cache_->clear_predicted();
  const Status status = predict_after(executing, args, out);
  cache_->rollback();
  out->timing.total_ms = total.elapsed_ms();
  return status;
}

// Denoises the frames that the executing actions will cause. The actions are given and see only the past, and the noisy
// frames see them: the forward-dynamics form of the network's training. What this writes is rolled back: the history
// that the next chunk sees is appended afterwards, in the order of a commit. action: [action_dim, frames, H]
// normalised.
Status Session::imagine(const std::vector<float>& action, std::int64_t frames, const PredictArgs& args,
                        std::vector<float>* video, Timing* timing) {
  PredictArgs dream;
  dream.video_steps = args.imagine_steps > 0 ? args.imagine_steps : job_.imagine_steps;
  dream.video_exec_step = -1;
  dream.guided = args.guided;
  dream.progress = args.progress;
  ChunkPlan& plan = imagine_plan_;
  plan_chunk(dream, frame_index_, &plan);
  plan.frames = frames;
  plan.video_loop.pop_back();  // the pass at t = 0 would only write the cache
  plan.video_full = plan.video_writes = false;
  plan.video_stage = "imagine";
  if (args.noise_imagined != nullptr)
    std::copy_n(args.noise_imagined, video->size(), video->begin());
  else
    standard_normal(args.seed, NoiseStream::imagined, static_cast<std::uint32_t>(frame_index_), video->data(),
                    std::ssize(*video));
  if (rounds())
    for (float& value : *video) value = round_to_bf16(value);
  cache_->mark();
  Status status = action_pass(action.data(), frames, frame_index_, frame_timesteps(frames, 0.0f, false),
                              WriteKind::predicted, plan.guided ? cache_->shape().guidance_rows : 1, nullptr);
  if (status.ok()) status = denoise_video(plan, video, timing);
  cache_->rollback();
  return status;
}

// Appends the executing actions and their frames as a commit would: clean video first, then the actions, which see it.
// That is the history that the network was trained on (training/premotor_training/teacher_forcing.py); MODEL.md names a
// looser order, actions before video.
Status Session::append_executing(const ExecutingArgs& executing, const PredictArgs& args, ChunkResult* out) {
  const Stopwatch watch;
  const std::int64_t frames = executing.frames, count = frames * job_.action_per_frame;
  std::vector<float>&action = buffers_.executing_action, &video = buffers_.executing_video;
  action.resize(static_cast<std::size_t>(transformer_->config().action_dim * count));
  video.resize(static_cast<std::size_t>(transformer_->config().in_channels * frames * latent_plane()));
  scaler_->normalise(executing.actions, count, rounds(), action.data());
  scaler_->zero_unused(action.data(), count);
  if (executing.forecast != nullptr) {
    std::copy_n(executing.forecast, video.size(), video.begin());
  } else {
    Timing imagined;
    PREMOTOR_TRY(imagine(action, frames, args, &video, &imagined));
    out->imagined = video;
    if (args.trace != nullptr)
      args.trace->add("imagined", {1, transformer_->config().in_channels, frames, latent_.height, latent_.width},
                      std::vector<float>(video));
  }
  PREMOTOR_TRY(write_clean(video.data(), action.data(), frames, frame_index_, WriteKind::predicted, {}));
  out->timing.imagine_ms = watch.elapsed_ms();
  return Status::good();
}

// On a marked cache that the caller rolls back: what is being executed, and the chunk after it.
Status Session::predict_after(const ExecutingArgs& executing, const PredictArgs& args, ChunkResult* out) {
  if (executing.frames > 0) PREMOTOR_TRY(append_executing(executing, args, out));
  const std::int64_t start = frame_index_ + executing.frames;
  std::vector<float>&video = buffers_.video, &action = buffers_.action;
  ChunkPlan& plan = plan_;
  plan_chunk(args, start, &plan);
  plan.last_action = args.trace != nullptr ? LastAction::run : LastAction::skip;
  make_noise(args, start, &video, &action);
  PREMOTOR_TRY(denoise_video(plan, &video, &out->timing));
  PREMOTOR_TRY(denoise_action(plan, &action, &out->timing));
  out->frame_index = start;
  finish_chunk(args.trace, out);
  return Status::good();
}

}  // namespace premotor::engine
