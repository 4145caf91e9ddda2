// The inner loops over packed weights, one table per instruction set (packed_kernels.cpp is compiled once for each).
// Raw pointers, no framework, no allocation.
#pragma once

#include <cstdint>

#include "ops/cpu/packed.h"

namespace premotor::ops {

// sum[r, c] = sum over u of x[u, r] . w[u, c], r < rows, c < 32, where "." is the product over one unit (packed.h).
struct PackedTile {
  const void* x;       // units of `rows` rows as `convert` wrote them, in its own order; 4-byte aligned
  std::int64_t rows;   // 1 .. PackedKernels::rows
  const void* w;       // [units, 32] units of one panel, 64-byte aligned
  std::int64_t units;  // >= 1
  void* sum;           // [rows, 32] f32, s32 of an int8 product; 64-byte aligned, written whole
  bool is_carried;     // the tile's sums are added to those that `sum` holds
  // With every unit the cache lines at `ahead` and ahead + 64 are asked for and `ahead` moves on by ahead_step bytes:
  // weights that tiles after this one read. May reach past their end.
  const void* ahead;
  std::int64_t ahead_step;
};

// Groups of one panel of 4-bit weights, times their scales and rounded to bf16, as a panel of bf16 pairs.
struct Int4Block {
  const void* groups;  // the first group's scales, 64-byte aligned
  std::int64_t units;  // of kInt4Unit values, >= 1; whole groups but for the matrix's last
  std::int64_t group;  // units of one group
  void* to;            // [4 units, 32] pairs, 64-byte aligned
};

// sum[p, c] = sum over runs r and i < length of x[starts[r] + p step + i] w[r length + i, c]: a convolution's windows,
// read where they lie. Neighbouring output pixels' windows are `step` floats apart.
struct WindowTile {
  const float* x;
  std::int64_t pixels;         // 1 .. PackedKernels::window_pixels
  std::int64_t step;           // floats
  const std::int64_t* starts;  // [runs] floats
  std::int64_t runs, length;
  const float* w;        // [runs * length, 32] one panel of f32 weights, 64-byte aligned
  std::int64_t columns;  // 1 .. 32: those of the panel that are wanted
  float* sum;            // [pixels, 32], 64-byte aligned; whole vectors of the wanted columns are written
};

// Makes y of the sums along k:
//   y[r, c] = round(act(round(sum[r, c] + bias[c]))), an int8 sum first times x_scale[r] * w_scale[c].
// With a residual that goes to another place, and y is not written:
//   residual[r, c] = round(residual[r, c] + gate[row_map[r], c] * what y would be)
struct PackedFinish {
  const void* sum;           // [rows, 32] as PackedTile::sum
  std::int64_t rows;         // >= 1
  std::int64_t columns;      // 1 .. 32: those of the panel that y has
  const float* x_scale;      // [rows] f32; int8 only, as the next two
  const float* w_scale;      // [32] f32
  const std::int32_t* sums;  // [32] the weights' sums along k: takes out the offset of unsigned activations
  const float* bias;         // [columns] or null
  Activation act;
  Rounding rounding;
  float* y;  // [rows, columns], row stride ldy
  std::int64_t ldy;
  float* residual;  // [rows, columns], row stride residual_stride, or null
  std::int64_t residual_stride;
  const float* gate;  // [*, columns], row stride gate_stride; null: 1
  std::int64_t gate_stride;
  const std::int32_t* row_map;  // [rows] -> row of gate; null: all use row 0
};

struct PackedKernels {
  const char* name;
  std::int64_t rows;  // most rows of a tile
  // From a block of one row to that of the next, in units: a tile's activations are [block, rows, pitch]. 0: they are
  // [units, rows].
  std::int64_t pitch_units;
  std::int64_t unit_bytes[kProducts];  // of one unit of activations: 4, or 8 where kernels want them widened
  bool is_native[kProducts];           // the product has instructions of its own here

  // Row-major x [rows, k] f32, row stride ldx -> activation units in the order that `multiply` takes, [units, rows] or
  // [pairs of units, rows, 2] with a single last unit as [rows]; a block of an even number of units is read by itself.
  // int8 also writes scales [rows].
  void (*convert[kProducts])(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t k, void* to,
                             float* scales);
  void (*multiply[kProducts])(const PackedTile& tile);
  // Most pixels of a tile of up to 16, and of up to 32 columns.
  std::int64_t window_pixels[2];
  void (*multiply_window)(const WindowTile& tile);
  void (*finish)(const PackedFinish& finish);       // of f32 sums
  void (*finish_int8)(const PackedFinish& finish);  // of s32 sums
  void (*widen_int4)(const Int4Block& block);
};

// The best table for this processor. Environment PREMOTOR_ISA = baseline | avx2 | avx512 | avx512_dot forces a lower
// one, on 64-bit ARM neon | neon_dot | neon_i8mm | neon_bf16.
const PackedKernels& cpu_packed_kernels();

// The tables that this processor can run, lowest first, at most kPackedTables; returns how many.
constexpr int kPackedTables = 4;
int cpu_packed_tables(const PackedKernels* tables[kPackedTables]);

#if defined(__aarch64__)
namespace neon {
const PackedKernels& packed_kernels();
}
namespace baseline = neon;
namespace neon_dot {
const PackedKernels& packed_kernels();
}
namespace neon_i8mm {
const PackedKernels& packed_kernels();
}
namespace neon_bf16 {
const PackedKernels& packed_kernels();
}
#else
namespace baseline {
const PackedKernels& packed_kernels();
}
#endif
namespace avx2 {
const PackedKernels& packed_kernels();
}
namespace avx512 {
const PackedKernels& packed_kernels();
}
namespace avx512_dot {
const PackedKernels& packed_kernels();
}

}  // namespace premotor::ops
