// Finds a device's backend while premotor runs: a shared library beside the addon, absent where it was not built.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "ops/device.h"

namespace premotor::engine {

// Loads `library` (premotor-cuda.so) and opens the device with this number. The library stays loaded. Errors:
// DEVICE_UNAVAILABLE (no library, no driver, no such device), DEVICE_LIBRARY.
Status open_device(const std::string& library, int ordinal, std::unique_ptr<device::Device>* out);

}  // namespace premotor::engine
