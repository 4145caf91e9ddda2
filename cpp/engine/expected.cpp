// The tensor lists of the three components. See expected.h.
#include "engine/expected.h"

#include <utility>

namespace premotor::engine {

namespace {

using Shape = std::vector<std::int64_t>;

// Collects entries; every function appends what one part of a model holds.
class List {
 public:
  void add(std::string name, Shape shape, bool vestigial = false) {
    tensors_.push_back({std::move(name), std::move(shape), vestigial});
  }
  void linear(const std::string& name, std::int64_t out, std::int64_t in, bool vestigial = false) {
    add(name + ".weight", {out, in}, vestigial);
    add(name + ".bias", {out}, vestigial);
  }
  // kernel: [kt, kh, kw] or [kh, kw].
  void convolution(const std::string& name, std::int64_t out, std::int64_t in, const Shape& kernel) {
    Shape shape = {out, in};
    shape.insert(shape.end(), kernel.begin(), kernel.end());
    add(name + ".weight", std::move(shape));
    add(name + ".bias", {out});
  }
  std::vector<ExpectedTensor> take() { return std::move(tensors_); }

 private:
  std::vector<ExpectedTensor> tensors_;
};

// `inner` is the width of attention, `width` that of the stream; they differ in the action stream of the MoT form only.
void add_attention(List* list, const std::string& prefix, std::int64_t inner, std::int64_t width,
                   std::int64_t key_width) {
  list->linear(prefix + "to_q", inner, width);
  list->linear(prefix + "to_k", inner, key_width);
  list->linear(prefix + "to_v", inner, key_width);
  list->linear(prefix + "to_out.0", width, inner);
  list->add(prefix + "norm_q.weight", {inner});
  list->add(prefix + "norm_k.weight", {inner});
}

void add_block(List* list, const std::string& prefix, const TransformerConfig& config, std::int64_t width,
               std::int64_t ffn) {
  const std::int64_t inner = config.inner_dim();
  add_attention(list, prefix + "attn1.", inner, width, width);
  add_attention(list, prefix + "attn2.", inner, width, inner);
  if (config.cross_attn_norm) {
    list->add(prefix + "norm2.weight", {width});
    list->add(prefix + "norm2.bias", {width});
  }
  list->linear(prefix + "ffn.net.0.proj", ffn, width);
  list->linear(prefix + "ffn.net.2", width, ffn);
  list->add(prefix + "scale_shift_table", {1, 6, width});
}

void add_condition_embedder(List* list, const std::string& prefix, const TransformerConfig& config, std::int64_t width,
                            bool text_is_vestigial) {
  list->linear(prefix + "time_embedder.linear_1", width, config.freq_dim);
  list->linear(prefix + "time_embedder.linear_2", width, width);
  list->linear(prefix + "time_proj", 6 * width, width);
  list->linear(prefix + "text_embedder.linear_1", width, config.text_dim, text_is_vestigial);
  list->linear(prefix + "text_embedder.linear_2", width, width, text_is_vestigial);
}

void add_residual(List* list, const std::string& prefix, std::int64_t in, std::int64_t out) {
  list->add(prefix + "norm1.gamma", {in, 1, 1, 1});
  list->convolution(prefix + "conv1", out, in, {3, 3, 3});
  list->add(prefix + "norm2.gamma", {out, 1, 1, 1});
  list->convolution(prefix + "conv2", out, out, {3, 3, 3});
  if (in != out) list->convolution(prefix + "conv_shortcut", out, in, {1, 1, 1});
}

void add_middle(List* list, const std::string& prefix, std::int64_t width) {
  add_residual(list, prefix + "resnets.0.", width, width);
  list->add(prefix + "attentions.0.norm.gamma", {width, 1, 1});
  list->convolution(prefix + "attentions.0.to_qkv", 3 * width, width, {1, 1});
  list->convolution(prefix + "attentions.0.proj", width, width, {1, 1});
  add_residual(list, prefix + "resnets.1.", width, width);
}

void add_vae_encoder(List* list, const VaeConfig& config) {
  const std::size_t stages = config.dim_mult.size();
  std::int64_t width = config.base_dim;
  list->convolution("encoder.conv_in", width, config.in_channels, {3, 3, 3});
  for (std::size_t i = 0; i < stages; ++i) {
    const std::string stage = "encoder.down_blocks." + std::to_string(i) + ".";
    const std::int64_t out = config.base_dim * config.dim_mult[i];
    for (std::int64_t block = 0; block < config.num_res_blocks; ++block) {
      add_residual(list, stage + "resnets." + std::to_string(block) + ".", block == 0 ? width : out, out);
    }
    width = out;
    if (i + 1 == stages) continue;
    list->convolution(stage + "downsampler.resample.1", out, out, {3, 3});
    if (config.temperal_downsample[i]) list->convolution(stage + "downsampler.time_conv", out, out, {3, 1, 1});
  }
  add_middle(list, "encoder.mid_block.", width);
  list->add("encoder.norm_out.gamma", {width, 1, 1, 1});
  list->convolution("encoder.conv_out", 2 * config.z_dim, width, {3, 3, 3});
}

void add_vae_decoder(List* list, const VaeConfig& config) {
  const std::size_t stages = config.dim_mult.size();
  std::int64_t width = config.decoder_base_dim * config.dim_mult.back();
  list->convolution("decoder.conv_in", width, config.z_dim, {3, 3, 3});
  add_middle(list, "decoder.mid_block.", width);
  for (std::size_t i = 0; i < stages; ++i) {
    const std::string stage = "decoder.up_blocks." + std::to_string(i) + ".";
    const std::int64_t out = config.decoder_base_dim * config.dim_mult[stages - 1 - i];
    // One block more than the encoder's stages have.
    for (std::int64_t block = 0; block <= config.num_res_blocks; ++block) {
      add_residual(list, stage + "resnets." + std::to_string(block) + ".", block == 0 ? width : out, out);
    }
    width = out;
    if (i + 1 == stages) continue;
    list->convolution(stage + "upsampler.resample.1", out, out, {3, 3});
    // Twice the channels: one half for each of the two frames that a frame becomes.
    if (config.temperal_downsample[stages - 2 - i])
      list->convolution(stage + "upsampler.time_conv", 2 * out, out, {3, 1, 1});
  }
  list->add("decoder.norm_out.gamma", {width, 1, 1, 1});
  list->convolution("decoder.conv_out", config.out_channels, width, {3, 3, 3});
}

}  // namespace

std::vector<ExpectedTensor> expected_transformer(const TransformerConfig& config) {
  List list;
  const std::int64_t inner = config.inner_dim();
  const std::int64_t action = config.mot ? config.action_inner_dim : inner;
  list.linear("patch_embedding_mlp", inner, config.in_channels * config.patch_volume());
  list.add("patch_embedding.weight", {inner, config.in_channels, config.patch_t, config.patch_h, config.patch_w}, true);
  list.add("patch_embedding.bias", {inner}, true);
  list.linear("action_embedder", action, config.action_dim);
  add_condition_embedder(&list, "condition_embedder.", config, inner, false);
  add_condition_embedder(&list, "condition_embedder_action.", config, action, true);
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    add_block(&list, "blocks." + std::to_string(layer) + ".", config, inner, config.ffn_dim);
    if (!config.mot) continue;
    add_block(&list, "action_blocks." + std::to_string(layer) + ".", config, action, config.action_ffn_dim);
  }
  list.linear("proj_out", config.out_channels * config.patch_volume(), inner);
  list.linear("action_proj_out", config.action_dim, action);
  list.add("scale_shift_table", {1, 2, inner});
  if (config.mot) list.add("action_scale_shift_table", {1, 2, action});
  return list.take();
}

