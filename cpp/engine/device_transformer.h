// The transformer on a device: weights and cached keys and values lie there, a pass is one upload, a row of launches
// and one download. It computes what the CPU's Transformer computes under Rounding::bf16 with a cache in bf16 or int8;
// sums are in another order, so results agree to roundings of bfloat16. A text's keys and values are bf16. Schedules,
// positions and the table of the cache's slots stay with the host (KvCache), whose own pool is then never touched.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/device_weights.h"
#include "engine/kv_cache.h"
#include "engine/pass.h"
#include "engine/transformer.h"
#include "ops/device.h"

namespace premotor::engine {

class DeviceTransformer final : public PassEngine {
 public:
  // `from` has its weights as they are stored (PlanUse::keeps_stored) and outlives this object, as the device does.
  // format: of the linear layers of blocks here, stored or int8. rows_max: of the passes to be expected, all guidance
  // rows and parts together. Errors: DEVICE_MODEL, DEVICE_MEMORY, DEVICE_FAULT.
  static Status open(Transformer& from, ops::WeightFormat format, const KvCacheShape& cache, std::int64_t cache_rows,
                     std::int64_t rows_max, device::Device& device, std::unique_ptr<DeviceTransformer>* out);
  ~DeviceTransformer() override;

  Status project_text(const float* embeddings, std::int64_t count, std::int64_t padded_rows, ops::Dtype dtype,
                      const std::atomic<bool>* cancel, TextKeysValues* out) override;
  using PassEngine::forward;
  Status forward(std::span<const Pass> parts) override;

  // As KvCache::read_entry and fill_written, of what lies on the device. Errors: DEVICE_FAULT.
  Status read_entry(bool is_key, std::int64_t layer, std::int64_t guidance_row, std::int64_t head, std::int64_t row,
                    std::vector<float>* out);
  Status fill_rows(std::span<const std::int32_t> rows, std::uint64_t seed);

  [[nodiscard]] std::int64_t weight_bytes() const { return weights_.bytes(); }
  [[nodiscard]] std::int64_t cache_bytes() const { return pool_.bytes(); }
  [[nodiscard]] std::int64_t arena_bytes() const { return arena_.bytes(); }

 private:
  // What the kernels are written for (cuda/cache_heads.cu, cuda/flash_attention.cu); smaller heads are filled up.
  static constexpr std::int64_t kHeadDim = 128;
  static constexpr std::int64_t kPart = 256;  // what parts of an upload begin on, bytes
  static constexpr std::int64_t round_up(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }

  using Condition = std::pair<Modality, float>;
  // What the timesteps of a pass do to norms and gates, for all blocks: computed and uploaded once.
  struct Modulation {
    std::vector<Condition> conditions;
    DeviceMemory memory;
    const float* blocks = nullptr;  // [layer, condition, 6, width]
    const float* last = nullptr;    // [condition, 2, width]
  };
  // Where the inputs of one part of a pass lie on the device.
  struct PartInput {
    const std::uint16_t* x = nullptr;  // [tokens, features] bf16
    std::int64_t ldx = 0;
    const float *cos = nullptr, *sin = nullptr;  // [tokens, 64]
    const std::int32_t* write_rows = nullptr;    // [tokens]
    const std::int32_t* attended = nullptr;      // [attended_count]
    std::int64_t attended_count = 0;
  };
  // Where rows go as int8, for products in int8.
  struct Quantised {
    std::int8_t* rows = nullptr;  // stride padded_bytes(columns)
    float* scales = nullptr;      // one per row
  };
  // What a product multiplies: rows of bfloat16, which are quantised into `quantised` first where the layer wants
  // that; or, without x, what lies there already.
  struct Input {
    const std::uint16_t* x = nullptr;
    std::int64_t ld = 0;
    Quantised quantised;
  };
  // One text's keys and values.
  struct Text {
    DeviceMemory memory;
    std::int64_t plane_rows = 0;
  };
  // The call that is under way.
  struct Call {
    std::span<const Pass> parts;
    std::vector<PartInput> inputs;
    const std::int32_t* row_map = nullptr;
    const Modulation* modulation = nullptr;
    std::int64_t rows = 0, width = 0, ld = 0;  // ld: the stride of rows of the width
    std::int64_t layer = 0;
    const DeviceBlock* block = nullptr;
    const float* shifts = nullptr;  // of this block, [condition, 6, width]
  };

