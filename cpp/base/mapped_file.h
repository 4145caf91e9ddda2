// A read-only memory map of a whole file, closed when it goes out of scope.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/status.h"

namespace premotor {

class MappedFile {
 public:
  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Errors: CHECKPOINT_MISSING_FILE (absent or unreadable; the message has errno's text), CHECKPOINT_TRUNCATED (empty
  // file).
  static Status open(const std::string& path, MappedFile* out);

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  [[nodiscard]] const std::string& path() const { return path_; }
  // Makes the whole file resident in one go, where the system can: cheaper than page by page when all will be read.
  void populate() const;
  // Asks for large pages under the map, where the system has them for files.
  void prefer_large_pages() const;
  // Drops whole pages inside [begin, begin + size) from residency (madvise DONTNEED); the data stays readable.
  void release(const std::byte* begin, std::size_t size) const;

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::string path_;
};

}  // namespace premotor
