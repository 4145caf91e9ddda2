// One safetensors header: names, dtypes, shapes and offsets, each checked before anything points at data. See
// safetensors.h.
#include "engine/safetensors.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "base/json.h"
#include "engine/checkpoint_error.h"

namespace premotor::engine {

namespace {

constexpr std::uint64_t header_bytes_max = 100'000'000;  // the limit of the format's own reader
constexpr std::size_t rank_max = 16;

struct DtypeRow {
  const char* name;
  std::int64_t bytes;
};
// In the order of StoredDtype.
constexpr DtypeRow dtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                               {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};

// Builds every error of this file: which file, which tensor, expected, found, what to do.
struct Report {
  const std::string& file;
  std::vector<Status>* problems;

  void add(const char* code, std::string_view tensor, const std::string& expected, const std::string& found,
           const std::string& advice =
               "The file is damaged or was not written by a safetensors writer; fetch or write it again.") const {
    problems->push_back(checkpoint_error(code, file, tensor, expected, found, advice));
  }
};

// One tensor of the header with its offsets, before the layout of the whole file is known.
struct Entry {
  StoredTensor tensor;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool placed = false;  // the offsets fit the shape
};

bool read_dtype(const JsonValue& value, std::string_view name, const Report& report, StoredDtype* out) {
  const JsonValue* dtype = value.find("dtype");
  if (dtype == nullptr || !dtype->is_string()) {
    report.add("CHECKPOINT_HEADER", name, "a string \"dtype\"", dtype == nullptr ? "none" : dtype->describe());
    return false;
  }
  for (std::size_t i = 0; i < std::size(dtypes); ++i) {
    if (dtype->string() != dtypes[i].name) continue;
    *out = static_cast<StoredDtype>(i);
    return true;
  }
  report.add("CHECKPOINT_DTYPE", name, "one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL", dtype->describe(),
             "Convert the tensor to F32, F16 or BF16.");
  return false;
}

// Reads the shape; the byte count of the whole tensor is known to fit int64 afterwards.
bool read_shape(const JsonValue& value, std::string_view name, const Report& report, StoredTensor* out) {
  const JsonValue* shape = value.find("shape");
  if (shape == nullptr || !shape->is_array()) {
    report.add("CHECKPOINT_HEADER", name, "an array \"shape\"", shape == nullptr ? "none" : shape->describe());
    return false;
  }
  if (shape->items().size() > rank_max) {
    report.add("CHECKPOINT_SHAPE", name, "at most " + std::to_string(rank_max) + " dimensions",
               std::to_string(shape->items().size()));
    return false;
  }
  std::int64_t bytes = bytes_of(out->dtype);
  bool has_zero = false;
  for (const JsonValue& size : shape->items()) {
    if (!size.is_integer() || size.integer() < 0) {
      report.add("CHECKPOINT_SHAPE", name, "dimensions that are integers >= 0", size.describe());
      return false;
    }
    out->shape.push_back(size.integer());
    if (size.integer() == 0) has_zero = true;
    // The product of the others must fit too, so that code which multiplies in another order is safe.
    if (size.integer() > 0 && __builtin_mul_overflow(bytes, size.integer(), &bytes)) {
      report.add("CHECKPOINT_SHAPE", name, "a shape whose bytes fit 63 bits", shape->describe() + " too large");
      return false;
    }
  }
  out->size_bytes = has_zero ? 0 : static_cast<std::size_t>(bytes);
  return true;
}

bool read_offsets(const JsonValue& value, std::string_view name, const Report& report, Entry* out) {
  const JsonValue* offsets = value.find("data_offsets");
  const bool pair = offsets != nullptr && offsets->is_array() && offsets->items().size() == 2;
  if (!pair || !offsets->items()[0].is_integer() || !offsets->items()[1].is_integer()) {
    report.add("CHECKPOINT_HEADER", name, "\"data_offsets\": [begin, end]",
               offsets == nullptr ? "none" : offsets->describe());
    return false;
  }
  out->begin = offsets->items()[0].integer();
  out->end = offsets->items()[1].integer();
  const std::string found = "[" + std::to_string(out->begin) + ", " + std::to_string(out->end) + "]";
  if (out->begin < 0 || out->begin > out->end) {
    report.add("CHECKPOINT_HEADER", name, "data_offsets with 0 <= begin <= end", found);
    return false;
  }
  const StoredTensor& tensor = out->tensor;
  if (static_cast<std::uint64_t>(out->end - out->begin) != tensor.size_bytes) {
    report.add(
        "CHECKPOINT_SHAPE", name,
        std::to_string(tensor.size_bytes) + " bytes for " + name_of(tensor.dtype) + " " + shown_shape(tensor.shape),
        std::to_string(out->end - out->begin) + " bytes (data_offsets " + found + ")");
    return false;
  }
  return true;
}

void read_entry(const JsonMember& member, const Report& report, std::vector<Entry>* out) {
  if (!member.value.is_object()) {
    report.add("CHECKPOINT_HEADER", member.key, "an object with dtype, shape and data_offsets",
               member.value.describe());
    return;
  }
  Entry entry;
  entry.tensor.name = member.key;
  if (!read_dtype(member.value, member.key, report, &entry.tensor.dtype)) return;
  if (!read_shape(member.value, member.key, report, &entry.tensor)) return;
  entry.placed = read_offsets(member.value, member.key, report, &entry);
  out->push_back(std::move(entry));
}

void check_metadata(const JsonValue& value, const Report& report) {
  if (!value.is_object()) {
    report.add("CHECKPOINT_HEADER", "", "\"__metadata__\" to be an object of strings", value.describe());
    return;
  }
  for (const JsonMember& member : value.members()) {
    if (member.value.is_string()) continue;
    report.add("CHECKPOINT_HEADER", "", "a string at \"__metadata__\"." + printable(member.key),
               member.value.describe());
    return;
  }
}

// Finds data past the end of the file, overlaps, holes and trailing bytes. `all_placed`: no entry was dropped, so that
// holes mean something.
void check_layout(std::vector<Entry>& entries, std::span<const std::byte> data, bool all_placed, const Report& report) {
  std::vector<Entry*> order;
  for (Entry& entry : entries) {
    if (entry.placed) order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(),
            [](const Entry* a, const Entry* b) { return std::tie(a->begin, a->end) < std::tie(b->begin, b->end); });
  const auto size = static_cast<std::int64_t>(data.size());
  std::int64_t end = 0;
  std::int64_t cut_off = 0;
  const Entry* previous = nullptr;
  const Entry* first_cut = nullptr;
  for (Entry* entry : order) {
    if (entry->begin < end) {
      report.add("CHECKPOINT_OVERLAP", entry->tensor.name, "data that begins at or after byte " + std::to_string(end),
                 "byte " + std::to_string(entry->begin) + ", inside tensor " + printable(previous->tensor.name));
    } else if (entry->begin > end && all_placed) {
      report.add("CHECKPOINT_OVERSIZED", entry->tensor.name, "data that begins at byte " + std::to_string(end),
                 "byte " + std::to_string(entry->begin) + ": a hole that belongs to no tensor");
    }
    if (entry->end > size) {
      ++cut_off;
      if (first_cut == nullptr) first_cut = entry;
    } else {
      entry->tensor.data = data.data() + entry->begin;
    }
    if (entry->end >= end) {
      end = entry->end;
      previous = entry;
    }
  }
  if (first_cut != nullptr) {
    report.add("CHECKPOINT_TRUNCATED", first_cut->tensor.name, std::to_string(end) + " bytes of tensor data",
               std::to_string(size) + " bytes, so that " + std::to_string(cut_off) + " tensors are cut off",
               "The download or copy is incomplete; fetch the file again.");
  } else if (end < size && all_placed) {
    report.add("CHECKPOINT_OVERSIZED", "", std::to_string(end) + " bytes of tensor data",
               std::to_string(size) + " bytes: the rest belongs to no tensor");
  }
}

// Finds the header's text and the data after it.
bool split(std::span<const std::byte> bytes, const Report& report, std::string_view* header,
           std::span<const std::byte>* data) {
  if (bytes.size() < 8) {
    report.add("CHECKPOINT_TRUNCATED", "", "at least 8 bytes", std::to_string(bytes.size()) + " bytes",
               "Fetch the file again.");
    return false;
  }
  if (std::memcmp(bytes.data(), "version ", 8) == 0) {
    report.add("CHECKPOINT_HEADER", "", "a safetensors file", "a Git LFS pointer",
               "Fetch the real file, for example with \"git lfs pull\".");
    return false;
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  if (length > header_bytes_max) {
    report.add("CHECKPOINT_HEADER", "", "a header of at most " + std::to_string(header_bytes_max) + " bytes",
               std::to_string(length) + " bytes");
    return false;
  }
  if (length > bytes.size() - 8) {
    report.add("CHECKPOINT_TRUNCATED", "", "a header of " + std::to_string(length) + " bytes",
               std::to_string(bytes.size() - 8) + " bytes",
               "The download or copy is incomplete; fetch the file again.");
    return false;
  }
  *header = {reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(length)};
  *data = bytes.subspan(8 + static_cast<std::size_t>(length));
  return true;
}

}  // namespace

std::int64_t bytes_of(StoredDtype dtype) { return dtypes[static_cast<std::size_t>(dtype)].bytes; }

const char* name_of(StoredDtype dtype) { return dtypes[static_cast<std::size_t>(dtype)].name; }

std::int64_t StoredTensor::elements() const { return static_cast<std::int64_t>(size_bytes) / bytes_of(dtype); }

void scan_safetensors(std::span<const std::byte> bytes, const std::string& file_name, std::vector<StoredTensor>* out,
                      std::vector<Status>* problems) {
  const Report report{file_name, problems};
  std::string_view header;
  std::span<const std::byte> data;
  if (!split(bytes, report, &header, &data)) return;
  JsonValue root;
  const Status parsed = parse_json(header, &root);
  if (!parsed.ok()) {
    report.add("CHECKPOINT_HEADER", "", "a JSON header with " + parsed.expected, parsed.found);
    return;
  }
  if (!root.is_object() || header.front() != '{') {
    report.add("CHECKPOINT_HEADER", "", "a header that begins with '{'",
               root.is_object() ? "white space" : root.describe());
    return;
  }
  std::vector<Entry> entries;
  const std::size_t problems_before = problems->size();
  for (const JsonMember& member : root.members()) {
    if (member.key == "__metadata__") {
      check_metadata(member.value, report);
    } else {
      read_entry(member, report, &entries);
    }
  }
  check_layout(entries, data, problems->size() == problems_before, report);
  out->reserve(out->size() + entries.size());
  for (Entry& entry : entries) out->push_back(std::move(entry.tensor));
}

Status parse_safetensors(std::span<const std::byte> bytes, const std::string& file_name,
                         std::vector<StoredTensor>* out) {
  std::vector<StoredTensor> tensors;
  std::vector<Status> problems;
  scan_safetensors(bytes, file_name, &tensors, &problems);
  if (!problems.empty()) return std::move(problems.front());
  out->insert(out->end(), std::make_move_iterator(tensors.begin()), std::make_move_iterator(tensors.end()));
  return Status::good();
}

}  // namespace premotor::engine
