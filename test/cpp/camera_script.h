// A camera driver as a script: a stand-in for the kernel that answers every call from a table, writes down what it was
// asked, and fails where it is told to. What it does follows the V4L2 documentation, not our code.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <linux/videodev2.h>

#include "camera/system.h"

namespace camera_script {

// One frame that the driver will give.
struct Step {
  enum class Kind { frame, nothing, again, gone, io_error };
  Kind kind = Kind::frame;
  std::vector<std::uint8_t> bytes;
  std::int64_t stamp_us = 0;
  std::uint32_t sequence = 0;
  std::uint32_t flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
};

class Driver final : public premotor::camera::System {
 public:
  // What it is and can.
  std::uint32_t capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
  std::vector<std::uint32_t> formats = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG};
  std::uint32_t width = 4, height = 2;  // its own; asked for others, it gives the nearest that it has:
  std::uint32_t width_max = 4096, height_max = 4096;
  std::uint32_t row_padding_bytes = 0;
  std::uint32_t gives_instead = 0;  // a pixel format that S_FMT answers with
  std::uint32_t buffers_given = 4;
  std::uint32_t rate_den = 30, rate_num = 1;
  // A call by name -> errno; "VIDIOC_QBUF 3" fails the third call of that name.
  std::map<std::string, int> failing;

  std::vector<std::string> calls;
  std::deque<Step> script;
  int open_count = 0, mapped = 0;
  std::vector<std::uint32_t> queued;
  bool is_on = false;
  std::uint32_t stride = 0;

  int open(const char* path) override {
    const int error = note(std::string("open ") + path, "open");
    if (error != 0) return -error;
    ++open_count;
    return 7;
  }
  void close(int) override {
    calls.push_back("close");
    queued.clear();
    is_on = false;
    --open_count;
  }
  void* map(int, std::size_t bytes, std::int64_t offset, int* error) override {
    *error = note("mmap", "mmap");
    if (*error != 0) return nullptr;
    ++mapped;
    const auto index = static_cast<std::size_t>(offset / 4096);
    memory[index].assign(bytes, 0);
    return memory[index].data();
  }
  void unmap(void*, std::size_t) override {
    calls.push_back("munmap");
    --mapped;
  }
  int wait(int, int) override {
    const std::lock_guard<std::mutex> lock(mutex);
    if (script.empty() || script.front().kind == Step::Kind::nothing) {
      if (!script.empty()) script.pop_front();
      return 0;
    }
    return 1;
  }
  std::int64_t now_ns() override { return 0; }

  int ioctl(int, unsigned long request, void* argument) override {
    switch (request) {
      case VIDIOC_QUERYCAP:
        return query(static_cast<v4l2_capability*>(argument));
      case VIDIOC_ENUM_FMT:
        return list(static_cast<v4l2_fmtdesc*>(argument));
      case VIDIOC_G_FMT:
        return get_format(static_cast<v4l2_format*>(argument));
      case VIDIOC_S_FMT:
        return set_format(static_cast<v4l2_format*>(argument));
      case VIDIOC_S_PARM:
      case VIDIOC_G_PARM:
        return rate(request == VIDIOC_S_PARM, static_cast<v4l2_streamparm*>(argument));
      case VIDIOC_REQBUFS:
        return request_buffers(static_cast<v4l2_requestbuffers*>(argument));
      case VIDIOC_QUERYBUF:
        return query_buffer(static_cast<v4l2_buffer*>(argument));
      case VIDIOC_QBUF:
        return queue(static_cast<v4l2_buffer*>(argument));
      case VIDIOC_DQBUF:
        return dequeue(static_cast<v4l2_buffer*>(argument));
      case VIDIOC_STREAMON:
        return stream(true);
      case VIDIOC_STREAMOFF:
        return stream(false);
      case VIDIOC_ENUM_FRAMESIZES:
        return list_sizes(static_cast<v4l2_frmsizeenum*>(argument));
      case VIDIOC_ENUM_FRAMEINTERVALS:
        return list_rates(static_cast<v4l2_frmivalenum*>(argument));
      default:
        calls.push_back("unknown");
        return -ENOTTY;
    }
  }

  void will_give(Step step) {
    const std::lock_guard<std::mutex> lock(mutex);
    script.push_back(std::move(step));
  }
  [[nodiscard]] std::string history() const {
    std::string all;
    for (const std::string& call : calls) all += (all.empty() ? "" : " ") + call;
    return all;
  }

 private:
  int note(const std::string& shown, const std::string& name) {
    calls.push_back(shown);
    const std::string numbered = name + " " + std::to_string(++counts[name]);
    const auto one = failing.find(failing.count(numbered) != 0 ? numbered : name);
    return one == failing.end() ? 0 : one->second;
  }
  int note(const char* name) { return note(name, name); }

