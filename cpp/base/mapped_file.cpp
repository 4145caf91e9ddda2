// The memory map behind MappedFile: POSIX open, fstat, mmap, madvise.
#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

namespace premotor {

namespace {

Status cannot_open(const std::string& path, const std::string& reason) {
  Status status = Status::error(
      "CHECKPOINT_MISSING_FILE",
      "Cannot read " + path + ": " + reason + ". Check the path, the permissions and that the download is complete.");
  status.file = path;
  status.expected = "a readable regular file";
  status.found = reason;
  return status;
}

// Closes a descriptor when the scope ends: the map outlives it.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

Status MappedFile::open(const std::string& path, MappedFile* out) {
  // O_NONBLOCK: opening a FIFO by mistake must fail below, not wait for a writer.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return cannot_open(path, std::strerror(errno));
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) return cannot_open(path, std::strerror(errno));
  if (!S_ISREG(info.st_mode))
    return cannot_open(path, S_ISDIR(info.st_mode) ? "it is a folder" : "it is not a regular file");
  if (info.st_size == 0) {
    Status status =
        Status::error("CHECKPOINT_TRUNCATED", path + " is empty: expected data, found 0 bytes. Fetch the file again.");
    status.file = path;
    status.expected = "data";
    status.found = "0 bytes";
    return status;
  }
  const auto size = static_cast<std::size_t>(info.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return cannot_open(path, std::string("mmap: ") + std::strerror(errno));
  MappedFile mapped;
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_ = size;
  mapped.path_ = path;
  *out = std::move(mapped);
  return Status::good();
}

void MappedFile::populate() const {
#if defined(MADV_POPULATE_READ)
  // Only advice, too: older kernels refuse it, and pages then come one by one.
  if (data_ != nullptr) (void)::madvise(const_cast<std::byte*>(data_), size_, MADV_POPULATE_READ);
#endif
}

void MappedFile::prefer_large_pages() const {
#if defined(MADV_HUGEPAGE)
  // Only a wish: most systems keep the pages of files small whatever is asked.
  if (data_ != nullptr) (void)::madvise(const_cast<std::byte*>(data_), size_, MADV_HUGEPAGE);
#endif
}

void MappedFile::release(const std::byte* begin, std::size_t size) const {
  if (data_ == nullptr || begin < data_ || size > size_ || static_cast<std::size_t>(begin - data_) > size_ - size)
    return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<std::uintptr_t>(begin) + page - 1) / page * page;
  const auto last = (reinterpret_cast<std::uintptr_t>(begin) + size) / page * page;
  if (first >= last) return;
  // Only advice: when it fails the pages stay resident, which is slower but right.
  (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace premotor
