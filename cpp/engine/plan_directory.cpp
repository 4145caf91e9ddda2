// The directory of a plan file, a JSON object: written by plan_directory, read by parse_plan_directory, which trusts
// nothing in it. See plan_format.h.
#include <algorithm>
#include <cstdio>
#include <tuple>
#include <utility>

#include "base/json.h"
#include "engine/plan_format.h"

namespace premotor::engine {

namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || c == '"' || c == '\\') {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", code);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

// 64-bit sums as text: JSON's integers end before.
std::string hex(std::uint64_t value) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value));
  return digits;
}

// Puts an object together, member by member.
class Object {
 public:
  Object& text(const char* key, std::string_view value) { return json(key, quoted(value)); }
  template <typename T>
  Object& number(const char* key, T value) {
    return json(key, std::to_string(value));
  }
  Object& json(const char* key, const std::string& value) {
    body_ += (body_.empty() ? "{\"" : ",\"") + std::string(key) + "\":" + value;
    return *this;
  }
  [[nodiscard]] std::string str() const { return body_.empty() ? "{}" : body_ + "}"; }

 private:
  std::string body_;
};

template <typename T, typename Show>
std::string list(const std::vector<T>& items, Show show) {
  std::string out = "[";
  for (const T& item : items) out += (out.size() == 1 ? "\n" : ",\n") + show(item);
  return out + "]";
}

std::string shown(const PlanTensor& tensor) {
  Object o;
  o.text("key", tensor.key).text("kind", name_of(tensor.kind)).text("dtype", name_of(tensor.dtype));
  o.number("rows", tensor.rows).number("cols", tensor.cols);
  if (tensor.kind == PlanKind::prepared) o.text("product", tensor.product).number("group", tensor.group);
  return o.number("at", tensor.at).number("bytes", tensor.bytes).str();
}

std::string shown(const PlanSource& source) {
  Object o;
  o.text("path", source.path).number("bytes", source.bytes).number("modified_ns", source.modified_ns);
  return o.text("outline", hex(source.outline)).text("samples", hex(source.samples)).str();
}

std::string shown(const PlanPart& part) {
  Object o;
  o.text("name", part.name).number("parameters", part.parameters).number("weight_bytes", part.weight_bytes);
  return o.json("unread", list(part.unread, [](const std::string& name) { return quoted(name); })).str();
}

std::string shown(const PlanConditioning& one) {
  Object o;
  o.number("modality", one.modality).number("timestep_bits", one.timestep_bits).number("width", one.width);
  return o.number("at", one.at).number("bytes", one.bytes).str();
}

std::string shown(const ops::Tactic& tactic) {
  Object o;
  o.number("rows", tactic.rows).text("split", name_of(tactic.split));
  return o.number("tiles", tactic.task_tiles).str();
}

std::string shown(const PlanTactics& one) {
  Object o;
  o.text("product", one.product).number("outputs", one.outputs).number("inputs", one.inputs);
  o.number("group", one.group);
  return o.json("tactics", list(one.tactics, [](const ops::Tactic& tactic) { return shown(tactic); })).str();
}

std::string shown(const PlanTuning& tuning) {
  Object o;
  o.text("processor", tuning.processor).number("threads", tuning.threads);
  return o.json("products", list(tuning.products, [](const PlanTactics& one) { return shown(one); })).str();
}

// Takes members out of an object; what is missing or of another kind makes it fail, for good.
class Reader {
 public:
  explicit Reader(const JsonValue& object) : object_(object) {}

