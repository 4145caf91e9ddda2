// What this machine can do at most: bandwidth on arrays much larger than the caches, and arithmetic that touches
// nothing but registers. Each ceiling is the best of some tries on a given number of threads. For bench/kernels.cpp and
// for predictions of a plan's time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>

#include "base/big_memory.h"
#include "ops/cpu/packed_kernels.h"

namespace premotor::ops::ceilings {

double now_s();

// Memory as the engine allocates it.
struct Buffer {
  explicit Buffer(std::int64_t count) : bytes(count), data(allocate_big(count)) {
    if (data == nullptr) throw std::bad_alloc();
  }
  template <typename T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data.get());
  }
  std::int64_t bytes;
  BigMemory data;
};

// Seconds until every thread has run body(thread), the best of `tries`.
double best_s(int threads, int tries, const std::function<void(int)>& body);

struct Bandwidth {
  double triad = 0;  // GB/s of a[i] = b[i] + s c[i], 12 bytes each (what is fetched to be overwritten is not counted)
  double read = 0;   // GB/s of summing: what a product that only reads its weights can hope for
  [[nodiscard]] double best() const { return std::max(triad, read); }
};

Bandwidth bandwidth(int threads, std::int64_t bytes_each, int tries);

// Peak rates on all threads in 1e9 operations a second, a multiplication and an addition being two.
struct Peaks {
  double f32 = 0, bf16_dot = 0, int8_dot = 0;  // 0 where the instruction set has none
};

// Of each the larger one.
[[nodiscard]] inline Peaks larger(const Peaks& a, const Peaks& b) {
  return {std::max(a.f32, b.f32), std::max(a.bf16_dot, b.bf16_dot), std::max(a.int8_dot, b.int8_dot)};
}
[[nodiscard]] inline Bandwidth larger(const Bandwidth& a, const Bandwidth& b) {
  return {std::max(a.triad, b.triad), std::max(a.read, b.read)};
}

// `seconds`: how long a try takes.
Peaks peaks(const PackedKernels& kernels, int threads, int tries, double seconds);

}  // namespace premotor::ops::ceilings
