// Every instruction set's kernels and every operation against a plain double-precision oracle, on sizes that do not fit
// any register tile.
#include <algorithm>
#include <cmath>
#include <random>

#include "base/half.h"
#include "golden.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/kv_layout.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::ops;

namespace {

std::mt19937 generator(7);

std::vector<float> random_values(std::int64_t count, float size = 1.0f) {
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

std::vector<std::uint16_t> to_bf16(std::vector<float>* values) {
  std::vector<std::uint16_t> bits;
  for (float& value : *values) {
    bits.push_back(f32_to_bf16(value));
    value = bf16_to_f32(bits.back());
  }
  return bits;
}

double activate(double x, Activation act) {
  if (act == Activation::silu) return x / (1.0 + std::exp(-x));
  if (act == Activation::gelu_tanh)
    return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
  return x;
}

void test_linear(CpuOps& ops, const std::string& isa) {
  for (const auto& [m, n, k] :
       {std::tuple<std::int64_t, std::int64_t, std::int64_t>{1, 1, 1}, {7, 13, 26}, {50, 101, 67}, {3, 192, 128}}) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      for (const Activation act : {Activation::none, Activation::gelu_tanh, Activation::silu}) {
        const std::vector<float> x = random_values(m * k), bias = random_values(n);
        std::vector<float> w = random_values(n * k), y(static_cast<std::size_t>(m * n)), expected;
        const std::vector<std::uint16_t> bits = to_bf16(&w);
        const void* data = dtype == Dtype::f32 ? static_cast<const void*>(w.data()) : bits.data();
        ops.linear(x.data(), m, k, {data, dtype, n, k}, bias.data(), act, Rounding::none, y.data(), n);
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t j = 0; j < n; ++j) {
            double sum = bias[static_cast<std::size_t>(j)];
            for (std::int64_t p = 0; p < k; ++p)
              sum +=
                  static_cast<double>(x[static_cast<std::size_t>(i * k + p)]) * w[static_cast<std::size_t>(j * k + p)];
            expected.push_back(static_cast<float>(activate(sum, act)));
          }
        tap::ok(golden::relative_rms(y, expected) < 1e-6,
                isa + " linear " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k));
      }
    }
  }
}

struct Attention {
  std::int64_t rows, heads, head_dim, capacity;
  std::vector<std::int32_t> attended;  // ascending
  float last_weight;
};

// softmax(q k^T * scale) v, dense operands [head, capacity, head_dim], in float64.
std::vector<float> attention_oracle(const Attention& a, float scale, const std::vector<float>& q,
                                    const std::vector<float>& k, const std::vector<float>& v) {
  const std::int64_t inner = a.heads * a.head_dim;
  std::vector<float> expected(q.size());
  for (std::int64_t r = 0; r < a.rows; ++r)
    for (std::int64_t h = 0; h < a.heads; ++h) {
      const float* query = q.data() + r * inner + h * a.head_dim;
      const auto at = [&](std::size_t i, std::int64_t d) {
        return static_cast<std::size_t>((h * a.capacity + a.attended[i]) * a.head_dim + d);
      };
      std::vector<double> weight;
      for (std::size_t i = 0; i < a.attended.size(); ++i) {
        double dot = 0;
        for (std::int64_t d = 0; d < a.head_dim; ++d) dot += static_cast<double>(query[d]) * k[at(i, d)];
        weight.push_back(std::exp(dot * scale) * (i + 1 == a.attended.size() ? a.last_weight : 1.0));
      }
      double sum = 0;
      for (const double w : weight) sum += w;
      for (std::int64_t d = 0; d < a.head_dim; ++d) {
        double value = 0;
        for (std::size_t i = 0; i < weight.size(); ++i) value += weight[i] / sum * v[at(i, d)];
        expected[static_cast<std::size_t>(r * inner + h * a.head_dim + d)] = static_cast<float>(value);
      }
    }
  return expected;
}

