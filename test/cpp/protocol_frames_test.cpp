// frames.c against protocol/vectors.json (test/protocol/vectors.test.ts checks the TypeScript frames against the same
// file), and what vectors cannot say: every single-bit error of a frame is refused, and random frames never unpack to
// something that packs differently.
#include "protocol/frames.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "tap.h"

using premotor::JsonValue;

namespace {

std::vector<std::uint8_t> bytes_of(const std::string& hex) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::int64_t integer(const JsonValue& object, const std::string& key) {
  const JsonValue* found = object.find(key);
  return found == nullptr ? 0 : found->is_boolean() ? found->boolean() : found->integer();
}

pm_can_frame frame_of(const JsonValue& value) {
  pm_can_frame frame{};
  frame.id = static_cast<std::uint32_t>(integer(value, "id"));
  const auto bytes = bytes_of(value.find("data")->string());
  frame.data_bytes = static_cast<std::uint8_t>(bytes.size());
  std::memcpy(frame.data, bytes.data(), bytes.size());
  frame.is_fd = frame.is_bit_rate_switched = bytes.size() > 8;
  return frame;
}

bool same(const pm_can_frame& a, const pm_can_frame& b) {
  return a.id == b.id && a.data_bytes == b.data_bytes && std::memcmp(a.data, b.data, sizeof a.data) == 0 &&
         a.is_fd == b.is_fd && a.is_bit_rate_switched == b.is_bit_rate_switched && !a.is_extended && !a.is_remote;
}

void read_slots(const JsonValue& fields, pm_slot* slots) {
  for (const JsonValue& row : fields.find("slots")->items()) {
    slots->position = static_cast<std::int32_t>(row.items()[0].integer());
    slots->velocity = static_cast<std::int16_t>(row.items()[1].integer());
    slots++->torque = static_cast<std::int16_t>(row.items()[2].integer());
  }
}

template <typename To>
void set(To& to, const JsonValue& fields, const std::string& key) {
  to = static_cast<To>(integer(fields, key));
}

pm_setpoint_part setpoint_of(const JsonValue& fields) {
  pm_setpoint_part part{};
  set(part.part, fields, "part");
  set(part.sequence, fields, "sequence");
  set(part.session, fields, "session");
  set(part.token, fields, "token");
  set(part.due_us, fields, "due_us");
  set(part.has_torque, fields, "has_torque");
  set(part.axis_count, fields, "axis_count");
  read_slots(fields, part.slots);
  return part;
}

pm_feedback_part feedback_of(const JsonValue& fields) {
  pm_feedback_part part{};
  set(part.part, fields, "part");
  set(part.sequence, fields, "sequence");
  set(part.accepted_sequence, fields, "accepted_sequence");
  set(part.state, fields, "state");
  set(part.fault, fields, "fault");
  set(part.clock_us, fields, "clock_us");
  set(part.valid, fields, "valid");
  set(part.axis_count, fields, "axis_count");
  read_slots(fields, part.slots);
  return part;
}

// The frames of eight bytes without a struct of their own: widths of their fields in order, negative for reserved
// bytes.
struct ShortForm {
  const char* kind;
  std::uint8_t used;
  std::vector<std::pair<const char*, int>> fields;
};
const std::vector<ShortForm>& short_forms() {
  static const std::vector<ShortForm> forms = {
      {"estop", 0, {}},
      {"disarm", 0, {}},
      {"silence", 0, {}},
      {"heartbeat", 6, {{"version_and_state", 1}, {"fault", 1}, {"clock_us", 4}}},
      {"hello", 4, {{"version_min", 1}, {"version_max", 1}, {"wishes", 1}, {"axis_count", 1}}},
      {"welcome", 6, {{"version", 1}, {"version_max", 1}, {"agreed", 1}, {"axis_count", 1}, {"boot", 2}}},
      {"arm_request", 6, {{"host_nonce", 4}, {"version", 1}, {"axis_count", 1}}},
      {"arm_challenge", 4, {{"bridge_nonce", 4}}},
      {"arm_response", 4, {{"answer", 4}}},
      {"arm_result", 4, {{"result", 1}, {"axis", 1}, {"session", 2}}},
      {"limit_read", 2, {{"axis", 1}, {"field", 1}}},
      {"limit_commit", 4, {{"axis_count", 1}, {"", 1}, {"checksum", 2}}},
      {"limit_result", 6, {{"result", 1}, {"axis", 1}, {"field", 1}, {"", 1}, {"checksum", 2}}},
      {"fault_clear", 1, {{"fault", 1}}},
      {"counter", 6, {{"counter", 1}, {"", 1}, {"value", 4}}},
      {"indicate", 1, {{"pattern", 1}}},
      {"firmware_ask", 1, {{"fact", 1}}},
  };
  return forms;
}

bool check_short(const std::string& kind, const JsonValue& fields, const pm_can_frame& given) {
  for (const ShortForm& form : short_forms()) {
    if (form.kind != kind) continue;
    std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {};
    std::size_t at = 0;
    for (const auto& [name, bytes] : form.fields) {
      const auto value = static_cast<std::uint32_t>(integer(fields, name));
      for (int i = 0; i < bytes; ++i) payload[at++] = static_cast<std::uint8_t>(value >> (8 * i));
    }
    pm_can_frame frame;
    pm_short_pack(&frame, given.id, payload);
    return same(frame, given) && pm_short_is_intact(&given, form.used);
  }
  return false;
}

// Facts, operations and pieces of an image.
bool check_update(const std::string& kind, const JsonValue& fields, const pm_can_frame& given) {
  pm_can_frame frame{};
  pm_can_frame again{};
  if (kind == "firmware_fact" || kind == "update" || kind == "update_status") {
    const bool is_status = kind == "update_status", is_fact = kind == "firmware_fact";
    pm_word_item part{};
    set(part.key, fields, is_fact ? "fact" : is_status ? "operation_and_state" : "operation");
    set(part.detail, fields, is_fact ? "" : is_status ? "result" : "flags");
    set(part.value, fields, is_status ? "offset" : "value");
    pm_word_pack(&frame, given.id, &part);
    pm_word_item found;
    if (!pm_word_unpack(&given, &found)) return false;
    pm_word_pack(&again, given.id, &found);
  } else {
    const bool is_block = kind == "update_block";
    pm_update_piece part{};
    part.bytes = PM_UPDATE_WORD_BYTES;
    if (is_block) {
      set(part.offset, fields, "offset");
      set(part.bytes, fields, "bytes");
      const auto data = bytes_of(fields.find("data")->string());
      std::memcpy(part.data, data.data(), data.size());
    } else {
      part.offset = static_cast<std::uint32_t>(integer(fields, "word_index")) * PM_UPDATE_WORD_BYTES;
      pm_put_u32(part.data, static_cast<std::uint32_t>(integer(fields, "word")));
    }
    pm_update_piece_pack(&frame, &part, is_block);
    pm_update_piece found;
    if (!pm_update_piece_unpack(&given, &found)) return false;
    pm_update_piece_pack(&again, &found, is_block);
  }
  return same(frame, given) && same(again, given);
}

bool check_valid(const std::string& kind, const JsonValue& fields, const pm_can_frame& given) {
  pm_can_frame frame{};
  pm_can_frame again{};
  if (kind == "setpoint") {
    const pm_setpoint_part part = setpoint_of(fields);
    pm_setpoint_pack(&frame, &part);
    pm_setpoint_part found;
    if (!pm_setpoint_unpack(&given, &found)) return false;
    pm_setpoint_pack(&again, &found);
  } else if (kind == "feedback") {
    const pm_feedback_part part = feedback_of(fields);
    pm_feedback_pack(&frame, &part);
    pm_feedback_part found;
    if (!pm_feedback_unpack(&given, &found)) return false;
    pm_feedback_pack(&again, &found);
  } else if (kind == "axis_feedback") {
    pm_axis_feedback part{};
    set(part.axis, fields, "axis");
    set(part.position_e6, fields, "position_e6");
    set(part.velocity, fields, "velocity");
    set(part.is_valid, fields, "is_valid");
    pm_axis_feedback_pack(&frame, &part);
    pm_axis_feedback found;
    if (!pm_axis_feedback_unpack(&given, &found)) return false;
    pm_axis_feedback_pack(&again, &found);
  } else if (kind == "fault") {
    pm_fault_report part{};
    set(part.fault, fields, "fault");
    set(part.axis, fields, "axis");
    set(part.detail, fields, "detail");
    set(part.later_count, fields, "later_count");
    set(part.age_ms, fields, "age_ms");
    pm_fault_pack(&frame, &part);
    pm_fault_report found;
    if (!pm_fault_unpack(&given, &found)) return false;
    pm_fault_pack(&again, &found);
  } else if (kind == "limit_write" || kind == "limit_value") {
    pm_limit_item part{};
    set(part.axis, fields, "axis");
    set(part.field, fields, "field");
    set(part.value, fields, "value");
    pm_limit_pack(&frame, given.id, &part);
    pm_limit_item found;
    if (!pm_limit_unpack(&given, &found)) return false;
    pm_limit_pack(&again, given.id, &found);
  } else if (kind == "firmware_fact" || kind.starts_with("update")) {
    return check_update(kind, fields, given);
  } else {
    return check_short(kind, fields, given);
  }
  return same(frame, given) && same(again, given);
}

bool check_classic(const JsonValue& vector) {
  const JsonValue& fields = *vector.find("fields");
  const auto frames = vector.find("frames")->items();
  const auto axis_count = static_cast<std::uint8_t>(integer(fields, "axis_count"));
  if (frames.size() != 1u + pm_classic_part_count(axis_count)) return false;
  std::int16_t values[PM_CLASSIC_PARTS_MAX * PM_VALUES_PER_PART] = {};
  std::size_t count = 0;
  for (const JsonValue& value : fields.find("values")->items()) {
    values[count++] = static_cast<std::int16_t>(value.integer());
  }
  pm_classic_head head{};
  set(head.sequence, fields, "sequence");
  set(head.token, fields, "token");
  set(head.due_100us, fields, "due_100us");
  const auto session = static_cast<std::uint16_t>(integer(fields, "session"));
  head.set_crc = pm_classic_set_crc(&head, session, values, pm_classic_part_count(axis_count));
  pm_can_frame frame{};
  pm_classic_head_pack(&frame, &head);
  pm_classic_head found_head;
  const pm_can_frame given = frame_of(frames[0]);
  bool good = same(frame, given) && pm_classic_head_unpack(&given, &found_head) && found_head.set_crc == head.set_crc;
  for (std::uint8_t k = 1; k < frames.size(); ++k) {
    pm_classic_part part{k, static_cast<std::uint8_t>(head.sequence & 255), {}};
    std::memcpy(part.values, values + 3 * (k - 1), sizeof part.values);
    pm_classic_part_pack(&frame, &part);
    const pm_can_frame given_part = frame_of(frames[k]);
    pm_classic_part found;
    good = good && same(frame, given_part) && pm_classic_part_unpack(&given_part, &found) && found.part == k &&
           std::memcmp(found.values, part.values, sizeof part.values) == 0;
  }
  return good;
}

bool unpacks(const std::string& kind, const pm_can_frame& frame) {
  pm_setpoint_part setpoint;
  pm_feedback_part feedback;
  pm_axis_feedback axis;
  pm_fault_report fault;
  pm_limit_item item;
  if (kind == "setpoint") return pm_setpoint_unpack(&frame, &setpoint);
  if (kind == "feedback") return pm_feedback_unpack(&frame, &feedback);
  if (kind == "axis_feedback") return pm_axis_feedback_unpack(&frame, &axis);
  if (kind == "fault") return pm_fault_unpack(&frame, &fault);
  if (kind == "limit_write" || kind == "limit_value") return pm_limit_unpack(&frame, &item);
  pm_word_item word;
  pm_update_piece piece;
  if (kind == "firmware_fact") return pm_word_unpack(&frame, &word) && word.detail == 0;
  if (kind == "update" || kind == "update_status") return pm_word_unpack(&frame, &word);
  if (kind == "update_word" || kind == "update_block") return pm_update_piece_unpack(&frame, &piece);
  for (const ShortForm& form : short_forms()) {
    if (form.kind == kind) return pm_short_is_intact(&frame, form.used);
  }
  return true;
}

void quantising(const JsonValue& rows) {
  for (const JsonValue& row : rows.items()) {
    const JsonValue& given = row.items()[0];
    const double value = given.is_number()         ? given.number()
                         : given.string() == "nan" ? std::numeric_limits<double>::quiet_NaN()
                         : given.string() == "inf" ? std::numeric_limits<double>::infinity()
                                                   : -std::numeric_limits<double>::infinity();
    const std::int32_t found =
        pm_quantise(value, row.items()[1].number(), static_cast<std::int32_t>(row.items()[2].integer()));
    tap::equal(found, row.items()[3].integer(), "quantises " + given.describe());
  }
}

// A checksum of 16 bits finds every error of one bit, and every error within 16 bits.
void bit_errors(const std::string& kind, const pm_can_frame& frame) {
  int taken = 0;
  for (int bit = 0; bit < frame.data_bytes * 8; ++bit) {
    pm_can_frame changed = frame;
    changed.data[bit / 8] = static_cast<std::uint8_t>(changed.data[bit / 8] ^ 1u << bit % 8);
    taken += unpacks(kind, changed);
  }
  tap::equal(taken, 0, kind + ": no frame with one wrong bit unpacks");
}

void random_frames() {
  constexpr unsigned seed = 20;
  tap::note("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  int different = 0;
  int unpacked = 0;
  for (int i = 0; i < 20000; ++i) {
    pm_setpoint_part part{};
    part.axis_count = static_cast<std::uint8_t>(1 + random() % PM_AXES_MAX);
    part.part = static_cast<std::uint8_t>(random() % pm_part_count(part.axis_count));
    part.sequence = static_cast<std::uint16_t>(random());
    part.session = static_cast<std::uint16_t>(random());
    part.token = static_cast<std::uint16_t>(random());
    part.due_us = random();
    part.has_torque = random() % 2 == 0;
    for (pm_slot& slot : part.slots) {
      slot.position = static_cast<std::int32_t>(random());
      slot.velocity = static_cast<std::int16_t>(random());
      slot.torque = part.has_torque ? static_cast<std::int16_t>(random()) : std::int16_t{0};
    }
    for (int s = 0; s < PM_SLOTS_PER_PART; ++s) {
      if (part.part * PM_SLOTS_PER_PART + s >= part.axis_count) part.slots[s] = {0, 0, 0};
    }
    pm_can_frame frame;
    pm_setpoint_pack(&frame, &part);
    pm_setpoint_part found;
    if (!pm_setpoint_unpack(&frame, &found)) continue;
    ++unpacked;
    pm_can_frame again;
    pm_setpoint_pack(&again, &found);
    different += !same(frame, again);
  }
  tap::ok(unpacked > 19900 && different == 0, "random setpoints survive packing and unpacking");
}

void form() {
  const std::uint8_t payload[6] = {};
  pm_can_frame frame;
  pm_short_pack(&frame, PM_ID_DISARM, payload);
  pm_can_frame other = frame;
  other.is_extended = true;
  tap::ok(pm_short_is_intact(&frame, 0) && !pm_short_is_intact(&other, 0), "29-bit identifiers are refused");
  other = frame;
  other.is_remote = true;
  tap::ok(!pm_short_is_intact(&other, 0), "remote frames are refused");
  pm_setpoint_part part{};
  part.axis_count = 1;
  pm_setpoint_pack(&frame, &part);
  other = frame;
  other.is_fd = false;
  tap::ok(pm_setpoint_unpack(&frame, &part) && !pm_setpoint_unpack(&other, &part), "64 bytes come in FD format");
  other = frame;
  other.is_extended = true;
  tap::ok(!pm_setpoint_unpack(&other, &part), "29-bit FD frames are refused");
  pm_update_piece piece{0, 8, {}};
  pm_update_piece_pack(&frame, &piece, true);
  other = frame;
  other.is_fd = false;
  tap::ok(pm_update_piece_unpack(&frame, &piece) && !pm_update_piece_unpack(&other, &piece), "a block is an FD frame");
  other = frame;
  other.is_extended = true;
  tap::ok(!pm_update_piece_unpack(&other, &piece), "of 11 bits");
  other = frame;
  other.id = PM_ID_DISARM;
  tap::ok(!pm_update_piece_unpack(&other, &piece), "under its own identifier");
}

}  // namespace

int main() {
  std::ifstream file("protocol/vectors.json");
  std::stringstream text;
  text << file.rdbuf();
  JsonValue vectors;
  if (!tap::ok(premotor::parse_json(text.str(), &vectors).ok(), "protocol/vectors.json is read")) return tap::finish();
  for (const JsonValue& vector : vectors.find("valid")->items()) {
    const std::string& kind = vector.find("kind")->string();
    const std::string name = kind + ": " + vector.find("name")->string();
    if (kind == "classic_set") {
      tap::ok(check_classic(vector), name);
      continue;
    }
    const pm_can_frame frame = frame_of(vector.find("frames")->items()[0]);
    tap::ok(check_valid(kind, *vector.find("fields"), frame), name);
    bit_errors(kind, frame);
  }
  for (const JsonValue& broken : vectors.find("invalid")->items()) {
    const std::string& kind = broken.find("kind")->string();
    tap::ok(!unpacks(kind, frame_of(broken)), "refuses " + kind + ": " + broken.find("name")->string());
  }
  for (const JsonValue& row : vectors.find("checksums")->items()) {
    const auto bytes = bytes_of(row.find("bytes")->string());
    tap::equal(pm_crc16(PM_CRC16_START, bytes.data(), static_cast<std::uint32_t>(bytes.size())), integer(row, "crc"),
               "checksum of " + std::to_string(bytes.size()) + " bytes");
  }
  for (const JsonValue& row : vectors.find("crc32")->items()) {
    const auto bytes = bytes_of(row.find("bytes")->string());
    tap::equal(pm_crc32(0, bytes.data(), static_cast<std::uint32_t>(bytes.size())), integer(row, "crc"),
               "CRC-32 of " + std::to_string(bytes.size()) + " bytes");
  }
  quantising(*vectors.find("quantise"));
  const JsonValue& arm = *vectors.find("arm_answer");
  tap::equal(pm_arm_answer(static_cast<std::uint32_t>(integer(arm, "host_nonce")),
                           static_cast<std::uint32_t>(integer(arm, "bridge_nonce"))),
             static_cast<std::uint32_t>(integer(arm, "answer")), "answer to a challenge");
  std::int32_t limits[2][PM_LIMIT_FIELDS];
  const auto rows = vectors.find("limits")->find("values")->items();
  for (int axis = 0; axis < 2; ++axis) {
    for (int field = 0; field < PM_LIMIT_FIELDS; ++field) {
      limits[axis][field] = static_cast<std::int32_t>(rows[axis].items()[field].integer());
    }
  }
  tap::equal(pm_limits_crc(limits, 2), integer(*vectors.find("limits"), "checksum"), "checksum of limits");
  random_frames();
  form();
  return tap::finish();
}
