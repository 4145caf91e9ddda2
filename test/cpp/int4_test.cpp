// Weights of 4 bits: the layout nibble by nibble, the search for a group's scale against plain rounding, every
// instruction set against an exact oracle on sizes that fit no tile or group, and the same bits however work is cut.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "golden.h"
#include "op_values.h"
#include "ops/cpu/int4.h"
#include "ops/cpu/packed_linear.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::ops;
using namespace op_values;

namespace {

std::mt19937 generator(12);
constexpr std::int64_t kGroups[] = {32, 64, 128};

std::vector<float> random_values(std::int64_t count) { return normal_values(generator, count, 1.0f); }

struct Weights {
  std::int64_t n, k;
  std::vector<float> values, stands_for;  // [n, k]
  Aligned memory;
  PackedMatrix matrix;

  Weights(std::int64_t outputs, std::int64_t inputs, std::int64_t group, std::vector<float> given)
      : n(outputs),
        k(inputs),
        values(std::move(given)),
        stands_for(values.size()),
        memory(packed_bytes(PackedPrecision::int4, n, k, group)) {
    pack({values.data(), Dtype::f32, n, k}, PackedPrecision::int4, memory.data(), group);
    matrix = {memory.data(), PackedPrecision::int4, n, k, group};
    unpack(matrix, stands_for.data());
  }
};

// y [m, n], with gaps between the rows of x and y that must stay untouched.
std::vector<float> product(ThreadPool& pool, const PackedKernels& kernels, const std::vector<float>& x, std::int64_t m,
                           const PackedMatrix& w, const float* bias = nullptr, Activation act = Activation::none) {
  const std::int64_t ldx = w.k + 3, ldy = w.n + 5;
  std::vector<float> wide_x(static_cast<std::size_t>(m * ldx), NAN), wide_y(static_cast<std::size_t>(m * ldy), 77.0f);
  for (std::int64_t r = 0; r < m; ++r) std::copy_n(x.data() + r * w.k, w.k, wide_x.data() + r * ldx);
  Aligned scratch(packed_scratch_bytes(kernels, Product::int4, m, w.k));
  PackedProduct args;
  args.product = Product::int4;
  args.m = m;
  args.w = w;
  args.bias = bias;
  args.act = act;
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

void test_layout() {
  tap::ok(packed_bytes(PackedPrecision::int4, 33, 70, 32) == 64 * (4 * 9 + 2 * 3) &&
              packed_bytes(PackedPrecision::int4, 32, 128, 128) == 32 * (4 * 16 + 2),
          "sizes count whole panels, whole units and the scales of every group, the short one too");
  // Whole numbers up to 7 in every group are their own 4-bit values with scale 1 or 0.5, say: exact either way.
  const std::int64_t n = 35, k = 70, group = 32;
  std::vector<float> values(static_cast<std::size_t>(n * k));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7 % 15) - 7.0f;
  Weights w(n, k, group, values);
  tap::ok(w.stands_for == values, "values that 4 bits hold come back unchanged");
  // Value 45 of output 33: panel 1, group 1 (its values 32 .. 63), unit 1 of the group, place 5: bits 24 .. 27.
  const unsigned char* at = w.memory.data() + int4_panel_bytes(k, group) + int4_group_bytes(group);
  std::uint16_t scale;
  std::uint32_t unit;
  std::memcpy(&scale, at + 2 * 1, 2);
  std::memcpy(&unit, at + 64 + (1 * 32 + 1) * 4, 4);
  const int q = static_cast<int>(unit << 4) >> 28;
  tap::ok(static_cast<float>(q) * bf16_to_f32(scale) == values[33 * 70 + 45], "a value lies where the layout says");
  const unsigned char* last = w.memory.data() + int4_panel_bytes(k, group) + 2 * int4_group_bytes(group) + 64;
  std::memcpy(&unit, last + 4, 4);
  tap::ok((unit & 0xf000f000u) == 0 && (unit & 0x0fff0fffu) != 0, "k is padded to whole units with zeros");
  const unsigned char* padding = w.memory.data() + int4_panel_bytes(k, group) + 2 * 3;
  tap::ok(std::all_of(padding, padding + 29 * 2, [](unsigned char byte) { return byte == 0; }),
          "outputs that pad the panel have scale 0");
  std::vector<std::uint16_t> half;
  for (const float v : values) half.push_back(f32_to_bf16(v));
  Aligned from_bf16(packed_bytes(PackedPrecision::int4, n, k, group));
  pack({half.data(), Dtype::bf16, n, k}, PackedPrecision::int4, from_bf16.data(), group);
  tap::ok(std::memcmp(w.memory.data(), from_bf16.data(),
                      static_cast<std::size_t>(packed_bytes(PackedPrecision::int4, n, k, group))) == 0,
          "f32 and bf16 weights pack alike");
}

double error_of(const std::vector<float>& w, const Int4Group& group, const std::vector<std::int8_t>& q) {
  double error = 0;
  for (std::size_t i = 0; i < w.size(); ++i)
    error += std::pow(static_cast<double>(w[i]) - static_cast<double>(group.scale) * q[i], 2);
  return error;
}

void test_rounding() {
  for (const std::int64_t group : kGroups) {
    double plain_sum = 0, searched_sum = 0, size = 0;
    bool is_never_worse = true, is_honest = true, is_bf16 = true;
    for (int i = 0; i < 2000; ++i) {
      std::vector<float> w = random_values(i % 10 == 0 ? 1 + i % group : group);
      const float spread = std::exp2(static_cast<float>(i % 40) - 20.0f);
      for (float& value : w) value *= spread;
      if (i % 7 == 0) w[0] = 9.0f * spread;  // an outlier, which takes the range from the others
      std::vector<std::int8_t> a(w.size()), b(w.size());
      const auto count = std::ssize(w);
      const Int4Group plain = round_int4(w.data(), count, Int4Rounding::plain, a.data());
      const Int4Group best = round_int4(w.data(), count, Int4Rounding::searched, b.data());
      is_never_worse = is_never_worse && best.error <= plain.error;
      is_honest = is_honest && std::abs(error_of(w, best, b) - best.error) <= 1e-6 * best.error + 1e-30;
      is_bf16 = is_bf16 && round_to_bf16(best.scale) == best.scale &&
                std::all_of(b.begin(), b.end(), [](std::int8_t q) { return q >= -8 && q <= 7; });
      plain_sum += plain.error / (spread * spread);
      searched_sum += best.error / (spread * spread);
      for (const float value : w) size += std::pow(static_cast<double>(value) / spread, 2);
    }
    const std::string name = "group " + std::to_string(group);
    tap::ok(is_never_worse, name + ": the search is never worse than plain rounding");
    tap::ok(is_honest, name + ": the error is that of the values it gives");
    tap::ok(is_bf16, name + ": scales are bf16 values, and q has four bits");
    // Of normal values: the search takes a fifth to a quarter off the squared error. A tenth is asked for.
    tap::ok(searched_sum < 0.9 * plain_sum, name + ": and better by far on normal values");
    tap::note(name + ": relative error " + std::to_string(std::sqrt(plain_sum / size)) + " plain, " +
              std::to_string(std::sqrt(searched_sum / size)) + " searched");
  }
  std::int8_t q[3] = {1, 1, 1};
  const float zeros[3] = {0, 0, 0}, tiny[3] = {1e-40f, -1e-40f, 0}, one[1] = {-0.3f};
  const Int4Group none = round_int4(zeros, 3, Int4Rounding::searched, q);
  tap::ok(none.scale == 0.0f && q[0] == 0 && none.error == 0, "a group of zeros stays zero");
  tap::ok(round_int4(tiny, 3, Int4Rounding::searched, q).scale == 0.0f && q[1] == 0,
          "a group below the normal numbers is zero");
  const Int4Group single = round_int4(one, 1, Int4Rounding::searched, q);
  tap::is_near(single.scale * static_cast<float>(q[0]), -0.3, 0.3 / 256, "a single value keeps a bf16's precision");
}

// An f32 sum in groups has an error near 1e-7 of the root of the sum of squares; activations are rounded before.
void test_products(ThreadPool& pool, const PackedKernels& kernels) {
  for (const std::int64_t group : kGroups)
    for (const auto& [m, n, k] : {std::tuple<std::int64_t, std::int64_t, std::int64_t>{1, 1, 1},
                                  {7, 13, 26},
                                  {1, 33, 517},
                                  {50, 101, 67},
                                  {13, 64, 1111},
                                  {3, 192, 128},
                                  {40, 40, 300}}) {
      std::vector<float> x = random_values(m * k), bias = random_values(n);
      const Weights w(n, k, group, random_values(n * k));
      std::vector<float> expected, smooth;
      for (std::int64_t r = 0; r < m; ++r)
        for (std::int64_t c = 0; c < n; ++c) {
          double sum = 0;
          for (std::int64_t p = 0; p < k; ++p)
            sum += static_cast<double>(round_to_bf16(x[static_cast<std::size_t>(r * k + p)])) *
                   w.stands_for[static_cast<std::size_t>(c * k + p)];
          expected.push_back(static_cast<float>(sum));
          const double v = sum + bias[static_cast<std::size_t>(c)];
          smooth.push_back(static_cast<float>(v / (1.0 + std::exp(-v))));
        }
      const std::string what = std::string(kernels.name) + " int4 group " + std::to_string(group) + " " +
                               std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
      tap::ok(golden::relative_rms(product(pool, kernels, x, m, w.matrix), expected) < 1e-6, what);
      tap::ok(
          golden::relative_rms(product(pool, kernels, x, m, w.matrix, bias.data(), Activation::silu), smooth) < 1e-6,
          what + " with bias and SiLU");
      x[static_cast<std::size_t>(k / 2)] = NAN;
      const std::vector<float> bad = product(pool, kernels, x, m, w.matrix);
      tap::ok(!std::isfinite(bad[0]) && (m == 1 || std::isfinite(bad.back())),
              what + " shows an activation that is not finite, in its row alone");
    }
}

// 300 rows are more than one task's; 1100 values of k are several blocks with a short last group.
void test_cutting(const PackedKernels& kernels, std::int64_t group) {
  const std::string name = std::string(kernels.name) + " int4 group " + std::to_string(group);
  const std::int64_t m = 300, n = 70, k = 1100;
  const std::vector<float> x = random_values(m * k), bias = random_values(n);
  const Weights w(n, k, group, random_values(n * k));
  ThreadPool one(1), two(2), three(3);
  const std::vector<float> y = product(one, kernels, x, m, w.matrix, bias.data(), Activation::silu);
  tap::ok(same_bits(y, product(two, kernels, x, m, w.matrix, bias.data(), Activation::silu)) &&
              same_bits(y, product(three, kernels, x, m, w.matrix, bias.data(), Activation::silu)),
          name + " gives the same bits on 1, 2 and 3 threads");
  for (const std::int64_t rows : {1, 5, 9, 16, 32, 47}) {
    bool is_same = true;
    for (std::int64_t begin = 0; begin + rows <= m; begin += 41) {
      const std::vector<float> part(x.begin() + begin * k, x.begin() + (begin + rows) * k);
      const std::vector<float> got = product(one, kernels, part, rows, w.matrix, bias.data(), Activation::silu);
      is_same = is_same && std::memcmp(got.data(), y.data() + begin * n, got.size() * sizeof(float)) == 0;
    }
    tap::ok(is_same, name + " gives the same bits in " + std::to_string(rows) + " rows as in 300");
  }
  const Weights shifted(n - 21, k, group, std::vector<float>(w.values.begin() + 21 * k, w.values.end()));
  const std::vector<float> z = product(one, kernels, x, m, shifted.matrix, bias.data() + 21, Activation::silu);
  bool is_same = true;
  for (std::int64_t r = 0; r < m; ++r)
    is_same = is_same && std::memcmp(z.data() + r * (n - 21), y.data() + r * n + 21,
                                     static_cast<std::size_t>(n - 21) * sizeof(float)) == 0;
  tap::ok(is_same, name + " gives the same bits wherever an output lies in its panel");
}

}  // namespace

int main() {
  test_layout();
  test_rounding();
  const PackedKernels* tables[kPackedTables];
  const int count = cpu_packed_tables(tables);
  ThreadPool pool(2);
  for (int i = 0; i < count; ++i) {
    test_products(pool, *tables[i]);
    for (const std::int64_t group : kGroups) test_cutting(*tables[i], group);
  }
  return tap::finish();
}