  DeviceTransformer(Transformer& from, ops::WeightFormat format, const KvCacheShape& cache, std::int64_t cache_rows,
                    device::Device& device);
  Status check() const;
  // Again when a pass is larger than any before: a commit may have more frames than a chunk.
  Status take_buffers(std::int64_t rows_max);
  Status modulation(const std::vector<Condition>& conditions, const Modulation** out);
  Status stage(Call* call);
  std::int64_t stage_part(const Pass& pass, std::int64_t at, PartInput* input);
  void list_attended(const Pass& pass, std::int32_t* to, std::int64_t* count) const;
  void embed(const Call& call);
  [[nodiscard]] device::GemmPlan plan(const DeviceLinear& layer, std::int64_t rows, int element_bytes) const;
  [[nodiscard]] Input input(const std::uint16_t* x, std::int64_t ld) const { return {x, ld, quantised_}; }
  // The rows of the residual stream, normed, in the form that `layer` multiplies.
  Input norm(const Call& call, const device::NormTerms& terms, const DeviceLinear& layer);
  void quantise(const Input& from, std::int64_t columns, std::int64_t rows);
  void product(const DeviceLinear& layer, const Input& from, std::int64_t rows, device::GemmEnd end, std::uint16_t* y,
               std::int64_t ldy);
  void product_int8(const DeviceLinear& layer, const Quantised& x, std::int64_t rows, const device::GemmEnd& end);
  void self_attention(const Call& call, bool wanted);
  void attend_cache(const Call& call, std::size_t part, std::int64_t first, bool wanted);
  void cross_attention(const Call& call);
  void feed_forward(const Call& call);
  Status finish(const Call& call);
  void project_text_block(const DeviceBlock& block, const Input& rows, std::int64_t count, const std::int32_t* slots,
                          std::uint16_t* projected, std::uint16_t* planes, std::int64_t plane_rows);
  [[nodiscard]] bool is_cache_int8() const { return cache_.dtype == ops::Dtype::int8; }
  [[nodiscard]] std::int64_t plane_bytes() const;
  [[nodiscard]] device::CachePlanes planes(std::int64_t layer, std::int64_t guidance_row) const;
  [[nodiscard]] device::NormTerms modulated(const Call& call, const float* shift, std::int64_t stride) const;
  void note(device::Outcome outcome, const char* what);
  // The first launch that was not taken. Errors: DEVICE_LAUNCH.
  Status launched();
  Status settle();

  Transformer& from_;
  ops::WeightFormat format_;
  TransformerConfig config_;
  Heads heads_;
  float scale_;
  KvCacheShape cache_;
  std::int64_t cache_rows_;
  device::Device& device_;
  DeviceWeights weights_;
  std::vector<std::unique_ptr<Modulation>> modulations_;
  DeviceMemory pool_, arena_, inputs_;
  Staging staging_;         // of inputs
  Staging result_staging_;  // of the head's output
  std::uint16_t *hidden_ = nullptr, *normed_ = nullptr, *qkv_ = nullptr, *attended_ = nullptr, *up_ = nullptr,
                *head_ = nullptr;
  Quantised quantised_;
  void* workspace_ = nullptr;
  std::int64_t workspace_bytes_ = 0, rows_max_ = 0;
  std::int64_t head_columns_ = 0;  // stride of head_
  device::Outcome outcome_ = device::Outcome::launched;
  const char* refused_ = "";
  bool is_busy_ = false;  // something was launched and not waited for
};

}  // namespace premotor::engine
