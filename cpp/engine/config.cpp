// Reads and checks the three config.json files. See config.h.
#include "engine/config.h"

#include <cmath>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/mapped_file.h"
#include "ops/kv_layout.h"

namespace premotor::engine {

namespace {

// Ranges wide enough for every model that could run, narrow enough that no product of sizes leaves int64.
constexpr std::int64_t width_max = std::int64_t{1} << 20;
constexpr std::int64_t count_max = 1024;
constexpr std::int64_t channels_max = 65536;
constexpr JsonLimits config_limits = {.bytes_max = 16'000'000, .values_max = 1'000'000, .depth_max = 64};

// The fields of one config.json. Every getter checks and names the file and the field in its error.
class Fields {
 public:
  explicit Fields(const std::string& folder) : path_(folder + "/config.json") {}

  Status open() {
    MappedFile file;
    PREMOTOR_TRY(MappedFile::open(path_, &file));
    const auto bytes = file.bytes();
    const Status parsed =
        parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, &root_, config_limits);
    if (!parsed.ok()) return problem("", "JSON with " + parsed.expected, parsed.found);
    if (!root_.is_object()) return problem("", "a JSON object", root_.describe());
    return Status::good();
  }

  [[nodiscard]] Status problem(std::string_view field, const std::string& expected, const std::string& found) const {
    const std::string name = field.empty() ? "" : ", field \"" + std::string(field) + "\"";
    Status status = Status::error("CHECKPOINT_CONFIG", path_ + name + ": expected " + expected + ", found " + found +
                                                           ". Take config.json from the same export as the weights.");
    status.file = path_;
    status.expected = (field.empty() ? "" : std::string(field) + ": ") + expected;
    status.found = found;
    return status;
  }

