// The header of a plan file and its checks. The directory is in plan_directory.cpp. See plan_format.h.
#include "engine/plan_format.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checksum.h"

namespace premotor::engine {

namespace {

constexpr const char* kRebuild = "Build it again with premotor build.";
constexpr const char* kCopyAgain = "Copy it again, or build it again with premotor build.";

std::uint64_t u64_at(std::span<const std::byte> bytes, std::size_t at) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, 8);
  return value;
}

std::uint32_t u32_at(std::span<const std::byte> bytes, std::size_t at) {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, 4);
  return value;
}

Status check_header(std::span<const std::byte> bytes, const std::string& file) {
  const std::string size = std::to_string(bytes.size()) + " bytes";
  if (bytes.size() < 8 || std::memcmp(bytes.data(), kPlanMagic.data(), kPlanMagic.size()) != 0) {
    return plan_error("PLAN_FOREIGN", file, "a file that begins as plans do", "another beginning, " + size,
                      "Give a file that premotor build wrote.");
  }
  if (bytes.size() < kPlanHeaderBytes) {
    return plan_error("PLAN_TRUNCATED", file, std::to_string(kPlanHeaderBytes) + " bytes of header", size, kCopyAgain);
  }
  const std::uint32_t version = u32_at(bytes, 8);
  if (version != kPlanVersion) {
    return plan_error("PLAN_VERSION", file, "format " + std::to_string(kPlanVersion),
                      "format " + std::to_string(version), kRebuild);
  }
  const std::uint64_t sum = checksum64(bytes.first(kPlanHeaderBytes - 8));
  if (sum != u64_at(bytes, kPlanHeaderBytes - 8) || u32_at(bytes, 12) != kPlanHeaderBytes) {
    return plan_error("PLAN_DAMAGED", file, "a header with its checksum", "other bytes", kCopyAgain);
  }
  if (u64_at(bytes, 16) != bytes.size()) {
    const char* code = u64_at(bytes, 16) > bytes.size() ? "PLAN_TRUNCATED" : "PLAN_DAMAGED";
    return plan_error(code, file, std::to_string(u64_at(bytes, 16)) + " bytes", size, kCopyAgain);
  }
  return Status::good();
}

// [at, at + size) of the file, in one piece with what lies before and after it.
bool section(std::span<const std::byte> bytes, std::uint64_t at, std::uint64_t size, std::span<const std::byte>* out) {
  if (at > bytes.size() || size > bytes.size() - at) return false;
  *out = bytes.subspan(at, size);
  return true;
}

}  // namespace

Status plan_error(const char* code, const std::string& file, const std::string& expected, const std::string& found,
                  const std::string& advice) {
  Status status = Status::error(
      code, "Cannot use the plan " + file + ": expected " + expected + ", found " + found + ". " + advice);
  status.file = file;
  status.expected = expected;
  status.found = found;
  return status;
}

const PlanTensor* PlanContents::find(std::string_view key) const {
  const auto at = std::lower_bound(tensors.begin(), tensors.end(), key,
                                   [](const PlanTensor& tensor, std::string_view name) { return tensor.key < name; });
  return at == tensors.end() || at->key != key ? nullptr : &*at;
}

const PlanPart* PlanContents::part(std::string_view name) const {
  const auto at = std::find_if(parts.begin(), parts.end(), [&](const PlanPart& one) { return one.name == name; });
  return at == parts.end() ? nullptr : &*at;
}

bool PlanContents::block_is_whole(std::uint64_t block) const {
  const std::uint64_t begin = block * block_bytes;
  const std::uint64_t size = std::min<std::uint64_t>(block_bytes, payload.size() - begin);
  return checksum64(payload.subspan(begin, size)) == u64_at(blocks, block * 8);
}

Status parse_plan(std::span<const std::byte> bytes, const std::string& file, PlanContents* out) {
  PlanContents found;
  PREMOTOR_TRY(check_header(bytes, file));
  const auto damaged = [&](const std::string& expected) {
    return plan_error("PLAN_DAMAGED", file, expected, "other bytes", kCopyAgain);
  };
  const std::uint64_t payload_at = u64_at(bytes, 48), payload_bytes = u64_at(bytes, 56), block = u64_at(bytes, 64);
  std::span<const std::byte> directory;
  const bool fits = payload_at == kPlanHeaderBytes && section(bytes, payload_at, payload_bytes, &found.payload) &&
                    section(bytes, u64_at(bytes, 72), u64_at(bytes, 80), &found.blocks) &&
                    section(bytes, u64_at(bytes, 24), u64_at(bytes, 32), &directory);
  const std::uint64_t blocks = block == 0 ? 0 : payload_bytes / block + (payload_bytes % block == 0 ? 0 : 1);
  if (!fits || block == 0 || block % kPlanAlignment != 0 || u64_at(bytes, 80) % 8 != 0 ||
      u64_at(bytes, 80) / 8 != blocks || u64_at(bytes, 72) != payload_at + payload_bytes ||
      u64_at(bytes, 24) != u64_at(bytes, 72) + u64_at(bytes, 80) ||
      u64_at(bytes, 24) + u64_at(bytes, 32) != bytes.size())
    return damaged("a header whose sections follow one another");
  found.block_bytes = block;
  if (checksum64(found.blocks) != u64_at(bytes, 88)) return damaged("checksums of blocks with their checksum");
  if (checksum64(directory) != u64_at(bytes, 40)) return damaged("a directory with its checksum");
  PREMOTOR_TRY(parse_plan_directory({reinterpret_cast<const char*>(directory.data()), directory.size()}, file, &found));
  *out = std::move(found);
  return Status::good();
}

}  // namespace premotor::engine
