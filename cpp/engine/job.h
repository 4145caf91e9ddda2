// The job: how one robot uses a checkpoint. Parsed and validated by the supervisor (src/policy/job.ts); check_job
// repeats what the engine's safety depends on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace premotor::engine {

struct JobConfig {
  bool deployed_bf16 = false;  // round activations to bfloat16 as the deployed reference does
  bool input_cast = true;      // with deployed_bf16: also round timesteps and action positions
  bool i2va = false;           // the frame index advances with each prediction; predicted tokens are the history
  bool tshape = false;         // first camera full size below, the other two at half size side by side above
  std::int64_t cameras = 1;
  float guidance_scale = 1;
  float action_guidance_scale = 1;
  std::int64_t video_steps = 5;
  std::int64_t video_exec_step = -1;
  std::int64_t action_steps = 10;
  float snr_shift = 5;
  float action_snr_shift = 1;
  std::vector<std::int64_t> used_channels;  // [used] channel ids in the robot's order
  std::vector<float> q01, q99;              // [action_dim]
  std::int64_t attn_window = 30;
  std::int64_t height = 0, width = 0;  // pixels of one camera (of the first one in the T shape)
  std::int64_t frame_chunk_size = 4;   // K, latent frames per chunk
  std::int64_t action_per_frame = 16;  // H
  std::int64_t imagine_steps = 5;      // passes that imagine the executing actions' frames (predict_next)
  std::int64_t text_rows = 512;        // text rows the network attends, padding included

  [[nodiscard]] bool guided() const { return guidance_scale > 1 || action_guidance_scale > 1; }
};

// What the checkpoint fixes about a job.
struct JobGeometry {
  std::int64_t action_dim = 30;
  std::int64_t spatial_factor = 16;  // pixels per latent pixel
  std::int64_t patch_h = 2, patch_w = 2;
};

// The joined latent picture of all cameras.
struct LatentSize {
  std::int64_t height, width;
};
LatentSize latent_size(const JobConfig& job, const JobGeometry& geometry);

// Cameras that share the size of their pictures, and a name in traces.
struct CameraGroup {
  std::string trace_name;
  std::int64_t first = 0, count = 0, height = 0, width = 0;
};
std::vector<CameraGroup> camera_groups(const JobConfig& job);

// Errors: JOB_INVALID.
Status check_job(const JobConfig& job, const JobGeometry& geometry);

// Quantile normalisation of actions between the robot's [used, F, H] in physical units and the network's [action_dim,
// F, H].
class ActionScaler {
 public:
  ActionScaler(const JobConfig& job, std::int64_t action_dim);

  // x' = 2 (x - q01) / (q99 - q01 + 1e-6) - 1 for every channel (absent ones from 0), float32; round_bf16 rounds the
  // result. Unused channels are NOT zeroed here. physical: [used, count], normalised: [action_dim, count].
  void normalise(const float* physical, std::int64_t count, bool round_bf16, float* normalised) const;
  // The inverse for the used channels. Inputs are bfloat16 values when round_bf16: then x + 1 is rounded first, as the
  // reference's tensors do.
  void denormalise(const float* normalised, std::int64_t count, bool round_bf16, float* physical) const;
  // Sets the unused channels of [action_dim, count] to zero.
  void zero_unused(float* normalised, std::int64_t count) const;

  [[nodiscard]] std::int64_t used() const { return static_cast<std::int64_t>(channels_.size()); }

 private:
  std::int64_t action_dim_;
  std::vector<std::int64_t> channels_;  // [used]
  std::vector<std::int64_t> position_;  // [action_dim] index into the robot's order, -1 when unused
  std::vector<float> q01_, span_;       // [action_dim], span = q99 - q01 + 1e-6
};

}  // namespace premotor::engine
