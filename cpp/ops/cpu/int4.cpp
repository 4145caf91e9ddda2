// Packing of 4-bit weights: see int4.h.
#include "ops/cpu/int4.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/half.h"
#include "ops/cpu/row_tiles.h"

namespace premotor::ops {
namespace {

// The values of one output's group as they are packed: `count` of them in units that lie a panel's width apart.
void put_group(const std::int8_t* q, std::int64_t count, char* units) {
  for (std::int64_t first = 0; first < count; first += kInt4Unit, units += kPanelColumns * 4) {
    std::uint32_t unit = 0;
    for (std::int64_t i = 0; i < std::min(kInt4Unit, count - first); ++i)
      unit |= (static_cast<std::uint32_t>(q[first + i]) & 15u) << (4 * (i / 2) + 16 * (i % 2));
    std::memcpy(units, &unit, 4);
  }
}

std::int32_t value_of(std::uint32_t unit, std::int64_t i) {
  const auto q = static_cast<std::int32_t>(unit >> (4 * (i / 2) + 16 * (i % 2)) & 15u);
  return q < 8 ? q : q - 16;
}

}  // namespace

void pack_int4(const Matrix& w, std::int64_t group, std::int64_t panel_begin, std::int64_t panel_end, void* to,
               Int4Rounding how) {
  assert(group == 32 || group == 64 || group == 128);
  const std::int64_t bytes = int4_panel_bytes(w.cols, group);
  for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
    char* at = static_cast<char*>(to) + panel * bytes;
    std::memset(at, 0, static_cast<std::size_t>(bytes));
    const std::int64_t columns = std::min(kPanelColumns, w.rows - panel * kPanelColumns);
    for (std::int64_t first = 0; first < w.cols; first += group, at += int4_group_bytes(group)) {
      const std::int64_t count = std::min(group, w.cols - first);
      for (std::int64_t column = 0; column < columns; ++column) {
        float values[kInt4GroupMax];
        std::int8_t q[kInt4GroupMax];
        const std::int64_t from = (panel * kPanelColumns + column) * w.cols + first;
        for (std::int64_t i = 0; i < count; ++i)
          values[i] = w.dtype == Dtype::f32 ? static_cast<const float*>(w.data)[from + i]
                                            : bf16_to_f32(static_cast<const std::uint16_t*>(w.data)[from + i]);
        const std::uint16_t scale = f32_to_bf16(round_int4(values, count, how, q).scale);
        std::memcpy(at + 2 * column, &scale, 2);
        put_group(q, count, at + 2 * kPanelColumns + 4 * column);
      }
    }
  }
}

void unpack_int4(const PackedMatrix& packed, float* w) {
  const std::int64_t panel_bytes = int4_panel_bytes(packed.k, packed.group);
  for (std::int64_t row = 0; row < packed.n; ++row) {
    const std::int64_t column = row % kPanelColumns;
    for (std::int64_t col = 0; col < packed.k; ++col) {
      const std::int64_t in_group = col % packed.group;
      const char* at = static_cast<const char*>(packed.data) + row / kPanelColumns * panel_bytes +
                       col / packed.group * int4_group_bytes(packed.group);
      std::uint16_t scale;
      std::uint32_t unit;
      std::memcpy(&scale, at + 2 * column, 2);
      std::memcpy(&unit, at + 2 * kPanelColumns + (in_group / kInt4Unit * kPanelColumns + column) * 4, 4);
      w[row * packed.k + col] = round_to_bf16(bf16_to_f32(scale) * static_cast<float>(value_of(unit, col % kInt4Unit)));
    }
  }
}

}  // namespace premotor::ops
