// A stopwatch on the monotonic clock, for the timing tables.
#pragma once

#include <chrono>

namespace premotor::engine {

class Stopwatch {
 public:
  [[nodiscard]] double elapsed_ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace premotor::engine
