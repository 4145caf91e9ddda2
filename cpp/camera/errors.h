// The camera layer's errors in words: which code belongs to which failure of the system, and what the operator can do
// about it.
#pragma once

#include <string>

#include "base/status.h"

namespace premotor::camera {

// Why a call on a device failed: CAMERA_DEVICE_MISSING, CAMERA_DEVICE_BUSY or CAMERA_DEVICE.
Status device_error(const std::string& path, const char* doing, int error);

// "MJPG" of a pixel format's number; what cannot be shown is a dot.
std::string four_characters(unsigned number);

}  // namespace premotor::camera
