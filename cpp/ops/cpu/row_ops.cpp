// Norms, rotations, residuals and the way into the KV cache, over the row kernels of kernels.h.
#include "ops/cpu/row_ops.h"

#include <cassert>
#include <cstring>

#include "base/half.h"
#include "ops/cpu/cpu_ops.h"

namespace premotor::ops {
namespace {

// One row [heads, head_dim] into a cache plane.
void store_row(const float* x, std::int64_t heads, std::int64_t head_dim, void* plane, Dtype dtype,
               std::int64_t capacity, std::int64_t slot) {
  assert(slot >= 0 && slot < capacity);
  for (std::int64_t h = 0; h < heads; ++h) {
    const float* from = x + h * head_dim;
    const std::int64_t at = (h * capacity + slot) * head_dim;
    if (dtype == Dtype::f32) {
      std::memcpy(static_cast<float*>(plane) + at, from, static_cast<std::size_t>(head_dim) * sizeof(float));
    } else {
      std::uint16_t* to = static_cast<std::uint16_t*>(plane) + at;
      for (std::int64_t c = 0; c < head_dim; ++c) to[c] = f32_to_bf16(from[c]);
    }
  }
}

}  // namespace

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
  pool_.parallel_for(a.rows, row_grain(3 * inner), [&](std::int64_t begin, std::int64_t end) {
    const auto turn = [&](float* x, std::int64_t r, const float* weight) {
      kernels_.rms_norm(x, inner, a.eps, weight, a.rounding);
      if (a.cos != nullptr) kernels_.rope(x, a.heads, a.head_dim, a.cos + r * pairs, a.sin + r * pairs, a.rounding);
    };
    for (std::int64_t r = begin; r < end; ++r) {
      if (a.q != nullptr) turn(a.q + r * a.ld, r, a.norm_q);
      turn(a.k + r * a.ld, r, a.norm_k);
      store_row(a.k + r * a.ld, a.heads, a.head_dim, a.keys, a.dtype, a.capacity, a.slots[r]);
      store_row(a.v + r * a.ld, a.heads, a.head_dim, a.values, a.dtype, a.capacity, a.slots[r]);
    }
  });
}

void CpuOps::store_kv(const float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx,
                      void* plane, Dtype dtype, std::int64_t capacity, const std::int32_t* slots) {
  for (std::int64_t r = 0; r < rows; ++r) store_row(x + r * ldx, heads, head_dim, plane, dtype, capacity, slots[r]);
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
