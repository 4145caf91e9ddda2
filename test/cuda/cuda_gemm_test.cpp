// The products (gemm_bf16, gemm_int8) on the host's machine against the CPU backend, on sizes that fit no tile, with
// and without splits of k, with every end, in several orders of threads; and how plans cut them.
#include <algorithm>

#include "cuda/ops.h"
#include "device_values.h"

using namespace premotor;
using namespace premotor::cuda;
using namespace device_values;

namespace {

std::mt19937 generator(12);

enum class End { plain, gelu, silu, residual, gated };

struct GemmCase {
  std::int64_t m, n, k;
  bool is_narrow;
  int splits;
  End end;
};

std::string name_of(const char* what, const GemmCase& c) {
  return std::string(what) + " " + std::to_string(c.m) + "x" + std::to_string(c.n) + "x" + std::to_string(c.k) +
         (c.is_narrow ? ", narrow" : ", wide") + (c.splits > 1 ? ", " + std::to_string(c.splits) + " splits" : "");
}

// The terms of an end, for the CPU and for the device.
struct Ends {
  std::vector<float> bias, gate, before;
  std::vector<std::int32_t> map;
  DeviceArray<float> d_bias, d_gate;
  DeviceArray<std::int32_t> d_map;

  explicit Ends(const GemmCase& c)
      : bias(normal(generator, c.n)),
        gate(normal(generator, 2 * (c.n + 3))),
        before(normal_bf16(generator, c.m * c.n)),
        map(rows_of(c.m)),
        d_bias(bias),
        d_gate(gate),
        d_map(map) {}
  static std::vector<std::int32_t> rows_of(std::int64_t m) {
    std::vector<std::int32_t> map;
    for (std::int64_t r = 0; r < m; ++r) map.push_back(static_cast<std::int32_t>(r * 7 % 3 % 2));
    return map;
  }

  void set(const GemmCase& c, ops::Ops::FusedLinear* args) const {
    args->bias = bias.data();
    args->act = c.end == End::gelu   ? ops::Activation::gelu_tanh
                : c.end == End::silu ? ops::Activation::silu
                                     : ops::Activation::none;
    args->is_residual = c.end == End::residual || c.end == End::gated;
    if (c.end == End::gated) args->gate = gate.data(), args->gate_stride = c.n + 3, args->row_map = map.data();
    args->rounding = ops::Rounding::bf16;
  }
  void set(const GemmCase& c, GemmEnd* end) const {
    end->bias = d_bias.data();
    end->act = c.end == End::gelu ? Act::gelu_tanh : c.end == End::silu ? Act::silu : Act::none;
    end->is_residual = c.end == End::residual || c.end == End::gated;
    if (c.end == End::gated) end->gate = d_gate.data(), end->gate_stride = c.n + 3, end->row_map = d_map.data();
  }
};

std::int64_t workspace_words(const GemmCase& c) { return c.splits == 1 ? 0 : c.splits * c.m * round_up(c.n, 8); }

// What the CPU's contract says, with weights as they are stored.
std::vector<float> by_cpu(ops::CpuOps& cpu, const GemmCase& c, const Ends& ends, const std::vector<float>& x,
                          const std::vector<float>& w) {
  const ops::Matrix matrix{w.data(), ops::Dtype::f32, c.n, c.k};
  std::vector<float> y(ends.before);
  ops::Ops::FusedLinear args;
  args.x = x.data(), args.m = c.m, args.ldx = c.k, args.w = &matrix, args.y = y.data(), args.ldy = c.n;
  ends.set(c, &args);
  cpu.fused_linear(args);
  return y;
}

// Runs `launch` with every order of threads, expects the same bits from each and the CPU's result.
template <typename Launch>
void expect_product(const std::string& name, const GemmCase& c, const Ends& ends, const std::vector<float>& expected,
                    Launch launch_into) {
  std::vector<float> first;
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const Bf16Matrix y(ends.before, c.m, c.n, round_up(c.n, 8) + 8);
    const DeviceArray<float> workspace(workspace_words(c));
    GemmEnd end;
    ends.set(c, &end);
    end.y = y.bits.data(), end.ldy = y.stride;
    const Outcome outcome = settle(launch_into(end, workspace.data()));
    // Terms have size 1, and so have results: where they cancel, a step is that of 1/4 at least.
    if (first.empty()) {
      first = y.values();
      expect_close(name, outcome, first, expected, 0.25, 0.01);
    }
    tap::ok(y.is_clean() && y.values() == first && host::take_fault().message.empty(),
            name + ", order " + std::to_string(seed) + ": the same bits, and its columns only");
  }
}

