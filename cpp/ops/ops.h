// The operation contract: everything that the engine computes goes through this interface, so that a faster backend
// (SIMD, CUDA) slots in behind it. The engine decides what to compute and in which order; a backend owns how.
// Activations are float32 in memory; with Rounding::bf16 each result is rounded to the nearest bfloat16 before it is
// stored, which reproduces a bfloat16 deployment.
//
// All matrices are row-major and dense unless a stride is named. Pointers must not alias unless the comment allows it.
// No call allocates on behalf of the caller, keeps a pointer or throws.
#pragma once

#include <cstdint>
#include <string_view>

namespace premotor {
class ThreadPool;
}

namespace premotor::ops {

enum class Dtype : std::uint8_t { f32, f16, bf16 };
enum class Rounding : std::uint8_t { none, bf16 };
enum class Activation : std::uint8_t { none, gelu_tanh, silu };

[[nodiscard]] constexpr std::int64_t bytes_of(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 2; }

// A linear layer's weight, [rows = outputs, cols = inputs], f32 or bf16 (an f16 checkpoint is widened when it is
// opened).
struct Matrix {
  const void* data = nullptr;
  Dtype dtype = Dtype::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const void* prepared = nullptr;  // what Ops::prepare made of it, the backend's own; null: nothing
};

// A read-only view of cached keys and values for one guidance row of one layer.
struct KeyValueView {
  const void* k = nullptr;    // [head, capacity, head_dim], dtype
  const void* v = nullptr;    // [head, capacity, head_dim], dtype
  Dtype dtype = Dtype::f32;   // f32 or bf16
  std::int64_t capacity = 0;  // slots per head
  const std::int32_t* slots =
      nullptr;  // [count] the slots attended, any order without repeats; null means 0 .. count-1
  std::int64_t count = 0;
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
  // ever meets activations that are bfloat16 values.
  virtual void prepare(Matrix* w, Rounding rounding) = 0;

  // What prepare makes, as bytes that may lie in a file and be used from its memory map: position independent, at a
  // multiple of 64. `data` of an adopted weight may be null.
  struct PreparedForm {
    std::string_view product;  // what the backend multiplies by it, its own name: "f32", "bf16_dot", ...
    std::uint32_t layout = 0;  // version of the bytes' layout
    std::int64_t bytes = 0;    // a multiple of 64
  };
  // The form that prepare would give the weight, of which only dtype, rows and cols count. False: it would leave it.
  virtual bool prepared_form(const Matrix& w, Rounding rounding, PreparedForm* form) const = 0;
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

  // Layer norm without mean weights: y = (x - mean) / sqrt(var + eps), times weight plus bias when given (both [dim]),
  // then times (1 + scale[row_map[r]]) plus shift[row_map[r]] when given ([*, dim] with stride mod_stride). y may be x.
  struct LayerNorm {
    const float* x = nullptr;  // [rows, dim]
    std::int64_t rows = 0, dim = 0;
    float eps = 0;
    const float* weight = nullptr;
    const float* bias = nullptr;
    const float* scale = nullptr;
    const float* shift = nullptr;
    std::int64_t mod_stride = 0;
    const std::int32_t* row_map = nullptr;  // [rows] -> modulation row
    Rounding rounding = Rounding::none;
    float* y = nullptr;
  };
  virtual void layer_norm(const LayerNorm& args) = 0;

  // In place, over the whole row: x = x / sqrt(mean(x^2) + eps) * weight. x [rows, dim] with row stride ldx.
  virtual void rms_norm(float* x, std::int64_t rows, std::int64_t dim, std::int64_t ldx, float eps, const float* weight,
                        Rounding rounding) = 0;

  // In place rotation of interleaved pairs in float64: x [rows, heads, head_dim] (row stride ldx), cos/sin [rows,
  // head_dim/2].
  virtual void rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx,
                    const float* cos, const float* sin, Rounding rounding) = 0;

  // Writes rows of x [rows, heads, head_dim] (row stride ldx) into a cache plane [head, capacity, head_dim] of the
  // given dtype at slots[r].
  virtual void store_kv(const float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx,
                        void* plane, Dtype dtype, std::int64_t capacity, const std::int32_t* slots) = 0;

  // y = softmax(q k^T * scale) v per head. q, y: [rows, heads, head_dim] with row strides ldq, ldy; y may be q.
  virtual void attention(const float* q, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldq,
                         const KeyValueView& kv, float scale, Rounding rounding, float* y, std::int64_t ldy) = 0;

  // h[r] += a[r] * gate[row_map[r]] (gate [*, dim], stride gate_stride), or h += a when gate is null. h, a: [rows,
  // dim].
  virtual void add_gated(float* h, const float* a, std::int64_t rows, std::int64_t dim, const float* gate,
                         std::int64_t gate_stride, const std::int32_t* row_map, Rounding rounding) = 0;

  // Causal convolution as described at Conv3d; result rounded.
  virtual void conv3d(const Conv3d& args, Rounding rounding) = 0;
};

}  // namespace premotor::ops
