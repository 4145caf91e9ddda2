// The firmware that replaces itself: slots, boot record and update against a flash that fails and loses its power in
// the middle of every byte of every operation. Whatever is cut, the next start runs the old firmware or the new one.
#include "bridge_rig.h"
#include "firmware-bridge/led.h"
#include "firmware_flash.h"

using rig::FakeFlash;
using rig::make_image;
using rig::Rig;

namespace {

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
  pm_update_verdict piece(const std::vector<std::uint8_t>& image, std::uint32_t offset, std::uint8_t bytes, bool is_fd) {
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

void images() {
  FakeFlash flash;
  const auto good = make_image(PM_SLOT_B, new_version);
  flash.put_image(PM_SLOT_B, good);
  tap::ok(pm_image_is_intact(&flash.flash, PM_SLOT_B), "an image is intact");
  int taken = 0;
  for (std::size_t bit = 0; bit < 8 * (PM_IMAGE_HEADER_BYTES + 600); ++bit) {
    if (bit / 8 >= PM_IMAGE_FIELD_BYTES && bit / 8 < PM_IMAGE_HEADER_BYTES) continue;
    auto broken = good;
    broken[bit / 8] ^= static_cast<std::uint8_t>(1u << bit % 8);
    flash.put_image(PM_SLOT_B, broken);
    taken += pm_image_is_intact(&flash.flash, PM_SLOT_B);
  }
  tap::equal(taken, 0, "with one wrong bit in header or body it is not");
  flash.put_image(PM_SLOT_A, good);
  tap::ok(!pm_image_is_intact(&flash.flash, PM_SLOT_A), "an image of slot B is none of slot A");
  const auto changed = [&](int word, std::uint32_t value) {
    auto image = good;
    pm_put_u32(image.data() + 4 * word, value);
    rig::seal_header(&image);
    flash.put_image(PM_SLOT_B, image);
    return pm_image_is_intact(&flash.flash, PM_SLOT_B);
  };
  tap::ok(!changed(7, 0x1200), "linked to another address");
  tap::ok(!changed(5, 0), "without a body");
  tap::ok(!changed(5, rig::slot_bytes), "with a body beyond its slot");
  tap::ok(!changed(5, 604), "with a body of no whole units");
  tap::ok(!changed(1, 2), "of another format");
}

void records() {
  FakeFlash flash;
  pm_boot_record record{};
  pm_record_read(&flash.flash, &record);
  tap::ok(record.active == PM_SLOT_A && record.trial == PM_SLOT_NONE && record.failed == PM_SLOT_NONE,
          "without a record slot A is active");
  bool good = true;
  for (std::uint32_t i = 1; i <= 200; ++i) {
    record.active = static_cast<std::uint8_t>(i % 2);
    record.tries = static_cast<std::uint8_t>(i % 3);
    pm_boot_record found{};
    good &= pm_record_write(&flash.flash, &record);
    pm_record_read(&flash.flash, &found);
    good &= found.sequence == i && found.active == i % 2 && found.tries == i % 3;
  }
  tap::ok(good, "200 records: each is the newest, over both pages");
  tap::equal(flash.overwritten, 0, "no record was written over another");
  // A write that lands elsewhere than in the flash is noticed, and the old record still counts.
  auto write = flash.flash.write;
  flash.flash.write = [](void*, pm_flash_region, std::uint32_t, const std::uint8_t*, std::uint32_t) { return true; };
  tap::ok(!pm_record_write(&flash.flash, &record), "a record that does not read back is refused");
  // Nor does another record in its place count as this one.
  flash.flash.write = [](void* context, pm_flash_region region, std::uint32_t at, const std::uint8_t* from,
                         std::uint32_t count) {
    std::vector<std::uint8_t> other(from, from + count);
    other[4] ^= 1;
    pm_put_u32(other.data() + PM_RECORD_BYTES - 4, pm_crc32(0, other.data(), PM_RECORD_BYTES - 4));
    return FakeFlash::write(context, region, at, other.data(), count);
  };
  FakeFlash confused;
  confused.flash.write = flash.flash.write;
  tap::ok(!pm_record_write(&confused.flash, &record), "a record with another sequence is refused");
  flash.flash.write = write;
  record.active = 7;
  tap::ok(!pm_record_write(&flash.flash, &record), "a slot that does not exist is no record");
  pm_record_read(&flash.flash, &record);
  tap::equal(record.sequence, 200u, "the old one counts");
  std::fill(flash.regions[PM_FLASH_RECORD_0].begin(), flash.regions[PM_FLASH_RECORD_0].end(), 0x5A);
  std::fill(flash.regions[PM_FLASH_RECORD_1].begin(), flash.regions[PM_FLASH_RECORD_1].end(), 0x5A);
  record = {0, PM_SLOT_B, PM_SLOT_NONE, 0, PM_SLOT_NONE};
  tap::ok(pm_record_write(&flash.flash, &record), "rubbish in both pages is erased");
  pm_record_read(&flash.flash, &record);
  tap::ok(record.sequence == 1 && record.active == PM_SLOT_B, "and a record is there");
}

void choices() {
  FakeFlash flash;
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_NONE, "empty slots: stay in the boot loader");
  flash.put_image(PM_SLOT_B, make_image(PM_SLOT_B, old_version));
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_B, "only B is intact: B");
  flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version));
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_A, "both: the active one");
  tap::ok(pm_boot_try(&flash.flash, PM_SLOT_B, PM_SLOT_A), "B on trial");
  int tried = 0;
  while (tried < 10 && pm_boot_choose(&flash.flash) == PM_SLOT_B) ++tried;
  tap::equal(tried, +PM_BOOT_TRIES, "a trial that is not confirmed is started three times");
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_A, "then the old one, for good");
  pm_boot_record record{};
  pm_record_read(&flash.flash, &record);
  tap::ok(record.failed == PM_SLOT_B && record.trial == PM_SLOT_NONE, "and the failed slot is on record");
  flash.regions[PM_SLOT_A][PM_IMAGE_HEADER_BYTES] ^= 1;
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_NONE, "a failed firmware is no way out");
  flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version));
  pm_boot_try(&flash.flash, PM_SLOT_B, PM_SLOT_A);
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_B, "tried again");
  tap::ok(pm_boot_confirm(&flash.flash, PM_SLOT_B) && pm_boot_confirm(&flash.flash, PM_SLOT_B), "confirmed, twice is once");
  tap::ok(!pm_boot_confirm(&flash.flash, PM_SLOT_A), "what is neither active nor on trial is not confirmed");
  for (int i = 0; i < 5; ++i) pm_boot_choose(&flash.flash);
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_B, "and stays");
  pm_boot_try(&flash.flash, PM_SLOT_A, PM_SLOT_B);
  flash.regions[PM_SLOT_A][PM_IMAGE_HEADER_BYTES] ^= 1;
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_B, "a trial that is damaged is not started");
  flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version));
  pm_boot_try(&flash.flash, PM_SLOT_A, PM_SLOT_B);
  flash.fails_at = flash.operations;
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_B, "nor one whose start cannot be counted");
}

