// The checkpoint's three config.json files as plain structs. Parsing checks every field that the engine relies on;
// unknown keys are ignored, as the reference ignores them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace premotor::engine {

// transformer/config.json (MODEL facts: docs/MODEL.md section 2).
struct TransformerConfig {
  std::int64_t patch_t = 1, patch_h = 2, patch_w = 2;
  std::int64_t num_attention_heads = 0;
  std::int64_t attention_head_dim = 0;
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t action_dim = 0;
  std::int64_t text_dim = 0;
  std::int64_t freq_dim = 0;
  std::int64_t ffn_dim = 0;
  std::int64_t num_layers = 0;
  bool cross_attn_norm = true;
  float eps = 1e-6f;
  // Mixture-of-transformers form (paper only, no released weights): chosen by "architecture": "mot" in config.json.
  bool mot = false;
  std::int64_t action_inner_dim = 0;  // width of the action stream, mot only
  std::int64_t action_ffn_dim = 0;    // mot only

  [[nodiscard]] std::int64_t inner_dim() const { return num_attention_heads * attention_head_dim; }
  [[nodiscard]] std::int64_t patch_volume() const { return patch_t * patch_h * patch_w; }
};

// vae/config.json (AutoencoderKLWan).
struct VaeConfig {
  std::int64_t base_dim = 0;
  std::int64_t decoder_base_dim = 0;
  std::int64_t z_dim = 0;
  std::vector<std::int64_t> dim_mult;
  std::int64_t num_res_blocks = 0;
  std::vector<bool> temperal_downsample;  // one per down stage but the last (the upstream spelling)
  bool is_residual = true;
  std::int64_t in_channels = 12;
  std::int64_t out_channels = 12;
  std::int64_t patch_size = 1;  // 1 when config.json says null
  std::int64_t scale_factor_temporal = 4;
  std::int64_t scale_factor_spatial = 16;
  std::vector<float> latents_mean;  // [z_dim]
  std::vector<float> latents_std;   // [z_dim]
};

// text_encoder/config.json (UMT5 encoder).
struct TextEncoderConfig {
  std::int64_t vocab_size = 0;
  std::int64_t d_model = 0;
  std::int64_t d_kv = 0;
  std::int64_t d_ff = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t relative_attention_num_buckets = 32;
  std::int64_t relative_attention_max_distance = 128;
  float layer_norm_epsilon = 1e-6f;
};

// Each reads `folder`/config.json. Errors: CHECKPOINT_MISSING_FILE, CHECKPOINT_CONFIG.
Status read_transformer_config(const std::string& folder, TransformerConfig* out);
Status read_vae_config(const std::string& folder, VaeConfig* out);
Status read_text_encoder_config(const std::string& folder, TextEncoderConfig* out);

}  // namespace premotor::engine
