// The firmware's main loop on a board of this test's own: ticks and what they owe to a stalled board, the watchdog, the
// inputs, the supply, and buses that stand still.
#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "bridge_rig.h"
#include "firmware-bridge/board/loop.h"

extern "C" {
#include "firmware-bridge/internal.h"
}

namespace {

struct Board {
  std::uint64_t now_us = 1000;
  std::deque<std::pair<std::uint8_t, pm_can_frame>> received;
  std::vector<pm_can_frame> sent[PM_BOARD_BUSES];
  bool stands[PM_BOARD_BUSES] = {};
  bool is_estop = false;
  bool is_supply_low = false;
  int fed = 0;
  bool is_lit = false;
  int restarts = 0;
  bool feeds_answer = true;  // drives answer
};
Board board;

pm_can_frame answer_of(std::uint8_t axis, bool is_enabled) {
  pm_can_frame frame{};
  frame.id = rig::feedback_id + axis;
  frame.data_bytes = 16;
  frame.is_fd = true;
  frame.data[0] = is_enabled;
  return frame;
}

}  // namespace

extern "C" {
void pm_board_init(void) {}
std::uint64_t pm_board_now_us(void) { return board.now_us; }
bool pm_board_has_fd(void) { return true; }
std::uint16_t pm_board_boot_number(void) { return 7; }
bool pm_board_receive(std::uint8_t* bus, pm_can_frame* frame) {
  if (board.received.empty()) return false;
  *bus = board.received.front().first;
  *frame = board.received.front().second;
  board.received.pop_front();
  return true;
}
bool pm_board_can_transmit(std::uint8_t bus) { return !board.stands[bus]; }
void pm_board_transmit(std::uint8_t bus, const pm_can_frame* frame) {
  board.sent[bus].push_back(*frame);
  if (bus != PM_BOARD_DRIVE_BUS || !board.feeds_answer) return;
  const auto axis = static_cast<std::uint8_t>(frame->id - rig::command_id);
  board.received.emplace_back(bus, answer_of(axis, frame->data[0] != PM_DRIVE_DISABLE));
}
bool pm_board_is_estop(void) { return board.is_estop; }
bool pm_board_is_supply_low(void) { return board.is_supply_low; }
void pm_board_feed_watchdog(void) { ++board.fed; }
void pm_board_start_watchdog(void) {}
void pm_board_set_led(bool is_on) { board.is_lit = is_on; }
const pm_flash* pm_board_flash(void) { return nullptr; }
std::uint8_t pm_board_slot(void) { return PM_SLOT_NONE; }
std::uint32_t pm_board_id(void) { return 0; }
void pm_board_restart(void) { ++board.restarts; }
void pm_board_wait(void) {}
}

