// Images, the boot record and the boot loader's choice, with the power cut in the middle of every byte of every
// operation of the flash: the next start runs the old firmware or the new one. And the bridge's lamp.
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
  tap::ok(pm_boot_confirm(&flash.flash, PM_SLOT_B) && pm_boot_confirm(&flash.flash, PM_SLOT_B),
          "confirmed, twice is once");
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

// An update from A to B, the first start, the confirmation, and the way back from B to A, with the power cut in the
// middle of every byte of every operation.
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
        lost +=
            record.active != PM_SLOT_B || record.sequence < sequence || record.sequence > sequence + 1 || is_written;
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
  power_cuts();
  record_cuts();
  lamp();
  lamp_keeps_nothing_alive();
  return tap::finish();
}
