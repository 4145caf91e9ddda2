// The histogram against sorted values: percentiles within 0.1 %, merging, and values beyond the range.
#include "stream/histogram.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "stream_random.h"
#include "tap.h"

using namespace premotor::stream;
using namespace stream_test;

namespace {

void test_percentiles(Random& random) {
  const auto whole = std::make_unique<Histogram>(), left = std::make_unique<Histogram>(),
             right = std::make_unique<Histogram>();
  std::vector<std::int64_t> values;
  for (int i = 0; i < 50000; ++i) {
    const auto value = static_cast<std::int64_t>(random.log_uniform(1, 1.5e10));
    values.push_back(value);
    whole->record(value);
    (i % 3 == 0 ? left : right)->record(value);
  }
  std::sort(values.begin(), values.end());
  double worst = 0;
  for (double percent = 0.01; percent <= 100; percent += 0.37) {
    const auto rank = static_cast<std::size_t>(std::ceil(percent / 100 * static_cast<double>(values.size()))) - 1;
    const auto exact = static_cast<double>(values[rank]);
    see(std::abs(static_cast<double>(whole->percentile_ns(percent)) - exact) / exact, &worst);
  }
  tap::ok(worst <= 0.001, "percentiles of 50000 values are within 0.1 %, worst " + text(worst));
  left->merge(*right);
  bool same = left->count() == whole->count() && left->min_ns() == whole->min_ns() && left->max_ns() == whole->max_ns();
  for (const double p : {0.0, 1.0, 50.0, 99.0, 99.9, 100.0})
    same = same && left->percentile_ns(p) == whole->percentile_ns(p);
  tap::ok(same, "two halves merge to the whole");
  tap::is_near(left->mean_ns() / whole->mean_ns(), 1, 1e-12, "their mean too");
}

void test_edges() {
  const auto histogram = std::make_unique<Histogram>();
  tap::ok(histogram->percentile_ns(50) == 0 && histogram->min_ns() == 0, "an empty histogram says 0");
  bool exact = true;
  for (std::int64_t value = 0; value < Histogram::kExactMax; ++value) {
    histogram->clear();
    histogram->record(value);
    exact = exact && histogram->percentile_ns(50) == value;
  }
  tap::ok(exact, "small values are exact");
  histogram->clear();
  histogram->record(-5);
  histogram->record(INT64_MAX);
  histogram->record(Histogram::kValueMax);
  tap::equal(histogram->saturated_count(), std::uint64_t{1}, "a value beyond the range is counted apart");
  tap::ok(histogram->max_ns() == INT64_MAX && histogram->min_ns() == 0, "its size is kept, negative ones are 0");
  tap::ok(histogram->percentile_ns(60) > Histogram::kValueMax / 1001 * 1000, "and it lies in the last bucket");
}

}  // namespace

int main() {
  Random random = seeded(20250105);
  test_edges();
  test_percentiles(random);
  return tap::finish();
}
