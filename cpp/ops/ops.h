// The operation contract: everything that the engine computes goes through this interface, so that a faster backend
// (SIMD, CUDA) slots in behind it. The engine decides what to compute and in which order; a backend owns how.
// Activations are float32 in memory; with Rounding::bf16 each result is rounded to the nearest bfloat16 before it is
// stored, which reproduces a bfloat16 deployment.
//
// All matrices are row-major and dense unless a stride is named. Pointers must not alias unless the comment allows it.
// No call allocates on behalf of the caller, keeps a pointer or throws.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "ops/tactic.h"

namespace premotor {
class ThreadPool;
}

namespace premotor::ops {

enum class Dtype : std::uint8_t { f32, f16, bf16, int8 };  // int8: cached keys and values only
enum class Rounding : std::uint8_t { none, bf16 };
// The form of a weight that a backend prepares: as it is stored, or quantised: int8 with a scale per output and
// activations quantised per row, int4 with a scale per output and 32, 64 or 128 inputs and activations in bfloat16.
enum class WeightFormat : std::uint8_t { stored, int8, int4_32, int4_64, int4_128 };
enum class Activation : std::uint8_t { none, gelu_tanh, silu };

[[nodiscard]] constexpr std::int64_t bytes_of(Dtype dtype) {
  return dtype == Dtype::f32 ? 4 : (dtype == Dtype::int8 ? 1 : 2);
}

// A linear layer's weight, [rows = outputs, cols = inputs], f32 or bf16 (an f16 checkpoint is widened when it is
// opened).
struct Matrix {
  const void* data = nullptr;
  Dtype dtype = Dtype::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const void* prepared = nullptr;  // what Ops::prepare made of it, the backend's own; null: nothing
};

// Keys and values of some rows of tokens, dense: what the autoencoder attends to.
struct KeyValueView {
  const void* k = nullptr;   // [head, count, head_dim], dtype
  const void* v = nullptr;   // [head, count, head_dim], dtype
  Dtype dtype = Dtype::f32;  // f32 or bf16
  std::int64_t count = 0;
};

struct MovedSlot {
  std::int32_t slot, row;
};

// Cached keys and values of one guidance row of one layer, in the layout of ops/kv_layout.h.
struct CachedView {
  const void* k = nullptr;
  const void* v = nullptr;
  Dtype dtype = Dtype::f32;  // f32, bf16 or int8
  std::int64_t rows = 0;     // of the planes, a multiple of 32
  // Bit s % 32 of word s / 32: slot s is attended, [rows / 32]; at least one is. Null: slots 0 .. count-1, and the
  // values of the rows behind them are zero.
  const std::uint32_t* attended = nullptr;
  std::int64_t count = 0;
  // A slot lies in the row of its own number but for these, ascending slots. Results do not depend on where slots lie.
  const MovedSlot* moved = nullptr;  // [moved_count]
  std::int64_t moved_count = 0;
  float last_weight = 1.0f;  // the last attended slot stands for this many equal ones (padded text rows)
};

// A 3-D convolution's operands, channels last. Output pixel (t, y, x) reads input frames t*stride_t .. +kernel_t-1 (the
// caller prepends the causal history), rows y*stride_s - pad_top .. and columns x*stride_s - pad_left ..; out-of-range
// pixels are zero.
struct Conv3d {
  const float* x = nullptr;  // [frames_in, height_in, width_in, channels_in]
  std::int64_t frames_in = 0, height_in = 0, width_in = 0, channels_in = 0;
  Matrix weight;  // [channels_out, kernel_t * kernel_s * kernel_s * channels_in], input channel fastest, then column,
                  // row, time
  const float* bias = nullptr;  // [channels_out] or null
  std::int64_t kernel_t = 1, kernel_s = 1, stride_t = 1, stride_s = 1, pad_top = 0, pad_left = 0;
  std::int64_t frames_out = 0, height_out = 0, width_out = 0;
  float* y = nullptr;  // [frames_out, height_out, width_out, channels_out]
};

class Ops {
 public:
  virtual ~Ops() = default;

  [[nodiscard]] virtual const char* name() const = 0;  // "cpu-avx512", ...
  [[nodiscard]] virtual ThreadPool& pool() = 0;        // for host-side loops of the engine

