// premotor-bridge: the firmware bridge as a process of the host, with simulated Damiao motors and ideal axes behind it,
// on any CAN bus. For tests and demonstrations without hardware; no deadline of a real robot may depend on it.
//
// Its clock is a microcontroller's: ticks of 250 us are executed one after the other up to the wall clock, each told
// its own time. A stall of the host is then no late tick of the firmware, and what the firmware says about times is
// true in its own clock.
#include <csignal>
#include <cstring>
#include <memory>
#include <string>

#include <poll.h>
#include <unistd.h>

#include "can/factory.h"
#include "motion/names.h"
#include "motion/real_time.h"
#include "programs/json_line.h"
#include "programs/paced_bus.h"
#include "programs/settings.h"
#include "programs/stream_settings.h"
#include "rig/file_flash.h"
#include "rig/simulated_robot.h"

namespace premotor::programs {
namespace {

constexpr const char* kHelp =
    R"(Usage: premotor-bridge CONFIG.json

Runs the firmware bridge with simulated Damiao motors, on any CAN bus:

  {"bus": "cannelloni:20001:127.0.0.1:20000",   or socketcan-fd:vcan0, slcan:/dev/pts/3
   "positionRad": [0.1, -0.2, 0.3],             where the axes are at the start; as many as there are axes, 1 to 14
   "hasFd": true, "boot": 1, "trackingMaxRad": 0.3,
   "flash": "bridge.flash",                     a file that plays its flash: premotor firmware can update it
   "realTime": {"priority": 0, "core": null, "lock": false, "awake": false}}

Takes one JSON object a line on standard input: {"estop": true}, {"halted": true}, {"report": true}, and of one axis
{"axis": 1, "mute": true, "deaf": false, "error": 0, "frozen": true}; mute, deaf and error are set together.

Prints one JSON object a line: ready, every change of state, and reports. timeUs is the bridge's own clock;
sinceFreshUs is the time since the last accepted set, in that clock: in a line with a fault, at the moment of the fault.

Exit codes: 2 the command line or the configuration is wrong, 4 the bus cannot be opened. It ends with a signal.
)";

constexpr int kWrongUse = 2, kNoBus = 4;
constexpr std::int64_t kBatchUs = 2 * rig::SimulatedRobot::kTickUs;  // between two looks at the bus
constexpr std::int64_t kNsPerUs = 1000;
constexpr std::int64_t kTicksMax = 4000;  // made up for at once; the rest follows in the next batch

struct BridgeSettings {
  std::string bus;
  std::string flash;  // empty: the firmware cannot be replaced
  rig::SimulatedRobotOptions robot;
  motion::RealTimeOptions real_time{.priority = 0, .core = -1, .wants_lock = false, .wants_awake = false};
};

// Motors as the examples of docs/CAN.md have them; the firmware's built-in ceilings leave room for any upload.
void fill_axes(rig::SimulatedRobotOptions* robot) {
  for (std::size_t j = 0; j < static_cast<std::size_t>(robot->axes); ++j) {
    pm_damiao_axis& drive = robot->drives[j];
    drive.motor_id = static_cast<std::uint16_t>(0x01 + j);
    drive.master_id = static_cast<std::uint16_t>(0x101 + j);
    drive.timeout_ms = 50;
    drive.range = {12.5f, 30, 10};
    drive.stiffness_Nm_rad = 150;
    drive.damping_Nm_s_rad = 4.5f;
    drive.ratio = 2;
    drive.velocity_share = 1;
    robot->ceiling[j] = {-62000000, 62000000, 15000, 1000000, 100000000, 40000};
  }
}

Status parse_bridge_settings(const std::string& text, BridgeSettings* out) {
  JsonValue document;
  PREMOTOR_TRY(parse_json(text, &document));
  Fields fields(document, "");
  fields.require("bus");
  fields.text("bus", &out->bus);
  fields.text("flash", &out->flash);
  rig::SimulatedRobotOptions& robot = out->robot;
  std::int64_t boot = robot.boot;
  double tracking_rad = static_cast<double>(robot.tracking_max_rad);
  fields.boolean("hasFd", &robot.has_fd);
  fields.integer("boot", 0, 65535, &boot);
  fields.number("trackingMaxRad", 0.001, 10, &tracking_rad);
  robot.boot = static_cast<std::uint16_t>(boot);
  robot.tracking_max_rad = static_cast<float>(tracking_rad);
  const JsonValue* positions = fields.member("positionRad");
  const std::size_t axes = positions != nullptr && positions->is_array() ? positions->items().size() : 0;
  if (axes < 1 || axes > PM_AXES_MAX) fields.refuse("positionRad", "a list of 1 to 14 numbers");
  for (std::size_t j = 0; j < axes && axes <= PM_AXES_MAX; ++j) {
    if (!positions->items()[j].is_number()) {
      fields.refuse("positionRad", "a list of numbers");
      break;
    }
    robot.position_rad[j] = positions->items()[j].number();
  }
  PREMOTOR_TRY(parse_real_time(fields.member("realTime"), &out->real_time));
  PREMOTOR_TRY(fields.finish());
  robot.axes = static_cast<int>(axes);
  fill_axes(&robot);
  return Status::good();
}

class BridgeProcess {
 public:
  Status open(const BridgeSettings& settings) {
    axes_ = settings.robot.axes;
    std::unique_ptr<can::Bus> bus;
    PREMOTOR_TRY(can::make_bus(settings.bus, &bus));
    bus_ = std::make_unique<PacedBus>(std::move(bus));
    PREMOTOR_TRY(bus_->open());
    rig::SimulatedRobotOptions robot = settings.robot;
    if (!settings.flash.empty()) {
      PREMOTOR_TRY(flash_.open(settings.flash));
      robot.flash = flash_.flash();
    }
    start_ns_ = motion::monotonic_ns();
    return rig::SimulatedRobot::open(robot, bus_.get(), tick_us_, &robot_);
  }
  [[noreturn]] void run();

