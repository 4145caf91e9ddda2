// Weights of a plan by size and form. See plan_sketch.h.
#include "engine/plan_sketch.h"

namespace premotor::engine {

void PlanSketch::matrix(const std::string& key, std::int64_t rows, std::int64_t cols, ops::WeightFormat format,
                        ops::Matrix* out) {
  *out = {nullptr, stored_, rows, cols};
  addresses_.emplace_back();
  PlanTensor tensor;
  tensor.key = key;
  tensor.dtype = stored_;
  tensor.rows = rows;
  tensor.cols = cols;
  tensor.data = &addresses_.back().byte;
  ops::Ops::PreparedForm form;
  if (forms_.prepared_form(*out, rounding_, format, &form)) {
    tensor.kind = PlanKind::prepared;
    tensor.product = form.product;
    tensor.group = form.group;
    tensor.bytes = static_cast<std::uint64_t>(form.bytes);
    out->prepared = tensor.data;
  } else {
    tensor.kind = PlanKind::plain;
    tensor.bytes = static_cast<std::uint64_t>(rows * cols * ops::bytes_of(stored_));
    out->data = tensor.data;
  }
  contents_.tensors.push_back(std::move(tensor));
}

}  // namespace premotor::engine
