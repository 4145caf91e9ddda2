#include "camera/system.h"

#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

namespace premotor::camera {
namespace {

int result_of(int result) { return result < 0 ? -errno : result; }

class Linux final : public System {
 public:
  int open(const char* path) override { return result_of(::open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)); }
  void close(int fd) override { ::close(fd); }
  int ioctl(int fd, unsigned long request, void* argument) override {
    constexpr int tries_max = 100;
    int result = -EINTR;
    for (int i = 0; i < tries_max && result == -EINTR; ++i) result = result_of(::ioctl(fd, request, argument));
    return result;
  }
  void* map(int fd, std::size_t bytes, std::int64_t offset, int* error) override {
    void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (address != MAP_FAILED) return address;
    *error = errno;
    return nullptr;
  }
  void unmap(void* address, std::size_t bytes) override { ::munmap(address, bytes); }
  int wait(int fd, int timeout_ms) override {
    pollfd one = {fd, POLLIN, 0};
    const int result = result_of(::poll(&one, 1, timeout_ms));
    // A signal is no frame: whoever waits looks at the time and waits on.
    return result == -EINTR ? 0 : result;
  }
  std::int64_t now_ns() override {
    timespec now = {};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * std::int64_t{1000000000} + now.tv_nsec;
  }
};

}  // namespace

std::unique_ptr<System> make_system() { return std::make_unique<Linux>(); }

}  // namespace premotor::camera
