// The CPU backend's attention: one pass over the cached keys with an online softmax, in place on the cache's slots (no
// gather).
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace premotor::ops {

struct AttentionArgs {
  const float* q;  // [rows, heads, head_dim], row stride ldq
  std::int64_t rows, heads, head_dim, ldq;
  const KeyValueView& kv;
  float scale;
  Rounding rounding;
  float* y;  // [rows, heads, head_dim], row stride ldy; may be q
  std::int64_t ldy;
};

// A stretch of neighbouring slots.
struct Run {
  std::int64_t first;
  std::int64_t count;
};

// See Ops::attention. kv.count >= 1, head_dim <= 8192. runs: memory for the stretches, kept between calls.
void cpu_attention(ThreadPool& pool, const Kernels& kernels, const AttentionArgs& args, std::vector<Run>* runs);

}  // namespace premotor::ops
