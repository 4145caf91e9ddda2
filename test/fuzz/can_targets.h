// What the CAN fuzzers check, shared by the libFuzzer target and the run of random frames in every build: decoders,
// simulated drives and sessions are fed whatever comes. A function returns the property that did not hold, or "".
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "can/candump_log.h"
#include "can/cannelloni_codec.h"
#include "can/cia402_device.h"
#include "can/cia402_drive.h"
#include "can/damiao_device.h"
#include "can/damiao_drive.h"
#include "can/odrive_device.h"
#include "can/odrive_drive.h"
#include "can/slcan_codec.h"
#include "can/socketcan_bus.h"

namespace can_fuzz {

using namespace premotor::can;

constexpr pm_damiao_range range = {12.5f, 30, 10};
constexpr std::uint8_t node = 5;

inline bool is_near_step(float a, float b, float span, unsigned bits) {
  return std::abs(a - b) <= 1.01f * span / static_cast<float>((1u << bits) - 1u);
}

// Decodes, encodes and decodes again: nothing may change by more than one step.
inline const char* check_damiao(const pm_can_frame& frame) {
  pm_damiao_request request{};
  pm_can_frame again{};
  if (pm_damiao_decode_request(&frame, 1, &range, &request) && request.kind == PM_DAMIAO_KIND_COMMAND) {
    pm_damiao_request second{};
    if (!pm_damiao_encode_command(1, &range, &request.command, &again, nullptr)) return "a decoded command encodes";
    if (!pm_damiao_decode_request(&again, 1, &range, &second)) return "an encoded command decodes";
    if (second.kind != PM_DAMIAO_KIND_COMMAND) return "a command never becomes a special frame";
    if (!is_near_step(request.command.position_rad, second.command.position_rad, 25, 16)) return "position is stable";
    if (!is_near_step(request.command.damping_Nm_s_rad, second.command.damping_Nm_s_rad, 5, 12)) return "kd is stable";
  }
  pm_damiao_feedback feedback{};
  if (pm_damiao_decode_feedback(&frame, 1, 0x11, &range, &feedback)) {
    if (std::abs(feedback.position_rad) > 12.5001f || std::abs(feedback.torque_Nm) > 10.001f)
      return "feedback in range";
    if (pm_damiao_error_name(feedback.error) == nullptr) return "every error has a name";
  }
  pm_damiao_reply reply{};
  static_cast<void>(pm_damiao_decode_reply(&frame, 1, 0x11, &reply));
  return "";
}

inline const char* check_odrive(const pm_can_frame& frame, pm_odrive_version version) {
  pm_odrive_message message{};
  if (!pm_odrive_decode(version, &frame, &message)) return "";
  pm_can_frame again{};
  pm_odrive_message second{};
  if (!pm_odrive_encode(version, &message, &again, nullptr)) return "a decoded ODrive message encodes";
  if (again.id != frame.id || again.data_bytes > frame.data_bytes) return "an ODrive message keeps its id and length";
  if (!pm_odrive_decode(version, &again, &second)) return "an encoded ODrive message decodes";
  if (message.command == PM_ODRIVE_ENCODER_ESTIMATES && !message.is_request &&
      !std::isfinite(message.u.estimates.position_turns)) {
    return "estimates are finite";
  }
  return "";
}

inline const char* check_canopen(const pm_can_frame& frame) {
  for (const bool is_from_device : {false, true}) {
    pm_sdo sdo{}, second{};
    if (!pm_canopen_decode_sdo(&frame, node, is_from_device, &sdo)) continue;
    pm_can_frame again{};
    if (!pm_canopen_encode_sdo(node, is_from_device, &sdo, &again)) return "a decoded SDO encodes";
    if (!pm_canopen_decode_sdo(&again, node, is_from_device, &second)) return "an encoded SDO decodes";
    if (sdo.kind != second.kind || sdo.value != second.value || sdo.index != second.index) return "an SDO is stable";
  }
  std::uint8_t a = 0, b = 0;
  std::uint16_t word = 0;
  std::int32_t counts = 0;
  pm_emergency emergency{};
  static_cast<void>(pm_canopen_decode_nmt(&frame, &a, &b));
  static_cast<void>(pm_canopen_decode_heartbeat(&frame, node, &a));
  static_cast<void>(pm_canopen_decode_emergency(&frame, node, &emergency));
  static_cast<void>(pm_cia402_decode_rpdo1(&frame, node, &word, &counts));
  if (pm_cia402_decode_tpdo1(&frame, node, &word, &counts)) {
    const pm_cia402_state state = pm_cia402_state_of(word);
    if (state != PM_CIA402_UNKNOWN && pm_cia402_state_of(pm_cia402_statusword(state)) != state)
      return "states are stable";
  }
  return "";
}

constexpr int decoders_per_frame = 12;

inline const char* check_decoders(const pm_can_frame& frame) {
  for (const char* problem : {check_damiao(frame), check_odrive(frame, PM_ODRIVE_V0_5),
                              check_odrive(frame, PM_ODRIVE_V0_6), check_canopen(frame)}) {
    if (problem[0] != '\0') return problem;
  }
  return "";
}

// All sessions and all simulated drives on one line of frames.
class Fleet {
 public:
  Fleet()
      : damiao_drive_(damiao_options()),
        odrive_drive_(odrive_options()),
        damiao_(DamiaoDeviceOptions{1, 0x11, range, PM_DAMIAO_MODE_MIT, 0, 0}),
        odrive_(odrive_device_options()),
        cia402_(cia402_device_options()),
        cia402_drive_(cia402_options()) {
    started_ = damiao_drive_.start(0).ok() && odrive_drive_.start(0).ok() && cia402_drive_.start(0).ok();
    axes_[0] = damiao_.axis().position_rad;
    axes_[1] = odrive_.axis().position_rad;
    axes_[2] = cia402_.axis().position_rad;
  }

