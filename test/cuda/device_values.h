// What the tests of kernels share: operands as a device would hold them (rows on boundaries, what lies outside not a
// number, memory behind the end guarded by the sanitizer), seeds of the host's machine, and comparison with the CPU.
//
// With PREMOTOR_ON_DEVICE the same tests run on a GPU (`node setup/cuda.mjs --run`): operands lie in managed memory,
// and what only the host's machine knows is skipped.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/json.h"
#include "cuda/launch.h"
#include "ops/cpu/cpu_ops.h"
#include "tap.h"

#if defined(PREMOTOR_ON_DEVICE)
#include <cuda_runtime_api.h>

namespace premotor::cuda::host {

// In place of the host's machine: orders of threads are the device's own, faults are its errors (settle).
struct Settings {
  std::uint64_t seed = 0;
};
inline Settings& settings() {
  static Settings only;
  return only;
}
struct Fault {
  std::string message;
};
inline Fault take_fault() {
  const cudaError_t error = cudaGetLastError();
  return {error == cudaSuccess ? "" : cudaGetErrorString(error)};
}

}  // namespace premotor::cuda::host
#else
#include "cuda/host/machine.h"
#endif

namespace device_values {

using premotor::cuda::Outcome;

// In order, and two orders.
constexpr std::uint64_t kSeeds[] = {0, 1, 20261130};

inline std::int64_t round_up(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }

inline std::vector<float> normal(std::mt19937& generator, std::int64_t count, float size = 1.0f) {
  std::normal_distribution<float> distribution(0.0f, size);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = distribution(generator);
  return values;
}

// The same rounded to bfloat16, as the contract's operands under Rounding::bf16.
inline std::vector<float> normal_bf16(std::mt19937& generator, std::int64_t count, float size = 1.0f) {
  std::vector<float> values = normal(generator, count, size);
  for (float& value : values) value = premotor::round_to_bf16(value);
  return values;
}

// Memory of exactly its size on a boundary of sixteen bytes, for kernels and tests alike.
#if defined(PREMOTOR_ON_DEVICE)
inline void* take_memory(std::size_t bytes) {
  void* data = nullptr;
  // A test without memory has nothing to say.
  if (cudaMallocManaged(&data, std::max<std::size_t>(bytes, 16)) != cudaSuccess) std::abort();
  return data;
}
inline void give_memory(void* data) { cudaFree(data); }
#else
inline void* take_memory(std::size_t bytes) { return ::operator new[](bytes, std::align_val_t{16}); }
inline void give_memory(void* data) { ::operator delete[](data, std::align_val_t{16}); }
#endif

// Waits for what was launched: results may be read then.
inline Outcome settle(Outcome outcome) {
#if defined(PREMOTOR_ON_DEVICE)
  if (outcome == Outcome::launched && cudaDeviceSynchronize() != cudaSuccess) return Outcome::refused;
#endif
  return outcome;
}

// An array there, filled with a pattern that is NaN in every format.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::int64_t count) : count_(count), data_(static_cast<T*>(take_memory(bytes()))) {
    std::memset(static_cast<void*>(data_.get()), 0xff, bytes());
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(static_cast<std::int64_t>(values.size())) {
    if (!values.empty()) std::memcpy(data_.get(), values.data(), bytes());
  }
  [[nodiscard]] T* data() const { return data_.get(); }
  [[nodiscard]] T& operator[](std::int64_t i) const { return data_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] std::int64_t count() const { return count_; }

 private:
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(T); }
  struct Delete {
    void operator()(T* data) const { give_memory(data); }
  };
  std::int64_t count_;
  std::unique_ptr<T[], Delete> data_;
};

// [rows, columns] bfloat16 with a row stride.
struct Bf16Matrix {
  std::int64_t rows, columns, stride;
  DeviceArray<std::uint16_t> bits;

  Bf16Matrix(std::int64_t rows_, std::int64_t columns_, std::int64_t stride_)
      : rows(rows_), columns(columns_), stride(stride_), bits(rows_ == 0 ? 0 : (rows_ - 1) * stride_ + columns_) {}
  Bf16Matrix(const std::vector<float>& values, std::int64_t rows_, std::int64_t columns_, std::int64_t stride_)
      : Bf16Matrix(rows_, columns_, stride_) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c)
        bits[r * stride + c] = premotor::f32_to_bf16(values[static_cast<std::size_t>(r * columns + c)]);
  }
  [[nodiscard]] std::vector<float> values() const {
    std::vector<float> all;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) all.push_back(premotor::bf16_to_f32(bits[r * stride + c]));
    return all;
  }
  // Between the rows nothing was written.
  [[nodiscard]] bool is_clean() const {
    for (std::int64_t i = 0; i < bits.count(); ++i)
      if (i % stride >= columns && bits[i] != 0xffff) return false;
    return true;
  }
};

