// The native tests' share of TAP: each test program prints its assertions and a plan, and tap counts them
// (test/native.test.ts runs it).
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

namespace tap {

namespace detail {
inline int count = 0;
inline int failures = 0;
}  // namespace detail

// One assertion. Returns `passed`, so that a test can stop where going on makes no sense.
inline bool ok(bool passed, const std::string& name) {
  ++detail::count;
  if (!passed) ++detail::failures;
  std::printf("%sok %d - %s\n", passed ? "" : "not ", detail::count, name.c_str());
  std::fflush(stdout);
  return passed;
}

// A line for the reader that is not an assertion.
inline void note(const std::string& text) { std::printf("# %s\n", text.c_str()); }

// |found - expected| <= tolerance; never true of NaN.
inline bool is_near(double found, double expected, double tolerance, const std::string& name) {
  const bool passed = std::abs(found - expected) <= tolerance;
  ok(passed, name);
  if (!passed) std::printf("# found %.9g, expected %.9g, tolerance %.3g\n", found, expected, tolerance);
  return passed;
}

template <typename A, typename B>
bool equal(const A& found, const B& expected, const std::string& name) {
  return ok(found == expected, name);
}

inline bool skip(const std::string& name, const std::string& reason) {
  ++detail::count;
  std::printf("ok %d - %s # SKIP %s\n", detail::count, name.c_str(), reason.c_str());
  return true;
}

// The plan, and the exit code for main.
inline int finish() {
  std::printf("1..%d\n", detail::count);
  std::fflush(stdout);
  return detail::failures == 0 && detail::count > 0 ? 0 : 1;
}

}  // namespace tap
