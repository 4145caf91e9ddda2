// Buffers in one piece of memory: random lives never overlap in both time and place, small cases are as tight as can
// be, and the memory holds what is written.
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/arena.h"
#include "tap.h"

using premotor::engine::Arena;

namespace {

struct Case {
  std::int64_t bytes;
  std::vector<Arena::Span> lives;
};

bool alive(const Case& one, int step) {
  return std::any_of(one.lives.begin(), one.lives.end(),
                     [&](const Arena::Span& span) { return span.first <= step && step <= span.last; });
}

void test_random() {
  std::mt19937 random(20260731);
  const auto below = [&](int bound) { return std::uniform_int_distribution<int>(0, bound - 1)(random); };
  int overlapping = 0, unaligned = 0, below_peak = 0, above_sum = 0;
  double used = 0, peaks = 0;
  for (int round = 0; round < 2000; ++round) {
    constexpr int kSteps = 12;
    std::vector<Case> cases(static_cast<std::size_t>(1 + below(10)));
    Arena arena;
    for (Case& one : cases) {
      one.bytes = below(4) == 0 ? below(3) : 1 + below(100'000);
      for (int span = 0; span <= below(3); ++span) {
        const int first = below(kSteps);
        one.lives.push_back({first, first + below(kSteps - first)});
      }
      arena.declare(one.bytes, one.lives);
    }
    arena.solve();
    std::int64_t peak = 0;
    for (int step = 0; step < kSteps; ++step) {
      std::int64_t sum = 0;
      for (std::size_t a = 0; a < cases.size(); ++a) {
        if (!alive(cases[a], step)) continue;
        sum += cases[a].bytes;
        for (std::size_t b = 0; b < a; ++b)
          if (alive(cases[b], step) && arena.offset(a) < arena.offset(b) + cases[b].bytes &&
              arena.offset(b) < arena.offset(a) + cases[a].bytes)
            ++overlapping;
      }
      peak = std::max(peak, sum);
    }
    for (std::size_t a = 0; a < cases.size(); ++a)
      if (arena.offset(a) % 64 != 0 || arena.offset(a) < 0 || arena.offset(a) + cases[a].bytes > arena.bytes())
        ++unaligned;
    if (arena.bytes() < peak) ++below_peak;
    if (arena.bytes() > arena.unshared()) ++above_sum;
    used += static_cast<double>(arena.bytes());
    peaks += static_cast<double>(peak);
  }
  tap::equal(overlapping, 0, "nothing overlaps while it lives (seed 20260731)");
  tap::equal(unaligned, 0, "everything is aligned and inside");
  tap::ok(below_peak == 0 && above_sum == 0, "between what lives at once and the sum of all");
  tap::ok(used < 1.2 * peaks, "close to what lives at once: " + std::to_string(used / peaks) + " times");
}

void test_small() {
  Arena arena;
  const auto a = arena.declare(640, {{0, 1}}), b = arena.declare(640, {{2, 3}}), c = arena.declare(64, {{1, 2}});
  arena.solve();
  tap::ok(
      arena.offset(a) == arena.offset(b) && arena.offset(c) >= 640 && arena.bytes() == 704 && arena.unshared() == 1344,
      "one after the other in one place");
  Arena holes;
  const auto late = holes.declare(64, {{0, 0}, {4, 4}}), inner = holes.declare(64, {{2, 3}});
  holes.solve();
  tap::ok(holes.offset(late) == holes.offset(inner) && holes.bytes() == 64, "a life with a pause lends its place");
  Arena none;
  none.solve();
  none.allocate();
  tap::equal(none.bytes(), std::int64_t{0}, "no buffers");
}

void test_memory() {
  Arena arena;
  std::vector<Arena::Id> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(arena.declare(1000 + i, {{0, 9}}));
  arena.solve();
  arena.allocate();
  for (int i = 0; i < 5; ++i) std::fill_n(arena.at<char>(ids[static_cast<std::size_t>(i)]), 1000 + i, 'a' + i);
  bool kept = true;
  for (int i = 0; i < 5; ++i)
    for (int at = 0; at < 1000 + i; ++at)
      kept = kept && arena.at<char>(ids[static_cast<std::size_t>(i)])[at] == 'a' + i;
  tap::ok(kept && reinterpret_cast<std::uintptr_t>(arena.at<char>(ids[2])) % 64 == 0, "the memory holds all of them");
}

}  // namespace

int main() {
  test_small();
  test_random();
  test_memory();
  return tap::finish();
}