void test_bf16(ops::CpuOps& cpu, const GemmCase& c) {
  const float size = 1.0f / std::sqrt(static_cast<float>(c.k));
  const std::vector<float> x = normal_bf16(generator, c.m * c.k), w = normal_bf16(generator, c.n * c.k, size);
  const Ends ends(c);
  const Bf16Matrix dx(x, c.m, c.k, round_up(c.k, 8) + 8), dw(w, c.n, c.k, round_up(c.k, 8));
  expect_product(name_of("bf16", c), c, ends, by_cpu(cpu, c, ends, x, w), [&](const GemmEnd& end, void* workspace) {
    GemmBf16 a;
    a.x = dx.bits.data(), a.w = dw.bits.data();
    a.m = c.m, a.n = c.n, a.k = c.k, a.ldx = dx.stride, a.ldw = dw.stride;
    a.end = end;
    a.plan = {c.is_narrow, c.splits, 0};
    a.workspace = workspace;
    return gemm_bf16(a, nullptr);
  });
}

struct Quantised {
  std::int64_t stride;
  DeviceArray<std::int8_t> values;
  DeviceArray<float> scales;
  std::vector<float> meant;  // [rows, columns] values times scales

  Quantised(std::int64_t rows, std::int64_t columns)
      : stride(round_up(columns, 16)), values((rows - 1) * stride + columns), scales(rows) {
    for (std::int64_t r = 0; r < rows; ++r) {
      scales[r] = 0.5f + static_cast<float>(generator() % 1000) / 1000.0f;
      for (std::int64_t c = 0; c < columns; ++c) {
        values[r * stride + c] = static_cast<std::int8_t>(static_cast<int>(generator() % 255) - 127);
        meant.push_back(static_cast<float>(values[r * stride + c]));
      }
    }
  }
};

// The sums in double precision, exact; then the contract's end.
std::vector<float> by_definition(const GemmCase& c, const Ends& ends, const Quantised& x, const Quantised& w) {
  std::vector<float> y;
  for (std::int64_t r = 0; r < c.m; ++r)
    for (std::int64_t j = 0; j < c.n; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < c.k; ++k)
        sum += static_cast<double>(x.meant[static_cast<std::size_t>(r * c.k + k)]) *
               w.meant[static_cast<std::size_t>(j * c.k + k)];
      float z =
          round_to_bf16(static_cast<float>(sum * x.scales[r] * w.scales[j] + ends.bias[static_cast<std::size_t>(j)]));
      if (c.end == End::gelu) {
        const double u = std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z);
        z = round_to_bf16(static_cast<float>(0.5 * z * (1 + std::tanh(u))));
      }
      const float before = ends.before[static_cast<std::size_t>(r * c.n + j)];
      if (c.end == End::gated)
        z = round_to_bf16(
            before + z * ends.gate[static_cast<std::size_t>(ends.map[static_cast<std::size_t>(r)] * (c.n + 3) + j)]);
      y.push_back(z);
    }
  return y;
}

void test_int8(const GemmCase& c) {
  Quantised x(c.m, c.k), w(c.n, c.k);
  // Results of size 1.
  for (std::int64_t r = 0; r < c.m; ++r) x.scales[r] /= 127.0f;
  for (std::int64_t j = 0; j < c.n; ++j) w.scales[j] /= 127.0f * std::sqrt(static_cast<float>(c.k) / 9);
  const Ends ends(c);
  expect_product(name_of("int8", c), c, ends, by_definition(c, ends, x, w), [&](const GemmEnd& end, void* workspace) {
    GemmInt8 a;
    a.x = x.values.data(), a.w = w.values.data(), a.x_scales = x.scales.data(), a.w_scales = w.scales.data();
    a.m = c.m, a.n = c.n, a.k = c.k, a.ldx = x.stride, a.ldw = w.stride;
    a.end = end;
    a.plan = {c.is_narrow, c.splits, 0};
    a.workspace = workspace;
    return gemm_int8(a, nullptr);
  });
}

