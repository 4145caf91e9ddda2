// Weights of 4 bits: their packing. Layout and arithmetic: packed.h; their products: packed_linear.h.
#pragma once

#include "ops/cpu/int4_rounding.h"
#include "ops/cpu/packed.h"

namespace premotor::ops {

// Bytes of one group of `count` values of a panel, its scales included, and of a whole panel.
[[nodiscard]] constexpr std::int64_t int4_group_bytes(std::int64_t count) {
  return kPanelColumns * (2 + 4 * ((count + kInt4Unit - 1) / kInt4Unit));
}
[[nodiscard]] constexpr std::int64_t int4_panel_bytes(std::int64_t k, std::int64_t group) {
  return packed_bytes(PackedPrecision::int4, kPanelColumns, k, group);
}

// Writes the panels panel_begin .. panel_end of a matrix whose first panel begins at `to`; panels are independent, so
// threads may share the work. group: 32, 64 or 128.
void pack_int4(const Matrix& w, std::int64_t group, std::int64_t panel_begin, std::int64_t panel_end, void* to,
               Int4Rounding how = Int4Rounding::searched);

// w [n, k] f32: q times its group's scale, rounded to bf16 as a product takes it.
void unpack_int4(const PackedMatrix& packed, float* w);

}  // namespace premotor::ops
