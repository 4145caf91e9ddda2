// The JSON reader: every rule of RFC 8259 that it claims, from both sides, and its limits.
#include "base/json.h"

#include <cstdint>
#include <limits>
#include <string>

#include "checkpoint_files.h"
#include "tap.h"

using premotor::JsonLimits;
using premotor::JsonValue;
using premotor::parse_json;
using premotor::Status;

namespace {

bool accepts(const std::string& text) {
  JsonValue value;
  return parse_json(text, &value).ok();
}

// An error must carry its code, and the offset where the text goes wrong.
void refuses(const std::string& text, std::size_t offset, const std::string& name) {
  JsonValue value;
  const Status status = parse_json(text, &value);
  const bool good = std::string(status.code) == "JSON_INVALID" && !status.expected.empty() && value.is_null() &&
                    status.message.find("at byte " + std::to_string(offset) + ":") != std::string::npos;
  if (!tap::ok(good, "refuses " + name)) tap::note(status.ok() ? "accepted" : status.message);
}

void numbers() {
  const auto number = [](const std::string& text) {
    JsonValue value;
    return parse_json(text, &value).ok() && value.is_number() ? value.number()
                                                              : std::numeric_limits<double>::quiet_NaN();
  };
  tap::ok(number("0") == 0 && number("-0") == 0 && number("-12.5e-1") == -1.25 && number("1E3") == 1000, "numbers");
  tap::ok(number("1e-6") == 1e-6 && number("0.1") == 0.1 && number("5e-324") == 5e-324,
          "numbers are the nearest doubles");
  JsonValue value;
  tap::ok(parse_json("9007199254740993", &value).ok() && value.is_integer() && value.integer() == 9007199254740993,
          "integers beyond 2^53 are exact");
  tap::ok(
      parse_json("-9223372036854775808", &value).ok() && value.integer() == std::numeric_limits<std::int64_t>::min(),
      "the least int64");
  tap::ok(
      parse_json("9223372036854775808", &value).ok() && !value.is_integer() && value.number() == 9223372036854775808.0,
      "an integer past int64 is a double only");
  tap::ok(parse_json("1.0", &value).ok() && !value.is_integer(), "a number with a fraction is no integer");
  refuses("01", 1, "a leading zero");
  refuses("-", 1, "a lone minus");
  refuses("+1", 0, "a plus sign");
  refuses(".5", 0, "a bare fraction");
  refuses("1.", 2, "a bare decimal point");
  refuses("1e", 2, "an empty exponent");
  refuses("[1e999]", 1, "a number past the doubles");
  refuses("NaN", 0, "NaN");
  refuses("Infinity", 0, "Infinity");
}

void strings() {
  JsonValue value;
  tap::ok(parse_json(R"("a\"\\\/\b\f\n\r\t\u00e9\u20ac\ud83e\udd16")", &value).ok() &&
              value.string() == "a\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9f\xa4\x96",
          "escapes, surrogate pairs included");
  tap::ok(parse_json("\"\xc3\xa9\xf0\x9f\xa4\x96\"", &value).ok() && value.string() == "\xc3\xa9\xf0\x9f\xa4\x96",
          "UTF-8 passes through");
  tap::ok(parse_json(R"("\u0000")", &value).ok() && value.string().size() == 1, "an escaped NUL is one byte");
  refuses("\"a\nb\"", 2, "a raw control character");
  refuses("\"abc", 4, "an open string");
  refuses(R"("\x")", 2, "an unknown escape");
  refuses(R"("\u12g4")", 5, "a bad hexadecimal digit");
  refuses(R"("\ud800")", 7, "a lone high surrogate");
  refuses(R"("\udc00")", 7, "a lone low surrogate");
  refuses("\"\xff\"", 1, "a byte that UTF-8 never has");
  refuses("\"\xc0\xaf\"", 1, "an overlong form");
  refuses("\"\xed\xa0\x80\"", 1, "an encoded surrogate");
  refuses("\"\xf4\x90\x80\x80\"", 1, "a code point past U+10FFFF");
  refuses("\"\xe2\x82\"", 1, "a cut UTF-8 sequence");
}

void structure() {
  JsonValue value;
  const bool parsed = parse_json(" {\"z\": [1, true, null, \"s\"], \"a\": {}, \"m\": [] }\n", &value).ok();
  tap::ok(parsed && value.members().size() == 3 && value.members()[0].key == "z" && value.members()[2].key == "m",
          "members keep the document's order");
  tap::ok(parsed && value.find("a") != nullptr && value.find("a")->is_object() && value.find("q") == nullptr, "find");
  tap::ok(parsed && value.find("z")->items().size() == 4 && value.find("z")->items()[1].boolean() &&
              value.find("z")->items()[2].is_null(),
          "items");
  tap::ok(accepts("true") && accepts("\t\"x\"\r\n") && accepts("[]"), "any value may be the document");
  refuses("", 0, "an empty document");
  refuses("   ", 3, "white space only");
  refuses("[1,]", 3, "a trailing comma in an array");
  refuses("{\"a\":1,}", 7, "a trailing comma in an object");
  refuses("[1 2]", 3, "a missing comma");
  refuses("{\"a\" 1}", 5, "a missing colon");
  refuses("{a:1}", 1, "a bare key");
  refuses("[1", 2, "an open array");
  refuses("[] []", 3, "text after the document");
  refuses("tru", 0, "a cut literal");
  refuses("// c\n1", 0, "a comment");
  refuses("\xef\xbb\xbf{}", 0, "a byte order mark");
  refuses("{\"a\":1,\"b\":2,\"a\":3}", 19, "a duplicate key");
  refuses(R"({"a":1,"\u0061":3})", 18, "a duplicate key behind an escape");
}

void limits() {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') + std::string(static_cast<std::size_t>(depth), ']');
  };
  tap::ok(accepts(nested(64)), "64 levels");
  refuses(nested(65), 64, "65 levels");
  refuses(std::string(10'000'000, '['), 64, "ten million open brackets, without recursing into them");
  JsonValue value;
  const JsonLimits few = {.bytes_max = 100, .values_max = 5, .depth_max = 64};
  tap::ok(parse_json("[1,2,3,4]", &value, few).ok(), "as many values as the limit");
  tap::ok(!parse_json("[1,2,3,4,5]", &value, few).ok(), "one value more than the limit");
  tap::ok(!parse_json(std::string(101, ' '), &value, few).ok(), "one byte more than the limit");
  tap::ok(value.is_array() && value.items().size() == 4, "a refused document leaves the result alone");
}

