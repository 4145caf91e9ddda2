// Portable vector kernels (GCC/Clang vector extensions), compiled once per instruction set with PREMOTOR_ISA and
// PREMOTOR_VECTOR_WIDTH set by the build. Includes no header with inline functions but vectors.h and row_vectors.h,
// whose functions are this file's own, so that no code compiled for one instruction set is shared with another.
#include "ops/cpu/kernels.h"

#include "ops/cpu/row_vectors.h"
#include "ops/cpu/vectors.h"

#define PREMOTOR_TEXT_(x) #x
#define PREMOTOR_TEXT(x) PREMOTOR_TEXT_(x)

namespace premotor::ops::PREMOTOR_ISA {
namespace {

// Rows of x and rows of w in one register tile: accumulators + operands fit the register file (32 registers with
// AVX-512 and on 64-bit ARM, 16 elsewhere).
#if defined(__aarch64__)
constexpr bool kHas32Registers = true;
#else
constexpr bool kHas32Registers = W >= 16;
#endif
constexpr int MR = kHas32Registers ? 4 : 3;
constexpr int NR = kHas32Registers ? 6 : (W >= 8 ? 4 : 3);

// One register tile of y = x w^T: M rows of x by N rows of w, over all of k.
template <int M, int N, typename T>
inline void gemm_tile(const float* x, std::int64_t ldx, const T* w, std::int64_t k, float* y, std::int64_t ldy) {
  F acc[M][N];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) acc[i][j] = F{};
  const std::int64_t whole = k / W * W;
  for (std::int64_t p = 0; p < whole; p += W) {
    F b[N];
    for (int j = 0; j < N; ++j) b[j] = load(w + j * k + p);
    for (int i = 0; i < M; ++i) {
      const F a = load(x + i * ldx + p);
      for (int j = 0; j < N; ++j) acc[i][j] += a * b[j];
    }
  }
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      float sum = lane_sum(acc[i][j]);
      for (std::int64_t p = whole; p < k; ++p) sum += x[i * ldx + p] * widen(w[j * k + p]);
      y[i * ldy + j] = sum;
    }
  }
}

template <int N, typename T>
inline void gemm_columns(const float* x, std::int64_t ldx, std::int64_t m, const T* w, std::int64_t k, float* y,
                         std::int64_t ldy) {
  std::int64_t i = 0;
  for (; i + MR <= m; i += MR) gemm_tile<MR, N>(x + i * ldx, ldx, w, k, y + i * ldy, ldy);
  for (; i < m; ++i) gemm_tile<1, N>(x + i * ldx, ldx, w, k, y + i * ldy, ldy);
}

template <typename T>
void gemm(const float* x, std::int64_t ldx, std::int64_t m, const T* w, std::int64_t n, std::int64_t k, float* y,
          std::int64_t ldy) {
  std::int64_t j = 0;
  for (; j + NR <= n; j += NR) gemm_columns<NR>(x, ldx, m, w + j * k, k, y + j, ldy);
  for (; j < n; ++j) gemm_columns<1>(x, ldx, m, w + j * k, k, y + j, ldy);
}

// M rows of o += p v over C vectors of columns.
template <int M, int C, typename T>
inline void weighted_tile(const float* p, std::int64_t ldp, const T* v, std::int64_t n, std::int64_t d, float* o,
                          std::int64_t ldo) {
  F acc[M][C];
  for (int i = 0; i < M; ++i)
    for (int c = 0; c < C; ++c) acc[i][c] = load(o + i * ldo + c * W);
  for (std::int64_t j = 0; j < n; ++j) {
    F b[C];
    for (int c = 0; c < C; ++c) b[c] = load(v + j * d + c * W);
    for (int i = 0; i < M; ++i) {
      const F a = splat(p[i * ldp + j]);
      for (int c = 0; c < C; ++c) acc[i][c] += a * b[c];
    }
  }
  for (int i = 0; i < M; ++i)
    for (int c = 0; c < C; ++c) store(o + i * ldo + c * W, acc[i][c]);
}

