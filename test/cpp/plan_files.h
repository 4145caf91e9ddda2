// What the plan tests share: building a plan of a golden checkpoint, and putting changed bytes back in order, so that a
// change reaches the check behind a checksum.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "base/checksum.h"
#include "checkpoint_files.h"
#include "engine/plan_build.h"
#include "golden.h"

namespace plan_files {

inline premotor::engine::SessionOptions options_of(const std::string& name) {
  premotor::engine::SessionOptions options;
  options.checkpoint = checkpoint_files::golden_checkpoint(name);
  options.job = golden::read_job(golden::read_json(checkpoint_files::goldens() + "/" + name + "/job.json"));
  options.job.imagine_steps = 2;
  options.threads = 2;
  if (options.job.deployed_bf16) options.precision = premotor::engine::WeightPrecision::bf16;
  return options;
}

inline premotor::engine::PlanBuildResult build(const premotor::engine::SessionOptions& session, const std::string& file,
                                               bool tune = false,
                                               const std::vector<premotor::engine::PlanTuning>& tunings = {}) {
  premotor::engine::PlanBuildOptions options;
  options.session = session;
  options.file = file;
  options.tool = "test";
  options.checkpoint_hash = "hash";
  options.video_steps = {3};
  options.tune = tune;
  options.tunings = tunings;
  premotor::engine::PlanBuildResult result;
  golden::need(premotor::engine::build_plan(options, &result));
  return result;
}

inline std::uint64_t u64_at(const std::string& file, std::size_t at) {
  std::uint64_t value = 0;
  std::memcpy(&value, file.data() + at, 8);
  return value;
}
inline void put_u64(std::string* file, std::size_t at, std::uint64_t value) {
  std::memcpy(file->data() + at, &value, 8);
}
inline std::uint64_t sum_of(const std::string& file, std::uint64_t at, std::uint64_t bytes) {
  return premotor::checksum64(checkpoint_files::as_bytes(file).subspan(at, bytes));
}

// The header's checksum made right.
inline std::string sealed(std::string file) {
  put_u64(&file, 4088, sum_of(file, 0, 4088));
  return file;
}

// The file with another directory, everything around it made right.
inline std::string with_directory(const std::string& file, const std::string& directory) {
  const std::uint64_t at = u64_at(file, 24);
  std::string changed = file.substr(0, at) + directory;
  put_u64(&changed, 16, changed.size());
  put_u64(&changed, 32, directory.size());
  put_u64(&changed, 40, sum_of(changed, at, directory.size()));
  return sealed(changed);
}
inline std::string directory_of(const std::string& file) { return file.substr(u64_at(file, 24)); }

}  // namespace plan_files