void whole_update(bool is_fd) {
  const std::string form = is_fd ? " (FD)" : " (classic)";
  FakeFlash flash;
  flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version));
  Updater host(flash);
  tap::ok(host.fact(PM_FACT_VERSION) == old_version && host.fact(PM_FACT_TARGET) == PM_SLOT_B, "old runs in A" + form);
  host.answers = 0;
  tap::equal(host.run(make_image(PM_SLOT_B, new_version, 2000), new_version, is_fd), +PM_UPDATE_OK, "updated" + form);
  // An FD frame does not end where a report is due.
  tap::ok(host.answers >= 7 + 2512 / (PM_UPDATE_REPORT_BYTES + (is_fd ? PM_UPDATE_BLOCK_BYTES : 0)),
          "with an answer every 64 bytes" + form);
  tap::ok(!pm_update_wants_restart(&host.update, host.now), "the answer leaves first" + form);
  tap::ok(pm_update_wants_restart(&host.update, host.now + PM_UPDATE_RESTART_US), "then it starts anew" + form);
  tap::equal(host.ask(PM_UPDATE_ABANDON), +PM_UPDATE_WRONG_STATE, "which is not taken back" + form);
  host.ticks();
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_B, "the new one starts" + form);
  host.start(PM_SLOT_B);
  tap::equal(host.fact(PM_FACT_BOOT), 1u | 1u << 8 | 1u << 16 | 0xFF000000u, "on trial, first try" + form);
  tap::equal(host.fact(PM_FACT_VERSION), new_version, "with its version" + form);
  tap::equal(host.fact(PM_FACT_OTHER_VERSION), old_version, "the old one is still there" + form);
  tap::equal(host.fact(PM_FACT_SOURCE), 0xC0FFEE00u + new_version, "with its commit" + form);
  tap::equal(host.fact(PM_FACT_SLOT_BYTES), rig::slot_bytes, "a slot's size" + form);
  pm_image_header own;
  pm_image_read(&flash.flash, PM_SLOT_B, &own);
  tap::equal(host.fact(PM_FACT_CHECKSUM), own.body_checksum, "the body's checksum" + form);
  host.announce(make_image(PM_SLOT_A, new_version), new_version);
  tap::equal(host.ask(PM_UPDATE_BEGIN), +PM_UPDATE_ON_TRIAL, "and is not erased before the trial is over" + form);
  tap::equal(host.ask(PM_UPDATE_CONFIRM), +PM_UPDATE_OK, "confirmed" + form);
  tap::equal(host.fact(PM_FACT_BOOT), 1u | 0xFF000000u, "no trial any more" + form);
  tap::equal(flash.overwritten, 0, "nothing was written without being erased" + form);
}

