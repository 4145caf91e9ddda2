// flash_attention on the host's machine against the CPU backend's attention over a cache in bfloat16 or int8: few and
// many queries, keys that fill no tile, rings that wrapped, rows that are not attended (and not finite), splits, empty
// splits, and the last row's weight.
#include <algorithm>

#include "cuda/ops.h"
#include "device_values.h"
#include "ops/kv_layout.h"

using namespace premotor;
using namespace premotor::cuda;
using namespace device_values;

namespace {

std::mt19937 generator(13);

struct Case {
  std::int64_t rows, heads, capacity;
  std::int64_t attended;  // of the capacity
  int batch, splits;
  float last_weight = 1.0f;
  bool is_text = false;  // rows 0 .. count-1, without a list
  bool is_int8 = false;
};

// Slots in ascending order; some lie in rows behind the slots, as after marks. rows[i] is where slots[i] lies.
struct Ring {
  std::vector<std::int32_t> slots, rows;
  std::vector<ops::MovedSlot> moved;
  std::vector<std::uint32_t> mask;

  Ring(const Case& c, std::int64_t plane_rows) : mask(static_cast<std::size_t>(plane_rows / 32)) {
    // What a full ring drops is the oldest: a stretch that may wrap around the end.
    const std::int64_t dropped = c.capacity - c.attended,
                       start = c.is_text ? c.attended : static_cast<std::int64_t>(generator()) % c.capacity;
    for (std::int32_t slot = 0; slot < c.capacity; ++slot) {
      if ((slot - start + c.capacity) % c.capacity < dropped) continue;
      slots.push_back(slot);
      const bool is_moved = !c.is_text && slot % 11 == 3 && c.capacity + slot / 11 < plane_rows;
      rows.push_back(is_moved ? static_cast<std::int32_t>(c.capacity) + slot / 11 : slot);
      if (is_moved) moved.push_back({slot, rows.back()});
      mask[static_cast<std::size_t>(slot / 32)] |= 1u << slot % 32;
    }
  }
};

// One guidance row's cache, for the CPU in its layout and for the device in its own; rows that are not attended are
// NaN.
struct Cache {
  ops::KvLayout layout;
  Ring ring;
  std::vector<std::byte> k, v;
  DeviceArray<std::uint16_t> d_k, d_v;
  DeviceArray<std::int8_t> d_k8, d_v8;
  DeviceArray<float> d_k_scales, d_v_scales;
  DeviceArray<std::int32_t> d_rows;

