// A small strict JSON reader (RFC 8259) for config files, checkpoint headers and test data. Everything is bounded,
// nothing is repaired: invalid UTF-8, lone surrogates, duplicate keys, trailing text and numbers that a double cannot
// hold are errors with a byte offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"

namespace premotor {

struct JsonMember;

struct JsonNumber {
  double value = 0;
  std::int64_t integer = 0;  // exact; meaningful only when is_integer
  bool is_integer = false;   // written without fraction and exponent, and fits int64
};

// One value of a document. Accessors assert the kind: ask first.
class JsonValue {
 public:
  struct Object {
    std::vector<JsonMember> members;    // in the order of the document
    std::vector<std::uint32_t> sorted;  // indices into members, by key
  };

  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  [[nodiscard]] bool is_boolean() const { return std::holds_alternative<bool>(value_); }
  [[nodiscard]] bool is_number() const { return std::holds_alternative<JsonNumber>(value_); }
  [[nodiscard]] bool is_integer() const { return is_number() && std::get<JsonNumber>(value_).is_integer; }
  [[nodiscard]] bool is_string() const { return std::holds_alternative<std::string>(value_); }
  [[nodiscard]] bool is_array() const { return std::holds_alternative<std::vector<JsonValue>>(value_); }
  [[nodiscard]] bool is_object() const { return std::holds_alternative<Object>(value_); }
  [[nodiscard]] const char* kind_name() const;  // "null", "boolean", "number", "string", "array", "object"

  [[nodiscard]] bool boolean() const;
  [[nodiscard]] double number() const;
  [[nodiscard]] std::int64_t integer() const;
  [[nodiscard]] const std::string& string() const;
  [[nodiscard]] std::span<const JsonValue> items() const;     // of an array
  [[nodiscard]] std::span<const JsonMember> members() const;  // of an object, in the order of the document
  // The member's value, or null when this is no object or has no such key. O(log members).
  [[nodiscard]] const JsonValue* find(std::string_view key) const;

  // A short form for error messages: scalars as written in JSON, "array of 3", "object of 2".
  [[nodiscard]] std::string describe() const;

 private:
  friend class JsonParser;
  std::variant<std::monostate, bool, JsonNumber, std::string, std::vector<JsonValue>, Object> value_;
};

struct JsonMember {
  std::string key;
  JsonValue value;
};

struct JsonLimits {
  std::size_t bytes_max = 100'000'000;
  std::size_t values_max =
      4'000'000;       // values of all kinds in the document; bounds the memory that a small text can ask for
  int depth_max = 64;  // nested arrays and objects
};

// Parses one whole document. Errors: JSON_INVALID (the message and `expected` / `found` say where and why).
Status parse_json(std::string_view text, JsonValue* out, const JsonLimits& limits = {});

// `text` for an error message: cut after 200 bytes, control characters and broken UTF-8 shown as \xNN.
std::string printable(std::string_view text);

}  // namespace premotor