void refusals() {
  FakeFlash flash;
  flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, new_version));
  Updater host(flash);
  const auto image = make_image(PM_SLOT_B, new_version);
  const auto size = static_cast<std::uint32_t>(image.size());
  const auto begin_with = [&](std::uint8_t operation, std::uint32_t value) {
    host.announce(image, new_version);
    host.ask(operation, value);
    return host.ask(PM_UPDATE_BEGIN);
  };
  tap::equal(begin_with(PM_UPDATE_BOARD, 1), +PM_UPDATE_WRONG_BOARD, "another board");
  tap::equal(begin_with(PM_UPDATE_SIZE, PM_IMAGE_HEADER_BYTES), +PM_UPDATE_WRONG_SIZE, "no body");
  tap::equal(begin_with(PM_UPDATE_SIZE, rig::slot_bytes + 8), +PM_UPDATE_WRONG_SIZE, "larger than the slot");
  tap::equal(begin_with(PM_UPDATE_SIZE, size + 4), +PM_UPDATE_WRONG_SIZE, "no whole units");
  tap::equal(begin_with(PM_UPDATE_VERSION, old_version), +PM_UPDATE_OLDER, "older");
  tap::equal(host.run(make_image(PM_SLOT_B, old_version), old_version, true, PM_UPDATE_FORCE), +PM_UPDATE_OK,
             "older, but forced");
  host.start(PM_SLOT_A);
  host.is_at_rest = false;
  for (std::uint8_t operation = PM_UPDATE_SIZE; operation < PM_UPDATE_OPERATIONS; ++operation)
    tap::equal(host.ask(operation), +PM_UPDATE_NOT_DISARMED, "armed: operation " + std::to_string(operation));
  tap::equal(host.ask(PM_UPDATE_ASK), +PM_UPDATE_NOT_DISARMED, "armed: a question keeps the last result");
  host.is_at_rest = true;
  host.announce(image, new_version);
  host.ask(PM_UPDATE_BEGIN);
  host.is_at_rest = false;
  tap::equal(host.ask(PM_UPDATE_ABANDON), +PM_UPDATE_OK, "what was begun at rest goes on through a fault");
  host.is_at_rest = true;
  tap::equal(host.ask(PM_UPDATE_FINISH), +PM_UPDATE_WRONG_STATE, "FINISH of nothing");
  tap::equal(host.ask(PM_UPDATE_ACTIVATE), +PM_UPDATE_WRONG_STATE, "ACTIVATE of nothing");
  tap::equal(host.piece(image, 0, 56, true), +PM_UPDATE_TAKEN, "data of nothing is ignored");
  tap::equal(host.run(make_image(PM_SLOT_A, new_version), new_version), +PM_UPDATE_WRONG_HEADER, "an image of slot A for B");
  tap::equal(host.run(image, new_version + 1), +PM_UPDATE_WRONG_HEADER, "another version than announced");
  auto other = image;
  pm_put_u32(other.data() + 8, 77);
  rig::seal_header(&other);
  tap::equal(host.run(other, new_version), +PM_UPDATE_WRONG_HEADER, "an image of another board");
  other = image;
  other[0] ^= 1;
  tap::equal(host.run(other, new_version), +PM_UPDATE_WRONG_HEADER, "no image at all");
  auto shorter = make_image(PM_SLOT_B, new_version, 592);
  shorter.resize(image.size(), 0xFF);
  tap::equal(host.run(shorter, new_version), +PM_UPDATE_WRONG_HEADER, "a body of another length");
  other = image;
  other[700] ^= 4;
  tap::equal(host.run(other, new_version), +PM_UPDATE_WRONG_CHECKSUM, "a body that its header does not vouch for");
  host.announce(image, new_version);
  host.ask(PM_UPDATE_BEGIN);
  tap::equal(host.ask(PM_UPDATE_BEGIN), +PM_UPDATE_WRONG_STATE, "BEGIN while one is on its way");
  host.ticks();
  host.pieces(other, true);
  host.ask(PM_UPDATE_FINISH);
  host.ticks();
  tap::equal(host.ask(PM_UPDATE_ASK), +PM_UPDATE_WRONG_CHECKSUM, "data that is not what was announced");
  tap::ok(pm_update_is_idle(&host.update), "which ends the update");
}

