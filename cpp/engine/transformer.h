// The causal video-action transformer: weights, text keys and values, and one forward pass over the KV cache
// (docs/MODEL.md sections 3 and 8).
//
// Video and action tokens are two *streams*. In the released (shared) form both run through the same blocks and differ
// in embedder, time embedder and head; in the mixture-of-transformers form each stream has blocks of its own width, and
// all meet in one self-attention of the video width.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/arena.h"
#include "engine/config.h"
#include "engine/kv_cache.h"
#include "engine/pass.h"
#include "engine/plan_format.h"
#include "engine/rope.h"
#include "engine/weights.h"
#include "ops/ops.h"

namespace premotor::engine {

struct Linear {
  ops::Matrix weight;
  std::vector<float> bias;  // [rows]
};

// Layers that meet the same input, side by side in one row of results.
struct StackedLinear {
  StackedMatrix weight;
  std::vector<float> bias;  // [rows of all]
};

struct SelfAttentionWeights {
  StackedLinear qkv;                  // [3 inner, width]: all of q, then k, then v
  Linear out;                         // [width, inner]
  std::vector<float> norm_q, norm_k;  // [inner]
};

struct CrossAttentionWeights {
  Linear q, out;                      // [inner, width], [width, inner]
  StackedLinear kv;                   // [2 inner, inner], of the text
  std::vector<float> norm_q, norm_k;  // [inner]
};

struct BlockWeights {
  SelfAttentionWeights self;
  CrossAttentionWeights cross;
  std::vector<float> norm2_weight, norm2_bias;  // [width]; empty without cross_attn_norm
  Linear ffn_up, ffn_down;                      // [ffn, width], [width, ffn]
  std::vector<float> scale_shift_table;         // [6, width]
};

// Timestep -> conditioning.
struct TimeEmbedder {
  Linear linear_1, linear_2, time_proj;  // [width, freq_dim], [width, width], [6 width, width]
};

// What differs between video and action tokens.
struct StreamWeights {
  std::int64_t width = 0;
  std::int64_t ffn_dim = 0;
  Linear embed;  // [width, features]
  Linear head;   // [out features, width]
  TimeEmbedder time;
  std::vector<float> scale_shift_table;  // [2, width]
  std::vector<BlockWeights> own_blocks;  // mot: [layers]; shared form: the action stream's is empty
  const std::vector<BlockWeights>* blocks = nullptr;
};

class Transformer final : public PassEngine {
 public:
  // Reads `folder`/config.json and its tensors; `ops` must outlive this object. Errors as WeightReader's.
  static Status open(const std::string& folder, WeightPrecision precision, ops::Rounding rounding, ops::Ops& ops,
                     std::unique_ptr<Transformer>* out, PlanUse plan = {});

  [[nodiscard]] const TransformerConfig& config() const { return config_; }
  [[nodiscard]] const Rope& rope() const { return rope_; }
  [[nodiscard]] std::int64_t weight_bytes() const { return weight_bytes_; }
  [[nodiscard]] std::int64_t parameters() const { return parameters_; }
  [[nodiscard]] const std::vector<std::string>& unread() const { return unread_; }

  Status project_text(const float* embeddings, std::int64_t count, std::int64_t padded_rows, ops::Dtype dtype,
                      const std::atomic<bool>* cancel, TextKeysValues* out) override;
  using PassEngine::forward;
  Status forward(std::span<const Pass> parts) override;
  // Whether video and action passes may be parts of one: in the mixture-of-transformers form they have blocks of their
  // own.
  [[nodiscard]] bool can_pack() const { return streams_[0].blocks == streams_[1].blocks; }

  // Makes room for passes of so many rows, so that they take no memory later, and what that is.
  void reserve(std::int64_t rows);
  [[nodiscard]] PlanArena arena() const { return {scratch_.rows, scratch_.arena.bytes(), scratch_.arena.unshared()}; }

  // What a device is given: the weights as they were read, and conditioning.
  [[nodiscard]] const StreamWeights& stream(Modality modality) const { return streams_[static_cast<int>(modality)]; }
  [[nodiscard]] const Linear& text_layer(int number) const { return number == 1 ? text_1_ : text_2_; }
  // Conditioning of one timestep: temb [width] and its projection [6, width]. Kept, since schedules repeat.
  struct Conditioning {
    float timestep;
    std::vector<float> temb;
    std::vector<float> projection;
  };
  // Valid until conditioning of the same modality is asked for again.
  const Conditioning& condition(Modality modality, float timestep);
  // Shift, scale and gate of both parts of a block, and shift and scale of the last norm: to [6, width], [2, width].
  static void modulate(const BlockWeights& block, const Conditioning& condition, float* to);
  void modulate_last(const StreamWeights& stream, const Conditioning& condition, float* to) const;

