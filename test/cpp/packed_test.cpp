// Packed matrix products: the layout byte by byte, every instruction set that this processor has against plain oracles
// on sizes that fit no tile, and the same bits however the work is cut.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "golden.h"
#include "op_values.h"
#include "ops/cpu/packed_linear.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::ops;
using namespace op_values;

namespace {

std::mt19937 generator(11);

constexpr Product kAll[] = {Product::f32, Product::bf16, Product::bf16_dot, Product::int8};
constexpr const char* kNames[] = {"f32", "bf16", "bf16_dot", "int8"};
constexpr PackedPrecision kPrecisions[] = {PackedPrecision::f32, PackedPrecision::bf16, PackedPrecision::int8};

std::vector<float> random_values(std::int64_t count) { return normal_values(generator, count, 1.0f); }

std::vector<float> rounded(std::vector<float> values) {
  for (float& value : values) value = round_to_bf16(value);
  return values;
}

struct Weights {
  std::int64_t n, k;
  std::vector<float> values;  // [n, k]
  Aligned memory;
  PackedMatrix matrix;

  Weights(PackedPrecision precision, std::int64_t outputs, std::int64_t inputs, std::vector<float> given)
      : n(outputs), k(inputs), values(std::move(given)), memory(packed_bytes(precision, n, k)) {
    pack({values.data(), Dtype::f32, n, k}, precision, memory.data());
    matrix = {memory.data(), precision, n, k};
  }
};

struct Epilogue {
  const float* bias = nullptr;
  Activation act = Activation::none;
  Rounding rounding = Rounding::none;
};

// y [m, n] through the driver, with gaps between the rows of x and y that must stay untouched.
std::vector<float> product(ThreadPool& pool, const PackedKernels& kernels, Product how, const std::vector<float>& x,
                           std::int64_t m, const PackedMatrix& w, const Epilogue& epilogue) {
  const std::int64_t ldx = w.k + 3, ldy = w.n + 5;
  std::vector<float> wide_x(static_cast<std::size_t>(m * ldx), NAN), wide_y(static_cast<std::size_t>(m * ldy), 77.0f);
  for (std::int64_t r = 0; r < m; ++r) std::copy_n(x.data() + r * w.k, w.k, wide_x.data() + r * ldx);
  Aligned scratch(packed_scratch_bytes(kernels, how, m, w.k));
  PackedProduct args;
  args.product = how;
  args.m = m;
  args.w = w;
  args.bias = epilogue.bias;
  args.act = epilogue.act;
  args.rounding = epilogue.rounding;
  args.y = wide_y.data();
  args.ldy = ldy;
  packed_linear(pool, kernels, wide_x.data(), ldx, scratch.data(), args);
  std::vector<float> y;
  bool is_clean = true;
  for (std::int64_t r = 0; r < m; ++r) {
    const float* row = wide_y.data() + r * ldy;
    y.insert(y.end(), row, row + w.n);
    for (std::int64_t c = w.n; c < ldy; ++c) is_clean = is_clean && row[c] == 77.0f;
  }
  if (!is_clean) tap::ok(false, std::string(kernels.name) + " writes between the rows of y");
  return y;
}

std::vector<double> exact(const std::vector<float>& x, std::int64_t m, const std::vector<float>& w, std::int64_t n,
                          std::int64_t k) {
  std::vector<double> sums;
  for (std::int64_t r = 0; r < m; ++r)
    for (std::int64_t c = 0; c < n; ++c) {
      double sum = 0;
      for (std::int64_t p = 0; p < k; ++p)
        sum += static_cast<double>(x[static_cast<std::size_t>(r * k + p)]) * w[static_cast<std::size_t>(c * k + p)];
      sums.push_back(sum);
    }
  return sums;
}

void test_layout() {
  tap::ok(packed_bytes(PackedPrecision::f32, 33, 3) == 64 * 3 * 4 &&
              packed_bytes(PackedPrecision::bf16, 32, 3) == 256 &&
              packed_bytes(PackedPrecision::int8, 1, 5) == 32 * (8 + 8),
          "sizes count whole panels, whole units and the scales of int8");
  const std::int64_t n = 37, k = 11;
  const std::vector<float> values = random_values(n * k);
  for (const PackedPrecision precision : kPrecisions) {
    Weights w(precision, n, k, values);
    const std::string name = kNames[precision == PackedPrecision::int8 ? 3 : static_cast<int>(precision)];
    std::vector<float> back(values.size()), expected = values;
    unpack(w.matrix, back.data());
    if (precision == PackedPrecision::bf16) expected = rounded(values);
    double error = 0;
    for (std::size_t i = 0; i < back.size(); ++i) {
      const double step = precision == PackedPrecision::int8 ? packed_scales(w.matrix)[i / k] : 0;
      error = std::max(error, std::abs(static_cast<double>(back[i]) - expected[i]) - 0.50001 * step);
    }
    tap::ok(error <= 0, name + " comes back from its panels");
    // Output 34 lies in the second panel, and value 9 is in unit 9, 4 (high half) or 2 (second byte).
    const std::int64_t units = packed_units(precision, k), unit = packed_unit(precision);
    const unsigned char* at = w.memory.data() + ((units + 9 / unit) * 32 + 2) * 4 + 9 % unit * (4 / unit);
    float value = 0;
    std::uint16_t bits = 0;
    if (unit == 1) std::memcpy(&value, at, 4);
    if (unit == 2) std::memcpy(&bits, at, 2), value = bf16_to_f32(bits);
    if (unit == 4) value = static_cast<float>(static_cast<std::int8_t>(*at)) * packed_scales(w.matrix)[34];
    tap::ok(value == back[34 * k + 9], name + " lies where the layout says");
    const unsigned char* padding = w.memory.data() + (units * 32 + 5) * 4;
    tap::ok(std::all_of(padding, padding + 27 * 4, [](unsigned char byte) { return byte == 0; }),
            name + " is padded with zeros");
    // The same matrix given in bf16 packs to the same bytes as its values in f32.
    std::vector<std::uint16_t> half;
    for (const float v : values) half.push_back(f32_to_bf16(v));
    Weights from_f32(precision, n, k, rounded(values));
    Aligned from_bf16(packed_bytes(precision, n, k));
    pack({half.data(), Dtype::bf16, n, k}, precision, from_bf16.data());
    tap::ok(std::memcmp(from_f32.memory.data(), from_bf16.data(),
                        static_cast<std::size_t>(packed_bytes(precision, n, k))) == 0,
            name + " packs f32 and bf16 weights alike");
  }
}

// The floating products on the values that they multiply. A sum of k products in f32, in blocks of 256, has an error
// near 2^-24 sqrt(256) = 1e-6 of the root of the sum of squares at worst and a third of that in the mean.
void test_floats(ThreadPool& pool, const PackedKernels& kernels, Product how) {
  const std::string name = std::string(kernels.name) + " " + kNames[static_cast<int>(how)];
  const PackedPrecision precision = packed_precision(how);
  for (const auto& [m, n, k] : {std::tuple<std::int64_t, std::int64_t, std::int64_t>{1, 1, 1},
                                {7, 13, 26},
                                {1, 33, 517},
                                {50, 101, 67},
                                {13, 64, 1111},
                                {3, 192, 128}}) {
    const std::vector<float> x = random_values(m * k), bias = random_values(n);
    const Weights w(precision, n, k, random_values(n * k));
    const std::vector<double> sums =
        exact(how == Product::bf16_dot ? rounded(x) : x, m, how == Product::f32 ? w.values : rounded(w.values), n, k);
    for (const Activation act : {Activation::none, Activation::gelu_tanh, Activation::silu}) {
      for (const bool has_bias : {false, true}) {
        std::vector<float> expected;
        for (std::size_t i = 0; i < sums.size(); ++i)
          expected.push_back(
              static_cast<float>(activate(sums[i] + (has_bias ? bias[i % static_cast<std::size_t>(n)] : 0.0f), act)));
        Epilogue epilogue{has_bias ? bias.data() : nullptr, act, Rounding::none};
        const std::vector<float> y = product(pool, kernels, how, x, m, w.matrix, epilogue);
        const std::string what = name + " " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
        tap::ok(golden::relative_rms(y, expected) < 1e-6, what);
        // Rounded, then the activation, then rounded again by half a step of 2^-7 at most; the activation itself is
        // good to some 1e-6 of its argument.
        const std::vector<float> before =
            product(pool, kernels, how, x, m, w.matrix, {epilogue.bias, Activation::none, Rounding::bf16});
        epilogue.rounding = Rounding::bf16;
        const std::vector<float> coarse = product(pool, kernels, how, x, m, w.matrix, epilogue);
        double beyond = -1;
        for (std::size_t i = 0; i < coarse.size(); ++i) {
          const double fine = activate(before[i], act), bound = std::abs(fine) / 256 + 4e-6 * std::abs(before[i]);
          beyond = std::max(beyond, std::abs(coarse[i] - fine) - bound);
          beyond = std::max(beyond, std::abs(before[i] - sums[i] - (has_bias ? bias[i % std::size_t(n)] : 0.0f)) -
                                        std::abs(before[i]) / 200 - 1e-4);
        }
        tap::ok(beyond <= 0 && rounded(coarse) == coarse && rounded(before) == before, what + " rounded");
      }
    }
  }
}

struct Quantised {
  std::vector<std::int32_t> q;  // [rows, k]
  std::vector<float> scales;    // [rows]
};

// Weights are divided by their scale, activations multiplied by its inverse.
Quantised quantise(const std::vector<float>& values, std::int64_t k, bool is_weight) {
  Quantised out;
  for (std::size_t begin = 0; begin < values.size(); begin += static_cast<std::size_t>(k)) {
    float most = 0;
    for (std::int64_t p = 0; p < k; ++p) most = std::max(most, std::abs(values[begin + static_cast<std::size_t>(p)]));
    out.scales.push_back(std::max(most / 127.0f, 1.17549435e-38f));
    for (std::int64_t p = 0; p < k; ++p) {
      const float value = values[begin + static_cast<std::size_t>(p)], scale = out.scales.back();
      out.q.push_back(static_cast<std::int32_t>(std::nearbyint(is_weight ? value / scale : value * (1.0f / scale))));
    }
  }
  return out;
}

void test_int8(ThreadPool& pool, const PackedKernels& kernels) {
  const std::string name = std::string(kernels.name) + " int8";
  for (const auto& [m, n, k] :
       {std::tuple<std::int64_t, std::int64_t, std::int64_t>{1, 1, 1}, {7, 13, 26}, {14, 33, 4099}, {50, 101, 67}}) {
    std::vector<float> x = random_values(m * k);
    if (m > 3) std::fill_n(x.begin() + 2 * k, k, 0.0f);  // a row of zeros has no scale of its own
    const Weights w(PackedPrecision::int8, n, k, random_values(n * k));
    const Quantised qx = quantise(x, k, false), qw = quantise(w.values, k, true);
    const std::vector<float> y = product(pool, kernels, Product::int8, x, m, w.matrix, {});
    const std::vector<double> unquantised = exact(x, m, w.values, n, k);
    std::vector<float> expected;
    double beyond = 0;
    for (std::int64_t r = 0; r < m; ++r)
      for (std::int64_t c = 0; c < n; ++c) {
        std::int32_t sum = 0;
        const double xs = qx.scales[static_cast<std::size_t>(r)], ws = qw.scales[static_cast<std::size_t>(c)];
        double bound = 1e-6;
        for (std::int64_t p = 0; p < k; ++p) {
          const auto at_x = static_cast<std::size_t>(r * k + p), at_w = static_cast<std::size_t>(c * k + p);
          sum += qx.q[at_x] * qw.q[at_w];
          bound += 0.5 * (std::abs(x[at_x]) * ws + std::abs(w.values[at_w]) * xs) + 0.25 * xs * ws;
        }
        expected.push_back(static_cast<float>(sum) *
                           (qw.scales[static_cast<std::size_t>(c)] * qx.scales[static_cast<std::size_t>(r)]));
        beyond = std::max(beyond, std::abs(expected.back() - unquantised[expected.size() - 1]) / bound);
      }
    const std::string what = name + " " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
    tap::ok(same_bits(y, expected), what + " is the integer sum, scaled");
    // Half a step of each factor at worst.
    tap::ok(beyond <= 1.001, what + " stays within half a quantisation step of each factor");
    const std::vector<float> bias = random_values(n);
    std::vector<float> smooth;
    for (std::size_t i = 0; i < expected.size(); ++i)
      smooth.push_back(static_cast<float>(
          activate(static_cast<double>(expected[i]) + bias[i % static_cast<std::size_t>(n)], Activation::gelu_tanh)));
    const Epilogue epilogue{bias.data(), Activation::gelu_tanh, Rounding::none};
    tap::ok(golden::relative_rms(product(pool, kernels, Product::int8, x, m, w.matrix, epilogue), smooth) < 1e-6,
            what + " with bias and GELU");
  }
  // Extreme values: every product at its largest, none may saturate.
  const std::int64_t k = 1000;
  const Weights w(PackedPrecision::int8, 5, k, std::vector<float>(5 * k, -1.0f));
  const std::vector<float> y = product(pool, kernels, Product::int8, std::vector<float>(k, 1.0f), 1, w.matrix, {});
  tap::is_near(y[4], -1000.0, 1e-3, name + " does not saturate");
  std::vector<float> broken(k, 1.0f);
  broken[500] = NAN;
  const std::vector<float> bad = product(pool, kernels, Product::int8, broken, 1, w.matrix, {});
  tap::ok(!std::isfinite(bad[0]) && !std::isfinite(bad[4]), name + " shows an activation that is not finite");
}

// 300 rows are more than one task's; 1100 values of k are several blocks of every precision.
void test_cutting(const PackedKernels& kernels, Product how) {
  const std::string name = std::string(kernels.name) + " " + kNames[static_cast<int>(how)];
  const std::int64_t m = 300, n = 70, k = 1100;
  const std::vector<float> x = random_values(m * k), bias = random_values(n);
  const Weights w(packed_precision(how), n, k, random_values(n * k));
  const Epilogue epilogue{bias.data(), Activation::silu, Rounding::none};
  ThreadPool one(1), two(2), three(3);
  const std::vector<float> y = product(one, kernels, how, x, m, w.matrix, epilogue);
  tap::ok(same_bits(y, product(two, kernels, how, x, m, w.matrix, epilogue)) &&
              same_bits(y, product(three, kernels, how, x, m, w.matrix, epilogue)),
          name + " gives the same bits on 1, 2 and 3 threads");
  for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 32, 47}) {
    bool is_same = true;
    for (std::int64_t begin = 0; begin + rows <= m; begin += 83) {
      const std::vector<float> part(x.begin() + begin * k, x.begin() + (begin + rows) * k);
      const std::vector<float> got = product(one, kernels, how, part, rows, w.matrix, epilogue);
      is_same = is_same && std::memcmp(got.data(), y.data() + begin * n, got.size() * sizeof(float)) == 0;
    }
    tap::ok(is_same, name + " gives the same bits in " + std::to_string(rows) + " rows as in 300");
  }
  // The same outputs at other places of other panels.
  const Weights shifted(packed_precision(how), n - 21, k,
                        std::vector<float>(w.values.begin() + 21 * k, w.values.end()));
  const Epilogue moved{bias.data() + 21, Activation::silu, Rounding::none};
  const std::vector<float> z = product(one, kernels, how, x, m, shifted.matrix, moved);
  bool is_same = true;
  for (std::int64_t r = 0; r < m; ++r)
    is_same = is_same && std::memcmp(z.data() + r * (n - 21), y.data() + r * n + 21,
                                     static_cast<std::size_t>(n - 21) * sizeof(float)) == 0;
  tap::ok(is_same, name + " gives the same bits wherever an output lies in its panel");
}

}  // namespace

int main() {
  test_layout();
  const PackedKernels* tables[kPackedTables];
  const int count = cpu_packed_tables(tables);
  ThreadPool pool(2);
  for (int i = 0; i < count; ++i) {
    std::string own;
    for (const Product how : kAll)
      if (tables[i]->is_native[static_cast<std::size_t>(how)])
        own += std::string(" ") + kNames[static_cast<std::size_t>(how)];
    tap::note(std::string(tables[i]->name) + ", with instructions of its own for" + own);
    for (const Product how : {Product::f32, Product::bf16, Product::bf16_dot}) test_floats(pool, *tables[i], how);
    test_int8(pool, *tables[i]);
    for (const Product how : kAll) test_cutting(*tables[i], how);
  }
  const PackedKernels* best = &cpu_packed_kernels();
  tap::ok(std::find(tables, tables + count, best) != tables + count,
          "the chosen table is one that this processor runs");
  // Given where the processor is known because it is emulated (test/aarch64.test.ts).
  const char* expected = std::getenv("PREMOTOR_EXPECTED_LEVEL");
  if (expected != nullptr)
    tap::ok(std::string(expected) == tables[count - 1]->name,
            std::string("the best level is ") + expected + ", found " + tables[count - 1]->name);
  return tap::finish();
}