 private:
  void run_batch();
  void read_commands();
  void obey(const std::string& line);
  void inject(Fields* fields, int axis);
  void report(const char* event);
  [[nodiscard]] double speed_rad_s() const;

  std::unique_ptr<PacedBus> bus_;
  rig::FileFlash flash_;
  std::unique_ptr<rig::SimulatedRobot> robot_;
  int axes_ = 0;
  std::int64_t start_ns_ = 0;
  std::int64_t tick_us_ = 0;  // of the next tick, in the bridge's clock
  pm_state state_ = PM_STATE_SILENT;
  pm_fault fault_ = PM_FAULT_NONE;
  std::string input_;
  bool has_input_ = true;
};

double BridgeProcess::speed_rad_s() const {
  double most = 0;
  for (int j = 0; j < axes_; ++j) most = std::max(most, std::abs(robot_->joint_rad_s(j)));
  return most;
}

void BridgeProcess::report(const char* event) {
  const pm_bridge& bridge = robot_->bridge();
  const pm_first_fault& first = bridge.faults.first;
  const bool has_fault = first.code != PM_FAULT_NONE;
  const std::uint64_t at_us = has_fault ? first.at_us : bridge.seen.now_us;
  std::string positions = "[", references = "[", counters = "[";
  const auto append = [](std::string* list, double value) {
    *list += (list->size() > 1 ? "," : "") + std::to_string(value);
  };
  for (int j = 0; j < axes_; ++j) {
    append(&positions, robot_->joint_rad(j));
    append(&references, bridge.axes[j].position_rad);
  }
  for (const std::uint32_t count : bridge.counters)
    counters += (counters.size() > 1 ? "," : "") + std::to_string(count);
  JsonLine line(event);
  line.integer("timeUs", static_cast<std::int64_t>(bridge.seen.now_us))
      .text("state", motion::bridge_state_name(static_cast<std::uint8_t>(bridge.state)))
      .integer("fault", first.code)
      .text("faultName", has_fault ? pm_fault_table[first.code].name : "")
      .integer("axis", first.axis)
      .integer("detail", first.detail)
      .integer("sinceFreshUs", static_cast<std::int64_t>(at_us - bridge.seen.fresh_us))
      .boolean("isPowered", bridge.seen.is_powered)
      .boolean("isBootLoader", robot_->is_boot_loader())
      .integer("lamp", robot_->lamp())
      .number("speedRadPerS", speed_rad_s())
      .json("positionRad", positions + "]")
      .json("referenceRad", references + "]")
      .json("counters", counters + "]")
      .integer("motionFrames", static_cast<std::int64_t>(robot_->motion_frames()));
  write_line(STDOUT_FILENO, line);
}

void BridgeProcess::run_batch() {
  const std::int64_t now_us = (motion::monotonic_ns() - start_ns_) / kNsPerUs;
  constexpr std::int64_t tick_us = rig::SimulatedRobot::kTickUs;
  const std::int64_t ticks = std::min((now_us - tick_us_) / tick_us + 1, kTicksMax);
  bus_->begin_batch(ticks, now_us);
  for (std::int64_t i = 0; i < ticks; ++i, tick_us_ += tick_us) {
    bus_->begin_tick();
    robot_->tick(tick_us_);
    const pm_bridge& bridge = robot_->bridge();
    if (bridge.state == state_ && bridge.faults.first.code == fault_) continue;
    state_ = bridge.state;
    fault_ = bridge.faults.first.code;
    report("state");
  }
  bus_->end_batch();
}

void BridgeProcess::inject(Fields* fields, int axis) {
  can::DeviceFaults device;
  bool is_frozen = false;
  std::int64_t error = 0;
  fields->boolean("mute", &device.is_mute);
  fields->boolean("deaf", &device.is_deaf);
  fields->integer("error", 0, 15, &error);
  fields->boolean("frozen", &is_frozen);
  device.error = static_cast<std::uint32_t>(error);
  robot_->inject(axis, device);
  robot_->freeze_feedback(axis, is_frozen);
}

void BridgeProcess::obey(const std::string& line) {
  JsonValue command;
  Status status = parse_json(line, &command);
  if (status.ok()) {
    Fields fields(command, "");
    const pm_bridge& bridge = robot_->bridge();
    bool is_pressed = bridge.seen.is_estop_input, is_halted = false, wants_report = false;
    std::int64_t axis = -1;
    fields.boolean("estop", &is_pressed);
    const bool has_halted = fields.member("halted") != nullptr;
    fields.boolean("halted", &is_halted);
    fields.boolean("report", &wants_report);
    fields.integer("axis", 0, axes_ - 1, &axis);
    robot_->set_estop(is_pressed);
    if (has_halted) robot_->set_halted(is_halted);
    if (axis >= 0) inject(&fields, static_cast<int>(axis));
    status = fields.finish();
    if (wants_report) report("report");
  }
  if (!status.ok())
    write_line(STDERR_FILENO, JsonLine("error").text("code", status.code).text("message", status.message));
}

void BridgeProcess::read_commands() {
  constexpr std::size_t line_bytes_max = 4096;
  pollfd readable = {STDIN_FILENO, POLLIN, 0};
  if (!has_input_ || ::poll(&readable, 1, 0) <= 0) return;
  char bytes[512];
  const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
  has_input_ = count > 0;
  if (count <= 0) return;
  input_.append(bytes, static_cast<std::size_t>(count));
  for (std::size_t end = input_.find('\n'); end != std::string::npos; end = input_.find('\n')) {
    obey(input_.substr(0, end));
    input_.erase(0, end + 1);
  }
  if (input_.size() > line_bytes_max) input_.clear();
}

void BridgeProcess::run() {
  for (;;) {
    motion::sleep_until(start_ns_ + (tick_us_ + kBatchUs) * kNsPerUs);
    run_batch();
    read_commands();
  }
}

int main_of(int count, char** values) {
  if (count != 2 || std::string(values[1]) == "--help") {
    const int descriptor = count == 2 ? STDOUT_FILENO : STDERR_FILENO;
    static_cast<void>(!::write(descriptor, kHelp, std::strlen(kHelp)));
    return count == 2 ? 0 : kWrongUse;
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::string text;
  BridgeSettings settings;
  Status status = read_settings(values[1], &text);
  if (status.ok()) status = parse_bridge_settings(text, &settings);
  BridgeProcess process;
  const bool is_configured = status.ok();
  if (is_configured) status = process.open(settings);
  if (!status.ok()) {
    write_line(STDERR_FILENO, JsonLine("error").text("code", status.code).text("message", status.message));
    return is_configured ? kNoBus : kWrongUse;
  }
  motion::RealTime real_time;
  for (const Status& one : real_time.enter(settings.real_time))
    write_line(STDERR_FILENO, JsonLine("warning").text("code", one.code).text("message", one.message));
  write_line(STDOUT_FILENO, JsonLine("ready").integer("pid", ::getpid()).text("bus", settings.bus));
  process.run();
}

}  // namespace
}  // namespace premotor::programs

int main(int count, char** values) { return premotor::programs::main_of(count, values); }
