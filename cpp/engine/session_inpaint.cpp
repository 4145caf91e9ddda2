// Inpainting of actions while they are denoised: "Real-Time Execution of Action Chunking Flow Policies"
// (arXiv 2506.07339), whose time tau' = 1 - sigma runs from noise to data and whose velocity is -v of ours, with the
// identity for the Jacobian of the estimate.
//
//   x0 = x - sigma v                                    what the network takes the actions to be, v = noise - x0
//   r2 = sigma^2 / (tau'^2 + sigma^2)
//   g  = min(beta_max, sigma / (tau' r2), 1 / |step|)   beta_max where tau' = 0
//   v  = v - g w (a - x0)                               a: the given actions, w: their weights, 0 .. 1
//
// The bound 1 / |step| is ours: with a shifted schedule or few steps a larger factor would go past `a` in one step.
// All in the network's normalised space, used channels only.
#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "engine/session.h"

namespace premotor::engine {
namespace {

float guidance_factor(float sigma, float step_size, float beta_max) {
  const float tau = 1.0f - sigma;
  float factor = std::min(beta_max, 1.0f / std::max(std::fabs(step_size), 1e-6f));
  // sigma / (tau r2) = (tau^2 + sigma^2) / (tau sigma)
  if (tau > 0 && sigma > 0) factor = std::min(factor, (tau * tau + sigma * sigma) / (tau * sigma));
  return factor;
}

}  // namespace

// wanted, x, velocity: [action_dim, K * H]; wanted is normalised. Actions before `first` are not drawn.
void Session::draw_towards(const InpaintArgs& inpaint, const std::vector<float>& wanted, const std::vector<float>& x,
                           float sigma, float step_size, std::int64_t first, std::vector<float>* velocity) const {
  const std::int64_t count = job_.frame_chunk_size * job_.action_per_frame;
  const float factor = guidance_factor(sigma, step_size, inpaint.beta_max);
  for (const std::int64_t channel : job_.used_channels)
    for (std::int64_t t = first; t < count; ++t) {
      const float weight = inpaint.weights[t];
      if (weight == 0) continue;
      const auto at = static_cast<std::size_t>(channel * count + t);
      float& v = (*velocity)[at];
      const float estimate = x[at] - sigma * v;
      v -= factor * weight * (wanted[at] - estimate);
      if (rounds()) v = round_to_bf16(v);
    }
}

}  // namespace premotor::engine
