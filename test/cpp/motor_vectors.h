// protocol/motor/vectors.json for the native tests.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/json.h"
#include "protocol/can_frame.h"

namespace vectors {

inline premotor::Status read(premotor::JsonValue* out) {
  const auto path = std::filesystem::path(__FILE__).parent_path() / "../../protocol/motor/vectors.json";
  std::ifstream file(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  return premotor::parse_json(text, out);
}

inline double number(const premotor::JsonValue& entry, const char* key) {
  const premotor::JsonValue* value = entry.find(key);
  return value == nullptr ? 0 : value->number();
}

inline std::string text(const premotor::JsonValue& entry, const char* key) {
  const premotor::JsonValue* value = entry.find(key);
  return value == nullptr ? "" : value->string();
}

// The frame as "7FF#0011.." so that a difference can be read.
inline std::string show(const pm_can_frame& frame) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string shown;
  for (std::size_t i = 0; i < frame.data_bytes; ++i) {
    shown += digits[frame.data[i] >> 4];
    shown += digits[frame.data[i] & 0xf];
  }
  return std::to_string(frame.id) + "#" + shown;
}

inline std::string expected(const premotor::JsonValue& entry) {
  return std::to_string(static_cast<int>(number(entry, "id"))) + "#" + text(entry, "data");
}

inline pm_can_frame frame_of(const premotor::JsonValue& entry) {
  const std::string data = text(entry, "data");
  pm_can_frame frame{};
  frame.id = static_cast<std::uint32_t>(number(entry, "id"));
  frame.data_bytes = static_cast<std::uint8_t>(data.size() / 2);
  for (std::size_t i = 0; i < data.size() / 2; ++i) {
    frame.data[i] = static_cast<std::uint8_t>(std::stoul(data.substr(2 * i, 2), nullptr, 16));
  }
  return frame;
}

}  // namespace vectors
