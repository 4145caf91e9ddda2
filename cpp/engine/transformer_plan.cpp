// The transformer's conditioning of a schedule's timesteps, to and from a plan. Its weights go through WeightReader.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "engine/plan_arithmetic.h"
#include "engine/plan_file.h"
#include "engine/transformer.h"

namespace premotor::engine {

Status Transformer::record_conditioning(Modality modality, const std::vector<float>& timesteps, PlanWriter* plan) {
  for (const float timestep : timesteps) {
    const Conditioning& entry = condition(modality, timestep);
    PREMOTOR_TRY(plan->add_conditioning(static_cast<std::int64_t>(modality), timestep, entry.temb, entry.projection));
  }
  return Status::good();
}

// What another backend computed is left: here it would be other bits.
void Transformer::adopt_conditioning(const PlanContents& plan) {
  if (plan.conditioning.empty() || plan.facts.backend != arithmetic_of(ops_)) return;
  for (const PlanConditioning& one : plan.conditioning) {
    std::vector<Conditioning>& known = conditioning_[one.modality];
    const std::int64_t width = streams_[one.modality].width;
    const float timestep = std::bit_cast<float>(one.timestep_bits);
    const bool is_known =
        std::any_of(known.begin(), known.end(), [&](const Conditioning& entry) { return entry.timestep == timestep; });
    if (one.width != width || is_known || known.size() >= kConditioningMax) continue;
    known.reserve(kConditioningMax);
    Conditioning entry{timestep, std::vector<float>(static_cast<std::size_t>(width)),
                       std::vector<float>(static_cast<std::size_t>(6 * width))};
    std::memcpy(entry.temb.data(), one.data, entry.temb.size() * sizeof(float));
    std::memcpy(entry.projection.data(), one.data + entry.temb.size() * sizeof(float),
                entry.projection.size() * sizeof(float));
    known.push_back(std::move(entry));
  }
}

}  // namespace premotor::engine
