#include "camera/errors.h"

#include <cerrno>
#include <cstring>

namespace premotor::camera {

Status device_error(const std::string& path, const char* doing, int error) {
  const bool is_missing = error == ENOENT || error == ENODEV || error == ENXIO;
  const char* code = is_missing ? "CAMERA_DEVICE_MISSING" : error == EBUSY ? "CAMERA_DEVICE_BUSY" : "CAMERA_DEVICE";
  std::string message = "the camera " + path + ": " + doing + ": " + std::strerror(error) + ". ";
  if (is_missing)
    message += "Connect it, or name another device; premotor camera list shows those that there are.";
  else if (error == EBUSY)
    message += "Another program uses it: stop that one first.";
  else if (error == EACCES || error == EPERM)
    message += "Add this user to the group that owns the device (often video).";
  else
    message += "Look at premotor camera list for what it can do.";
  Status status = Status::error(code, message);
  status.file = path;
  status.found = std::strerror(error);
  return status;
}

std::string four_characters(unsigned number) {
  std::string text;
  for (int i = 0; i < 4; ++i, number >>= 8) {
    const auto c = static_cast<char>(number & 0x7f);
    text += c > ' ' && c < 0x7f ? c : '.';
  }
  return text;
}

}  // namespace premotor::camera