  Cache(ops::CpuOps& cpu, const Case& c)
      : layout{c.heads, ops::kv_rows(c.capacity + c.capacity / 10), 128,
               c.is_int8 ? ops::Dtype::int8 : ops::Dtype::bf16},
        ring(c, layout.rows),
        k(static_cast<std::size_t>(layout.key_bytes())),
        v(static_cast<std::size_t>(layout.value_bytes())),
        d_k(c.heads * layout.rows * 128),
        d_v(c.heads * layout.rows * 128),
        d_k8(c.heads * layout.rows * 128),
        d_v8(c.heads * layout.rows * 128),
        d_k_scales(c.heads * layout.rows),
        d_v_scales(c.heads * layout.rows),
        d_rows(ring.rows) {
    const std::int64_t inner = c.heads * 128, count = std::ssize(ring.rows);
    const std::vector<float> keys = normal_bf16(generator, count * inner, 2.0f),
                             values = normal_bf16(generator, count * inner);
    cpu.store_kv({keys.data(), values.data(), count, c.heads, 128, inner, k.data(), v.data(), layout.dtype, layout.rows,
                  ring.rows.data()});
    if (c.is_int8) take_int8(c);
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t at = 0; at < inner; ++at) {
        const std::int64_t to = (at / 128 * layout.rows + ring.rows[static_cast<std::size_t>(i)]) * 128 + at % 128;
        d_k[to] = f32_to_bf16(keys[static_cast<std::size_t>(i * inner + at)]);
        d_v[to] = f32_to_bf16(values[static_cast<std::size_t>(i * inner + at)]);
      }
  }
  // The integers and scales that the CPU has stored.
  void take_int8(const Case& c) {
    const auto* keys = reinterpret_cast<const std::int8_t*>(k.data());
    const auto* values = reinterpret_cast<const std::int8_t*>(v.data());
    for (std::int64_t head = 0; head < c.heads; ++head)
      for (const std::int32_t row : ring.rows) {
        const std::int64_t entry = head * layout.rows + row;
        for (std::int64_t d = 0; d < 128; ++d) {
          d_k8[entry * 128 + d] = keys[layout.key_at(head, row, d)];
          d_v8[entry * 128 + d] = values[layout.value_at(head, row, d)];
        }
        d_k_scales[entry] = reinterpret_cast<const float*>(keys + layout.key_scales())[entry];
        d_v_scales[entry] = reinterpret_cast<const float*>(values + layout.value_scales())[entry];
      }
  }
  [[nodiscard]] AttendedRows on_device(const Case& c) const {
    const std::int32_t* rows = c.is_text ? nullptr : d_rows.data();
    if (!c.is_int8) return {d_k.data(), d_v.data(), rows, c.attended, c.last_weight};
    return {nullptr,           nullptr,          rows, c.attended, c.last_weight, d_k8.data(), d_v8.data(),
            d_k_scales.data(), d_v_scales.data()};
  }
  [[nodiscard]] ops::CachedView view(const Case& c) const {
    if (c.is_text)
      return {k.data(), v.data(), layout.dtype, layout.rows, nullptr, c.attended, nullptr, 0, c.last_weight};
    return {k.data(), v.data(),          layout.dtype,           layout.rows,  ring.mask.data(),
            0,        ring.moved.data(), std::ssize(ring.moved), c.last_weight};
  }
};

void test_attention(ops::CpuOps& cpu, const Case& c) {
  const std::int64_t inner = c.heads * 128, ldq = 3 * inner, all = c.batch * c.rows;
  const std::vector<float> q = normal_bf16(generator, all * ldq, 1.5f);
  const float scale = 1.0f / std::sqrt(128.0f);
  std::vector<Cache> caches;
  std::vector<float> expected(static_cast<std::size_t>(all * inner));
  for (int b = 0; b < c.batch; ++b) {
    caches.emplace_back(cpu, c);
    cpu.cached_attention({q.data() + b * c.rows * ldq, c.rows, c.heads, 128, ldq, caches.back().view(c), scale,
                          ops::Rounding::bf16, expected.data() + b * c.rows * inner, inner});
  }
  const std::string name = "attention, " + std::to_string(c.rows) + " queries, " + std::to_string(c.attended) + " of " +
                           std::to_string(c.capacity) + (c.is_text ? " text rows" : " slots") + ", " +
                           std::to_string(c.splits) + " splits" + (c.is_int8 ? ", int8" : "");
  std::vector<float> first;
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const Bf16Matrix dq(q, all, ldq, ldq);
    const DeviceArray<float> workspace(attention_workspace_bytes(c.rows, c.heads, c.batch, c.splits) / 4);
    FlashAttention a;
    a.q = dq.bits.data(), a.rows = c.rows, a.heads = c.heads, a.ldq = ldq, a.batch = c.batch;
    for (int b = 0; b < c.batch; ++b) {
      const Cache& cache = caches[static_cast<std::size_t>(b)];
      a.attended[b] = cache.on_device(c);
      a.plane_rows[b] = cache.layout.rows;
    }
    a.scale = scale, a.splits = c.splits, a.workspace = c.splits == 1 ? nullptr : workspace.data();
    // In place over the queries, or beside them.
    const Bf16Matrix dy(all, inner, inner + 2);
    const bool is_in_place = seed == 1;
    a.y = is_in_place ? dq.bits.data() : dy.bits.data(), a.ldy = is_in_place ? ldq : dy.stride;
    const Outcome outcome = settle(flash_attention(a, nullptr));
    std::vector<float> y = dy.values();
    if (is_in_place) {
      y.clear();
      for (std::int64_t r = 0; r < all; ++r)
        for (std::int64_t i = 0; i < inner; ++i) y.push_back(bf16_to_f32(dq.bits[r * ldq + i]));
    }
    if (!first.empty()) {
      tap::ok(y == first && host::take_fault().message.empty(),
              name + (is_in_place ? ", in place" : "") + ", order " + std::to_string(seed));
      continue;
    }
    first = y;
    // Weights are rounded before they meet the values here and there, against different largest scores: 2^-9 of each
    // weight, some of which cancel, so half a step of the size of the values that are averaged, and a step of rounding.
    expect_close(name, outcome, y, expected, 0.5, 0.5, 2.0);
  }
}

