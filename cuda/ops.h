// The kernels' launchers: what the GPU backend calls, one function per file of this folder. Shapes are structs,
// pointers are raw device memory, results are an Outcome (launch.h). No launcher allocates, waits or keeps a pointer;
// each may be captured in a graph. Each file's head has the equation, the operands' table and the tolerance.
//
// Activations are bfloat16 and row-major, which is the operation contract (cpp/ops/ops.h) with Rounding::bf16: a result
// is rounded where the contract rounds it. Rows begin on boundaries of sixteen bytes: strides of bfloat16 rows are
// multiples of 8, whatever the width.
#pragma once

#include <cstdint>

#include "cuda/launch.h"

namespace premotor::cuda {

enum class Act : std::uint8_t { none, gelu_tanh, silu };

// As ops::Ops::Norm, on the device. Float rows on boundaries of sixteen bytes, mod_stride a multiple of 4.
struct NormTerms {
  float eps = 0;
  const float* weight = nullptr;  // [dim] or null, then bias too
  const float* bias = nullptr;
  const float* scale = nullptr;  // [*, dim] with stride mod_stride or null, then shift too
  const float* shift = nullptr;
  std::int64_t mod_stride = 0;
  const std::int32_t* row_map = nullptr;  // [rows] -> row of scale and shift; null: all use row 0
};

struct LayerNormModulate {
  const std::uint16_t* x = nullptr;  // [rows, dim] bf16, stride ldx
  std::int64_t rows = 0, dim = 0, ldx = 0;
  NormTerms norm;
  std::uint16_t* y = nullptr;  // [rows, dim] bf16, stride ldy; may be x; null: only the quantised rows are wanted
  std::int64_t ldy = 0;
  std::int8_t* quantised = nullptr;  // [rows, dim] s8, stride ldq, a multiple of 16; or null
  std::int64_t ldq = 0;
  float* scales = nullptr;  // [rows] f32, with quantised
};
Outcome layer_norm_modulate(const LayerNormModulate& a, Stream stream);

// How a product is cut, and the memory that the partial sums of its splits need.
struct GemmPlan {
  bool is_narrow = false;  // tiles of 32 x 64, else 128 x 128
  int splits = 1;          // along k
  std::int64_t workspace_bytes = 0;
};
// multiprocessors: of the device. element_bytes: 2 (bf16) or 1 (s8).
[[nodiscard]] GemmPlan plan_gemm(std::int64_t m, std::int64_t n, std::int64_t k, int element_bytes,
                                 int multiprocessors);

// What happens to the sums of a product: z = act(round(sum + bias)), rounded; y = z, or, when is_residual,
// y = round(y + z * gate[row_map[r]]), gate 1 without one.
struct GemmEnd {
  const float* bias = nullptr;  // [n] or null
  Act act = Act::none;
  bool is_residual = false;
  const float* gate = nullptr;  // [*, n], stride gate_stride, or null
  std::int64_t gate_stride = 0;
  const std::int32_t* row_map = nullptr;  // [m] -> row of gate; null: all use row 0
  std::uint16_t* y = nullptr;             // [m, n] bf16, stride ldy; not x
  std::int64_t ldy = 0;
};

struct GemmBf16 {
  const std::uint16_t* x = nullptr;  // [m, k] bf16, stride ldx
  const std::uint16_t* w = nullptr;  // [n, k] bf16, stride ldw
  std::int64_t m = 0, n = 0, k = 0, ldx = 0, ldw = 0;
  GemmEnd end;
  GemmPlan plan;
  void* workspace = nullptr;  // plan.workspace_bytes, on a boundary of sixteen bytes
};
Outcome gemm_bf16(const GemmBf16& a, Stream stream);

struct GemmInt8 {
  const std::int8_t* x = nullptr;   // [m, k] s8, stride ldx
  const float* x_scales = nullptr;  // [m] f32
  const std::int8_t* w = nullptr;   // [n, k] s8, stride ldw
  const float* w_scales = nullptr;  // [n] f32
  std::int64_t m = 0, n = 0, k = 0, ldx = 0, ldw = 0;
  GemmEnd end;
  GemmPlan plan;
  void* workspace = nullptr;
};
Outcome gemm_int8(const GemmInt8& a, Stream stream);

// Guidance rows that one launch takes.
constexpr int kGuidanceRows = 2;

// Cached keys and values of one layer and guidance row: [head, plane_rows, 128] bf16 each.
struct CachePlanes {
  std::uint16_t* k = nullptr;
  std::uint16_t* v = nullptr;
};

struct CacheHeads {
  std::uint16_t* q = nullptr;  // [batch, rows, heads * 128] bf16, stride ld, in place; null: keys and values alone
  std::uint16_t* k = nullptr;  // the same; not written; null: queries alone
  const std::uint16_t* v = nullptr;
  std::int64_t rows = 0;  // of one guidance row
  int batch = 1;          // guidance rows, one after another
  std::int64_t heads = 0, ld = 0;
  float eps = 0;
  const float* norm_q = nullptr;  // [heads * 128]
  const float* norm_k = nullptr;
  const float* cos = nullptr;  // [rows, 64] f32, the same for each guidance row; null: no rotation
  const float* sin = nullptr;
  CachePlanes cache[kGuidanceRows];
  std::int64_t plane_rows = 0;
  const std::int32_t* slots = nullptr;  // [rows] rows of the planes
};
Outcome cache_heads(const CacheHeads& a, Stream stream);

// What the queries of one guidance row attend to.
struct AttendedRows {
  const std::uint16_t* k = nullptr;  // [head, plane_rows, 128] bf16
  const std::uint16_t* v = nullptr;
  const std::int32_t* rows = nullptr;  // [count] rows of the planes, in the order of their slots; null: 0 .. count-1
  std::int64_t count = 0;              // >= 1
  float last_weight = 1;               // the last stands for this many equal ones
};

struct FlashAttention {
  const std::uint16_t* q = nullptr;  // [batch, rows, heads, 128] bf16, stride ldq
  std::int64_t rows = 0, heads = 0, ldq = 0;
  int batch = 1;
  AttendedRows attended[kGuidanceRows];
  std::int64_t plane_rows[kGuidanceRows] = {};
  float scale = 1;
  std::uint16_t* y = nullptr;  // [batch, rows, heads, 128] bf16, stride ldy; may be q
  std::int64_t ldy = 0;
  int splits = 1;             // of the attended rows
  void* workspace = nullptr;  // attention_workspace_bytes, on a boundary of sixteen bytes; null without splits
};
[[nodiscard]] std::int64_t attention_workspace_bytes(std::int64_t rows, std::int64_t heads, int batch, int splits);
// As many splits as fill the device, none of them without a tile of keys.
[[nodiscard]] int plan_attention_splits(std::int64_t rows, std::int64_t heads, int batch, std::int64_t attended,
                                        int multiprocessors);
Outcome flash_attention(const FlashAttention& a, Stream stream);

struct HeadGuidanceEuler {
  const std::uint16_t* h = nullptr;  // [guidance rows, tokens, dim] bf16, stride ldh
  std::int64_t tokens = 0, dim = 0, ldh = 0;
  bool is_guided = false;            // two guidance rows, else one
  NormTerms norm;                    // row_map: [tokens], the same for each guidance row
  const std::uint16_t* w = nullptr;  // [features, dim] bf16, stride ldw
  std::int64_t ldw = 0, features = 0;
  const float* bias = nullptr;  // [features]
  float guidance = 1;
  float step = 0;                             // sigma_next - sigma
  std::int64_t frozen_tokens = 0;             // so many first tokens keep their x
  const std::int32_t* feature_map = nullptr;  // [features] -> where in a row of x; -1: nowhere; null: the same place
  float* x = nullptr;                         // [tokens, features] f32 of bf16 values, stride ldx
  std::int64_t ldx = 0;
  float* velocity = nullptr;  // [tokens, features] f32, in the head's order, or null
};
Outcome head_guidance_euler(const HeadGuidanceEuler& a, Stream stream);

}  // namespace premotor::cuda
