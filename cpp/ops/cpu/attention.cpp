// Online softmax (Milakov and Gimelshein 2018; Dao et al. 2022): keys are visited in chunks; a running maximum m and
// sum l rescale what was accumulated so far. For each query: o = sum_j exp(s_j - m) v_j, l = sum_j exp(s_j - m), y = o
// / l.
#include "ops/cpu/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace premotor::ops {
namespace {

constexpr std::int64_t kQueriesMax = 12;  // queries of one task: a multiple of every kernel's register tile
constexpr std::int64_t kKeysPerChunk = 256;
constexpr std::int64_t kAccumulatorFloats = 8192;  // kQueries * head_dim stays below this

// The queries of one task, their running maxima and sums, and the weighted values so far.
struct Block {
  const AttentionArgs& args;
  const Kernels& kernels;
  std::int64_t head;
  std::int64_t queries;
  const float* q;
  float most[kQueriesMax];
  float sum[kQueriesMax];
  float scores[kQueriesMax * kKeysPerChunk];
  float out[kAccumulatorFloats];

  void begin() {
    std::fill_n(most, queries, -INFINITY);
    std::fill_n(sum, queries, 0.0f);
    std::fill_n(out, queries * args.head_dim, 0.0f);
  }

  // Scores of `count` keys from `first` on, softmax weights, weighted values.
  void visit(std::int64_t first, std::int64_t count) {
    score(first, count);
    for (std::int64_t r = 0; r < queries; ++r) {
      float* row = scores + r * kKeysPerChunk;
      const float top = std::max(most[r], kernels.max_row(row, count) * args.scale);
      const float keep = std::exp(most[r] - top);  // 0 for the first chunk
      if (keep != 1.0f) {
        for (std::int64_t c = 0; c < args.head_dim; ++c) out[r * args.head_dim + c] *= keep;
      }
      sum[r] = sum[r] * keep + kernels.exp_row(row, count, args.scale, top);
      // A bfloat16 deployment multiplies the values by rounded weights, but normalises with the unrounded sum.
      if (args.rounding == Rounding::bf16) kernels.round_bf16(row, count);
      most[r] = top;
    }
    accumulate(first, count);
  }

  void score(std::int64_t first, std::int64_t count) {
    const KeyValueView& kv = args.kv;
    const std::int64_t d = args.head_dim, from = (head * kv.count + first) * d;
    if (kv.dtype == Dtype::f32)
      kernels.gemm_f32(q, args.ldq, queries, static_cast<const float*>(kv.k) + from, count, d, scores, kKeysPerChunk);
    else
      kernels.gemm_bf16(q, args.ldq, queries, static_cast<const std::uint16_t*>(kv.k) + from, count, d, scores,
                        kKeysPerChunk);
  }

  void accumulate(std::int64_t first, std::int64_t count) {
    const KeyValueView& kv = args.kv;
    const std::int64_t d = args.head_dim, from = (head * kv.count + first) * d;
    if (kv.dtype == Dtype::f32)
      kernels.weighted_sum_f32(scores, kKeysPerChunk, queries, static_cast<const float*>(kv.v) + from, count, d, out,
                               d);
    else
      kernels.weighted_sum_bf16(scores, kKeysPerChunk, queries, static_cast<const std::uint16_t*>(kv.v) + from, count,
                                d, out, d);
  }

  void finish(float* y) {
    for (std::int64_t r = 0; r < queries; ++r) {
      float* to = y + r * args.ldy;
      const float inverse = 1.0f / sum[r];
      for (std::int64_t c = 0; c < args.head_dim; ++c) to[c] = out[r * args.head_dim + c] * inverse;
      if (args.rounding == Rounding::bf16) kernels.round_bf16(to, args.head_dim);
    }
  }
};

}  // namespace

void cpu_attention(ThreadPool& pool, const Kernels& kernels, const AttentionArgs& a) {
  assert(a.kv.count >= 1 && a.head_dim >= 1 && a.head_dim <= kAccumulatorFloats);
  const std::int64_t step = std::clamp<std::int64_t>(kAccumulatorFloats / a.head_dim, 1, kQueriesMax);
  const std::int64_t blocks = (a.rows + step - 1) / step;
  pool.parallel_for(a.heads * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t head = task / blocks, row = task % blocks * step;
      Block block{a,  kernels, head, std::min(step, a.rows - row), a.q + row * a.ldq + head * a.head_dim, {},
                  {}, {},      {}};
      block.begin();
      for (std::int64_t first = 0; first < a.kv.count; first += kKeysPerChunk)
        block.visit(first, std::min(kKeysPerChunk, a.kv.count - first));
      block.finish(a.y + row * a.ldy + head * a.head_dim);
    }
  });
}

}  // namespace premotor::ops