  Reader& text(const char* key, std::string* to) {
    const JsonValue* value = object_.find(key);
    if (value == nullptr || !value->is_string()) return fail(key);
    *to = value->string();
    return *this;
  }
  // From 0 on; T tells where it ends.
  template <typename T>
  Reader& number(const char* key, T* to) {
    const JsonValue* value = object_.find(key);
    if (value == nullptr || !value->is_integer() || value->integer() < 0 || !std::in_range<T>(value->integer()))
      return fail(key);
    *to = static_cast<T>(value->integer());
    return *this;
  }
  Reader& sum(const char* key, std::uint64_t* to) {
    std::string digits;
    text(key, &digits);
    unsigned long long value = 0;
    if (digits.size() != 16 || std::sscanf(digits.c_str(), "%16llx", &value) != 1 || hex(value) != digits)
      return fail(key);
    *to = value;
    return *this;
  }
  template <typename T>
  Reader& named(const char* key, std::initializer_list<T> values, T* to) {
    std::string name;
    text(key, &name);
    for (const T value : values) {
      if (name != name_of(value)) continue;
      *to = value;
      return *this;
    }
    return fail(key);
  }
  template <typename Take>
  Reader& each(const char* key, Take take) {
    const JsonValue* value = object_.find(key);
    if (value == nullptr || !value->is_array()) return fail(key);
    for (const JsonValue& item : value->items())
      if (!take(item)) return fail(key);
    return *this;
  }
  [[nodiscard]] bool ok() const { return failed_.empty(); }
  [[nodiscard]] const std::string& failed() const { return failed_; }

 private:
  Reader& fail(const char* key) {
    if (failed_.empty()) failed_ = key;
    return *this;
  }
  const JsonValue& object_;
  std::string failed_;
};

// A piece of the payload; false when it is none.
bool place(const PlanContents& contents, std::uint64_t at, std::uint64_t bytes, const std::byte** data) {
  const std::uint64_t size = contents.payload.size();
  if (at % kPlanAlignment != 0 || at > size || bytes > size - at) return false;
  *data = contents.payload.data() + at;
  return true;
}

// count * size == bytes, without overflow.
bool makes(std::int64_t a, std::int64_t b, std::int64_t size, std::uint64_t bytes) {
  std::int64_t product = 0;
  return !__builtin_mul_overflow(a, b, &product) && !__builtin_mul_overflow(product, size, &product) &&
         static_cast<std::uint64_t>(product) == bytes;
}

bool read(const JsonValue& json, PlanContents* out) {
  PlanTensor tensor;
  Reader reader(json);
  reader.text("key", &tensor.key)
      .named("kind", {PlanKind::prepared, PlanKind::plain, PlanKind::floats}, &tensor.kind)
      .named("dtype", {ops::Dtype::f32, ops::Dtype::bf16}, &tensor.dtype)
      .number("rows", &tensor.rows)
      .number("cols", &tensor.cols)
      .number("at", &tensor.at)
      .number("bytes", &tensor.bytes);
  if (tensor.kind == PlanKind::prepared) reader.text("product", &tensor.product).number("group", &tensor.group);
  if (!reader.ok() || !place(*out, tensor.at, tensor.bytes, &tensor.data)) return false;
  // How many bytes a prepared weight takes is for the backend that adopts it to say.
  if (tensor.kind != PlanKind::prepared && !makes(tensor.rows, tensor.cols, ops::bytes_of(tensor.dtype), tensor.bytes))
    return false;
  if (tensor.kind == PlanKind::floats && (tensor.cols != 1 || tensor.dtype != ops::Dtype::f32)) return false;
  out->tensors.push_back(std::move(tensor));
  return true;
}

bool read_source(const JsonValue& json, PlanContents* out) {
  PlanSource source;
  Reader reader(json);
  reader.text("path", &source.path).number("bytes", &source.bytes).number("modified_ns", &source.modified_ns);
  reader.sum("outline", &source.outline).sum("samples", &source.samples);
  if (reader.ok()) out->sources.push_back(std::move(source));
  return reader.ok();
}

bool read_part(const JsonValue& json, PlanContents* out) {
  PlanPart part;
  Reader reader(json);
  reader.text("name", &part.name)
      .number("parameters", &part.parameters)
      .number("weight_bytes", &part.weight_bytes)
      .each("unread", [&](const JsonValue& name) {
        if (name.is_string()) part.unread.push_back(name.string());
        return name.is_string();
      });
  if (reader.ok()) out->parts.push_back(std::move(part));
  return reader.ok();
}

