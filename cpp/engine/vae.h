// The Wan2.2 causal video autoencoder: a streaming encoder whose convolution state lives over an episode, and a
// decoder. Facts: docs/MODEL.md section 2 and diffusers' AutoencoderKLWan (is_residual true). Layout inside: [frame,
// row, column, channel] float32.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/config.h"
#include "engine/weights.h"
#include "ops/ops.h"

namespace premotor::engine {

// The causal history of every convolution of one video stream. Empty at the start of an episode.
struct VaeStreamState {
  // Per cached convolution, in the order of execution: the last frames of its input, [1 or 2, h, w, c]; empty before
  // the first chunk.
  std::vector<std::vector<float>> history;
  std::int64_t height = 0, width = 0;  // of the stream's pictures, in pixels; set by its first chunk
  bool started = false;

  void clear() { *this = {}; }
};

// Called with a name ("encoder.conv_in", "encoder.down_blocks.0", "encoder.mid_block", "decoder.conv_in",
// "decoder.mid_block", "decoder.up_blocks.0", ...) and the activation [frames, height, width, channels]; for tests. May
// be empty.
using VaeTap = std::function<void(const std::string& name, const float* data, std::int64_t frames, std::int64_t height,
                                  std::int64_t width, std::int64_t channels)>;

// Called after every few pictures with how many of this call's are encoded. May be empty.
using FramesDone = std::function<void(std::int64_t frames)>;

// Between what the autoencoder reads and writes and what the transformer does.
// latents[r, c] = (moments[r, c] - mean[c]) * (1 / std[c]) in float32, the result rounded when asked. moments: [rows,
// 2*z_dim], of which the first half is the mean; latents: [rows, z_dim].
void normalise_latents(const VaeConfig& config, const float* moments, std::int64_t rows, ops::Rounding rounding,
                       float* latents);
// The way back: out[r, c] = latents[r, c] / (1 / std[c]) + mean[c], in float32, or with every value and step rounded
// when asked (the reference then computes in bfloat16). Both [rows, z_dim]; out may be latents.
void denormalise_latents(const VaeConfig& config, const float* latents, std::int64_t rows, ops::Rounding rounding,
                         float* out);

class Vae {
 public:
  ~Vae();
  // Reads `folder`/config.json and its tensors. `ops` must outlive this object.
  static Status open(const std::string& folder, WeightPrecision precision, ops::Rounding rounding, ops::Ops& ops,
                     std::unique_ptr<Vae>* out, PlanUse plan = {});

  [[nodiscard]] const VaeConfig& config() const;
  [[nodiscard]] std::int64_t weight_bytes() const;               // mapped + converted
  [[nodiscard]] const std::vector<std::string>& unread() const;  // tensors of the file that nothing uses

  // Encodes `frames` pictures of one stream: pixels [frames, height, width, 3] in [-1, 1] (already rounded in bf16
  // mode). The first chunk of a stream has 1 frame, later ones a multiple of 4. moments: [frames_out, height/16,
  // width/16, 2*z_dim], frames_out = 1 for the first chunk, frames/4 after (general factors from config.json). A few
  // frames are in work at once, whatever the chunk's length. Errors: FRAME_INVALID (the stream is as before),
  // OUT_OF_MEMORY (the stream is cleared: its episode must start again).
  Status encode(const float* pixels, std::int64_t frames, std::int64_t height, std::int64_t width,
                VaeStreamState* state, std::vector<float>* moments, const VaeTap& tap = {},
                const FramesDone& on_done = {}) const;

  // Decodes de-normalised latents [frames, h, w, z_dim] from the start of a video: pixels [1 + (frames-1)*4, h*16,
  // w*16, 3], clamped to [-1, 1]. Errors: FRAME_INVALID, OUT_OF_MEMORY.
  Status decode(const float* latents, std::int64_t frames, std::int64_t height, std::int64_t width,
                std::vector<float>* pixels, const VaeTap& tap = {}) const;

 private:
  struct Impl;
  explicit Vae(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace premotor::engine
