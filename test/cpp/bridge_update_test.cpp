// The firmware that replaces itself: slots, boot record and update against a flash that fails and loses its power in
// the middle of every byte of every operation. Whatever is cut, the next start runs the old firmware or the new one.
#include "bridge_rig.h"
#include "firmware-bridge/led.h"
#include "firmware_updater.h"

using rig::FakeFlash;
using rig::make_image;
using rig::new_version;
using rig::old_version;
using rig::Rig;
using rig::Updater;

namespace {

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
  tap::equal(host.run(make_image(PM_SLOT_A, new_version), new_version), +PM_UPDATE_WRONG_HEADER,
             "an image of slot A for B");
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
  tap::ok(host.ask(PM_UPDATE_ASK) == PM_UPDATE_LATE && host.state == PM_UPDATE_IDLE,
          "ten seconds without a host end it");
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
    tap::equal(robot.ask(PM_ID_FIRMWARE_ASK, question, PM_ID_FIRMWARE_FACT), +PM_FACT_VERSION,
               "but questions are answered");
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

}  // namespace

int main() {
  whole_update(true);
  whole_update(false);
  refusals();
  gaps();
  malformed();
  no_slots();
  recovery();
  failing_flash();
  in_the_bridge();
  on_trial();
  return tap::finish();
}