bool read_conditioning(const JsonValue& json, PlanContents* out) {
  PlanConditioning one;
  Reader reader(json);
  reader.number("modality", &one.modality)
      .number("timestep_bits", &one.timestep_bits)
      .number("width", &one.width)
      .number("at", &one.at)
      .number("bytes", &one.bytes);
  if (!reader.ok() || one.modality > 1 || !makes(one.width, 7, 4, one.bytes) ||
      !place(*out, one.at, one.bytes, &one.data))
    return false;
  out->conditioning.push_back(one);
  return true;
}

auto order_of(const PlanTactics& one) { return std::tie(one.product, one.outputs, one.inputs, one.group); }

bool read_tactic(const JsonValue& json, PlanTactics* out) {
  ops::Tactic tactic;
  Reader reader(json);
  reader.number("rows", &tactic.rows)
      .named("split", {ops::Split::rule, ops::Split::alone, ops::Split::shared}, &tactic.split)
      .number("tiles", &tactic.task_tiles);
  const std::int64_t before = out->tactics.empty() ? 0 : out->tactics.back().rows;
  const auto& tiles = ops::kTaskTileChoices;
  if (!reader.ok() || tactic.rows <= before || std::ssize(out->tactics) >= kTacticsMost ||
      std::find(tiles.begin(), tiles.end(), tactic.task_tiles) == tiles.end())
    return false;
  out->tactics.push_back(tactic);
  return true;
}

bool read_tactics(const JsonValue& json, PlanTuning* out) {
  PlanTactics one;
  Reader reader(json);
  reader.text("product", &one.product)
      .number("outputs", &one.outputs)
      .number("inputs", &one.inputs)
      .number("group", &one.group)
      .each("tactics", [&](const JsonValue& tactic) { return read_tactic(tactic, &one); });
  const bool ascends = out->products.empty() || order_of(out->products.back()) < order_of(one);
  if (!reader.ok() || !ascends || std::ssize(out->products) >= kTunedProductsMost) return false;
  out->products.push_back(std::move(one));
  return true;
}

bool read_tuning(const JsonValue& json, PlanTuning* out) {
  Reader reader(json);
  reader.text("processor", &out->processor)
      .number("threads", &out->threads)
      .each("products", [&](const JsonValue& one) { return read_tactics(one, out); });
  return reader.ok();
}

}  // namespace

const char* name_of(PlanKind kind) {
  if (kind == PlanKind::prepared) return "prepared";
  return kind == PlanKind::plain ? "plain" : "floats";
}
const char* name_of(ops::Dtype dtype) {
  if (dtype == ops::Dtype::f32) return "f32";
  if (dtype == ops::Dtype::int8) return "int8";
  return dtype == ops::Dtype::bf16 ? "bf16" : "f16";
}
const char* name_of(ops::Rounding rounding) { return rounding == ops::Rounding::bf16 ? "bf16" : "none"; }
const char* name_of(ops::Split split) {
  if (split == ops::Split::rule) return "rule";
  return split == ops::Split::alone ? "alone" : "shared";
}

std::string plan_directory(const PlanContents& contents) {
  const PlanFacts& facts = contents.facts;
  Object o;
  o.text("tool", facts.tool).text("device", facts.device).text("backend", facts.backend);
  o.text("precision", facts.precision).text("rounding", facts.rounding).number("layout", facts.layout);
  o.text("checkpoint", facts.checkpoint);
  o.json("sources", list(contents.sources, [](const PlanSource& one) { return shown(one); }));
  o.json("parts", list(contents.parts, [](const PlanPart& one) { return shown(one); }));
  o.json("tensors", list(contents.tensors, [](const PlanTensor& one) { return shown(one); }));
  o.json("conditioning", list(contents.conditioning, [](const PlanConditioning& one) { return shown(one); }));
  o.json("passes", contents.passes);
  o.json("tuning", shown(contents.tuning));
  Object arena;
  arena.number("rows", contents.arena.rows).number("bytes", contents.arena.bytes);
  return o.json("arena", arena.number("unshared", contents.arena.unshared).str()).str() + "\n";
}