  // The field's value, or null when it is absent or null.
  [[nodiscard]] const JsonValue* find(std::string_view field) const {
    const JsonValue* value = root_.find(field);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  [[nodiscard]] std::string found(std::string_view field) const {
    const JsonValue* value = root_.find(field);
    return value == nullptr ? "none" : value->describe();
  }

  Status integer(std::string_view field, std::int64_t low, std::int64_t high, std::int64_t* out) const {
    const JsonValue* value = find(field);
    if (value == nullptr || !value->is_integer() || value->integer() < low || value->integer() > high) {
      return problem(field, "an integer from " + std::to_string(low) + " to " + std::to_string(high), found(field));
    }
    *out = value->integer();
    return Status::good();
  }

  Status positive(std::string_view field, float* out) const {
    const JsonValue* value = find(field);
    const float number = value != nullptr && value->is_number() ? static_cast<float>(value->number()) : 0.0f;
    if (!(number > 0.0f) || !(number <= 1.0f)) return problem(field, "a number above 0 and at most 1", found(field));
    *out = number;
    return Status::good();
  }

  // Absent or null leaves *out alone.
  Status boolean_or_default(std::string_view field, bool* out) const {
    const JsonValue* value = find(field);
    if (value == nullptr) return Status::good();
    if (!value->is_boolean()) return problem(field, "true or false", found(field));
    *out = value->boolean();
    return Status::good();
  }

  Status array(std::string_view field, std::size_t count_low, std::size_t count_high,
               std::span<const JsonValue>* out) const {
    const JsonValue* value = find(field);
    if (value == nullptr || !value->is_array() || value->items().size() < count_low ||
        value->items().size() > count_high) {
      const std::string count = count_low == count_high
                                    ? std::to_string(count_low)
                                    : std::to_string(count_low) + " to " + std::to_string(count_high);
      return problem(field, "an array of " + count, found(field));
    }
    *out = value->items();
    return Status::good();
  }

  Status floats(std::string_view field, std::int64_t count, bool above_zero, std::vector<float>* out) const {
    std::span<const JsonValue> items;
    PREMOTOR_TRY(array(field, static_cast<std::size_t>(count), static_cast<std::size_t>(count), &items));
    out->clear();
    for (std::size_t i = 0; i < items.size(); ++i) {
      const float number = items[i].is_number() ? static_cast<float>(items[i].number()) : NAN;
      if (!std::isfinite(number) || (above_zero && !(number > 0.0f))) {
        return problem(field, above_zero ? "numbers above 0" : "numbers",
                       items[i].describe() + " at index " + std::to_string(i));
      }
      out->push_back(number);
    }
    return Status::good();
  }

 private:
  std::string path_;
  JsonValue root_;
};

Status read_patch_size(const Fields& fields, TransformerConfig* config) {
  std::span<const JsonValue> items;
  PREMOTOR_TRY(fields.array("patch_size", 3, 3, &items));
  for (const JsonValue& item : items) {
    if (!item.is_integer() || item.integer() < 1 || item.integer() > 64) {
      return fields.problem("patch_size", "three integers from 1 to 64", item.describe());
    }
  }
  config->patch_t = items[0].integer();
  config->patch_h = items[1].integer();
  config->patch_w = items[2].integer();
  if (config->patch_t != 1)
    return fields.problem("patch_size", "1 latent frame per patch, as in [1, 2, 2]", items[0].describe());
  return Status::good();
}

Status check_head_dim(const Fields& fields, const TransformerConfig& config) {
  const std::int64_t dim = config.attention_head_dim;
  if (dim % 2 != 0)
    return fields.problem("attention_head_dim", "an even number: RoPE turns pairs", std::to_string(dim));
  if (dim > ops::kHeadDimMost)
    return fields.problem("attention_head_dim",
                          std::to_string(ops::kHeadDimMost) + " at most: attention has no more room",
                          std::to_string(dim));
  if (dim / 3 % 2 == 0) return Status::good();
  return fields.problem(
      "attention_head_dim",
      "head_dim / 3 (rounded down) to be even: RoPE gives that many numbers to height and to width, and turns pairs",
      std::to_string(dim) + ", whose third is " + std::to_string(dim / 3));
}

Status read_architecture(const Fields& fields, TransformerConfig* config) {
  const JsonValue* architecture = fields.find("architecture");
  if (architecture == nullptr) return Status::good();
  if (!architecture->is_string() || (architecture->string() != "mot" && architecture->string() != "shared")) {
    return fields.problem("architecture", "\"shared\" or \"mot\"", architecture->describe());
  }
  config->mot = architecture->string() == "mot";
  if (!config->mot) return Status::good();
  PREMOTOR_TRY(fields.integer("action_inner_dim", 1, width_max, &config->action_inner_dim));
  return fields.integer("action_ffn_dim", 1, width_max, &config->action_ffn_dim);
}

// The stages must halve and regroup channels without remainder, as the shortcuts of the residual form average and
// repeat whole groups.
Status check_vae_stages(const Fields& fields, const VaeConfig& config) {
  const std::size_t stages = config.dim_mult.size();
  std::int64_t width = config.base_dim;
  std::int64_t decoder_width = config.decoder_base_dim * config.dim_mult.back();
  for (std::size_t i = 0; i < stages; ++i) {
    const bool last = i + 1 == stages;
    const std::int64_t out = config.base_dim * config.dim_mult[i];
    const std::int64_t down = (last ? 1 : 4) * (!last && config.temperal_downsample[i] ? 2 : 1);
    if (width * down % out != 0) {
      return fields.problem("dim_mult", "encoder stage " + std::to_string(i) + " to average whole groups of channels",
                            std::to_string(width * down) + " channels into " + std::to_string(out));
    }
    width = out;
    const std::int64_t decoder_out = config.decoder_base_dim * config.dim_mult[stages - 1 - i];
    const std::int64_t up = 4 * (!last && config.temperal_downsample[stages - 2 - i] ? 2 : 1);
    if (!last && decoder_out * up % decoder_width != 0) {
      return fields.problem("dim_mult", "decoder stage " + std::to_string(i) + " to repeat whole groups of channels",
                            std::to_string(decoder_width) + " channels into " + std::to_string(decoder_out * up));
    }
    decoder_width = decoder_out;
  }
  return Status::good();
}

// The factors follow from the stages; a file that says otherwise describes another model.
Status check_vae_factors(const Fields& fields, VaeConfig* config) {
  config->scale_factor_spatial = config->patch_size << (config->dim_mult.size() - 1);
  config->scale_factor_temporal = 1;
  for (const bool halves : config->temperal_downsample) config->scale_factor_temporal *= halves ? 2 : 1;
  const std::pair<const char*, std::int64_t> factors[] = {{"scale_factor_spatial", config->scale_factor_spatial},
                                                          {"scale_factor_temporal", config->scale_factor_temporal}};
  for (const auto& [field, factor] : factors) {
    const JsonValue* value = fields.find(field);
    if (value == nullptr || (value->is_integer() && value->integer() == factor)) continue;
    return fields.problem(field,
                          std::to_string(factor) + ", which follows from patch_size, dim_mult and temperal_downsample",
                          value->describe());
  }
  const std::int64_t channels = 3 * config->patch_size * config->patch_size;
  if (config->in_channels != channels) {
    return fields.problem("in_channels", std::to_string(channels) + " (3 colours times patch_size squared)",
                          std::to_string(config->in_channels));
  }
  if (config->out_channels != channels) {
    return fields.problem("out_channels", std::to_string(channels) + " (3 colours times patch_size squared)",
                          std::to_string(config->out_channels));
  }
  return Status::good();
}

Status read_vae_stages(const Fields& fields, VaeConfig* config) {
  std::span<const JsonValue> items;
  PREMOTOR_TRY(fields.array("dim_mult", 1, 8, &items));
  config->dim_mult.clear();
  for (const JsonValue& item : items) {
    if (!item.is_integer() || item.integer() < 1 || item.integer() > 64) {
      return fields.problem("dim_mult", "integers from 1 to 64", item.describe());
    }
    config->dim_mult.push_back(item.integer());
  }
  const std::size_t downs = config->dim_mult.size() - 1;
  PREMOTOR_TRY(fields.array("temperal_downsample", downs, downs, &items));
  config->temperal_downsample.clear();
  for (const JsonValue& item : items) {
    if (!item.is_boolean())
      return fields.problem("temperal_downsample", "true or false, one per stage but the last", item.describe());
    config->temperal_downsample.push_back(item.boolean());
  }
  return Status::good();
}

// Only the form with residual stages (Wan2.2) is computed. It has no attention outside the middle block, whatever
// attn_scales says: the reference reads that list in the other form only.
Status check_vae_form(const Fields& fields, const VaeConfig& config) {
  if (!config.is_residual) {
    return fields.problem("is_residual", "true: the engine computes the Wan2.2 form with residual stages only",
                          fields.found("is_residual"));
  }
  return Status::good();
}

}  // namespace

Status read_transformer_config(const std::string& folder, TransformerConfig* out) {
  Fields fields(folder);
  PREMOTOR_TRY(fields.open());
  TransformerConfig config;
  PREMOTOR_TRY(read_patch_size(fields, &config));
  PREMOTOR_TRY(fields.integer("num_attention_heads", 1, count_max, &config.num_attention_heads));
  PREMOTOR_TRY(fields.integer("attention_head_dim", 6, count_max, &config.attention_head_dim));
  PREMOTOR_TRY(check_head_dim(fields, config));
  PREMOTOR_TRY(fields.integer("in_channels", 1, channels_max, &config.in_channels));
  PREMOTOR_TRY(fields.integer("out_channels", 1, channels_max, &config.out_channels));
  if (config.out_channels != config.in_channels) {
    return fields.problem(
        "out_channels",
        "in_channels (" + std::to_string(config.in_channels) + "): the prediction is added to the latent",
        std::to_string(config.out_channels));
  }
  PREMOTOR_TRY(fields.integer("action_dim", 1, channels_max, &config.action_dim));
  PREMOTOR_TRY(fields.integer("text_dim", 1, width_max, &config.text_dim));
  PREMOTOR_TRY(fields.integer("freq_dim", 2, width_max, &config.freq_dim));
  if (config.freq_dim % 2 != 0)
    return fields.problem("freq_dim", "an even number: half cosines, half sines", std::to_string(config.freq_dim));
  PREMOTOR_TRY(fields.integer("ffn_dim", 1, width_max, &config.ffn_dim));
  PREMOTOR_TRY(fields.integer("num_layers", 1, count_max, &config.num_layers));
  PREMOTOR_TRY(fields.boolean_or_default("cross_attn_norm", &config.cross_attn_norm));
  PREMOTOR_TRY(fields.positive("eps", &config.eps));
  PREMOTOR_TRY(read_architecture(fields, &config));
  *out = config;
  return Status::good();
}

Status read_vae_config(const std::string& folder, VaeConfig* out) {
  Fields fields(folder);
  PREMOTOR_TRY(fields.open());
  VaeConfig config;
  config.is_residual = false;  // the upstream default, when the field is absent
  PREMOTOR_TRY(fields.boolean_or_default("is_residual", &config.is_residual));
  PREMOTOR_TRY(check_vae_form(fields, config));
  PREMOTOR_TRY(fields.integer("base_dim", 1, channels_max, &config.base_dim));
  config.decoder_base_dim = config.base_dim;
  if (fields.find("decoder_base_dim") != nullptr) {
    PREMOTOR_TRY(fields.integer("decoder_base_dim", 1, channels_max, &config.decoder_base_dim));
  }
  PREMOTOR_TRY(fields.integer("z_dim", 1, channels_max, &config.z_dim));
  PREMOTOR_TRY(fields.integer("num_res_blocks", 1, 64, &config.num_res_blocks));
  PREMOTOR_TRY(fields.integer("in_channels", 1, channels_max, &config.in_channels));
  PREMOTOR_TRY(fields.integer("out_channels", 1, channels_max, &config.out_channels));
  config.patch_size = 1;
  if (fields.find("patch_size") != nullptr) PREMOTOR_TRY(fields.integer("patch_size", 1, 64, &config.patch_size));
  PREMOTOR_TRY(read_vae_stages(fields, &config));
  PREMOTOR_TRY(check_vae_factors(fields, &config));
  PREMOTOR_TRY(check_vae_stages(fields, config));
  PREMOTOR_TRY(fields.floats("latents_mean", config.z_dim, false, &config.latents_mean));
  PREMOTOR_TRY(fields.floats("latents_std", config.z_dim, true, &config.latents_std));
  *out = std::move(config);
  return Status::good();
}

Status read_text_encoder_config(const std::string& folder, TextEncoderConfig* out) {
  Fields fields(folder);
  PREMOTOR_TRY(fields.open());
  TextEncoderConfig config;
  const JsonValue* form = fields.find("feed_forward_proj");
  if (form == nullptr || !form->is_string() || form->string() != "gated-gelu") {
    return fields.problem("feed_forward_proj", "\"gated-gelu\", the form of UMT5", fields.found("feed_forward_proj"));
  }
  PREMOTOR_TRY(fields.integer("vocab_size", 1, std::int64_t{1} << 24, &config.vocab_size));
  PREMOTOR_TRY(fields.integer("d_model", 1, width_max, &config.d_model));
  PREMOTOR_TRY(fields.integer("d_kv", 1, channels_max, &config.d_kv));
  PREMOTOR_TRY(fields.integer("d_ff", 1, width_max, &config.d_ff));
  PREMOTOR_TRY(fields.integer("num_layers", 1, count_max, &config.num_layers));
  PREMOTOR_TRY(fields.integer("num_heads", 1, count_max, &config.num_heads));
  // Half of the buckets look back, half ahead, and half of each are exact distances: 4 is the least.
  PREMOTOR_TRY(
      fields.integer("relative_attention_num_buckets", 4, channels_max, &config.relative_attention_num_buckets));
  if (config.relative_attention_num_buckets % 4 != 0) {
    return fields.problem("relative_attention_num_buckets", "a multiple of 4",
                          std::to_string(config.relative_attention_num_buckets));
  }
  PREMOTOR_TRY(fields.integer("relative_attention_max_distance", config.relative_attention_num_buckets / 4 + 1,
                              width_max, &config.relative_attention_max_distance));
  PREMOTOR_TRY(fields.positive("layer_norm_epsilon", &config.layer_norm_epsilon));
  *out = config;
  return Status::good();
}

}  // namespace premotor::engine
