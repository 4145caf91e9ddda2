// The kernels with one block per row (layer_norm_modulate, cache_heads) on the host's machine against the CPU backend,
// on odd widths, in several orders of threads.
#include <algorithm>

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
    const Outcome outcome = layer_norm_modulate(a, nullptr);
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
  tap::ok(layer_norm_modulate(a, nullptr) == Outcome::launched && std::isfinite(scales[0]) && std::isnan(scales[1]) &&
              std::isfinite(scales[2]),
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

void test_cache_heads(ops::CpuOps& cpu, const HeadsCase& c) {
  const std::int64_t inner = c.heads * 128, ld = 3 * inner + 8, plane_rows = 64, all = c.rows * c.batch;
  std::vector<float> qkv = normal_bf16(generator, all * ld, 2.0f);
  const std::vector<float> norm_q = normal(generator, inner), norm_k = normal(generator, inner),
                           angles = normal(generator, c.rows * 64, 2.0f);
  std::vector<float> cos, sin;
  for (const float angle : angles) cos.push_back(std::cos(angle)), sin.push_back(std::sin(angle));
  const std::vector<std::int32_t> slots = some_rows(c.rows, plane_rows);
  const ops::KvLayout layout{c.heads, plane_rows, 128, ops::Dtype::bf16};
  std::vector<float> expected_q, expected_kv;
  std::vector<float> apart(qkv);
  for (int b = 0; b < c.batch; ++b) {
    std::vector<std::uint16_t> keys(static_cast<std::size_t>(layout.key_bytes() / 2)), values(keys.size());
    float* q = apart.data() + b * c.rows * ld;
    ops::Ops::HeadRows args{q,
                            q + inner,
                            q + 2 * inner,
                            c.rows,
                            c.heads,
                            128,
                            ld,
                            1e-6f,
                            norm_q.data(),
                            norm_k.data(),
                            c.is_turned ? cos.data() : nullptr,
                            c.is_turned ? sin.data() : nullptr,
                            keys.data(),
                            values.data(),
                            ops::Dtype::bf16,
                            plane_rows,
                            slots.data(),
                            ops::Rounding::bf16};
    cpu.cache_heads(args);
    for (std::int64_t r = 0; r < c.rows; ++r) expected_q.insert(expected_q.end(), q + r * ld, q + r * ld + inner);
    for (const bool is_key : {true, false})
      for (std::int64_t h = 0; h < c.heads; ++h)
        for (const std::int32_t slot : slots)
          for (std::int64_t d = 0; d < 128; ++d)
            expected_kv.push_back(cached(layout, is_key ? keys : values, is_key, h, slot, d));
  }
  const DeviceArray<float> d_norm_q(norm_q), d_norm_k(norm_k), d_cos(cos), d_sin(sin);
  const DeviceArray<std::int32_t> d_slots(slots);
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const Bf16Matrix d_qkv(qkv, all, ld, ld);
    std::vector<DeviceArray<std::uint16_t>> planes;
    for (int i = 0; i < 2 * c.batch; ++i) planes.emplace_back(c.heads * plane_rows * 128);
    CacheHeads a;
    if (c.has_q) a.q = d_qkv.bits.data();
    if (c.has_k) a.k = d_qkv.bits.data() + inner, a.v = d_qkv.bits.data() + 2 * inner, a.slots = d_slots.data();
    a.rows = c.rows, a.batch = c.batch, a.heads = c.heads, a.ld = ld, a.eps = 1e-6f, a.plane_rows = plane_rows;
    a.norm_q = d_norm_q.data(), a.norm_k = d_norm_k.data();
    if (c.is_turned) a.cos = d_cos.data(), a.sin = d_sin.data();
    for (int b = 0; b < c.batch; ++b)
      a.cache[b] = {planes[static_cast<std::size_t>(2 * b)].data(), planes[static_cast<std::size_t>(2 * b + 1)].data()};
    const Outcome outcome = cache_heads(a, nullptr);
    const std::string name = "cache_heads, " + std::to_string(c.rows) + " rows, " + std::to_string(c.heads) + " heads";
    std::vector<float> q, kv;
    std::int64_t written = 0;
    for (std::int64_t r = 0; r < all; ++r)
      for (std::int64_t i = 0; i < inner; ++i) q.push_back(bf16_to_f32(d_qkv.bits[r * ld + i]));
    for (const DeviceArray<std::uint16_t>& plane : planes) {
      for (std::int64_t i = 0; i < plane.count(); ++i) written += plane[i] != 0xffff;
      for (std::int64_t h = 0; h < c.heads; ++h)
        for (const std::int32_t slot : slots)
          for (std::int64_t d = 0; d < 128; ++d) kv.push_back(bf16_to_f32(plane[(h * plane_rows + slot) * 128 + d]));
    }
    // A pair that nearly cancels differs by a step of its parts, not of its own.
    if (c.has_q) expect_close(name + ", queries", outcome, q, expected_q, 0.5, 0.005);
    if (c.has_k) expect_close(name + ", cache", outcome, kv, expected_kv, 0.5, 0.005);
    tap::equal(written, c.has_k ? 2 * all * inner : 0, name + " writes its rows of the cache only");
  }
}

}  // namespace

int main() {
  tap::note("seed 11, orders 0, 1, 20261130");
  ops::CpuOps cpu(1, ops::baseline::kernels());
  test_layer_norm(cpu, {1, 3072, false, true, false});
  test_layer_norm(cpu, {7, 75, true, false, false});
  test_layer_norm(cpu, {3, 2051, true, true, true});
  test_layer_norm(cpu, {5, 8, false, false, true});
  test_layer_norm(cpu, {2, 1, false, true, true});
  test_norm_not_finite();
  test_norm_refusals();
  test_cache_heads(cpu, {7, 3, 2, true, true, true});
  test_cache_heads(cpu, {1, 24, 1, true, true, true});
  test_cache_heads(cpu, {5, 1, 1, false, true, false});
  test_cache_heads(cpu, {9, 2, 2, true, false, false});
  return tap::finish();
}
