// The autoencoder's parts as plain structs, and their reading from a checkpoint. Part of vae.cpp's implementation; no
// one else includes it. The structure follows config.json: one stage per entry of dim_mult, each but the last halving
// (encoder) or doubling (decoder) the picture.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/config.h"
#include "engine/weights.h"
#include "ops/ops.h"

namespace premotor::engine::vae {

struct Conv {
  ops::Matrix weight;       // [channels_out, kernel_t * kernel_s * kernel_s * channels_in]
  std::vector<float> bias;  // [channels_out]
  std::int64_t channels_in = 0, channels_out = 0;
  std::int64_t kernel_t = 1, kernel_s = 1;
};

struct ResidualBlock {
  std::vector<float> gamma1;     // [channels_in]
  Conv conv1;                    // 3x3x3, causal
  std::vector<float> gamma2;     // [channels_out]
  Conv conv2;                    // 3x3x3, causal
  std::optional<Conv> shortcut;  // 1x1x1, when the widths differ
};

struct Attention {
  std::vector<float> gamma;  // [channels]
  Conv q, k, v;              // 1x1, stored as one
  Conv proj;                 // 1x1
};

struct MidBlock {
  ResidualBlock first;
  Attention attention;
  ResidualBlock second;
};

// Halves (encoder) or doubles (decoder) rows and columns, and frames when there is a time convolution.
struct Resample {
  Conv spatial;            // 3x3
  std::vector<Conv> time;  // 3x1x1, none where the frame rate stays; in the decoder one for each of two new frames
};

struct Stage {
  std::int64_t channels_in = 0, channels_out = 0;
  std::vector<ResidualBlock> blocks;
  std::optional<Resample> resample;
};

// One direction of the autoencoder. The encoder runs conv_in, stages, mid, out; the decoder conv_in, mid, stages, out.
struct Network {
  Conv conv_in;  // 3x3x3, causal
  std::vector<Stage> stages;
  MidBlock mid;
  std::vector<float> gamma_out;  // [channels of conv_out's input]
  Conv conv_out;                 // 3x3x3, causal
};

struct Weights {
  Network encoder;
  Conv quant;       // 1x1x1, [2 * z_dim] -> [2 * z_dim]
  Conv post_quant;  // 1x1x1, [z_dim] -> [z_dim]
  Network decoder;
};

// Reads every tensor that `config` (as read_vae_config accepts it) implies. Errors: those of WeightReader.
Status read_weights(WeightReader& reader, const VaeConfig& config, Weights* out);

}  // namespace premotor::engine::vae
