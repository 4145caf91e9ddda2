// How far every precision is from the reference: the golden cases of the reference in float32 through the session at
// each precision, the error of each kind of tensor in a table (docs/PRECISION.md), and a bound on all of them.
#include <array>
#include <cstdio>

#include "golden_runner.h"

using namespace premotor;
using namespace premotor::engine;
using golden::Case;
using golden::Runner;

namespace {

struct Row {
  const char* name;
  WeightPrecision precision;
  double limit;
};

}  // namespace

int main() {
  const Row rows[] = {{"f32", WeightPrecision::f32, 1e-4},      {"bf16", WeightPrecision::bf16, 1},
                      {"int8", WeightPrecision::int8, 1},       {"int4_32", WeightPrecision::int4_32, 1},
                      {"int4_64", WeightPrecision::int4_64, 1}, {"int4_128", WeightPrecision::int4_128, 1}};
  for (const char* name : {"franka_tiny", "robotwin_tiny", "nocfg_partial", "i2va_tiny"})
    for (const Row& row : rows) {
      Runner runner({name, "trace", true, row.precision, false, row.limit});
      runner.run();
      std::string line = std::string(name) + " " + row.name;
      for (const auto& [kind, worst] : runner.worst()) {
        char text[64];
        std::snprintf(text, sizeof text, " %s %.2g", kind.c_str(), worst);
        line += text;
      }
      tap::note(line);
    }
  return tap::finish();
}