  // Computes the conditioning of timesteps for a plan, and takes what a plan holds where it is the same bits.
  Status record_conditioning(Modality modality, const std::vector<float>& timesteps, PlanWriter* plan);
  void adopt_conditioning(const PlanContents& plan);

 private:
  friend class TransformerProbe;  // test/cpp/units_test.cpp drives single blocks

  // Distinct timesteps kept per modality; a schedule has at most a few dozen.
  static constexpr std::size_t kConditioningMax = 512;
  // Buffers of one pass, grown to the largest pass seen. The first four share memory where their lives allow.
  struct Scratch {
    float* hidden = nullptr;    // [rows, width]
    float* qkv = nullptr;       // [rows, 3 inner]; of the cross-attention [rows, inner]
    float* attended = nullptr;  // [rows, inner]
    float* up = nullptr;        // [rows, ffn]
    std::vector<float> modulation, last_modulation, distinct;
    std::vector<std::int32_t> row_map;
    std::vector<const Conditioning*> conditions;
    static constexpr int kBuffers = 4;
    Arena arena;
    std::int64_t rows = 0;               // of the largest pass
    std::int64_t floats[kBuffers] = {};  // of each buffer
    void fit(std::int64_t pass_rows, std::int64_t width, std::int64_t inner, std::int64_t ffn);
  };

  Transformer(TransformerConfig config, ops::Rounding rounding, ops::Ops& ops);
  Status read(const std::string& folder, WeightPrecision precision, PlanUse plan);
  Status read_parts(WeightReader& reader);
  Status read_self_attention(WeightReader& reader, const std::string& prefix, std::int64_t width,
                             SelfAttentionWeights* out);
  Status read_cross_attention(WeightReader& reader, const std::string& prefix, std::int64_t width,
                              CrossAttentionWeights* out);
  static Status read_stacked(WeightReader& reader, std::span<const std::string> prefixes, std::int64_t rows_each,
                             std::int64_t cols, StackedLinear* out);
  Status read_block(WeightReader& reader, const std::string& prefix, std::int64_t width, std::int64_t ffn,
                    BlockWeights* out);
  Status read_stream(WeightReader& reader, Modality modality, StreamWeights* out);
  Status read_linear(WeightReader& reader, const std::string& prefix, std::int64_t rows, std::int64_t cols,
                     Linear* out);
  // A linear layer of a block, which a quantised precision quantises.
  Status read_block_linear(WeightReader& reader, const std::string& prefix, std::int64_t rows, std::int64_t cols,
                           Linear* out);
  Status read_text_embedder(WeightReader& reader);

  void linear(const Linear& layer, const float* x, std::int64_t rows, ops::Activation act, float* y);
  void normed_linear(const ops::Ops::Norm& norm, const Linear& layer, std::int64_t rows, ops::Activation act, float* y);
  void add_linear(const float* x, const Linear& layer, std::int64_t rows, const float* gate, std::int64_t gate_stride);
  void stacked_linear(const float* x, const ops::Ops::Norm* norm, const StackedLinear& layer, std::int64_t rows,
                      std::int64_t cols, float* y, std::int64_t ldy);
  [[nodiscard]] ops::Ops::Norm modulated(const float* shift, const float* scale, std::int64_t stride) const;
  void project_text_layer(const BlockWeights& block, const std::vector<float>& rows, std::byte* k, TextKeysValues* out);
  // Rows of activations: for each part its guidance rows one after another, [part][guidance row][token].
  static std::int64_t rows_of(const Pass& pass) { return pass.guidance_rows * pass.frames * pass.tokens_per_frame; }
  static std::int64_t rows_of(std::span<const Pass> parts);
  void embed(const Pass& pass, float* to);
  void map_rows(const Pass& pass, std::int32_t* to);
  void block_modulation(const BlockWeights& block, std::int64_t width);
  void self_attention(std::span<const Pass> parts, const BlockWeights& block, std::int64_t layer, bool wanted);
  void attend_cache(const Pass& pass, std::int64_t first, const BlockWeights& block, std::int64_t layer, bool wanted);
  void cross_attention(std::span<const Pass> parts, const BlockWeights& block, std::int64_t layer);
  void attend_text(const Pass& pass, std::int64_t first, std::int64_t layer);
  void feed_forward(const StreamWeights& stream, const BlockWeights& block, std::int64_t rows);
  void finish(const Pass& pass, const StreamWeights& stream, std::int64_t rows);

  TransformerConfig config_;
  ops::Rounding rounding_;
  ops::Ops& ops_;
  Rope rope_;
  TensorStore store_;
  decltype(std::declval<WeightReader>().take_buffers()) buffers_;
  StreamWeights streams_[2];
  Linear text_1_, text_2_;
  std::vector<Conditioning> conditioning_[2];
  Scratch scratch_;
  std::int64_t weight_bytes_ = 0;
  std::int64_t parameters_ = 0;
  std::vector<std::string> unread_;
};

}  // namespace premotor::engine
