// A recording of one call's tensors under the golden traces' names, filled only when asked for.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace premotor::engine {

struct TraceTensor {
  std::vector<std::int64_t> shape;
  std::variant<std::vector<float>, std::vector<std::int32_t>, std::vector<std::uint8_t>> data;
};

class Trace {
 public:
  template <typename T>
  void add(std::string name, std::vector<std::int64_t> shape, std::vector<T> data) {
    tensors_.emplace_back(std::move(name), TraceTensor{std::move(shape), std::move(data)});
  }
  [[nodiscard]] const std::vector<std::pair<std::string, TraceTensor>>& tensors() const { return tensors_; }
  [[nodiscard]] const TraceTensor* find(const std::string& name) const {
    for (const auto& [key, tensor] : tensors_)
      if (key == name) return &tensor;
    return nullptr;
  }

 private:
  std::vector<std::pair<std::string, TraceTensor>> tensors_;
};

}  // namespace premotor::engine
