// A plan's weights without their bytes: names, sizes and forms that follow from config.json alone. A backend that
// counts (counting_ops.h) can then run the passes of a model that nobody has downloaded yet.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "engine/plan_format.h"
#include "ops/ops.h"

namespace premotor::engine {

class PlanSketch {
 public:
  // `forms` says how a backend keeps weights; `stored` is what the checkpoint's tensors are. Both outlive this.
  PlanSketch(const ops::Ops& forms, ops::Rounding rounding, ops::Dtype stored)
      : forms_(forms), rounding_(rounding), stored_(stored) {}

  // A matrix of the model; `out` has no bytes behind it, but an address of its own that no other has.
  void matrix(const std::string& key, std::int64_t rows, std::int64_t cols, ops::WeightFormat format, ops::Matrix* out);

  // The tensors so far, as a plan of this checkpoint would list them.
  [[nodiscard]] const PlanContents& contents() const { return contents_; }

 private:
  struct alignas(64) Address {
    std::byte byte{};
  };

  const ops::Ops& forms_;
  ops::Rounding rounding_;
  ops::Dtype stored_;
  PlanContents contents_;
  std::deque<Address> addresses_;
};

}  // namespace premotor::engine
