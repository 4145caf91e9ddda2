// Reading the transformer's weights: names and shapes of docs/MODEL.md sections 2 (shared form) and 8 (mixture of
// transformers).
#include <utility>

#include "engine/plan_file.h"
#include "engine/transformer.h"

namespace premotor::engine {

Transformer::Transformer(TransformerConfig config, ops::Rounding rounding, ops::Ops& ops)
    : config_(config), rounding_(rounding), ops_(ops), rope_(config.attention_head_dim) {}

Status Transformer::open(const std::string& folder, WeightPrecision precision, ops::Rounding rounding, ops::Ops& ops,
                         std::unique_ptr<Transformer>* out, PlanUse plan) {
  TransformerConfig config;
  PREMOTOR_TRY(read_transformer_config(folder, &config));
  std::unique_ptr<Transformer> transformer(new Transformer(config, rounding, ops));
  PREMOTOR_TRY(transformer->read(folder, precision, plan));
  *out = std::move(transformer);
  return Status::good();
}

Status Transformer::read(const std::string& folder, WeightPrecision precision, PlanUse plan) {
  if (plan.sketch != nullptr) {
    WeightReader reader(*plan.sketch, "transformer", precision);
    return read_parts(reader);
  }
  if (plan.from != nullptr) {
    WeightReader reader(*plan.from, "transformer", ops_);
    PREMOTOR_TRY(read_parts(reader));
    if (const PlanPart* part = plan.from->contents().part("transformer")) {
      parameters_ = part->parameters;
      weight_bytes_ = part->weight_bytes;
      unread_ = part->unread;
    }
    return Status::good();
  }
  static constexpr std::string_view stems[] = {"diffusion_pytorch_model", "model"};
  PREMOTOR_TRY(TensorStore::open_folder(folder, stems, &store_));
  for (const StoredTensor& tensor : store_.tensors()) parameters_ += tensor.elements();
  // A device quantises what it gets by itself.
  const bool is_quantised = format_of(precision) != ops::WeightFormat::stored;
  WeightReader reader(store_, plan.keeps_stored && is_quantised ? WeightPrecision::f32 : precision);
  if (plan.to != nullptr)
    reader.record_to(*plan.to, "transformer", ops_, rounding_);
  else if (!plan.keeps_stored)
    reader.prepare_with(ops_, rounding_);
  PREMOTOR_TRY(read_parts(reader));
  unread_ = reader.unread();
  weight_bytes_ = reader.weight_bytes();
  buffers_ = reader.take_buffers();
  if (plan.to != nullptr) plan.to->contents().parts.push_back({"transformer", parameters_, weight_bytes_, unread_});
  return Status::good();
}

Status Transformer::read_parts(WeightReader& reader) {
  for (const Modality modality : {Modality::video, Modality::action})
    PREMOTOR_TRY(read_stream(reader, modality, &streams_[static_cast<int>(modality)]));
  return read_text_embedder(reader);
}

Status Transformer::read_stream(WeightReader& reader, Modality modality, StreamWeights* out) {
  const bool action = modality == Modality::action;
  const bool separate = config_.mot && action;
  out->width = separate ? config_.action_inner_dim : config_.inner_dim();
  out->ffn_dim = separate ? config_.action_ffn_dim : config_.ffn_dim;
  const std::int64_t features_in = action ? config_.action_dim : config_.in_channels * config_.patch_volume();
  const std::int64_t features_out = action ? config_.action_dim : config_.out_channels * config_.patch_volume();
  PREMOTOR_TRY(
      read_linear(reader, action ? "action_embedder" : "patch_embedding_mlp", out->width, features_in, &out->embed));
  PREMOTOR_TRY(read_linear(reader, action ? "action_proj_out" : "proj_out", features_out, out->width, &out->head));
  const std::string time = action ? "condition_embedder_action." : "condition_embedder.";
  PREMOTOR_TRY(read_linear(reader, time + "time_embedder.linear_1", out->width, config_.freq_dim, &out->time.linear_1));
  PREMOTOR_TRY(read_linear(reader, time + "time_embedder.linear_2", out->width, out->width, &out->time.linear_2));
  PREMOTOR_TRY(read_linear(reader, time + "time_proj", 6 * out->width, out->width, &out->time.time_proj));
  PREMOTOR_TRY(reader.floats(separate ? "action_scale_shift_table" : "scale_shift_table", {1, 2, out->width},
                             &out->scale_shift_table));
  if (action && !separate) {
    out->blocks = streams_[0].blocks;
    return Status::good();
  }
  out->own_blocks.resize(static_cast<std::size_t>(config_.num_layers));
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const std::string prefix = (action ? "action_blocks." : "blocks.") + std::to_string(layer) + ".";
    PREMOTOR_TRY(
        read_block(reader, prefix, out->width, out->ffn_dim, &out->own_blocks[static_cast<std::size_t>(layer)]));
  }
  out->blocks = &out->own_blocks;
  return Status::good();
}

