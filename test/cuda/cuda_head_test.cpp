// head_guidance_euler on the host's machine against the CPU backend's norm and head and the session's guidance and
// step, one rounding after another.
#include <algorithm>
#include <numeric>

#include "cuda/ops.h"
#include "device_values.h"

using namespace premotor;
using namespace premotor::cuda;
using namespace device_values;

namespace {

std::mt19937 generator(14);

struct Case {
  std::int64_t tokens, dim, features, frozen;
  bool is_guided, is_mapped;
};

void test_head(ops::CpuOps& cpu, const Case& c) {
  const std::int64_t rows = c.is_guided ? 2 * c.tokens : c.tokens, stride = 2 * round_up(c.dim, 4);
  const std::vector<float> h = normal_bf16(generator, rows * c.dim, 2.0f), bias = normal(generator, c.features),
                           w = normal_bf16(generator, c.features * c.dim, 1 / std::sqrt(static_cast<float>(c.dim))),
                           modulation = normal(generator, 2 * stride),
                           x = normal_bf16(generator, c.tokens * c.features);
  std::vector<std::int32_t> map, both, features(static_cast<std::size_t>(c.features));
  for (std::int64_t t = 0; t < c.tokens; ++t) map.push_back(static_cast<std::int32_t>(t % 3 % 2));
  both = map;
  both.insert(both.end(), map.begin(), map.end());
  std::iota(features.begin(), features.end(), 0);
  std::shuffle(features.begin(), features.end(), generator);
  if (c.is_mapped) features[0] = -1;
  const float guidance = 5.0f, step = -0.0476f;

  std::vector<float> out(static_cast<std::size_t>(rows * c.features)), velocity, stepped(x);
  const ops::Matrix matrix{w.data(), ops::Dtype::f32, c.features, c.dim};
  const ops::Ops::Norm norm{1e-6f,  nullptr,    nullptr, modulation.data() + stride / 2, modulation.data(),
                            stride, both.data()};
  ops::Ops::FusedLinear args;
  args.x = h.data(), args.m = rows, args.ldx = c.dim, args.norm = &norm, args.w = &matrix, args.bias = bias.data();
  args.rounding = ops::Rounding::bf16, args.y = out.data(), args.ldy = c.features;
  cpu.fused_linear(args);
  for (std::int64_t t = 0; t < c.tokens; ++t)
    for (std::int64_t j = 0; j < c.features; ++j) {
      const auto at = static_cast<std::size_t>(t * c.features + j);
      float v = out[at];
      if (c.is_guided) {
        const float negative = out[at + static_cast<std::size_t>(c.tokens * c.features)];
        v = round_to_bf16(negative + round_to_bf16(guidance * round_to_bf16(v - negative)));
      }
      velocity.push_back(v);
      const std::int64_t to = c.is_mapped ? features[static_cast<std::size_t>(j)] : j;
      if (to < 0 || t < c.frozen) continue;
      float& value = stepped[static_cast<std::size_t>(t * c.features + to)];
      value = round_to_bf16(value + round_to_bf16(v * step));
    }

  const Bf16Matrix dh(h, rows, c.dim, round_up(c.dim, 8)), dw(w, c.features, c.dim, round_up(c.dim, 8) + 8);
  const DeviceArray<float> d_bias(bias), d_modulation(modulation);
  const DeviceArray<std::int32_t> d_map(map), d_features(features);
  const std::string name = "head of " + std::to_string(c.tokens) + " tokens, " + std::to_string(c.dim) + " to " +
                           std::to_string(c.features) + (c.is_guided ? ", guided" : "");
  std::vector<float> first;
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const DeviceArray<float> dx(x), dv(c.tokens * c.features);
    HeadGuidanceEuler a;
    a.h = dh.bits.data(), a.tokens = c.tokens, a.dim = c.dim, a.ldh = dh.stride, a.is_guided = c.is_guided;
    a.norm = {1e-6f, nullptr, nullptr, d_modulation.data() + stride / 2, d_modulation.data(), stride, d_map.data()};
    a.w = dw.bits.data(), a.ldw = dw.stride, a.features = c.features, a.bias = d_bias.data();
    a.guidance = guidance, a.step = step, a.frozen_tokens = c.frozen;
    a.feature_map = c.is_mapped ? d_features.data() : nullptr;
    a.x = dx.data(), a.ldx = c.features, a.velocity = dv.data();
    const Outcome outcome = settle(head_guidance_euler(a, nullptr));
    const std::vector<float> v(dv.data(), dv.data() + dv.count()), y(dx.data(), dx.data() + dx.count());
    if (!first.empty()) {
      tap::ok(v == first && host::take_fault().message.empty(), name + ", order " + std::to_string(seed));
      continue;
    }
    first = v;
    expect_close(name + ", velocity", outcome, v, velocity, 1.0, 0.01, 6.0);
    expect_close(name + ", stepped", outcome, y, stepped, 1.0, 0.01);
  }
}

void test_refusals() {
  const Bf16Matrix h(4, 40, 40), w(6, 40, 40);
  const DeviceArray<float> x(24);
  HeadGuidanceEuler a;
  a.h = h.bits.data(), a.w = w.bits.data(), a.x = x.data(), a.tokens = 4, a.dim = 40, a.features = 6;
  a.ldh = a.ldw = 40, a.ldx = 6;
  const auto with = [&](auto change) {
    HeadGuidanceEuler b = a;
    change(b);
    return head_guidance_euler(b, nullptr);
  };
  tap::ok(with([](auto& b) { b.tokens = 0; }) == Outcome::launched, "no tokens is nothing to do");
  tap::ok(with([](auto& b) { b.features = 193; }) == Outcome::bad_shape, "more features than tiles are refused");
  tap::ok(with([](auto& b) { b.ldx = 5; }) == Outcome::bad_shape, "a stride below the features is refused");
  tap::ok(with([](auto& b) { b.ldw = 44; }) == Outcome::misaligned, "a stride off the boundary is refused");
}

void tests(ops::CpuOps& cpu) {
  tap::note("seed 14, orders 0, 1, 20261130");
  test_head(cpu, {1, 8, 1, 0, false, false});
  test_head(cpu, {13, 75, 30, 0, true, true});
  test_head(cpu, {21, 200, 30, 16, false, true});
  test_head(cpu, {17, 136, 192, 8, true, false});
  expect_no_conflicts();
  test_refusals();
  expect_sizes({"head_guidance_euler.cu"});
}

}  // namespace

int main() { return run_tests(tests); }
