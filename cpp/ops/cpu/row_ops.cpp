// Norms, rotations, residuals and the way into the KV cache, over the row kernels of kernels.h.
#include "ops/cpu/row_ops.h"

#include <cassert>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/kv_store.h"

namespace premotor::ops {
void CpuOps::layer_norm(const LayerNorm& a) {
  pool_.parallel_for(a.rows, row_grain(a.dim), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      kernels_.layer_norm(a.x + r * a.dim, row_norm(a.norm, a.dim, r, a.rounding), a.y + r * a.dim);
  });
}

void CpuOps::rms_norm(float* x, std::int64_t rows, std::int64_t dim, std::int64_t ldx, float eps, const float* weight,
                      Rounding rounding) {
  pool_.parallel_for(rows, row_grain(dim), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) kernels_.rms_norm(x + r * ldx, dim, eps, weight, rounding);
  });
}

void CpuOps::rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx,
                  const float* cos, const float* sin, Rounding rounding) {
  const std::int64_t pairs = head_dim / 2;
  pool_.parallel_for(rows, row_grain(heads * head_dim), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      kernels_.rope(x + r * ldx, heads, head_dim, cos + r * pairs, sin + r * pairs, rounding);
  });
}

void CpuOps::cache_heads(const HeadRows& a) {
  const std::int64_t inner = a.heads * a.head_dim, pairs = a.head_dim / 2;
  const KvLayout layout{a.heads, a.plane_rows, a.head_dim, a.dtype};
  const StoreKv store{a.k,       a.v,       a.rows,  a.heads,      a.head_dim, a.ld,
                      a.k_plane, a.v_plane, a.dtype, a.plane_rows, a.slots};
  pool_.parallel_for(a.rows, row_grain(3 * inner), [&](std::int64_t begin, std::int64_t end) {
    const auto turn = [&](float* x, std::int64_t r, const float* weight) {
      kernels_.rms_norm(x, inner, a.eps, weight, a.rounding);
      if (a.cos != nullptr) kernels_.rope(x, a.heads, a.head_dim, a.cos + r * pairs, a.sin + r * pairs, a.rounding);
    };
    for (std::int64_t r = begin; r < end; ++r) {
      if (a.q != nullptr) turn(a.q + r * a.ld, r, a.norm_q);
      turn(a.k + r * a.ld, r, a.norm_k);
      store_kv_row(store, layout, r);
    }
  });
}

void CpuOps::store_kv(const StoreKv& a) {
  const KvLayout layout{a.heads, a.plane_rows, a.head_dim, a.dtype};
  assert(a.plane_rows % kKvPanel == 0 && a.dtype != Dtype::f16);
  pool_.parallel_for(a.count, row_grain(a.heads * a.head_dim), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) store_kv_row(a, layout, i);
  });
}

void CpuOps::add_gated(float* h, const float* a, std::int64_t rows, std::int64_t dim, const float* gate,
                       std::int64_t gate_stride, const std::int32_t* row_map, Rounding rounding) {
  pool_.parallel_for(rows, row_grain(dim), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* of_row = gate == nullptr ? nullptr : gate + (row_map == nullptr ? 0 : row_map[r]) * gate_stride;
      kernels_.add_gated(h + r * dim, a + r * dim, of_row, dim, rounding);
    }
  });
}

void CpuOps::normalise_channels(const float* x, std::int64_t rows, std::int64_t channels, const float* gamma,
                                bool is_silu, Rounding rounding, float* y) {
  pool_.parallel_for(rows, row_grain(channels), [&](std::int64_t begin, std::int64_t end) {
    kernels_.normalise_channels(x + begin * channels, end - begin, channels, gamma, is_silu, rounding,
                                y + begin * channels);
  });
}

}  // namespace premotor::ops