std::vector<ExpectedTensor> expected_vae(const VaeConfig& config) {
  List list;
  add_vae_encoder(&list, config);
  list.convolution("quant_conv", 2 * config.z_dim, 2 * config.z_dim, {1, 1, 1});
  list.convolution("post_quant_conv", config.z_dim, config.z_dim, {1, 1, 1});
  add_vae_decoder(&list, config);
  return list.take();
}

std::vector<ExpectedTensor> expected_text_encoder(const TextEncoderConfig& config) {
  List list;
  const std::int64_t inner = config.num_heads * config.d_kv;
  list.add("shared.weight", {config.vocab_size, config.d_model});
  list.add("encoder.embed_tokens.weight", {config.vocab_size, config.d_model},
           true);  // the same matrix, when written twice
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string block = "encoder.block." + std::to_string(layer) + ".layer.";
    const std::string attention = block + "0.SelfAttention.";
    for (const char* name : {"q.weight", "k.weight", "v.weight"}) list.add(attention + name, {inner, config.d_model});
    list.add(attention + "o.weight", {config.d_model, inner});
    list.add(attention + "relative_attention_bias.weight", {config.relative_attention_num_buckets, config.num_heads});
    list.add(block + "0.layer_norm.weight", {config.d_model});
    list.add(block + "1.DenseReluDense.wi_0.weight", {config.d_ff, config.d_model});
    list.add(block + "1.DenseReluDense.wi_1.weight", {config.d_ff, config.d_model});
    list.add(block + "1.DenseReluDense.wo.weight", {config.d_model, config.d_ff});
    list.add(block + "1.layer_norm.weight", {config.d_model});
  }
  list.add("encoder.final_layer_norm.weight", {config.d_model});
  return list.take();
}

bool is_decoder_tensor(std::string_view name) { return name.starts_with("decoder.") || name.starts_with("lm_head."); }

}  // namespace premotor::engine
