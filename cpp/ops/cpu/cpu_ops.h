// The CPU backend: the operation contract over the vector kernels and a thread pool. One owner thread calls it; its
// loops use the pool.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "base/thread_pool.h"
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

  void prepare(Matrix* w, Rounding rounding) override;
  bool prepared_form(const Matrix& w, Rounding rounding, PreparedForm* form) const override;
  void write_prepared(const Matrix& w, const PreparedForm& form, void* to) override;
  bool adopt(Matrix* w, const PreparedForm& form, const void* bytes) override;
  [[nodiscard]] std::uint32_t prepared_layout() const override { return kPackedLayout; }
  void linear(const float* x, std::int64_t m, std::int64_t ldx, const Matrix& w, const float* bias, Activation act,
              Rounding rounding, float* y, std::int64_t ldy) override;
  void layer_norm(const LayerNorm& args) override;
  void rms_norm(float* x, std::int64_t rows, std::int64_t dim, std::int64_t ldx, float eps, const float* weight,
                Rounding rounding) override;
  void rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx, const float* cos,
            const float* sin, Rounding rounding) override;
  void store_kv(const float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx,
                void* plane, Dtype dtype, std::int64_t capacity, const std::int32_t* slots) override;
  void attention(const float* q, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldq,
                 const KeyValueView& kv, float scale, Rounding rounding, float* y, std::int64_t ldy) override;
  void add_gated(float* h, const float* a, std::int64_t rows, std::int64_t dim, const float* gate,
                 std::int64_t gate_stride, const std::int32_t* row_map, Rounding rounding) override;
  void conv3d(const Conv3d& args, Rounding rounding) override;

 private:
  ThreadPool pool_;
  const Kernels& kernels_;
  const PackedKernels& packed_kernels_;
  // On a cache line's boundary.
  struct Return {
    void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{kAlignment}); }
  };
  using Memory = std::unique_ptr<std::byte[], Return>;
  static constexpr std::size_t kAlignment = 64;
  struct Prepared;
  [[nodiscard]] void* scratch(std::int64_t bytes);
  void packed(const Prepared& w, const float* x, std::int64_t m, std::int64_t ldx, PackedProduct args);
  std::vector<std::unique_ptr<Prepared>> prepared_;
  // Activations of a packed product or a picture with its border, as large as the largest one so far.
  Memory scratch_;
  std::int64_t scratch_bytes_ = 0;
};

}  // namespace premotor::ops
