// The host's machine for kernels: runs a grid block by block, each thread a fibre, in a seeded random order between
// the points where threads meet, and names what a kernel does wrong (Fault). Tests own it: they set a seed, launch, and
// look at the fault. It is one per process and belongs to one operating-system thread; nothing of it is in a build for
// a GPU.
//
// Blocks run one after another, in a seeded order: a kernel that waits for another block does not end here. Threads
// of a block are switched only where they meet, so two threads never interleave within a statement; that they touch the
// same shared memory without meeting in between is found by bookkeeping (shared.h), whatever the order was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <source_location>
#include <string>
#include <utility>

namespace premotor::cuda::host {

using Site = std::source_location;

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

enum class FaultKind : std::uint8_t {
  none,
  race,               // two threads on the same shared memory, one of them writing, without meeting in between
  uninitialised,      // shared memory read that nobody wrote in this block
  pending_copy,       // shared memory read, or a thread ended, before the wait of an asynchronous copy into it
  out_of_bounds,      // shared memory outside the array, or more than the launch asked for
  misaligned,         // a copy or a matrix row that is not on its boundary
  divergent_barrier,  // not every thread of the block comes to the same __syncthreads
  wrong_mask,         // not every lane of a mask comes to the same warp operation, or a lane is not in its own mask
  bad_launch          // a grid, block or shared size that no device takes
};
const char* name_of(FaultKind kind);

struct Fault {
  FaultKind kind = FaultKind::none;
  std::string message;  // what, where (file:line), which thread
};

struct Settings {
  std::uint64_t seed = 0;                      // of the order of blocks and threads; 0: in order of their numbers
  std::uint32_t shared_bytes_max = 99 * 1024;  // of one block, the least of the targets (sm_89)
};
Settings& settings();

// What the launches since the last reset did.
struct Counters {
  std::uint64_t launches = 0, blocks = 0, matrix_products = 0, matrix_loads = 0;
  // Extra passes of ldmatrix because two of eight rows lay in the same banks.
  std::uint64_t bank_conflicts = 0;
  // Threads and bytes of shared memory of a block, of each launch.
  std::set<std::pair<std::uint32_t, std::uint32_t>> sizes;
};
Counters& counters();

// The first fault since the last call, which it forgets.
Fault take_fault();

// Runs the grid; false at a fault. Not from within a kernel.
bool run(Dim3 grid, Dim3 block, std::uint32_t shared_bytes, const std::function<void()>& kernel);

// For code that runs in a kernel's thread: where it is.
const Dim3& thread_index();
const Dim3& block_index();
const Dim3& block_size();
const Dim3& grid_size();

// Ends the launch with this fault. From a kernel's thread, which unwinds; the others are given up as they are.
[[noreturn]] void raise(FaultKind kind, const std::string& message, const Site& at);

// The thread's number in its block, and how often its block and its warp met so far: what decides whether two accesses
// are ordered.
struct Moment {
  std::uint32_t thread, warp, block_meetings, warp_meetings;
};
Moment now();

// Waits for all threads of the block.
void meet_block(const Site& at);

// Waits until every lane of `mask` has come here with the same exchange, which then runs once over what each brought
// (null outside the mask).
using Exchange = void (*)(void* const* lanes, std::uint32_t mask);
void meet_warp(const char* what, std::uint32_t mask, Exchange exchange, void* brought, const Site& at);
// The same, and orders the warp's accesses to shared memory when the mask is full.
void meet_warp_in_memory(std::uint32_t mask, const Site& at);

// Groups of asynchronous copies, kept by the machine for each thread: see shared.h.
struct PendingCopy {
  std::uint32_t to;
  std::uint32_t bytes;  // of which `from_bytes` come from memory, the rest is zero
  const void* from;
  std::uint32_t from_bytes;
};
void add_copy(const PendingCopy& copy);
void close_copies();
// Takes the thread's oldest groups until `kept` are left, and hands each copy to `finish`.
void wait_copies(std::uint32_t kept, void (*finish)(const PendingCopy& copy, const Site& at), const Site& at);

}  // namespace premotor::cuda::host
