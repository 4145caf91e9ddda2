// What the camera layer asks of the kernel, so that a test can stand in for it with a script: calls return a value of 0
// or more, or minus errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace premotor::camera {

class System {
 public:
  System() = default;
  System(const System&) = delete;
  System& operator=(const System&) = delete;
  virtual ~System() = default;

  // For reading and writing, never blocking.
  virtual int open(const char* path) = 0;
  virtual void close(int fd) = 0;
  // Repeated when a signal interrupted it.
  virtual int ioctl(int fd, unsigned long request, void* argument) = 0;
  // Null: errno is in `error`.
  virtual void* map(int fd, std::size_t bytes, std::int64_t offset, int* error) = 0;
  virtual void unmap(void* address, std::size_t bytes) = 0;
  // 1: there is a frame, or an error to be asked for; 0: the time is over.
  virtual int wait(int fd, int timeout_ms) = 0;
  // CLOCK_MONOTONIC
  virtual std::int64_t now_ns() = 0;
};

// Linux.
std::unique_ptr<System> make_system();

}  // namespace premotor::camera
