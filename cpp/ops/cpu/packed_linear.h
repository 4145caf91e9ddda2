// The driver of packed products: converts the activations once, then cuts the product into blocks that stay in the
// caches and hands them to a pool's threads. Nothing allocates: the caller gives the scratch memory.
#pragma once

#include "base/thread_pool.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/packed_kernels.h"

namespace premotor::ops {

// Bytes of scratch for m rows of k activations (m, k >= 1), a multiple of 64. Depends on the table.
[[nodiscard]] std::int64_t packed_scratch_bytes(const PackedKernels& kernels, Product product, std::int64_t m,
                                                std::int64_t k);

// What happens to the rows before they are converted: a layer norm into memory that the conversion then reads while it
// is near.
struct PackedNorm {
  const Kernels& kernels;
  const Ops::Norm& norm;
  Rounding rounding;
  float* normed;  // [m, k]
};

// Converts x [m, k] (f32, row stride ldx in elements), normed first when asked, for any number of products with
// matrices of the same k. `converted`: packed_scratch_bytes(...) bytes, 64-byte aligned. is_alone: on this thread.
void packed_convert(ThreadPool& pool, const PackedKernels& kernels, Product product, const float* x, std::int64_t m,
                    std::int64_t k, std::int64_t ldx, void* converted, const PackedNorm* norm = nullptr,
                    bool is_alone = false);

struct PackedProduct {
  Product product = Product::f32;
  const void* converted = nullptr;  // what packed_convert wrote for the same table, product, m and w.k
  std::int64_t m = 0;               // rows, >= 1
  PackedMatrix w;                   // of packed_precision(product); k <= kPackedDepthMax when int8
  const float* bias = nullptr;      // [n] or null
  Activation act = Activation::none;
  Rounding rounding = Rounding::none;
  float* y = nullptr;  // [m, n] f32, row stride ldy; carries partial sums on the way
  std::int64_t ldy = 0;
  // y then is memory for partial sums alone, and residual[r] = round(residual[r] + gate[row_map[r]] * result).
  float* residual = nullptr;  // [m, n], row stride residual_stride, or null
  std::int64_t residual_stride = 0;
  const float* gate = nullptr;  // [*, n], row stride gate_stride; null: 1
  std::int64_t gate_stride = 0;
  const std::int32_t* row_map = nullptr;  // [m] -> row of gate; null: all use row 0
  Tactic tactic;                          // its rows do not count
};

// Whether the calling thread does a product without the others, by the rule.
[[nodiscard]] bool packed_alone_by_rule(Product product, std::int64_t m, std::int64_t n, std::int64_t k);

// y = round(act(round(x w^T + bias))) as Ops::linear.
void packed_multiply(ThreadPool& pool, const PackedKernels& kernels, const PackedProduct& args);

// Both steps: x [m, args.w.k] through `scratch`, which args.converted is set to. y may be x when ldx and ldy agree.
void packed_linear(ThreadPool& pool, const PackedKernels& kernels, const float* x, std::int64_t ldx, void* scratch,
                   PackedProduct args, const PackedNorm* norm = nullptr);

}  // namespace premotor::ops
