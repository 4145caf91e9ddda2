// Every instruction set's kernels and every operation against a plain double-precision oracle, on sizes that do not fit
// any register tile.
#include <algorithm>
#include <cmath>
#include <random>

#include "base/half.h"
#include "golden.h"
#include "op_values.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/kv_layout.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::ops;
using namespace op_values;

namespace {

std::mt19937 generator(7);

std::vector<float> random_values(std::int64_t count, float size = 1.0f) {
  return normal_values(generator, count, size);
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

void test_norms(CpuOps& ops, const std::string& isa) {
  const std::int64_t rows = 19, dim = 75;
  const std::vector<float> x = random_values(rows * dim, 3.0f), weight = random_values(dim), bias = random_values(dim),
                           modulation = random_values(2 * 2 * dim);
  std::vector<std::int32_t> map;
  for (std::int64_t r = 0; r < rows; ++r) map.push_back(static_cast<std::int32_t>(r % 2));
  std::vector<float> y(x.size()), expected, rms(x), expected_rms;
  ops.layer_norm({x.data(),
                  rows,
                  dim,
                  {1e-6f, weight.data(), bias.data(), modulation.data() + dim, modulation.data(), 2 * dim, map.data()},
                  Rounding::none,
                  y.data()});
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

// x through a layer norm by the definition.
std::vector<float> normed_rows(const std::vector<float>& x, std::int64_t rows, std::int64_t dim,
                               const Ops::Norm& norm) {
  std::vector<float> y;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = x.data() + r * dim;
    double mean = 0, variance = 0;
    for (std::int64_t c = 0; c < dim; ++c) mean += row[c] / static_cast<double>(dim);
    for (std::int64_t c = 0; c < dim; ++c) variance += (row[c] - mean) * (row[c] - mean) / static_cast<double>(dim);
    for (std::int64_t c = 0; c < dim; ++c) {
      double value = (row[c] - mean) / std::sqrt(variance + norm.eps);
      if (norm.weight != nullptr) value = value * norm.weight[c] + norm.bias[c];
      if (norm.scale != nullptr) {
        const std::int64_t at = (norm.row_map == nullptr ? 0 : norm.row_map[r]) * norm.mod_stride + c;
        value = value * (1.0 + norm.scale[at]) + norm.shift[at];
      }
      y.push_back(static_cast<float>(value));
    }
  }
  return y;
}

// A linear layer with its norm, its gate and its residual against the definition, and, bit by bit, against the single
// operations; with and without packed weights, rounded and not.
void test_fused_linear(CpuOps& ops, const std::string& isa, std::int64_t m, std::int64_t n, std::int64_t k,
                       Rounding rounding) {
  std::vector<float> w = random_values(n * k, 0.3f);
  const std::vector<float> x = random_values(m * k, 3.0f), bias = random_values(n), affine = random_values(2 * k),
                           modulation = random_values(2 * 3 * k), gate = random_values(2 * 5 * n),
                           before = random_values(m * n);
  std::vector<std::int32_t> map;
  for (std::int64_t r = 0; r < m; ++r) map.push_back(static_cast<std::int32_t>(r * 7 % 3 % 2));
  const Ops::Norm norms[] = {
      {1e-6f, affine.data(), affine.data() + k, nullptr, nullptr, 0, nullptr},
      {1e-6f, nullptr, nullptr, modulation.data() + k, modulation.data(), 3 * k, map.data()},
      {1e-6f, affine.data(), affine.data() + k, modulation.data(), modulation.data() + k, 0, nullptr}};
  Matrix plain{w.data(), Dtype::f32, n, k}, packed = plain;
  ops.prepare(&packed, Rounding::none);
  tap::ok(packed.prepared != nullptr, isa + ": the weight is packed");
  double worst = 0;
  bool is_same = true;
  for (int variant = 0; variant < 12; ++variant) {
    Ops::FusedLinear args;
    args.x = x.data();
    args.m = m;
    args.ldx = k;
    args.norm = variant % 4 == 3 ? nullptr : &norms[variant % 4];
    args.w = variant % 2 == 0 ? &packed : &plain;
    args.bias = bias.data();
    args.act = variant % 3 == 0 ? Activation::gelu_tanh : Activation::none;
    args.rounding = rounding;
    args.is_residual = variant >= 4;
    args.gate = variant >= 8 ? gate.data() : nullptr;
    args.gate_stride = 5 * n;
    args.row_map = map.data();
    std::vector<float> y(before), apart(before), z(y.size()), input(x), expected;
    args.y = y.data();
    args.ldy = n;
    ops.fused_linear(args);
    if (args.norm != nullptr) ops.layer_norm({x.data(), m, k, *args.norm, rounding, input.data()});
    ops.linear(input.data(), m, k, *args.w, bias.data(), args.act, rounding, z.data(), n);
    if (args.is_residual)
      ops.add_gated(apart.data(), z.data(), m, n, args.gate, args.gate_stride, args.row_map, rounding);
    else
      apart = z;
    is_same = is_same && y == apart;
    const std::vector<float> exact = args.norm == nullptr ? x : normed_rows(x, m, k, *args.norm);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = bias[static_cast<std::size_t>(j)];
        for (std::int64_t p = 0; p < k; ++p)
          sum +=
              static_cast<double>(exact[static_cast<std::size_t>(i * k + p)]) * w[static_cast<std::size_t>(j * k + p)];
        sum = activate(sum, args.act);
        if (args.gate != nullptr) sum *= gate[static_cast<std::size_t>(map[static_cast<std::size_t>(i)] * 5 * n + j)];
        if (args.is_residual) sum += before[static_cast<std::size_t>(i * n + j)];
        expected.push_back(static_cast<float>(sum));
      }
    worst = std::max(worst, golden::relative_rms(y, expected));
  }
  const std::string name = isa + " fused linear " + std::to_string(m) + "x" + std::to_string(n) + "x" +
                           std::to_string(k) + (rounding == Rounding::bf16 ? ", rounded" : "");
  tap::is_near(worst, 0, rounding == Rounding::bf16 ? 1e-2 : 2e-6, name + " as defined");
  tap::ok(is_same, name + ": the same bits as the single operations");
}

// Norm, rotation and cache in one, bit by bit as the single operations, and the rotation against its definition.
void test_cache_heads(CpuOps& ops, const std::string& isa, std::int64_t heads, std::int64_t head_dim, Dtype dtype,
                      Rounding rounding) {
  const std::int64_t rows = 11, inner = heads * head_dim, ld = 3 * inner, capacity = 17;
  std::vector<std::int32_t> slots;
  for (std::int64_t r = 0; r < rows; ++r) slots.push_back(static_cast<std::int32_t>((r * 5 + 3) % capacity));
  const std::vector<float> x = random_values(rows * ld, 2.0f), norm_q = random_values(inner),
                           norm_k = random_values(inner), angles = random_values(rows * head_dim / 2, 2.0f);
  std::vector<float> cos, sin;
  for (const float angle : angles) cos.push_back(std::cos(angle)), sin.push_back(std::sin(angle));
  const KvLayout layout{heads, kv_rows(capacity), head_dim, dtype};
  std::vector<float> fused(x), apart(x);
  std::vector<std::byte> keys(static_cast<std::size_t>(layout.key_bytes())),
      values(static_cast<std::size_t>(layout.value_bytes())), keys_apart(keys), values_apart(values);
  Ops::HeadRows args;
  args.q = fused.data();
  args.k = fused.data() + inner;
  args.v = fused.data() + 2 * inner;
  args.rows = rows;
  args.heads = heads;
  args.head_dim = head_dim;
  args.ld = ld;
  args.eps = 1e-6f;
  args.norm_q = norm_q.data();
  args.norm_k = norm_k.data();
  args.cos = cos.data();
  args.sin = sin.data();
  args.k_plane = keys.data();
  args.v_plane = values.data();
  args.dtype = dtype;
  args.plane_rows = layout.rows;
  args.slots = slots.data();
  args.rounding = rounding;
  ops.cache_heads(args);
  for (const auto& [at, weight] : {std::pair{std::int64_t{0}, &norm_q}, {inner, &norm_k}}) {
    ops.rms_norm(apart.data() + at, rows, inner, ld, 1e-6f, weight->data(), rounding);
    std::vector<float> normed(apart);
    ops.rope(apart.data() + at, rows, heads, head_dim, ld, cos.data(), sin.data(), rounding);
    if (rounding == Rounding::bf16) continue;
    bool is_exact = true;
    for (std::int64_t i = 0; i < rows * inner / 2; ++i) {
      const std::int64_t r = i / (inner / 2), pair = i % (inner / 2), from = r * ld + at + 2 * pair;
      const auto angle = static_cast<std::size_t>(r * head_dim / 2 + pair % (head_dim / 2));
      const auto value = [&](std::int64_t j) { return static_cast<double>(normed[static_cast<std::size_t>(j)]); };
      const double c = cos[angle], s = sin[angle];
      is_exact = is_exact &&
                 apart[static_cast<std::size_t>(from)] == static_cast<float>(value(from) * c - value(from + 1) * s) &&
                 apart[static_cast<std::size_t>(from + 1)] == static_cast<float>(value(from) * s + value(from + 1) * c);
    }
    tap::ok(is_exact, isa + " rotation in float64, every bit, head_dim " + std::to_string(head_dim));
  }
  ops.store_kv({apart.data() + inner, apart.data() + 2 * inner, rows, heads, head_dim, ld, keys_apart.data(),
                values_apart.data(), dtype, layout.rows, slots.data()});
  tap::ok(fused == apart && keys == keys_apart && values == values_apart,
          isa + " norm, rotation and cache in one: the same bits, head_dim " + std::to_string(head_dim));
}

// Residuals and the autoencoder's norm, on widths with and without a rest, against their definitions.
void test_rows(CpuOps& ops, const std::string& isa) {
  for (const std::int64_t dim : {1, 5, 16, 75, 192}) {
    const std::int64_t rows = 300;
    const std::vector<float> h = random_values(rows * dim), a = random_values(rows * dim),
                             gate = random_values(2 * dim);
    std::vector<float> plain(h), gated(h), rounded(h), norm(h.size()), silu(h.size()), expected[4];
    std::vector<std::int32_t> map;
    for (std::int64_t r = 0; r < rows; ++r) map.push_back(static_cast<std::int32_t>(r % 2));
    ops.add_gated(plain.data(), a.data(), rows, dim, nullptr, 0, nullptr, Rounding::none);
    ops.add_gated(gated.data(), a.data(), rows, dim, gate.data(), dim, map.data(), Rounding::none);
    ops.add_gated(rounded.data(), a.data(), rows, dim, nullptr, 0, nullptr, Rounding::bf16);
    ops.normalise_channels(h.data(), rows, dim, gate.data(), false, Rounding::none, norm.data());
    ops.normalise_channels(h.data(), rows, dim, gate.data(), true, Rounding::none, silu.data());
    bool is_rounded = true;
    for (std::int64_t r = 0; r < rows; ++r) {
      double square = 0;
      for (std::int64_t c = 0; c < dim; ++c)
        square +=
            static_cast<double>(h[static_cast<std::size_t>(r * dim + c)]) * h[static_cast<std::size_t>(r * dim + c)];
      for (std::int64_t c = 0; c < dim; ++c) {
        const auto at = static_cast<std::size_t>(r * dim + c);
        const float g = gate[static_cast<std::size_t>(r % 2 * dim + c)];
        expected[0].push_back(h[at] + a[at]);
        expected[1].push_back(static_cast<float>(h[at] + static_cast<double>(a[at]) * g));
        const double v =
            h[at] / std::sqrt(square) * std::sqrt(static_cast<double>(dim)) * gate[static_cast<std::size_t>(c)];
        expected[2].push_back(static_cast<float>(v));
        expected[3].push_back(static_cast<float>(v / (1 + std::exp(-v))));
        is_rounded = is_rounded && rounded[at] == round_to_bf16(h[at] + a[at]);
      }
    }
    const std::string name = isa + ", " + std::to_string(dim) + " wide: ";
    tap::ok(plain == expected[0] && is_rounded, name + "a residual");
    tap::is_near(golden::relative_rms(gated, expected[1]), 0, 1e-7, name + "a gated residual");
    tap::is_near(golden::relative_rms(norm, expected[2]), 0, 1e-6, name + "the autoencoder's norm");
    tap::is_near(golden::relative_rms(silu, expected[3]), 0, 1e-6, name + "the autoencoder's norm with SiLU");
  }
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

// The packed products of the same instruction set.
const PackedKernels& packed_of(const Kernels& kernels) {
  const PackedKernels* tables[kPackedTables];
  const int count = cpu_packed_tables(tables);
  for (int i = 0; i < count; ++i)
    if (std::string(tables[i]->name) == kernels.name) return *tables[i];
  return *tables[0];
}

}  // namespace

int main() {
  std::vector<const Kernels*> tables = {&baseline::kernels()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(&avx2::kernels());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) tables.push_back(&avx512::kernels());
#endif
  for (const Kernels* kernels : tables) {
    CpuOps ops(2, *kernels, packed_of(*kernels));
    test_linear(ops, kernels->name);
    test_norms(ops, kernels->name);
    for (const Rounding rounding : {Rounding::none, Rounding::bf16}) {
      test_fused_linear(ops, kernels->name, 5, 13, 26, rounding);
      test_fused_linear(ops, kernels->name, 31, 101, 300, rounding);  // several blocks of k, a narrow last panel
      test_fused_linear(ops, kernels->name, 200, 64, 192, rounding);  // several threads
      for (const std::int64_t head_dim : {2, 26, 48, 130}) {
        test_cache_heads(ops, kernels->name, 3, head_dim, Dtype::f32, rounding);
        test_cache_heads(ops, kernels->name, 3, head_dim, Dtype::bf16, rounding);
        test_cache_heads(ops, kernels->name, 3, head_dim, Dtype::int8, rounding);
      }
    }
    test_rows(ops, kernels->name);
    test_threads(*kernels);
  }
  test_conversions();
  return tap::finish();
}
