// A backend that counts instead of computing: every operation of a pass becomes a step with its arithmetic and bytes.
// What it says about a pass is what the engine does, because the engine itself runs on it.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/thread_pool.h"
#include "engine/plan_format.h"
#include "ops/ops.h"

namespace premotor::engine {

// One operation. Zero where it does not apply.
struct PassStep {
  std::string op;                                  // "linear", "attention", ...
  std::string weight;                              // the tensor without its layer: "blocks.*.attn1.to_q.weight"
  std::string product;                             // whose arithmetic: a prepared weight's product, else "f32"
  std::string fused;                               // what the same step does on the way out: "bias, gelu_tanh"
  std::int64_t rows = 0, outputs = 0, inputs = 0;  // attention: queries, entries, width
  double flops = 0;
  double weight_bytes = 0, cache_bytes = 0, activation_bytes = 0;
  bool operator==(const PassStep&) const = default;
};

class CountingOps final : public ops::Ops {
 public:
  // Weights are known by where they lie in the plan, which must outlive this.
  explicit CountingOps(const PlanContents& plan) { learn(plan); }
  // One that knows none yet: a sketch is made while a model is opened.
  CountingOps() = default;
  void learn(const PlanContents& plan);

  // The steps since the last call.
  std::vector<PassStep> take() { return std::exchange(steps_, {}); }

  [[nodiscard]] const char* name() const override { return "counting"; }
  [[nodiscard]] ThreadPool& pool() override { return pool_; }
  std::int64_t prepare(ops::Matrix* w, ops::Rounding rounding, ops::WeightFormat format) override;
  bool prepared_form(const ops::Matrix& w, ops::Rounding rounding, ops::WeightFormat format,
                     PreparedForm* form) const override;
  void write_prepared(const ops::Matrix& w, const PreparedForm& form, void* to) override;
  bool adopt(ops::Matrix* w, const PreparedForm& form, const void* bytes) override;
  [[nodiscard]] std::uint32_t prepared_layout() const override { return 0; }
  void linear(const float* x, std::int64_t m, std::int64_t ldx, const ops::Matrix& w, const float* bias,
              ops::Activation act, ops::Rounding rounding, float* y, std::int64_t ldy) override;
  void fused_linear(const FusedLinear& args) override;
  void layer_norm(const LayerNorm& args) override;
  void rms_norm(float* x, std::int64_t rows, std::int64_t dim, std::int64_t ldx, float eps, const float* weight,
                ops::Rounding rounding) override;
  void rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx, const float* cos,
            const float* sin, ops::Rounding rounding) override;
  void cache_heads(const HeadRows& args) override;
  void store_kv(const StoreKv& args) override;
  void cached_attention(const CachedAttention& args) override;
  void attention(const float* q, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldq,
                 const ops::KeyValueView& kv, float scale, ops::Rounding rounding, float* y, std::int64_t ldy) override;
  void add_gated(float* h, const float* a, std::int64_t rows, std::int64_t dim, const float* gate,
                 std::int64_t gate_stride, const std::int32_t* row_map, ops::Rounding rounding) override;
  void normalise_channels(const float* x, std::int64_t rows, std::int64_t channels, const float* gamma, bool is_silu,
                          ops::Rounding rounding, float* y) override;
  void conv3d(const ops::Conv3d& args, ops::Rounding rounding) override;

 private:
  [[nodiscard]] PassStep about(const char* op, const ops::Matrix& w) const;

  ThreadPool pool_{1};
  std::unordered_map<const void*, const PlanTensor*> tensors_;  // by data
  std::vector<PassStep> steps_;
};

}  // namespace premotor::engine
