// FileFlash: a file that plays the flash of the firmware bridge, so that updates can be tried without hardware and
// survive the process. A new file has an image of version 0.0.1 in slot A. No content of an image is ever executed.
#pragma once

#include <string>

#include "base/status.h"
#include "firmware-bridge/slots.h"

namespace premotor::rig {

class FileFlash {
 public:
  static constexpr std::uint32_t kPageBytes = 2048, kSlotBytes = 64 * 1024;

  FileFlash() = default;
  ~FileFlash();
  FileFlash(const FileFlash&) = delete;
  FileFlash& operator=(const FileFlash&) = delete;

  // Opens the file, makes it when it is missing. Errors: FIRMWARE_FLASH_FILE.
  Status open(const std::string& path);
  [[nodiscard]] const pm_flash* flash() const { return &flash_; }

 private:
  static bool erase(void* context, pm_flash_region region, std::uint32_t offset);
  static bool write(void* context, pm_flash_region region, std::uint32_t offset, const std::uint8_t* bytes,
                    std::uint32_t count);
  static void read(void* context, pm_flash_region region, std::uint32_t offset, std::uint8_t* bytes,
                   std::uint32_t count);
  bool fill();

  int fd_ = -1;
  pm_flash flash_{this, kPageBytes, kSlotBytes, {0, 0}, erase, write, read};
};

}  // namespace premotor::rig
