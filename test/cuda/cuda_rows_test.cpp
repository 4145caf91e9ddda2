// The kernels with one block per row (layer_norm_modulate, quantise_rows, cache_heads) on the host's machine against
// the CPU backend, on odd widths, in several orders of threads.
#include <algorithm>
#include <limits>

#include "cuda/ops.h"
#include "device_values.h"
#include "ops/kv_layout.h"

using namespace premotor;
using namespace premotor::cuda;
using namespace device_values;

namespace {

std::mt19937 generator(11);

struct NormCase {
  std::int64_t rows, dim;
  bool is_affine, is_modulated, is_quantised;
};

void test_layer_norm(ops::CpuOps& cpu, const NormCase& c) {
  const std::int64_t ld = round_up(c.dim, 8), mod_stride = 3 * round_up(c.dim, 4), ldq = round_up(c.dim, 16);
  const std::vector<float> x = normal_bf16(generator, c.rows * c.dim, 3.0f), weight = normal(generator, c.dim),
                           bias = normal(generator, c.dim), modulation = normal(generator, 2 * mod_stride);
  std::vector<std::int32_t> map;
  for (std::int64_t r = 0; r < c.rows; ++r) map.push_back(static_cast<std::int32_t>(r * 7 % 3 % 2));
  const std::int64_t shift_at = round_up(c.dim, 4);
  ops::Ops::Norm norm{1e-6f, nullptr, nullptr, nullptr, nullptr, mod_stride, map.data()};
  const DeviceArray<float> d_weight(weight), d_bias(bias), d_modulation(modulation);
  const DeviceArray<std::int32_t> d_map(map);
  LayerNormModulate a;
  a.norm = {1e-6f, nullptr, nullptr, nullptr, nullptr, mod_stride, d_map.data()};
  if (c.is_affine) {
    norm.weight = weight.data(), norm.bias = bias.data();
    a.norm.weight = d_weight.data(), a.norm.bias = d_bias.data();
  }
  if (c.is_modulated) {
    norm.scale = modulation.data(), norm.shift = modulation.data() + shift_at;
    a.norm.scale = d_modulation.data(), a.norm.shift = d_modulation.data() + shift_at;
  }
  std::vector<float> expected(x.size());
  cpu.layer_norm({x.data(), c.rows, c.dim, norm, ops::Rounding::bf16, expected.data()});
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const Bf16Matrix dx(x, c.rows, c.dim, ld);
    const Bf16Matrix dy(c.rows, c.dim, ld);
    const DeviceArray<std::int8_t> quantised(c.rows * ldq);
    const DeviceArray<float> scales(c.rows);
    a.x = dx.bits.data(), a.rows = c.rows, a.dim = c.dim, a.ldx = ld;
    a.y = dy.bits.data(), a.ldy = ld;
    if (c.is_quantised) a.quantised = quantised.data(), a.ldq = ldq, a.scales = scales.data();
    const Outcome outcome = settle(layer_norm_modulate(a, nullptr));
    const std::string name = "layer norm " + std::to_string(c.rows) + "x" + std::to_string(c.dim);
    expect_close(name, outcome, dy.values(), expected, 1e-2, 0.005);
    tap::ok(dy.is_clean(), name + " writes its columns only");
    if (!c.is_quantised) continue;
    const std::vector<float> y = dy.values();
    bool is_right = true;
    for (std::int64_t r = 0; r < c.rows; ++r) {
      float most = 0;
      for (std::int64_t i = 0; i < c.dim; ++i)
        most = std::max(most, std::abs(y[static_cast<std::size_t>(r * c.dim + i)]));
      is_right = is_right && scales[r] == most / 127.0f;
      for (std::int64_t i = 0; i < ldq; ++i) {
        const float wanted = i < c.dim ? y[static_cast<std::size_t>(r * c.dim + i)] / scales[r] : 0.0f;
        is_right = is_right && std::abs(static_cast<float>(quantised[r * ldq + i]) - wanted) <= 0.5001f;
      }
    }
    tap::ok(is_right, name + " quantised to the nearest, zeros behind");
  }
}

