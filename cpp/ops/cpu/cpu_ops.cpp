#include "ops/cpu/cpu_ops.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "ops/cpu/attention.h"
#include "ops/cpu/cached_attention.h"
#include "ops/cpu/conv.h"
#include "ops/cpu/int4.h"
#include "ops/cpu/packed_linear.h"
#include "ops/cpu/processor.h"
#include "ops/cpu/row_tiles.h"
#include "ops/cpu/window_conv.h"
#include "ops/kv_layout.h"

namespace premotor::ops {
namespace {

// Work of one task of a linear layer: multiples of every kernel's register tile, small enough to stay in a second-level
// cache.
constexpr std::int64_t kBlockRows = 48;
constexpr std::int64_t kBlockColumns = 96;
constexpr std::int64_t kWidenedElementsMax = 1 << 18;

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

// Environment PREMOTOR_PIN=1: every worker has a core of its own.
ThreadPool::Cores choose_cores() {
  const char* asked = std::getenv("PREMOTOR_PIN");
  return asked != nullptr && std::strcmp(asked, "1") == 0 ? ThreadPool::Cores::own : ThreadPool::Cores::shared;
}

}  // namespace

const Kernels& cpu_kernels() {
  static const Kernels& best = choose_kernels();
  return best;
}

CpuOps::CpuOps(int threads, const Kernels& kernels, const PackedKernels& packed)
    : pool_(std::max(threads, 1), choose_cores()),
      kernels_(kernels),
      packed_kernels_(packed),
      attention_kernels_(cpu_attention_kernels(packed)) {}
CpuOps::~CpuOps() = default;

// A weight in panels, and which product it is for. The panels are its own, or lie in memory that outlives the backend.
struct CpuOps::Prepared {
  PackedMatrix matrix;
  Product product;
  std::vector<Tactic> tactics;  // ascending rows
  BigMemory memory;

