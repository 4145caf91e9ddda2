// The engine with its passes on a device, against the reference: recorded calls through a session whose transformer
// runs on the host's machine, kernel by kernel. Heads of 20 and 26 values are filled up to 128, caches evict, marks
// roll back.
#include <chrono>
#include <set>

#include "cuda/host/host_device.h"
#include "golden_runner.h"

using premotor::engine::WeightPrecision;

int main(int count, char** arguments) {
  const std::set<std::string> only(arguments + 1, arguments + count);
  // As small as the cases are, plans for few multiprocessors split products and attention as large ones are split.
  const auto device = premotor::cuda::host::make_host_device(16);
  // As golden_test.cpp: the reference's bfloat16 numerics, and its float32 from bfloat16's distance.
  golden::Case cases[] = {{"bf16", "trace", true, WeightPrecision::bf16, true, 2e-2},
                          {"bf16", "trace_nocast", false, WeightPrecision::bf16, true, 2e-2}};
  for (golden::Case& each : cases) {
    if (!only.empty() && !only.contains(each.name)) continue;
    each.device = device.get();
    golden::Runner(each).run();
  }
  return tap::finish();
}
