// The CPU backend's row-wise operations: what one row of an operation is, and how many rows a thread takes at once.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace premotor::ops {

// The part of a layer norm that belongs to row r.
[[nodiscard]] inline RowNorm row_norm(const Ops::Norm& norm, std::int64_t dim, std::int64_t r, Rounding rounding) {
  RowNorm row{dim, norm.eps, norm.weight, norm.bias, nullptr, nullptr, rounding};
  if (norm.scale != nullptr) {
    const std::int64_t at = (norm.row_map == nullptr ? 0 : norm.row_map[r]) * norm.mod_stride;
    row.scale = norm.scale + at;
    row.shift = norm.shift + at;
  }
  return row;
}

// Rows of `dim` floats that are worth handing to another thread, which takes about as long as a vector kernel needs for
// some thousand floats.
[[nodiscard]] inline std::int64_t row_grain(std::int64_t dim) {
  constexpr std::int64_t kFloats = 8192;
  return std::max<std::int64_t>(1, kFloats / std::max<std::int64_t>(1, dim));
}

}  // namespace premotor::ops
