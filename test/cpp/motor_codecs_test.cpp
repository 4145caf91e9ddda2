// The motor codecs: vectors of protocol/motor/vectors.json in both directions, quantisation bounds on random values,
// refusals, and the CiA 402 state machine as a table.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "motor_vectors.h"
#include "protocol/motor/bytes.h"
#include "protocol/motor/canopen.h"
#include "protocol/motor/cia402.h"
#include "protocol/motor/damiao.h"
#include "protocol/motor/odrive.h"
#include "tap.h"

using premotor::JsonValue;
using vectors::number;
using vectors::text;

namespace {

constexpr std::uint32_t seed = 20261124;

pm_damiao_range range_of(const JsonValue& entry) {
  const auto items = entry.find("range")->items();
  return {static_cast<float>(items[0].number()), static_cast<float>(items[1].number()),
          static_cast<float>(items[2].number())};
}

float value_of(const JsonValue& entry, std::size_t i) {
  return static_cast<float>(entry.find("values")->items()[i].number());
}

void test_damiao_command_vector(const JsonValue& entry, const std::string& name) {
  const pm_damiao_range range = range_of(entry);
  const pm_damiao_command command = {value_of(entry, 0), value_of(entry, 1), value_of(entry, 2), value_of(entry, 3),
                                     value_of(entry, 4)};
  pm_can_frame frame{};
  bool is_clamped = false;
  tap::ok(pm_damiao_encode_command(1, &range, &command, &frame, &is_clamped), name + ": encodes");
  tap::equal(vectors::show(frame), vectors::expected(entry), name + ": bytes");
  tap::equal(is_clamped, entry.find("clamped")->boolean(), name + ": says whether it clamped");
}

void test_damiao_feedback_vector(const JsonValue& entry, const std::string& name) {
  const pm_damiao_range range = range_of(entry);
  const auto motor = static_cast<std::uint16_t>(number(entry, "motor_id"));
  const auto master = static_cast<std::uint16_t>(number(entry, "master_id"));
  const pm_can_frame frame = vectors::frame_of(entry);
  pm_damiao_feedback found{};
  tap::ok(pm_damiao_decode_feedback(&frame, motor, master, &range, &found), name + ": decodes");
  tap::ok(found.error == number(entry, "error") && found.mosfet_C == number(entry, "mosfet_C") &&
              found.rotor_C == number(entry, "rotor_C"),
          name + ": error and temperatures");
  // Truncation: the value read back lies up to one step below.
  tap::is_near(found.position_rad, value_of(entry, 0), 2.001 * range.position_rad / 65535, name + ": position");
  tap::is_near(found.velocity_rad_s, value_of(entry, 1), 2.001 * range.velocity_rad_s / 4095, name + ": velocity");
  tap::is_near(found.torque_Nm, value_of(entry, 2), 2.001 * range.torque_Nm / 4095, name + ": torque");
  found.position_rad = value_of(entry, 0);
  found.velocity_rad_s = value_of(entry, 1);
  found.torque_Nm = value_of(entry, 2);
  pm_can_frame encoded{};
  tap::ok(pm_damiao_encode_feedback(master, &range, &found, &encoded, nullptr), name + ": the device encodes");
  tap::equal(vectors::show(encoded), vectors::expected(entry), name + ": the same bytes");
}

void test_damiao_other_vector(const JsonValue& entry, const std::string& kind, const std::string& name) {
  const auto motor = static_cast<std::uint16_t>(number(entry, "motor_id"));
  const auto reg = static_cast<std::uint8_t>(number(entry, "register"));
  const auto value = static_cast<float>(number(entry, "value"));
  const pm_damiao_range range = {12.5f, 30, 10};
  pm_can_frame frame{};
  pm_damiao_kind expected = PM_DAMIAO_KIND_READ;
  if (kind == "read") pm_damiao_encode_read(motor, reg, &frame);
  if (kind == "refresh") pm_damiao_encode_refresh(motor, &frame), expected = PM_DAMIAO_KIND_REFRESH;
  if (kind == "write_f32") pm_damiao_encode_write_f32(motor, reg, value, &frame), expected = PM_DAMIAO_KIND_WRITE;
  if (kind == "write_u32") {
    pm_damiao_encode_write_u32(motor, reg, static_cast<std::uint32_t>(value), &frame);
    expected = PM_DAMIAO_KIND_WRITE;
  }
  if (kind == "enable") expected = PM_DAMIAO_KIND_ENABLE;
  if (kind == "disable") expected = PM_DAMIAO_KIND_DISABLE;
  if (kind == "set_zero") expected = PM_DAMIAO_KIND_SET_ZERO;
  if (kind == "clear_error") expected = PM_DAMIAO_KIND_CLEAR_ERROR;
  static_cast<void>(pm_damiao_encode_special(motor, expected, &frame));
  tap::equal(vectors::show(frame), vectors::expected(entry), name + ": bytes");
  pm_damiao_request request{};
  tap::ok(pm_damiao_decode_request(&frame, motor, &range, &request) && request.kind == expected && request.reg == reg,
          name + ": the device understands");
  tap::ok(!pm_damiao_decode_request(&frame, static_cast<std::uint16_t>(motor + 1), &range, &request),
          name + ": another motor does not");
}

void test_damiao_vectors(const JsonValue& document) {
  for (const JsonValue& entry : document.find("damiao")->items()) {
    const std::string kind = text(entry, "kind"), name = "Damiao " + kind + ", " + text(entry, "name");
    if (kind == "command") {
      test_damiao_command_vector(entry, name);
    } else if (kind == "feedback") {
      test_damiao_feedback_vector(entry, name);
    } else if (kind == "reply") {
      const pm_can_frame frame = vectors::frame_of(entry);
      pm_damiao_reply reply{};
      tap::ok(pm_damiao_decode_reply(&frame, 1, 0x11, &reply) && !reply.is_write && reply.reg == 21, name);
      tap::is_near(pm_get_f32_le(reply.value), 12.5, 0, name + ": value");
      pm_can_frame encoded{};
      pm_damiao_encode_reply(0x11, &reply, &encoded);
      tap::equal(vectors::show(encoded), vectors::expected(entry), name + ": the device's bytes");
    } else {
      test_damiao_other_vector(entry, kind, name);
    }
  }
}

// Random commands within range: what the motor decodes lies at most one step below what was asked for.
void test_damiao_quantisation() {
  std::mt19937 random(seed);
  const pm_damiao_range range = {12.5f, 8, 28};
  const auto draw = [&](float max) { return std::uniform_real_distribution<float>(-max, max)(random); };
  double worst = 0;  // in steps
  int special = 0, clamped = 0;
  for (int i = 0; i < 200000; ++i) {
    const pm_damiao_command asked = {draw(12.5f), draw(8), std::abs(draw(500)), std::abs(draw(5)), draw(28)};
    pm_can_frame frame{};
    bool is_clamped = false;
    pm_damiao_request got{};
    if (!pm_damiao_encode_command(3, &range, &asked, &frame, &is_clamped) ||
        !pm_damiao_decode_request(&frame, 3, &range, &got)) {
      tap::ok(false, "Damiao: random command " + std::to_string(i) + " survives");
      return;
    }
    special += got.kind != PM_DAMIAO_KIND_COMMAND ? 1 : 0;
    clamped += is_clamped ? 1 : 0;
    const double errors[5] = {(asked.position_rad - got.command.position_rad) * 65535.0 / 25,
                              (asked.velocity_rad_s - got.command.velocity_rad_s) * 4095.0 / 16,
                              (asked.stiffness_Nm_rad - got.command.stiffness_Nm_rad) * 4095.0 / 500,
                              (asked.damping_Nm_s_rad - got.command.damping_Nm_s_rad) * 4095.0 / 5,
                              (asked.torque_Nm - got.command.torque_Nm) * 4095.0 / 56};
    for (const double error : errors) worst = std::max(worst, std::max(error, -error * 50));
  }
  tap::note("Damiao: worst quantisation error " + std::to_string(worst) + " steps, seed " + std::to_string(seed));
  tap::ok(special == 0 && clamped == 0, "Damiao: 200000 random commands stay commands, none clamped");
  // Float arithmetic may round a value that sits on a step up or down: hence 1.02 steps below and 0.02 above.
  tap::ok(worst <= 1.02, "Damiao: within one step, always below");
}

void test_damiao_refusals() {
  const pm_damiao_range range = {12.5f, 30, 10};
  const float bad[] = {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  int refused = 0;
  for (const float value : bad) {
    for (int field = 0; field < 5; ++field) {
      pm_damiao_command command{};
      float* fields[5] = {&command.position_rad, &command.velocity_rad_s, &command.stiffness_Nm_rad,
                          &command.damping_Nm_s_rad, &command.torque_Nm};
      *fields[field] = value;
      pm_can_frame frame{};
      frame.id = 77;
      refused += !pm_damiao_encode_command(1, &range, &command, &frame, nullptr) && frame.id == 77 ? 1 : 0;
    }
    pm_damiao_range broken = range;
    broken.velocity_rad_s = value;
    const pm_damiao_command command{};
    pm_can_frame frame{};
    refused += !pm_damiao_encode_command(1, &broken, &command, &frame, nullptr) ? 1 : 0;
    refused += !pm_damiao_encode_write_f32(1, 21, value, &frame) ? 1 : 0;
  }
  tap::equal(refused, 3 * 7, "Damiao: nothing that is not finite is encoded");
  pm_can_frame frame{};
  tap::ok(!pm_damiao_encode_special(1, PM_DAMIAO_KIND_COMMAND, &frame), "Damiao: a command is no special frame");
  pm_damiao_feedback feedback{};
  frame = {};
  frame.id = 0x11;
  frame.data_bytes = 7;
  frame.data[0] = 1;
  tap::ok(!pm_damiao_decode_feedback(&frame, 1, 0x11, &range, &feedback), "Damiao: seven bytes are no feedback");
  frame.data_bytes = 8;
  tap::ok(pm_damiao_decode_feedback(&frame, 1, 0x11, &range, &feedback), "Damiao: eight are");
  frame.is_extended = true;
  tap::ok(!pm_damiao_decode_feedback(&frame, 1, 0x11, &range, &feedback), "Damiao: not with a 29-bit identifier");
  frame.is_extended = false;
  frame.is_remote = true;
  tap::ok(!pm_damiao_decode_feedback(&frame, 1, 0x11, &range, &feedback), "Damiao: nor from a remote request");
  for (int error = 0; error < 16; ++error) {
    const auto code = static_cast<std::uint8_t>(error);
    tap::ok(std::strlen(pm_damiao_error_name(code)) > 0 && pm_damiao_is_fault(code) == (error > 1),
            "Damiao: error " + std::to_string(error) + " is " + pm_damiao_error_name(code));
  }
}

// The fields of a vector, read from the decoded message by name.
double odrive_field(const pm_odrive_message& m, const std::string& key) {
  const bool is_heartbeat = m.command == PM_ODRIVE_HEARTBEAT;
  if (key == "axis_error") return m.u.heartbeat.axis_error;
  if (key == "axis_state") return is_heartbeat ? m.u.heartbeat.axis_state : m.u.axis_state;
  if (key == "procedure_result") return m.u.heartbeat.procedure_result;
  if (key == "has_motor_error") return m.u.heartbeat.has_motor_error;
  if (key == "has_encoder_error") return m.u.heartbeat.has_encoder_error;
  if (key == "has_controller_error") return m.u.heartbeat.has_controller_error;
  if (key == "is_trajectory_done") return m.u.heartbeat.is_trajectory_done;
  if (key == "active") return m.u.error.active;
  if (key == "disarm_reason") return m.u.error.disarm_reason;
  if (key == "fw_minor") return m.u.version.fw_minor;
  if (key == "fw_revision") return m.u.version.fw_revision;
  if (key == "hw_major") return m.u.version.hw_major;
  if (key == "hw_minor") return m.u.version.hw_minor;
  if (key == "protocol") return m.u.version.protocol;
  if (key == "opcode") return m.u.sdo.opcode;
  if (key == "endpoint") return m.u.sdo.endpoint;
  if (key == "value") return pm_get_u32_le(m.u.sdo.value);
  if (key == "control") return m.u.mode.control;
  if (key == "input") return m.u.mode.input;
  if (key == "voltage_V") return m.u.bus.voltage_V;
  if (key == "current_A") return m.u.bus.current_A;
  if (key == "torque_Nm") {
    if (m.command == PM_ODRIVE_SET_INPUT_TORQUE) return m.u.input_torque_Nm;
    return m.command == PM_ODRIVE_SET_INPUT_VELOCITY ? m.u.input_velocity.torque_Nm : m.u.input_position.torque_Nm;
  }
  if (key == "position_turns") {
    return m.command == PM_ODRIVE_ENCODER_ESTIMATES ? m.u.estimates.position_turns : m.u.input_position.position_turns;
  }
  if (key == "velocity_turns_s") {
    if (m.command == PM_ODRIVE_SET_INPUT_VELOCITY) return m.u.input_velocity.velocity_turns_s;
    return m.command == PM_ODRIVE_ENCODER_ESTIMATES ? m.u.estimates.velocity_turns_s
                                                    : m.u.input_position.velocity_turns_s;
  }
  return 0;  // hw_variant, fw_major, fw_unreleased: 0 in the vector
}

void test_odrive_vectors(const JsonValue& document) {
  for (const JsonValue& entry : document.find("odrive")->items()) {
    const std::string name = "ODrive " + text(entry, "version") + ", " + text(entry, "name");
    const pm_odrive_version version = text(entry, "version") == "0.5" ? PM_ODRIVE_V0_5 : PM_ODRIVE_V0_6;
    const pm_can_frame frame = vectors::frame_of(entry);
    pm_odrive_message message{};
    if (!tap::ok(pm_odrive_decode(version, &frame, &message), name + ": decodes")) continue;
    tap::ok(message.node == number(entry, "node") && message.command == number(entry, "command"), name + ": address");
    for (const premotor::JsonMember& field : entry.find("fields")->members()) {
      tap::is_near(odrive_field(message, field.key), field.value.number(), 1e-6, name + ": " + field.key);
    }
    pm_can_frame encoded{};
    tap::ok(pm_odrive_encode(version, &message, &encoded, nullptr), name + ": encodes");
    tap::equal(vectors::show(encoded), vectors::expected(entry), name + ": bytes");
  }
}

void test_odrive_refusals() {
  pm_odrive_message message{};
  pm_can_frame frame{};
  for (const std::uint8_t command : {0x00, 0x03, 0x04, 0x05}) {
    message.command = command;
    tap::ok(!pm_odrive_encode(PM_ODRIVE_V0_5, &message, &frame, nullptr),
            "ODrive 0.5 has no message " + std::to_string(command) + " of this meaning");
  }
  message.command = PM_ODRIVE_SET_INPUT_POSITION;
  message.u.input_position = {std::nanf(""), 0, 0};
  tap::ok(!pm_odrive_encode(PM_ODRIVE_V0_6, &message, &frame, nullptr), "ODrive: a position must be finite");
  message.u.input_position = {1, 40, 0};
  bool is_clamped = false;
  tap::ok(pm_odrive_encode(PM_ODRIVE_V0_6, &message, &frame, &is_clamped) && is_clamped,
          "ODrive: a feed-forward of 40 turns/s is clamped and says so");
  tap::equal(static_cast<int>(pm_get_i16_le(frame.data + 4)), 32767, "ODrive: to 32.767");
  message.node = 64;
  tap::ok(!pm_odrive_encode(PM_ODRIVE_V0_6, &message, &frame, nullptr), "ODrive: node 64 does not exist");
  tap::equal(std::string(pm_odrive_error_name(PM_ODRIVE_V0_5, 0x800)), std::string("watchdog timer expired"),
             "ODrive 0.5: watchdog bit");
  tap::equal(std::string(pm_odrive_error_name(PM_ODRIVE_V0_6, 0x1000000)), std::string("watchdog timer expired"),
             "ODrive 0.6: watchdog bit");
}

pm_can_frame encode_canopen(const JsonValue& entry, const std::string& kind) {
  const auto node = static_cast<std::uint8_t>(number(entry, "node"));
  const auto word = static_cast<std::uint16_t>(number(entry, "word"));
  const auto counts = static_cast<std::int32_t>(number(entry, "counts"));
  pm_can_frame frame{};
  if (kind == "nmt") pm_canopen_encode_nmt(static_cast<pm_nmt_command>(number(entry, "command")), node, &frame);
  if (kind == "sync") pm_canopen_encode_sync(&frame);
  if (kind == "heartbeat") {
    pm_canopen_encode_heartbeat(node, static_cast<std::uint8_t>(number(entry, "state")), &frame);
  }
  if (kind == "emergency") {
    const pm_emergency emergency = {static_cast<std::uint16_t>(number(entry, "code")), 1, {0, 0, 0, 0, 0}};
    pm_canopen_encode_emergency(node, &emergency, &frame);
  }
  if (kind == "rpdo1") pm_cia402_encode_rpdo1(node, word, counts, &frame);
  if (kind == "tpdo1") pm_cia402_encode_tpdo1(node, word, counts, &frame);
  if (kind != "sdo_request" && kind != "sdo_reply") return frame;
  pm_sdo sdo = {PM_SDO_ABORT, static_cast<std::uint16_t>(number(entry, "index")),
                static_cast<std::uint8_t>(number(entry, "subindex")), static_cast<std::uint8_t>(number(entry, "bytes")),
                static_cast<std::uint32_t>(number(entry, "value"))};
  const std::string operation = text(entry, "sdo");
  if (operation == "upload") sdo.kind = PM_SDO_UPLOAD_REQUEST;
  if (operation == "download") sdo.kind = PM_SDO_DOWNLOAD_REQUEST;
  if (operation == "upload_reply") sdo.kind = PM_SDO_UPLOAD_REPLY;
  if (operation == "download_reply") sdo.kind = PM_SDO_DOWNLOAD_REPLY;
  static_cast<void>(pm_canopen_encode_sdo(node, kind == "sdo_reply", &sdo, &frame));
  pm_sdo decoded{};
  tap::ok(pm_canopen_decode_sdo(&frame, node, kind == "sdo_reply", &decoded) && decoded.kind == sdo.kind &&
              decoded.index == sdo.index && decoded.value == sdo.value && decoded.value_bytes == sdo.value_bytes,
          "CANopen, " + text(entry, "name") + ": decodes to the same");
  tap::ok(!pm_canopen_decode_sdo(&frame, node, kind != "sdo_reply", &decoded),
          "CANopen, " + text(entry, "name") + ": not in the other direction");
  return frame;
}

void test_canopen_vectors(const JsonValue& document) {
  for (const JsonValue& entry : document.find("canopen")->items()) {
    const std::string kind = text(entry, "kind"), name = "CANopen, " + text(entry, "name");
    if (kind == "state") {
      const pm_cia402_state state = pm_cia402_state_of(static_cast<std::uint16_t>(number(entry, "word")));
      tap::equal(std::string(pm_cia402_state_name(state)), text(entry, "state"), name);
      tap::ok(pm_cia402_state_of(pm_cia402_statusword(state)) == state, name + ": the device says the same");
      continue;
    }
    tap::equal(vectors::show(encode_canopen(entry, kind)), vectors::expected(entry), name + ": bytes");
  }
}

// The standard's table, state by state, against every controlword of eight bits.
void test_cia402_transitions() {
  pm_cia402_state state = PM_CIA402_SWITCH_ON_DISABLED;
  for (int i = 0; i < 3; ++i) state = pm_cia402_transition(state, pm_cia402_next_controlword(state), 0);
  tap::ok(state == PM_CIA402_ENABLED, "CiA 402: three controlwords enable");
  int enabled_wrongly = 0, left_fault_wrongly = 0;
  for (unsigned word = 0; word < 256; ++word) {
    const auto control = static_cast<std::uint16_t>(word);
    for (const pm_cia402_state from : {PM_CIA402_SWITCH_ON_DISABLED, PM_CIA402_READY, PM_CIA402_QUICK_STOP,
                                       PM_CIA402_FAULT, PM_CIA402_FAULT_REACTION, PM_CIA402_NOT_READY}) {
      enabled_wrongly += pm_cia402_transition(from, control, 0) == PM_CIA402_ENABLED ? 1 : 0;
    }
    left_fault_wrongly += pm_cia402_transition(PM_CIA402_FAULT, control, 0x80) != PM_CIA402_FAULT ? 1 : 0;
    if ((word & 0x80) == 0) {
      left_fault_wrongly += pm_cia402_transition(PM_CIA402_FAULT, control, 0) != PM_CIA402_FAULT ? 1 : 0;
    }
  }
  tap::equal(enabled_wrongly, 0, "CiA 402: enabled is reached from switched on only");
  tap::equal(left_fault_wrongly, 0, "CiA 402: a fault needs the rising edge of bit 7");
  tap::ok(pm_cia402_transition(PM_CIA402_FAULT, 0x80, 0) == PM_CIA402_SWITCH_ON_DISABLED, "CiA 402: fault reset");
  tap::ok(pm_cia402_transition(PM_CIA402_ENABLED, 0x02, 0x0f) == PM_CIA402_QUICK_STOP, "CiA 402: quick stop");
  tap::ok(pm_cia402_transition(PM_CIA402_ENABLED, 0x00, 0x0f) == PM_CIA402_SWITCH_ON_DISABLED, "CiA 402: voltage off");
  tap::ok(pm_cia402_transition(PM_CIA402_ENABLED, 0x07, 0x0f) == PM_CIA402_SWITCHED_ON, "CiA 402: disable operation");
  std::int32_t counts = 7;
  tap::ok(pm_cia402_counts(3.14159265358979, 65536, &counts) && counts == 32768, "CiA 402: half a turn in counts");
  tap::ok(!pm_cia402_counts(std::nan(""), 65536, &counts) && !pm_cia402_counts(1e9, 65536, &counts) && counts == 32768,
          "CiA 402: what does not fit is refused");
}

}  // namespace

int main() {
  JsonValue document;
  const premotor::Status status = vectors::read(&document);
  if (!tap::ok(status.ok(), "protocol/motor/vectors.json is read " + status.message)) return tap::finish();
  test_damiao_vectors(document);
  test_damiao_quantisation();
  test_damiao_refusals();
  test_odrive_vectors(document);
  test_odrive_refusals();
  test_canopen_vectors(document);
  test_cia402_transitions();
  return tap::finish();
}
