// The CPU backend: the operation contract over the vector kernels and a thread pool. One owner thread calls it; its
// loops use the pool.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/big_memory.h"
#include "base/thread_pool.h"
#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/packed_linear.h"
#include "ops/ops.h"

namespace premotor::ops {

class CpuOps final : public Ops {
 public:
  // threads >= 1. `kernels` defaults to the best table for this processor; tests pass each in turn.
  explicit CpuOps(int threads, const Kernels& kernels = cpu_kernels(),
                  const PackedKernels& packed = cpu_packed_kernels());
  ~CpuOps() override;

  [[nodiscard]] const char* name() const override { return kernels_.name; }
  [[nodiscard]] ThreadPool& pool() override { return pool_; }
  // What tactics depend on beside the number of threads: the processor, and the instructions that packed products use.
  [[nodiscard]] std::string processor() const;
  // How a product with so many rows is cut: as adopt was told, or by the rule.
  [[nodiscard]] Tactic tactic_for(const Matrix& w, std::int64_t rows) const;
  // Ways to cut the product of a prepared weight with so many rows that are not the same; the rule is the first.
  [[nodiscard]] std::vector<Tactic> tactics_to_try(const Matrix& w, std::int64_t rows) const;

  std::int64_t prepare(Matrix* w, Rounding rounding, WeightFormat format = WeightFormat::stored) override;
  bool prepared_form(const Matrix& w, Rounding rounding, WeightFormat format, PreparedForm* form) const override;
  void write_prepared(const Matrix& w, const PreparedForm& form, void* to) override;
  bool adopt(Matrix* w, const PreparedForm& form, const void* bytes) override;
  [[nodiscard]] std::uint32_t prepared_layout() const override { return kPackedLayout; }
  void linear(const float* x, std::int64_t m, std::int64_t ldx, const Matrix& w, const float* bias, Activation act,
              Rounding rounding, float* y, std::int64_t ldy) override;
  void fused_linear(const FusedLinear& args) override;
  void layer_norm(const LayerNorm& args) override;
  void rms_norm(float* x, std::int64_t rows, std::int64_t dim, std::int64_t ldx, float eps, const float* weight,
                Rounding rounding) override;
  void rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx, const float* cos,
            const float* sin, Rounding rounding) override;
  void cache_heads(const HeadRows& args) override;
  void store_kv(const StoreKv& args) override;
  void cached_attention(const CachedAttention& args) override;
  void attention(const float* q, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldq,
                 const KeyValueView& kv, float scale, Rounding rounding, float* y, std::int64_t ldy) override;
  void add_gated(float* h, const float* a, std::int64_t rows, std::int64_t dim, const float* gate,
                 std::int64_t gate_stride, const std::int32_t* row_map, Rounding rounding) override;
  void normalise_channels(const float* x, std::int64_t rows, std::int64_t channels, const float* gamma, bool is_silu,
                          Rounding rounding, float* y) override;
  void conv3d(const Conv3d& args, Rounding rounding) override;

 private:
  ThreadPool pool_;
  const Kernels& kernels_;
  const PackedKernels& packed_kernels_;
  const AttentionKernels& attention_kernels_;
  struct Prepared;
  [[nodiscard]] void* scratch(std::int64_t bytes);
  void packed(const Prepared& w, const float* x, std::int64_t m, std::int64_t ldx, PackedProduct args,
              const PackedNorm* norm);
  void plain_linear(const FusedLinear& args);
  [[nodiscard]] float* rows_memory(std::int64_t floats);
  std::vector<std::unique_ptr<Prepared>> prepared_;
  // Activations of a packed product or a picture with its border, as large as the largest one so far.
  BigMemory scratch_;
  std::int64_t scratch_bytes_ = 0;
  // Of a fused linear layer: normed rows and partial sums; as large as needed so far.
  std::vector<float> rows_;
};

}  // namespace premotor::ops
