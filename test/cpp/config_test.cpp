// The three config.json readers: golden files and the released model's values read right, every checked field refused
// when it is wrong.
#include "engine/config.h"

#include <filesystem>
#include <string>

#include "checkpoint_files.h"
#include "tap.h"

using namespace checkpoint_files;
using premotor::Status;
using premotor::engine::read_text_encoder_config;
using premotor::engine::read_transformer_config;
using premotor::engine::read_vae_config;
using premotor::engine::TextEncoderConfig;
using premotor::engine::TransformerConfig;
using premotor::engine::VaeConfig;

namespace {

// The released transformer (docs/MODEL.md section 2).
const std::string transformer_json =
    R"({"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "num_attention_heads": 24,
  "attention_head_dim": 128, "in_channels": 48, "out_channels": 48, "action_dim": 30, "text_dim": 4096, "freq_dim": 256,
  "ffn_dim": 14336, "num_layers": 30, "cross_attn_norm": true, "eps": 1e-06, "rope_max_seq_len": 1024,
  "pos_embed_seq_len": null, "attn_mode": "flex"})";
const std::string vae_json =
    R"({"base_dim": 160, "decoder_base_dim": 256, "z_dim": 2, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
  "attn_scales": [], "temperal_downsample": [false, true, true],
  "is_residual": true, "in_channels": 12, "out_channels": 12,
  "patch_size": 2, "scale_factor_temporal": 4, "scale_factor_spatial": 16, "latents_mean": [0.5, -1],
  "latents_std": [0.25, 2]})";
const std::string text_json =
    R"({"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
  "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-06,
  "feed_forward_proj": "gated-gelu"})";

template <typename Config>
Status read(Status (*reader)(const std::string&, Config*), const std::string& json, Config* out) {
  const TempFolder folder;
  write_text(folder / "config.json", json);
  return reader(folder.path(), out);
}

// One change to a valid file must be refused, and the error must name the file and the field.
template <typename Config>
void refuses(Status (*reader)(const std::string&, Config*), const std::string& json, const std::string& from,
             const std::string& to) {
  Config config;
  const std::string field = from.substr(1, from.find('"', 1) - 1);
  const Status status = read(reader, replaced(json, from, to), &config);
  const bool good = std::string(status.code) == "CHECKPOINT_CONFIG" && status.file.ends_with("/config.json") &&
                    !status.found.empty() && status.message.find("field \"" + field + "\"") != std::string::npos;
  if (!tap::ok(good, "refuses " + (to.empty() ? "no " + field : to)))
    tap::note(status.ok() ? "accepted" : status.message);
}

