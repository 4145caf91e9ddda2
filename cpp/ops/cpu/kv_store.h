// One row of keys and values into the planes of a cache (ops/kv_layout.h). Different rows may be stored at once: they
// share cache lines and words with their neighbours, but no bytes.
#pragma once

#include <cstdint>

#include "ops/kv_layout.h"
#include "ops/ops.h"

namespace premotor::ops {

// Row i of args; `layout` is that of its planes.
void store_kv_row(const Ops::StoreKv& args, const KvLayout& layout, std::int64_t i);

}  // namespace premotor::ops
