// Shared memory of one block on the host, and the bookkeeping that finds its misuse: every access goes through load,
// store, add or a copy, and is compared with who touched these bytes before and whether the two met in between. Owned
// by the machine; a block starts with bytes of no meaning (NaN as float) that nobody may read.
//
// Bookkeeping is by pairs of bytes, so an array's values have an even size. Two accesses by different threads are
// ordered by a __syncthreads, and within a warp by a __syncwarp of the full mask; by nothing else: a shuffle or a
// matrix product orders no memory.
#pragma once

#include <cstdint>
#include <source_location>
#include <type_traits>

#include "cuda/host/machine.h"

namespace premotor::cuda::host {

// A new block's memory.
void reset_shared(std::uint32_t bytes);

struct SharedArray {
  std::uint32_t begin = 0, end = 0;  // bytes
};

void read_shared(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, void* to, const Site& site);
void write_shared(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, const void* from, const Site& site);
// Reads and writes as one: does not race with others that do the same.
void update_shared(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, void (*update)(void* value, void*),
                   void* argument, const Site& site);
// Starts a copy; its bytes are of no meaning until the thread has waited for it.
void start_copy(const SharedArray& array, std::uint32_t at, std::uint32_t bytes, const void* from,
                std::uint32_t from_bytes, const Site& site);
void wait_copies_but(std::uint32_t groups, const Site& site);
// Raises bounds and alignment faults for a lane's row of a matrix.
void check_row(const SharedArray& array, std::uint32_t at, const Site& site);

}  // namespace premotor::cuda::host
