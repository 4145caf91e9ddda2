#include "camera/device.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include <linux/videodev2.h>

#include "camera/errors.h"

namespace premotor::camera {
namespace {

constexpr int kOtherClock = -1;
// A driver that announces so many frames in a row that it does not have is at fault; asking on would cost a core.
constexpr int kEmptyMax = 1000;
// No camera sends a frame of more: a driver that says so is not believed.
constexpr std::size_t kFrameBytesMax = std::size_t{256} << 20;

template <std::size_t N>
std::string text_of(const unsigned char (&from)[N]) {
  std::string text;
  for (std::size_t i = 0; i < N && from[i] != 0; ++i) {
    const auto c = static_cast<char>(from[i]);
    text += c >= ' ' && c < 0x7f ? c : '.';
  }
  return text;
}

std::uint32_t capabilities_of(const v4l2_capability& found) {
  return (found.capabilities & V4L2_CAP_DEVICE_CAPS) != 0 ? found.device_caps : found.capabilities;
}

bool can_stream_pictures(const v4l2_capability& found) {
  constexpr std::uint32_t needed = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
  return (capabilities_of(found) & needed) == needed;
}

std::string size_text(unsigned width, unsigned height) {
  return std::to_string(width) + " x " + std::to_string(height);
}

Status format_error(const std::string& path, const std::string& expected, const std::string& found,
                    const std::string& advice) {
  Status status = Status::error("CAMERA_FORMAT",
                                "the camera " + path + ": expected " + expected + ", found " + found + ". " + advice);
  status.file = path;
  status.expected = expected;
  status.found = found;
  return status;
}

}  // namespace

Status Device::open(const DeviceOptions& options) {
  close();
  options_ = options;
  agreed_ = Agreed();
  counts_ = DeviceCounts();
  error_ = 0;
  has_sequence_ = false;
  newest_ns_ = INT64_MIN;
  empty_ = 0;
  const int fd = system_->open(options.path.c_str());
  if (fd < 0) return device_error(options.path, "cannot be opened", -fd);
  fd_ = fd;
  Status status = check_capabilities();
  if (status.ok()) status = choose_format();
  if (status.ok()) status = set_rate();
  if (status.ok()) status = map_buffers();
  if (status.ok()) status = start();
  if (!status.ok()) close();
  return status;
}

Status Device::check_capabilities() {
  v4l2_capability found = {};
  const int result = system_->ioctl(fd_, VIDIOC_QUERYCAP, &found);
  if (result == -ENOTTY || result == -EINVAL || (result >= 0 && !can_stream_pictures(found))) {
    Status status = Status::error("CAMERA_DEVICE", "the camera " + options_.path +
                                                       ": expected a device that streams pictures, found one that "
                                                       "does not. A camera often has several devices: premotor camera "
                                                       "list shows which of them give pictures.");
    status.file = options_.path;
    return status;
  }
  if (result < 0) return device_error(options_.path, "does not say what it is", -result);
  agreed_.driver = text_of(found.driver);
  agreed_.card = text_of(found.card);
  return Status::good();
}

// The first of the formats wanted that the driver lists.
Status Device::choose_format() {
  bool has_mjpeg = false, has_yuyv = false;
  std::string listed;
  constexpr std::uint32_t formats_max = 64;
  for (std::uint32_t i = 0; i < formats_max; ++i) {
    v4l2_fmtdesc one = {};
    one.index = i;
    one.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    const int result = system_->ioctl(fd_, VIDIOC_ENUM_FMT, &one);
    if (result == -EINVAL) break;
    if (result < 0) return device_error(options_.path, "does not list its formats", -result);
    has_mjpeg = has_mjpeg || one.pixelformat == V4L2_PIX_FMT_MJPEG;
    has_yuyv = has_yuyv || one.pixelformat == V4L2_PIX_FMT_YUYV;
    listed += (listed.empty() ? "" : ", ") + four_characters(one.pixelformat);
  }
  if (has_mjpeg && options_.may_mjpeg) return set_format(V4L2_PIX_FMT_MJPEG);
  if (has_yuyv && options_.may_yuyv) return set_format(V4L2_PIX_FMT_YUYV);
  const char* wanted = !options_.may_mjpeg ? "YUYV" : !options_.may_yuyv ? "MJPG" : "MJPG or YUYV";
  return format_error(options_.path, wanted, listed.empty() ? "no format" : listed,
                      "Leave the format out, or use a camera that sends one of these.");
}

// The driver may change what it is asked for; what it then says is what it sends.
Status Device::set_format(std::uint32_t pixel_format) {
  v4l2_format format = {};
  format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  v4l2_pix_format& pix = format.fmt.pix;
  if (options_.width == 0 || options_.height == 0) {
    const int result = system_->ioctl(fd_, VIDIOC_G_FMT, &format);
    if (result < 0) return device_error(options_.path, "does not tell its picture size", -result);
  }
  if (options_.width != 0) pix.width = static_cast<std::uint32_t>(options_.width);
  if (options_.height != 0) pix.height = static_cast<std::uint32_t>(options_.height);
  pix.pixelformat = pixel_format;
  pix.field = V4L2_FIELD_NONE;
  pix.bytesperline = pix.sizeimage = 0;
  const std::uint32_t width = pix.width, height = pix.height;
  const int result = system_->ioctl(fd_, VIDIOC_S_FMT, &format);
  if (result < 0) return device_error(options_.path, "does not take the picture format", -result);
  if (pix.pixelformat != pixel_format)
    return format_error(options_.path, four_characters(pixel_format), four_characters(pix.pixelformat),
                        "The driver lists a format that it does not give: ask for the other one.");
  if ((options_.width != 0 && pix.width != width) || (options_.height != 0 && pix.height != height))
    return format_error(options_.path, size_text(width, height), size_text(pix.width, pix.height),
                        "Ask for a size that premotor camera list shows.");
  const bool is_yuyv = pixel_format == V4L2_PIX_FMT_YUYV;
  const std::size_t row_bytes = std::size_t{2} * pix.width;
  const std::size_t stride = std::max<std::size_t>(pix.bytesperline, is_yuyv ? row_bytes : 0);
  const std::size_t bytes = is_yuyv ? std::max<std::size_t>(pix.sizeimage, stride * pix.height) : pix.sizeimage;
  if (pix.width == 0 || pix.height == 0 || pix.width > 16384 || pix.height > 16384 || bytes == 0 ||
      bytes > kFrameBytesMax || (is_yuyv && pix.width % 2 != 0))
    return format_error(options_.path, "a picture of 1 to 16384 pixels a side, even rows for YUYV",
                        size_text(pix.width, pix.height) + " in " + std::to_string(bytes) + " bytes",
                        "Ask for another size.");
  agreed_.format = is_yuyv ? Format::yuyv : Format::mjpeg;
  agreed_.width = static_cast<int>(pix.width);
  agreed_.height = static_cast<int>(pix.height);
  agreed_.stride_bytes = stride;
  agreed_.frame_bytes_max = bytes;
  return Status::good();
}

// A camera that has one rate only refuses the question: its own rate is as good as any, the sampler judges frames by
// their age.
Status Device::set_rate() {
  v4l2_streamparm parameters = {};
  parameters.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  v4l2_fract& period = parameters.parm.capture.timeperframe;
  int result = 0;
  if (options_.rate_hz > 0) {
    period.numerator = 1000;
    period.denominator = static_cast<std::uint32_t>(std::llround(1000 * options_.rate_hz));
    result = system_->ioctl(fd_, VIDIOC_S_PARM, &parameters);
  } else {
    result = system_->ioctl(fd_, VIDIOC_G_PARM, &parameters);
  }
  if (result == -ENOTTY || result == -EINVAL) return Status::good();
  if (result < 0) return device_error(options_.path, "does not take the frame rate", -result);
  if (period.numerator != 0)
    agreed_.rate_hz = static_cast<double>(period.denominator) / static_cast<double>(period.numerator);
  return Status::good();
}

Status Device::map_buffers() {
  v4l2_requestbuffers request = {};
  request.count = kBuffers;
  request.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  request.memory = V4L2_MEMORY_MMAP;
  const int result = system_->ioctl(fd_, VIDIOC_REQBUFS, &request);
  if (result < 0) return device_error(options_.path, "gives no buffers to map", -result);
  if (request.count < 2 || request.count > kBuffersMax)
    return format_error(options_.path, "2 to 32 buffers", std::to_string(request.count),
                        "The driver has too little memory, or a fault.");
  for (std::uint32_t i = 0; i < request.count; ++i) {
    v4l2_buffer buffer = {};
    buffer.index = i;
    buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer.memory = V4L2_MEMORY_MMAP;
    const int queried = system_->ioctl(fd_, VIDIOC_QUERYBUF, &buffer);
    if (queried < 0) return device_error(options_.path, "does not describe a buffer", -queried);
    int error = 0;
    void* address = system_->map(fd_, buffer.length, buffer.m.offset, &error);
    if (address == nullptr) return device_error(options_.path, "a buffer cannot be mapped", error);
    buffers_[i] = {address, buffer.length};
    buffer_count_ = i + 1;
  }
  return Status::good();
}

bool Device::queue(std::uint32_t index) {
  v4l2_buffer buffer = {};
  buffer.index = index;
  buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  buffer.memory = V4L2_MEMORY_MMAP;
  const int result = system_->ioctl(fd_, VIDIOC_QBUF, &buffer);
  if (result < 0) fail(-result);
  return result >= 0;
}

Status Device::start() {
  for (std::uint32_t i = 0; i < buffer_count_; ++i)
    if (!queue(i)) return device_error(options_.path, "does not take a buffer", error_);
  int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  const int result = system_->ioctl(fd_, VIDIOC_STREAMON, &type);
  if (result < 0) return device_error(options_.path, "does not start", -result);
  is_streaming_ = true;
  return Status::good();
}

void Device::close() {
  if (fd_ < 0) return;
  int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  // What cannot be stopped is gone already, or stops with its descriptor.
  if (is_streaming_) static_cast<void>(system_->ioctl(fd_, VIDIOC_STREAMOFF, &type));
  for (std::uint32_t i = 0; i < buffer_count_; ++i) system_->unmap(buffers_[i].address, buffers_[i].bytes);
  buffers_.fill({});
  buffer_count_ = 0;
  is_streaming_ = false;
  lent_ = -1;
  system_->close(fd_);
  fd_ = -1;
}

Take Device::take(int timeout_ms, Lent* out) {
  if (error_ != 0 || fd_ < 0) return Take::failed;
  if (lent_ >= 0) give_back();
  const int ready = system_->wait(fd_, timeout_ms);
  if (ready == 0) return Take::nothing;
  v4l2_buffer buffer = {};
  buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  buffer.memory = V4L2_MEMORY_MMAP;
  const int result = ready < 0 ? ready : system_->ioctl(fd_, VIDIOC_DQBUF, &buffer);
  if (result == -EAGAIN && ++empty_ < kEmptyMax) return Take::nothing;
  if (result < 0 || buffer.index >= buffer_count_) {
    fail(result < 0 ? -result : EPROTO);
    return Take::failed;
  }
  empty_ = 0;
  if ((buffer.flags & V4L2_BUF_FLAG_TIMESTAMP_MASK) != V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC) {
    fail(kOtherClock);
    return Take::failed;
  }
  if (has_sequence_) counts_.dropped += buffer.sequence - sequence_ > 0 ? buffer.sequence - sequence_ - 1 : 0;
  has_sequence_ = true;
  sequence_ = buffer.sequence;
  const std::int64_t captured_ns =
      buffer.timestamp.tv_sec * std::int64_t{1000000000} + buffer.timestamp.tv_usec * std::int64_t{1000};
  const std::size_t used = std::min<std::size_t>(buffer.bytesused, buffers_[buffer.index].bytes);
  const std::size_t needed = agreed_.format == Format::yuyv
                                 ? agreed_.stride_bytes * static_cast<std::size_t>(agreed_.height - 1) +
                                       2 * static_cast<std::size_t>(agreed_.width)
                                 : 4;
  const bool is_damaged = (buffer.flags & V4L2_BUF_FLAG_ERROR) != 0 || used < needed || used > agreed_.frame_bytes_max;
  const bool is_backwards = captured_ns <= newest_ns_;
  if (is_damaged || is_backwards) {
    ++(is_damaged ? counts_.damaged : counts_.backwards);
    return queue(buffer.index) ? Take::nothing : Take::failed;
  }
  newest_ns_ = captured_ns;
  ++counts_.frames;
  lent_ = static_cast<int>(buffer.index);
  *out = {static_cast<const std::uint8_t*>(buffers_[buffer.index].address), used, captured_ns, buffer.sequence};
  return Take::frame;
}

void Device::give_back() {
  if (lent_ < 0) return;
  static_cast<void>(queue(static_cast<std::uint32_t>(lent_)));
  lent_ = -1;
}

Status Device::problem() const {
  if (error_ == 0) return Status::good();
  Status status;
  if (error_ == kOtherClock) {
    status = Status::error("CAMERA_TIMESTAMPS",
                           "the camera " + options_.path +
                               ": expected frames stamped by the monotonic clock, found another clock. Its driver does "
                               "not say when a frame was taken: use another camera or a newer kernel.");
  } else if (error_ == ENODEV || error_ == ENXIO) {
    status = Status::error("CAMERA_UNPLUGGED",
                           "the camera " + options_.path + " is gone. Check its cable and its power, and start again.");
  } else {
    return device_error(options_.path, "stopped giving frames", error_);
  }
  status.file = options_.path;
  return status;
}

namespace {

void list_rates(System* system, int fd, std::uint32_t pixel_format, const SizeOffer& size, std::vector<double>* out) {
  constexpr std::uint32_t rates_max = 64;
  for (std::uint32_t i = 0; i < rates_max; ++i) {
    v4l2_frmivalenum one = {};
    one.index = i;
    one.pixel_format = pixel_format;
    one.width = static_cast<std::uint32_t>(size.width);
    one.height = static_cast<std::uint32_t>(size.height);
    if (system->ioctl(fd, VIDIOC_ENUM_FRAMEINTERVALS, &one) < 0) return;
    const bool is_discrete = one.type == V4L2_FRMIVAL_TYPE_DISCRETE;
    const v4l2_fract& period = is_discrete ? one.discrete : one.stepwise.min;
    if (period.numerator != 0)
      out->push_back(static_cast<double>(period.denominator) / static_cast<double>(period.numerator));
    if (!is_discrete) return;
  }
}

void list_sizes(System* system, int fd, std::uint32_t pixel_format, std::vector<SizeOffer>* out) {
  constexpr std::uint32_t sizes_max = 128;
  for (std::uint32_t i = 0; i < sizes_max; ++i) {
    v4l2_frmsizeenum one = {};
    one.index = i;
    one.pixel_format = pixel_format;
    if (system->ioctl(fd, VIDIOC_ENUM_FRAMESIZES, &one) < 0) return;
    SizeOffer size;
    size.is_range = one.type != V4L2_FRMSIZE_TYPE_DISCRETE;
    size.width = static_cast<int>(size.is_range ? one.stepwise.max_width : one.discrete.width);
    size.height = static_cast<int>(size.is_range ? one.stepwise.max_height : one.discrete.height);
    list_rates(system, fd, pixel_format, size, &size.rates_hz);
    out->push_back(std::move(size));
    if (out->back().is_range) return;
  }
}

}  // namespace

Status look_at(System* system, const std::string& path, DeviceOffer* out) {
  *out = DeviceOffer();
  out->path = path;
  const int fd = system->open(path.c_str());
  if (fd < 0) return device_error(path, "cannot be opened", -fd);
  v4l2_capability found = {};
  const int result = system->ioctl(fd, VIDIOC_QUERYCAP, &found);
  if (result < 0) {
    system->close(fd);
    return device_error(path, "does not say what it is", -result);
  }
  out->card = text_of(found.card);
  out->driver = text_of(found.driver);
  out->bus = text_of(found.bus_info);
  out->is_capture = can_stream_pictures(found);
  constexpr std::uint32_t formats_max = 64;
  for (std::uint32_t i = 0; out->is_capture && i < formats_max; ++i) {
    v4l2_fmtdesc one = {};
    one.index = i;
    one.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (system->ioctl(fd, VIDIOC_ENUM_FMT, &one) < 0) break;
    FormatOffer format;
    format.code = four_characters(one.pixelformat);
    format.description = text_of(one.description);
    list_sizes(system, fd, one.pixelformat, &format.sizes);
    out->formats.push_back(std::move(format));
  }
  system->close(fd);
  return Status::good();
}

}  // namespace premotor::camera