  // `is_garbage`: the frame is known not to come from a drive, so that no session may report enabled.
  const char* feed(const pm_can_frame& frame, bool is_garbage) {
    if (!started_) return "the sessions start";
    note_enable(frame);
    now_us_ += 100;
    for (Device* device :
         {static_cast<Device*>(&damiao_), static_cast<Device*>(&odrive_), static_cast<Device*>(&cia402_)}) {
      batch_.clear();
      device->accept(frame, now_us_, &batch_);
      batch_.clear();
      device->step(now_us_, &batch_);
      if (!std::isfinite(device->axis().position_rad)) return "an axis stays finite";
    }
    for (Drive* drive : {static_cast<Drive*>(&damiao_drive_), static_cast<Drive*>(&odrive_drive_),
                         static_cast<Drive*>(&cia402_drive_)}) {
      static_cast<void>(drive->accept(frame, now_us_));
      batch_.clear();
      drive->step(now_us_, &batch_);
      for (std::size_t i = 0; i < batch_.count; ++i) {
        if (!is_valid(batch_.frames[i])) return "a session sends valid frames only";
      }
      if (is_garbage && drive->state() == DriveState::enabled) return "no session is enabled by garbage";
      if (drive->state() == DriveState::faulted && drive->reset().ok()) static_cast<void>(drive->start(now_us_));
    }
    return check_still();
  }

 private:
  static DamiaoOptions damiao_options() {
    DamiaoOptions options;
    options.range = range;
    return options;
  }
  static OdriveOptions odrive_options() {
    OdriveOptions options;
    options.node = node;
    options.enable_watchdog_endpoint = 199;
    options.watchdog_timeout_endpoint = 200;
    return options;
  }
  static OdriveDeviceOptions odrive_device_options() {
    OdriveDeviceOptions options;
    options.node = node;
    return options;
  }
  static Cia402DeviceOptions cia402_device_options() {
    Cia402DeviceOptions options;
    options.node = node;
    return options;
  }
  static Cia402Options cia402_options() {
    Cia402Options options;
    options.node = node;
    return options;
  }