void test_norm_not_finite() {
  std::vector<float> x(3 * 40, 1.0f);
  x[46] = INFINITY;
  for (std::size_t i = 0; i < x.size(); i += 3) x[i] = 2.0f;
  const Bf16Matrix dx(x, 3, 40, 40);
  const DeviceArray<std::int8_t> quantised(3 * 48);
  const DeviceArray<float> scales(3);
  LayerNormModulate a;
  a.x = dx.bits.data(), a.rows = 3, a.dim = 40, a.ldx = 40;
  a.quantised = quantised.data(), a.ldq = 48, a.scales = scales.data();
  tap::ok(settle(layer_norm_modulate(a, nullptr)) == Outcome::launched && std::isfinite(scales[0]) &&
              std::isnan(scales[1]) && std::isfinite(scales[2]),
          "a quantised row that is not finite has a scale that is none");
}

void test_norm_refusals() {
  const Bf16Matrix x(4, 40, 40);
  LayerNormModulate a;
  a.x = a.y = x.bits.data(), a.rows = 4, a.dim = 40, a.ldx = a.ldy = 40;
  a.y = const_cast<std::uint16_t*>(a.x);
  const auto with = [&](auto change) {
    LayerNormModulate b = a;
    change(b);
    return layer_norm_modulate(b, nullptr);
  };
  tap::ok(with([](auto& b) { b.rows = 0; }) == Outcome::launched, "no rows is nothing to do");
  tap::ok(with([](auto& b) { b.dim = 0; }) == Outcome::bad_shape, "a row without values is refused");
  tap::ok(with([](auto& b) { b.ldx = 36; }) == Outcome::bad_shape, "a stride below the width is refused");
  tap::ok(with([](auto& b) { b.ldx = 42; }) == Outcome::misaligned, "a stride off the boundary is refused");
  tap::ok(with([](auto& b) { b.x += 1; }) == Outcome::misaligned, "a pointer off the boundary is refused");
  tap::ok(with([](auto& b) { b.y = nullptr; }) == Outcome::bad_shape, "nothing to write is refused");
}

void test_quantise_rows(std::int64_t rows, std::int64_t dim) {
  const std::int64_t ld = round_up(dim, 8) + 8, ldq = round_up(dim, 16) + 16;
  std::vector<float> x = normal_bf16(generator, rows * dim, 3.0f);
  for (std::int64_t i = 0; i < dim; ++i) x[static_cast<std::size_t>(i)] = 0;
  const bool has_infinity = rows > 2 && dim > 1;
  if (has_infinity) x[static_cast<std::size_t>(2 * dim + 1)] = -INFINITY;
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const Bf16Matrix dx(x, rows, dim, ld);
    const DeviceArray<std::int8_t> quantised(rows * ldq);
    const DeviceArray<float> scales(rows);
    const Outcome outcome =
        settle(quantise_rows({dx.bits.data(), rows, dim, ld, quantised.data(), ldq, scales.data()}, nullptr));
    bool is_right = outcome == Outcome::launched;
    for (std::int64_t r = 0; r < rows; ++r) {
      if (has_infinity && r == 2) {
        is_right = is_right && std::isnan(scales[r]);
        continue;
      }
      float most = std::numeric_limits<float>::min() * 127.0f;
      for (std::int64_t i = 0; i < dim; ++i) most = std::max(most, std::abs(x[static_cast<std::size_t>(r * dim + i)]));
      is_right = is_right && scales[r] == most / 127.0f;
      for (std::int64_t i = 0; i < ldq; ++i) {
        const float wanted = i < dim ? x[static_cast<std::size_t>(r * dim + i)] / scales[r] : 0.0f;
        is_right = is_right && std::abs(static_cast<float>(quantised[r * ldq + i]) - wanted) <= 0.5001f;
      }
    }
    tap::ok(is_right, "rows of " + std::to_string(dim) + " to the nearest, zeros behind, none of what is not finite");
  }
}

void test_quantise_refusals() {
  const Bf16Matrix x(4, 40, 40);
  const DeviceArray<std::int8_t> quantised(4 * 48);
  const DeviceArray<float> scales(4);
  const QuantiseRows a{x.bits.data(), 4, 40, 40, quantised.data(), 48, scales.data()};
  const auto with = [&](auto change) {
    QuantiseRows b = a;
    change(b);
    return quantise_rows(b, nullptr);
  };
  tap::ok(with([](auto& b) { b.rows = 0; }) == Outcome::launched, "no rows is nothing to quantise");
  tap::ok(with([](auto& b) { b.dim = 0; }) == Outcome::bad_shape, "rows without values are refused");
  tap::ok(with([](auto& b) { b.ldq = 32; }) == Outcome::bad_shape, "a stride below the width is refused");
  tap::ok(with([](auto& b) { b.scales = nullptr; }) == Outcome::bad_shape, "no place for scales is refused");
  tap::ok(with([](auto& b) { b.ldq = 40; }) == Outcome::misaligned, "int8 rows off their boundary are refused");
  tap::ok(with([](auto& b) { b.x += 1; }) == Outcome::misaligned, "rows off their boundary are refused");
}