// Of results that are bfloat16: how many differ at all, how far the farthest is in steps of bfloat16 at its own size or
// at `floor`, whichever is larger.
struct Difference {
  double share = 0, worst_steps = INFINITY;
};
inline Difference compare(const std::vector<float>& found, const std::vector<float>& expected, double floor) {
  Difference d;
  if (found.size() != expected.size() || found.empty()) return d;
  d.worst_steps = 0;
  std::int64_t differing = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!std::isfinite(found[i])) return {1, INFINITY};
    if (found[i] != expected[i]) ++differing;
    const double size = std::max(std::abs(static_cast<double>(expected[i])), floor);
    const double step = std::ldexp(1.0, std::ilogb(size) - 7);
    d.worst_steps = std::max(d.worst_steps, std::abs(static_cast<double>(found[i]) - expected[i]) / step);
  }
  d.share = static_cast<double>(differing) / static_cast<double>(found.size());
  return d;
}

// One assertion: the outcome, no fault, and results within one step of bfloat16 of which at most `share` differ.
inline void expect_close(const std::string& name, Outcome outcome, const std::vector<float>& found,
                         const std::vector<float>& expected, double floor, double share, double steps = 1.0) {
  const premotor::cuda::host::Fault fault = premotor::cuda::host::take_fault();
  const Difference d = compare(found, expected, floor);
  tap::ok(outcome == Outcome::launched && fault.message.empty() && d.worst_steps <= steps && d.share <= share,
          name + ": " +
              (fault.message.empty()
                   ? std::to_string(d.share * 100) + " % differ, by " + std::to_string(d.worst_steps) + " steps"
                   : fault.message));
}

#if defined(PREMOTOR_ON_DEVICE)
inline void start_counting() {}
inline void expect_no_conflicts() { tap::skip("no bank conflicts", "the host's machine counts them"); }
inline void expect_sizes(const std::set<std::string>&) {
  tap::skip("sizes of launches", "the host's machine notes them");
}
// False without a device: there is nothing to test on.
inline bool has_device() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}
#else
inline void start_counting() { premotor::cuda::host::counters() = {}; }
inline void expect_no_conflicts() {
  const premotor::cuda::host::Counters& counters = premotor::cuda::host::counters();
  tap::ok(counters.matrix_loads > 0 && counters.bank_conflicts == 0,
          std::to_string(counters.matrix_loads) + " matrix loads without a bank conflict");
}
inline bool has_device() { return true; }

// What was launched since the counters were reset is, block for block, what cuda/kernels.json says of these sources:
// its sizes are what the table of resources computes with. Run from the root of the tree, as test/native.test.ts does.
inline void expect_sizes(const std::set<std::string>& sources) {
  std::ifstream file("cuda/kernels.json", std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  premotor::JsonValue kernels;
  std::set<std::pair<std::uint32_t, std::uint32_t>> expected;
  if (!tap::ok(premotor::parse_json(text, &kernels).ok(), "cuda/kernels.json is read")) return;
  for (const premotor::JsonValue& kernel : kernels.items())
    if (sources.contains(std::string(kernel.find("source")->string())))
      expected.insert({static_cast<std::uint32_t>(kernel.find("threads")->integer()),
                       static_cast<std::uint32_t>(kernel.find("shared_bytes")->integer())});
  tap::ok(!expected.empty() && premotor::cuda::host::counters().sizes == expected,
          "launches have the sizes of cuda/kernels.json");
}
#endif

// The tests of one program.
inline int run_tests(void (*tests)(premotor::ops::CpuOps& cpu)) {
  if (!has_device()) {
    std::printf("1..0 # SKIP no CUDA device: this build of the test runs on one\n");
    return 0;
  }
  premotor::ops::CpuOps cpu(1, premotor::ops::baseline::kernels());
  start_counting();
  tests(cpu);
  return tap::finish();
}

}  // namespace device_values
