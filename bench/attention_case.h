// Attention over a full cache for bench/kernels.cpp: every slot attended, sizes of the released model's heads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/big_memory.h"
#include "bench/bench_values.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/kv_layout.h"

constexpr std::int64_t kAttentionHeadDim = 128;

class AttentionCase {
 public:
  AttentionCase(premotor::ops::CpuOps& ops, premotor::ops::Dtype dtype, std::int64_t queries, std::int64_t heads,
                std::int64_t entries)
      : ops_(ops),
        queries_(queries),
        entries_(entries),
        inner_(heads * kAttentionHeadDim),
        layout_{heads, premotor::ops::kv_rows(entries), kAttentionHeadDim, dtype},
        keys_(values_of(entries * inner_)),
        values_(values_of(entries * inner_)),
        q_(values_of(queries * inner_)),
        y_(q_.size()),
        k_plane_(premotor::allocate_big(layout_.key_bytes())),
        v_plane_(premotor::allocate_big(layout_.value_bytes())) {
    // Rows behind the last entry have finite values, as a view without bits of its own wants them.
    std::memset(k_plane_.get(), 0, static_cast<std::size_t>(layout_.key_bytes()));
    std::memset(v_plane_.get(), 0, static_cast<std::size_t>(layout_.value_bytes()));
    std::vector<std::int32_t> slots(static_cast<std::size_t>(entries));
    for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<std::int32_t>(i);
    ops.store_kv({keys_.data(), values_.data(), entries, heads, kAttentionHeadDim, inner_, k_plane_.get(),
                  v_plane_.get(), dtype, layout_.rows, slots.data()});
  }

  void run() {
    const premotor::ops::CachedView view{
        k_plane_.get(), v_plane_.get(), layout_.dtype, layout_.rows, nullptr, entries_, nullptr, 0, 1.0f};
    ops_.cached_attention({q_.data(), queries_, layout_.heads, kAttentionHeadDim, inner_, view, kScale,
                           premotor::ops::Rounding::none, y_.data(), inner_});
  }

  // What has to be read and written once.
  [[nodiscard]] double bytes() const {
    return static_cast<double>(layout_.key_bytes() + layout_.value_bytes() + 8 * queries_ * inner_);
  }

  // Relative root mean square of the errors of two queries of every head.
  [[nodiscard]] double error() const {
    double wrong = 0, size = 0;
    for (std::int64_t head = 0; head < layout_.heads; ++head)
      for (const std::int64_t query : {std::int64_t{0}, queries_ - 1}) {
        const std::vector<double> wanted = exact(head, query);
        for (std::size_t d = 0; d < wanted.size(); ++d) {
          const double got = y_[static_cast<std::size_t>(query * inner_ + head * kAttentionHeadDim) + d];
          wrong += (got - wanted[d]) * (got - wanted[d]);
          size += wanted[d] * wanted[d];
        }
      }
    return std::sqrt(wrong / size);
  }

  [[nodiscard]] std::uint32_t hash() const { return hash_of(y_); }

 private:
  static constexpr float kScale = 0.25f;  // scores of deviation 2.8: some entries count, and no single one does

  static std::vector<float> values_of(std::int64_t count) {
    std::minstd_rand generator(static_cast<unsigned>(count));
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(generator() >> 7) * 0x1p-23f - 1.0f;
    return values;
  }

  [[nodiscard]] std::vector<double> exact(std::int64_t head, std::int64_t query) const {
    const float* q = q_.data() + query * inner_ + head * kAttentionHeadDim;
    std::vector<double> sums(static_cast<std::size_t>(kAttentionHeadDim));
    double total = 0;
    for (std::int64_t entry = 0; entry < entries_; ++entry) {
      const float* k = keys_.data() + entry * inner_ + head * kAttentionHeadDim;
      const float* v = values_.data() + entry * inner_ + head * kAttentionHeadDim;
      double dot = 0;
      for (std::int64_t d = 0; d < kAttentionHeadDim; ++d) dot += static_cast<double>(q[d]) * k[d];
      const double weight = std::exp(dot * kScale);
      total += weight;
      for (std::int64_t d = 0; d < kAttentionHeadDim; ++d) sums[static_cast<std::size_t>(d)] += weight * v[d];
    }
    for (double& sum : sums) sum /= total;
    return sums;
  }

  premotor::ops::CpuOps& ops_;
  std::int64_t queries_, entries_, inner_;
  premotor::ops::KvLayout layout_;
  std::vector<float> keys_, values_, q_, y_;
  premotor::BigMemory k_plane_, v_plane_;
};