constexpr std::int64_t kPlaneRows = 64;

struct HeadsCase {
  std::int64_t rows, heads;
  int batch;
  bool has_q, has_k, is_turned;
};

// Random distinct rows of a cache.
std::vector<std::int32_t> some_rows(std::int64_t count, std::int64_t of) {
  std::vector<std::int32_t> rows;
  for (std::int32_t i = 0; i < of; ++i) rows.push_back(i);
  std::shuffle(rows.begin(), rows.end(), generator);
  rows.resize(static_cast<std::size_t>(count));
  return rows;
}

// What the CPU's cache holds of a row and head.
float cached(const ops::KvLayout& l, const std::vector<std::uint16_t>& plane, bool is_key, std::int64_t head,
             std::int64_t row, std::int64_t d) {
  return bf16_to_f32(plane[static_cast<std::size_t>(is_key ? l.key_at(head, row, d) : l.value_at(head, row, d))]);
}

struct HeadsOperands {
  std::int64_t inner, ld;
  std::vector<float> qkv, norm_q, norm_k, cos, sin;
  std::vector<std::int32_t> slots;

  explicit HeadsOperands(const HeadsCase& c)
      : inner(c.heads * 128),
        ld(3 * inner + 8),
        qkv(normal_bf16(generator, c.rows * c.batch * ld, 2.0f)),
        norm_q(normal(generator, inner)),
        norm_k(normal(generator, inner)),
        slots(some_rows(c.rows, kPlaneRows)) {
    for (const float angle : normal(generator, c.rows * 64, 2.0f)) {
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
  }
};

struct HeadsResult {
  std::vector<float> q, kv;  // kv: [batch, k or v, head, slot, 128], the rows of `slots`
};

HeadsResult heads_by_cpu(ops::CpuOps& cpu, const HeadsCase& c, const HeadsOperands& o) {
  const ops::KvLayout layout{c.heads, kPlaneRows, 128, ops::Dtype::bf16};
  std::vector<float> apart(o.qkv);
  HeadsResult expected;
  for (int b = 0; b < c.batch; ++b) {
    std::vector<std::uint16_t> keys(static_cast<std::size_t>(layout.key_bytes() / 2)), values(keys.size());
    float* q = apart.data() + b * c.rows * o.ld;
    cpu.cache_heads({q, q + o.inner, q + 2 * o.inner, c.rows, c.heads, 128, o.ld, 1e-6f, o.norm_q.data(),
                     o.norm_k.data(), c.is_turned ? o.cos.data() : nullptr, c.is_turned ? o.sin.data() : nullptr,
                     keys.data(), values.data(), ops::Dtype::bf16, kPlaneRows, o.slots.data(), ops::Rounding::bf16});
    for (std::int64_t r = 0; r < c.rows; ++r) expected.q.insert(expected.q.end(), q + r * o.ld, q + r * o.ld + o.inner);
    for (const bool is_key : {true, false})
      for (std::int64_t h = 0; h < c.heads; ++h)
        for (const std::int32_t slot : o.slots)
          for (std::int64_t d = 0; d < 128; ++d)
            expected.kv.push_back(cached(layout, is_key ? keys : values, is_key, h, slot, d));
  }
  return expected;
}

void run_cache_heads(const HeadsCase& c, const HeadsOperands& o, const HeadsResult& expected) {
  const std::int64_t all = c.rows * c.batch;
  const DeviceArray<float> norm_q(o.norm_q), norm_k(o.norm_k), cos(o.cos), sin(o.sin);
  const DeviceArray<std::int32_t> slots(o.slots);
  const Bf16Matrix qkv(o.qkv, all, o.ld, o.ld);
  std::vector<DeviceArray<std::uint16_t>> planes;
  for (int i = 0; i < 2 * c.batch; ++i) planes.emplace_back(c.heads * kPlaneRows * 128);
  CacheHeads a;
  if (c.has_q) a.q = qkv.bits.data();
  if (c.has_k) a.k = qkv.bits.data() + o.inner, a.v = qkv.bits.data() + 2 * o.inner, a.slots = slots.data();
  a.rows = c.rows, a.batch = c.batch, a.heads = c.heads, a.ld = o.ld, a.eps = 1e-6f, a.plane_rows = kPlaneRows;
  a.norm_width = c.heads * 128;
  a.norm_q = norm_q.data(), a.norm_k = norm_k.data();
  if (c.is_turned) a.cos = cos.data(), a.sin = sin.data();
  for (int b = 0; b < c.batch; ++b)
    a.cache[b] = {planes[static_cast<std::size_t>(2 * b)].data(), planes[static_cast<std::size_t>(2 * b + 1)].data()};
  const Outcome outcome = settle(cache_heads(a, nullptr));
  HeadsResult found;
  std::int64_t written = 0;
  for (std::int64_t r = 0; r < all; ++r)
    for (std::int64_t i = 0; i < o.inner; ++i) found.q.push_back(bf16_to_f32(qkv.bits[r * o.ld + i]));
  for (const DeviceArray<std::uint16_t>& plane : planes) {
    for (std::int64_t i = 0; i < plane.count(); ++i) written += plane[i] != 0xffff;
    for (std::int64_t h = 0; h < c.heads; ++h)
      for (const std::int32_t slot : o.slots)
        for (std::int64_t d = 0; d < 128; ++d)
          found.kv.push_back(bf16_to_f32(plane[(h * kPlaneRows + slot) * 128 + d]));
  }
  const std::string name = "cache_heads, " + std::to_string(c.rows) + " rows, " + std::to_string(c.heads) + " heads";
  // A pair that nearly cancels differs by a step of its parts, not of its own.
  if (c.has_q) expect_close(name + ", queries", outcome, found.q, expected.q, 0.5, 0.005);
  if (c.has_k) expect_close(name + ", cache", outcome, found.kv, expected.kv, 0.5, 0.005);
  tap::equal(written, c.has_k ? 2 * all * o.inner : 0, name + " writes its rows of the cache only");
}

void test_cache_heads(ops::CpuOps& cpu, const HeadsCase& c) {
  const HeadsOperands operands(c);
  const HeadsResult expected = heads_by_cpu(cpu, c, operands);
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    run_cache_heads(c, operands, expected);
  }
}

