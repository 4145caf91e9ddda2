// POSIX open, pwrite, fsync and rename behind OutputFile. See output_file.h.
#include "base/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace premotor {

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(partial_.c_str());
}

Status OutputFile::failed(const char* doing) const {
  const std::string reason = std::strerror(errno);
  Status status = Status::error("FILE_WRITE", "Cannot " + std::string(doing) + " " + partial_ + ": " + reason +
                                                  ". Check the folder, its permissions and the free space.");
  status.file = path_;
  status.expected = "a file that can be written";
  status.found = reason;
  return status;
}

Status OutputFile::create(const std::string& path) {
  assert(fd_ < 0);
  path_ = path;
  partial_ = path + ".partial";
  fd_ = ::open(partial_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  return fd_ < 0 ? failed("create") : Status::good();
}

Status OutputFile::append(std::span<const std::byte> bytes) {
  const std::uint64_t at = size_;
  size_ += bytes.size();
  return write_at(at, bytes);
}

Status OutputFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  assert(offset + bytes.size() <= size_);
  constexpr std::size_t kAtOnce = std::size_t{1} << 30;
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kAtOnce), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return failed("write");
    bytes = bytes.subspan(static_cast<std::size_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
  return Status::good();
}

Status OutputFile::truncate(std::uint64_t size) {
  assert(size <= size_);
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) return failed("cut");
  size_ = size;
  return Status::good();
}

Status OutputFile::commit() {
  if (::fsync(fd_) != 0) return failed("flush");
  if (::rename(partial_.c_str(), path_.c_str()) != 0) return failed("rename");
  ::close(fd_);
  fd_ = -1;
  return Status::good();
}

}  // namespace premotor
