// Flow-matching schedule and Euler step (docs/MODEL.md section 4).
#pragma once

#include <cstdint>
#include <vector>

namespace premotor::engine {

struct Schedule {
  std::vector<float> sigmas;     // [N], sigma_i = shift u / (1 + (shift - 1) u), u = 1 - i/N
  std::vector<float> timesteps;  // [N], 1000 sigma

  // The timesteps that a denoising loop visits: all N and a final 0, cut to the first `exec_steps` unless that is -1.
  void loop(std::int64_t exec_steps, std::vector<float>* visited) const;
  [[nodiscard]] std::vector<float> loop(std::int64_t exec_steps) const {
    std::vector<float> visited;
    loop(exec_steps, &visited);
    return visited;
  }

  // sigma_next - sigma for the loop's entry i; the final 0 resolves to the last sigma, as in the reference.
  [[nodiscard]] float step_size(std::size_t i) const;
};

// N >= 1, shift > 0; float32 arithmetic as the reference's.
void fill_schedule(std::int64_t steps, float shift, Schedule* schedule);
[[nodiscard]] inline Schedule make_schedule(std::int64_t steps, float shift) {
  Schedule schedule;
  fill_schedule(steps, shift, &schedule);
  return schedule;
}

}  // namespace premotor::engine
