// The host of an update, frame by frame, against an update without a robot around it; for tests.
#pragma once

#include "firmware_flash.h"

namespace rig {

constexpr std::uint32_t old_version = 0x01020000, new_version = 0x01030000;

// The host's side of an update, frame by frame, against an update without a robot.
struct Updater {
  FakeFlash& flash;
  pm_update update{};
  std::uint64_t now = 1000000;
  bool is_at_rest = true;
  int result = -1, state = -1;  // of the last answer
  std::uint32_t value = 0;
  int answers = 0;
  bool was_told_of_flash = false;

  explicit Updater(FakeFlash& of, std::uint8_t running = PM_SLOT_A) : flash(of) { start(running); }
  void start(std::uint8_t running) {
    const pm_update_config config = {&flash.flash, running, rig::board_id};
    pm_update_init(&update, &config);
  }
  pm_update_verdict send(const pm_can_frame& frame) {
    pm_can_frame answer{};
    const pm_update_verdict verdict = pm_update_on_frame(&update, &frame, is_at_rest, now, &answer);
    pm_word_item item{};
    if (verdict != PM_UPDATE_ANSWERED || !pm_word_unpack(&answer, &item)) return verdict;
    ++answers;
    value = item.value;
    if (answer.id == PM_ID_UPDATE_STATUS) state = item.key & 15, result = item.detail;
    was_told_of_flash |= result == PM_UPDATE_FLASH_FAILED;
    return verdict;
  }
  int ask(std::uint8_t operation, std::uint32_t word = 0, std::uint8_t flags = 0) {
    const pm_word_item item = {operation, flags, word};
    pm_can_frame frame;
    pm_word_pack(&frame, PM_ID_UPDATE, &item);
    result = -1;
    send(frame);
    return result;
  }
  std::uint32_t fact(std::uint8_t key) {
    const std::uint8_t payload[PM_SHORT_PAYLOAD_BYTES] = {key};
    pm_can_frame frame;
    pm_short_pack(&frame, PM_ID_FIRMWARE_ASK, payload);
    value = 0xDEADBEEF;
    send(frame);
    return value;
  }
  void announce(const std::vector<std::uint8_t>& image, std::uint32_t version) {
    ask(PM_UPDATE_SIZE, static_cast<std::uint32_t>(image.size()));
    ask(PM_UPDATE_VERSION, version);
    ask(PM_UPDATE_CHECKSUM, pm_crc32(0, image.data(), static_cast<std::uint32_t>(image.size())));
    ask(PM_UPDATE_BOARD, rig::board_id);
  }
  void ticks(int count = 20) {
    for (int i = 0; i < count; ++i) pm_update_tick(&update, now += 250);
  }
  pm_update_verdict piece(const std::vector<std::uint8_t>& image, std::uint32_t offset, std::uint8_t bytes,
                          bool is_fd) {
    pm_update_piece one{offset, bytes, {}};
    std::memcpy(one.data, image.data() + offset, bytes);
    pm_can_frame frame;
    pm_update_piece_pack(&frame, &one, is_fd);
    return send(frame);
  }
  void pieces(const std::vector<std::uint8_t>& image, bool is_fd) {
    const std::uint32_t most = is_fd ? PM_UPDATE_BLOCK_BYTES : PM_UPDATE_WORD_BYTES;
    for (std::uint32_t at = 0; at < image.size(); at += most)
      piece(image, at, static_cast<std::uint8_t>(std::min<std::size_t>(most, image.size() - at)), is_fd);
  }
  // Up to the new image being activated; the last result.
  int run(const std::vector<std::uint8_t>& image, std::uint32_t version, bool is_fd = true, std::uint8_t flags = 0) {
    announce(image, version);
    const int begun = ask(PM_UPDATE_BEGIN, 0, flags);
    if (begun != PM_UPDATE_OK) return begun;
    ticks();
    if (ask(PM_UPDATE_ASK) != PM_UPDATE_OK) return result;
    pieces(image, is_fd);
    ask(PM_UPDATE_FINISH);
    ticks();
    const int verified = ask(PM_UPDATE_ASK);
    return verified == PM_UPDATE_OK ? ask(PM_UPDATE_ACTIVATE) : verified;
  }
};

}  // namespace rig