// Cached planes whose other rows are not finite: they must not matter.
struct Planes {
  KvLayout layout;
  std::vector<std::byte> k, v;
  std::vector<std::uint32_t> attended;

  Planes(CpuOps& ops, const Attention& a, Dtype dtype, const std::vector<float>& keys, const std::vector<float>& values)
      : layout{a.heads, kv_rows(a.capacity), a.head_dim, dtype},
        k(static_cast<std::size_t>(layout.key_bytes())),
        v(static_cast<std::size_t>(layout.value_bytes())),
        attended(static_cast<std::size_t>(layout.rows / kKvPanel)) {
    const std::int64_t inner = a.heads * a.head_dim;
    std::vector<float> k_rows(static_cast<std::size_t>(layout.rows * inner), NAN), v_rows(k_rows);
    std::vector<std::int32_t> rows(static_cast<std::size_t>(layout.rows));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int32_t>(i);
    for (const std::int32_t row : a.attended) {
      attended[static_cast<std::size_t>(row / 32)] |= std::uint32_t{1} << row % 32;
      for (std::int64_t h = 0; h < a.heads; ++h) {
        const std::int64_t from = (h * a.capacity + row) * a.head_dim, to = row * inner + h * a.head_dim;
        std::copy_n(keys.begin() + from, a.head_dim, k_rows.begin() + to);
        std::copy_n(values.begin() + from, a.head_dim, v_rows.begin() + to);
      }
    }
    ops.store_kv({k_rows.data(), v_rows.data(), layout.rows, a.heads, a.head_dim, inner, k.data(), v.data(), dtype,
                  layout.rows, rows.data()});
  }
  [[nodiscard]] CachedView view(float last_weight) const {
    return {k.data(), v.data(), layout.dtype, layout.rows, attended.data(), 0, last_weight};
  }
};

void test_attention(CpuOps& ops, const std::string& isa, const Attention& a, Dtype dtype,
                    Rounding rounding = Rounding::none) {
  const std::int64_t inner = a.heads * a.head_dim;
  std::vector<float> q = random_values(a.rows * inner, 2.0f);
  std::vector<float> k = random_values(a.heads * a.capacity * a.head_dim, 2.0f),
                     v = random_values(a.heads * a.capacity * a.head_dim);
  if (dtype == Dtype::bf16) to_bf16(&k), to_bf16(&v);
  if (rounding == Rounding::bf16) to_bf16(&q);
  const float scale = 1.0f / std::sqrt(static_cast<float>(a.head_dim));
  const Planes planes(ops, a, dtype, k, v);
  std::vector<float> y(q);
  ops.cached_attention({y.data(), a.rows, a.heads, a.head_dim, inner, planes.view(a.last_weight), scale, rounding,
                        y.data(), inner});  // in place
  // Rounded weights and results: half an ulp of bfloat16 each, 2^-9.
  // An int8 cache: a step is 1/127 of a row's largest value, some 3 deviations; its error has an RMS of step /
  // sqrt(12), 0.7 %. Scores of deviation 4 are so off by 0.027, and the weights by as much.
  const double error = golden::relative_rms(y, attention_oracle(a, scale, q, k, v));
  const double rounded = rounding == Rounding::bf16 ? 4e-3 : 3e-6;
  tap::ok(error < (dtype == Dtype::int8 ? 3e-2 : rounded),
          isa + " attention, head_dim " + std::to_string(a.head_dim) + ", " + std::to_string(a.attended.size()) +
              " of " + std::to_string(a.capacity) + " rows, " + std::to_string(a.rows) +
              " queries: " + std::to_string(error));
}

