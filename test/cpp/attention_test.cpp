// Attention over cached and over dense keys and values, on every instruction set, against a plain double-precision
// oracle: odd sizes, rows that are not attended, slots in other rows, any number of threads.
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
    return {k.data(), v.data(), layout.dtype, layout.rows, attended.data(), 0, nullptr, 0, last_weight};
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
  // Rounded queries, weights and results: half an ulp of bfloat16 each, 2^-9; queries' errors are multiplied by scores.
  // An int8 cache: a step is 1/127 of a row's largest value, some 3 deviations; its error has an RMS of step /
  // sqrt(12), 0.7 %. Scores of deviation 4 are so off by 0.027, and the weights by as much.
  const double error = golden::relative_rms(y, attention_oracle(a, scale, q, k, v));
  const double rounded = rounding == Rounding::bf16 || dtype != Dtype::f32 ? 8e-3 : 3e-6;
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

// The same slots, some of them in other rows, as in a cache that went through marks: bits must not tell.
void test_moved(CpuOps& ops, const std::string& isa, std::int64_t head_dim, Dtype dtype) {
  const Attention a{19, 2, head_dim, 400, some_slots(400, 6), 1.0f};
  const std::int64_t inner = a.heads * a.head_dim;
  const std::vector<float> q = random_values(a.rows * inner, 2.0f);
  const std::vector<float> k = random_values(a.heads * a.capacity * a.head_dim, 2.0f),
                           v = random_values(a.heads * a.capacity * a.head_dim);
  std::vector<std::vector<float>> results;
  for (const bool is_moved : {false, true}) {
    Attention placed = a;
    placed.capacity = 600;
    std::vector<float> k_placed(static_cast<std::size_t>(a.heads * placed.capacity * head_dim), 7.0f),
        v_placed(k_placed);
    std::vector<MovedSlot> moved;
    for (std::int32_t& slot : placed.attended) {
      const std::int32_t row = is_moved && slot % 7 < 2 ? 400 + slot / 7 * 2 + slot % 7 : slot;
      if (row != slot) moved.push_back({slot, row});
      for (std::int64_t h = 0; h < a.heads; ++h) {
        std::copy_n(k.begin() + (h * a.capacity + slot) * head_dim, head_dim,
                    k_placed.begin() + (h * placed.capacity + row) * head_dim);
        std::copy_n(v.begin() + (h * a.capacity + slot) * head_dim, head_dim,
                    v_placed.begin() + (h * placed.capacity + row) * head_dim);
      }
      slot = row;
    }
    const Planes planes(ops, placed, dtype, k_placed, v_placed);
    CachedView view = planes.view(1.0f);
    std::vector<std::uint32_t> attended(planes.attended.size());
    for (const std::int32_t slot : a.attended) attended[static_cast<std::size_t>(slot / 32)] |= 1u << slot % 32;
    view.attended = attended.data();
    view.moved = moved.data();
    view.moved_count = std::ssize(moved);
    results.emplace_back(q.size());
    ops.cached_attention(
        {q.data(), a.rows, a.heads, a.head_dim, inner, view, 0.2f, Rounding::none, results.back().data(), inner});
  }
  tap::ok(results[0] == results[1],
          isa + " attention has the same bits wherever slots lie, head_dim " + std::to_string(head_dim));
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
      if (dtype != Dtype::int8) test_dense_attention(ops, isa, 7, 26, dtype);
      if (dtype != Dtype::int8) test_dense_attention(ops, isa, 13, 384, dtype);
      test_cuts(cpu_kernels(), *packed[i], dtype);
      for (const std::int64_t head_dim : {26, 48, 128}) test_moved(ops, isa, head_dim, dtype);
    }
  }
  return tap::finish();
}