void gaps() {
  FakeFlash flash;
  flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version));
  Updater host(flash);
  const auto image = make_image(PM_SLOT_B, new_version);
  host.announce(image, new_version);
  host.ask(PM_UPDATE_BEGIN);
  tap::equal(host.piece(image, 0, 56, true), +PM_UPDATE_TAKEN, "data before the slot is erased is ignored");
  host.ticks();
  host.piece(image, 0, 56, true);
  tap::equal(host.piece(image, 112, 56, true), +PM_UPDATE_ANSWERED, "a lost piece is told at once");
  tap::ok(host.result == PM_UPDATE_WRONG_OFFSET && host.value == 56, "with where to go on");
  tap::equal(host.piece(image, 168, 56, true), +PM_UPDATE_TAKEN, "once");
  host.piece(image, 56, 56, true);
  tap::ok(host.ask(PM_UPDATE_ASK) == PM_UPDATE_OK && host.value == 112, "and it goes on from there");
  tap::equal(host.piece(image, 56, 56, true), +PM_UPDATE_ANSWERED, "a repeated piece is out of place too");
  tap::equal(host.ask(PM_UPDATE_FINISH), +PM_UPDATE_WRONG_OFFSET, "not finished before all is there");
  pm_update_piece long_piece{112, 56, {}};
  host.ask(PM_UPDATE_ABANDON);
  tap::ok(pm_update_is_idle(&host.update), "abandoned");
  // The end of the image lies in the middle of a piece.
  host.announce(image, new_version);
  host.ask(PM_UPDATE_BEGIN);
  host.ticks();
  for (std::uint32_t at = 0; at + 56 <= image.size(); at += 56) host.piece(image, at, 56, true);
  long_piece.offset = host.update.at;
  pm_can_frame frame;
  pm_update_piece_pack(&frame, &long_piece, true);
  tap::equal(host.send(frame), +PM_UPDATE_ANSWERED, "a piece beyond the end is refused");
  tap::equal(host.result, +PM_UPDATE_WRONG_OFFSET, "as out of place");
  host.now += PM_UPDATE_SILENCE_US_MAX + 1;
  pm_update_tick(&host.update, host.now);
  tap::ok(host.ask(PM_UPDATE_ASK) == PM_UPDATE_LATE && host.state == PM_UPDATE_IDLE, "ten seconds without a host end it");
}

