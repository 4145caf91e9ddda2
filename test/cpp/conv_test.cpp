// The CPU backend's convolution against the definition at ops::Conv3d, written out in double precision: every kernel,
// stride and border that the autoencoder uses, odd sizes, several tiles, both weight types, each instruction set that
// this processor has.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "ops/cpu/cpu_ops.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::ops;

namespace {

constexpr unsigned kSeed = 20261123;

struct Layer {
  std::string name;
  std::int64_t frames, height, width, in, out, kernel_t, kernel_s, stride_t, stride_s, pad, frames_out, height_out,
      width_out;
};

struct Operands {
  std::vector<float> x, weight, bias;
  std::vector<std::uint16_t> weight_bf16;
};

Operands make_operands(const Layer& l) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  Operands operands;
  operands.x.resize(static_cast<std::size_t>(l.frames * l.height * l.width * l.in));
  operands.weight.resize(static_cast<std::size_t>(l.out * l.kernel_t * l.kernel_s * l.kernel_s * l.in));
  operands.bias.resize(static_cast<std::size_t>(l.out));
  for (std::vector<float>* values : {&operands.x, &operands.weight, &operands.bias})
    for (float& value : *values)
      value = round_to_bf16(normal(random));  // so that both weight types hold the same numbers
  for (float value : operands.weight) operands.weight_bf16.push_back(f32_to_bf16(value));
  return operands;
}

Conv3d arguments(const Layer& l, const Operands& operands, Dtype dtype, float* y) {
  Conv3d args;
  args.x = operands.x.data();
  args.frames_in = l.frames;
  args.height_in = l.height;
  args.width_in = l.width;
  args.channels_in = l.in;
  const void* weight =
      dtype == Dtype::f32 ? static_cast<const void*>(operands.weight.data()) : operands.weight_bf16.data();
  args.weight = {weight, dtype, l.out, l.kernel_t * l.kernel_s * l.kernel_s * l.in};
  args.bias = operands.bias.data();
  args.kernel_t = l.kernel_t;
  args.kernel_s = l.kernel_s;
  args.stride_t = l.stride_t;
  args.stride_s = l.stride_s;
  args.pad_top = args.pad_left = l.pad;
  args.frames_out = l.frames_out;
  args.height_out = l.height_out;
  args.width_out = l.width_out;
  args.y = y;
  return args;
}

// The definition, for one output value.
double expected_value(const Layer& l, const Operands& o, std::int64_t t, std::int64_t y, std::int64_t x,
                      std::int64_t channel) {
  double sum = o.bias[static_cast<std::size_t>(channel)];
  for (std::int64_t kt = 0; kt < l.kernel_t; ++kt)
    for (std::int64_t ky = 0; ky < l.kernel_s; ++ky)
      for (std::int64_t kx = 0; kx < l.kernel_s; ++kx) {
        const std::int64_t frame = t * l.stride_t + kt, row = y * l.stride_s - l.pad + ky,
                           column = x * l.stride_s - l.pad + kx;
        if (row < 0 || row >= l.height || column < 0 || column >= l.width) continue;
        for (std::int64_t c = 0; c < l.in; ++c)
          sum += static_cast<double>(
                     o.x[static_cast<std::size_t>(((frame * l.height + row) * l.width + column) * l.in + c)]) *
                 o.weight[static_cast<std::size_t>(
                     (((channel * l.kernel_t + kt) * l.kernel_s + ky) * l.kernel_s + kx) * l.in + c)];
      }
  return sum;
}

std::vector<double> expected_all(const Layer& l, const Operands& o) {
  std::vector<double> all;
  for (std::int64_t t = 0; t < l.frames_out; ++t)
    for (std::int64_t y = 0; y < l.height_out; ++y)
      for (std::int64_t x = 0; x < l.width_out; ++x)
        for (std::int64_t c = 0; c < l.out; ++c) all.push_back(expected_value(l, o, t, y, x, c));
  return all;
}

double worst_difference(const std::vector<float>& found, const std::vector<double>& expected, double* largest) {
  double worst = 0;
  *largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst, std::isnan(found[i]) ? INFINITY : std::abs(found[i] - expected[i]));
    *largest = std::max(*largest, std::abs(expected[i]));
  }
  return worst;
}

