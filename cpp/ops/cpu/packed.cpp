// Packing and unpacking of weights; see packed.h for the layout.
#include "ops/cpu/packed.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "base/thread_pool.h"
#include "ops/cpu/int4.h"

namespace premotor::ops {
namespace {

float value_at(const Matrix& w, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * w.cols + col;
  return w.dtype == Dtype::f32 ? static_cast<const float*>(w.data)[at]
                               : bf16_to_f32(static_cast<const std::uint16_t*>(w.data)[at]);
}

// Where the units of an output begin, in bytes behind the matrix's begin; each next one lies a unit of all columns on.
std::int64_t offset_of(std::int64_t units, std::int64_t row) {
  return (row / kPanelColumns * units * kPanelColumns + row % kPanelColumns) * 4;
}
constexpr std::int64_t kNextUnit = kPanelColumns * 4;

// Values of T along k, `make(col)` each, into the units of one output.
template <typename T, typename Make>
void put_row(std::int64_t cols, char* at, Make make) {
  constexpr std::int64_t unit = 4 / sizeof(T);
  for (std::int64_t col = 0; col < cols; col += unit, at += kNextUnit)
    for (std::int64_t i = 0; i < std::min(unit, cols - col); ++i) {
      const T value = make(col + i);
      std::memcpy(at + i * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
    }
}

// The values of T of one output, given to `take(col, value)`.
template <typename T, typename Take>
void take_row(std::int64_t cols, const char* at, Take take) {
  constexpr std::int64_t unit = 4 / sizeof(T);
  for (std::int64_t col = 0; col < cols; col += unit, at += kNextUnit)
    for (std::int64_t i = 0; i < std::min(unit, cols - col); ++i) {
      T value;
      std::memcpy(&value, at + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
      take(col + i, value);
    }
}

// The smallest normal float stands in for the scale of an output without weights, so that 0 / scale is 0.
constexpr float kScaleLeast = 1.17549435e-38f;

float scale_of(const Matrix& w, std::int64_t row) {
  float most = 0;
  for (std::int64_t col = 0; col < w.cols; ++col) most = std::max(most, std::abs(value_at(w, row, col)));
  return std::max(most / 127.0f, kScaleLeast);
}

void pack_row_int8(const Matrix& w, std::int64_t row, std::int64_t units, char* to) {
  const float scale = scale_of(w, row);
  std::int32_t sum = 0;
  put_row<std::int8_t>(w.cols, to + offset_of(units, row), [&](std::int64_t col) {
    const auto q = static_cast<std::int8_t>(std::nearbyint(value_at(w, row, col) / scale));
    sum += q;
    return q;
  });
  const std::int64_t padded = packed_panels(w.rows) * kPanelColumns;
  char* scales = to + padded * units * 4;
  std::memcpy(scales + row * 4, &scale, 4);
  std::memcpy(scales + (padded + row) * 4, &sum, 4);
}

// Writes the panels [begin, end), their padding too; of an int8 matrix also the outputs' scales and sums.
void pack_panels(const Matrix& w, PackedPrecision precision, std::int64_t group, std::int64_t begin, std::int64_t end,
                 char* to) {
  if (precision == PackedPrecision::int4) return pack_int4(w, group, begin, end, to);
  const std::int64_t units = packed_units(precision, w.cols), panel_bytes = units * kPanelColumns * 4;
  std::memset(to + begin * panel_bytes, 0, static_cast<std::size_t>((end - begin) * panel_bytes));
  const std::int64_t row_end = std::min(end * kPanelColumns, w.rows);
  for (std::int64_t row = begin * kPanelColumns; row < row_end; ++row) {
    char* at = to + offset_of(units, row);
    if (precision == PackedPrecision::f32)
      put_row<float>(w.cols, at, [&](std::int64_t col) { return value_at(w, row, col); });
    else if (precision == PackedPrecision::bf16)
      put_row<std::uint16_t>(w.cols, at, [&](std::int64_t col) { return f32_to_bf16(value_at(w, row, col)); });
    else
      pack_row_int8(w, row, units, to);
  }
}

// Before the panels: what lies behind those of int8, zero for padded outputs. int4 has its scales within.
void begin_packing(const Matrix& w, PackedPrecision precision, char* to) {
  assert(w.rows >= 1 && w.cols >= 1 && w.dtype != Dtype::f16);
  assert(precision != PackedPrecision::int8 || w.cols <= kPackedDepthMax);
  if (precision != PackedPrecision::int8) return;
  const std::int64_t panels_bytes = packed_panels(w.rows) * packed_units(precision, w.cols) * kPanelColumns * 4;
  std::memset(to + panels_bytes, 0, static_cast<std::size_t>(packed_bytes(precision, w.rows, w.cols) - panels_bytes));
}

}  // namespace

void pack(const Matrix& w, PackedPrecision precision, void* to, std::int64_t group) {
  begin_packing(w, precision, static_cast<char*>(to));
  pack_panels(w, precision, group, 0, packed_panels(w.rows), static_cast<char*>(to));
}

void pack(ThreadPool& pool, const Matrix& w, PackedPrecision precision, void* to, std::int64_t group) {
  constexpr std::int64_t kSerialValues = 1 << 14;
  begin_packing(w, precision, static_cast<char*>(to));
  const std::int64_t panels = packed_panels(w.rows);
  pool.parallel_for(panels, w.rows * w.cols < kSerialValues ? panels : 1, [&](std::int64_t begin, std::int64_t end) {
    pack_panels(w, precision, group, begin, end, static_cast<char*>(to));
  });
}

void unpack(const PackedMatrix& packed, float* w) {
  if (packed.precision == PackedPrecision::int4) return unpack_int4(packed, w);
  const std::int64_t units = packed_units(packed.precision, packed.k);
  for (std::int64_t row = 0; row < packed.n; ++row) {
    const char* at = static_cast<const char*>(packed.data) + offset_of(units, row);
    float* to = w + row * packed.k;
    if (packed.precision == PackedPrecision::f32)
      take_row<float>(packed.k, at, [&](std::int64_t col, float value) { to[col] = value; });
    else if (packed.precision == PackedPrecision::bf16)
      take_row<std::uint16_t>(packed.k, at, [&](std::int64_t col, std::uint16_t bits) { to[col] = bf16_to_f32(bits); });
    else
      take_row<std::int8_t>(packed.k, at, [&](std::int64_t col, std::int8_t q) {
        to[col] = static_cast<float>(q) * packed_scales(packed)[row];
      });
  }
}

const float* packed_scales(const PackedMatrix& w) {
  assert(w.precision == PackedPrecision::int8);
  const std::int64_t panels = packed_panels(w.n), units = packed_units(w.precision, w.k);
  return reinterpret_cast<const float*>(static_cast<const char*>(w.data) + panels * kPanelColumns * units * 4);
}

const std::int32_t* packed_sums(const PackedMatrix& w) {
  return reinterpret_cast<const std::int32_t*>(packed_scales(w) + packed_panels(w.n) * kPanelColumns);
}

}  // namespace premotor::ops
