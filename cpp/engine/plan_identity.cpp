// Reading and comparing the identity of a checkpoint. See plan_identity.h.
#include "engine/plan_identity.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/checksum.h"
#include "base/mapped_file.h"
#include "engine/safetensors.h"

namespace premotor::engine {

namespace {

constexpr std::size_t kSampleBytes = 4096;

// The header of a safetensors file with its length field; the whole file when that is wrong.
std::span<const std::byte> header_of(std::span<const std::byte> file) {
  std::uint64_t length = 0;
  if (file.size() < 8) return file;
  std::memcpy(&length, file.data(), 8);
  return length > file.size() - 8 ? file : file.first(8 + length);
}

Status sample(const MappedFile& file, std::uint64_t* out) {
  std::vector<StoredTensor> tensors;
  PREMOTOR_TRY(parse_safetensors(file.bytes(), file.path(), &tensors));
  std::vector<std::uint64_t> sums;
  for (const StoredTensor& tensor : tensors) {
    const std::span<const std::byte> bytes(tensor.data, tensor.size_bytes);
    const std::size_t size = std::min(kSampleBytes, bytes.size());
    sums.push_back(checksum64(bytes.first(size)));
    sums.push_back(checksum64(bytes.last(size)));
  }
  *out = checksum64(std::as_bytes(std::span(sums)));
  return Status::good();
}

bool is_weights(const std::string& path) { return path.ends_with(".safetensors"); }

// All but the samples.
Status outline(const std::string& folder, const std::string& path, MappedFile* file, PlanSource* out) {
  PREMOTOR_TRY(MappedFile::open(folder + "/" + path, file));
  struct stat info = {};
  if (::stat(file->path().c_str(), &info) == 0)
    out->modified_ns = info.st_mtim.tv_sec * std::int64_t{1'000'000'000} + info.st_mtim.tv_nsec;
  out->path = path;
  out->bytes = file->bytes().size();
  out->outline = checksum64(is_weights(path) ? header_of(file->bytes()) : file->bytes());
  return Status::good();
}

// config.json and the weights of both parts, sorted.
std::vector<std::string> paths_of(const std::string& folder) {
  std::vector<std::string> paths;
  for (const std::string part : {"transformer", "vae"}) {
    paths.push_back(part + "/config.json");
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder + "/" + part, error))
      if (is_weights(entry.path().filename().string())) paths.push_back(part + "/" + entry.path().filename().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

Status read_sources(const std::string& folder, std::vector<PlanSource>* out) {
  for (const std::string& path : paths_of(folder)) {
    PlanSource source;
    MappedFile file;
    PREMOTOR_TRY(outline(folder, path, &file, &source));
    if (is_weights(path)) PREMOTOR_TRY(sample(file, &source.samples));
    out->push_back(std::move(source));
  }
  return Status::good();
}

Status check_sources(const std::string& folder, const std::vector<PlanSource>& sources, const std::string& plan) {
  const auto refuse = [&](const std::string& expected, const std::string& found) {
    return plan_error("PLAN_CHECKPOINT", plan, "the checkpoint that it was made of, with " + expected, found,
                      "Build a plan of " + folder + ", or give the plan's own checkpoint.");
  };
  const std::vector<std::string> paths = paths_of(folder);
  const bool same = std::equal(paths.begin(), paths.end(), sources.begin(), sources.end(),
                               [](const std::string& path, const PlanSource& source) { return path == source.path; });
  if (!same) return refuse(std::to_string(sources.size()) + " files", std::to_string(paths.size()) + " or other names");
  for (const PlanSource& source : sources) {
    PlanSource now;
    MappedFile file;
    PREMOTOR_TRY(outline(folder, source.path, &file, &now));
    if (now.bytes != source.bytes) {
      return refuse(source.path + " of " + std::to_string(source.bytes) + " bytes", std::to_string(now.bytes));
    }
    if (now.outline != source.outline)
      return refuse(source.path + " as it was", is_weights(source.path) ? "another header" : "other contents");
    if (now.modified_ns == source.modified_ns || !is_weights(source.path)) continue;
    PREMOTOR_TRY(sample(file, &now.samples));
    if (now.samples != source.samples) return refuse("the values in " + source.path, "others");
  }
  return Status::good();
}

}  // namespace premotor::engine