struct Int8Cache {
  std::vector<std::int8_t> k, v;  // [head, row, 128], unwritten rows 0
  std::vector<float> k_scales, v_scales;
};

Int8Cache int8_by_cpu(ops::CpuOps& cpu, const HeadsCase& c, const HeadsOperands& o) {
  const ops::KvLayout layout{c.heads, kPlaneRows, 128, ops::Dtype::int8};
  std::vector<std::int8_t> keys(static_cast<std::size_t>(layout.key_bytes())), values(keys.size());
  std::vector<float> qkv(o.qkv);
  cpu.cache_heads({qkv.data(), qkv.data() + o.inner, qkv.data() + 2 * o.inner, c.rows, c.heads, 128, o.ld, 1e-6f,
                   o.norm_q.data(), o.norm_k.data(), o.cos.data(), o.sin.data(), keys.data(), values.data(),
                   ops::Dtype::int8, kPlaneRows, o.slots.data(), ops::Rounding::bf16});
  Int8Cache cache;
  for (std::int64_t h = 0; h < c.heads; ++h)
    for (const std::int32_t slot : o.slots) {
      for (std::int64_t d = 0; d < 128; ++d) {
        cache.k.push_back(keys[static_cast<std::size_t>(layout.key_at(h, slot, d))]);
        cache.v.push_back(values[static_cast<std::size_t>(layout.value_at(h, slot, d))]);
      }
      const std::int64_t entry = h * kPlaneRows + slot;
      cache.k_scales.push_back(reinterpret_cast<const float*>(keys.data() + layout.key_scales())[entry]);
      cache.v_scales.push_back(reinterpret_cast<const float*>(values.data() + layout.value_scales())[entry]);
    }
  return cache;
}

