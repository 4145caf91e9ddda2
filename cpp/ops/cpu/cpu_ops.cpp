#include "ops/cpu/cpu_ops.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "base/half.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/conv.h"
#include "ops/cpu/packed_linear.h"
#include "ops/cpu/window_conv.h"

namespace premotor::ops {
namespace {

// Work of one task of a linear layer: multiples of every kernel's register tile, small enough to stay in a second-level
// cache.
constexpr std::int64_t kBlockRows = 48;
constexpr std::int64_t kBlockColumns = 96;
constexpr std::int64_t kWidenedElementsMax = 1 << 18;
// Rows handed to a thread at once by the row-wise operations.
constexpr std::int64_t kRowGrain = 8;

const Kernels& choose_kernels() {
#if defined(PREMOTOR_X86_64)
  const char* forced = std::getenv("PREMOTOR_ISA");
  // avx512_dot is a level of the packed products alone (packed_kernels.h).
  const bool allow_512 =
      forced == nullptr || std::strcmp(forced, "avx512") == 0 || std::strcmp(forced, "avx512_dot") == 0;
  const bool allow_2 = allow_512 || std::strcmp(forced, "avx2") == 0;
  __builtin_cpu_init();
  if (allow_512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return avx512::kernels();
  if (allow_2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::kernels();
#endif
  return baseline::kernels();
}

}  // namespace

const Kernels& cpu_kernels() {
  static const Kernels& best = choose_kernels();
  return best;
}

CpuOps::CpuOps(int threads, const Kernels& kernels, const PackedKernels& packed)
    : pool_(std::max(threads, 1)), kernels_(kernels), packed_kernels_(packed) {}
CpuOps::~CpuOps() = default;

// A weight in panels, and which product it is for. The panels are its own, or lie in memory that outlives the backend.
struct CpuOps::Prepared {
  PackedMatrix matrix;
  Product product;
  Memory memory;
};

namespace {

Product product_for(const Matrix& w, Rounding rounding) {
  if (w.dtype != Dtype::bf16) return Product::f32;
  if (rounding == Rounding::bf16) return Product::bf16_dot;
  // A small weight stays in a cache, where widening it costs more than the second half of its bytes.
  return w.rows * w.cols <= kWidenedElementsMax ? Product::f32 : Product::bf16;
}

// The product of that name; false when this version has none.
bool product_named(std::string_view name, Product* product) {
  const auto* at = std::find(std::begin(kProductNames), std::end(kProductNames), name);
  if (at == std::end(kProductNames)) return false;
  *product = static_cast<Product>(at - std::begin(kProductNames));
  return true;
}

}  // namespace

bool CpuOps::prepared_form(const Matrix& w, Rounding rounding, PreparedForm* form) const {
  if (w.rows < 1 || w.cols < 1) return false;
  const Product product = product_for(w, rounding);
  *form = {kProductNames[static_cast<std::size_t>(product)], kPackedLayout,
           packed_bytes(packed_precision(product), w.rows, w.cols)};
  return true;
}

void CpuOps::write_prepared(const Matrix& w, const PreparedForm& form, void* to) {
  Product product = Product::f32;
  [[maybe_unused]] const bool known = product_named(form.product, &product);
  assert(known && form.bytes == packed_bytes(packed_precision(product), w.rows, w.cols));
  pack(pool_, w, packed_precision(product), to);
}

bool CpuOps::adopt(Matrix* w, const PreparedForm& form, const void* bytes) {
  assert(w->prepared == nullptr && reinterpret_cast<std::uintptr_t>(bytes) % kAlignment == 0);
  Product product = Product::f32;
  if (form.layout != kPackedLayout || !product_named(form.product, &product) || w->rows < 1 || w->cols < 1)
    return false;
  const PackedPrecision precision = packed_precision(product);
  if (form.bytes != packed_bytes(precision, w->rows, w->cols)) return false;
  if (precision == PackedPrecision::int8 && w->cols > kPackedDepthMax) return false;
  const PackedMatrix matrix{bytes, precision, w->rows, w->cols};
  prepared_.push_back(std::make_unique<Prepared>(Prepared{matrix, product, nullptr}));
  w->prepared = prepared_.back().get();
  return true;
}

void CpuOps::prepare(Matrix* w, Rounding rounding) {
  assert(w->dtype != Dtype::f16 && w->prepared == nullptr);
  PreparedForm form;
  if (!prepared_form(*w, rounding, &form)) return;
  const auto size = static_cast<std::size_t>(form.bytes);
  Memory memory(static_cast<std::byte*>(::operator new[](size, std::align_val_t{kAlignment}, std::nothrow)));
  if (memory == nullptr) return;
  write_prepared(*w, form, memory.get());
  if (adopt(w, form, memory.get())) prepared_.back()->memory = std::move(memory);
}

void CpuOps::packed(const Prepared& w, const float* x, std::int64_t m, std::int64_t ldx, PackedProduct args) {
  args.product = w.product;
  args.m = m;
  args.w = w.matrix;
  packed_linear(pool_, packed_kernels_, x, ldx,
                scratch(packed_scratch_bytes(packed_kernels_, w.product, m, w.matrix.k)), args);
}

void* CpuOps::scratch(std::int64_t bytes) {
  if (bytes > scratch_bytes_) {
    scratch_.reset();
    scratch_bytes_ = 0;
    scratch_.reset(
        static_cast<std::byte*>(::operator new[](static_cast<std::size_t>(bytes), std::align_val_t{kAlignment})));
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

void CpuOps::linear(const float* x, std::int64_t m, std::int64_t ldx, const Matrix& w, const float* bias,
                    Activation act, Rounding rounding, float* y, std::int64_t ldy) {
  assert(w.dtype != Dtype::f16);
  if (w.prepared != nullptr && m > 0) {
    PackedProduct args;
    args.bias = bias;
    args.act = act;
    args.rounding = rounding;
    args.y = y;
    args.ldy = ldy;
    packed(*static_cast<const Prepared*>(w.prepared), x, m, ldx, args);
    return;
  }
  const std::int64_t n = w.rows, k = w.cols;
  const std::int64_t row_blocks = (m + kBlockRows - 1) / kBlockRows;
  const std::int64_t column_blocks = (n + kBlockColumns - 1) / kBlockColumns;
  pool_.parallel_for(row_blocks * column_blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t row = task % row_blocks * kBlockRows, column = task / row_blocks * kBlockColumns;
      const std::int64_t rows = std::min(kBlockRows, m - row), columns = std::min(kBlockColumns, n - column);
      const float* xs = x + row * ldx;
      float* ys = y + row * ldy + column;
      if (w.dtype == Dtype::f32)
        kernels_.gemm_f32(xs, ldx, rows, static_cast<const float*>(w.data) + column * k, columns, k, ys, ldy);
      else
        kernels_.gemm_bf16(xs, ldx, rows, static_cast<const std::uint16_t*>(w.data) + column * k, columns, k, ys, ldy);
      for (std::int64_t r = 0; r < rows; ++r) {
        float* out = ys + r * ldy;
        if (bias != nullptr)
          for (std::int64_t c = 0; c < columns; ++c) out[c] += bias[column + c];
        if (rounding == Rounding::bf16) kernels_.round_bf16(out, columns);
        if (act == Activation::none) continue;
        (act == Activation::gelu_tanh ? kernels_.gelu_tanh : kernels_.silu)(out, columns);
        if (rounding == Rounding::bf16) kernels_.round_bf16(out, columns);
      }
    }
  });
}

void CpuOps::layer_norm(const LayerNorm& a) {
  pool_.parallel_for(a.rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* x = a.x + r * a.dim;
      float* y = a.y + r * a.dim;
      double sum = 0, squares = 0;
      for (std::int64_t c = 0; c < a.dim; ++c) sum += x[c];
      const double mean = sum / static_cast<double>(a.dim);
      for (std::int64_t c = 0; c < a.dim; ++c) squares += (x[c] - mean) * (x[c] - mean);
      const float inverse = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(a.dim) + a.eps));
      const float centre = static_cast<float>(mean);
      for (std::int64_t c = 0; c < a.dim; ++c) y[c] = (x[c] - centre) * inverse;
      if (a.weight != nullptr)
        for (std::int64_t c = 0; c < a.dim; ++c) y[c] *= a.weight[c];
      if (a.bias != nullptr)
        for (std::int64_t c = 0; c < a.dim; ++c) y[c] += a.bias[c];
      if (a.scale != nullptr) {
        const std::int64_t row = (a.row_map == nullptr ? 0 : a.row_map[r]) * a.mod_stride;
        for (std::int64_t c = 0; c < a.dim; ++c) y[c] = y[c] * (1.0f + a.scale[row + c]) + a.shift[row + c];
      }
      if (a.rounding == Rounding::bf16) kernels_.round_bf16(y, a.dim);
    }
  });
}