// At the released size every device gets about two blocks for each multiprocessor where k allows, and never a split
// without enough of k.
void test_plans() {
  bool is_bounded = true;
  for (const int multiprocessors : {16, 20, 128, 132})
    for (const std::int64_t m : {1, 32, 64, 65, 240, 480})
      for (const std::int64_t n : {30, 192, 3072, 9216, 14336})
        for (const std::int64_t k : {30, 192, 3072, 14336}) {
          const GemmPlan plan = plan_gemm(m, n, k, 2, multiprocessors);
          const std::int64_t steps = blocks_of(k, plan.is_narrow ? 64 : 32);
          is_bounded = is_bounded && plan.is_narrow == (m <= 64) && plan.splits >= 1 && plan.splits <= 8 &&
                       (plan.splits == 1 || steps / plan.splits >= 8) &&
                       plan.workspace_bytes == (plan.splits == 1 ? 0 : plan.splits * m * round_up(n, 8) * 4);
        }
  tap::ok(is_bounded, "plans keep their bounds");
  tap::equal(plan_gemm(32, 3072, 3072, 2, 132).splits, 5, "few tiles on many multiprocessors are split");
  tap::equal(plan_gemm(240, 14336, 3072, 2, 16).splits, 1, "many tiles on few are not");
}

void test_refusals() {
  const Bf16Matrix x(4, 40, 40), w(6, 40, 40), y(4, 6, 8);
  GemmBf16 a;
  a.x = x.bits.data(), a.w = w.bits.data(), a.m = 4, a.n = 6, a.k = 40, a.ldx = a.ldw = 40;
  a.end.y = y.bits.data(), a.end.ldy = 8;
  const auto with = [&](auto change) {
    GemmBf16 b = a;
    change(b);
    return gemm_bf16(b, nullptr);
  };
  tap::ok(with([](auto& b) { b.m = 0; }) == Outcome::launched, "no rows is nothing to do");
  tap::ok(with([](auto& b) { b.k = 0; }) == Outcome::bad_shape, "no depth is refused");
  tap::ok(with([](auto& b) { b.ldx = 32; }) == Outcome::bad_shape, "a stride below the depth is refused");
  tap::ok(with([](auto& b) { b.ldw = 44; }) == Outcome::misaligned, "a stride off the boundary is refused");
  tap::ok(with([](auto& b) { b.x += 4; }) == Outcome::misaligned, "a pointer off the boundary is refused");
  tap::ok(with([](auto& b) { b.plan.splits = 2; }) == Outcome::bad_shape, "splits without a workspace are refused");
  GemmInt8 deep;
  deep.k = (1 << 16) + 1;
  tap::ok(gemm_int8(deep, nullptr) == Outcome::bad_shape, "int8 deeper than 32 bits hold is refused");
}

void tests(ops::CpuOps& cpu) {
  tap::note("seed 12, orders 0, 1, 20261130");
  test_bf16(cpu, {1, 1, 1, true, 1, End::plain});
  test_bf16(cpu, {7, 65, 75, true, 1, End::gelu});
  test_bf16(cpu, {32, 130, 328, true, 3, End::gated});
  test_bf16(cpu, {33, 64, 64, true, 1, End::silu});
  test_bf16(cpu, {7, 19, 8, false, 1, End::residual});
  test_bf16(cpu, {240, 131, 100, false, 1, End::gated});
  test_bf16(cpu, {130, 24, 301, false, 4, End::gelu});
  // More splits than steps: some are empty.
  test_bf16(cpu, {5, 9, 70, true, 4, End::residual});
  test_int8({7, 65, 75, true, 1, End::gelu});
  test_int8({32, 70, 515, true, 3, End::gated});
  test_int8({131, 130, 203, false, 1, End::plain});
  test_int8({20, 10, 150, false, 5, End::plain});
  expect_no_conflicts();
  test_plans();
  test_refusals();
  expect_sizes({"gemm_bf16.cu", "gemm_int8.cu"});
}

}  // namespace

int main() { return run_tests(tests); }