  [[nodiscard]] Tactic tactic_for(std::int64_t rows) const {
    const auto at = std::lower_bound(tactics.begin(), tactics.end(), rows,
                                     [](const Tactic& tactic, std::int64_t wanted) { return tactic.rows < wanted; });
    return at == tactics.end() || at->rows != rows ? Tactic{} : *at;
  }
};

namespace {

Product product_for(const Matrix& w, Rounding rounding, WeightFormat format) {
  // Deeper int8 sums would not fit 32 bits.
  if (format == WeightFormat::int8 && w.cols <= kPackedDepthMax) return Product::int8;
  if (format != WeightFormat::stored && format != WeightFormat::int8) return Product::int4;
  if (w.dtype != Dtype::bf16) return Product::f32;
  if (rounding == Rounding::bf16) return Product::bf16_dot;
  // A small weight stays in a cache, where widening it costs more than the second half of its bytes.
  return w.rows * w.cols <= kWidenedElementsMax ? Product::f32 : Product::bf16;
}

std::int64_t group_of(WeightFormat format) {
  if (format == WeightFormat::int4_32) return 32;
  return format == WeightFormat::int4_64 ? 64 : 128;
}

// The product of that name; false when this version has none.
bool product_named(std::string_view name, Product* product) {
  const auto* at = std::find(std::begin(kProductNames), std::end(kProductNames), name);
  if (at == std::end(kProductNames)) return false;
  *product = static_cast<Product>(at - std::begin(kProductNames));
  return true;
}

// What a form says about a weight of this size, without its data; false when it is none that this version multiplies.
bool described(const Matrix& w, const Ops::PreparedForm& form, Product* product, PackedMatrix* out) {
  if (form.layout != kPackedLayout || !product_named(form.product, product) || w.rows < 1 || w.cols < 1) return false;
  *out = {nullptr, packed_precision(*product), w.rows, w.cols};
  if (*product == Product::int4) {
    if (form.group != 32 && form.group != 64 && form.group != 128) return false;
    out->group = form.group;
  } else if (form.group != 0) {
    return false;
  }
  if (*product == Product::int8 && w.cols > kPackedDepthMax) return false;
  return form.bytes == packed_bytes(out->precision, w.rows, w.cols, out->group);
}

}  // namespace

bool CpuOps::prepared_form(const Matrix& w, Rounding rounding, WeightFormat format, PreparedForm* form) const {
  if (w.rows < 1 || w.cols < 1) return false;
  const Product product = product_for(w, rounding, format);
  const std::int64_t group = product == Product::int4 ? group_of(format) : 0;
  *form = {kProductNames[static_cast<std::size_t>(product)], kPackedLayout,
           packed_bytes(packed_precision(product), w.rows, w.cols, group == 0 ? kInt4Group : group), group};
  return true;
}

void CpuOps::write_prepared(const Matrix& w, const PreparedForm& form, void* to) {
  Product product = Product::f32;
  PackedMatrix matrix;
  [[maybe_unused]] const bool known = described(w, form, &product, &matrix);
  assert(known);
  pack(pool_, w, matrix.precision, to, matrix.group);
}

bool CpuOps::adopt(Matrix* w, const PreparedForm& form, const void* bytes) {
  assert(w->prepared == nullptr && reinterpret_cast<std::uintptr_t>(bytes) % 64 == 0);
  Product product = Product::f32;
  PackedMatrix matrix;
  if (!described(*w, form, &product, &matrix)) return false;
  matrix.data = bytes;
  prepared_.push_back(
      std::make_unique<Prepared>(Prepared{matrix, product, {form.tactics.begin(), form.tactics.end()}, nullptr}));
  w->prepared = prepared_.back().get();
  return true;
}

std::int64_t CpuOps::prepare(Matrix* w, Rounding rounding, WeightFormat format) {
  assert(w->dtype != Dtype::f16 && w->prepared == nullptr);
  PreparedForm form;
  if (!prepared_form(*w, rounding, format, &form)) return 0;
  BigMemory memory = allocate_big(form.bytes);
  if (memory == nullptr) return 0;
  write_prepared(*w, form, memory.get());
  [[maybe_unused]] const bool own = adopt(w, form, memory.get());
  assert(own);
  prepared_.back()->memory = std::move(memory);
  return form.bytes;
}

std::string CpuOps::processor() const { return processor_name() + ", " + packed_kernels_.name; }

Tactic CpuOps::tactic_for(const Matrix& w, std::int64_t rows) const {
  assert(w.prepared != nullptr);
  return static_cast<const Prepared*>(w.prepared)->tactic_for(rows);
}

std::vector<Tactic> CpuOps::tactics_to_try(const Matrix& w, std::int64_t rows) const {
  assert(w.prepared != nullptr);
  const Product product = static_cast<const Prepared*>(w.prepared)->product;
  const std::int64_t tiles = RowTiles(rows, packed_kernels_.rows).count;
  std::vector<Tactic> tactics = {{rows}};
  for (const std::int64_t task_tiles : kTaskTileChoices)
    if (task_tiles < std::min(tiles, kTaskTiles)) tactics.push_back({rows, Split::rule, task_tiles});
  if (pool_.threads() == 1) return tactics;
  const bool is_alone = packed_alone_by_rule(product, rows, w.rows, w.cols);
  tactics.push_back({rows, is_alone ? Split::shared : Split::alone, kTaskTiles});
  return tactics;
}

void CpuOps::packed(const Prepared& w, const float* x, std::int64_t m, std::int64_t ldx, PackedProduct args,
                    const PackedNorm* norm) {
  args.product = w.product;
  args.m = m;
  args.w = w.matrix;
  args.tactic = w.tactic_for(m);
  packed_linear(pool_, packed_kernels_, x, ldx,
                scratch(packed_scratch_bytes(packed_kernels_, w.product, m, w.matrix.k)), args, norm);
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

float* CpuOps::rows_memory(std::int64_t floats) {
  if (std::ssize(rows_) < floats) rows_.resize(static_cast<std::size_t>(floats));
  return rows_.data();
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
    packed(*static_cast<const Prepared*>(w.prepared), x, m, ldx, args, nullptr);
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

// Without packed weights: the single operations, over memory for the normed rows and for the result.
void CpuOps::plain_linear(const FusedLinear& a) {
  const std::int64_t n = a.w->rows, k = a.w->cols;
  float* const normed = rows_memory(a.m * ((a.norm == nullptr ? 0 : k) + (a.is_residual ? n : 0)));
  const float* x = a.x;
  if (a.norm != nullptr) {
    layer_norm({a.x, a.m, k, *a.norm, a.rounding, normed});
    x = normed;
  }
  if (!a.is_residual) return linear(x, a.m, a.norm == nullptr ? a.ldx : k, *a.w, a.bias, a.act, a.rounding, a.y, a.ldy);
  float* const z = normed + (a.norm == nullptr ? 0 : a.m * k);
  linear(x, a.m, a.norm == nullptr ? a.ldx : k, *a.w, a.bias, a.act, a.rounding, z, n);
  for (std::int64_t r = 0; r < (a.ldy == n ? 0 : a.m); ++r)
    add_gated(a.y + r * a.ldy, z + r * n, 1, n, a.gate, a.gate_stride, a.row_map == nullptr ? nullptr : a.row_map + r,
              a.rounding);
  if (a.ldy == n) add_gated(a.y, z, a.m, n, a.gate, a.gate_stride, a.row_map, a.rounding);
}

void CpuOps::fused_linear(const FusedLinear& a) {
  assert(a.norm == nullptr || a.ldx == a.w->cols);
  if (a.m == 0) return;
  if (a.w->prepared == nullptr) return plain_linear(a);
  const auto& w = *static_cast<const Prepared*>(a.w->prepared);
  const std::int64_t n = a.w->rows, k = a.w->cols;
  const std::int64_t normed_floats = a.norm == nullptr ? 0 : a.m * k;
  float* const memory = rows_memory(normed_floats + (a.is_residual ? a.m * n : 0));
  PackedProduct args;
  args.bias = a.bias;
  args.act = a.act;
  args.rounding = a.rounding;
  args.y = a.y;
  args.ldy = a.ldy;
  if (a.is_residual) {
    args.y = memory + normed_floats;
    args.ldy = n;
    args.residual = a.y;
    args.residual_stride = a.ldy;
    args.gate = a.gate;
    args.gate_stride = a.gate_stride;
    args.row_map = a.row_map;
  }
  if (a.norm == nullptr) return packed(w, a.x, a.m, a.ldx, args, nullptr);
  const PackedNorm norm{kernels_, *a.norm, a.rounding, memory};
  packed(w, a.x, a.m, a.ldx, args, &norm);
}

void CpuOps::cached_attention(const CachedAttention& args) {
  ops::cached_attention(pool_, attention_kernels_, args, scratch(cached_attention_scratch_bytes(args)));
}

void CpuOps::attention(const float* q, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t ldq,
                       const KeyValueView& kv, float scale, Rounding rounding, float* y, std::int64_t ldy) {
  cpu_attention(pool_, kernels_, {q, rows, heads, head_dim, ldq, kv, scale, rounding, y, ldy});
}

void CpuOps::conv3d(const Conv3d& args, Rounding rounding) {
  const auto* w = static_cast<const Prepared*>(args.weight.prepared);
  if (w == nullptr || w->product != Product::f32) return cpu_conv3d(*this, args, rounding);
  const std::int64_t bytes = window_scratch_floats(args) * static_cast<std::int64_t>(sizeof(float));
  window_conv(pool_, packed_kernels_, w->matrix, args, rounding, static_cast<float*>(scratch(bytes)));
}

}  // namespace premotor::ops