void malformed() {
  FakeFlash flash;
  Updater host(flash, PM_SLOT_NONE);
  pm_can_frame frame;
  const auto word = [&](std::uint8_t key, std::uint8_t detail) {
    const pm_word_item item = {key, detail, 0};
    pm_word_pack(&frame, PM_ID_UPDATE, &item);
    return host.send(frame);
  };
  tap::equal(word(PM_UPDATE_OPERATIONS, 0), +PM_UPDATE_MALFORMED, "an operation that does not exist");
  tap::equal(word(PM_UPDATE_FINISH, 1), +PM_UPDATE_MALFORMED, "a flag that only BEGIN has");
  tap::equal(word(PM_UPDATE_BEGIN, 2), +PM_UPDATE_MALFORMED, "a flag that BEGIN has not");
  frame.data[7] ^= 1;
  tap::equal(host.send(frame), +PM_UPDATE_MALFORMED, "a wrong checksum");
  frame.id = PM_ID_UPDATE_WORD;
  tap::equal(host.send(frame), +PM_UPDATE_MALFORMED, "of a word");
  frame.id = PM_ID_FIRMWARE_ASK;
  tap::equal(host.send(frame), +PM_UPDATE_MALFORMED, "of a question");
  const std::uint8_t beyond[PM_SHORT_PAYLOAD_BYTES] = {PM_FACTS};
  pm_short_pack(&frame, PM_ID_FIRMWARE_ASK, beyond);
  tap::equal(host.send(frame), +PM_UPDATE_MALFORMED, "a fact that does not exist");
  frame.id = 0x306;
  tap::equal(host.send(frame), +PM_UPDATE_FOREIGN, "an identifier that is none of ours");
  frame.id = PM_ID_UPDATE;
  frame.is_extended = true;
  tap::equal(host.send(frame), +PM_UPDATE_FOREIGN, "29 bits");
  frame.is_extended = false;
  frame.is_remote = true;
  tap::equal(host.send(frame), +PM_UPDATE_FOREIGN, "a remote frame");
}

void no_slots() {
  FakeFlash flash;
  Updater host(flash);
  const pm_update_config config = {nullptr, PM_SLOT_NONE, rig::board_id};
  pm_update_init(&host.update, &config);
  tap::equal(host.ask(PM_UPDATE_BEGIN), +PM_UPDATE_NO_SLOTS, "a build without slots cannot be updated");
  tap::equal(host.ask(PM_UPDATE_CONFIRM), +PM_UPDATE_NO_SLOTS, "nor confirmed");
  tap::ok(host.fact(PM_FACT_BOARD) == rig::board_id && host.fact(PM_FACT_VERSION) == 0, "but says its board");
  tap::ok(host.fact(PM_FACT_SLOT_BYTES) == 0 && host.fact(PM_FACT_OTHER_VERSION) == 0 &&
              host.fact(PM_FACT_TARGET) == PM_SLOT_NONE && host.fact(PM_FACT_BOOT) == 0xFF0000FFu,
          "and that it has none");
  host.ticks();
}

// The boot loader as the only thing there is.
void recovery() {
  FakeFlash flash;
  Updater host(flash, PM_SLOT_NONE);
  tap::ok(host.fact(PM_FACT_TARGET) == PM_SLOT_A && host.fact(PM_FACT_OTHER_VERSION) == 0, "an empty board takes A");
  tap::equal(host.run(make_image(PM_SLOT_A, old_version), old_version), +PM_UPDATE_OK, "and is filled over the bus");
  int tried = 0;
  while (tried < 10 && pm_boot_choose(&flash.flash) == PM_SLOT_A) ++tried;
  tap::equal(tried, +PM_BOOT_TRIES, "a first firmware that never confirms ends in the boot loader again");
  tap::equal(pm_boot_choose(&flash.flash), +PM_SLOT_NONE, "which waits");
  host.start(PM_SLOT_NONE);
  tap::equal(host.fact(PM_FACT_BOOT), 0x00FFu, "and says that A has failed");
  tap::equal(host.run(make_image(PM_SLOT_A, new_version), new_version), +PM_UPDATE_OK, "another one");
  host.start(pm_boot_choose(&flash.flash));
  pm_update_confirm(&host.update);
  tap::ok(!host.update.is_trial && pm_boot_choose(&flash.flash) == PM_SLOT_A, "is confirmed and stays");
  flash.regions[PM_SLOT_A][8] ^= 1;
  host.start(PM_SLOT_A);
  tap::equal(host.fact(PM_FACT_VERSION), 0u, "a firmware that cannot read its own header has no version");
}

void failing_flash() {
  const auto image = make_image(PM_SLOT_B, new_version);
  int ended_well = 0, survived = 0, runs = 0;
  for (int operation = 0; operation < 200; ++operation) {
    FakeFlash flash;
    flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version));
    Updater host(flash);
    flash.fails_at = operation;
    host.run(image, new_version, true);
    if (flash.operations <= operation) break;
    ++runs;
    ended_well += host.was_told_of_flash && flash.version_in(PM_SLOT_A) == old_version;
    const std::uint8_t slot = pm_boot_choose(&flash.flash);
    survived += slot == PM_SLOT_A && host.ask(PM_UPDATE_ASK) != PM_UPDATE_OK;
  }
  tap::ok(runs == 143, "an update is 143 operations of the flash: " + std::to_string(runs));
  tap::equal(ended_well, runs, "each of them may fail, and it is said");
  tap::equal(survived, runs, "and the old firmware starts");
  FakeFlash flash;
  flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version));
  Updater host(flash);
  host.run(image, new_version);
  host.start(pm_boot_choose(&flash.flash));
  flash.fails_at = flash.operations;
  tap::equal(host.ask(PM_UPDATE_CONFIRM), +PM_UPDATE_FLASH_FAILED, "a confirmation that cannot be written is refused");
  tap::equal(host.ask(PM_UPDATE_CONFIRM), +PM_UPDATE_OK, "and may be asked again");
}