// packed: the weight is prepared for these kernels; null: it is used as it is.
void test_layer(const Layer& l, const Kernels& kernels, const PackedKernels* packed) {
  const Operands operands = make_operands(l);
  const std::vector<double> expected = expected_all(l, operands);
  const std::string name = packed == nullptr ? kernels.name : std::string(packed->name) + " packed";
  const std::string where = name + ", " + l.name;
  const PackedKernels& table = packed == nullptr ? cpu_packed_kernels() : *packed;
  CpuOps one(1, kernels, table), three(3, kernels, table);
  // A sum of n products in float32 is off by about sqrt(n) half-units in the last place of the largest partial sum.
  const double window = static_cast<double>(l.kernel_t * l.kernel_s * l.kernel_s * l.in);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    std::vector<float> y(expected.size(), NAN), again(expected.size(), NAN);
    Conv3d first = arguments(l, operands, dtype, y.data()), second = arguments(l, operands, dtype, again.data());
    if (packed != nullptr) {
      one.prepare(&first.weight, Rounding::none);
      three.prepare(&second.weight, Rounding::none);
      tap::ok(first.weight.prepared != nullptr && second.weight.prepared != nullptr, where + ": prepared");
    }
    one.conv3d(first, Rounding::none);
    double largest = 0;
    const double worst = worst_difference(y, expected, &largest);
    tap::is_near(worst, 0, largest * std::sqrt(window) * 1.2e-7,
                 where + (dtype == Dtype::f32 ? ", f32 weight" : ", bf16 weight"));
    three.conv3d(second, Rounding::none);
    tap::ok(std::memcmp(y.data(), again.data(), y.size() * sizeof(float)) == 0,
            where + ": the same bits with 3 threads");
    three.conv3d(second, Rounding::bf16);
    for (float& value : y) value = round_to_bf16(value);
    tap::ok(std::memcmp(y.data(), again.data(), y.size() * sizeof(float)) == 0,
            where + ": rounded to bfloat16 when asked");
  }
}

}  // namespace

int main() {
  tap::note("seed " + std::to_string(kSeed));
  // name, frames, height, width, in, out, kernel_t, kernel_s, stride_t, stride_s, pad, frames_out, height_out,
  // width_out
  const std::vector<Layer> layers = {
      {"causal 3x3x3", 5, 7, 9, 5, 11, 3, 3, 1, 1, 1, 3, 7, 9},
      {"causal 3x3x3, one pixel wide", 3, 4, 1, 3, 2, 3, 3, 1, 1, 1, 1, 4, 1},
      {"halving 3x3, border right and below", 2, 8, 6, 4, 6, 1, 3, 1, 2, 0, 2, 4, 3},
      {"halving of time, 3x1x1", 5, 3, 5, 8, 8, 3, 1, 2, 1, 0, 2, 3, 5},
      {"pointwise", 2, 5, 3, 20, 7, 1, 1, 1, 1, 0, 2, 5, 3},
      // 27 * 40 floats a window, 960 windows: more than one tile with one thread and with three.
      {"two panels of columns, the second one narrow", 3, 5, 31, 6, 37, 3, 3, 1, 1, 1, 1, 5, 31},
      {"several tiles", 4, 24, 20, 40, 3, 3, 3, 1, 1, 1, 2, 24, 20},
      {"a window larger than a tile's share", 3, 3, 3, 700, 4, 3, 3, 1, 1, 1, 1, 3, 3},
  };
  std::vector<const Kernels*> tables = {&baseline::kernels()};
  if (std::strcmp(cpu_kernels().name, tables[0]->name) != 0) tables.push_back(&cpu_kernels());
  for (const Kernels* kernels : tables)
    for (const Layer& layer : layers) test_layer(layer, *kernels, nullptr);
  const PackedKernels* packed[kPackedTables];
  const int count = cpu_packed_tables(packed);
  for (int i = 0; i < count; ++i)
    for (const Layer& layer : layers) test_layer(layer, cpu_kernels(), packed[i]);
  return tap::finish();
}
