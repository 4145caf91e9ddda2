// The kernels' launchers: one function per file of this folder, what a Device (ops/device.h: operands and outcomes) is
// made of. No launcher allocates, waits or keeps a pointer; each may be captured in a graph. Each file's head has the
// equation, the operands' table and the tolerance.
#pragma once

#include <cstdint>

#include "cuda/launch.h"

namespace premotor::cuda {

Outcome layer_norm_modulate(const LayerNormModulate& a, Stream stream);
Outcome quantise_rows(const QuantiseRows& a, Stream stream);
// multiprocessors: of the device. element_bytes: 2 (bf16) or 1 (s8).
[[nodiscard]] GemmPlan plan_gemm(std::int64_t m, std::int64_t n, std::int64_t k, int element_bytes,
                                 int multiprocessors);
Outcome gemm_bf16(const GemmBf16& a, Stream stream);
Outcome gemm_int8(const GemmInt8& a, Stream stream);
Outcome cache_heads(const CacheHeads& a, Stream stream);
[[nodiscard]] std::int64_t attention_workspace_bytes(std::int64_t rows, std::int64_t heads, int batch, int splits);
// As many splits as fill the device, none of them without a tile of keys.
[[nodiscard]] int plan_attention_splits(std::int64_t rows, std::int64_t heads, int batch, std::int64_t attended,
                                        int multiprocessors);
Outcome flash_attention(const FlashAttention& a, Stream stream);
Outcome head_guidance_euler(const HeadGuidanceEuler& a, Stream stream);

}  // namespace premotor::cuda
