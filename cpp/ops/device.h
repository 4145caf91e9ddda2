// What a device with memory of its own computes: the operations of a transformer pass as launches, and the memory that
// they work on. The engine calls it (engine/device_transformer.h), cuda/ implements it; nothing here needs a CUDA
// header.
//
// Shapes are structs, pointers are device memory, a launch returns an Outcome. Launches and copies of one device happen
// in the order in which they were asked for; none of them waits. Activations are bfloat16 and row-major, which is the
// operation contract (ops.h) with Rounding::bf16: a result is rounded where the contract rounds it. Rows begin on
// boundaries of sixteen bytes: strides of bfloat16 rows are multiples of 8, whatever the width.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace premotor::device {

// What became of a launch or a copy. Nothing was started unless it is `launched`; what fails later on the device is
// seen where it is waited for.
enum class Outcome : std::uint8_t {
  launched,
  bad_shape,   // a size that this kernel does not take
  misaligned,  // a pointer or a stride that is not on the boundary named in the kernel's table
  refused      // by the driver; on the host: the machine found a fault
};

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

// s = max|x| / 127, q = round(x / s), of each row.
struct QuantiseRows {
  const std::uint16_t* x = nullptr;  // [rows, dim] bf16, stride ldx
  std::int64_t rows = 0, dim = 0, ldx = 0;
  std::int8_t* quantised = nullptr;  // [rows, dim] s8, stride ldq, a multiple of 16
  std::int64_t ldq = 0;
  float* scales = nullptr;  // [rows] f32
};

// How a product is cut, and the memory that the partial sums of its splits need.
struct GemmPlan {
  bool is_narrow = false;  // tiles of 32 x 64, else 128 x 128
  int splits = 1;          // along k
  std::int64_t workspace_bytes = 0;
};

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

// Guidance rows that one launch takes.
constexpr int kGuidanceRows = 2;

// Cached keys and values of one layer and guidance row: [head, plane_rows, 128] bf16 each; or s8, a head's vector of a
// row being its integers times its scale.
struct CachePlanes {
  std::uint16_t* k = nullptr;
  std::uint16_t* v = nullptr;
  std::int8_t* k8 = nullptr;  // instead of k and v
  std::int8_t* v8 = nullptr;
  float* k_scales = nullptr;  // [head, plane_rows], with k8
  float* v_scales = nullptr;
};

struct CacheHeads {
  std::uint16_t* q = nullptr;  // [batch, rows, heads * 128] bf16, stride ld, in place; null: keys and values alone
  std::uint16_t* k = nullptr;  // the same; not written; null: queries alone
  const std::uint16_t* v = nullptr;
  std::int64_t rows = 0;  // of one guidance row
  int batch = 1;          // guidance rows, one after another
  std::int64_t heads = 0, ld = 0;
  float eps = 0;
  // The mean of squares is of so many values: fewer than heads * 128 where heads are filled up with zeros.
  std::int64_t norm_width = 0;
  const float* norm_q = nullptr;  // [heads * 128]
  const float* norm_k = nullptr;
  const float* cos = nullptr;  // [rows, 64] f32, the same for each guidance row; null: no rotation
  const float* sin = nullptr;
  CachePlanes cache[kGuidanceRows];
  std::int64_t plane_rows = 0;
  const std::int32_t* slots = nullptr;  // [rows] rows of the planes
};

// What the queries of one guidance row attend to.
struct AttendedRows {
  const std::uint16_t* k = nullptr;  // [head, plane_rows, 128] bf16
  const std::uint16_t* v = nullptr;
  const std::int32_t* rows = nullptr;  // [count] rows of the planes, in the order of their slots; null: 0 .. count-1
  std::int64_t count = 0;              // >= 1
  float last_weight = 1;               // the last stands for this many equal ones
  const std::int8_t* k8 = nullptr;     // instead of k and v, as CachePlanes
  const std::int8_t* v8 = nullptr;
  const float* k_scales = nullptr;  // [head, plane_rows], with k8
  const float* v_scales = nullptr;
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

// One device. One thread calls it at a time. Operations: the launchers of cuda/ops.h, which say more of each.
class Device {
 public:
  virtual ~Device() = default;

  [[nodiscard]] virtual std::string name() const = 0;  // "NVIDIA H200, sm_90"
  [[nodiscard]] virtual int multiprocessors() const = 0;
  [[nodiscard]] virtual std::int64_t memory_bytes() const = 0;  // in all

  // Memory on a boundary of 256 bytes; what it holds is undefined. Errors: DEVICE_MEMORY.
  virtual Status allocate(std::int64_t bytes, void** out) = 0;
  virtual void release(void* memory) = 0;
  // Memory of the host that copies read and write without another copy. Errors: DEVICE_MEMORY.
  virtual Status allocate_staging(std::int64_t bytes, void** out) = 0;
  virtual void release_staging(void* memory) = 0;
  // `from` must stay what it is until the copy was waited for.
  virtual Outcome upload(void* to, const void* from, std::int64_t bytes) = 0;
  virtual Outcome download(void* to, const void* from, std::int64_t bytes) = 0;
  // Until everything that was asked for is done. Errors: DEVICE_FAULT, after which nothing of this device works any
  // more: the process has to end.
  virtual Status wait() = 0;

  // element_bytes: 2 (bf16) or 1 (s8).
  [[nodiscard]] virtual GemmPlan plan_gemm(std::int64_t m, std::int64_t n, std::int64_t k, int element_bytes) const = 0;
  [[nodiscard]] virtual std::int64_t attention_workspace_bytes(std::int64_t rows, std::int64_t heads, int batch,
                                                               int splits) const = 0;
  [[nodiscard]] virtual int plan_attention_splits(std::int64_t rows, std::int64_t heads, int batch,
                                                  std::int64_t attended) const = 0;
  virtual Outcome layer_norm_modulate(const LayerNormModulate& a) = 0;
  virtual Outcome quantise_rows(const QuantiseRows& a) = 0;
  virtual Outcome gemm_bf16(const GemmBf16& a) = 0;
  virtual Outcome gemm_int8(const GemmInt8& a) = 0;
  virtual Outcome cache_heads(const CacheHeads& a) = 0;
  virtual Outcome flash_attention(const FlashAttention& a) = 0;
  virtual Outcome head_guidance_euler(const HeadGuidanceEuler& a) = 0;
};

// What the library of a backend exports as "premotor_open_device", and the version of this file that it was built for.
constexpr std::uint32_t kDeviceContract = 2;
using OpenDevice = void (*)(std::uint32_t contract, int ordinal, Device** out, Status* status);

}  // namespace premotor::device
