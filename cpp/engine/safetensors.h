// Safetensors by memory map: a single file, or shards named by an index. Nothing is read until a tensor is touched.
// Format: u64 little-endian header length N, N bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]},
// "__metadata__": {...}}, then the data; offsets count from the end of the header, tensors are contiguous, in any
// order, without holes or overlaps.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"

namespace premotor::engine {

// Element types that a file may hold. The engine computes from the three float types; traces also hold integers.
enum class StoredDtype : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

[[nodiscard]] std::int64_t bytes_of(StoredDtype dtype);
[[nodiscard]] const char* name_of(StoredDtype dtype);  // "F32", ... as in the header

struct StoredTensor {
  std::string name;
  StoredDtype dtype = StoredDtype::f32;
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;  // into the map; alignment is not promised beyond 1 byte
  std::size_t size_bytes = 0;
  std::size_t file = 0;  // index into TensorStore::files()

  [[nodiscard]] std::int64_t elements() const;
};

// Checks one header. `bytes` is the whole file; names and shapes are appended to `out` with data pointing into `bytes`.
// This is what the fuzzer drives. Errors: CHECKPOINT_TRUNCATED, CHECKPOINT_HEADER, CHECKPOINT_OVERLAP,
// CHECKPOINT_OVERSIZED, CHECKPOINT_DTYPE, CHECKPOINT_SHAPE.
Status parse_safetensors(std::span<const std::byte> bytes, const std::string& file_name,
                         std::vector<StoredTensor>* out);

// The same check for a report: goes on after a problem and appends every one. A tensor whose name, dtype and shape are
// readable but whose data is not is appended with data == nullptr.
void scan_safetensors(std::span<const std::byte> bytes, const std::string& file_name, std::vector<StoredTensor>* out,
                      std::vector<Status>* problems);

// How the weight files of a component are called: transformer and vae folders, and text encoder folders.
inline constexpr std::array<std::string_view, 2> diffusers_stems = {"diffusion_pytorch_model", "model"};
inline constexpr std::array<std::string_view, 1> transformers_stems = {"model"};

// The tensors of one component folder, sorted by name.
class TensorStore {
 public:
  // Opens one .safetensors file.
  static Status open_file(const std::string& path, TensorStore* out);
  // Opens `folder`/`stem`.safetensors, or the shards of `folder`/`stem`.safetensors.index.json, for the first stem that
  // exists. Errors: those of parse_safetensors, CHECKPOINT_MISSING_FILE, CHECKPOINT_MISSING_TENSOR (listed, but not in
  // its shard), CHECKPOINT_INDEX.
  static Status open_folder(const std::string& folder, std::span<const std::string_view> stems, TensorStore* out);

  // The same for a report: opens what can be opened and appends every problem; `out` then holds what is readable (data
  // may be nullptr).
  static void scan_folder(const std::string& folder, std::span<const std::string_view> stems, TensorStore* out,
                          std::vector<Status>* problems);

  [[nodiscard]] const StoredTensor* find(std::string_view name) const;  // null when absent
  [[nodiscard]] std::span<const StoredTensor> tensors() const { return tensors_; }
  [[nodiscard]] std::span<const MappedFile> files() const { return files_; }
  [[nodiscard]] const std::string& file_of(const StoredTensor& tensor) const { return files_[tensor.file].path(); }

  // Tells the kernel that a tensor's pages are not needed for now (they are read again from disk when touched).
  void release_pages(const StoredTensor& tensor) const;

 private:
  void scan_shards(const std::string& folder, const std::string& index_path, std::vector<Status>* problems);
  void sort();

  std::vector<MappedFile> files_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace premotor::engine
