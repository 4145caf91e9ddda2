// Device: the other end of a drive session, a simulated motor drive that speaks the device's side of a protocol. What
// moves is either an ideal axis inside or a simulator outside that reads demand() and writes set_axis(). Like the
// sessions it is stepped with the time and owns no bus.
#pragma once

#include <cstdint>

#include "can/frame_batch.h"
#include "protocol/can_frame.h"

namespace premotor::can {

struct AxisState {
  float position_rad = 0;
  float velocity_rad_s = 0;
  float torque_Nm = 0;
};

// What the drive's power stage does at this moment.
struct AxisDemand {
  enum class Kind {
    free,       // no torque
    impedance,  // torque = stiffness * (position - q) + damping * (velocity - dq) + torque
    position,   // a stiff position loop follows `position_rad`
    brake       // decelerates to rest and stays
  };
  Kind kind = Kind::free;
  float position_rad = 0;
  float velocity_rad_s = 0;
  float stiffness_Nm_rad = 0;
  float damping_Nm_s_rad = 0;
  float torque_Nm = 0;
  float torque_max_Nm = 0;  // 0: no limit
};

// What can be wrong with a device, to be switched on and off by a test.
struct DeviceFaults {
  bool is_mute = false;     // nothing is answered or sent
  bool is_deaf = false;     // nothing is heard
  std::uint32_t error = 0;  // an error of the protocol's own numbering appears; latched by the device
};

// A joint with inertia and friction, for tests and for robots without a physics simulator.
class IdealAxis {
 public:
  float inertia_kg_m2 = 0.05f;
  float friction_Nm_s_rad = 0.1f;
  float velocity_max_rad_s = 6;  // of the position loop
  float brake_rad_s2 = 50;       // deceleration

  void advance(const AxisDemand& demand, float elapsed_s, AxisState* axis) const;
};

class Device {
 public:
  explicit Device(float position_rad) { axis_.position_rad = position_rad; }
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // Takes one frame of the bus, its own or not; appends answers.
  void accept(const pm_can_frame& frame, std::int64_t now_us, FrameBatch* out);
  // Watchdogs, cyclic messages and the ideal axis.
  void step(std::int64_t now_us, FrameBatch* out);

  [[nodiscard]] virtual AxisDemand demand() const = 0;
  [[nodiscard]] bool is_driven() const { return demand().kind != AxisDemand::Kind::free; }
  [[nodiscard]] const AxisState& axis() const { return axis_; }
  // From a simulator: the ideal axis stands back from then on.
  void set_axis(const AxisState& axis);
  [[nodiscard]] IdealAxis& ideal_axis() { return ideal_; }
  void inject(const DeviceFaults& faults) { faults_ = faults; }

 protected:
  virtual void take(const pm_can_frame& frame, std::int64_t now_us, FrameBatch* out) = 0;
  virtual void advance(std::int64_t now_us, FrameBatch* out) = 0;
  virtual void raise(std::uint32_t error, std::int64_t now_us, FrameBatch* out) = 0;
  void shift_zero() { axis_.position_rad = 0; }

 private:
  AxisState axis_;
  IdealAxis ideal_;
  bool is_external_ = false;
  DeviceFaults faults_;
  std::int64_t stepped_us_ = -1;
};

}  // namespace premotor::can