void test_dense_attention(CpuOps& ops, const std::string& isa, std::int64_t rows, std::int64_t head_dim, Dtype dtype) {
  const std::int64_t heads = 2, keys = 300;
  Attention a{rows, heads, head_dim, keys, {}, 1.0f};
  for (std::int32_t i = 0; i < keys; ++i) a.attended.push_back(i);
  const std::vector<float> q = random_values(rows * heads * head_dim, 2.0f);
  std::vector<float> k = random_values(heads * keys * head_dim, 2.0f), v = random_values(heads * keys * head_dim);
  const std::vector<std::uint16_t> kb = to_bf16(&k), vb = to_bf16(&v);
  KeyValueView view;
  view.k = dtype == Dtype::f32 ? static_cast<const void*>(k.data()) : kb.data();
  view.v = dtype == Dtype::f32 ? static_cast<const void*>(v.data()) : vb.data();
  view.dtype = dtype;
  view.count = keys;
  std::vector<float> y(q);
  ops.attention(y.data(), rows, heads, head_dim, heads * head_dim, view, 0.2f, Rounding::none, y.data(),
                heads * head_dim);
  tap::ok(golden::relative_rms(y, attention_oracle(a, 0.2f, q, k, v)) < 3e-6,
          isa + " dense attention, head_dim " + std::to_string(head_dim) + ", " + std::to_string(rows) + " queries");
}

std::vector<std::int32_t> some_slots(std::int64_t capacity, int keep_one_in) {
  std::vector<std::int32_t> slots;
  for (std::int32_t slot = 0; slot < capacity; ++slot)
    if (keep_one_in == 1 || generator() % static_cast<unsigned>(keep_one_in) != 0) slots.push_back(slot);
  return slots;
}

void test_norms(CpuOps& ops, const std::string& isa) {
  const std::int64_t rows = 19, dim = 75;
  const std::vector<float> x = random_values(rows * dim, 3.0f), weight = random_values(dim), bias = random_values(dim),
                           modulation = random_values(2 * 2 * dim);
  std::vector<std::int32_t> map;
  for (std::int64_t r = 0; r < rows; ++r) map.push_back(static_cast<std::int32_t>(r % 2));
  std::vector<float> y(x.size()), expected, rms(x), expected_rms;
  ops.layer_norm({x.data(), rows, dim, 1e-6f, weight.data(), bias.data(), modulation.data() + dim, modulation.data(),
                  2 * dim, map.data(), Rounding::none, y.data()});
  ops.rms_norm(rms.data(), rows, dim, dim, 1e-6f, weight.data(), Rounding::none);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = x.data() + r * dim;
    double mean = 0, variance = 0, square = 0;
    for (std::int64_t c = 0; c < dim; ++c)
      mean += row[c] / static_cast<double>(dim),
          square += static_cast<double>(row[c]) * row[c] / static_cast<double>(dim);
    for (std::int64_t c = 0; c < dim; ++c) variance += (row[c] - mean) * (row[c] - mean) / static_cast<double>(dim);
    for (std::int64_t c = 0; c < dim; ++c) {
      const auto at = static_cast<std::size_t>(c);
      const std::size_t shift = static_cast<std::size_t>(map[static_cast<std::size_t>(r)] * 2 * dim + c),
                        scale = shift + static_cast<std::size_t>(dim);
      const double normal = (row[c] - mean) / std::sqrt(variance + 1e-6) * weight[at] + bias[at];
      expected.push_back(static_cast<float>(normal * (1.0 + modulation[scale]) + modulation[shift]));
      expected_rms.push_back(static_cast<float>(row[c] / std::sqrt(square + 1e-6) * weight[at]));
    }
  }
  tap::ok(golden::relative_rms(y, expected) < 1e-6, isa + " layer norm with affine and modulation");
  tap::ok(golden::relative_rms(rms, expected_rms) < 1e-6, isa + " RMS norm");
}

// Results must not depend on the number of threads: the same bits come out.
void test_threads(const Kernels& kernels) {
  const std::int64_t m = 97, n = 211, k = 130;
  const std::vector<float> x = random_values(m * k), w = random_values(n * k), bias = random_values(n);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    CpuOps ops(threads, kernels);
    std::vector<float> y(static_cast<std::size_t>(m * n));
    ops.linear(x.data(), m, k, {w.data(), Dtype::f32, n, k}, bias.data(), Activation::gelu_tanh, Rounding::bf16,
               y.data(), n);
    results.push_back(std::move(y));
  }
  tap::ok(results[0] == results[1] && results[0] == results[2],
          std::string(kernels.name) + " gives the same bits on 1, 2 and 3 threads");
  tap::ok(std::all_of(results[0].begin(), results[0].end(), [](float v) { return round_to_bf16(v) == v; }),
          std::string(kernels.name) + " rounds to bfloat16");
}