  int query(v4l2_capability* out) {
    if (const int error = note("QUERYCAP")) return -error;
    std::memcpy(out->driver, "script", 7);
    std::memcpy(out->card, "A camera\x01", 10);
    out->capabilities = capabilities | V4L2_CAP_DEVICE_CAPS;
    out->device_caps = capabilities;
    return 0;
  }
  int list(v4l2_fmtdesc* out) {
    if (const int error = note("ENUM_FMT")) return -error;
    if (out->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || out->index >= formats.size()) return -EINVAL;
    out->pixelformat = formats[out->index];
    return 0;
  }
  int get_format(v4l2_format* out) {
    if (const int error = note("G_FMT")) return -error;
    out->fmt.pix.width = width;
    out->fmt.pix.height = height;
    out->fmt.pix.pixelformat = formats.empty() ? 0 : formats[0];
    return 0;
  }
  int set_format(v4l2_format* out) {
    if (const int error = note("S_FMT")) return -error;
    v4l2_pix_format& pix = out->fmt.pix;
    if (pix.width > width_max) pix.width = width_max;
    if (pix.height > height_max) pix.height = height_max;
    if (gives_instead != 0) pix.pixelformat = gives_instead;
    const bool is_yuyv = pix.pixelformat == V4L2_PIX_FMT_YUYV;
    stride = is_yuyv ? 2 * pix.width + row_padding_bytes : 0;
    pix.bytesperline = stride;
    pix.sizeimage = is_yuyv ? stride * pix.height : 2 * pix.width * pix.height;
    size_image = pix.sizeimage;
    return 0;
  }
  int rate(bool sets, v4l2_streamparm* out) {
    if (const int error = note(sets ? "S_PARM" : "G_PARM")) return -error;
    out->parm.capture.timeperframe = {rate_num, rate_den};
    return 0;
  }
  int request_buffers(v4l2_requestbuffers* out) {
    if (const int error = note("REQBUFS")) return -error;
    if (out->memory != V4L2_MEMORY_MMAP) return -EINVAL;
    out->count = buffers_given;
    return 0;
  }
  int query_buffer(v4l2_buffer* out) {
    if (const int error = note("QUERYBUF")) return -error;
    if (out->index >= buffers_given) return -EINVAL;
    out->length = size_image;
    out->m.offset = 4096 * out->index;
    return 0;
  }
  int queue(v4l2_buffer* in) {
    if (const int error = note("QBUF")) return -error;
    for (const std::uint32_t index : queued)
      if (index == in->index) return -EINVAL;
    queued.push_back(in->index);
    return 0;
  }
  int dequeue(v4l2_buffer* out) {
    if (const int error = note("DQBUF")) return -error;
    const std::lock_guard<std::mutex> lock(mutex);
    if (!is_on) return -EINVAL;
    if (script.empty() || script.front().kind == Step::Kind::again || queued.empty()) {
      if (!script.empty()) script.pop_front();
      return -EAGAIN;
    }
    const Step step = script.front();
    script.pop_front();
    if (step.kind == Step::Kind::gone) return -ENODEV;
    if (step.kind == Step::Kind::io_error) return -EIO;
    out->index = queued.front();
    queued.erase(queued.begin());
    std::copy_n(step.bytes.begin(), std::min(step.bytes.size(), memory[out->index].size()), memory[out->index].begin());
    out->bytesused = static_cast<std::uint32_t>(step.bytes.size());
    out->flags = step.flags;
    out->sequence = step.sequence;
    out->timestamp.tv_sec = step.stamp_us / 1000000;
    out->timestamp.tv_usec = step.stamp_us % 1000000;
    return 0;
  }
  int stream(bool on) {
    if (const int error = note(on ? "STREAMON" : "STREAMOFF")) return -error;
    is_on = on;
    if (!on) queued.clear();
    return 0;
  }
  int list_sizes(v4l2_frmsizeenum* out) {
    if (const int error = note("ENUM_FRAMESIZES")) return -error;
    if (out->index > 1) return -EINVAL;
    out->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    out->discrete = {640u >> out->index, 480u >> out->index};
    return 0;
  }
  int list_rates(v4l2_frmivalenum* out) {
    if (const int error = note("ENUM_FRAMEINTERVALS")) return -error;
    if (out->index > 1) return -EINVAL;
    out->type = V4L2_FRMIVAL_TYPE_DISCRETE;
    out->discrete = {1, 30u >> out->index};
    return 0;
  }

  std::map<std::string, int> counts;
  std::array<std::vector<std::uint8_t>, 32> memory;
  std::uint32_t size_image = 0;
  std::mutex mutex;
};

}  // namespace camera_script