void test_plans() {
  tap::equal(plan_attention_splits(32, 24, 1, 9792, 132), 11, "few queries on many multiprocessors are split");
  tap::equal(plan_attention_splits(240, 24, 2, 9792, 16), 1, "many queries on few are not");
  tap::equal(plan_attention_splits(32, 24, 1, 100, 132), 1, "few keys are not");
}

void test_refusals() {
  const Bf16Matrix q(4, 128, 128), plane(64, 128, 128);
  FlashAttention a;
  a.q = q.bits.data(), a.y = q.bits.data(), a.rows = 4, a.heads = 1, a.ldq = a.ldy = 128;
  a.attended[0] = {plane.bits.data(), plane.bits.data(), nullptr, 10, 1.0f};
  a.plane_rows[0] = 64;
  const auto with = [&](auto change) {
    FlashAttention b = a;
    change(b);
    return flash_attention(b, nullptr);
  };
  tap::ok(with([](auto& b) { b.rows = 0; }) == Outcome::launched, "no queries is nothing to do");
  tap::ok(with([](auto& b) { b.attended[0].count = 0; }) == Outcome::bad_shape, "no keys are refused");
  tap::ok(with([](auto& b) { b.attended[0].count = 65; }) == Outcome::bad_shape, "more keys than rows are refused");
  tap::ok(with([](auto& b) { b.splits = 2; }) == Outcome::bad_shape, "splits without a workspace are refused");
  tap::ok(with([](auto& b) { b.ldq = 132; }) == Outcome::misaligned, "a stride off the boundary is refused");
  tap::ok(with([](auto& b) { b.attended[0].k8 = reinterpret_cast<const std::int8_t*>(b.q); }) == Outcome::bad_shape,
          "a cache of two kinds, or int8 without scales, is refused");
  tap::ok(with([](auto& b) { b.attended[0].last_weight = 0; }) == Outcome::bad_shape, "a weight of nothing is refused");
}

void tests(ops::CpuOps& cpu) {
  tap::note("seed 13, orders 0, 1, 20261130");
  test_attention(cpu, {1, 1, 1, 1, 1, 1});
  test_attention(cpu, {7, 2, 130, 97, 2, 1});
  test_attention(cpu, {32, 1, 320, 289, 1, 3});
  test_attention(cpu, {32, 2, 100, 100, 1, 5});  // two tiles: three splits are empty
  test_attention(cpu, {70, 1, 150, 129, 1, 1});
  test_attention(cpu, {33, 1, 200, 190, 2, 2});
  test_attention(cpu, {5, 2, 37, 37, 2, 1, 476.0f, true});
  test_attention(cpu, {65, 1, 70, 66, 1, 2, 3.0f, true});
  test_attention(cpu, {1, 1, 1, 1, 1, 1, 1.0f, false, true});
  test_attention(cpu, {7, 2, 130, 97, 2, 1, 1.0f, false, true});
  test_attention(cpu, {32, 1, 320, 289, 1, 3, 1.0f, false, true});
  test_attention(cpu, {70, 1, 200, 190, 2, 2, 1.0f, false, true});
  expect_no_conflicts();
  test_plans();
  test_refusals();
  expect_sizes({"flash_attention.cu"});
}

}  // namespace

int main() { return run_tests(tests); }