namespace {

struct Loop {
  pm_loop loop{};
  Loop() {
    board = Board{};
    pm_bridge_config config = rig::usual_config(2, true);
    config.drive_divider = 4;
    tap::ok(pm_loop_start(&loop, &config), "the loop starts");
  }
  void run_us(std::uint64_t us, std::uint64_t step_us = 50) {
    for (std::uint64_t t = 0; t < us; t += step_us) {
      board.now_us += step_us;
      pm_loop_step(&loop);
    }
  }
  void host(std::uint32_t id, std::vector<std::uint8_t> payload = {}) {
    payload.resize(PM_SHORT_PAYLOAD_BYTES);
    pm_can_frame frame;
    pm_short_pack(&frame, id, payload.data());
    board.received.emplace_back(PM_BOARD_HOST_BUS, frame);
    run_us(50);
  }
  [[nodiscard]] static int heard(std::uint32_t id) {
    const auto& frames = board.sent[PM_BOARD_HOST_BUS];
    return static_cast<int>(
        std::count_if(frames.begin(), frames.end(), [&](const pm_can_frame& frame) { return frame.id == id; }));
  }
  // Powers the drives by the bridge's own door: arming is tested elsewhere.
  void power() {
    host(PM_ID_HELLO, {1, 1, 1, 2});
    run_us(30000);
    for (auto& axis : loop.bridge.limits.axes) axis = {-2, 2, 3, 20, 400, 10};
    tap::ok(pm_bridge_trigger(&loop.bridge, PM_TRIGGER_ARM), "armed");
    run_us(3000);
  }
};

void ticks() {
  Loop at;
  at.run_us(100000);
  tap::ok(board.fed >= 399 && board.fed <= 401, "4 kHz: 400 ticks in 100 ms, and the watchdog is fed at each");
  tap::ok(board.sent[0].empty() && board.sent[1].empty(), "silent");
  board.fed = 0;
  for (int i = 0; i < 100000; ++i) pm_loop_step(&at.loop);
  tap::ok(board.fed <= 1, "a clock that stands still: no ticks, and nobody feeds the watchdog");
  board.fed = 0;
  board.now_us += 100000;
  at.run_us(1000);
  tap::ok(board.fed <= 5, "a stall of 100 ms is not made up for by 400 ticks");
  for (int i = 0; i < 1000; ++i) board.received.emplace_back(PM_BOARD_HOST_BUS, pm_can_frame{});
  board.fed = 0;
  at.run_us(1000);
  tap::ok(board.fed >= 3 && !board.received.empty(), "a flood of frames does not keep the ticks back");
}

void late() {
  Loop at;
  at.power();
  tap::equal(at.loop.bridge.state, PM_STATE_HOLDING, "holding");
  board.now_us += PM_TICK_GAP_US_MAX + 1000;
  pm_loop_step(&at.loop);
  tap::equal(at.loop.bridge.faults.first.code, PM_FAULT_TICK_LATE, "a board that stalls for 6 ms: tick late");
}

void inputs() {
  Loop at;
  at.power();
  board.is_estop = true;
  at.run_us(1000);
  tap::equal(at.loop.bridge.faults.first.code, PM_FAULT_ESTOP, "the emergency stop input reaches the bridge");

  Loop low;
  low.power();
  board.sent[1].clear();
  board.is_supply_low = true;
  pm_loop_step(&low.loop);
  tap::equal(low.loop.bridge.state, PM_STATE_SILENT, "the supply falls: silent");
  tap::ok(board.sent[1].size() == 2 && board.sent[1][0].data[0] == PM_DRIVE_DISABLE &&
              board.sent[1][1].data[0] == PM_DRIVE_DISABLE,
          "and in the same step every drive is told to be off");
  low.host(PM_ID_HELLO, {1, 1, 1, 2});
  tap::equal(low.loop.bridge.state, PM_STATE_DISARMED, "a hello is answered while it is low");
  low.run_us(1000);
  tap::equal(low.loop.bridge.state, PM_STATE_DISARMED, "once per dip");
  board.is_supply_low = false;
  low.run_us(1000);
  board.is_supply_low = true;
  low.run_us(1000);
  tap::equal(low.loop.bridge.state, PM_STATE_SILENT, "the next dip counts anew");
}

void dead_buses() {
  Loop at;
  at.power();
  board.stands[PM_BOARD_HOST_BUS] = true;
  board.sent[1].clear();
  at.run_us(500000);
  tap::ok(at.loop.bridge.faults.first.code == PM_FAULT_NONE && board.sent[1].size() > 900,
          "a host bus that stands still does not keep commands from the drives");
  tap::ok(at.loop.dropped > 0, "reports are dropped and counted");

  Loop stuck;
  stuck.power();
  board.stands[PM_BOARD_DRIVE_BUS] = true;
  stuck.run_us(200000);
  tap::equal(stuck.loop.bridge.state, PM_STATE_FAULT, "a drive bus that stands still ends in a fault");
  tap::ok((stuck.loop.bridge.faults.latched[0] >> PM_FAULT_FEEDBACK_LOST & 1) == 1, "feedback lost");
  board.sent[1].clear();
  board.stands[PM_BOARD_DRIVE_BUS] = false;
  stuck.run_us(1000);
  bool moves = board.sent[1].empty();
  for (const pm_can_frame& frame : board.sent[1]) moves |= frame.data[0] != PM_DRIVE_DISABLE;
  tap::ok(!moves, "when it comes back no old command leaves, disable frames only");
}

void lamp() {
  Loop at;
  int lit = 0;
  for (int i = 0; i < 2000; ++i) {
    at.run_us(1000);
    lit += board.is_lit;
  }
  tap::ok(lit > 110 && lit < 140, "the lamp flashes for an eighth of two seconds while silent");
}

void restart() {
  Loop at;
  at.run_us(1000);
  at.loop.bridge.update.state = PM_UPDATE_RESTARTING;
  at.loop.bridge.update.restart_us = board.now_us;
  at.run_us(PM_UPDATE_RESTART_US - 1000);
  tap::equal(board.restarts, 0, "the answer to ACTIVATE has its time");
  at.run_us(2000);
  tap::ok(board.restarts > 0, "then the board starts anew");
}

void refused() {
  board = Board{};
  pm_loop loop;
  pm_bridge_config config = rig::usual_config(2, true);
  config.axis_count = 0;
  tap::ok(!pm_loop_start(&loop, &config), "a configuration without axes is refused");
}

}  // namespace

int main() {
  ticks();
  late();
  inputs();
  dead_buses();
  lamp();
  restart();
  refused();
  return tap::finish();
}
