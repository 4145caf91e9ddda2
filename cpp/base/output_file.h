// A file that is written front to back and appears under its name only when it is whole: until commit() it is called
// NAME.partial, and it vanishes when the writer gives up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"

namespace premotor {

class OutputFile {
 public:
  OutputFile() = default;
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Every method's error: FILE_WRITE, with the system's reason.
  Status create(const std::string& path);
  Status append(std::span<const std::byte> bytes);
  // Overwrites bytes that were appended.
  Status write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  // Cuts the file; size <= size().
  Status truncate(std::uint64_t size);
  // Waits until the bytes are on the disk and gives the file its name, in place of one that is there.
  Status commit();

  [[nodiscard]] std::uint64_t size() const { return size_; }
  // Where the bytes lie until commit().
  [[nodiscard]] const std::string& partial_path() const { return partial_; }

 private:
  [[nodiscard]] Status failed(const char* doing) const;

  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::string path_, partial_;
};

}  // namespace premotor
