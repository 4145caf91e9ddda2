// Online softmax (Milakov and Gimelshein 2018; Dao et al. 2022): keys are visited in chunks; a running maximum m and
// sum l rescale what was accumulated so far. For each query: o = sum_j exp(s_j - m) v_j, l = sum_j exp(s_j - m), y = o
// / l.
#include "ops/cpu/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

namespace premotor::ops {
namespace {

constexpr std::int64_t kQueriesMax = 12;  // queries of one task: a multiple of every kernel's register tile
constexpr std::int64_t kKeysPerChunk = 256;
constexpr std::int64_t kAccumulatorFloats = 8192;  // kQueries * head_dim stays below this

// Cuts the slot list into stretches of neighbours and at every chunk's end. Chunks are counted in keys, not in
// stretches: what a key is added to must not depend on where it lies, or a rebuilt cache would give other bits.
void find_runs(const KeyValueView& kv, std::vector<Run>* found) {
  std::vector<Run>& runs = *found;
  runs.clear();
  runs.reserve(static_cast<std::size_t>(kv.capacity));  // once: how scattered a cache is changes from pass to pass
  for (std::int64_t i = 0; i < kv.count; ++i) {
    const std::int64_t slot = kv.slots == nullptr ? i : kv.slots[i];
    assert(slot >= 0 && slot < kv.capacity);
    if (i % kKeysPerChunk != 0 && runs.back().first + runs.back().count == slot)
      ++runs.back().count;
    else
      runs.push_back({slot, 1});
  }
}

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

  // Scores of `runs` (count keys together), softmax weights, weighted values.
  void visit(const Run* runs, std::size_t run_count, std::int64_t count, bool has_last) {
    const KeyValueView& kv = args.kv;
    std::int64_t at = 0;
    for (std::size_t i = 0; i < run_count; at += runs[i].count, ++i) score(runs[i], scores + at);
    for (std::int64_t r = 0; r < queries; ++r) {
      float* row = scores + r * kKeysPerChunk;
      if (has_last && kv.last_weight != 1.0f) row[count - 1] += std::log(kv.last_weight) / args.scale;
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
    at = 0;
    for (std::size_t i = 0; i < run_count; at += runs[i].count, ++i) accumulate(runs[i], scores + at);
  }

  void score(const Run& run, float* to) {
    const KeyValueView& kv = args.kv;
    const std::int64_t d = args.head_dim, from = (head * kv.capacity + run.first) * d;
    if (kv.dtype == Dtype::f32)
      kernels.gemm_f32(q, args.ldq, queries, static_cast<const float*>(kv.k) + from, run.count, d, to, kKeysPerChunk);
    else
      kernels.gemm_bf16(q, args.ldq, queries, static_cast<const std::uint16_t*>(kv.k) + from, run.count, d, to,
                        kKeysPerChunk);
  }

  void accumulate(const Run& run, const float* weights) {
    const KeyValueView& kv = args.kv;
    const std::int64_t d = args.head_dim, from = (head * kv.capacity + run.first) * d;
    if (kv.dtype == Dtype::f32)
      kernels.weighted_sum_f32(weights, kKeysPerChunk, queries, static_cast<const float*>(kv.v) + from, run.count, d,
                               out, d);
    else
      kernels.weighted_sum_bf16(weights, kKeysPerChunk, queries, static_cast<const std::uint16_t*>(kv.v) + from,
                                run.count, d, out, d);
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

void attend(Block& block, const std::vector<Run>& runs) {
  block.begin();
  std::size_t first = 0;
  while (first < runs.size()) {
    std::size_t end = first;
    std::int64_t count = 0;
    while (end < runs.size() && count + runs[end].count <= kKeysPerChunk) count += runs[end++].count;
    block.visit(&runs[first], end - first, count, end == runs.size());
    first = end;
  }
}

}  // namespace

void cpu_attention(ThreadPool& pool, const Kernels& kernels, const AttentionArgs& a, std::vector<Run>* found) {
  assert(a.kv.count >= 1 && a.head_dim >= 1 && a.head_dim <= kAccumulatorFloats);
  find_runs(a.kv, found);
  const std::vector<Run>& runs = *found;
  const std::int64_t step = std::clamp<std::int64_t>(kAccumulatorFloats / a.head_dim, 1, kQueriesMax);
  const std::int64_t blocks = (a.rows + step - 1) / step;
  pool.parallel_for(a.heads * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t head = task / blocks, row = task % blocks * step;
      Block block{a,  kernels, head, std::min(step, a.rows - row), a.q + row * a.ldq + head * a.head_dim, {},
                  {}, {},      {}};
      attend(block, runs);
      block.finish(a.y + row * a.ldy + head * a.head_dim);
    }
  });
}

}  // namespace premotor::ops
