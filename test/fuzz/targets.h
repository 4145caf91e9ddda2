// What the fuzzers check, shared with the replay test: each function feeds one input to a parser and returns the
// property that did not hold, or an empty string. Memory errors are the sanitizers' part.
#pragma once

#include <cstddef>
#include <cstdio>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/safetensors.h"

namespace fuzz {

inline void write_string(const std::string& text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
    if (byte < 0x20 || c == '"' || c == '\\') {
      *out += escaped;
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

// Writes a value as JSON text again.
inline void write_json(const premotor::JsonValue& value, std::string* out) {
  if (value.is_object()) {
    char separator = '{';
    for (const premotor::JsonMember& member : value.members()) {
      out->push_back(separator);
      write_string(member.key, out);
      out->push_back(':');
      write_json(member.value, out);
      separator = ',';
    }
    *out += value.members().empty() ? "{}" : "}";
  } else if (value.is_array()) {
    char separator = '[';
    for (const premotor::JsonValue& item : value.items()) {
      out->push_back(separator);
      write_json(item, out);
      separator = ',';
    }
    *out += value.items().empty() ? "[]" : "]";
  } else if (value.is_string()) {
    write_string(value.string(), out);
  } else {
    *out += value.describe();
  }
}

inline bool same(const premotor::JsonValue& a, const premotor::JsonValue& b) {
  if (std::string_view(a.kind_name()) != b.kind_name()) return false;
  if (a.is_boolean()) return a.boolean() == b.boolean();
  if (a.is_number())
    return a.number() == b.number() && (!a.is_integer() || (b.is_integer() && a.integer() == b.integer()));
  if (a.is_string()) return a.string() == b.string();
  if (a.is_array()) {
    if (a.items().size() != b.items().size()) return false;
    for (std::size_t i = 0; i < a.items().size(); ++i) {
      if (!same(a.items()[i], b.items()[i])) return false;
    }
  }
  if (a.is_object()) {
    if (a.members().size() != b.members().size()) return false;
    for (std::size_t i = 0; i < a.members().size(); ++i) {
      const premotor::JsonMember& left = a.members()[i];
      if (left.key != b.members()[i].key || !same(left.value, b.members()[i].value)) return false;
      if (a.find(left.key) != &left.value) return false;
    }
  }
  return true;
}

inline std::string check_json(std::span<const std::byte> input) {
  const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  premotor::JsonValue value;
  const premotor::Status status = premotor::parse_json(text, &value);
  if (!status.ok()) {
    if (std::string_view(status.code) != "JSON_INVALID") return "the code of an error is JSON_INVALID";
    if (status.expected.empty() || status.found.empty()) return "an error says what was expected and found";
    return value.is_null() ? "" : "a refused document leaves the result alone";
  }
  std::string written;
  write_json(value, &written);
  premotor::JsonValue again;
  if (!premotor::parse_json(written, &again).ok()) return "what was read can be written and read again";
  return same(value, again) ? "" : "what was read, written and read again is the same";
}

// An accepted file: its tensors tile the data exactly, in agreement with their own shapes.
inline std::string check_tensors(std::span<const std::byte> input,
                                 const std::vector<premotor::engine::StoredTensor>& tensors) {
  std::set<std::string_view> names;
  std::set<std::pair<const std::byte*, const std::byte*>> ranges;
  std::size_t total = 0;
  const std::byte* const end = input.data() + input.size();
  for (const premotor::engine::StoredTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second) return "names are distinct";
    if (tensor.data < input.data() + 8 || tensor.data > end) return "data begins in the file";
    if (tensor.size_bytes > static_cast<std::size_t>(end - tensor.data)) return "data ends in the file";
    std::size_t bytes = static_cast<std::size_t>(bytes_of(tensor.dtype));
    for (const std::int64_t size : tensor.shape) bytes *= static_cast<std::size_t>(size);
    if (bytes != tensor.size_bytes) return "a tensor has as many bytes as its shape says";
    total += tensor.size_bytes;
    if (tensor.size_bytes > 0) ranges.emplace(tensor.data, tensor.data + tensor.size_bytes);
  }
  if (total > input.size() - 8) return "tensors fit the file";
  const std::byte* at = end - total;
  for (const auto& [first, last] : ranges) {
    if (first != at) return "tensors leave no hole and do not overlap";
    at = last;
  }
  return at == end ? "" : "tensors reach the end of the file";
}

inline std::string check_safetensors(std::span<const std::byte> input) {
  std::vector<premotor::engine::StoredTensor> tensors, scanned;
  std::vector<premotor::Status> problems;
  const premotor::Status status = premotor::engine::parse_safetensors(input, "fuzz", &tensors);
  premotor::engine::scan_safetensors(input, "fuzz", &scanned, &problems);
  if (status.ok() != problems.empty()) return "parsing and scanning agree";
  if (!status.ok()) {
    if (!std::string_view(status.code).starts_with("CHECKPOINT_")) return "the code of an error is a checkpoint's";
    if (status.file != "fuzz" || status.expected.empty() || status.found.empty())
      return "an error says file, expected, found";
    if (!tensors.empty()) return "a refused file leaves the result alone";
    for (const premotor::engine::StoredTensor& tensor : scanned) {
      if (tensor.data == nullptr) continue;
      if (tensor.data < input.data() ||
          tensor.size_bytes > static_cast<std::size_t>(input.data() + input.size() - tensor.data)) {
        return "a scanned tensor lies in the file";
      }
    }
    return "";
  }
  return scanned.size() == tensors.size() ? check_tensors(input, tensors)
                                          : "parsing and scanning find the same tensors";
}

}  // namespace fuzz
