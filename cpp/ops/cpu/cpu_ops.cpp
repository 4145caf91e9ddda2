#include "ops/cpu/cpu_ops.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/half.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/cached_attention.h"
#include "ops/cpu/conv.h"
#include "ops/cpu/packed_linear.h"
#include "ops/cpu/window_conv.h"
#include "ops/kv_layout.h"

namespace premotor::ops {
namespace {

// Work of one task of a linear layer: multiples of every kernel's register tile, small enough to stay in a second-level
// cache.
constexpr std::int64_t kBlockRows = 48;
constexpr std::int64_t kBlockColumns = 96;
constexpr std::int64_t kWidenedElementsMax = 1 << 18;
// Rows handed to a thread at once by the row-wise operations.
constexpr std::int64_t kRowGrain = 8;
constexpr std::int64_t kStoreGrain = 32;

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
    : pool_(std::max(threads, 1)),
      kernels_(kernels),
      packed_kernels_(packed),
      attention_kernels_(cpu_attention_kernels(packed)) {}
CpuOps::~CpuOps() = default;

// A weight in panels, and which product it is for.
struct CpuOps::Prepared {
  PackedMatrix matrix;
  Product product;
  BigMemory memory;
};

void CpuOps::prepare(Matrix* w, Rounding rounding) {
  assert(w->dtype != Dtype::f16 && w->prepared == nullptr);
  if (w->rows < 1 || w->cols < 1) return;
  Product product = Product::f32;
  // A small weight stays in a cache, where widening it costs more than the second half of its bytes.
  const bool is_small = w->rows * w->cols <= kWidenedElementsMax;
  if (w->dtype == Dtype::bf16 && rounding == Rounding::bf16)
    product = Product::bf16_dot;
  else if (w->dtype == Dtype::bf16 && !is_small)
    product = Product::bf16;
  const PackedPrecision precision = packed_precision(product);
  BigMemory memory = allocate_big(packed_bytes(precision, w->rows, w->cols));
  if (memory == nullptr) return;
  pack(*w, precision, memory.get());
  const PackedMatrix matrix{memory.get(), precision, w->rows, w->cols};
  prepared_.push_back(std::make_unique<Prepared>(Prepared{matrix, product, std::move(memory)}));
  w->prepared = prepared_.back().get();
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
    scratch_ = allocate_big(bytes);
    if (scratch_ == nullptr) throw std::bad_alloc();
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

namespace {

template <typename T, typename Convert>
void store_head(const KvLayout& l, std::int64_t head, std::int64_t row, const float* k, const float* v, T* k_plane,
                T* v_plane, Convert convert) {
  const std::int64_t unit = l.unit();
  T* k_to = k_plane + l.key_at(head, row, 0);
  for (std::int64_t d = 0; d < l.head_dim; ++d) k_to[d / unit * kKvPanel * unit + d % unit] = convert(k[d], 0);
  for (std::int64_t d = 0; d < l.head_dim; d += kKvPanel) {
    T* v_to = v_plane + l.value_at(head, row, d);
    const std::int64_t count = std::min(kKvPanel, l.head_dim - d);
    for (std::int64_t c = 0; c < count; ++c) v_to[c * unit] = convert(v[d + c], 1);
  }
}

// max|x| / 127, not below the smallest normal float; NaN when x has one, so that what is not finite stays visible.
float scale_of(const float* x, std::int64_t count) {
  float most = 1.17549435e-38f * 127.0f;
  bool is_finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    most = std::max(most, std::abs(x[i]));
    is_finite = is_finite && std::isfinite(x[i]);
  }
  return is_finite ? most / 127.0f : NAN;
}

void store_row(const Ops::StoreKv& a, const KvLayout& l, std::int64_t i) {
  for (std::int64_t h = 0; h < l.heads; ++h) {
    const float* k = a.k + i * a.ldx + h * l.head_dim;
    const float* v = a.v + i * a.ldx + h * l.head_dim;
    if (a.dtype == Dtype::f32) {
      store_head(l, h, a.rows[i], k, v, static_cast<float*>(a.k_plane), static_cast<float*>(a.v_plane),
                 [](float value, int) { return value; });
    } else if (a.dtype == Dtype::bf16) {
      store_head(l, h, a.rows[i], k, v, static_cast<std::uint16_t*>(a.k_plane), static_cast<std::uint16_t*>(a.v_plane),
                 [](float value, int) { return f32_to_bf16(value); });
    } else {
      auto* keys = static_cast<std::int8_t*>(a.k_plane);
      auto* values = static_cast<std::int8_t*>(a.v_plane);
      const float scales[2] = {scale_of(k, l.head_dim), scale_of(v, l.head_dim)};
      store_head(l, h, a.rows[i], k, v, keys, values, [&](float value, int which) {
        const float scaled = value / scales[which];
        return static_cast<std::int8_t>(std::isfinite(scaled) ? std::nearbyint(scaled) : 0.0f);
      });
      reinterpret_cast<float*>(keys + l.key_scales())[h * l.rows + a.rows[i]] = scales[0];
      reinterpret_cast<float*>(values + l.value_scales())[h * l.rows + a.rows[i]] = scales[1];
    }
  }
}

}  // namespace

void CpuOps::store_kv(const StoreKv& a) {
  const KvLayout layout{a.heads, a.plane_rows, a.head_dim, a.dtype};
  assert(a.plane_rows % kKvPanel == 0 && a.dtype != Dtype::f16);
  // Rows share cache lines and words with their neighbours, but no bytes.
  pool_.parallel_for(a.count, kStoreGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      assert(a.rows[i] >= 0 && a.rows[i] < a.plane_rows);
      store_row(a, layout, i);
    }
  });
}

void CpuOps::cached_attention(const CachedAttention& args) {
  ops::cached_attention(pool_, attention_kernels_, packed_kernels_, args,
                        scratch(cached_attention_scratch_bytes(args)));
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
