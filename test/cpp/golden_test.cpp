// Every recorded call of every golden case through the native session: each traced tensor, and the KV cache slot by
// slot. Also built with the sanitizers (npm run test:sanitize).
#include <set>

#include "golden_runner.h"

using namespace premotor;
using namespace premotor::engine;
using golden::Case;
using golden::Runner;

int main(int count, char** arguments) {
  const std::set<std::string> only(arguments + 1, arguments + count);
  // The deployed bfloat16 numerics round at every operation, so two faithful implementations differ by a few 1e-3; the
  // reference in float32 arithmetic is 0.5 to 1.5e-2 away from itself in bfloat16.
  const Case cases[] = {{"franka_tiny", "trace"},
                        {"robotwin_tiny", "trace"},
                        {"nocfg_partial", "trace"},
                        {"i2va_tiny", "trace"},
                        {"bf16", "trace", true, WeightPrecision::bf16, true, 2e-2},
                        {"bf16", "trace_nocast", false, WeightPrecision::bf16, true, 2e-2}};
  for (const Case& each : cases)
    if (only.empty() || only.contains(each.name)) Runner(each).run();
  return tap::finish();
}