void names_for_messages() {
  tap::ok(premotor::printable("caf\xc3\xa9\n\xff") == "caf\xc3\xa9\\x0a\\xff",
          "printable shows controls and broken UTF-8");
  const std::string cut = premotor::printable(std::string(1000, 'x'));
  tap::ok(cut.size() == 203 && cut.ends_with("..."), "printable cuts long names");
  JsonValue value;
  tap::ok(parse_json(R"([1, 0.5, "s", [1], {"a": 1}, false, null])", &value).ok(), "a list of all kinds");
  std::string shown;
  for (const JsonValue& item : value.items()) shown += item.describe() + ";";
  tap::ok(shown == "1;0.5;\"s\";array of 1;object of 1;false;null;", "describe");
}

// Every JSON file of the golden cases parses, and no truncation of one does: valid becoming invalid.
void golden_files() {
  for (const std::string& name : checkpoint_files::golden_checkpoints()) {
    const std::string text = checkpoint_files::read_text(checkpoint_files::goldens() + "/" + name + "/job.json");
    tap::ok(!text.empty() && accepts(text), name + "/job.json parses");
    int accepted = 0;
    const std::size_t end = text.find_last_of('}');
    for (std::size_t cut = 0; cut <= end; ++cut) accepted += accepts(text.substr(0, cut)) ? 1 : 0;
    tap::ok(accepted == 0, name + "/job.json cut anywhere is refused");
  }
}

}  // namespace

int main() {
  numbers();
  strings();
  structure();
  limits();
  names_for_messages();
  golden_files();
  return tap::finish();
}