  // Lets the backend keep a weight in the form that its kernels read, until the backend's end; `data` stays what it is.
  // linear and conv3d take either form. Called while a model is opened. Rounding::bf16 promises that the weight only
  // ever meets activations that are bfloat16 values. A quantised format is for linear alone, and frees the caller from
  // keeping `data`. Returns the bytes kept; 0: nothing, for lack of memory, and the weight is used as it is stored.
  virtual std::int64_t prepare(Matrix* w, Rounding rounding, WeightFormat format = WeightFormat::stored) = 0;

  // What prepare makes, as bytes that may lie in a file and be used from its memory map: position independent, at a
  // multiple of 64. `data` of an adopted weight may be null.
  struct PreparedForm {
    std::string_view product;  // what the backend multiplies by it, its own name: "f32", "bf16_dot", ...
    std::uint32_t layout = 0;  // version of the bytes' layout
    std::int64_t bytes = 0;    // a multiple of 64
    std::int64_t group = 0;    // values along k that share a scale; 0: the product has no groups
    // Hints for adopt, which copies them: how to cut the products with so many rows, ascending, each once. Rows that
    // are not among them are cut by the backend's rule.
    std::span<const Tactic> tactics = {};
  };
  // The form that prepare would give the weight, of which only dtype, rows and cols count. False: it would leave it.
  virtual bool prepared_form(const Matrix& w, Rounding rounding, WeightFormat format, PreparedForm* form) const = 0;
  // Writes the form's bytes to `to`, 64-byte aligned. `form` is what prepared_form said.
  virtual void write_prepared(const Matrix& w, const PreparedForm& form, void* to) = 0;
  // As prepare, but takes bytes that write_prepared wrote, here or elsewhere, without reading them; they must outlive
  // the backend. False: it knows no such product or layout, or the size is not that of this weight.
  virtual bool adopt(Matrix* w, const PreparedForm& form, const void* bytes) = 0;
  // The layout that it writes and adopts.
  [[nodiscard]] virtual std::uint32_t prepared_layout() const = 0;

  // y[m, n] = act(round(x[m, k] w[n, k]^T + bias[n])), rounded again after the activation. bias may be null. ldx, ldy:
  // row strides in elements.
  virtual void linear(const float* x, std::int64_t m, std::int64_t ldx, const Matrix& w, const float* bias,
                      Activation act, Rounding rounding, float* y, std::int64_t ldy) = 0;

  // What a layer norm does to a row: n = (x - mean) / sqrt(var + eps), times weight plus bias when given (both [dim]),
  // then times (1 + scale[row_map[r]]) plus shift[row_map[r]] when given ([*, dim] with stride mod_stride).
  struct Norm {
    float eps = 0;
    const float* weight = nullptr;  // with bias
    const float* bias = nullptr;
    const float* scale = nullptr;  // with shift
    const float* shift = nullptr;
    std::int64_t mod_stride = 0;
    const std::int32_t* row_map = nullptr;  // [rows] -> modulation row; null: all use row 0
  };
  struct LayerNorm {
    const float* x = nullptr;  // [rows, dim]
    std::int64_t rows = 0, dim = 0;
    Norm norm;
    Rounding rounding = Rounding::none;
    float* y = nullptr;  // [rows, dim], may be x
  };
  virtual void layer_norm(const LayerNorm& args) = 0;

  // A linear layer with what a transformer has around it, equal to the single operations one after another:
  //   z[m, n] = act(round(n(x) w^T + bias)), rounded      n: a layer norm of x's rows, rounded; x itself without one
  //   y = z, or, when `is_residual`, y[r] = round(y[r] + z[r] * gate[row_map[r]])   gate [*, n] with stride
  //   gate_stride,
  //                                                                                 1 without one
  struct FusedLinear {
    const float* x = nullptr;  // [m, k], row stride ldx; with a norm ldx is k
    std::int64_t m = 0, ldx = 0;
    const Norm* norm = nullptr;
    const Matrix* w = nullptr;    // [n, k]
    const float* bias = nullptr;  // [n] or null
    Activation act = Activation::none;
    Rounding rounding = Rounding::none;
    bool is_residual = false;
    const float* gate = nullptr;
    std::int64_t gate_stride = 0;
    const std::int32_t* row_map = nullptr;  // [m] -> row of gate; null: all use row 0
    float* y = nullptr;                     // [m, n], row stride ldy; not x
    std::int64_t ldy = 0;
  };
  virtual void fused_linear(const FusedLinear& args) = 0;

