#include "camera/capture.h"

#include <chrono>
#include <cstring>

#include "camera/yuyv.h"

namespace premotor::camera {

Status Capture::open(const DeviceOptions& options) {
  close();
  PREMOTOR_TRY(device_.open(options));
  const Agreed& agreed = device_.agreed();
  const std::size_t bytes = agreed.format == Format::yuyv ? std::size_t{3} * static_cast<std::size_t>(agreed.width) *
                                                                static_cast<std::size_t>(agreed.height)
                                                          : agreed.frame_bytes_max;
  for (CaptureFrame& frame : frames_) frame.bytes.assign(bytes, 0);
  spare_.bytes.assign(bytes, 0);
  kept_ = 0;
  counts_ = CaptureCounts();
  problem_ = Status::good();
  is_ending_.store(false);
  thread_ = std::thread([this] { run(); });
  return Status::good();
}

void Capture::close() {
  is_ending_.store(true);
  if (thread_.joinable()) thread_.join();
  device_.close();
}

void Capture::run() {
  bool goes_on = true;
  while (goes_on && !is_ending_.load(std::memory_order_relaxed)) {
    Lent lent;
    const Take got = device_.take(kWaitMs, &lent);
    if (got == Take::frame) {
      keep(lent);
      device_.give_back();
    }
    goes_on = got != Take::failed;
    const std::lock_guard<std::mutex> lock(mutex_);
    counts_.device = device_.counts();
    if (got == Take::nothing) ++counts_.timeouts;
    if (!goes_on) problem_ = device_.problem();
    changed_.notify_all();
  }
}

void Capture::keep(const Lent& lent) {
  const Agreed& agreed = device_.agreed();
  if (agreed.format == Format::yuyv) {
    yuyv_to_rgb(lent.bytes, agreed.stride_bytes, agreed.width, agreed.height, spare_.bytes.data());
    spare_.byte_count = spare_.bytes.size();
  } else {
    std::memcpy(spare_.bytes.data(), lent.bytes, lent.byte_count);
    spare_.byte_count = lent.byte_count;
  }
  spare_.captured_ns = lent.captured_ns;
  spare_.sequence = lent.sequence;
  const std::lock_guard<std::mutex> lock(mutex_);
  spare_.number = ++kept_;
  std::swap(spare_, frames_[kept_ % kFramesKept]);
}

CaptureCounts Capture::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

Status Capture::problem() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return problem_;
}

void Capture::wait_for(std::uint64_t after, int timeout_ms) const {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return kept_ > after || !problem_.ok(); });
}

}  // namespace premotor::camera
