// Device: one Linux camera (V4L2 capture, memory-mapped buffers), from its name to its frames. It chooses a format,
// starts the stream and lends out one buffer at a time. Owns no thread; nothing is allocated after open().
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "camera/system.h"

namespace premotor::camera {

enum class Format : std::uint8_t { mjpeg, yuyv };

struct DeviceOptions {
  std::string path;                        // /dev/video0
  int width = 0, height = 0;               // 0: the camera's own
  double rate_hz = 0;                      // 0: the camera's own
  bool may_mjpeg = true, may_yuyv = true;  // mjpeg first, because USB 2 carries more of it
};

// What was agreed on with the driver.
struct Agreed {
  Format format = Format::yuyv;
  int width = 0, height = 0;
  double rate_hz = 0;  // 0: the driver does not say
  std::size_t stride_bytes = 0;
  std::size_t frame_bytes_max = 0;  // of one frame as the camera sends it
  std::string driver, card;
};

// A frame in a buffer of the driver, until give_back().
struct Lent {
  const std::uint8_t* bytes = nullptr;
  std::size_t byte_count = 0;
  std::int64_t captured_ns = 0;  // CLOCK_MONOTONIC, of the driver
  std::uint32_t sequence = 0;    // of the driver
};

struct DeviceCounts {
  std::uint64_t frames = 0;     // lent
  std::uint64_t damaged = 0;    // the driver's error flag, or too short: given back unseen
  std::uint64_t dropped = 0;    // gaps in the driver's sequence: frames that found no buffer
  std::uint64_t backwards = 0;  // stamps that did not advance: given back unseen
};

enum class Take : std::uint8_t { frame, nothing, failed };

class Device {
 public:
  static constexpr int kBuffers = 4;  // asked for; a driver may give between 2 and 32 of its own mind
  static constexpr int kBuffersMax = 32;

  explicit Device(System* system) : system_(system) {}
  ~Device() { close(); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // Errors: CAMERA_DEVICE_MISSING, CAMERA_DEVICE_BUSY, CAMERA_DEVICE, CAMERA_FORMAT.
  Status open(const DeviceOptions& options);
  // Idempotent. The kernel forgets what the driver was told.
  void close();

  // Waits for a frame, at most so long. `failed`: ask problem(); nothing comes any more.
  [[nodiscard]] Take take(int timeout_ms, Lent* out);
  // The buffer of the last take() goes back to the driver.
  void give_back();

  [[nodiscard]] const Agreed& agreed() const { return agreed_; }
  [[nodiscard]] const DeviceCounts& counts() const { return counts_; }
  // CAMERA_UNPLUGGED, CAMERA_TIMESTAMPS, CAMERA_DEVICE: latched until it is opened again. Builds strings.
  [[nodiscard]] Status problem() const;

 private:
  struct Buffer {
    void* address = nullptr;
    std::size_t bytes = 0;
  };

  Status check_capabilities();
  Status choose_format();
  Status set_format(std::uint32_t pixel_format);
  Status set_rate();
  Status map_buffers();
  Status start();
  [[nodiscard]] bool queue(std::uint32_t index);
  void fail(int error) { error_ = error; }

  System* system_;
  DeviceOptions options_;
  Agreed agreed_;
  DeviceCounts counts_;
  int fd_ = -1;
  std::array<Buffer, kBuffersMax> buffers_{};
  std::uint32_t buffer_count_ = 0;
  bool is_streaming_ = false;
  int lent_ = -1;  // index of the buffer
  bool has_sequence_ = false;
  std::uint32_t sequence_ = 0;
  std::int64_t newest_ns_ = INT64_MIN;
  int empty_ = 0;  // frames in a row that were announced and not there
  int error_ = 0;  // errno; -1: stamps of another clock
};

// What a camera can send.
struct SizeOffer {
  int width = 0, height = 0;
  std::vector<double> rates_hz;
  bool is_range = false;  // width and height are the largest of a range
};
struct FormatOffer {
  std::string code, description;  // "MJPG"
  std::vector<SizeOffer> sizes;
};
struct DeviceOffer {
  std::string path, card, driver, bus;
  bool is_capture = false;  // it can stream pictures; others carry metadata, or write them
  std::vector<FormatOffer> formats;
};

// Looks at one device and changes nothing in it. Errors: CAMERA_DEVICE_MISSING, CAMERA_DEVICE_BUSY, CAMERA_DEVICE.
Status look_at(System* system, const std::string& path, DeviceOffer* out);

}  // namespace premotor::camera
