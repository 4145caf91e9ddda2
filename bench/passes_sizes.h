// What bench/passes.cpp measures on: sizes, precisions, and the least work of a pass, counted from shapes.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/config.h"
#include "engine/weights.h"
#include "ops/ops.h"

namespace passes {

using premotor::engine::TransformerConfig;
using premotor::engine::WeightPrecision;

constexpr std::int64_t kGuidanceRows = 2;
constexpr float kGuidanceScale = 5.0f;

// A transformer, a chunk of it, and a KV cache that is full but for the chunk.
struct Size {
  const char* name;
  bool is_shipped;                                // models/tabletop; else synthetic, of the structure that follows
  std::int64_t layers, heads, head_dim, ffn_dim;  // width = heads * head_dim
  std::int64_t channels, text_dim;
  std::int64_t frames, grid_h, grid_w, action_per_frame;  // of a chunk
  std::int64_t text_rows, prompt_rows;                    // attended by the reference; real ones among them
  std::int64_t capacity;                                  // KV cache slots

  [[nodiscard]] std::int64_t video_tokens() const { return frames * grid_h * grid_w; }
  [[nodiscard]] std::int64_t action_tokens() const { return frames * action_per_frame; }
  [[nodiscard]] std::int64_t history() const { return capacity - video_tokens() - action_tokens(); }
};

// tiny: the shipped checkpoint and its job. mid: what PERF.md's figures of the reference were taken on, 2048 entries
// of history. block5b: one of the released transformer's 30 blocks with RoboTwin's full cache, 9792 slots. micro is for
// the tests.
constexpr Size kSizes[] = {
    {"tiny", true, 6, 4, 48, 768, 16, 64, 2, 3, 3, 8, 32, 8, 510},
    {"mid", false, 8, 12, 128, 6144, 48, 4096, 2, 10, 12, 16, 512, 24, 2048 + 272},
    {"block5b", false, 1, 24, 128, 14336, 48, 4096, 2, 10, 12, 16, 512, 24, 9792},
    {"micro", false, 2, 2, 24, 96, 8, 32, 2, 2, 3, 4, 16, 5, 90},
};

enum class Peak : std::uint8_t { f32, bf16, int8 };

// A precision that the engine offers, with the KV cache's. A further one is a line in this table.
struct Precision {
  const char* name;
  WeightPrecision weights;
  premotor::ops::Rounding rounding;
  premotor::ops::Dtype cache;
  Peak peak;            // the dot product that its matrix products run on
  double weight_bytes;  // per parameter of a matrix
  // Relative RMS that a pass may be off from the same pass in float32 with the baseline kernels.
  double error_max;
};

constexpr Precision kPrecisions[] = {
    {"f32", WeightPrecision::f32, premotor::ops::Rounding::none, premotor::ops::Dtype::f32, Peak::f32, 4, 1e-4},
    {"bf16", WeightPrecision::bf16, premotor::ops::Rounding::bf16, premotor::ops::Dtype::bf16, Peak::bf16, 2, 3e-2},
    {"int8", WeightPrecision::int8, premotor::ops::Rounding::none, premotor::ops::Dtype::bf16, Peak::int8, 1, 1e-1},
    // Groups of 32 with a scale of 16 bits; products in bf16.
    {"int4", WeightPrecision::int4_32, premotor::ops::Rounding::none, premotor::ops::Dtype::bf16, Peak::bf16, 0.5625,
     4e-1},
    // The same over a cache in int8 with a scale per head and token.
    {"int8+kv8", WeightPrecision::int8, premotor::ops::Rounding::none, premotor::ops::Dtype::int8, Peak::int8, 1, 1e-1},
    {"int4+kv8", WeightPrecision::int4_32, premotor::ops::Rounding::none, premotor::ops::Dtype::int8, Peak::bf16,
     0.5625, 4e-1},
};

// The least that a pass has to do. Modulation, norms and activations are not counted, nor is anything that is kept
// between passes (text keys and values, time embeddings).
struct Work {
  double linear_flops = 0, attention_flops = 0;
  double weight_bytes = 0, cache_bytes = 0;

  [[nodiscard]] double flops() const { return linear_flops + attention_flops; }
  [[nodiscard]] double bytes() const { return weight_bytes + cache_bytes; }
  Work& operator+=(const Work& other) {
    linear_flops += other.linear_flops;
    attention_flops += other.attention_flops;
    weight_bytes += other.weight_bytes;
    cache_bytes += other.cache_bytes;
    return *this;
  }
};

// One part of a pass: tokens of one modality, and how many cache entries each of its guidance rows attends.
struct Part {
  std::int64_t tokens, attended, features_in, features_out;
};

// The work of parts that run as one, so that weights are read once. Without an output the last layer ends behind its
// keys and values. `text` entries are attended by each row.
inline Work work_of(const TransformerConfig& config, const Precision& precision, std::span<const Part> parts,
                    std::int64_t rows, std::int64_t text, bool has_output) {
  const auto width = static_cast<double>(config.inner_dim());
  const double scales = precision.cache == premotor::ops::Dtype::int8 ? 4.0 * double(config.num_attention_heads) : 0;
  const double entry_bytes = 2 * (width * static_cast<double>(premotor::ops::bytes_of(precision.cache)) + scales);
  // Parameters that every token meets: q, k, v, out; q and out of cross-attention; the feed-forward's two.
  const double block = 6 * width * width + 2 * width * static_cast<double>(config.ffn_dim);
  const double keys_values = 2 * width * width;
  const double whole_layers = static_cast<double>(config.num_layers - (has_output ? 0 : 1));
  const double cut_layers = has_output ? 0 : 1;
  Work work;
  double weights = whole_layers * block + cut_layers * keys_values;
  for (const Part& part : parts) {
    const auto tokens = static_cast<double>(part.tokens), all = tokens * static_cast<double>(rows);
    const double ends = width * static_cast<double>(part.features_in),
                 head = has_output ? width * static_cast<double>(part.features_out) : 0;
    work.linear_flops += 2 * (all * (whole_layers * block + cut_layers * keys_values + head) + tokens * ends);
    work.attention_flops += 4 * width * all * whole_layers * static_cast<double>(part.attended + text);
    work.cache_bytes += entry_bytes * static_cast<double>(rows) * whole_layers * static_cast<double>(part.attended);
    weights += ends + head;
  }
  work.cache_bytes += entry_bytes * static_cast<double>(rows * text) * whole_layers;
  work.weight_bytes = weights * precision.weight_bytes;
  return work;
}

}  // namespace passes