// An update from A to B, the first start, the confirmation, and the way back from B to A, with the power cut in the
// middle of every byte of every operation.
struct Cut {
  int operation;
  std::uint32_t bytes;
};
bool full_story(FakeFlash& flash, const std::vector<std::uint8_t>& first, const std::vector<std::uint8_t>& second) {
  Updater host(flash);
  host.run(first, new_version);
  if (flash.is_off) return false;
  host.start(pm_boot_choose(&flash.flash));
  if (flash.is_off) return false;
  host.ask(PM_UPDATE_CONFIRM);
  if (flash.is_off) return false;
  host.run(second, new_version + 1);
  if (flash.is_off) return false;
  host.start(pm_boot_choose(&flash.flash));
  if (flash.is_off) return false;
  host.ask(PM_UPDATE_CONFIRM);
  return !flash.is_off;
}

void power_cuts() {
  const auto first = make_image(PM_SLOT_B, new_version, 104), second = make_image(PM_SLOT_A, new_version + 1, 104);
  int cuts = 0, lost = 0, stuck = 0, overwritten = 0;
  std::array<int, 3> started{};
  for (int operation = 0;; ++operation) {
    bool is_cut = false;
    for (std::uint32_t bytes = 0; bytes <= rig::page_bytes; bytes = bytes < 33 ? bytes + 1 : bytes * 2) {
      FakeFlash flash;
      flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version, 104));
      flash.cut_at = operation;
      flash.torn_at = bytes;
      if (full_story(flash, first, second)) break;
      is_cut = true;
      ++cuts;
      overwritten += flash.overwritten;
      flash.power_on();
      const std::uint8_t slot = pm_boot_choose(&flash.flash);
      if (slot == PM_SLOT_NONE || !pm_image_is_intact(&flash.flash, slot)) {
        ++lost;
        continue;
      }
      const std::uint32_t version = flash.version_in(slot);
      ++started[version == old_version ? 0 : version == new_version ? 1 : 2];
      // And the robot can be brought to the newest from there.
      Updater host(flash, slot);
      host.ask(PM_UPDATE_CONFIRM);
      const auto again = make_image(slot == PM_SLOT_A ? PM_SLOT_B : PM_SLOT_A, new_version + 2, 104);
      stuck += host.run(again, new_version + 2) != PM_UPDATE_OK ||
               flash.version_in(pm_boot_choose(&flash.flash)) != new_version + 2;
    }
    if (!is_cut) break;
  }
  tap::note(std::to_string(cuts) + " power cuts; started: old " + std::to_string(started[0]) + ", new " +
            std::to_string(started[1]) + ", newest " + std::to_string(started[2]));
  tap::ok(cuts > 3000, "the power was cut in every byte of every operation");
  tap::equal(lost, 0, "there was always an intact firmware to start");
  tap::equal(stuck, 0, "and from there the next update worked");
  tap::equal(overwritten, 0, "nothing was written over");
  tap::ok(started[0] > 0 && started[1] > 0 && started[2] > 0, "each of the three was met");
}

