// The JSON reader: recursive descent with a bounded depth. See json.h.
#include "base/json.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

namespace premotor {

namespace {

// Length of the valid UTF-8 sequence (RFC 3629: no overlong forms, no surrogates) at `at`, or 0.
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const auto continues = [&](std::size_t i) { return at + i < text.size() && (byte(i) & 0xc0u) == 0x80u; };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (!continues(1) || !continues(2)) return 0;
    if (first == 0xe0 && byte(1) < 0xa0) return 0;
    if (first == 0xed && byte(1) > 0x9f) return 0;
    return 3;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (first == 0xf0 && byte(1) < 0x90) return 0;
    if (first == 0xf4 && byte(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

void append_utf8(std::uint32_t code, std::string* out) {
  const auto put = [&](std::uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0u | (code >> 6));
    put(0x80u | (code & 0x3fu));
  } else if (code < 0x10000) {
    put(0xe0u | (code >> 12));
    put(0x80u | ((code >> 6) & 0x3fu));
    put(0x80u | (code & 0x3fu));
  } else {
    put(0xf0u | (code >> 18));
    put(0x80u | ((code >> 12) & 0x3fu));
    put(0x80u | ((code >> 6) & 0x3fu));
    put(0x80u | (code & 0x3fu));
  }
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::size_t bytes_max = 200;
  std::string shown;
  std::size_t at = 0;
  while (at < text.size() && at < bytes_max) {
    const std::size_t length = utf8_length(text, at);
    const auto byte = static_cast<unsigned char>(text[at]);
    if (length == 0 || byte < 0x20 || byte == 0x7f) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", byte);
      shown += hex;
      ++at;
    } else {
      shown += text.substr(at, length);
      at += length;
    }
  }
  if (at < text.size()) shown += "...";
  return shown;
}

const char* JsonValue::kind_name() const {
  static constexpr const char* names[] = {"null", "boolean", "number", "string", "array", "object"};
  return names[value_.index()];
}

bool JsonValue::boolean() const {
  assert(is_boolean());
  return std::get<bool>(value_);
}

double JsonValue::number() const {
  assert(is_number());
  return std::get<JsonNumber>(value_).value;
}

std::int64_t JsonValue::integer() const {
  assert(is_integer());
  return std::get<JsonNumber>(value_).integer;
}

const std::string& JsonValue::string() const {
  assert(is_string());
  return std::get<std::string>(value_);
}

std::span<const JsonValue> JsonValue::items() const {
  assert(is_array());
  return std::get<std::vector<JsonValue>>(value_);
}

std::span<const JsonMember> JsonValue::members() const {
  assert(is_object());
  return std::get<Object>(value_).members;
}

const JsonValue* JsonValue::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  const Object& object = std::get<Object>(value_);
  const auto before = [&](std::uint32_t index, std::string_view wanted) { return object.members[index].key < wanted; };
  const auto it = std::lower_bound(object.sorted.begin(), object.sorted.end(), key, before);
  if (it == object.sorted.end() || object.members[*it].key != key) return nullptr;
  return &object.members[*it].value;
}

std::string JsonValue::describe() const {
  if (is_boolean()) return boolean() ? "true" : "false";
  if (is_integer()) return std::to_string(integer());
  if (is_number()) {
    char digits[40];
    std::snprintf(digits, sizeof digits, "%.17g", number());
    return digits;
  }
  if (is_string()) return "\"" + printable(string()) + "\"";
  if (is_array()) return "array of " + std::to_string(items().size());
  if (is_object()) return "object of " + std::to_string(members().size());
  return "null";
}

// Reads one document. A member function returns false after it has recorded the first error.
class JsonParser {
 public:
  JsonParser(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

  Status parse(JsonValue* out) {
    if (text_.size() > limits_.bytes_max) {
      fail("at most " + std::to_string(limits_.bytes_max) + " bytes", std::to_string(text_.size()) + " bytes");
      return status_;
    }
    skip_space();
    if (!value(out)) return status_;
    skip_space();
    if (at_ != text_.size()) fail("the end of the document");
    return status_;
  }

 private:
  [[nodiscard]] bool at_end() const { return at_ >= text_.size(); }
  [[nodiscard]] char peek() const { return at_end() ? '\0' : text_[at_]; }
  [[nodiscard]] bool take(char c) {
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void skip_space() {
    while (!at_end() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }

  bool fail(const std::string& expected) {
    return fail(expected, at_end() ? "the end of the input" : "'" + printable(text_.substr(at_, 1)) + "'");
  }

  bool fail(const std::string& expected, const std::string& found) {
    status_ = Status::error("JSON_INVALID", "Invalid JSON at byte " + std::to_string(at_) + ": expected " + expected +
                                                ", found " + found + ".");
    status_.expected = expected;
    status_.found = found + " at byte " + std::to_string(at_);
    return false;
  }

  bool value(JsonValue* out) {
    if (++values_ > limits_.values_max)
      return fail("at most " + std::to_string(limits_.values_max) + " values", "more");
    switch (peek()) {
      case '{':
        return nested(out, &JsonParser::object);
      case '[':
        return nested(out, &JsonParser::array);
      case '"':
        return string(&out->value_.emplace<std::string>());
      case 't':
        out->value_ = true;
        return literal("true");
      case 'f':
        out->value_ = false;
        return literal("false");
      case 'n':
        out->value_ = std::monostate{};
        return literal("null");
      default:
        return number(&out->value_.emplace<JsonNumber>());
    }
  }

  bool literal(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return fail("a JSON value");
    at_ += word.size();
    return true;
  }

  bool nested(JsonValue* out, bool (JsonParser::*body)(JsonValue*)) {
    if (depth_ >= limits_.depth_max)
      return fail("at most " + std::to_string(limits_.depth_max) + " nested levels", "one more");
    ++depth_;
    const bool good = (this->*body)(out);
    --depth_;
    return good;
  }

  bool array(JsonValue* out) {
    auto& items = out->value_.emplace<std::vector<JsonValue>>();
    ++at_;  // '['
    skip_space();
    if (take(']')) return true;
    for (;;) {
      if (!value(&items.emplace_back())) return false;
      skip_space();
      if (take(']')) return true;
      if (!take(',')) return fail("',' or ']'");
      skip_space();
    }
  }

  bool object(JsonValue* out) {
    auto& object = out->value_.emplace<JsonValue::Object>();
    ++at_;  // '{'
    skip_space();
    if (take('}')) return true;
    for (;;) {
      if (peek() != '"') return fail("a key in double quotes");
      JsonMember& member = object.members.emplace_back();
      if (!string(&member.key)) return false;
      skip_space();
      if (!take(':')) return fail("':'");
      skip_space();
      if (!value(&member.value)) return false;
      skip_space();
      if (take('}')) return index(&object);
      if (!take(',')) return fail("',' or '}'");
      skip_space();
    }
  }

  bool index(JsonValue::Object* object) {
    const auto& members = object->members;
    object->sorted.resize(members.size());
    for (std::size_t i = 0; i < members.size(); ++i) object->sorted[i] = static_cast<std::uint32_t>(i);
    std::sort(object->sorted.begin(), object->sorted.end(),
              [&](auto a, auto b) { return members[a].key < members[b].key; });
    const auto same = [&](auto a, auto b) { return members[a].key == members[b].key; };
    const auto twice = std::adjacent_find(object->sorted.begin(), object->sorted.end(), same);
    if (twice == object->sorted.end()) return true;
    return fail("each key once",
                "the key \"" + printable(members[*twice].key) + "\" twice in the object that ends here");
  }

  bool number(JsonNumber* out) {
    const std::size_t begin = at_;
    const bool negative = take('-');
    if (!is_digit(peek())) return fail(negative ? "a digit" : "a JSON value");
    if (!take('0')) digits();
    if (is_digit(peek())) return fail("no digit after a leading zero");
    bool integral = true;
    if (take('.')) {
      integral = false;
      if (!is_digit(peek())) return fail("a digit after the decimal point");
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      integral = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      if (!is_digit(peek())) return fail("a digit in the exponent");
      digits();
    }
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    if (std::from_chars(first, last, out->value).ec != std::errc{} || !std::isfinite(out->value)) {
      at_ = begin;
      return fail("a number that a double can hold", printable(std::string_view(first, last)));
    }
    out->is_integer = integral && std::from_chars(first, last, out->integer).ec == std::errc{};
    return true;
  }

  void digits() {
    while (is_digit(peek())) ++at_;
  }

  bool string(std::string* out) {
    ++at_;  // '"'
    for (;;) {
      if (at_end()) return fail("the closing '\"' of a string");
      const auto byte = static_cast<unsigned char>(text_[at_]);
      if (byte == '"') {
        ++at_;
        return true;
      }
      if (byte == '\\') {
        if (!escape(out)) return false;
        continue;
      }
      if (byte < 0x20) return fail("no raw control character in a string");
      const std::size_t length = utf8_length(text_, at_);
      if (length == 0) return fail("valid UTF-8");
      out->append(text_, at_, length);
      at_ += length;
    }
  }

  bool escape(std::string* out) {
    ++at_;  // '\'
    static constexpr std::string_view from = "\"\\/bfnrt";
    static constexpr std::string_view to = "\"\\/\b\f\n\r\t";
    const std::size_t simple = at_end() ? std::string_view::npos : from.find(text_[at_]);
    if (simple != std::string_view::npos) {
      out->push_back(to[simple]);
      ++at_;
      return true;
    }
    if (!take('u')) return fail("an escape of RFC 8259");
    std::uint32_t code = 0;
    if (!four_hex(&code)) return false;
    if (code >= 0xdc00 && code <= 0xdfff) return fail("a high surrogate before a low one", "a lone low surrogate");
    if (code >= 0xd800 && code <= 0xdbff) {
      std::uint32_t low = 0;
      if (!take('\\') || !take('u')) return fail("the low surrogate after a high one");
      if (!four_hex(&low)) return false;
      if (low < 0xdc00 || low > 0xdfff) return fail("the low surrogate after a high one", "another code unit");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(code, out);
    return true;
  }

  bool four_hex(std::uint32_t* code) {
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      std::uint32_t digit = 0;
      if (is_digit(c)) {
        digit = static_cast<std::uint32_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        digit = static_cast<std::uint32_t>(c - 'a') + 10;
      } else if (c >= 'A' && c <= 'F') {
        digit = static_cast<std::uint32_t>(c - 'A') + 10;
      } else {
        return fail("four hexadecimal digits after \\u");
      }
      *code = *code * 16 + digit;
    }
    return true;
  }

  std::string_view text_;
  const JsonLimits& limits_;
  std::size_t at_ = 0;
  std::size_t values_ = 0;
  int depth_ = 0;
  Status status_;
};

Status parse_json(std::string_view text, JsonValue* out, const JsonLimits& limits) {
  JsonValue parsed;
  PREMOTOR_TRY(JsonParser(text, limits).parse(&parsed));
  *out = std::move(parsed);
  return Status::good();
}

}  // namespace premotor
