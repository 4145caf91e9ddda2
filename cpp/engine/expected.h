// Which tensors a checkpoint must hold: names and shapes that follow from config.json (docs/CHECKPOINT.md has the
// tables).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/config.h"

namespace premotor::engine {

struct ExpectedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  bool vestigial = false;  // written by the trainer, never computed from: may be absent, and nothing reads it
};

// In no particular order.
std::vector<ExpectedTensor> expected_transformer(const TransformerConfig& config);
std::vector<ExpectedTensor> expected_vae(const VaeConfig& config);
std::vector<ExpectedTensor> expected_text_encoder(const TextEncoderConfig& config);

// Tensors of a whole encoder-decoder export that the encoder does not need.
[[nodiscard]] bool is_decoder_tensor(std::string_view name);

}  // namespace premotor::engine
