// The host's machine for kernels: what it computes is what the PTX manual says, and each mistake that it is there to
// find is found in a kernel that makes it, while the same kernel without the mistake passes. Whatever the seed.
#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::cuda;
using host::FaultKind;

namespace {

constexpr std::uint64_t kSeeds[] = {0, 1, 20261130};

host::Fault run(unsigned threads, std::uint32_t shared_bytes, const std::function<void()>& kernel,
                unsigned blocks = 1) {
  host::run({blocks, 1, 1}, {threads, 1, 1}, shared_bytes, kernel);
  return host::take_fault();
}

// With every seed the kernel ends with this fault, or without any.
void expect(FaultKind kind, const std::string& name, unsigned threads, std::uint32_t shared_bytes,
            const std::function<void()>& kernel) {
  std::string found;
  bool passed = true;
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const host::Fault fault = run(threads, shared_bytes, kernel);
    passed = passed && fault.kind == kind;
    found = fault.message;
  }
  tap::ok(passed, name + (found.empty() ? "" : " (" + found + ")"));
}

int lane() { return static_cast<int>(threadIdx.x % 32); }
int thread() { return static_cast<int>(threadIdx.x); }

void test_barriers() {
  const auto neighbours = [](bool is_synced) {
    return [is_synced] {
      const Shared<float> values(0, 96);
      values.store(thread(), static_cast<float>(thread()));
      if (is_synced) __syncthreads();
      if (values.load((thread() + 1) % 96) != static_cast<float>((thread() + 1) % 96))
        host::raise(FaultKind::bad_launch, "a wrong value", host::Site::current());
    };
  };
  expect(FaultKind::none, "values pass a barrier", 96, 384, neighbours(true));
  // Whichever thread comes first: it reads what nobody wrote, or what was written without a barrier in between.
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const FaultKind kind = run(96, 384, neighbours(false)).kind;
    tap::ok(kind == FaultKind::race || kind == FaultKind::uninitialised, "a missing barrier is found");
  }
  expect(FaultKind::race, "a missing barrier before memory is used again is found", 64, 256, [] {
    const Shared<float> values(0, 64);
    values.store(thread(), 1.0f);
    __syncthreads();
    values.load(63 - thread());
    values.store(thread(), 2.0f);
  });
  expect(FaultKind::divergent_barrier, "a barrier that some threads pass by is found", 64, 0, [] {
    if (thread() != 40) __syncthreads();
  });
  expect(FaultKind::divergent_barrier, "two barriers on two sides of a branch are found", 64, 0, [] {
    if (thread() < 32)
      __syncthreads();
    else
      __syncthreads();
  });
  expect(FaultKind::divergent_barrier, "a barrier before which a warp waits for itself is found", 64, 0, [] {
    if (thread() == 7) __syncthreads();
    __syncwarp();
    if (thread() != 7) __syncthreads();
  });
}

void test_warps() {
  expect(FaultKind::none, "a __syncwarp orders its warp", 64, 256, [] {
    const Shared<float> values(0, 64);
    values.store(thread(), 1.0f);
    __syncwarp();
    values.load(thread() ^ 5);
  });
  expect(FaultKind::race, "but not two warps", 64, 256, [] {
    const Shared<float> values(0, 64);
    if (thread() < 32) values.store(thread(), 1.0f);
    __syncwarp();
    if (thread() >= 32) values.store(thread() - 32, 2.0f);
  });
  expect(FaultKind::race, "and a shuffle orders no memory", 32, 128, [] {
    const Shared<float> values(0, 32);
    values.store(thread(), 1.0f);
    __shfl_xor_sync(kAllLanes, 1.0f, 1);
    values.load(thread() ^ 1);
  });
  expect(FaultKind::wrong_mask, "a shuffle under a full mask in half a warp is found", 32, 0, [] {
    if (lane() < 16) __shfl_xor_sync(kAllLanes, 1.0f, 1);
  });
  expect(FaultKind::wrong_mask, "a shuffle from a lane beyond the mask is found", 32, 0, [] {
    if (lane() < 16) __shfl_xor_sync(0xffffu, 1.0f, 16);
  });
  expect(FaultKind::wrong_mask, "a lane that is not in its mask is found", 32, 0,
         [] { __shfl_sync(0x7fffffffu, 1, 0); });
  expect(FaultKind::wrong_mask, "a mask with lanes that the block has not is found", 48, 0,
         [] { __ballot_sync(kAllLanes, 1); });
  expect(FaultKind::wrong_mask, "two shuffles on two sides of a branch are found", 32, 0, [] {
    if (lane() < 16)
      __shfl_xor_sync(kAllLanes, 1.0f, 1);
    else
      __shfl_xor_sync(kAllLanes, 1.0f, 2);
  });
  expect(FaultKind::none, "two halves of a warp may shuffle apart", 32, 0, [] {
    if (lane() < 16)
      __shfl_xor_sync(0xffffu, 1.0f, 1);
    else
      __shfl_xor_sync(0xffff0000u, 1.0f, 2);
  });
  std::array<unsigned, 32> votes{};
  std::array<float, 32> sums{};
  run(32, 0, [&] {
    votes[threadIdx.x] = __ballot_sync(kAllLanes, lane() % 3 == 0);
    sums[threadIdx.x] = warp_sum(static_cast<float>(lane()));
  });
  tap::ok(votes[0] == 0x49249249u && votes[31] == votes[0], "a vote");
  tap::ok(sums[0] == 496.0f && sums[17] == 496.0f, "a sum over a warp");
}

