// What all simulated drives share: injected faults and the ideal axis.
#include "can/device.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace premotor::can {
namespace {

constexpr float substep_s = 2.5e-4f;    // keeps the stiffest impedance of the protocols stable
constexpr float elapsed_s_max = 0.05f;  // a longer pause is not simulated in full

}  // namespace

void IdealAxis::advance(const AxisDemand& demand, float elapsed_s, AxisState* axis) const {
  for (float left_s = std::min(elapsed_s, elapsed_s_max); left_s > 0; left_s -= substep_s) {
    const float dt_s = std::min(left_s, substep_s);
    if (demand.kind == AxisDemand::Kind::position) {
      const float reach_rad = velocity_max_rad_s * dt_s;
      const float move_rad = std::clamp(demand.position_rad - axis->position_rad, -reach_rad, reach_rad);
      axis->position_rad += move_rad;
      axis->velocity_rad_s = move_rad / dt_s;
      axis->torque_Nm = 0;
      continue;
    }
    if (demand.kind == AxisDemand::Kind::brake) {
      const float change = brake_rad_s2 * dt_s;
      axis->velocity_rad_s -= std::clamp(axis->velocity_rad_s, -change, change);
      axis->position_rad += axis->velocity_rad_s * dt_s;
      continue;
    }
    float torque_Nm = 0;
    if (demand.kind == AxisDemand::Kind::impedance) {
      torque_Nm = demand.stiffness_Nm_rad * (demand.position_rad - axis->position_rad) +
                  demand.damping_Nm_s_rad * (demand.velocity_rad_s - axis->velocity_rad_s) + demand.torque_Nm;
      if (demand.torque_max_Nm > 0) torque_Nm = std::clamp(torque_Nm, -demand.torque_max_Nm, demand.torque_max_Nm);
    }
    axis->velocity_rad_s += (torque_Nm - friction_Nm_s_rad * axis->velocity_rad_s) / inertia_kg_m2 * dt_s;
    axis->position_rad += axis->velocity_rad_s * dt_s;
    axis->torque_Nm = torque_Nm;
  }
}

void Device::accept(const pm_can_frame& frame, std::int64_t now_us, FrameBatch* out) {
  if (faults_.is_deaf) return;
  FrameBatch unsent;
  take(frame, now_us, faults_.is_mute ? &unsent : out);
}

void Device::step(std::int64_t now_us, FrameBatch* out) {
  FrameBatch unsent;
  FrameBatch* answers = faults_.is_mute ? &unsent : out;
  if (faults_.error != 0) raise(faults_.error, now_us, answers);
  advance(now_us, answers);
  const float elapsed_s = stepped_us_ < 0 ? 0 : static_cast<float>(now_us - stepped_us_) * 1e-6f;
  stepped_us_ = now_us;
  if (!is_external_) ideal_.advance(demand(), elapsed_s, &axis_);
}

void Device::set_axis(const AxisState& axis) {
  assert(std::isfinite(axis.position_rad) && std::isfinite(axis.velocity_rad_s) && std::isfinite(axis.torque_Nm));
  axis_ = axis;
  is_external_ = true;
}

}  // namespace premotor::can
