// From stored tensors to what the operations read: checks presence, shape and dtype against what config.json implies,
// and converts. Matrices whose stored dtype already is what the precision asks for are used in place from the memory
// map; others are converted once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/safetensors.h"
#include "ops/ops.h"

namespace premotor::engine {

class PlanFile;
class PlanSketch;
class PlanWriter;

// What the weights are computed from. f32: the stored values, exactly. bf16: rounded to bfloat16 where stored wider.
// int8, int4_*: the linear layers of the transformer's blocks quantised while they are read (ops::WeightFormat), all
// else as under f32.
enum class WeightPrecision : std::uint8_t { f32, bf16, int8, int4_32, int4_64, int4_128 };
// As plans and messages have it: "f32", "int8", "int4" for groups of 32, "int4_64", ...
[[nodiscard]] const char* name_of(WeightPrecision precision);
// The form of the linear layers of the transformer's blocks.
[[nodiscard]] ops::WeightFormat format_of(WeightPrecision precision);
// What keys and values are held in beside such weights unless something else is asked for. Beside quantised weights
// the rounding to bfloat16 does not show (docs/PRECISION.md).
[[nodiscard]] ops::Dtype default_cache(WeightPrecision precision);

// Matrices that meet the same input, one below the other: one product instead of several. `whole` has all rows where
// the backend keeps weights in a form of its own; otherwise it has none, and the parts lie where they are stored.
struct StackedMatrix {
  ops::Matrix whole;
  std::vector<ops::Matrix> parts;  // empty when there is a whole
};

// How a model's weights and plans meet: not at all, they are taken from one, written to one while the model is read
// (the model then has no weights), or only listed in one: then nothing but config.json is read, and nothing can be
// computed.
struct PlanUse {
  const PlanFile* from = nullptr;  // must outlive the model
  PlanWriter* to = nullptr;
  PlanSketch* sketch = nullptr;  // must outlive the model
  bool keeps_stored = false;     // no matrix is prepared: a device reads them as they are stored
};

// Hands out tensors of one store by name and remembers which were asked for. Where they come from a plan, or go to one,
// its keys are `part`/name.
class WeightReader {
 public:
  WeightReader(const TensorStore& store, WeightPrecision precision) : store_(&store), precision_(precision) {}
  // Out of a plan: no store is read. Errors of its calls: PLAN_TENSOR, PLAN_VERSION.
  WeightReader(const PlanFile& plan, std::string part, ops::Ops& ops)
      : plan_(&plan), part_(std::move(part)), preparer_(&ops) {}
  // Out of nothing: matrices are entered in a sketch, vectors are zero. No call fails.
  WeightReader(PlanSketch& sketch, std::string part, WeightPrecision precision)
      : precision_(precision), sketch_(&sketch), part_(std::move(part)) {}

  // From here on everything goes to a plan, prepared by `ops`; what is handed out has no data.
  void record_to(PlanWriter& writer, std::string part, ops::Ops& ops, ops::Rounding rounding);

  // From here on the backend may keep a form of its own of every matrix (Ops::prepare), unless the store is so large
  // that a second copy of it would not be welcome.
  void prepare_with(ops::Ops& ops, ops::Rounding rounding);

  // A matrix [rows, cols]. It is stored as [rows, cols], or as `stored_shape` when that is given (same product).
  // `out->data` points into the map or into memory owned by this reader's buffers (see take_buffers); copies are
  // 64-byte aligned. Errors: CHECKPOINT_MISSING_TENSOR, CHECKPOINT_SHAPE, CHECKPOINT_DTYPE, OUT_OF_MEMORY.
  Status matrix(const std::string& name, std::int64_t rows, std::int64_t cols, ops::Matrix* out,
                const std::vector<std::int64_t>& stored_shape = {});

  // Matrices [rows_each, cols] of a block's linear layers by name, stacked in this order; quantised as
  // `quantised_matrix`. Errors as `matrix`.
  Status stacked(std::span<const std::string> names, std::int64_t rows_each, std::int64_t cols, StackedMatrix* out);
  // The same for a linear layer that a quantised precision quantises. Then `out->data` is null: only the backend's form
  // is kept. Needs prepare_with; large stores are quantised too.
  Status quantised_matrix(const std::string& name, std::int64_t rows, std::int64_t cols, ops::Matrix* out);