// Of the record alone, over the change of pages.
void record_cuts() {
  int lost = 0, cuts = 0;
  for (int before = 0; before < 40; ++before) {
    for (int operation = 0; operation < 2; ++operation) {
      for (std::uint32_t bytes = 0; bytes <= rig::page_bytes; ++bytes) {
        FakeFlash flash;
        pm_boot_record record = {0, PM_SLOT_B, PM_SLOT_NONE, 0, PM_SLOT_NONE};
        for (int i = 0; i <= before; ++i) pm_record_write(&flash.flash, &record);
        flash.cut_at = flash.operations + operation;
        flash.torn_at = bytes;
        const std::uint32_t sequence = record.sequence;
        const bool is_written = pm_record_write(&flash.flash, &record);
        if (!flash.is_off) break;
        ++cuts;
        flash.power_on();
        pm_record_read(&flash.flash, &record);
        lost += record.active != PM_SLOT_B || record.sequence < sequence || record.sequence > sequence + 1 || is_written;
        record.active = PM_SLOT_A;
        const bool is_good = pm_record_write(&flash.flash, &record);
        pm_record_read(&flash.flash, &record);
        lost += !is_good || record.active != PM_SLOT_A;
      }
    }
  }
  tap::ok(cuts > 20000, "cut in every byte of 40 records: " + std::to_string(cuts));
  tap::equal(lost, 0, "the old record or the new one counts, and another can be written");
}

// The bridge around it.
struct Robot : Rig {
  FakeFlash flash;
  Robot() : Rig(2) {
    flash.put_image(PM_SLOT_A, make_image(PM_SLOT_A, old_version));
    restart(PM_SLOT_A);
  }
  void restart(std::uint8_t slot) {
    config.update = {&flash.flash, slot, rig::board_id};
    start();
  }
  int operate(std::uint8_t operation, std::uint32_t value = 0) {
    const pm_word_item item = {operation, 0, value};
    pm_can_frame frame;
    pm_word_pack(&frame, PM_ID_UPDATE, &item);
    heard.clear();
    send(frame);
    const pm_can_frame* answer = last(PM_ID_UPDATE_STATUS);
    return answer == nullptr ? -1 : answer->data[1];
  }
  int begin(const std::vector<std::uint8_t>& image) {
    operate(PM_UPDATE_SIZE, static_cast<std::uint32_t>(image.size()));
    operate(PM_UPDATE_VERSION, new_version);
    operate(PM_UPDATE_CHECKSUM, pm_crc32(0, image.data(), static_cast<std::uint32_t>(image.size())));
    operate(PM_UPDATE_BOARD, rig::board_id);
    return operate(PM_UPDATE_BEGIN);
  }
};

void in_the_bridge() {
  Robot robot;
  const auto image = make_image(PM_SLOT_B, new_version);
  const std::vector<std::uint8_t> question = {PM_FACT_VERSION};
  tap::equal(robot.ask(PM_ID_FIRMWARE_ASK, question, PM_ID_FIRMWARE_FACT), +PM_FACT_VERSION, "answered in silence");
  tap::ok(robot.bridge.state == PM_STATE_SILENT && robot.frames == 1, "with that one frame");
  tap::equal(robot.begin(image), +PM_UPDATE_OK, "and begun in silence");
  robot.operate(PM_UPDATE_ABANDON);
  tap::ok(robot.bring_up(), "armed");
  for (const pm_state state : {PM_STATE_HOLDING, PM_STATE_FAULT}) {
    if (state == PM_STATE_FAULT) {
      robot.send_short(PM_ID_ESTOP);
      robot.run_us(2000);
    }
    tap::ok(robot.bridge.state == state && robot.begin(image) == PM_UPDATE_NOT_DISARMED,
            "refused in state " + std::to_string(state));
    tap::equal(robot.ask(PM_ID_FIRMWARE_ASK, question, PM_ID_FIRMWARE_FACT), +PM_FACT_VERSION, "but questions are answered");
  }
  robot.send_short(PM_ID_FAULT_CLEAR, {PM_FAULT_ESTOP});
  tap::ok(robot.bridge.state == PM_STATE_DISARMED && robot.begin(image) == PM_UPDATE_OK, "begun, disarmed");
  robot.run_us(5000);
  robot.upload();
  tap::equal(robot.arm(), +PM_ARM_UPDATING, "arming is refused meanwhile");
  tap::equal(pm_led_pattern(&robot.bridge, robot.now), 0x0F0F, "and the lamp says so");
  const std::uint32_t malformed = robot.count(PM_COUNT_MALFORMED), foreign = robot.count(PM_COUNT_FOREIGN);
  pm_can_frame frame;
  const pm_word_item item = {PM_UPDATE_OPERATIONS, 0, 0};
  pm_word_pack(&frame, PM_ID_UPDATE, &item);
  robot.send(frame);
  frame.id = 0x7AA;
  robot.send(frame);
  tap::ok(robot.count(PM_COUNT_MALFORMED) == malformed + 1 && robot.count(PM_COUNT_FOREIGN) == foreign + 1,
          "what is not understood is counted");
  for (std::uint32_t at = 0; at < image.size(); at += 8) {
    pm_update_piece piece{at, 8, {}};
    std::memcpy(piece.data, image.data() + at, 8);
    pm_update_piece_pack(&frame, &piece, true);
    robot.send(frame);
  }
  tap::equal(robot.operate(PM_UPDATE_FINISH), +PM_UPDATE_OK, "finished");
  robot.run_us(5000);
  tap::equal(robot.operate(PM_UPDATE_ACTIVATE), +PM_UPDATE_OK, "activated");
}

