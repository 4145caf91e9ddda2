// What a plan file holds, and how its bytes are checked (docs/PLAN.md owns the layout). A plan is one checkpoint made
// ready for one kind of device at one precision: every weight in the form that the device's kernels read, what depends
// on the job's schedule alone, and the choices that were measured. Everything is addressed by name and used from the
// memory map where it lies.
//
//   offset  bytes      header, little endian; the rest of its 4096 bytes is zero
//   0       8          89 'P' 'M' 'P' 'L' 'A' 'N' 0A
//   8       4, 4       version, bytes of the header (4096)
//   16      8          bytes of the file
//   24      8, 8, 8    directory (JSON): offset, bytes, checksum64
//   48      8, 8       payload: offset (4096), bytes
//   64      8          bytes of a block: the payload is checked block by block, the last one may be shorter
//   72      8, 8, 8    the blocks' checksums, 8 bytes each: offset, bytes, checksum64
//   4088    8          checksum64 of the header's first 4088 bytes
//   4096               payload, then the blocks' checksums, then the directory, which ends the file
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "ops/ops.h"

namespace premotor::engine {

inline constexpr std::uint32_t kPlanVersion = 2;
inline constexpr std::uint64_t kPlanHeaderBytes = 4096;
inline constexpr std::uint64_t kPlanBlockBytes = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kPlanAlignment = 64;
// Of one product and size; products and sizes.
inline constexpr std::int64_t kTacticsMost = 1024, kTunedProductsMost = 4096;
inline constexpr std::array<unsigned char, 8> kPlanMagic = {0x89, 'P', 'M', 'P', 'L', 'A', 'N', 0x0a};

// prepared: what Ops::write_prepared wrote. plain: a matrix as the operations read it. floats: values of a vector or
// table.
enum class PlanKind : std::uint8_t { prepared, plain, floats };

struct PlanTensor {
  std::string key;  // part and tensor: "transformer/blocks.0.attn1.to_q.weight"
  PlanKind kind = PlanKind::floats;
  ops::Dtype dtype = ops::Dtype::f32;  // f32 or bf16: of the matrix that it was made of; floats: f32
  std::int64_t rows = 0, cols = 0;     // floats: rows values
  std::string product;                 // prepared: see Ops::PreparedForm
  std::int64_t group = 0;              // prepared: the same
  std::uint64_t at = 0, bytes = 0;     // in the payload, at a multiple of 64
  const std::byte* data = nullptr;     // into the map
};

struct PlanPart {
  std::string name;  // "transformer", "vae"
  std::int64_t parameters = 0;
  std::int64_t weight_bytes = 0;
  std::vector<std::string> unread;  // the checkpoint's tensors that nothing uses
};

// One file of the checkpoint that the plan was made of.
struct PlanSource {
  std::string path;  // below the checkpoint's folder
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;
  std::uint64_t outline = 0;  // checksum64 of config.json, or of a safetensors file's header
  std::uint64_t samples = 0;  // checksum64 over the first and last 4 KiB of every tensor
};

// Conditioning of one timestep: temb [width] and its projection [6 width], f32. Only the backend that computed it would
// compute the same bits.
struct PlanConditioning {
  std::int64_t modality = 0;
  std::uint32_t timestep_bits = 0;  // of the f32
  std::int64_t width = 0;
  std::uint64_t at = 0, bytes = 0;
  const std::byte* data = nullptr;
};

// Buffers of one pass of the largest size that the job needs.
struct PlanArena {
  std::int64_t rows = 0;
  std::int64_t bytes = 0;     // of the one allocation
  std::int64_t unshared = 0;  // what the buffers would take side by side
};

// Tactics of the weights of one product and size.
struct PlanTactics {
  std::string product;  // as PlanTensor's
  std::int64_t outputs = 0, inputs = 0, group = 0;
  std::vector<ops::Tactic> tactics;  // rows ascend
};

// What was tuned: for one processor with so many threads, and a hint there alone.
struct PlanTuning {
  std::string processor;  // CpuOps::processor; empty: nothing was tuned
  std::int64_t threads = 0;
  std::vector<PlanTactics> products;  // ascending by product, outputs, inputs, group; each once

  // Those of a weight, empty without any.
  [[nodiscard]] std::span<const ops::Tactic> find(const PlanTensor& tensor) const;
};

// What a plan is for.
struct PlanFacts {
  std::string tool;          // the version of premotor that wrote it
  std::string device;        // "cpu"
  std::string backend;       // that computed `conditioning` and measured
  std::string precision;     // name_of(WeightPrecision)
  std::string rounding;      // "none", "bf16"
  std::uint32_t layout = 0;  // of prepared weights
  std::string checkpoint;    // the supervisor's hash of the checkpoint, 64 hexadecimal digits
};

struct PlanContents {
  PlanFacts facts;
  std::vector<PlanSource> sources;
  std::vector<PlanPart> parts;
  std::vector<PlanTensor> tensors;  // sorted by key
  std::vector<PlanConditioning> conditioning;
  PlanArena arena;
  PlanTuning tuning;
  std::string passes = "[]";   // JSON: what the job's passes consist of (pass_outline.h); for people, not read here
  std::string_view directory;  // all of this as JSON, in the map

  // The payload and the checksums of its blocks, in the map.
  std::span<const std::byte> payload;
  std::uint64_t block_bytes = 0;
  std::span<const std::byte> blocks;

  [[nodiscard]] const PlanTensor* find(std::string_view key) const;
  [[nodiscard]] const PlanPart* part(std::string_view name) const;
  [[nodiscard]] std::uint64_t block_count() const { return blocks.size() / 8; }
  // Whether the bytes of a block are those that were written.
  [[nodiscard]] bool block_is_whole(std::uint64_t block) const;
};

// Checks everything but the payload's bytes. `bytes` is the whole file, which `out` points into. This is what the
// fuzzer drives. Errors: PLAN_FOREIGN, PLAN_VERSION, PLAN_TRUNCATED, PLAN_DAMAGED.
Status parse_plan(std::span<const std::byte> bytes, const std::string& file, PlanContents* out);

// The directory alone, of a payload of so many bytes at `payload`.
Status parse_plan_directory(std::string_view json, const std::string& file, PlanContents* out);
std::string plan_directory(const PlanContents& contents);

// Tunings of several processors, {"tunings":[...]} with the directory's objects: what a cache of tactics holds. Error:
// TACTICS_INVALID.
Status parse_tunings(std::string_view json, const std::string& file, std::vector<PlanTuning>* out);

// "Cannot use the plan FILE: expected ..., found .... advice"
Status plan_error(const char* code, const std::string& file, const std::string& expected, const std::string& found,
                  const std::string& advice);

[[nodiscard]] const char* name_of(PlanKind kind);
[[nodiscard]] const char* name_of(ops::Dtype dtype);
[[nodiscard]] const char* name_of(ops::Rounding rounding);
[[nodiscard]] const char* name_of(ops::Split split);

}  // namespace premotor::engine