void test_memory() {
  expect(FaultKind::uninitialised, "memory that nobody wrote is found", 32, 256, [] { Shared<float>(0, 64).load(40); });
  expect(FaultKind::out_of_bounds, "an index behind its array is found, though the memory goes on", 32, 256,
         [] { Shared<float>(0, 32).store(thread() + 1, 1.0f); });
  expect(FaultKind::out_of_bounds, "an index before its array is found", 32, 256,
         [] { Shared<float>(128, 32).store(thread() - 1, 1.0f); });
  expect(FaultKind::out_of_bounds, "an array behind the memory of the launch is found", 32, 100,
         [] { Shared<float>(0, 32).store(thread(), 1.0f); });
  expect(FaultKind::race, "two writers are found", 64, 256, [] { Shared<float>(0, 64).store(thread() / 2, 1.0f); });
  expect(FaultKind::bad_launch, "more shared memory than a block has is refused", 32, 200 * 1024, [] {});
  std::vector<int> totals(64);
  host::settings().seed = 3;
  const host::Fault fault = run(64, 4, [&] {
    const Shared<int> total(0, 1);
    if (thread() == 0) total.store(0, 0);
    __syncthreads();
    total.atomic_add(0, thread());
    __syncthreads();
    totals[threadIdx.x] = total.load(0);
    atomicMax(&totals[0], 7);
  });
  tap::ok(fault.kind == FaultKind::none && totals[5] == 2016, "atomics race with nobody " + fault.message);
}

void test_copies() {
  alignas(16) static const std::array<std::uint32_t, 256> source = [] {
    std::array<std::uint32_t, 256> values{};
    for (std::uint32_t i = 0; i < 256; ++i) values[i] = i;
    return values;
  }();
  enum class Mistake { none, wait, barrier, group, early, offset, end };
  const auto copied = [](Mistake mistake) {
    return [mistake] {
      const Shared<Chunk> to(0, 128);
      for (int stage = 0; stage < 2; ++stage) {
        copy_async(to, stage * 64 + thread(), source.data() + thread() * 4 + (mistake == Mistake::offset ? 1 : 0), 12);
        commit_copies();
      }
      if (mistake == Mistake::end) return;
      if (mistake != Mistake::wait) wait_copies<1>();
      if (mistake != Mistake::barrier) __syncthreads();
      const int from = (mistake == Mistake::group ? 64 : 0) + (thread() ^ 32);
      const Chunk chunk = to.load(from);
      const auto expected = static_cast<std::uint32_t>((thread() ^ 32) * 4);
      if (chunk.word[0] != expected || chunk.word[2] != expected + 2 || chunk.word[3] != 0)
        host::raise(FaultKind::bad_launch, "a wrong value", host::Site::current());
      if (mistake == Mistake::early) copy_async(to, thread(), source.data(), 16);
      commit_copies();
      wait_copies<0>();
    };
  };
  expect(FaultKind::none, "an asynchronous copy, and zeros behind it", 64, 2048, copied(Mistake::none));
  expect(FaultKind::pending_copy, "a copy that was not waited for is found", 64, 2048, copied(Mistake::wait));
  expect(FaultKind::pending_copy, "a wait for too few groups is found", 64, 2048, copied(Mistake::group));
  expect(FaultKind::pending_copy, "a thread that ends before its copies is found", 64, 2048, copied(Mistake::end));
  expect(FaultKind::misaligned, "a copy from an odd address is found", 64, 2048, copied(Mistake::offset));
  expect(FaultKind::race, "a copy into memory that others still read is found", 64, 2048, copied(Mistake::early));
  for (const std::uint64_t seed : kSeeds) {
    host::settings().seed = seed;
    const FaultKind kind = run(64, 2048, copied(Mistake::barrier)).kind;
    tap::ok(kind == FaultKind::race || kind == FaultKind::pending_copy || kind == FaultKind::uninitialised,
            "a wait without a barrier is found");
  }
}