void on_trial() {
  Robot robot;
  robot.flash.put_image(PM_SLOT_B, make_image(PM_SLOT_B, new_version));
  pm_boot_try(&robot.flash.flash, PM_SLOT_B, PM_SLOT_A);
  robot.restart(pm_boot_choose(&robot.flash.flash));
  robot.run_us(3 * PM_HEALTHY_US);
  tap::ok(robot.bridge.update.is_trial, "a firmware that no host has greeted is not confirmed");
  robot.hello();
  robot.run_us(PM_HEALTHY_US - 1000);
  tap::ok(robot.bridge.update.is_trial, "nor in the first second");
  robot.run_us(2000);
  tap::ok(!robot.bridge.update.is_trial, "then it is");
  tap::equal(pm_boot_choose(&robot.flash.flash), +PM_SLOT_B, "and starts from now on");
}

void lamp() {
  Rig robot(2);
  const auto pattern = [&] { return pm_led_pattern(&robot.bridge, robot.now); };
  tap::equal(pattern(), 0x0001, "silent: one flash in two seconds");
  robot.send_short(PM_ID_INDICATE, {PM_INDICATE_STARTING});
  tap::ok(pattern() == 0x00FF && robot.bridge.state == PM_STATE_SILENT && robot.frames == 0,
          "the host may say something in silence, which stays silence");
  robot.run_us(PM_INDICATION_US_MAX + rig::tick_us);
  tap::equal(pattern(), 0x0001, "for three seconds");
  robot.hello();
  tap::equal(pattern(), 0x0101, "disarmed: one flash a second");
  std::vector<int> met;
  for (std::uint8_t i = 0; i < PM_INDICATIONS; ++i) {
    robot.send_short(PM_ID_INDICATE, {i});
    met.push_back(pattern());
  }
  std::sort(met.begin(), met.end());
  tap::ok(std::adjacent_find(met.begin(), met.end()) == met.end(), "every word of the host has its own pattern");
  const std::uint32_t malformed = robot.count(PM_COUNT_MALFORMED);
  robot.send_short(PM_ID_INDICATE, {PM_INDICATIONS});
  tap::ok(robot.count(PM_COUNT_MALFORMED) == malformed + 1 && pattern() == 0x3333, "an unknown one changes nothing");
  robot.send_short(PM_ID_ESTOP);
  robot.run_us(2000);
  tap::equal(pattern(), 0x5555, "the bridge's own fault wins");
  int lit = 0;
  for (std::uint64_t us = 0; us < 2000000; us += PM_LED_STEP_US) lit += pm_led_is_on(0x0015, us);
  tap::equal(lit, 3, "a pattern is sixteen eighths of a second");
}

// INDICATE is no sign of life: a stream that dries up is lost although the lamp is told something all the time.
void lamp_keeps_nothing_alive() {
  Rig robot(2);
  robot.bring_up();
  robot.stream(200000);
  const std::uint64_t from_us = robot.now;
  while (robot.bridge.faults.first.code == PM_FAULT_NONE && robot.now - from_us < 1000000) {
    robot.send_short(PM_ID_INDICATE, {PM_INDICATE_RUNNING});
    robot.tick();
  }
  tap::equal(static_cast<int>(robot.bridge.faults.first.code), +PM_FAULT_HOST_LOST, "the lamp keeps nothing alive");
}

}  // namespace

int main() {
  images();
  records();
  choices();
  whole_update(true);
  whole_update(false);
  refusals();
  gaps();
  malformed();
  no_slots();
  recovery();
  failing_flash();
  power_cuts();
  record_cuts();
  in_the_bridge();
  on_trial();
  lamp();
  lamp_keeps_nothing_alive();
  return tap::finish();
}
