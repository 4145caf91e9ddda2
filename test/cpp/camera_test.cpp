// A Linux camera from its name to its frames, against a scripted driver: the order of the calls, what is agreed on,
// every way in which a driver or a cable fails, and YUYV against its formula. The real kernel's part is test/vm.
#include "camera/device.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include "camera/capture.h"
#include "camera/yuyv.h"
#include "camera_script.h"
#include "tap.h"

using namespace premotor;
using camera::Device;
using camera::Format;
using camera::Lent;
using camera::Take;
using camera_script::Driver;
using camera_script::Step;

namespace {

camera::DeviceOptions options_of(int width = 0, int height = 0) {
  camera::DeviceOptions options;
  options.path = "/dev/video9";
  options.width = width;
  options.height = height;
  return options;
}

Step frame(std::uint32_t sequence, std::size_t bytes, std::uint8_t fill = 1) {
  Step step;
  step.bytes.assign(bytes, fill);
  step.sequence = sequence;
  step.stamp_us = 1000000 + 33000 * static_cast<std::int64_t>(sequence);
  return step;
}

constexpr std::size_t kYuyvBytes = 4 * 2 * 2;  // 4 x 2 pixels

void test_sequence() {
  Driver driver;
  driver.formats = {V4L2_PIX_FMT_YUYV};
  camera::DeviceOptions options = options_of(4, 2);
  options.rate_hz = 30;
  {
    Device device(&driver);
    tap::ok(device.open(options).ok(), "opens");
    tap::equal(driver.history(),
               std::string("open /dev/video9 QUERYCAP ENUM_FMT ENUM_FMT S_FMT S_PARM REQBUFS QUERYBUF mmap QUERYBUF "
                           "mmap QUERYBUF mmap QUERYBUF mmap QBUF QBUF QBUF QBUF STREAMON"),
               "asks for everything before it starts, in this order");
    tap::ok(device.agreed().format == Format::yuyv && device.agreed().width == 4 && device.agreed().height == 2 &&
                device.agreed().rate_hz == 30 && device.agreed().card == "A camera.",
            "and knows what was agreed on");
    driver.calls.clear();
    driver.will_give(frame(0, kYuyvBytes));
    Lent lent;
    tap::ok(device.take(0, &lent) == Take::frame && lent.byte_count == kYuyvBytes && lent.bytes[0] == 1 &&
                lent.captured_ns == 1000000000 && lent.sequence == 0,
            "a frame, with the driver's stamp");
    tap::ok(driver.queued.size() == 3, "is lent: its buffer is not the driver's");
    device.give_back();
    device.give_back();
    tap::equal(driver.history(), std::string("DQBUF QBUF"), "and given back once");
    tap::ok(device.take(0, &lent) == Take::nothing, "no frame in time is no fault");
    driver.will_give(frame(1, kYuyvBytes));
    driver.will_give(frame(2, kYuyvBytes));
    tap::ok(device.take(0, &lent) == Take::frame && device.take(0, &lent) == Take::frame && driver.queued.size() == 3,
            "who forgets to give back has one buffer at most");
    driver.calls.clear();
  }
  tap::equal(driver.history(), std::string("STREAMOFF munmap munmap munmap munmap close"), "closing undoes all");
  tap::ok(driver.open_count == 0 && driver.mapped == 0, "nothing is left open");
}

void test_formats() {
  Driver driver;
  Device device(&driver);
  tap::ok(device.open(options_of()).ok() && device.agreed().format == Format::mjpeg, "mjpeg where it can");
  tap::ok(device.agreed().width == 4 && device.agreed().height == 2, "in the camera's own size");
  camera::DeviceOptions options = options_of();
  options.may_mjpeg = false;
  tap::ok(device.open(options).ok() && device.agreed().format == Format::yuyv, "yuyv when asked for");
  driver.formats = {V4L2_PIX_FMT_YUYV};
  tap::ok(device.open(options_of()).ok() && device.agreed().format == Format::yuyv, "and where there is nothing else");
  options = options_of();
  options.may_yuyv = false;
  Status status = device.open(options);
  tap::ok(status.code == std::string("CAMERA_FORMAT") && status.expected == "MJPG" && status.found == "YUYV",
          "a format that it does not have is refused, and what it has is named");
  driver.formats = {V4L2_PIX_FMT_H264};
  tap::equal(device.open(options_of()).found, std::string("H264"), "so is a camera with other formats only");
  driver.formats = {};
  tap::equal(device.open(options_of()).found, std::string("no format"), "or with none");
  driver.formats = {V4L2_PIX_FMT_YUYV};
  driver.gives_instead = V4L2_PIX_FMT_NV12;
  status = device.open(options_of());
  tap::ok(status.code == std::string("CAMERA_FORMAT") && status.found == "NV12",
          "a driver that changes the format is refused");
  driver.gives_instead = 0;
  driver.width_max = 640;
  status = device.open(options_of(1920, 480));
  tap::ok(status.code == std::string("CAMERA_FORMAT") && status.expected == "1920 x 480" && status.found == "640 x 480",
          "so is one that changes the size");
  driver.width = 5;
  tap::equal(std::string(device.open(options_of()).code), std::string("CAMERA_FORMAT"), "half a pair of pixels");
  driver.width = 0;
  tap::equal(std::string(device.open(options_of()).code), std::string("CAMERA_FORMAT"), "no pixels");
  driver.width = 4;
  driver.failing = {{"S_PARM", ENOTTY}};
  options = options_of();
  options.rate_hz = 30;
  tap::ok(device.open(options).ok() && device.agreed().rate_hz == 0, "a camera with one rate of its own is taken");
  for (const std::uint32_t count : {0u, 1u, 33u}) {
    driver.buffers_given = count;
    tap::equal(std::string(device.open(options_of()).code), std::string("CAMERA_FORMAT"),
               std::to_string(count) + " buffers are refused");
  }
  driver.buffers_given = 2;
  tap::ok(device.open(options_of()).ok(), "two are enough");
  device.close();
  device.close();
  tap::ok(driver.open_count == 0 && driver.mapped == 0, "nothing is left open after all that");
}

void test_open_errors() {
  struct Case {
    const char* call;
    int error;
    const char* code;
  };
  const Case cases[] = {{"open", ENOENT, "CAMERA_DEVICE_MISSING"}, {"open", ENXIO, "CAMERA_DEVICE_MISSING"},
                        {"open", EACCES, "CAMERA_DEVICE"},         {"open", EBUSY, "CAMERA_DEVICE_BUSY"},
                        {"QUERYCAP", ENOTTY, "CAMERA_DEVICE"},     {"QUERYCAP", EIO, "CAMERA_DEVICE"},
                        {"ENUM_FMT", EIO, "CAMERA_DEVICE"},        {"G_FMT", EINVAL, "CAMERA_DEVICE"},
                        {"S_FMT", EBUSY, "CAMERA_DEVICE_BUSY"},    {"S_FMT", EINVAL, "CAMERA_DEVICE"},
                        {"G_PARM", EIO, "CAMERA_DEVICE"},          {"REQBUFS", EBUSY, "CAMERA_DEVICE_BUSY"},
                        {"REQBUFS", EINVAL, "CAMERA_DEVICE"},      {"QUERYBUF 3", EINVAL, "CAMERA_DEVICE"},
                        {"mmap 2", ENOMEM, "CAMERA_DEVICE"},       {"QBUF 4", EINVAL, "CAMERA_DEVICE"},
                        {"STREAMON", EBUSY, "CAMERA_DEVICE_BUSY"}, {"STREAMON", ENODEV, "CAMERA_DEVICE_MISSING"},
                        {"STREAMON", ENOSPC, "CAMERA_DEVICE"}};
  for (const Case& one : cases) {
    Driver driver;
    driver.failing = {{one.call, one.error}};
    Device device(&driver);
    const Status status = device.open(options_of());
    const std::string name = std::string(one.call) + ": " + std::strerror(one.error);
    tap::ok(status.code == std::string(one.code) && status.file == "/dev/video9" && status.message.size() > 40, name);
    tap::ok(driver.open_count == 0 && driver.mapped == 0, name + ", and nothing is left open");
    driver.failing.clear();
    tap::ok(device.open(options_of()).ok(), name + ", and it opens once that is mended");
  }
  Driver driver;
  driver.capabilities = V4L2_CAP_META_CAPTURE | V4L2_CAP_STREAMING;
  Device device(&driver);
  tap::equal(std::string(device.open(options_of()).code), std::string("CAMERA_DEVICE"), "a device without pictures");
  driver.capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_READWRITE;
  tap::equal(std::string(device.open(options_of()).code), std::string("CAMERA_DEVICE"), "a device without streaming");
}

void test_frames() {
  Driver driver;
  driver.formats = {V4L2_PIX_FMT_YUYV};
  Device device(&driver);
  Lent lent;
  tap::ok(device.take(0, &lent) == Take::failed, "a camera that is not open gives nothing");
  tap::ok(device.open(options_of()).ok(), "opens");
  driver.will_give(frame(0, kYuyvBytes));
  driver.will_give(frame(4, kYuyvBytes));
  tap::ok(device.take(0, &lent) == Take::frame && device.take(0, &lent) == Take::frame && device.counts().dropped == 3,
          "a gap in the sequence is counted");
  Step broken = frame(5, kYuyvBytes);
  broken.flags |= V4L2_BUF_FLAG_ERROR;
  driver.will_give(broken);
  driver.will_give(frame(6, kYuyvBytes - 1));
  driver.will_give(frame(7, 0));
  for (int i = 0; i < 3; ++i) tap::ok(device.take(0, &lent) == Take::nothing, "a damaged frame is not shown");
  Step late = frame(8, kYuyvBytes);
  late.stamp_us = 1000000;
  driver.will_give(late);
  tap::ok(device.take(0, &lent) == Take::nothing, "nor is one whose stamp does not advance");
  Step again;
  again.kind = Step::Kind::again;
  driver.will_give(again);
  tap::ok(device.take(0, &lent) == Take::nothing, "nor one that was announced and is not there");
  tap::ok(device.counts().damaged == 3 && device.counts().backwards == 1 && device.counts().frames == 2 &&
              driver.queued.size() == 4,
          "all are counted and all buffers are the driver's again");
  driver.will_give(frame(9, kYuyvBytes));
  tap::ok(device.take(0, &lent) == Take::frame && device.problem().ok(), "and it goes on");
}

void test_failures() {
  const std::pair<Step::Kind, const char*> ends[] = {{Step::Kind::gone, "CAMERA_UNPLUGGED"},
                                                     {Step::Kind::io_error, "CAMERA_DEVICE"}};
  Lent lent;
  for (const auto& [kind, code] : ends) {
    Driver driver;
    driver.formats = {V4L2_PIX_FMT_YUYV};
    Device device(&driver);
    tap::ok(device.open(options_of()).ok(), "opens");
    Step end;
    end.kind = kind;
    driver.will_give(frame(0, kYuyvBytes));
    driver.will_give(end);
    driver.will_give(frame(1, kYuyvBytes));
    tap::ok(device.take(0, &lent) == Take::frame && device.take(0, &lent) == Take::failed &&
                device.problem().code == std::string(code) && device.problem().file == "/dev/video9",
            std::string("a running camera ends with ") + code);
    tap::ok(device.take(0, &lent) == Take::failed, "which is latched");
    tap::ok(device.open(options_of()).ok() && device.problem().ok() && device.take(0, &lent) == Take::frame,
            "until it is opened again");
  }
  Driver driver;
  driver.formats = {V4L2_PIX_FMT_YUYV};
  Device device(&driver);
  tap::ok(device.open(options_of()).ok(), "opens");
  Step stamped = frame(0, kYuyvBytes);
  stamped.flags = V4L2_BUF_FLAG_TIMESTAMP_COPY;
  driver.will_give(stamped);
  tap::ok(device.take(0, &lent) == Take::failed && device.problem().code == std::string("CAMERA_TIMESTAMPS"),
          "stamps of another clock are refused");
  tap::ok(device.open(options_of()).ok(), "opens");
  for (int i = 0; i < 1000; ++i) {
    Step again;
    again.kind = Step::Kind::again;
    driver.will_give(again);
  }
  int takes = 0;
  while (device.take(0, &lent) == Take::nothing && takes < 2000) ++takes;
  tap::ok(takes == 999 && !device.problem().ok(), "a driver that only announces frames is given up");
}

// Computed as the standard writes it.
std::array<double, 3> exact_rgb(int y, int u, int v) {
  const double luma = 255.0 / 219 * (y - 16), chroma = 255.0 / 224;
  const std::array<double, 3> rgb = {luma + chroma * 1.402 * (v - 128),
                                     luma - chroma * 0.344136 * (u - 128) - chroma * 0.714136 * (v - 128),
                                     luma + chroma * 1.772 * (u - 128)};
  return {std::clamp(rgb[0], 0.0, 255.0), std::clamp(rgb[1], 0.0, 255.0), std::clamp(rgb[2], 0.0, 255.0)};
}

void test_yuyv() {
  double worst = 0;
  for (int y = 0; y < 256; ++y)
    for (int u = 0; u < 256; u += 3)
      for (int v = 0; v < 256; v += 3) {
        const std::uint8_t pair[4] = {static_cast<std::uint8_t>(y), static_cast<std::uint8_t>(u),
                                      static_cast<std::uint8_t>(255 - y), static_cast<std::uint8_t>(v)};
        std::uint8_t rgb[6];
        camera::yuyv_to_rgb(pair, 4, 2, 1, rgb);
        for (std::size_t pixel = 0; pixel < 2; ++pixel) {
          const std::array<double, 3> want = exact_rgb(pair[2 * pixel], u, v);
          for (std::size_t c = 0; c < 3; ++c) worst = std::max(worst, std::abs(want[c] - rgb[3 * pixel + c]));
        }
      }
  // Half a step of rounding, and 2^-16 of each of three products of at most 239.
  tap::ok(worst < 0.51, "YUYV is BT.601, limited range: at worst " + std::to_string(worst) + " off");
  const std::uint8_t bars[] = {235, 128, 235, 128, 16, 128, 16, 128, 81, 90, 81, 240};
  std::uint8_t rgb[18];
  camera::yuyv_to_rgb(bars, 12, 6, 1, rgb);
  tap::ok(rgb[0] == 255 && rgb[1] == 255 && rgb[2] == 255 && rgb[6] == 0 && rgb[7] == 0 && rgb[8] == 0,
          "white and black reach the ends");
  tap::ok(rgb[12] >= 254 && rgb[13] <= 1 && rgb[14] <= 1, "and red is red, not blue");
  std::mt19937 random(3);
  constexpr int width = 6, height = 5, stride = 2 * width + 7;
  std::vector<std::uint8_t> from(static_cast<std::size_t>(stride * height)), tight, out(3 * width * height),
      want(3 * width * height);
  for (std::uint8_t& one : from) one = static_cast<std::uint8_t>(random());
  for (int row = 0; row < height; ++row)
    tight.insert(tight.end(), from.begin() + row * stride, from.begin() + row * stride + 2 * width);
  camera::yuyv_to_rgb(from.data(), stride, width, height, out.data());
  camera::yuyv_to_rgb(tight.data(), 2 * width, width, height, want.data());
  tap::ok(out == want, "longer rows are skipped over");
}

// The capture's thread takes what the script has; each_after() sees the newest.
std::vector<std::uint64_t> numbers_of(const camera::Capture& capture, std::uint64_t after) {
  std::vector<std::uint64_t> numbers;
  capture.each_after(after, [&](const camera::CaptureFrame& one) { numbers.push_back(one.number); });
  return numbers;
}

void test_capture() {
  auto owned = std::make_unique<Driver>();
  Driver* driver = owned.get();
  driver->formats = {V4L2_PIX_FMT_YUYV};
  driver->row_padding_bytes = 4;
  for (std::uint32_t i = 0; i < 9; ++i) driver->will_give(frame(i, 24, static_cast<std::uint8_t>(40 + i)));
  camera::Capture capture(std::move(owned));
  tap::ok(capture.open(options_of(4, 2)).ok(), "a capture opens and runs");
  for (int i = 0; i < 200 && capture.counts().device.frames < 9; ++i) capture.wait_for(8, 50);
  tap::ok(numbers_of(capture, 0) == std::vector<std::uint64_t>({6, 7, 8, 9}), "it keeps the newest four");
  tap::ok(numbers_of(capture, 8) == std::vector<std::uint64_t>({9}) && numbers_of(capture, 9).empty(),
          "and gives what is newer than what was seen");
  capture.each_after(8, [&](const camera::CaptureFrame& one) {
    std::uint8_t want[6];
    const std::uint8_t pair[4] = {48, 48, 48, 48};
    camera::yuyv_to_rgb(pair, 4, 2, 1, want);
    tap::ok(one.byte_count == 24 && std::equal(want, want + 6, one.bytes.begin()) &&
                std::equal(want, want + 6, one.bytes.begin() + 18) && one.captured_ns == 1000000000 + 8 * 33000000,
            "as RGB, stamped by the driver");
  });
  tap::ok(capture.problem().ok(), "all is well");
  Step gone;
  gone.kind = Step::Kind::gone;
  driver->will_give(gone);
  capture.wait_for(9, 5000);
  for (int i = 0; i < 100 && capture.problem().ok(); ++i) capture.wait_for(9, 50);
  tap::equal(std::string(capture.problem().code), std::string("CAMERA_UNPLUGGED"), "pulled out: that is told");
  tap::ok(numbers_of(capture, 0).size() == 4, "the last frames are still there, with their stamps");
  capture.close();
  capture.close();
  tap::ok(driver->open_count == 0 && driver->mapped == 0, "closed, nothing is left open");
  for (std::uint32_t i = 0; i < 2; ++i) driver->will_give(frame(i, 24));
  tap::ok(capture.open(options_of(4, 2)).ok(), "plugged in again, it opens again");
  for (int i = 0; i < 200 && capture.counts().device.frames < 2; ++i) capture.wait_for(1, 50);
  tap::ok(numbers_of(capture, 0) == std::vector<std::uint64_t>({1, 2}), "and counts anew");
}

void test_mjpeg() {
  auto owned = std::make_unique<Driver>();
  owned->formats = {V4L2_PIX_FMT_MJPEG};
  owned->will_give(frame(0, 11, 0xd8));
  camera::Capture capture(std::move(owned));
  tap::ok(capture.open(options_of(4, 2)).ok(), "an mjpeg camera opens");
  capture.wait_for(0, 5000);
  std::size_t bytes = 0;
  capture.each_after(0, [&](const camera::CaptureFrame& one) {
    bytes = one.byte_count;
    tap::ok(one.bytes[0] == 0xd8 && one.bytes[10] == 0xd8, "its bytes are kept as they came");
  });
  tap::equal(bytes, std::size_t{11}, "all of them and no more");
}

void test_look() {
  Driver driver;
  camera::DeviceOffer offer;
  tap::ok(camera::look_at(&driver, "/dev/video9", &offer).ok() && offer.is_capture && offer.formats.size() == 2,
          "a device is looked at");
  tap::ok(offer.formats[0].code == "YUYV" && offer.formats[1].code == "MJPG" && offer.formats[0].sizes.size() == 2 &&
              offer.formats[0].sizes[1].width == 320 && offer.formats[0].sizes[1].rates_hz.size() == 2 &&
              offer.formats[0].sizes[0].rates_hz[0] == 30,
          "with its formats, sizes and rates");
  const std::string history = driver.history();
  tap::ok(history.find("S_FMT") == std::string::npos && history.find("REQBUFS") == std::string::npos &&
              driver.open_count == 0,
          "and nothing is changed in it");
  driver.capabilities = V4L2_CAP_META_CAPTURE;
  tap::ok(camera::look_at(&driver, "/dev/video9", &offer).ok() && !offer.is_capture && offer.formats.empty(),
          "a device without pictures is no error");
  driver.failing = {{"QUERYCAP", ENODEV}};
  tap::equal(std::string(camera::look_at(&driver, "/dev/video9", &offer).code), std::string("CAMERA_DEVICE_MISSING"),
             "one that went away is");
  const auto system = camera::make_system();
  tap::equal(std::string(camera::look_at(system.get(), "/dev/null", &offer).code), std::string("CAMERA_DEVICE"),
             "the real kernel: /dev/null is no camera");
  tap::equal(std::string(camera::look_at(system.get(), "/dev/video-none", &offer).code),
             std::string("CAMERA_DEVICE_MISSING"), "and what is not there is missing");
}

}  // namespace

int main() {
  test_sequence();
  test_formats();
  test_open_errors();
  test_frames();
  test_failures();
  test_yuyv();
  test_capture();
  test_mjpeg();
  test_look();
  return tap::finish();
}