std::uint16_t half_bits(int value) {  // small integers, exactly
  return f32_to_bf16(static_cast<float>(value));
}

// a [16, 16] and b [8, 16] in shared memory, row by row, through ldmatrix and one product.
void test_products() {
  std::array<std::uint16_t, 16 * 16> a{};
  std::array<std::uint16_t, 8 * 16> b{};
  for (int i = 0; i < 16 * 16; ++i) a[static_cast<std::size_t>(i)] = half_bits(i * 7 % 23 - 11);
  for (int i = 0; i < 8 * 16; ++i) b[static_cast<std::size_t>(i)] = half_bits(i * 5 % 19 - 9);
  std::array<float, 16 * 8> d{}, transposed{};
  const host::Fault fault = run(32, 1024, [&] {
    const Shared<std::uint16_t> halves(0, 512);
    for (int i = thread(); i < 256; i += 32) halves.store(i, a[static_cast<std::size_t>(i)]);
    for (int i = thread(); i < 128; i += 32) halves.store(256 + i, b[static_cast<std::size_t>(i)]);
    // b once more as [16, 8], for the transposing load.
    for (int i = thread(); i < 128; i += 32) halves.store(384 + i % 16 * 8 + i / 16, b[static_cast<std::size_t>(i)]);
    __syncwarp();
    const Shared<Chunk> chunks(0, 64);
    std::uint32_t left[4], right[4], turned[4];
    load_matrices(left, chunks, lane() % 16 * 2 + lane() / 16);
    load_matrices(right, chunks, 32 + lane() % 8 * 2 + lane() / 8 % 2);
    load_matrices_transposed(turned, chunks, 48 + lane() % 16);
    float sums[4] = {}, sums_turned[4] = {};
    multiply_bf16(sums, left, right[0], right[1]);
    multiply_bf16(sums_turned, left, turned[0], turned[1]);
    for (int i = 0; i < 4; ++i) {
      const auto at = static_cast<std::size_t>((lane() / 4 + i / 2 * 8) * 8 + lane() % 4 * 2 + i % 2);
      d[at] = sums[i];
      transposed[at] = sums_turned[i];
    }
  });
  bool is_right = true;
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      float sum = 0;
      for (int k = 0; k < 16; ++k)
        sum += bf16_to_f32(a[static_cast<std::size_t>(row * 16 + k)]) *
               bf16_to_f32(b[static_cast<std::size_t>(column * 16 + k)]);
      is_right = is_right && d[static_cast<std::size_t>(row * 8 + column)] == sum &&
                 transposed[static_cast<std::size_t>(row * 8 + column)] == sum;
    }
  tap::ok(fault.kind == FaultKind::none && is_right,
          "bf16 product through ldmatrix, plain and transposed " + fault.message);
  std::array<float, 32> halves{};
  run(32, 0, [&] {
    // Rows of 1.5 and 2 at k = 0, 1, columns of -0.25 and 3.
    float sums[4] = {0.5f, 0, 0, 0};
    const std::uint32_t left[4] = {lane() % 4 == 0 ? 0x40003e00u : 0u, 0, 0, 0};
    multiply_f16(sums, left, lane() % 4 == 0 ? 0x4200b400u : 0u, 0);
    halves[threadIdx.x] = sums[0];
  });
  tap::equal(halves[6], 0.5f - 0.375f + 6.0f, "f16 product");
  std::array<std::int32_t, 32> first{};
  run(32, 0, [&] {
    std::int32_t sums[4] = {1, 1, 1, 1};
    const std::uint32_t left[4] = {0x80ff0102u, 0, 0, 0};
    multiply_s8(sums, left, 0x7f030201u, 0);
    first[threadIdx.x] = sums[0];
  });
  tap::equal(first[9], 4 * (2 * 1 + 1 * 2 - 1 * 3 - 128 * 127) + 1, "int8 product, signs and sums");
}

void test_order() {
  const auto order = [](std::uint64_t seed) {
    host::settings().seed = seed;
    std::vector<int> seen;
    run(
        64, 0, [&] { seen.push_back(static_cast<int>(blockIdx.x) * 64 + thread()); }, 3);
    return seen;
  };
  tap::ok(order(5) == order(5) && order(5) != order(6), "a seed is an order of threads and blocks");
  const std::vector<int> plain = order(0);
  tap::ok(plain.front() == 0 && plain.back() == 191 && std::is_sorted(plain.begin(), plain.end()),
          "without a seed threads run in order");
}

}  // namespace

int main() {
  tap::note("seeds 0, 1, 20261130");
  test_barriers();
  test_warps();
  test_memory();
  test_copies();
  test_products();
  test_order();
  return tap::finish();
}
