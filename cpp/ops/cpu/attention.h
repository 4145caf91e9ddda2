// The CPU backend's attention over dense keys and values: one pass with an online softmax.
#pragma once

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

// See Ops::attention. kv.count >= 1, head_dim <= 8192.
void cpu_attention(ThreadPool& pool, const Kernels& kernels, const AttentionArgs& args);

}  // namespace premotor::ops
