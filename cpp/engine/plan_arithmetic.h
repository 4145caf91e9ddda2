// Which backends compute the same bits: a name and a probe. Values that were computed once and kept in a plan are used
// only where computing them again would give the same.
#pragma once

#include <string>

#include "ops/ops.h"

namespace premotor::engine {

// "cpu-avx512 0123456789abcdef": the backend's name and a checksum of small products with every activation and
// rounding, long enough to show the order of sums.
std::string arithmetic_of(ops::Ops& ops);

}  // namespace premotor::engine
