#include "engine/schedule.h"

#include <algorithm>
#include <cassert>

namespace premotor::engine {

void fill_schedule(std::int64_t steps, float shift, Schedule* schedule) {
  assert(steps >= 1 && shift > 0);
  schedule->sigmas.clear();
  schedule->timesteps.clear();
  // u is linspace(1, 0, N + 1) without its end. Like torch.linspace in float32, the first half counts up from the start
  // and the second half down from the end.
  const float step = -1.0f / static_cast<float>(steps);
  const std::int64_t points = steps + 1;
  for (std::int64_t i = 0; i < steps; ++i) {
    const float u =
        i < points / 2 ? 1.0f + step * static_cast<float>(i) : 0.0f - step * static_cast<float>(points - i - 1);
    const float sigma = shift * u / (1.0f + (shift - 1.0f) * u);
    schedule->sigmas.push_back(sigma);
    schedule->timesteps.push_back(sigma * 1000.0f);
  }
}

void Schedule::loop(std::int64_t exec_steps, std::vector<float>* visited) const {
  visited->assign(timesteps.begin(), timesteps.end());
  visited->push_back(0.0f);
  if (exec_steps >= 0) visited->resize(std::min(visited->size(), static_cast<std::size_t>(exec_steps)));
}

float Schedule::step_size(std::size_t i) const {
  const std::size_t at = std::min(i, sigmas.size() - 1);
  const float next = at + 1 < sigmas.size() ? sigmas[at + 1] : 0.0f;
  return next - sigmas[at];
}

}  // namespace premotor::engine