void test_conversions() {
  bool same = true;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = f16_to_f32(static_cast<std::uint16_t>(bits));
    const int exponent = static_cast<int>((bits >> 10) & 31);
    const double mantissa = bits & 1023;
    const double size = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31)
      same = same && (mantissa == 0 ? std::isinf(value) : std::isnan(value));
    else
      same = same && value == static_cast<float>((bits & 0x8000) != 0 ? -size : size);
  }
  tap::ok(same, "all 65536 half-precision values widen exactly");
  tap::ok(round_to_bf16(952.38f) == 952.0f && round_to_bf16(882.35f) == 884.0f && std::isnan(round_to_bf16(NAN)),
          "bfloat16 rounds to nearest even");
}

// However many threads share the work, and whichever queries come together: the same bits.
void test_cuts(const Kernels& kernels, const PackedKernels& packed, Dtype dtype) {
  const Attention a{101, 2, 48, 1500, some_slots(1500, 7), 1.0f};
  const std::int64_t inner = a.heads * a.head_dim;
  const std::vector<float> q = random_values(a.rows * inner, 2.0f);
  const std::vector<float> k = random_values(a.heads * a.capacity * a.head_dim, 2.0f),
                           v = random_values(a.heads * a.capacity * a.head_dim);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 5}) {
    CpuOps ops(threads, kernels, packed);
    const Planes planes(ops, a, dtype, k, v);
    results.emplace_back(q.size());
    ops.cached_attention({q.data(), a.rows, a.heads, a.head_dim, inner, planes.view(1.0f), 0.2f, Rounding::none,
                          results.back().data(), inner});
  }
  tap::ok(results[0] == results[1] && results[0] == results[2],
          std::string(packed.name) + " attention has the same bits on any number of threads");
}

}  // namespace

int main() {
  std::vector<const Kernels*> tables = {&baseline::kernels()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(&avx2::kernels());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) tables.push_back(&avx512::kernels());
#endif
  for (const Kernels* kernels : tables) {
    CpuOps ops(2, *kernels);
    test_linear(ops, kernels->name);
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      test_dense_attention(ops, kernels->name, 7, 26, dtype);
      test_dense_attention(ops, kernels->name, 13, 384, dtype);
    }
    test_norms(ops, kernels->name);
    test_threads(*kernels);
  }
  const PackedKernels* packed[kPackedTables];
  const int count = cpu_packed_tables(packed);
  for (int i = 0; i < count; ++i) {
    CpuOps ops(2, cpu_kernels(), *packed[i]);
    const std::string isa = packed[i]->name;
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::int8}) {
      for (const Rounding rounding : {Rounding::none, Rounding::bf16}) {
        test_attention(ops, isa, {5, 2, 26, 40, some_slots(40, 3), 1.0f}, dtype, rounding);
        test_attention(ops, isa, {33, 3, 24, 700, some_slots(700, 5), 1.0f}, dtype, rounding);
        test_attention(ops, isa, {1, 1, 20, 1, {0}, 1.0f}, dtype, rounding);
        test_attention(ops, isa, {200, 1, 48, 600, some_slots(600, 50), 1.0f}, dtype, rounding);
        test_attention(ops, isa, {13, 1, 128, 2000, some_slots(2000, 1), 1.0f}, dtype, rounding);
        test_attention(ops, isa, {4, 2, 256, 9, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 476.0f}, dtype, rounding);
      }
      test_cuts(cpu_kernels(), *packed[i], dtype);
    }
  }
  test_conversions();
  return tap::finish();
}