void CpuOps::rms_norm(float* x, std::int64_t rows, std::int64_t dim, std::int64_t ldx, float eps, const float* weight,
                      Rounding rounding) {
  pool_.parallel_for(rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* row = x + r * ldx;
      double squares = 0;
      for (std::int64_t c = 0; c < dim; ++c) squares += static_cast<double>(row[c]) * row[c];
      const float inverse = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(dim) + eps));
      for (std::int64_t c = 0; c < dim; ++c) row[c] = row[c] * inverse * weight[c];
      if (rounding == Rounding::bf16) kernels_.round_bf16(row, dim);
    }
  });
}

void CpuOps::rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx,
                  const float* cos, const float* sin, Rounding rounding) {
  const std::int64_t pairs = head_dim / 2;
  pool_.parallel_for(rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* c = cos + r * pairs;
      const float* s = sin + r * pairs;
      for (std::int64_t h = 0; h < heads; ++h) {
        float* v = x + r * ldx + h * head_dim;
        for (std::int64_t p = 0; p < pairs; ++p) {
          const double re = v[2 * p], im = v[2 * p + 1], cp = c[p], sp = s[p];
          v[2 * p] = static_cast<float>(re * cp - im * sp);
          v[2 * p + 1] = static_cast<float>(re * sp + im * cp);
        }
      }
      if (rounding == Rounding::bf16) kernels_.round_bf16(x + r * ldx, heads * head_dim);
    }
  });
}

