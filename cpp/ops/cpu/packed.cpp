// Packing and unpacking of weights; see packed.h for the layout.
#include "ops/cpu/packed.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "base/half.h"

namespace premotor::ops {
namespace {

float value_at(const Matrix& w, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * w.cols + col;
  return w.dtype == Dtype::f32 ? static_cast<const float*>(w.data)[at]
                               : bf16_to_f32(static_cast<const std::uint16_t*>(w.data)[at]);
}

// Where the value (row, col) lies, in bytes behind the matrix's begin.
std::int64_t offset_of(PackedPrecision precision, std::int64_t units, std::int64_t row, std::int64_t col) {
  const std::int64_t unit = packed_unit(precision), panel = row / kPanelColumns, column = row % kPanelColumns;
  return ((panel * units + col / unit) * kPanelColumns + column) * 4 + col % unit * (4 / unit);
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
  for (std::int64_t col = 0; col < w.cols; ++col) {
    const auto q = static_cast<std::int8_t>(std::nearbyint(value_at(w, row, col) / scale));
    std::memcpy(to + offset_of(PackedPrecision::int8, units, row, col), &q, 1);
    sum += q;
  }
  const std::int64_t padded = packed_panels(w.rows) * kPanelColumns;
  char* scales = to + padded * units * 4;
  std::memcpy(scales + row * 4, &scale, 4);
  std::memcpy(scales + (padded + row) * 4, &sum, 4);
}

}  // namespace

void pack(const Matrix& w, PackedPrecision precision, void* to) {
  assert(w.rows >= 1 && w.cols >= 1 && w.dtype != Dtype::f16);
  assert(precision != PackedPrecision::int8 || w.cols <= kPackedDepthMax);
  char* bytes = static_cast<char*>(to);
  const std::int64_t units = packed_units(precision, w.cols);
  std::memset(bytes, 0, static_cast<std::size_t>(packed_bytes(precision, w.rows, w.cols)));
  for (std::int64_t row = 0; row < w.rows; ++row) {
    if (precision == PackedPrecision::int8) {
      pack_row_int8(w, row, units, bytes);
      continue;
    }
    for (std::int64_t col = 0; col < w.cols; ++col) {
      const float value = value_at(w, row, col);
      const std::uint16_t bits = f32_to_bf16(value);
      char* at = bytes + offset_of(precision, units, row, col);
      precision == PackedPrecision::f32 ? std::memcpy(at, &value, 4) : std::memcpy(at, &bits, 2);
    }
  }
}

void unpack(const PackedMatrix& packed, float* w) {
  const char* bytes = static_cast<const char*>(packed.data);
  const std::int64_t units = packed_units(packed.precision, packed.k);
  for (std::int64_t row = 0; row < packed.n; ++row) {
    for (std::int64_t col = 0; col < packed.k; ++col) {
      const char* at = bytes + offset_of(packed.precision, units, row, col);
      float* value = w + row * packed.k + col;
      std::uint16_t bits = 0;
      std::int8_t q = 0;
      if (packed.precision == PackedPrecision::f32) {
        std::memcpy(value, at, 4);
      } else if (packed.precision == PackedPrecision::bf16) {
        std::memcpy(&bits, at, 2);
        *value = bf16_to_f32(bits);
      } else {
        std::memcpy(&q, at, 1);
        *value = static_cast<float>(q) * packed_scales(packed)[row];
      }
    }
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
