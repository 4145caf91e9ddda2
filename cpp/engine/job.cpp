#include "engine/job.h"

#include <algorithm>

#include "base/half.h"

namespace premotor::engine {
namespace {

Status invalid(const std::string& what) {
  return Status::error("JOB_INVALID", "The job does not fit the engine: " + what);
}

std::string number(std::int64_t value) { return std::to_string(value); }

}  // namespace

LatentSize latent_size(const JobConfig& job, const JobGeometry& geometry) {
  const std::int64_t height = job.height / geometry.spatial_factor, width = job.width / geometry.spatial_factor;
  if (job.tshape) return {height * 3 / 2, width};
  return {height, width * job.cameras};
}

std::vector<CameraGroup> camera_groups(const JobConfig& job) {
  if (!job.tshape) return {{"streaming_vae", 0, job.cameras, job.height, job.width}};
  return {{"streaming_vae", 0, 1, job.height, job.width}, {"streaming_vae_half", 1, 2, job.height / 2, job.width / 2}};
}

Status check_job(const JobConfig& job, const JobGeometry& geometry) {
  const std::int64_t action_dim = geometry.action_dim;
  if (job.used_channels.empty()) return invalid("used_action_channel_ids is empty.");
  std::vector<std::int64_t> sorted = job.used_channels;
  std::sort(sorted.begin(), sorted.end());
  if (sorted.front() < 0 || sorted.back() >= action_dim ||
      std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    return invalid("used_action_channel_ids must be different numbers of 0 .. " + number(action_dim - 1) + ".");
  if (std::ssize(job.q01) != action_dim || std::ssize(job.q99) != action_dim)
    return invalid("norm_stat needs " + number(action_dim) +
                   " q01 and q99 values (action_dim of the checkpoint), found " + number(std::ssize(job.q01)) +
                   " and " + number(std::ssize(job.q99)) + ".");
  if (job.cameras < 1 || (job.tshape && job.cameras != 3))
    return invalid("robotwin_tshape needs 3 cameras, other layouts at least 1.");
  const LatentSize latent = latent_size(job, geometry);
  const std::int64_t pixels =
      job.tshape ? 2 * geometry.spatial_factor : geometry.spatial_factor;  // the half-size cameras divide twice
  if (job.height < 1 || job.width < 1 || job.height % pixels != 0 || job.width % pixels != 0)
    return invalid("height and width must be multiples of " + number(pixels) + " pixels, found " + number(job.height) +
                   " x " + number(job.width) + ".");
  if (latent.height % geometry.patch_h != 0 || latent.width % geometry.patch_w != 0)
    return invalid("the joined latent of " + number(latent.height) + " x " + number(latent.width) +
                   " does not divide into patches of " + number(geometry.patch_h) + " x " + number(geometry.patch_w) +
                   "; change height or width.");
  if (job.frame_chunk_size < 1 || job.action_per_frame < 1 || job.attn_window < 2)
    return invalid("frame_chunk_size and action_per_frame must be at least 1, attn_window at least 2.");
  if (job.video_steps < 1 || job.action_steps < 1 || job.imagine_steps < 1)
    return invalid("step counts must be at least 1.");
  if (job.video_exec_step != -1 && (job.video_exec_step < 1 || job.video_exec_step > job.video_steps + 1))
    return invalid("video_exec_step must be -1 or 1 .. num_inference_steps + 1, found " + number(job.video_exec_step) +
                   ".");
  if (job.snr_shift <= 0 || job.action_snr_shift <= 0)
    return invalid("snr_shift and action_snr_shift must be positive.");
  if (job.guidance_scale <= 1 && job.action_guidance_scale > 1)
    return invalid("action_guidance_scale > 1 needs guidance_scale > 1 (there is no negative prompt otherwise).");
  return Status::good();
}

ActionScaler::ActionScaler(const JobConfig& job, std::int64_t action_dim)
    : action_dim_(action_dim),
      channels_(job.used_channels),
      position_(static_cast<std::size_t>(action_dim), -1),
      q01_(job.q01) {
  for (std::size_t i = 0; i < channels_.size(); ++i)
    position_[static_cast<std::size_t>(channels_[i])] = static_cast<std::int64_t>(i);
  for (std::size_t c = 0; c < q01_.size(); ++c) span_.push_back(job.q99[c] - job.q01[c] + 1e-6f);
}

void ActionScaler::normalise(const float* physical, std::int64_t count, bool round_bf16, float* normalised) const {
  for (std::int64_t c = 0; c < action_dim_; ++c) {
    const std::int64_t from = position_[static_cast<std::size_t>(c)];
    const float q01 = q01_[static_cast<std::size_t>(c)], span = span_[static_cast<std::size_t>(c)];
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = from < 0 ? 0.0f : physical[from * count + i];
      const float scaled = (value - q01) / span * 2.0f - 1.0f;
      normalised[c * count + i] = round_bf16 ? round_to_bf16(scaled) : scaled;
    }
  }
}

void ActionScaler::denormalise(const float* normalised, std::int64_t count, bool round_bf16, float* physical) const {
  for (std::size_t u = 0; u < channels_.size(); ++u) {
    const auto c = static_cast<std::size_t>(channels_[u]);
    const float* from = normalised + channels_[u] * count;
    for (std::int64_t i = 0; i < count; ++i) {
      const float raised = round_bf16 ? round_to_bf16(from[i] + 1.0f) : from[i] + 1.0f;
      physical[static_cast<std::int64_t>(u) * count + i] = raised / 2.0f * span_[c] + q01_[c];
    }
  }
}

void ActionScaler::zero_unused(float* normalised, std::int64_t count) const {
  for (std::int64_t c = 0; c < action_dim_; ++c)
    if (position_[static_cast<std::size_t>(c)] < 0) std::fill_n(normalised + c * count, count, 0.0f);
}

}  // namespace premotor::engine
