// The UMT5 encoder, run layer by layer from the memory map: each layer's pages are dropped after use, so that the 11 GB
// XXL encoder needs less than 1 GB of resident memory. Only real tokens are computed: padding is masked in the
// reference, so it cannot change them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/config.h"
#include "engine/weights.h"
#include "ops/ops.h"

namespace premotor::engine {

// The longest token sequence: rows of text that the transformer attends to.
inline constexpr std::int64_t text_tokens_max = 512;

// The bucket of a distance (position attended to minus attending position), both directions: half of the buckets for
// each, half of those for exact distances and the rest spaced logarithmically up to max_distance.
std::int64_t relative_position_bucket(std::int64_t distance, std::int64_t buckets, std::int64_t max_distance);

class TextEncoder {
 public:
  ~TextEncoder();
  // Maps `folder` (config.json, model.safetensors or shards) and checks every tensor; reads no weights. `ops` must
  // outlive this object.
  static Status open(const std::string& folder, WeightPrecision precision, ops::Rounding rounding, ops::Ops& ops,
                     std::unique_ptr<TextEncoder>* out);

  [[nodiscard]] const TextEncoderConfig& config() const;
  [[nodiscard]] const std::vector<std::string>& unread() const;

  // ids [count], 1 <= count <= 512, each in [0, vocab). hidden: [count, d_model], the last hidden state after the final
  // norm. `layers`, when not null, receives the input of every layer and then the result (for tests): num_layers + 1
  // entries. `cancel` is polled between layers. Errors: TEXT_INVALID, ABORTED, OUT_OF_MEMORY.
  Status encode(const std::vector<std::int32_t>& ids, std::vector<float>* hidden,
                const std::atomic<bool>* cancel = nullptr, std::vector<std::vector<float>>* layers = nullptr) const;

 private:
  struct Impl;
  explicit TextEncoder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace premotor::engine
