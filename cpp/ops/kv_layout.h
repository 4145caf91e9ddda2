// Where cached keys and values lie: the layout that attention reads as it reads packed weights (ops/cpu/packed.h), so
// that neither is gathered or transposed for a pass. Shared by the operations, the cache and what inspects it.
//
//   keys    [head][panel of 32 rows][unit along head_dim][32 rows]: a unit is 1 f32, 2 bf16 or 2 int8 of one row
//   values  [head][panel of 32 of head_dim][unit along rows][32 of head_dim]: a unit is 1 f32, 2 bf16 or 2 int8 of
//           consecutive rows
//   int8    behind either plane the scales, [head][rows] f32: a row's vector of one head is its integers times its
//   scale
//
// A row is a token's place, 0 .. rows-1; rows are a multiple of 32. head_dim is padded to whole units (keys) and whole
// panels (values); padding stays zero.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace premotor::ops {

constexpr std::int64_t kKvPanel = 32;
constexpr std::int64_t kHeadDimMost = 256;  // a task of attention keeps its queries in memory of this width

[[nodiscard]] constexpr std::int64_t kv_rows(std::int64_t tokens) {
  return (tokens + kKvPanel - 1) / kKvPanel * kKvPanel;
}

struct KvLayout {
  std::int64_t heads = 0;
  std::int64_t rows = 0;  // a multiple of kKvPanel
  std::int64_t head_dim = 0;
  Dtype dtype = Dtype::f32;  // f32, bf16 or int8

  // Values in one unit, and its bytes.
  [[nodiscard]] constexpr std::int64_t unit() const { return dtype == Dtype::f32 ? 1 : 2; }
  [[nodiscard]] constexpr std::int64_t unit_bytes() const { return unit() * bytes_of(dtype); }
  [[nodiscard]] constexpr std::int64_t key_units() const { return (head_dim + unit() - 1) / unit(); }
  [[nodiscard]] constexpr std::int64_t value_panels() const { return (head_dim + kKvPanel - 1) / kKvPanel; }
  // Sizes of the two planes, multiples of 64, and where their scales begin.
  [[nodiscard]] constexpr std::int64_t key_scales() const { return heads * rows * key_units() * unit_bytes(); }
  [[nodiscard]] constexpr std::int64_t value_scales() const {
    return heads * value_panels() * kKvPanel * rows * bytes_of(dtype);
  }
  [[nodiscard]] constexpr std::int64_t scale_bytes() const { return dtype == Dtype::int8 ? heads * rows * 4 : 0; }
  [[nodiscard]] constexpr std::int64_t key_bytes() const { return key_scales() + scale_bytes(); }
  [[nodiscard]] constexpr std::int64_t value_bytes() const { return value_scales() + scale_bytes(); }
  // Element numbers, counted in dtype.
  [[nodiscard]] constexpr std::int64_t key_at(std::int64_t head, std::int64_t row, std::int64_t d) const {
    const std::int64_t panel = (head * rows + row) / kKvPanel;
    return ((panel * key_units() + d / unit()) * kKvPanel + row % kKvPanel) * unit() + d % unit();
  }
  [[nodiscard]] constexpr std::int64_t value_at(std::int64_t head, std::int64_t row, std::int64_t d) const {
    const std::int64_t panel = head * value_panels() + d / kKvPanel;
    return (panel * rows / unit() + row / unit()) * kKvPanel * unit() + d % kKvPanel * unit() + row % unit();
  }
};

}  // namespace premotor::ops