void transformer() {
  TransformerConfig config;
  const Status status = read(read_transformer_config, transformer_json, &config);
  if (!status.ok()) tap::note(status.message);
  tap::ok(status.ok() && config.patch_t == 1 && config.patch_h == 2 && config.patch_w == 2 &&
              config.num_attention_heads == 24 && config.attention_head_dim == 128 && config.in_channels == 48 &&
              config.out_channels == 48 && config.action_dim == 30 && config.text_dim == 4096 &&
              config.freq_dim == 256 && config.ffn_dim == 14336 && config.num_layers == 30 && config.cross_attn_norm &&
              config.eps == 1e-6f && !config.mot,
          "the released transformer's config");
  tap::ok(config.inner_dim() == 3072 && config.patch_volume() == 4, "derived sizes");
  const std::string mot =
      replaced(transformer_json, "{", R"({"architecture": "mot", "action_inner_dim": 768, "action_ffn_dim": 3584, )");
  tap::ok(read(read_transformer_config, mot, &config).ok() && config.mot && config.action_inner_dim == 768 &&
              config.action_ffn_dim == 3584,
          "the mixture-of-transformers form");
  const std::string no_norm = replaced(transformer_json, "\"cross_attn_norm\": true", "\"cross_attn_norm\": false");
  tap::ok(read(read_transformer_config, no_norm, &config).ok() && !config.cross_attn_norm,
          "no norm before cross-attention");
  for (const int dim : {6, 8, 12, 14, 20, 24, 26, 32, 128, 254}) {
    const std::string json =
        replaced(transformer_json, "\"attention_head_dim\": 128", "\"attention_head_dim\": " + std::to_string(dim));
    tap::ok(read(read_transformer_config, json, &config).ok() && config.attention_head_dim == dim,
            "head_dim " + std::to_string(dim));
  }
  const auto no = [](const std::string& from, const std::string& to) {
    refuses(read_transformer_config, transformer_json, from, to);
  };
  no("\"attention_head_dim\": 128", "\"attention_head_dim\": 4");
  no("\"attention_head_dim\": 128", "\"attention_head_dim\": 27");
  no("\"attention_head_dim\": 128", "\"attention_head_dim\": 258");  // a third is even, but it is too large
  no("\"attention_head_dim\": 128", "\"attention_head_dim\": 22");   // a third is 7: no whole pairs
  no("\"attention_head_dim\": 128", "\"attention_head_dim\": 64");
  no("\"patch_size\": [1, 2, 2]", "\"patch_size\": [2, 2, 2]");
  no("\"patch_size\": [1, 2, 2]", "\"patch_size\": [1, 2]");
  no("\"patch_size\": [1, 2, 2]", "\"patch_size\": 2");
  no("\"patch_size\": [1, 2, 2]", "\"patch_size\": [1, 0, 2]");
  no("\"num_attention_heads\": 24", "\"num_attention_heads\": 0");
  no("\"num_attention_heads\": 24", "\"num_attention_heads\": -1");
  no("\"num_attention_heads\": 24", "\"num_attention_heads\": 24.5");
  no("\"num_attention_heads\": 24", "\"num_attention_heads\": \"24\"");
  no("\"num_attention_heads\": 24", "\"num_attention_heads\": null");
  no("\"num_attention_heads\": 24", "\"num_attention_heads\": 1000000000000");
  no("\"num_attention_heads\": 24,", "");
  no("\"in_channels\": 48", "\"in_channels\": 0");
  no("\"out_channels\": 48", "\"out_channels\": 24");
  no("\"action_dim\": 30", "\"action_dim\": 0");
  no("\"text_dim\": 4096", "\"text_dim\": 0");
  no("\"freq_dim\": 256", "\"freq_dim\": 255");
  no("\"ffn_dim\": 14336", "\"ffn_dim\": []");
  no("\"num_layers\": 30", "\"num_layers\": 0");
  no("\"cross_attn_norm\": true", "\"cross_attn_norm\": 1");
  no("\"eps\": 1e-06", "\"eps\": 0");
  no("\"eps\": 1e-06", "\"eps\": \"1e-6\"");
  const std::string shared = replaced(transformer_json, "{", "{\"architecture\": \"shared\", ");
  refuses(read_transformer_config, shared, "\"architecture\": \"shared\"", "\"architecture\": \"other\"");
  refuses(read_transformer_config, mot, "\"action_inner_dim\": 768", "\"action_inner_dim\": 0");
  refuses(read_transformer_config, mot, "\"action_ffn_dim\": 3584,", "");
}

void vae() {
  VaeConfig config;
  const Status status = read(read_vae_config, vae_json, &config);
  if (!status.ok()) tap::note(status.message);
  tap::ok(status.ok() && config.base_dim == 160 && config.decoder_base_dim == 256 && config.z_dim == 2 &&
              config.dim_mult.size() == 4 && config.dim_mult[3] == 4 && config.num_res_blocks == 2 &&
              config.temperal_downsample == std::vector<bool>{false, true, true} && config.is_residual &&
              config.in_channels == 12 && config.out_channels == 12 && config.patch_size == 2 &&
              config.scale_factor_spatial == 16 && config.scale_factor_temporal == 4 &&
              config.latents_mean[1] == -1.0f && config.latents_std[0] == 0.25f,
          "the released autoencoder's config");
  std::string json = replaced(vae_json, "\"decoder_base_dim\": 256", "\"decoder_base_dim\": null");
  tap::ok(read(read_vae_config, json, &config).ok() && config.decoder_base_dim == 160,
          "decoder_base_dim null is base_dim");
  json = replaced(replaced(vae_json, "\"patch_size\": 2", "\"patch_size\": null"),
                  "\"in_channels\": 12, \"out_channels\": 12", "\"in_channels\": 3, \"out_channels\": 3");
  json = replaced(json, "\"scale_factor_spatial\": 16", "\"scale_factor_spatial\": 8");
  tap::ok(read(read_vae_config, json, &config).ok() && config.patch_size == 1 && config.scale_factor_spatial == 8,
          "patch_size null is 1");
  json = replaced(vae_json, "\"scale_factor_temporal\": 4, \"scale_factor_spatial\": 16, ", "");
  tap::ok(read(read_vae_config, json, &config).ok() && config.scale_factor_spatial == 16 &&
              config.scale_factor_temporal == 4,
          "absent factors follow from the stages");
  json = replaced(vae_json, "\"attn_scales\": []", "\"attn_scales\": [0.5]");
  tap::ok(read(read_vae_config, json, &config).ok(), "attn_scales means nothing in the residual form");
  const auto no = [](const std::string& from, const std::string& to) { refuses(read_vae_config, vae_json, from, to); };
  no("\"is_residual\": true", "\"is_residual\": false");
  no("\"is_residual\": true,", "");
  no("\"base_dim\": 160", "\"base_dim\": 0");
  no("\"z_dim\": 2", "\"z_dim\": null");
  no("\"dim_mult\": [1, 2, 4, 4]", "\"dim_mult\": []");
  no("\"dim_mult\": [1, 2, 4, 4]", "\"dim_mult\": [1, 2, 4, 0]");
  no("\"dim_mult\": [1, 2, 4, 4]", "\"dim_mult\": [1, 2, 4, 3]");  // groups of channels do not come out even
  no("\"temperal_downsample\": [false, true, true]", "\"temperal_downsample\": [false, true]");
  no("\"temperal_downsample\": [false, true, true]", "\"temperal_downsample\": [0, 1, 1]");
  no("\"scale_factor_temporal\": 4", "\"scale_factor_temporal\": 8");
  no("\"scale_factor_spatial\": 16", "\"scale_factor_spatial\": 8");
  no("\"in_channels\": 12", "\"in_channels\": 3");
  no("\"out_channels\": 12", "\"out_channels\": 3");
  no("\"num_res_blocks\": 2", "\"num_res_blocks\": 0");
  no("\"latents_mean\": [0.5, -1]", "\"latents_mean\": [0.5]");
  no("\"latents_mean\": [0.5, -1]", "\"latents_mean\": [0.5, null]");
  no("\"latents_std\": [0.25, 2]", "\"latents_std\": [0.25, 0]");
  no("\"latents_std\": [0.25, 2]", "\"latents_std\": [0.25, 1e300]");
}

