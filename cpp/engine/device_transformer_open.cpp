// Opening a transformer on a device: what its kernels take, and all memory that passes work in.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "engine/arena.h"
#include "engine/device_transformer.h"

namespace premotor::engine {
namespace {

// Float rows of shifts and scales begin on boundaries of sixteen bytes.
constexpr std::int64_t kModulationStep = 4;

}  // namespace

DeviceTransformer::DeviceTransformer(Transformer& from, ops::WeightFormat format, const KvCacheShape& cache,
                                     std::int64_t cache_rows, device::Device& device)
    : from_(from),
      format_(format),
      config_(from.config()),
      heads_{config_.num_attention_heads, config_.attention_head_dim, kHeadDim},
      scale_(1.0f / std::sqrt(static_cast<float>(config_.attention_head_dim))),
      cache_(cache),
      cache_rows_(cache_rows),
      device_(device) {}

// Nothing may still read what goes away.
DeviceTransformer::~DeviceTransformer() {
  if (is_busy_) static_cast<void>(device_.wait());
}

Status DeviceTransformer::open(Transformer& from, ops::WeightFormat format, const KvCacheShape& cache,
                               std::int64_t cache_rows, std::int64_t rows_max, device::Device& device,
                               std::unique_ptr<DeviceTransformer>* out) {
  std::unique_ptr<DeviceTransformer> opened(new DeviceTransformer(from, format, cache, cache_rows, device));
  PREMOTOR_TRY(opened->check());
  PREMOTOR_TRY(DeviceWeights::upload(from, format, opened->heads_, device, &opened->weights_));
  PREMOTOR_TRY(opened->take_buffers(rows_max));
  const std::int64_t planes = 2 * cache.layers * cache.guidance_rows;
  PREMOTOR_TRY(DeviceMemory::allocate(device, planes * opened->plane_bytes(), &opened->pool_));
  *out = std::move(opened);
  return Status::good();
}

Status DeviceTransformer::check() const {
  const auto refuse = [](const std::string& expected, const std::string& found) {
    Status status = Status::error("DEVICE_MODEL", "The kernels of the device take " + expected + ", found " + found +
                                                      ". Use device \"cpu\" for this checkpoint.");
    status.expected = expected;
    status.found = found;
    return status;
  };
  if (config_.attention_head_dim > kHeadDim)
    return refuse("an attention_head_dim of at most 128", std::to_string(config_.attention_head_dim));
  for (const Modality modality : {Modality::video, Modality::action}) {
    const StreamWeights& stream = from_.stream(modality);
    if (stream.width % kModulationStep != 0)
      return refuse("widths that are multiples of 4", std::to_string(stream.width));
  }
  if (cache_.guidance_rows > device::kGuidanceRows)
    return refuse("one or two guidance rows", std::to_string(cache_.guidance_rows));
  if (format_ != ops::WeightFormat::stored && format_ != ops::WeightFormat::int8)
    return refuse("weights in bf16 or int8", "another precision");
  if (cache_.dtype != ops::Dtype::bf16 && cache_.dtype != ops::Dtype::int8)
    return refuse("a KV cache in bf16 or int8", "another (kvCache)");
  return Status::good();
}

// Steps of a pass: 0 embed; of each block 1 norm, 2 q k v, 3 attention, 4 out; 5 norm, 6 q, 7 text, 8 out; 9 norm,
// 10 up, 11 down; 12 the last norm, 13 head.
Status DeviceTransformer::take_buffers(std::int64_t rows_max) {
  rows_max_ = rows_max;
  std::int64_t width = 0, ffn = 0, features = 0;
  for (const Modality modality : {Modality::video, Modality::action}) {
    const StreamWeights& stream = from_.stream(modality);
    width = std::max(width, padded(stream.width));
    ffn = std::max(ffn, padded(stream.ffn_dim));
    features = std::max({features, stream.embed.weight.cols, stream.head.weight.rows});
  }
  const std::int64_t inner = heads_.filled();
  head_columns_ = padded(features);
  for (const std::int64_t n : {3 * inner, 2 * inner, inner, width, ffn, head_columns_})
    for (const std::int64_t k : {inner, width, ffn, head_columns_, config_.text_dim})
      for (std::int64_t rows = rows_max; rows >= 1; rows /= 2)
        for (const int element_bytes : {2, 1})
          workspace_bytes_ = std::max(workspace_bytes_, device_.plan_gemm(rows, n, k, element_bytes).workspace_bytes);
  for (std::int64_t rows = rows_max; rows >= 1; rows /= 2)
    for (int batch = 1; batch <= cache_.guidance_rows; ++batch) {
      const int splits = device_.plan_attention_splits(rows, cache_.heads, batch, cache_rows_);
      workspace_bytes_ =
          std::max(workspace_bytes_, device_.attention_workspace_bytes(rows, cache_.heads, batch, splits));
    }
  const bool is_quantised = format_ == ops::WeightFormat::int8;
  const std::int64_t bytes_of_row = padded_bytes(std::max({width, inner, ffn}));
  Arena arena;
  const auto rows_by = [&](std::int64_t columns) { return round_up(rows_max * columns * 2, kPart); };
  const Arena::Id ids[] = {arena.declare(rows_by(width), {{0, 13}}),
                           arena.declare(rows_by(width), {{1, 2}, {5, 6}, {9, 10}, {12, 13}}),
                           arena.declare(rows_by(3 * inner), {{2, 3}, {6, 7}}),
                           arena.declare(rows_by(inner), {{3, 4}, {7, 8}}),
                           arena.declare(rows_by(ffn), {{10, 11}}),
                           arena.declare(rows_by(head_columns_), {{13, 13}}),
                           arena.declare(round_up(workspace_bytes_ + 1, kPart), {{0, 13}}),
                           arena.declare(is_quantised ? round_up(rows_max * bytes_of_row, kPart) : kPart, {{1, 11}}),
                           arena.declare(is_quantised ? round_up(rows_max * 4, kPart) : kPart, {{1, 11}})};
  arena.solve();
  PREMOTOR_TRY(DeviceMemory::allocate(device_, arena.bytes(), &arena_));
  std::uint16_t** const buffers[] = {&hidden_, &normed_, &qkv_, &attended_, &up_, &head_};
  for (std::size_t i = 0; i < std::size(buffers); ++i) *buffers[i] = arena_.at<std::uint16_t>(arena.offset(ids[i]));
  workspace_ = arena_.at<std::byte>(arena.offset(ids[6]));
  quantised_ = {arena_.at<std::int8_t>(arena.offset(ids[7])), arena_.at<float>(arena.offset(ids[8]))};
  // Per token: its features, an angle's cosine and sine 64 times, its cache row; per row its modulation; two lists.
  const std::int64_t inputs =
      rows_max * (2 * head_columns_ + 2 * 4 * (kHeadDim / 2) + 4 + 4) + 2 * 4 * cache_rows_ + 16 * kPart;
  PREMOTOR_TRY(DeviceMemory::allocate(device_, inputs, &inputs_));
  PREMOTOR_TRY(Staging::allocate(device_, inputs, &staging_));
  return Staging::allocate(device_, rows_max * head_columns_ * 2, &result_staging_);
}

}  // namespace premotor::engine
