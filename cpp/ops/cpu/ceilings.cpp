// The loops behind the ceilings. See ceilings.h.
#include "ops/cpu/ceilings.h"

#include <chrono>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Whole, so that the chains live in registers: the compilers' own limit is 16.
#define PREMOTOR_UNROLL _Pragma("GCC unroll 24")

namespace premotor::ops::ceilings {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double best_s(int threads, int tries, const std::function<void(int)>& body) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < tries; ++i) {
    const double began = now_s();
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(body, t);
    body(0);
    for (std::thread& other : others) other.join();
    best = std::min(best, now_s() - began);
  }
  return best;
}

Bandwidth bandwidth(int threads, std::int64_t bytes_each, int tries) {
  const std::int64_t count = bytes_each / 4;
  const Buffer a(bytes_each), b(bytes_each), c(bytes_each);
  std::fill_n(a.as<float>(), count, 0.0f);
  std::fill_n(b.as<float>(), count, 1.0f);
  std::fill_n(c.as<float>(), count, 2.0f);
  std::vector<float> sums(static_cast<std::size_t>(threads) * 16);
  const auto range = [&](int t) {
    return std::pair{count * t / threads / 16 * 16, count * (t + 1) / threads / 16 * 16};
  };
  const double triad_s = best_s(threads, tries, [&](int t) {
    const auto [begin, end] = range(t);
    float* __restrict to = a.as<float>();
    const float *x = b.as<float>(), *y = c.as<float>();
    for (std::int64_t i = begin; i < end; ++i) to[i] = x[i] + 3.0f * y[i];
  });
  const double read_s = best_s(threads, tries, [&](int t) {
    typedef float Lanes __attribute__((vector_size(64)));
    const auto [begin, end] = range(t);
    Lanes sum[4] = {};
    for (std::int64_t i = begin; i + 64 <= end; i += 64)
      for (int j = 0; j < 4; ++j) {
        Lanes v;
        __builtin_memcpy(&v, b.as<float>() + i + 16 * j, sizeof v);
        sum[j] += v;
      }
    sum[0] += sum[1] + sum[2] + sum[3];
    sums[static_cast<std::size_t>(t) * 16] = sum[0][0];
  });
  return {3 * static_cast<double>(bytes_each) / triad_s / 1e9, static_cast<double>(bytes_each) / read_s / 1e9};
}

namespace {

// 24 chains hide the latency of two units with 6 cycles each and leave registers for the operands. They start from
// different values, or a compiler would see that they are one.
constexpr int kChains = 24;

void fma_plain(std::int64_t rounds, float* out) {
  typedef float Lanes __attribute__((vector_size(16)));
  Lanes acc[8], a = {0.5f, 0.5f, 0.5f, 0.5f}, b = {1, 1, 1, 1};
  for (int j = 0; j < 8; ++j) acc[j] = *out + static_cast<float>(j) + Lanes{};
  for (std::int64_t i = 0; i < rounds; ++i)
    for (Lanes& chain : acc) chain = chain * a + b;
  for (const Lanes& chain : acc) *out += chain[0];
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void fma_256(std::int64_t rounds, float* out) {
  __m256 acc[12], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
  PREMOTOR_UNROLL for (int j = 0; j < 12; ++j) acc[j] = _mm256_set1_ps(*out + static_cast<float>(j));
  for (std::int64_t i = 0; i < rounds; ++i)
    PREMOTOR_UNROLL for (int j = 0; j < 12; ++j) acc[j] = _mm256_fmadd_ps(acc[j], a, b);
  PREMOTOR_UNROLL for (int j = 0; j < 12; ++j)* out += acc[j][0];
}

__attribute__((target("avx512f"))) void fma_512(std::int64_t rounds, float* out) {
  __m512 acc[kChains], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
  PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j) acc[j] = _mm512_set1_ps(*out + static_cast<float>(j));
  for (std::int64_t i = 0; i < rounds; ++i)
    PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j) acc[j] = _mm512_fmadd_ps(acc[j], a, b);
  PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j)* out += acc[j][0];
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) void dot_bf16(std::int64_t rounds, float* out) {
  __m512 acc[kChains];
  PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j) acc[j] = _mm512_set1_ps(*out + static_cast<float>(j));
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f003f00), b = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (std::int64_t i = 0; i < rounds; ++i)
    PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j) acc[j] = _mm512_dpbf16_ps(acc[j], a, b);
  PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j)* out += acc[j][0];
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) void dot_int8(std::int64_t rounds, float* out) {
  __m512i acc[kChains];
  PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j) acc[j] = _mm512_set1_epi32(static_cast<int>(*out) + j);
  const __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x01ff01ff);
  for (std::int64_t i = 0; i < rounds; ++i)
    PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j) acc[j] = _mm512_dpbusd_epi32(acc[j], a, b);
  PREMOTOR_UNROLL for (int j = 0; j < kChains; ++j)* out += static_cast<float>(acc[j][0]);
}
#endif

}  // namespace

static double peak(int threads, int tries, double seconds, double per_round, void (*loop)(std::int64_t, float*)) {
  std::vector<float> sink(static_cast<std::size_t>(threads) * 16);
  const auto run = [&](std::int64_t rounds) {
    return best_s(threads, tries, [&](int t) { loop(rounds, &sink[static_cast<std::size_t>(t) * 16]); });
  };
  const double trial_s = run(10000);
  const auto rounds = static_cast<std::int64_t>(std::max(1.0, 10000 * seconds / trial_s));
  return per_round * static_cast<double>(rounds) * threads / run(rounds) / 1e9;
}

Peaks peaks(const PackedKernels& kernels, int threads, int tries, double seconds) {
  Peaks found;
#if defined(__x86_64__)
  const auto native = [&](Product product) { return kernels.is_native[static_cast<int>(product)]; };
  const auto measure = [&](double per_round, void (*loop)(std::int64_t, float*)) {
    return peak(threads, tries, seconds, per_round, loop);
  };
  if (kernels.rows >= 12)
    found.f32 = measure(kChains * 32, fma_512);
  else
    found.f32 = kernels.rows >= 6 ? measure(12 * 16, fma_256) : measure(8 * 8, fma_plain);
  if (native(Product::bf16_dot)) found.bf16_dot = measure(kChains * 64, dot_bf16);
  if (native(Product::int8)) found.int8_dot = measure(kChains * 128, dot_int8);
#else
  static_cast<void>(kernels);
  found.f32 = peak(threads, tries, seconds, 8 * 8, fma_plain);
#endif
  return found;
}

}  // namespace premotor::ops::ceilings
