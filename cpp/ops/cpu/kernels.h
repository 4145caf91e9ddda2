// The inner loops of the CPU backend, one table per instruction set (kernels.cpp is compiled once for each). Raw
// pointers, no framework, no allocation. Every output element is computed by the same sequence of operations wherever
// its tile lies, so results do not depend on how work is cut.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace premotor::ops {

// One row's norm, as Ops::LayerNorm.
struct RowNorm {
  std::int64_t dim;
  float eps;
  const float* weight;  // [dim] or null, then bias too
  const float* bias;
  const float* scale;  // [dim] or null, then shift too
  const float* shift;
  Rounding rounding;
};

struct Kernels {
  const char* name;

  // y[m, n] = x[m, k] w[n, k]^T; row strides ldx, ldy; w is dense. w: f32 or bf16 bits, 2- or 4-byte aligned.
  void (*gemm_f32)(const float* x, std::int64_t ldx, std::int64_t m, const float* w, std::int64_t n, std::int64_t k,
                   float* y, std::int64_t ldy);
  void (*gemm_bf16)(const float* x, std::int64_t ldx, std::int64_t m, const std::uint16_t* w, std::int64_t n,
                    std::int64_t k, float* y, std::int64_t ldy);

  // o[m, d] += p[m, n] v[n, d]; row strides ldp, ldo; v is dense.
  void (*weighted_sum_f32)(const float* p, std::int64_t ldp, std::int64_t m, const float* v, std::int64_t n,
                           std::int64_t d, float* o, std::int64_t ldo);
  void (*weighted_sum_bf16)(const float* p, std::int64_t ldp, std::int64_t m, const std::uint16_t* v, std::int64_t n,
                            std::int64_t d, float* o, std::int64_t ldo);

  // s[i] = exp(s[i] * scale - max) for i < n; returns the sum.
  float (*exp_row)(float* s, std::int64_t n, float scale, float max);
  // The largest of s[0 .. n), n >= 1.
  float (*max_row)(const float* s, std::int64_t n);

  void (*gelu_tanh)(float* x, std::int64_t n);   // in place
  void (*silu)(float* x, std::int64_t n);        // in place
  void (*round_bf16)(float* x, std::int64_t n);  // in place, to the nearest bfloat16

  // One row each, as the operations of the same names; results rounded when asked. y may be x.
  void (*layer_norm)(const float* x, const RowNorm& norm, float* y);
  void (*rms_norm)(float* x, std::int64_t n, float eps, const float* weight, Rounding rounding);
  void (*rope)(float* x, std::int64_t heads, std::int64_t head_dim, const float* cos, const float* sin,
               Rounding rounding);
  void (*add_gated)(float* h, const float* a, const float* gate, std::int64_t n, Rounding rounding);  // gate or null

  void (*normalise_channels)(const float* x, std::int64_t rows, std::int64_t n, const float* gamma, bool is_silu,
                             Rounding rounding, float* y);
};

// The best table for this processor. `premotor_isa` (environment PREMOTOR_ISA = baseline | avx2 | avx512) forces a
// lower one; avx512_dot counts as avx512 here. On 64-bit ARM there is one table, neon.
const Kernels& cpu_kernels();

#if defined(__aarch64__)
namespace neon {
const Kernels& kernels();
}
namespace baseline = neon;
#else
namespace baseline {
const Kernels& kernels();
}
#endif
namespace avx2 {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}

}  // namespace premotor::ops
