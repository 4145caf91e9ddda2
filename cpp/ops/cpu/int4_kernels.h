// The inner loops over 4-bit weights, one table per instruction set (int4_kernels.cpp is compiled once for each).
#pragma once

#include <cstdint>

#include "ops/cpu/packed.h"

namespace premotor::ops {

// Units of k that are summed at a time, and widened at a time where several tiles of rows share them: a whole number of
// groups of every size. Widened they are bf16 pairs or floats, in a first-level cache.
constexpr std::int64_t kInt4Block = 32;
constexpr std::int64_t kInt4WidenedBytes = kInt4Block * kInt4Unit * kPanelColumns * 4;

// sum[r, c] = sum over groups g of scale[g, c] * (sum over k in g of x[r, k] q[k, c]), r < rows, c < 32: the groups in
// order, each from zero in one accumulator per output.
struct Int4Tile {
  const void* x;       // [4 units, rows] activation pairs as `convert` wrote them
  std::int64_t rows;   // 1 .. Int4Kernels::rows
  const void* w;       // groups of one panel, the first at its begin; 64-byte aligned
  std::int64_t units;  // 1 .. kInt4Block; whole groups but for the matrix's last
  std::int64_t group;  // units of one group
  float* sum;          // [rows, 32], 64-byte aligned, written whole
};

struct Int4Kernels {
  std::int64_t rows;        // most rows of a tile
  std::int64_t pair_bytes;  // of two activations: 4 as bf16, or 8 as floats

  // Row-major x [rows, k] f32, row stride ldx -> [pairs of k, rows], rounded to bf16; zeros behind k up to whole units.
  void (*convert)(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t k, void* to);
  void (*multiply)(const Int4Tile& tile);
  // The values of a block without their scales, for multiply_widened of the same block; at most kInt4WidenedBytes.
  void (*widen)(const void* w, std::int64_t units, std::int64_t group, void* to);
  void (*multiply_widened)(const Int4Tile& tile, const void* widened);  // the same bits as multiply
};

#if defined(__aarch64__)
namespace neon {
const Int4Kernels& int4_kernels();
}
namespace neon_dot {
const Int4Kernels& int4_kernels();
}
namespace neon_i8mm {
const Int4Kernels& int4_kernels();
}
namespace neon_bf16 {
const Int4Kernels& int4_kernels();
}
#else
namespace baseline {
const Int4Kernels& int4_kernels();
}
#endif
namespace avx2 {
const Int4Kernels& int4_kernels();
}
namespace avx512 {
const Int4Kernels& int4_kernels();
}
namespace avx512_dot {
const Int4Kernels& int4_kernels();
}

}  // namespace premotor::ops