Status Transformer::read_block(WeightReader& reader, const std::string& prefix, std::int64_t width, std::int64_t ffn,
                               BlockWeights* out) {
  PREMOTOR_TRY(read_self_attention(reader, prefix + "attn1.", width, &out->self));
  PREMOTOR_TRY(read_cross_attention(reader, prefix + "attn2.", width, &out->cross));
  if (config_.cross_attn_norm) {
    PREMOTOR_TRY(reader.floats(prefix + "norm2.weight", {width}, &out->norm2_weight));
    PREMOTOR_TRY(reader.floats(prefix + "norm2.bias", {width}, &out->norm2_bias));
  }
  PREMOTOR_TRY(read_block_linear(reader, prefix + "ffn.net.0.proj", ffn, width, &out->ffn_up));
  PREMOTOR_TRY(read_block_linear(reader, prefix + "ffn.net.2", width, ffn, &out->ffn_down));
  return reader.floats(prefix + "scale_shift_table", {1, 6, width}, &out->scale_shift_table);
}

Status Transformer::read_self_attention(WeightReader& reader, const std::string& prefix, std::int64_t width,
                                        SelfAttentionWeights* out) {
  const std::int64_t inner = config_.inner_dim();
  const std::string qkv[] = {prefix + "to_q", prefix + "to_k", prefix + "to_v"};
  PREMOTOR_TRY(read_stacked(reader, qkv, inner, width, &out->qkv));
  PREMOTOR_TRY(read_block_linear(reader, prefix + "to_out.0", width, inner, &out->out));
  PREMOTOR_TRY(reader.floats(prefix + "norm_q.weight", {inner}, &out->norm_q));
  return reader.floats(prefix + "norm_k.weight", {inner}, &out->norm_k);
}

Status Transformer::read_cross_attention(WeightReader& reader, const std::string& prefix, std::int64_t width,
                                         CrossAttentionWeights* out) {
  const std::int64_t inner = config_.inner_dim();
  const std::string kv[] = {prefix + "to_k", prefix + "to_v"};
  PREMOTOR_TRY(read_block_linear(reader, prefix + "to_q", inner, width, &out->q));
  PREMOTOR_TRY(read_stacked(reader, kv, inner, inner, &out->kv));
  PREMOTOR_TRY(read_block_linear(reader, prefix + "to_out.0", width, inner, &out->out));
  PREMOTOR_TRY(reader.floats(prefix + "norm_q.weight", {inner}, &out->norm_q));
  return reader.floats(prefix + "norm_k.weight", {inner}, &out->norm_k);
}

Status Transformer::read_stacked(WeightReader& reader, std::span<const std::string> prefixes, std::int64_t rows_each,
                                 std::int64_t cols, StackedLinear* out) {
  std::vector<std::string> names;
  for (const std::string& prefix : prefixes) names.push_back(prefix + ".weight");
  PREMOTOR_TRY(reader.stacked(names, rows_each, cols, &out->weight));
  for (const std::string& prefix : prefixes) {
    std::vector<float> bias;
    PREMOTOR_TRY(reader.floats(prefix + ".bias", {rows_each}, &bias));
    out->bias.insert(out->bias.end(), bias.begin(), bias.end());
  }
  return Status::good();
}

Status Transformer::read_linear(WeightReader& reader, const std::string& prefix, std::int64_t rows, std::int64_t cols,
                                Linear* out) {
  PREMOTOR_TRY(reader.matrix(prefix + ".weight", rows, cols, &out->weight));
  return reader.floats(prefix + ".bias", {rows}, &out->bias);
}

Status Transformer::read_block_linear(WeightReader& reader, const std::string& prefix, std::int64_t rows,
                                      std::int64_t cols, Linear* out) {
  PREMOTOR_TRY(reader.quantised_matrix(prefix + ".weight", rows, cols, &out->weight));
  return reader.floats(prefix + ".bias", {rows}, &out->bias);
}

Status Transformer::read_text_embedder(WeightReader& reader) {
  const std::int64_t inner = config_.inner_dim();
  PREMOTOR_TRY(read_linear(reader, "condition_embedder.text_embedder.linear_1", inner, config_.text_dim, &text_1_));
  return read_linear(reader, "condition_embedder.text_embedder.linear_2", inner, inner, &text_2_);
}

}  // namespace premotor::engine
