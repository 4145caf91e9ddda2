// How far every precision is from the reference: the golden cases of the reference in float32 through the session at
// each precision, and over a KV cache in int8, the error of each kind of tensor in a table (docs/PRECISION.md), and a
// bound on all of them. And how far the weights themselves move, of the shipped checkpoint, with the search for scales
// and without.
#include <cstdio>

#include "golden_runner.h"
#include "ops/cpu/int4.h"

using namespace premotor;
using namespace premotor::engine;
using golden::Case;
using golden::Runner;

namespace {

struct Row {
  const char* name;
  WeightPrecision precision;
  double limit;
  std::optional<ops::Dtype> cache = std::nullopt;  // none: the precision's default
};

// Worst relative root mean square that any tensor of any call may have. A golden model is random, a few dozen wide, and
// runs free over several chunks, so it forgives less than a trained one. Measured worst: 1.9e-2, 3.4e-2, 0.22, 0.44 and
// 0.44; over a cache in int8 1.15e-2 beside f32, 3.4e-2 and 0.22. A scale that is mistaken, or values in a wrong order,
// show as errors of order one.
constexpr Row kRows[] = {{"f32", WeightPrecision::f32, 1e-4},
                         {"bf16", WeightPrecision::bf16, 3e-2},
                         {"int8", WeightPrecision::int8, 5e-2},
                         {"int4_32", WeightPrecision::int4_32, 0.33},
                         {"int4_64", WeightPrecision::int4_64, 0.66},
                         {"int4_128", WeightPrecision::int4_128, 0.66},
                         {"f32+kv8", WeightPrecision::f32, 1.7e-2, ops::Dtype::int8},
                         {"int8+kv8", WeightPrecision::int8, 5e-2, ops::Dtype::int8},
                         {"int4_32+kv8", WeightPrecision::int4_32, 0.33, ops::Dtype::int8}};
constexpr const char* kKinds[] = {"video.out", "action.out", "kv.k", "kv.v", "latents", "action"};

void test_goldens() {
  tap::note("| case | precision | video out | action out | cache keys | cache values | latents | actions |");
  for (const char* name : {"franka_tiny", "robotwin_tiny", "nocfg_partial", "i2va_tiny"})
    for (const Row& row : kRows) {
      Runner runner({name, "trace", true, row.precision, false, row.limit, row.cache});
      runner.run();
      std::string line = std::string("| ") + name + " | " + row.name + " |";
      for (const char* kind : kKinds) {
        char text[32];
        std::snprintf(text, sizeof text, " %.2g |", runner.worst().at(kind));
        line += text;
      }
      tap::note(line);
    }
}

bool is_block_linear(const StoredTensor& tensor) {
  return tensor.name.starts_with("blocks.") && tensor.name.ends_with(".weight") && tensor.shape.size() == 2 &&
         (tensor.name.find(".to_") != std::string::npos || tensor.name.find(".ffn.") != std::string::npos);
}

struct Errors {
  double plain = 0, searched = 0, size = 0;
  bool is_never_worse = true;
};

void add_row(const float* row, std::int64_t cols, std::int64_t group, Errors* errors) {
  std::int8_t q[ops::kInt4GroupMax];
  for (std::int64_t first = 0; first < cols; first += group) {
    const std::int64_t count = std::min(group, cols - first);
    const double plain = ops::round_int4(row + first, count, ops::Int4Rounding::plain, q).error;
    const double searched = ops::round_int4(row + first, count, ops::Int4Rounding::searched, q).error;
    errors->plain += plain;
    errors->searched += searched;
    errors->is_never_worse = errors->is_never_worse && searched <= plain;
    for (std::int64_t i = 0; i < count; ++i) errors->size += static_cast<double>(row[first + i]) * row[first + i];
  }
}

// The weights of the shipped checkpoint: relative root mean square of what rounding leaves.
void test_shipped_weights() {
  static constexpr std::string_view stems[] = {"diffusion_pytorch_model", "model"};
  TensorStore store;
  golden::need(TensorStore::open_folder("models/tabletop/transformer", stems, &store));
  for (const std::int64_t group : {32, 64, 128}) {
    Errors errors;
    int matrices = 0;
    for (const StoredTensor& tensor : store.tensors()) {
      if (!is_block_linear(tensor)) continue;
      ++matrices;
      const std::vector<float> values = golden::floats(store, tensor.name);
      for (std::int64_t row = 0; row < tensor.shape[0]; ++row)
        add_row(values.data() + row * tensor.shape[1], tensor.shape[1], group, &errors);
    }
    const std::string name = "shipped weights, group " + std::to_string(group);
    tap::ok(matrices >= 10 && errors.is_never_worse, name + ": the search is nowhere worse than plain rounding");
    tap::ok(errors.searched < 0.9 * errors.plain, name + ": and takes a tenth at least off the squared error");
    tap::note(name + ": relative error " + std::to_string(std::sqrt(errors.plain / errors.size)) + " plain, " +
              std::to_string(std::sqrt(errors.searched / errors.size)) + " searched");
  }
}

}  // namespace

int main() {
  test_shipped_weights();
  test_goldens();
  return tap::finish();
}
