// A flash for tests: real rules (writes only on erased units, pages erased at once), operations that fail, and a power
// cut in the middle of any of them. And images to put into it.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <vector>

#include "firmware-bridge/slots.h"
#include "firmware-bridge/update.h"
#include "protocol/frames.h"

namespace rig {

constexpr std::uint32_t board_id = 0x54534554;  // "TEST"
constexpr std::uint32_t page_bytes = 512, slot_bytes = 8 * page_bytes;

struct FakeFlash {
  pm_flash flash{this, page_bytes, slot_bytes, {0x1000, 0x9000}, erase, write, read};
  std::array<std::vector<std::uint8_t>, PM_FLASH_REGIONS> regions;
  int operations = 0;         // erases and writes so far
  int fails_at = -1;          // this operation is refused, and nothing changes
  int cut_at = -1;            // in this operation the power goes
  std::uint32_t torn_at = 0;  // after so many of its bytes
  bool is_off = false;        // nothing changes any more
  int overwritten = 0;        // writes to flash that was not erased: a bug of the caller

  FakeFlash() {
    for (std::size_t i = 0; i < regions.size(); ++i) regions[i].assign(i < PM_SLOTS ? slot_bytes : page_bytes, 0xFF);
  }
  FakeFlash(const FakeFlash&) = delete;
  FakeFlash& operator=(const FakeFlash&) = delete;

  void power_on() {
    is_off = false;
    cut_at = fails_at = -1;
  }

  // False when the operation does not take place; otherwise how many of its bytes.
  bool begins(std::uint32_t count, std::uint32_t* bytes) {
    if (is_off) return false;
    const int now = operations++;
    if (now == fails_at) return false;
    *bytes = now == cut_at ? std::min(torn_at, count) : count;
    is_off = now == cut_at;
    return true;
  }
  static bool erase(void* context, pm_flash_region region, std::uint32_t offset) {
    auto& self = *static_cast<FakeFlash*>(context);
    std::uint32_t bytes = 0;
    if (!self.begins(page_bytes, &bytes)) return false;
    std::fill_n(self.regions[region].begin() + offset, bytes, 0xFF);
    return !self.is_off;
  }
  static bool write(void* context, pm_flash_region region, std::uint32_t offset, const std::uint8_t* from,
                    std::uint32_t count) {
    auto& self = *static_cast<FakeFlash*>(context);
    std::uint32_t bytes = 0;
    if (!self.begins(count, &bytes)) return false;
    std::uint8_t* to = self.regions[region].data() + offset;
    self.overwritten += std::any_of(to, to + count, [](std::uint8_t byte) { return byte != 0xFF; });
    for (std::uint32_t i = 0; i < bytes; ++i) to[i] &= from[i];
    if (bytes < count) to[bytes] &= from[bytes] | 0xF0;  // some bits of the next one
    return !self.is_off;
  }
  static void read(void* context, pm_flash_region region, std::uint32_t offset, std::uint8_t* to, std::uint32_t count) {
    auto& self = *static_cast<FakeFlash*>(context);
    std::memcpy(to, self.regions[region].data() + offset, count);
  }

  void put_image(std::uint8_t slot, const std::vector<std::uint8_t>& image) {
    std::fill(regions[slot].begin(), regions[slot].end(), 0xFF);
    std::copy(image.begin(), image.end(), regions[slot].begin());
  }
  [[nodiscard]] std::uint32_t version_in(std::uint8_t slot) const {
    pm_image_header header;
    return pm_image_read(&flash, slot, &header) ? header.version : 0;
  }
};

inline void seal_header(std::vector<std::uint8_t>* image) {
  pm_put_u32(image->data() + PM_IMAGE_FIELD_BYTES - 4, pm_crc32(0, image->data(), PM_IMAGE_FIELD_BYTES - 4));
}

// The seven words of the header are fields 2 to 8: board, version, source, body's bytes, checksum, address, slot.
inline std::vector<std::uint8_t> make_image(std::uint8_t slot, std::uint32_t version, std::uint32_t body_bytes = 600) {
  std::vector<std::uint8_t> image(PM_IMAGE_HEADER_BYTES + body_bytes, 0xFF);
  for (std::uint32_t i = 0; i < body_bytes; ++i)
    image[PM_IMAGE_HEADER_BYTES + i] = static_cast<std::uint8_t>(i * 7 + version);
  const std::uint32_t address = (slot == PM_SLOT_A ? 0x1000u : 0x9000u) + PM_IMAGE_HEADER_BYTES;
  const std::array<std::uint32_t, 9> words = {PM_IMAGE_MAGIC,
                                              PM_IMAGE_FORMAT,
                                              board_id,
                                              version,
                                              0xC0FFEE00u + version,
                                              body_bytes,
                                              pm_crc32(0, image.data() + PM_IMAGE_HEADER_BYTES, body_bytes),
                                              address,
                                              slot};
  for (std::size_t i = 0; i < words.size(); ++i) pm_put_u32(image.data() + 4 * i, words[i]);
  seal_header(&image);
  return image;
}

}  // namespace rig