template <int M, typename T>
inline void weighted_rows(const float* p, std::int64_t ldp, const T* v, std::int64_t n, std::int64_t d, float* o,
                          std::int64_t ldo) {
  std::int64_t c = 0;
  for (; c + 2 * W <= d; c += 2 * W) weighted_tile<M, 2>(p, ldp, v + c, n, d, o + c, ldo);
  for (; c + W <= d; c += W) weighted_tile<M, 1>(p, ldp, v + c, n, d, o + c, ldo);
  if (c == d) return;
  // The last columns go through a padded vector: a loop over keys in scalars would be cut into a vectorised part and a
  // rest with other roundings, and the sum would depend on where a stretch of keys ends.
  F acc[M];
  float part[W] = {};
  for (int i = 0; i < M; ++i) {
    for (std::int64_t x = c; x < d; ++x) part[x - c] = o[i * ldo + x];
    acc[i] = load(part);
  }
  for (std::int64_t j = 0; j < n; ++j) {
    for (std::int64_t x = c; x < d; ++x) part[x - c] = widen(v[j * d + x]);
    const F b = load(part);
    for (int i = 0; i < M; ++i) acc[i] += splat(p[i * ldp + j]) * b;
  }
  for (int i = 0; i < M; ++i) {
    store(part, acc[i]);
    for (std::int64_t x = c; x < d; ++x) o[i * ldo + x] = part[x - c];
  }
}

template <typename T>
void weighted_sum(const float* p, std::int64_t ldp, std::int64_t m, const T* v, std::int64_t n, std::int64_t d,
                  float* o, std::int64_t ldo) {
  std::int64_t i = 0;
  for (; i + MR <= m; i += MR) weighted_rows<MR>(p + i * ldp, ldp, v, n, d, o + i * ldo, ldo);
  for (; i < m; ++i) weighted_rows<1>(p + i * ldp, ldp, v, n, d, o + i * ldo, ldo);
}

// Applies a vector function to n floats in place; the tail goes through a padded vector, so every element sees the same
// arithmetic.
template <typename Function>
inline void map_in_place(float* x, std::int64_t n, Function function) {
  std::int64_t i = 0;
  for (; i + W <= n; i += W) store(x + i, function(load(x + i)));
  if (i < n) {
    float tail[W] = {};
    for (std::int64_t j = i; j < n; ++j) tail[j - i] = x[j];
    const F y = function(load(tail));
    store(tail, y);
    for (std::int64_t j = i; j < n; ++j) x[j] = tail[j - i];
  }
}

float exp_row(float* s, std::int64_t n, float scale, float max) {
  map_in_place(s, n, [=](F v) { return exp_vector(v * scale - max); });
  F sum = F{};
  std::int64_t i = 0;
  for (; i + W <= n; i += W) sum += load(s + i);
  float total = lane_sum(sum);
  for (; i < n; ++i) total += s[i];
  return total;
}

float max_row(const float* s, std::int64_t n) {
  float best = s[0];
  std::int64_t i = 0;
  if (n >= W) {
    F most = load(s);
    for (i = W; i + W <= n; i += W) {
      const F v = load(s + i);
      most = v > most ? v : most;
    }
    float lanes[W];
    store(lanes, most);
    best = lanes[0];
    for (int lane = 1; lane < W; ++lane) best = lanes[lane] > best ? lanes[lane] : best;
  }
  for (; i < n; ++i) best = s[i] > best ? s[i] : best;
  return best;
}

void gelu_tanh(float* x, std::int64_t n) { map_in_place(x, n, gelu_vector); }
void silu(float* x, std::int64_t n) { map_in_place(x, n, silu_vector); }
void round_bf16(float* x, std::int64_t n) { map_in_place(x, n, round_vector); }

}  // namespace

const Kernels& kernels() {
  static const Kernels table = {
      "cpu-" PREMOTOR_TEXT(PREMOTOR_ISA),
      gemm<float>,
      gemm<std::uint16_t>,
      weighted_sum<float>,
      weighted_sum<std::uint16_t>,
      exp_row,
      max_row,
      gelu_tanh,
      silu,
      round_bf16,
      layer_norm_row,
      rms_norm_row,
      rope_row,
      add_gated_row,
      normalise_channels,
  };
  return table;
}

}  // namespace premotor::ops::PREMOTOR_ISA
