// Units of packed operands as vectors: what the kernels of packed products and of attention share on every instruction
// set. Like vectors.h it lies in the unnamed namespace of one of them.
#pragma once

#include "ops/cpu/packed.h"
#include "ops/cpu/vectors.h"

namespace premotor::ops::PREMOTOR_ISA {
namespace {

constexpr std::int64_t kColumns = kPanelColumns;
constexpr std::int64_t kUnitBytes = 4;

typedef unsigned char Byte;

[[maybe_unused]] inline I load_units(const Byte* p) {
  I v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
// A block's sum, onto what lies there when it is carried.
template <typename Sum>
inline void put_sum(Byte* to, Sum sum, bool is_carried) {
  if (is_carried) {
    Sum before;
    __builtin_memcpy(&before, to, sizeof before);
    sum = before + sum;
  }
  __builtin_memcpy(to, &sum, sizeof sum);
}
inline F as_floats(I v) {
  F f;
  __builtin_memcpy(&f, &v, sizeof f);
  return f;
}
inline I as_units(F v) {
  I i;
  __builtin_memcpy(&i, &v, sizeof i);
  return i;
}

}  // namespace
}  // namespace premotor::ops::PREMOTOR_ISA