Status parse_plan_directory(std::string_view json, const std::string& file, PlanContents* out) {
  const auto refuse = [&](const std::string& expected, const std::string& found) {
    return plan_error("PLAN_DAMAGED", file, expected, found, "Build it again with premotor build.");
  };
  JsonValue root;
  const Status parsed = parse_json(json, &root);
  if (!parsed.ok()) return refuse("a directory of JSON with " + parsed.expected, parsed.found);
  const JsonValue* arena = root.find("arena");
  if (arena == nullptr || !arena->is_object()) return refuse("a directory with \"arena\"", "none");
  const JsonValue* tuning = root.find("tuning");
  if (tuning == nullptr || !read_tuning(*tuning, &out->tuning))
    return refuse("a directory with a sound \"tuning\"", "something else");
  PlanFacts& facts = out->facts;
  Reader reader(root);
  reader.text("tool", &facts.tool)
      .text("device", &facts.device)
      .text("backend", &facts.backend)
      .text("precision", &facts.precision)
      .text("rounding", &facts.rounding)
      .number("layout", &facts.layout)
      .text("checkpoint", &facts.checkpoint)
      .each("sources", [&](const JsonValue& one) { return read_source(one, out); })
      .each("parts", [&](const JsonValue& one) { return read_part(one, out); })
      .each("passes", [](const JsonValue& one) { return one.is_object(); })
      .each("tensors", [&](const JsonValue& one) { return read(one, out); })
      .each("conditioning", [&](const JsonValue& one) { return read_conditioning(one, out); });
  Reader sizes(*arena);
  sizes.number("rows", &out->arena.rows).number("bytes", &out->arena.bytes).number("unshared", &out->arena.unshared);
  if (!reader.ok()) return refuse("a directory with a sound \"" + reader.failed() + "\"", "something else");
  if (!sizes.ok()) return refuse("an arena with a sound \"" + sizes.failed() + "\"", "something else");
  out->directory = json;
  const auto by_key = [](const PlanTensor& a, const PlanTensor& b) { return a.key < b.key; };
  std::sort(out->tensors.begin(), out->tensors.end(), by_key);
  const auto twice = std::adjacent_find(out->tensors.begin(), out->tensors.end(),
                                        [](const PlanTensor& a, const PlanTensor& b) { return a.key == b.key; });
  if (twice != out->tensors.end()) return refuse("every tensor once", printable(twice->key) + " twice");
  return Status::good();
}

std::span<const ops::Tactic> PlanTuning::find(const PlanTensor& tensor) const {
  const auto wanted = std::tie(tensor.product, tensor.rows, tensor.cols, tensor.group);
  const auto at = std::lower_bound(products.begin(), products.end(), wanted,
                                   [](const PlanTactics& one, const auto& key) { return order_of(one) < key; });
  return at == products.end() || order_of(*at) != wanted ? std::span<const ops::Tactic>() : at->tactics;
}

Status parse_tunings(std::string_view json, const std::string& file, std::vector<PlanTuning>* out) {
  const auto refuse = [&](const std::string& expected, const std::string& found) {
    Status status =
        Status::error("TACTICS_INVALID", "Cannot use the tactics in " + file + ": expected " + expected + ", found " +
                                             found + ". Delete the file: premotor build writes it anew.");
    status.file = file;
    status.expected = expected;
    status.found = found;
    return status;
  };
  JsonValue root;
  const Status parsed = parse_json(json, &root);
  if (!parsed.ok()) return refuse("JSON with " + parsed.expected, parsed.found);
  std::vector<PlanTuning> tunings;
  Reader reader(root);
  reader.each("tunings", [&](const JsonValue& one) { return read_tuning(one, &tunings.emplace_back()); });
  if (!reader.ok()) return refuse("\"tunings\" as premotor build writes them", "something else");
  *out = std::move(tunings);
  return Status::good();
}

}  // namespace premotor::engine
