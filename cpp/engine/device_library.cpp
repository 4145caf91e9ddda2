#include "engine/device_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace premotor::engine {
namespace {

// A shared library that ends too early kills whoever loads it, with a bus error. Its table of sections comes last, and
// its header says where that ends (ELF-64: e_shoff at 40, e_shentsize at 58, e_shnum at 60).
bool is_whole(const std::string& library) {
  unsigned char header[64] = {};
  std::ifstream file(library, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(header), sizeof header) || std::memcmp(header, "\177ELF", 4) != 0)
    return false;
  std::uint64_t sections = 0;
  std::uint16_t entry_bytes = 0, entries = 0;
  std::memcpy(&sections, header + 40, sizeof sections);
  std::memcpy(&entry_bytes, header + 58, sizeof entry_bytes);
  std::memcpy(&entries, header + 60, sizeof entries);
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(library, error);
  return !error && sections <= size && std::uint64_t{entry_bytes} * entries <= size - sections;
}

}  // namespace

Status open_device(const std::string& library, int ordinal, std::unique_ptr<device::Device>* out) {
  if (access(library.c_str(), R_OK) != 0) {
    Status status = Status::error("DEVICE_UNAVAILABLE",
                                  "device \"cuda\": expected the GPU backend at " + library +
                                      ", found nothing there. Build it where nvcc is installed (npm run build:cuda), "
                                      "or use device \"cpu\".");
    status.file = library;
    status.expected = "premotor-cuda.so";
    status.found = "no such file";
    return status;
  }
  const auto unusable = [&library](const std::string& found) {
    Status status =
        Status::error("DEVICE_LIBRARY", "The GPU backend " + library + " cannot be loaded: " + found +
                                            ". Build it again (npm run build:cuda), or use device \"cpu\".");
    status.file = library;
    status.found = found;
    return status;
  };
  if (!is_whole(library)) return unusable("it is no shared library, or is cut off");
  // Never closed: a device's threads may outlive whoever opened it.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return unusable(dlerror());
  const auto open = reinterpret_cast<device::OpenDevice>(dlsym(handle, "premotor_open_device"));
  if (open == nullptr) return unusable("it has no premotor_open_device");
  Status status = Status::good();
  device::Device* opened = nullptr;
  open(device::kDeviceContract, ordinal, &opened, &status);
  out->reset(opened);
  return status;
}

}  // namespace premotor::engine
