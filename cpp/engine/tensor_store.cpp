// The files of one component folder: a single safetensors file, or shards under an index. See safetensors.h.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <utility>

#include "base/json.h"
#include "engine/checkpoint_error.h"
#include "engine/safetensors.h"

namespace premotor::engine {

namespace {

constexpr std::size_t shards_max = 4096;

bool absent(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

// A shard must lie in the component's folder, so that a checkpoint cannot make the engine read files elsewhere.
bool is_plain_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  return name.find('/') == std::string_view::npos && name.find('\\') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

constexpr const char* index_advice = "Fetch the index and all its shards again; they must come from the same export.";

// Reads {"weight_map": {tensor: file}}.
bool read_index(const std::string& path, std::map<std::string, std::string, std::less<>>* shard_of,
                std::vector<Status>* problems) {
  MappedFile file;
  Status opened = MappedFile::open(path, &file);
  if (!opened.ok()) {
    problems->push_back(std::move(opened));
    return false;
  }
  const auto bytes = file.bytes();
  JsonValue root;
  const Status parsed = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, &root);
  if (!parsed.ok()) {
    problems->push_back(
        checkpoint_error("CHECKPOINT_INDEX", path, "", "JSON with " + parsed.expected, parsed.found, index_advice));
    return false;
  }
  const JsonValue* map = root.find("weight_map");
  if (map == nullptr || !map->is_object()) {
    problems->push_back(checkpoint_error("CHECKPOINT_INDEX", path, "", "an object \"weight_map\"",
                                         map == nullptr ? "none" : map->describe(), index_advice));
    return false;
  }
  for (const JsonMember& member : map->members()) {
    if (!member.value.is_string() || !is_plain_name(member.value.string())) {
      problems->push_back(checkpoint_error("CHECKPOINT_INDEX", path, member.key,
                                           "the name of a file in the same folder", member.value.describe(),
                                           index_advice));
      continue;
    }
    shard_of->emplace(member.key, member.value.string());
  }
  return true;
}

}  // namespace

void TensorStore::sort() {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
}

Status TensorStore::open_file(const std::string& path, TensorStore* out) {
  TensorStore store;
  PREMOTOR_TRY(MappedFile::open(path, &store.files_.emplace_back()));
  PREMOTOR_TRY(parse_safetensors(store.files_[0].bytes(), path, &store.tensors_));
  store.sort();
  *out = std::move(store);
  return Status::good();
}

Status TensorStore::open_folder(const std::string& folder, std::span<const std::string_view> stems, TensorStore* out) {
  TensorStore store;
  std::vector<Status> problems;
  scan_folder(folder, stems, &store, &problems);
  if (!problems.empty()) return std::move(problems.front());
  *out = std::move(store);
  return Status::good();
}

void TensorStore::scan_folder(const std::string& folder, std::span<const std::string_view> stems, TensorStore* out,
                              std::vector<Status>* problems) {
  TensorStore store;
  std::string tried;
  for (const std::string_view stem : stems) {
    const std::string single = folder + "/" + std::string(stem) + ".safetensors";
    const std::string index = single + ".index.json";
    tried += (tried.empty() ? "" : ", or ") + std::string(stem) + ".safetensors, or " + std::string(stem) +
             ".safetensors.index.json";
    if (!absent(single)) {
      Status opened = MappedFile::open(single, &store.files_.emplace_back());
      if (opened.ok()) {
        scan_safetensors(store.files_[0].bytes(), single, &store.tensors_, problems);
      } else {
        store.files_.clear();
        problems->push_back(std::move(opened));
      }
    } else if (!absent(index)) {
      store.scan_shards(folder, index, problems);
    } else {
      continue;
    }
    store.sort();
    *out = std::move(store);
    return;
  }
  problems->push_back(checkpoint_error("CHECKPOINT_MISSING_FILE", folder, "", tried,
                                       absent(folder) ? "no such folder" : "none of them",
                                       "Point at a folder in the released layout (docs/CHECKPOINT.md)."));
}

void TensorStore::scan_shards(const std::string& folder, const std::string& index_path, std::vector<Status>* problems) {
  std::map<std::string, std::string, std::less<>> shard_of;
  if (!read_index(index_path, &shard_of, problems)) return;
  std::map<std::string, bool>
      shards;  // name -> opened; sorted, so that the order of problems does not depend on the index
  for (const auto& [tensor, shard] : shard_of) shards.emplace(shard, false);
  if (shards.size() > shards_max) {
    problems->push_back(checkpoint_error("CHECKPOINT_INDEX", index_path, "",
                                         "at most " + std::to_string(shards_max) + " shards",
                                         std::to_string(shards.size()), index_advice));
    return;
  }
  for (auto& [shard, opened] : shards) {
    MappedFile file;
    Status status = MappedFile::open(folder + "/" + shard, &file);
    opened = status.ok();
    if (!opened) {
      problems->push_back(std::move(status));
      continue;
    }
    std::vector<StoredTensor> found;
    const std::size_t problems_before = problems->size();
    scan_safetensors(file.bytes(), file.path(), &found, problems);
    // A shard whose header does not parse at all must not also report each of its tensors as missing.
    if (found.empty() && problems->size() > problems_before) opened = false;
    for (StoredTensor& tensor : found) {
      const auto listed = shard_of.find(tensor.name);
      if (listed == shard_of.end() || listed->second != shard) {
        problems->push_back(checkpoint_error(
            "CHECKPOINT_INDEX", file.path(), tensor.name,
            listed == shard_of.end() ? "only tensors that the index lists" : "this tensor only in " + listed->second,
            "it in " + shard, index_advice));
        continue;
      }
      tensor.file = files_.size();
      tensors_.push_back(std::move(tensor));
    }
    files_.push_back(std::move(file));
  }
  sort();
  std::set<std::string> blamed;  // tensors that some problem names already
  for (const Status& status : *problems) blamed.insert(status.tensor);
  for (const auto& [tensor, shard] : shard_of) {
    if (!shards[shard] || find(tensor) != nullptr || blamed.contains(printable(tensor))) continue;
    problems->push_back(checkpoint_error("CHECKPOINT_MISSING_TENSOR", folder + "/" + shard, tensor,
                                         "this tensor, as the index says", "none", index_advice));
  }
}

const StoredTensor* TensorStore::find(std::string_view name) const {
  const auto before = [](const StoredTensor& tensor, std::string_view wanted) { return tensor.name < wanted; };
  const auto it = std::lower_bound(tensors_.begin(), tensors_.end(), name, before);
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

void TensorStore::release_pages(const StoredTensor& tensor) const {
  if (tensor.data != nullptr) files_[tensor.file].release(tensor.data, tensor.size_bytes);
}

}  // namespace premotor::engine
