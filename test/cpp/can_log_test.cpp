// candump lines: the format's own example, all kinds of frames, refusals, and the capture hook on a bus.
#include <random>
#include <string>

#include "can/candump_log.h"
#include "can/virtual_bus.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::can;

namespace {

void test_example() {
  // The example of can-utils' log format.
  const std::string text = "(1436509052.249713) vcan0 044#2A366C2BBA";
  CandumpLine line;
  tap::ok(parse_candump(text, &line).ok(), "the usual line is read");
  tap::ok(line.time_us == 1436509052249713 && line.interface == "vcan0" && line.frame.id == 0x44 &&
              line.frame.data_bytes == 5 && line.frame.data[0] == 0x2a && line.frame.data[4] == 0xba,
          "time, interface, identifier, data");
  tap::equal(format_candump(line.time_us, line.interface, line.frame), text, "and written the same");
  tap::ok(parse_candump(text + " R", &line).ok(), "a direction is accepted");
  tap::ok(parse_candump("(0000000001.000000) can0 1FFFFFFF#", &line).ok() && line.frame.is_extended &&
              line.frame.data_bytes == 0,
          "29 bits, no data");
  tap::ok(parse_candump("(0000000001.000000) can0 123#R4", &line).ok() && line.frame.is_remote &&
              line.frame.data_bytes == 4,
          "a remote request with its length");
  tap::ok(parse_candump("(0000000001.000000) can0 123##1112233445566778899AABBCC", &line).ok() && line.frame.is_fd &&
              line.frame.is_bit_rate_switched && line.frame.data_bytes == 12 && line.frame.data[0] == 0x11,
          "FD with the bit rate switched");
}

void test_refusals() {
  const char* wrong[] = {"",
                         "1436509052.249713 vcan0 044#2A",
                         "(1436509052.24971) vcan0 044#2A",
                         "(1436509052,249713) vcan0 044#2A",
                         "(1436509052.249713 vcan0 044#2A",
                         "(1436509052.249713)vcan0 044#2A",
                         "(1436509052.249713) vcan0",
                         "(1436509052.249713) vcan0 44#2A",
                         "(1436509052.249713) vcan0 844#2A",
                         "(1436509052.249713) vcan0 2FFFFFFFF#2A",
                         "(1436509052.249713) vcan0 044#2",
                         "(1436509052.249713) vcan0 044#2G",
                         "(1436509052.249713) vcan0 044#112233445566778899",
                         "(1436509052.249713) vcan0 044##",
                         "(1436509052.249713) vcan0 044##0112233445566778899",
                         "(1436509052.249713) vcan0 044#R9",
                         "(1436509052.249713) vcan0 044#2A X",
                         "(1436509052.249713)  044#2A"};
  for (const char* text : wrong) {
    CandumpLine line;
    const Status status = parse_candump(text, &line);
    tap::ok(std::string(status.code) == "CAN_LOG_INVALID" && !status.expected.empty(),
            std::string("refused: \"") + text + '"');
  }
}

pm_can_frame random_frame(std::mt19937* random) {
  static constexpr std::uint8_t fd_lengths[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64};
  pm_can_frame frame{};
  frame.is_extended = (*random)() % 2 == 0;
  frame.id = (*random)() & (frame.is_extended ? 0x1fffffffu : 0x7ffu);
  frame.is_fd = (*random)() % 2 == 0;
  frame.is_remote = !frame.is_fd && (*random)() % 8 == 0;
  frame.is_bit_rate_switched = frame.is_fd && (*random)() % 2 == 0;
  frame.is_error_passive = frame.is_fd && (*random)() % 2 == 0;
  frame.data_bytes = frame.is_fd ? fd_lengths[(*random)() % 16] : static_cast<std::uint8_t>((*random)() % 9);
  for (std::size_t i = 0; i < frame.data_bytes && !frame.is_remote; ++i) {
    frame.data[i] = static_cast<std::uint8_t>((*random)());
  }
  return frame;
}

void test_round_trip() {
  std::mt19937 random(7);
  int same = 0;
  for (int i = 0; i < 20000; ++i) {
    const pm_can_frame frame = random_frame(&random);
    const std::int64_t time_us = static_cast<std::int64_t>(random()) * 1000 + i;
    CandumpLine line;
    const Status status = parse_candump(format_candump(time_us, "can1", frame), &line);
    same += status.ok() && line.time_us == time_us && is_same(line.frame, frame) ? 1 : 0;
  }
  tap::equal(same, 20000, "20000 random frames survive text (seed 7)");
}

void test_capture() {
  VirtualWire wire;
  auto a = wire.endpoint("a"), b = wire.endpoint("b");
  static_cast<void>(a->open());
  static_cast<void>(b->open());
  CaptureRingDropNewest log("vcan0", 4);
  a->set_capture(&log);
  pm_can_frame frame{};
  frame.id = 0x44;
  frame.data_bytes = 2;
  frame.data[0] = 0x2a;
  static_cast<void>(a->send(frame, 1'500'000));
  frame.id = 0x45;
  static_cast<void>(b->send(frame, 1'600'000));
  BusFrame got;
  static_cast<void>(a->receive(&got, 1'700'000));
  std::string text;
  tap::equal(log.drain(&text), std::size_t{2}, "capture: what was sent and what was received");
  tap::equal(text, std::string("(0000000001.500000) vcan0 044#2A00\n(0000000001.700000) vcan0 045#2A00\n"),
             "capture: as candump writes it");
  for (int i = 0; i < 10; ++i) static_cast<void>(a->send(frame, 2'000'000));
  text.clear();
  tap::ok(log.drain(&text) == 4 && log.dropped() == 6, "capture: a late reader loses the newest, counted");
  a->set_capture(nullptr);
  static_cast<void>(a->send(frame, 3'000'000));
  tap::equal(log.drain(&text), std::size_t{0}, "capture: ends");
}

}  // namespace

int main() {
  test_example();
  test_refusals();
  test_round_trip();
  test_capture();
  return tap::finish();
}