  // In place, over the whole row: x = x / sqrt(mean(x^2) + eps) * weight. x [rows, dim] with row stride ldx.
  virtual void rms_norm(float* x, std::int64_t rows, std::int64_t dim, std::int64_t ldx, float eps, const float* weight,
                        Rounding rounding) = 0;

  // In place rotation of interleaved pairs in float64 (products exact, one rounding to float64 and one to float32): x
  // [rows, heads, head_dim] (row stride ldx), cos/sin [rows, head_dim/2].
  virtual void rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx,
                    const float* cos, const float* sin, Rounding rounding) = 0;

  // What lies between the projection of queries, keys and values and attention, row by row: q and k pass the RMS norm
  // over the whole row and then the rotation, each rounded; k and v go into the cache. The same as rms_norm, rope and
  // store_kv one after another.
  struct HeadRows {
    float* q = nullptr;  // [rows, heads, head_dim], row stride ld, in place; null: keys and values alone
    float* k = nullptr;  // the same, overwritten
    const float* v = nullptr;
    std::int64_t rows = 0, heads = 0, head_dim = 0, ld = 0;
    float eps = 0;
    const float* norm_q = nullptr;  // [heads * head_dim]
    const float* norm_k = nullptr;
    const float* cos = nullptr;  // [rows, head_dim / 2], as rope; null: no rotation
    const float* sin = nullptr;
    void* k_plane = nullptr;  // as store_kv
    void* v_plane = nullptr;
    Dtype dtype = Dtype::f32;
    std::int64_t plane_rows = 0;
    const std::int32_t* slots = nullptr;  // [rows]
    Rounding rounding = Rounding::none;
  };
  virtual void cache_heads(const HeadRows& args) = 0;

  // Writes rows of k and v [count, heads, head_dim] (row stride ldx) into the planes of a cache (ops/kv_layout.h) at
  // `rows`. As int8: a head's vector of a row is round(x / s) with s = max|x| / 127.
  struct StoreKv {
    const float* k = nullptr;
    const float* v = nullptr;
    std::int64_t count = 0, heads = 0, head_dim = 0, ldx = 0;
    void* k_plane = nullptr;
    void* v_plane = nullptr;
    Dtype dtype = Dtype::f32;
    std::int64_t plane_rows = 0;
    const std::int32_t* rows = nullptr;  // [count]
  };
  virtual void store_kv(const StoreKv& args) = 0;

  // y = softmax(q k^T * scale) v per head over cached rows. q, y: [rows, heads, head_dim] with row strides ldq, ldy; y
  // may be q. head_dim <= 256. Slots of the cache are visited in ascending order. Over a cache that is not f32 queries
  // and weights may be rounded to bfloat16 before they are multiplied.
  struct CachedAttention {
    const float* q = nullptr;
    std::int64_t rows = 0, heads = 0, head_dim = 0, ldq = 0;
    CachedView kv;
    float scale = 1;
    Rounding rounding = Rounding::none;
    float* y = nullptr;
    std::int64_t ldy = 0;
  };
  virtual void cached_attention(const CachedAttention& args) = 0;

  // The same over dense keys and values.
  virtual void attention(const float* q, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldq,
                         const KeyValueView& kv, float scale, Rounding rounding, float* y, std::int64_t ldy) = 0;

  // h[r] += a[r] * gate[row_map[r]] (gate [*, dim], stride gate_stride), or h += a when gate is null. h, a: [rows,
  // dim].
  virtual void add_gated(float* h, const float* a, std::int64_t rows, std::int64_t dim, const float* gate,
                         std::int64_t gate_stride, const std::int32_t* row_map, Rounding rounding) = 0;

  // Over each row's channels: y = x / max(|x|, 1e-12) * sqrt(channels) * gamma, then y / (1 + exp(-y)) when `is_silu`;
  // every step is rounded. x, y: [rows, channels], y may be x; gamma: [channels].
  virtual void normalise_channels(const float* x, std::int64_t rows, std::int64_t channels, const float* gamma,
                                  bool is_silu, Rounding rounding, float* y) = 0;

  // Causal convolution as described at Conv3d; result rounded.
  virtual void conv3d(const Conv3d& args, Rounding rounding) = 0;
};

}  // namespace premotor::ops