void CpuOps::store_kv(const float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldx,
                      void* plane, Dtype dtype, std::int64_t capacity, const std::int32_t* slots) {
  for (std::int64_t r = 0; r < rows; ++r) {
    assert(slots[r] >= 0 && slots[r] < capacity);
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* from = x + r * ldx + h * head_dim;
      const std::int64_t at = (h * capacity + slots[r]) * head_dim;
      if (dtype == Dtype::f32) {
        std::memcpy(static_cast<float*>(plane) + at, from, static_cast<std::size_t>(head_dim) * sizeof(float));
      } else {
        std::uint16_t* to = static_cast<std::uint16_t*>(plane) + at;
        for (std::int64_t c = 0; c < head_dim; ++c) to[c] = f32_to_bf16(from[c]);
      }
    }
  }
}

void CpuOps::attention(const float* q, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldq,
                       const KeyValueView& kv, float scale, Rounding rounding, float* y, std::int64_t ldy) {
  cpu_attention(pool_, kernels_, {q, rows, heads, head_dim, ldq, kv, scale, rounding, y, ldy});
}

void CpuOps::add_gated(float* h, const float* a, std::int64_t rows, std::int64_t dim, const float* gate,
                       std::int64_t gate_stride, const std::int32_t* row_map, Rounding rounding) {
  pool_.parallel_for(rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* out = h + r * dim;
      const float* in = a + r * dim;
      if (gate == nullptr) {
        for (std::int64_t c = 0; c < dim; ++c) out[c] += in[c];
      } else {
        const float* g = gate + (row_map == nullptr ? 0 : row_map[r]) * gate_stride;
        for (std::int64_t c = 0; c < dim; ++c) out[c] += in[c] * g[c];
      }
      if (rounding == Rounding::bf16) kernels_.round_bf16(out, dim);
    }
  });
}

void CpuOps::conv3d(const Conv3d& args, Rounding rounding) {
  const auto* w = static_cast<const Prepared*>(args.weight.prepared);
  if (w == nullptr || w->product != Product::f32) return cpu_conv3d(*this, args, rounding);
  const std::int64_t bytes = window_scratch_floats(args) * static_cast<std::int64_t>(sizeof(float));
  window_conv(pool_, packed_kernels_, w->matrix, args, rounding, static_cast<float*>(scratch(bytes)));
}

}  // namespace premotor::ops
