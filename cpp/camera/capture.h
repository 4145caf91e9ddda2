// Capture: a camera with a thread of its own that keeps the newest frames, so that nobody waits for a camera and no
// camera waits for anybody. YUYV is converted here; MJPEG is kept as it came, for whoever wants it decoded.
// Single writer, the thread; overflow: the oldest frame is overwritten.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/status.h"
#include "camera/device.h"

namespace premotor::camera {

struct CaptureFrame {
  std::uint64_t number = 0;  // counts what was kept, from 1
  std::int64_t captured_ns = 0;
  std::uint32_t sequence = 0;
  std::size_t byte_count = 0;
  std::vector<std::uint8_t> bytes;  // [height, width, 3] u8 rgb, or a JPEG file; longer than byte_count
};

struct CaptureCounts {
  DeviceCounts device;
  std::uint64_t timeouts = 0;  // waits that ended without a frame
};

class Capture {
 public:
  static constexpr int kFramesKept = 4;
  static constexpr int kWaitMs = 100;  // how long close() waits at most for the thread, and the camera for a look

  explicit Capture(std::unique_ptr<System> system) : system_(std::move(system)), device_(system_.get()) {}
  ~Capture() { close(); }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // Opens the camera and starts the thread; all memory is taken here. Errors: those of Device::open.
  Status open(const DeviceOptions& options);
  // Idempotent.
  void close();

  [[nodiscard]] const Agreed& agreed() const { return device_.agreed(); }
  // Hands every kept frame that is newer than number `after` to see(const CaptureFrame&), oldest first. The thread
  // waits meanwhile, so see() only copies.
  template <typename See>
  void each_after(std::uint64_t after, const See& see) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::uint64_t n = kept_ > kFramesKept ? kept_ - kFramesKept + 1 : 1; n <= kept_; ++n)
      if (n > after) see(frames_[n % kFramesKept]);
  }
  [[nodiscard]] CaptureCounts counts() const;
  // Why no more frames come; good while they do.
  [[nodiscard]] Status problem() const;
  // Waits until a frame newer than `after` is there or none can come, at most so long.
  void wait_for(std::uint64_t after, int timeout_ms) const;

 private:
  void run();
  void keep(const Lent& lent);

  std::unique_ptr<System> system_;
  Device device_;
  std::thread thread_;
  std::atomic<bool> is_ending_{false};

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::array<CaptureFrame, kFramesKept> frames_;  // number % kFramesKept
  CaptureFrame spare_;                            // the thread fills it without the lock, and swaps
  std::uint64_t kept_ = 0;
  CaptureCounts counts_;
  Status problem_;
};

}  // namespace premotor::camera