  // A tensor of any shape as float32 values (rounded to bf16 first under WeightPrecision::bf16).
  Status floats(const std::string& name, const std::vector<std::int64_t>& shape, std::vector<float>* out);

  // A convolution [out, in, kt, kh, kw] (or [out, in, kh, kw]: kt = 1) re-laid as [out, kt, kh, kw, in] for
  // ops::Conv3d. With several parts, `out` is that many matrices, each an equal share of the output channels.
  Status convolution(const std::string& name, const std::vector<std::int64_t>& shape, ops::Matrix* out,
                     std::int64_t parts = 1);

  // Presence, shape and dtype alone: reads and converts nothing.
  Status check(const std::string& name, const std::vector<std::int64_t>& shape) {
    const StoredTensor* tensor = nullptr;
    return fetch(name, shape, &tensor);
  }

  // Moves the converted copies to the caller, who must keep them alive as long as the matrices.
  std::vector<std::unique_ptr<std::byte[]>> take_buffers() { return std::move(buffers_); }

  // Names in the store that nobody asked for, sorted.
  [[nodiscard]] std::vector<std::string> unread() const;
  // Bytes of copies made, and of everything handed out: tensors used in place, copies and float vectors.
  [[nodiscard]] std::int64_t converted_bytes() const { return converted_bytes_; }
  [[nodiscard]] std::int64_t weight_bytes() const { return weight_bytes_; }

 private:
  // The last step of every matrix that was read from the store: prepared, or written to a plan under `key`. kept: the
  // bytes of the backend's form, 0 without one.
  Status deliver(const std::string& key, ops::WeightFormat format, ops::Matrix* out, std::int64_t* kept = nullptr);
  // A matrix that is only listed.
  void list(const std::string& key, std::int64_t rows, std::int64_t cols, ops::WeightFormat format, ops::Matrix* out);
  // After that, when everything goes to a plan: what was read of these tensors is needed no more.
  void let_go(std::span<const std::string> names);
  // The whole way of a matrix that comes from a plan.
  Status adopt(const std::string& key, std::int64_t rows, std::int64_t cols, ops::Matrix* out);
  Status adopt_stacked(std::span<const std::string> names, std::int64_t rows_each, std::int64_t cols,
                       StackedMatrix* out);
  Status floats_of_plan(const std::string& name, const std::vector<std::int64_t>& shape, std::vector<float>* out);
  [[nodiscard]] Status no_memory_for_quantised(const std::string& name) const;
  Status read_convolution(const std::string& name, const std::vector<std::int64_t>& shape, ops::Matrix* out);
  Status read_matrix(const std::string& name, std::int64_t rows, std::int64_t cols,
                     const std::vector<std::int64_t>& stored_shape, ops::Matrix* out);
  Status fetch(const std::string& name, const std::vector<std::int64_t>& shape, const StoredTensor** out);
  // The element type that a stored tensor is computed from under this reader's precision.
  [[nodiscard]] ops::Dtype target(const StoredTensor& tensor) const;
  Status allocate(const StoredTensor& tensor, std::int64_t elements, ops::Dtype dtype, std::byte** out);

  const TensorStore* store_ = nullptr;
  WeightPrecision precision_ = WeightPrecision::f32;
  const PlanFile* plan_ = nullptr;
  PlanSketch* sketch_ = nullptr;
  PlanWriter* recorder_ = nullptr;
  std::string part_;
  ops::Ops* preparer_ = nullptr;
  ops::Ops* quantiser_ = nullptr;
  ops::Rounding rounding_ = ops::Rounding::none;
  std::vector<std::string> read_;
  std::vector<std::unique_ptr<std::byte[]>> buffers_;
  std::int64_t converted_bytes_ = 0;
  std::int64_t weight_bytes_ = 0;
};

}  // namespace premotor::engine
