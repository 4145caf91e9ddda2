// Rebuilding an episode from what it committed, without its pictures, and filling the cache for measurements.
#include <algorithm>

#include "base/thread_pool.h"
#include "engine/session.h"
#include "engine/stream_state.h"

namespace premotor::engine {

Status Session::encoder_state(const std::string& tag, std::vector<std::uint8_t>* out) const {
  if (!episode_) return Status::error("NO_EPISODE", "encoderState needs an episode: call reset with a prompt first.");
  if (frame_index_ == 0)
    return Status::error("OBS_REQUIRED", "The video encoder has a state worth keeping only after the first commit.");
  *out = pack_streams(streams_, tag);
  return Status::good();
}

// Streams that have run over one grey picture: what a state of this job must look like.
Status Session::stream_layout(std::vector<VaeStreamState>* layout) const {
  layout->assign(streams_.size(), {});
  for (const CameraGroup& group : groups_) {
    const std::vector<float> grey(static_cast<std::size_t>(group.height * group.width * 3), 0.0f);
    std::vector<float> unused;
    VaeStreamState first;
    PREMOTOR_TRY(vae_->encode(grey.data(), 1, group.height, group.width, &first, &unused));
    std::fill_n(layout->begin() + group.first, group.count, first);
  }
  return Status::good();
}

Status Session::restore(const RestoreArgs& args) {
  const ThreadPool::CallerCores cores(ops_->pool());
  PREMOTOR_TRY(reset(args.positive, args.negative));
  episode_ = false;  // until all of it is there
  std::vector<VaeStreamState> layout, streams;
  PREMOTOR_TRY(stream_layout(&layout));
  PREMOTOR_TRY(unpack_streams(args.encoder, args.tag, layout, &streams));
  const std::int64_t dim = transformer_->config().action_dim;
  std::int64_t done = 0;
  for (const PastCommit& past : args.commits) {
    if (cancel_.load()) return Status::error("ABORTED", "The computation was stopped on request.");
    PREMOTOR_TRY(check_frames(past.frames));
    const std::int64_t count = past.frames * job_.action_per_frame;
    std::vector<float> action(static_cast<std::size_t>(dim * count));
    scaler_->normalise(past.actions, count, rounds(), action.data());
    scaler_->zero_unused(action.data(), count);
    if (past.predicted) PREMOTOR_TRY(evict_as_prediction());
    PREMOTOR_TRY(write_clean(past.latents, action.data(), past.frames, frame_index_, WriteKind::committed, {}));
    frame_index_ += past.frames;
    if (args.progress) args.progress("recover", ++done, std::ssize(args.commits));
  }
  streams_ = std::move(streams);
  episode_ = true;
  return Status::good();
}

// A prediction's entries are dropped by the commit after it, but what they displaced from a full cache stays away: that
// commit's passes do not see it. Nothing is computed, because nobody attends to these entries.
Status Session::evict_as_prediction() {
  for (const std::int64_t tokens : {video_tokens_per_frame(), job_.action_per_frame}) {
    PREMOTOR_TRY(cache_->begin_write(job_.frame_chunk_size * tokens, WriteKind::predicted));
    cache_->end_write();
  }
  cache_->clear_predicted();
  return Status::good();
}

Status Session::occupy() {
  if (!episode_) return Status::error("NO_EPISODE", "occupy needs an episode: call reset with a prompt first.");
  const std::int64_t frames = job_.frame_chunk_size;
  pending_.is_waiting = false;
  cache_->clear_predicted();
  while (cache_->counts().valid < cache_->shape().capacity) {
    for (const std::int64_t tokens : {frames * video_tokens_per_frame(), frames * job_.action_per_frame}) {
      PREMOTOR_TRY(cache_->begin_write(tokens, WriteKind::committed));
      if (on_device_ == nullptr)
        cache_->fill_written(static_cast<std::uint64_t>(frame_index_));
      else
        PREMOTOR_TRY(on_device_->fill_rows(cache_->write_rows(), static_cast<std::uint64_t>(frame_index_)));
      cache_->end_write();
    }
    frame_index_ += frames;
  }
  return Status::good();
}

}  // namespace premotor::engine
