// The CPU backend's attention over cached keys and values: one pass with an online softmax, where the rows lie.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/packed_kernels.h"
#include "ops/ops.h"

namespace premotor::ops {

// Bytes that cached_attention needs beside its arguments, 64-byte aligned.
[[nodiscard]] std::int64_t cached_attention_scratch_bytes(const Ops::CachedAttention& args);

// See Ops::cached_attention. Queries are converted by `packed`, which belongs to the same instruction set as `kernels`.
void cached_attention(ThreadPool& pool, const AttentionKernels& kernels, const PackedKernels& packed,
                      const Ops::CachedAttention& args, void* scratch);

// The table of the same level as `packed`.
const AttentionKernels& cpu_attention_kernels(const PackedKernels& packed);

}  // namespace premotor::ops