void text_encoder() {
  TextEncoderConfig config;
  const Status status = read(read_text_encoder_config, text_json, &config);
  if (!status.ok()) tap::note(status.message);
  tap::ok(status.ok() && config.vocab_size == 256384 && config.d_model == 4096 && config.d_kv == 64 &&
              config.d_ff == 10240 && config.num_layers == 24 && config.num_heads == 64 &&
              config.relative_attention_num_buckets == 32 && config.relative_attention_max_distance == 128 &&
              config.layer_norm_epsilon == 1e-6f,
          "the released text encoder's config");
  const auto no = [](const std::string& from, const std::string& to) {
    refuses(read_text_encoder_config, text_json, from, to);
  };
  no("\"feed_forward_proj\": \"gated-gelu\"", "\"feed_forward_proj\": \"relu\"");
  no("\"feed_forward_proj\": \"gated-gelu\"", "\"feed_forward_proj\": null");
  no("\"vocab_size\": 256384", "\"vocab_size\": 0");
  no("\"d_model\": 4096", "\"d_model\": 0");
  no("\"d_kv\": 64", "\"d_kv\": true");
  no("\"d_ff\": 10240,", "");
  no("\"num_layers\": 24", "\"num_layers\": 1e3");
  no("\"num_heads\": 64", "\"num_heads\": {}");
  no("\"relative_attention_num_buckets\": 32", "\"relative_attention_num_buckets\": 2");
  no("\"relative_attention_num_buckets\": 32", "\"relative_attention_num_buckets\": 30");
  no("\"relative_attention_max_distance\": 128", "\"relative_attention_max_distance\": 8");
  no("\"layer_norm_epsilon\": 1e-06", "\"layer_norm_epsilon\": -1");
}

void golden_files() {
  for (const std::string& name : golden_checkpoints()) {
    TransformerConfig transformer_config;
    VaeConfig vae_config;
    TextEncoderConfig text_config;
    const std::string folder = golden_checkpoint(name);
    const bool good = read_transformer_config(folder + "/transformer", &transformer_config).ok() &&
                      read_vae_config(folder + "/vae", &vae_config).ok() &&
                      read_text_encoder_config(folder + "/text_encoder", &text_config).ok();
    tap::ok(good && text_config.d_model == transformer_config.text_dim &&
                vae_config.z_dim == transformer_config.in_channels,
            name + ": the three configs read, and fit each other");
  }
}

void broken_files() {
  TransformerConfig config;
  const TempFolder folder;
  Status status = read_transformer_config(folder.path(), &config);
  tap::ok(std::string(status.code) == "CHECKPOINT_MISSING_FILE" && status.file == folder / "config.json",
          "no config.json");
  status = read(read_transformer_config, "{\"patch_size\": [1,", &config);
  tap::ok(std::string(status.code) == "CHECKPOINT_CONFIG" && status.found.find("byte") != std::string::npos,
          "cut JSON, with the offset");
  status = read(read_transformer_config, "[]", &config);
  tap::ok(std::string(status.code) == "CHECKPOINT_CONFIG" && config.num_layers == 0,
          "an array; the result is left alone");
}

}  // namespace

int main() {
  transformer();
  vae();
  text_encoder();
  golden_files();
  broken_files();
  return tap::finish();
}
