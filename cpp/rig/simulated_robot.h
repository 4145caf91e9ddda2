// SimulatedRobot: the firmware bridge as the microcontroller runs it, with simulated Damiao motors on its drive bus.
// Frames of the host go in and come out through a Bus; joints are moved by an ideal axis inside each motor, or by a
// physics simulator outside that reads demand() and writes set_joint(). Stepped with the time: no thread, no clock.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/status.h"
#include "can/bus.h"
#include "can/damiao_device.h"
#include "can/virtual_bus.h"
#include "firmware-bridge/bridge.h"
#include "firmware-bridge/drives/damiao.h"
#include "firmware-bridge/led.h"

namespace premotor::rig {

struct SimulatedRobotOptions {
  int axes = 0;
  std::array<pm_damiao_axis, PM_AXES_MAX> drives{};
  std::array<double, PM_AXES_MAX> position_rad{};                                // where the joints are at the start
  std::array<std::array<std::int32_t, PM_LIMIT_FIELDS>, PM_AXES_MAX> ceiling{};  // wire units: built into the firmware
  bool has_fd = true;
  std::uint16_t boot = 1;
  float tracking_max_rad = 0.3f;
  float frozen_max_rad = 0.02f;
  // Slots for the firmware; null: it cannot be replaced. Outlives the robot.
  const pm_flash* flash = nullptr;
  // Of the motors' ideal axes, at the motor: geared joints do not coast for long without torque.
  float friction_Nm_s_rad = 1;
};

// What a joint's motor does now, in joint units.
struct JointDemand {
  bool is_driven = false;
  double position_rad = 0, velocity_rad_s = 0;
  double stiffness_Nm_rad = 0, damping_Nm_s_rad = 0, torque_Nm = 0;
  double torque_max_Nm = 0;

  // torque = stiffness (position - q) + damping (velocity - dq) + torque, within +-torque_max.
  [[nodiscard]] double torque_at(double q, double dq) const;
};

class SimulatedRobot {
 public:
  static constexpr std::int64_t kTickUs = 250;
  static constexpr std::uint32_t kBoardId = 0x54534F48;  // "HOST"

  // `host` is the bridge's end of the host bus; it is open and outlives this. Errors: RIG_OPTIONS.
  static Status open(const SimulatedRobotOptions& options, can::Bus* host, std::int64_t now_us,
                     std::unique_ptr<SimulatedRobot>* out);

  // 250 us of the microcontroller and its motors.
  void tick(std::int64_t now_us);

  [[nodiscard]] JointDemand demand(int axis) const;
  // From a simulator: the ideal axis stands back from then on.
  void set_joint(int axis, double position_rad, double velocity_rad_s, double torque_Nm);
  [[nodiscard]] double joint_rad(int axis) const;
  [[nodiscard]] double joint_rad_s(int axis) const;

  // Faults, for tests and demonstrations.
  void inject(int axis, const can::DeviceFaults& faults) { devices_[static_cast<std::size_t>(axis)]->inject(faults); }
  // The motor's encoder stands still from now on, whatever the joint does.
  void freeze_feedback(int axis, bool is_frozen) { is_frozen_[static_cast<std::size_t>(axis)] = is_frozen; }
  void set_estop(bool is_pressed) { pm_bridge_set_estop(&bridge_, is_pressed); }
  // The microcontroller stands still: no ticks. The motors go on.
  void set_halted(bool is_halted) { is_halted_ = is_halted; }
  [[nodiscard]] can::VirtualWire& drive_wire() { return drive_wire_; }

  [[nodiscard]] const pm_bridge& bridge() const { return bridge_; }
  // The pattern of its lamp.
  [[nodiscard]] std::uint16_t lamp() const { return pm_led_pattern(&bridge_, bridge_.seen.now_us); }
  // No slot has a firmware: only the boot loader answers.
  [[nodiscard]] bool is_boot_loader() const { return slot_ == PM_SLOT_NONE && options_.flash != nullptr; }
  // Commands that let a motor move, since the start.
  [[nodiscard]] std::uint64_t motion_frames() const { return motion_frames_; }

 private:
  SimulatedRobot();
  // What a reset of the microcontroller does.
  Status start_firmware(std::int64_t now_us);
  void run_boot_loader(std::int64_t now_us);
  void run_bridge(std::int64_t now_us);
  void run_drives(std::int64_t now_us);

  SimulatedRobotOptions options_;
  can::Bus* host_ = nullptr;
  can::VirtualWire drive_wire_;
  std::unique_ptr<can::Bus> bridge_end_, drives_end_;
  std::array<std::unique_ptr<can::DamiaoDevice>, PM_AXES_MAX> devices_;
  std::array<bool, PM_AXES_MAX> is_frozen_{};
  std::array<can::AxisState, PM_AXES_MAX> frozen_{};
  pm_damiao_drives drives_{};
  pm_bridge_config config_{};
  pm_bridge bridge_{};
  pm_update boot_loader_{};
  std::uint8_t slot_ = PM_SLOT_NONE;
  bool is_halted_ = false;
  std::uint64_t motion_frames_ = 0;
};

}  // namespace premotor::rig