  // Frames that may rightly set a drive in motion. Everything else must leave it where it is.
  void note_enable(const pm_can_frame& frame) {
    if (frame.data_bytes != 8 && frame.data_bytes != 6 && frame.data_bytes != 4) return;
    static constexpr std::uint8_t enable[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc};
    static constexpr std::uint8_t zero[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe};
    if (frame.id == 1 && std::memcmp(frame.data, enable, 8) == 0) was_enabled_[0] = true;
    if (frame.id == 1 && std::memcmp(frame.data, zero, 8) == 0) was_enabled_[0] = true;  // it shifts the position
    if (frame.id == (node << 5 | PM_ODRIVE_SET_AXIS_STATE) && frame.data[0] == 8) was_enabled_[1] = true;
    const bool is_rpdo = frame.id == 0x200u + node && (frame.data[0] & 0x0f) == 0x0f;
    const bool is_sdo = frame.id == 0x600u + node && frame.data[1] == 0x40 && frame.data[2] == 0x60;
    if (is_rpdo || is_sdo) was_enabled_[2] = true;
  }

  const char* check_still() const {
    const Device* devices[3] = {&damiao_, &odrive_, &cia402_};
    for (int i = 0; i < 3; ++i) {
      if (was_enabled_[i]) continue;
      if (devices[i]->is_driven()) return "a drive that was never enabled is not driven";
      if (devices[i]->axis().position_rad != axes_[i]) return "a drive that was never enabled never moves";
    }
    return "";
  }

  DamiaoDrive damiao_drive_;
  OdriveDrive odrive_drive_;
  DamiaoDevice damiao_;
  OdriveDevice odrive_;
  Cia402Device cia402_;
  Cia402Drive cia402_drive_;
  FrameBatch batch_;
  std::int64_t now_us_ = 0;
  bool started_ = false;
  bool was_enabled_[3] = {};
  float axes_[3] = {};
};

// The byte streams: slcan, cannelloni, the kernel's records and log lines. What is read must be valid and, written
// again, read the same.
inline const char* check_streams(std::span<const std::uint8_t> bytes) {
  SlcanParser parser;
  for (const std::uint8_t byte : bytes) {
    if (parser.push(static_cast<char>(byte)) != SlcanEvent::frame) continue;
    if (!is_valid(parser.frame())) return "slcan gives valid frames only";
    std::array<char, slcan_text_max> text;
    const std::size_t length = slcan_encode(parser.frame(), text);
    SlcanParser second;
    SlcanEvent event = SlcanEvent::none;
    for (std::size_t i = 0; i < length; ++i) event = second.push(text[i]);
    if (event != SlcanEvent::frame || !is_same(second.frame(), parser.frame())) return "slcan text is stable";
  }
  CannelloniReader reader;
  if (reader.open(bytes)) {
    pm_can_frame frame{};
    CannelloniReader::Result result;
    std::size_t frames = 0;
    while ((result = reader.next(&frame)) == CannelloniReader::Result::frame ||
           result == CannelloniReader::Result::error_frame) {
      if (result == CannelloniReader::Result::frame && !is_valid(frame)) return "cannelloni gives valid frames only";
      if (++frames > bytes.size()) return "cannelloni ends";
    }
  }
  SocketcanRecord record{};
  if (!bytes.empty()) std::memcpy(record.data(), bytes.data(), std::min(bytes.size(), record.size()));
  for (const std::size_t size : {std::size_t{16}, std::size_t{72}, bytes.size()}) {
    pm_can_frame frame{};
    if (socketcan_decode(record, size, &frame) != SocketcanRead::frame) continue;
    SocketcanRecord again{};
    pm_can_frame second{};
    const std::size_t written = socketcan_encode(frame, &again);
    if (socketcan_decode(again, written, &second) != SocketcanRead::frame || !is_same(frame, second)) {
      return "a kernel record is stable";
    }
  }
  CandumpLine line;
  const std::string text(bytes.begin(), bytes.end());
  if (parse_candump(text, &line).ok()) {
    CandumpLine second;
    if (!parse_candump(format_candump(line.time_us, line.interface, line.frame), &second).ok() ||
        !is_same(line.frame, second.frame)) {
      return "a log line is stable";
    }
  }
  return "";
}

}  // namespace can_fuzz