// Into a cache in int8: of values the bits, of turned keys, which may differ by a rounding to bfloat16, a step.
void test_cache_heads_int8(ops::CpuOps& cpu, const HeadsCase& c) {
  const HeadsOperands o(c);
  const Int8Cache expected = int8_by_cpu(cpu, c, o);
  const DeviceArray<float> norm_q(o.norm_q), norm_k(o.norm_k), cos(o.cos), sin(o.sin);
  const DeviceArray<std::int32_t> slots(o.slots);
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const Bf16Matrix qkv(o.qkv, c.rows, o.ld, o.ld);
    const DeviceArray<std::int8_t> k8(c.heads * kPlaneRows * 128), v8(k8.count());
    const DeviceArray<float> k_scales(c.heads * kPlaneRows), v_scales(k_scales.count());
    CacheHeads a;
    a.q = qkv.bits.data(), a.k = qkv.bits.data() + o.inner, a.v = qkv.bits.data() + 2 * o.inner;
    a.slots = slots.data(), a.rows = c.rows, a.heads = c.heads, a.ld = o.ld, a.eps = 1e-6f, a.plane_rows = kPlaneRows;
    a.norm_width = c.heads * 128, a.norm_q = norm_q.data(), a.norm_k = norm_k.data();
    a.cos = cos.data(), a.sin = sin.data();
    a.cache[0] = {nullptr, nullptr, k8.data(), v8.data(), k_scales.data(), v_scales.data()};
    bool is_right = settle(cache_heads(a, nullptr)) == Outcome::launched;
    std::int64_t other_steps = 0, written = 0;
    for (std::int64_t h = 0, i = 0; h < c.heads; ++h)
      for (const std::int32_t slot : o.slots) {
        const std::int64_t entry = h * kPlaneRows + slot;
        const float k_scale = expected.k_scales[static_cast<std::size_t>(i / 128)];
        is_right = is_right && v_scales[entry] == expected.v_scales[static_cast<std::size_t>(i / 128)] &&
                   std::abs(k_scales[entry] - k_scale) <= k_scale * 0x1p-7f;
        for (std::int64_t d = 0; d < 128; ++d, ++i) {
          const int k_step = k8[entry * 128 + d] - expected.k[static_cast<std::size_t>(i)];
          const int v_step = v8[entry * 128 + d] - expected.v[static_cast<std::size_t>(i)];
          other_steps += std::abs(k_step) + std::abs(v_step);
          is_right = is_right && std::abs(k_step) <= 1 && std::abs(v_step) <= 1;
        }
      }
    // 0xffffffff is what nobody has written.
    for (std::int64_t entry = 0; entry < v_scales.count(); ++entry) written += std::isnan(v_scales[entry]) ? 0 : 1;
    const std::string name =
        "cache_heads into int8, " + std::to_string(c.rows) + " rows, order " + std::to_string(seed);
    tap::ok(is_right && other_steps * 100 <= c.rows * o.inner,
            name + ": " + std::to_string(other_steps) + " off a step");
    tap::equal(written, c.rows * c.heads, name + " writes its rows of the cache only");
  }
  CacheHeads wrong;
  const Bf16Matrix q(2, 384, 384);
  wrong.k = q.bits.data(), wrong.v = q.bits.data() + 128, wrong.slots = slots.data();
  wrong.rows = wrong.heads = 1, wrong.ld = 384, wrong.plane_rows = kPlaneRows, wrong.norm_width = 128;
  wrong.norm_k = norm_k.data();
  wrong.cache[0].k8 = reinterpret_cast<std::int8_t*>(q.bits.data());
  tap::ok(cache_heads(wrong, nullptr) == Outcome::bad_shape, "a cache in int8 without scales is refused");
}

void tests(ops::CpuOps& cpu) {
  tap::note("seed 11, orders 0, 1, 20261130");
  test_layer_norm(cpu, {1, 3072, false, true, false});
  test_layer_norm(cpu, {7, 75, true, false, false});
  test_layer_norm(cpu, {3, 2051, true, true, true});
  test_layer_norm(cpu, {5, 8, false, false, true});
  test_layer_norm(cpu, {2, 1, false, true, true});
  test_norm_not_finite();
  test_norm_refusals();
  test_quantise_rows(3, 3072);
  test_quantise_rows(7, 75);
  test_quantise_rows(1, 2051);
  test_quantise_rows(5, 1);
  test_quantise_refusals();
  test_cache_heads(cpu, {7, 3, 2, true, true, true});
  test_cache_heads(cpu, {1, 24, 1, true, true, true});
  test_cache_heads(cpu, {5, 1, 1, false, true, false});
  test_cache_heads(cpu, {9, 2, 2, true, false, false});
  test_cache_heads_int8(cpu, {7, 3, 1, true, true, true});
  test_cache_heads_int8(cpu, {2, 24, 1, true, true, true});
  expect_sizes({"layer_norm_modulate.cu", "quantise_rows.cu", "cache_heads.cu"});
}

}  // namespace

int main() { return run_tests(tests); }
