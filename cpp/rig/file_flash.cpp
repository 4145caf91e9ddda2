#include "rig/file_flash.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "protocol/frames.h"
#include "rig/simulated_robot.h"

namespace premotor::rig {

namespace {

constexpr std::uint32_t kFirstVersion = 0x00000001;

off_t place_of(pm_flash_region region, std::uint32_t offset) {
  constexpr off_t slot = FileFlash::kSlotBytes, page = FileFlash::kPageBytes;
  constexpr std::array<off_t, PM_FLASH_REGIONS> begins = {0, slot, 2 * slot, 2 * slot + page};
  return begins[region] + static_cast<off_t>(offset);
}

// What a board comes with: some bytes that stand for a firmware.
std::vector<std::uint8_t> first_image() {
  constexpr std::uint32_t body_bytes = 64;
  std::vector<std::uint8_t> image(PM_IMAGE_HEADER_BYTES + body_bytes, 0xff);
  const std::uint8_t* body = image.data() + PM_IMAGE_HEADER_BYTES;
  const std::array<std::uint32_t, 9> words = {PM_IMAGE_MAGIC,
                                              PM_IMAGE_FORMAT,
                                              SimulatedRobot::kBoardId,
                                              kFirstVersion,
                                              0,
                                              body_bytes,
                                              pm_crc32(0, body, body_bytes),
                                              PM_IMAGE_HEADER_BYTES,
                                              PM_SLOT_A};
  for (std::size_t i = 0; i < words.size(); ++i) pm_put_u32(image.data() + 4 * i, words[i]);
  constexpr std::uint32_t checked = PM_IMAGE_FIELD_BYTES - 4;
  pm_put_u32(image.data() + checked, pm_crc32(0, image.data(), checked));
  return image;
}

}  // namespace

FileFlash::~FileFlash() {
  if (fd_ >= 0) ::close(fd_);
}

bool FileFlash::fill() {
  for (std::uint32_t region = 0; region < PM_FLASH_REGIONS; ++region) {
    const std::uint32_t bytes = region <= PM_FLASH_SLOT_B ? kSlotBytes : kPageBytes;
    for (std::uint32_t at = 0; at < bytes; at += kPageBytes)
      if (!erase(this, static_cast<pm_flash_region>(region), at)) return false;
  }
  const std::vector<std::uint8_t> image = first_image();
  return write(this, PM_FLASH_SLOT_A, 0, image.data(), static_cast<std::uint32_t>(image.size()));
}

Status FileFlash::open(const std::string& path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  struct stat about = {};
  const off_t whole = place_of(PM_FLASH_RECORD_1, kPageBytes);
  const bool is_open = fd_ >= 0 && ::fstat(fd_, &about) == 0;
  if (is_open && (about.st_size == whole || (about.st_size == 0 && fill()))) return Status::good();
  const std::string found = is_open ? std::to_string(about.st_size) + " bytes" : std::strerror(errno);
  return Status::error("FIRMWARE_FLASH_FILE", "the file " + path + " cannot play the flash: expected " +
                                                  std::to_string(whole) + " bytes or a new file, found " + found +
                                                  ". Name another file.");
}

bool FileFlash::erase(void* context, pm_flash_region region, std::uint32_t offset) {
  std::array<std::uint8_t, kPageBytes> blank;
  blank.fill(0xff);
  const auto& self = *static_cast<FileFlash*>(context);
  return ::pwrite(self.fd_, blank.data(), blank.size(), place_of(region, offset)) == static_cast<ssize_t>(kPageBytes);
}

bool FileFlash::write(void* context, pm_flash_region region, std::uint32_t offset, const std::uint8_t* bytes,
                      std::uint32_t count) {
  const auto& self = *static_cast<FileFlash*>(context);
  return ::pwrite(self.fd_, bytes, count, place_of(region, offset)) == static_cast<ssize_t>(count);
}

// What cannot be read is blank: no image, no record.
void FileFlash::read(void* context, pm_flash_region region, std::uint32_t offset, std::uint8_t* bytes,
                     std::uint32_t count) {
  const auto& self = *static_cast<FileFlash*>(context);
  if (::pread(self.fd_, bytes, count, place_of(region, offset)) != static_cast<ssize_t>(count))
    std::fill_n(bytes, count, 0xff);
}

}  // namespace premotor::rig
