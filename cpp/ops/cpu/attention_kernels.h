// The inner loops of attention over cached keys and values, one table per instruction set (attention_kernels.cpp is
// compiled once for each). Tiles of up to `rows` queries meet panels of 32 cached rows (ops/kv_layout.h).
#pragma once

#include <cstdint>

#include "ops/cpu/packed.h"
#include "ops/kv_layout.h"

namespace premotor::ops {

constexpr std::int64_t kChunkPanels = 8;  // panels whose softmax weights are made at a time
constexpr std::int64_t kQueriesMost = 16;
constexpr std::int64_t kQueryPitchBytes = kHeadDimMost * 4 + 4;  // from one query to the next one; see kWeightPitch
// Floats from one query's weights to the next one's: one more than there are, so that those of several queries for one
// row lie in different banks of the first-level cache.
constexpr std::int64_t kWeightPitch = kChunkPanels * kPanelColumns + 1;

// scores[r, c] = q[r] . k[c] for one panel.
struct ScoreTile {
  const void* q;       // [rows] x kQueryPitchBytes, as `convert` wrote them
  std::int64_t rows;   // 1 .. AttentionKernels::rows
  const char* keys;    // one head's, of the panel
  std::int64_t units;  // of head_dim
  float* scores;       // [rows, 32], 64-byte aligned
  const char* ahead;   // cache lines fetched meanwhile, as PackedTile's
  std::int64_t ahead_step;
};

// One chunk's step of the online softmax (Milakov and Gimelshein 2018). With s = scores * scale_log2:
// top' = max(top, max s), keep = 2^(top - top'), weights = 2^(s - top'), sum' = sum keep + total of the weights.
struct WeighTile {
  float* scores;  // [count, rows, 32]; rows that are not attended are overwritten
  std::int64_t rows, count;
  const std::uint32_t* masks;  // [count] which of a panel's rows are attended
  // Scales of an int8 cache, [count] x 32: scores are multiplied by the keys', weights by the values'. Null: none.
  const float* key_scales;
  const float* value_scales;
  float scale_log2;  // softmax scale times log2(e)
  float* top;        // [rows]
  float* sum;        // [rows], of unrounded weights
  float* keep;       // [rows]
  bool is_rounded;   // weights are rounded to bf16 (in pairs where the product takes them so)
  float* weights;    // [rows] x kWeightPitch
};

// out[r, d] = out[r, d] keep[r] + sum over the runs' rows of weights[r, row] v[row, d], for one panel along head_dim.
struct ValueRun {
  const char* values;   // first unit of the first panel along head_dim
  std::int64_t first;   // column of `weights`
  std::int64_t units;   // of rows
  std::int64_t stride;  // bytes to the next panel along head_dim
};
struct ValueTile {
  const float* weights;  // as WeighTile's
  std::int64_t rows;
  const ValueRun* runs;  // [count]
  std::int64_t count;
  std::int64_t panel;
  std::int64_t columns;  // 1 .. 32: those of the panel that are wanted; whole vectors are written
  const float* keep;     // [rows]
  float* out;            // [rows] x pitch, the panel's first column
  std::int64_t pitch;
  const char* ahead;
  std::int64_t ahead_step;
};

// An int8 chunk as bf16, which holds the integers exactly: `count` values, a multiple of 32.
struct WidenTile {
  const std::int8_t* from;
  std::int64_t count;
  std::uint16_t* to;
};

// Products f32, bf16 and bf16_dot of packed.h.
constexpr int kAttentionProducts = 3;

struct AttentionKernels {
  const char* name;
  std::int64_t rows;
  bool has_dot;  // products of bf16 pairs; else bf16_dot takes the conversions and tiles of bf16
  // Row-major q [rows, head_dim] f32, row stride ldq -> [rows] x kQueryPitchBytes, zeros up to whole units.
  void (*convert[kAttentionProducts])(const float* q, std::int64_t ldq, std::int64_t rows, std::int64_t head_dim,
                                      void* to);
  void (*scores[kAttentionProducts])(const ScoreTile& tile);
  void (*weigh[kAttentionProducts])(const WeighTile& tile);
  void (*accumulate[kAttentionProducts])(const ValueTile& tile);
  void (*widen)(const WidenTile& tile);
};

#if defined(__aarch64__)
namespace neon {
const AttentionKernels& attention_kernels();
}
namespace neon_dot {
const AttentionKernels& attention_kernels();
}
namespace neon_i8mm {
const AttentionKernels& attention_kernels();
}
namespace neon_bf16 {
const AttentionKernels& attention_kernels();
}
#else
namespace baseline {
const AttentionKernels& attention_kernels();
}
#endif
namespace avx2 {
const AttentionKernels& attention_kernels();
}
namespace avx512 {
const AttentionKernels& attention_kernels();
}
namespace avx512_dot {
const AttentionKernels& attention_kernels();
}

}  // namespace premotor::ops
