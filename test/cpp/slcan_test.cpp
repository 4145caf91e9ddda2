// slcan: the text of frames, the parser on broken lines, and the bus over a real pty pair with an adapter played here.
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <random>
#include <string>

#include "can/slcan_bus.h"
#include "can/slcan_codec.h"
#include "counted_frame.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::can;

namespace {

std::string text_of(const pm_can_frame& frame) {
  std::array<char, slcan_text_max> text;
  return {text.data(), slcan_encode(frame, text)};
}

SlcanEvent feed(SlcanParser* parser, const std::string& text) {
  SlcanEvent last = SlcanEvent::none;
  for (const char c : text) {
    const SlcanEvent event = parser->push(c);
    if (event != SlcanEvent::none) last = event;
  }
  return last;
}

void test_codec() {
  // Lawicel's form: letter, identifier, length, data.
  tap::equal(text_of(counted_frame(0x100, 3)), std::string("t1003112233\r"), "slcan: 11 bits");
  pm_can_frame frame = counted_frame(0x100, 0);
  frame.is_extended = true;
  tap::equal(text_of(frame), std::string("T000001000\r"), "slcan: 29 bits");
  frame = counted_frame(0x7ff, 0);
  frame.is_remote = true;
  frame.data_bytes = 8;
  tap::equal(text_of(frame), std::string("r7FF8\r"), "slcan: a remote request has a length and no data");
  tap::equal(text_of(counted_frame(1, 8)).size(), std::size_t{22}, "slcan: 22 characters for a frame of 8 bytes");
  frame = counted_frame(1, 8);
  frame.is_fd = true;
  tap::equal(text_of(frame), std::string(), "slcan: no FD");
  SlcanParser parser;
  tap::ok(feed(&parser, "t1002AABB12CD\r") == SlcanEvent::frame && parser.frame().data[1] == 0xbb,
          "slcan: a timestamp is read over");
  tap::ok(feed(&parser, "\r") == SlcanEvent::done, "slcan: done");
  tap::ok(feed(&parser, "z\r") == SlcanEvent::done && feed(&parser, "Z\r") == SlcanEvent::done, "slcan: queued");
  tap::ok(feed(&parser, "\a") == SlcanEvent::refused, "slcan: refused");
  tap::ok(feed(&parser, "F85\r") == SlcanEvent::status && parser.status_flags() == 0x85, "slcan: status flags");
  tap::ok(feed(&parser, "V1013\r") == SlcanEvent::text && feed(&parser, "NA123\r") == SlcanEvent::text, "slcan: texts");
  for (const char* wrong :
       {"t10031122\r", "t1009112233445566778899\r", "t8001AA\r", "tXYZ0\r", "t100\r", "T200000000\r", "q\r", "t1001A\a",
        "t10081122334455667788990011223344556677889900\r", "F8\r", "zz\r"}) {
    SlcanParser fresh;
    tap::ok(feed(&fresh, wrong) == SlcanEvent::malformed,
            "slcan: malformed: " + std::string(wrong).substr(0, std::string(wrong).find_first_of("\r\a")));
    tap::ok(feed(&fresh, "t0010\r") == SlcanEvent::frame, "slcan: and the next line is read");
  }
}

void test_round_trip() {
  std::mt19937 random(11);
  SlcanParser parser;
  int same = 0;
  for (int i = 0; i < 20000; ++i) {
    pm_can_frame frame = counted_frame(0, static_cast<std::uint8_t>(random() % 9));
    frame.is_extended = random() % 2 == 0;
    frame.id = random() & (frame.is_extended ? 0x1fffffffu : 0x7ffu);
    frame.is_remote = random() % 8 == 0;
    for (std::uint8_t& byte : frame.data) byte = static_cast<std::uint8_t>(random());
    same += feed(&parser, text_of(frame)) == SlcanEvent::frame && is_same(parser.frame(), frame) ? 1 : 0;
  }
  tap::equal(same, 20000, "slcan: 20000 random frames survive text (seed 11)");
}

// Reads until `ending` was seen or a second has passed.
std::string read_until(int fd, const std::string& ending) {
  std::string text;
  while (text.size() < ending.size() || text.compare(text.size() - ending.size(), ending.size(), ending) != 0) {
    pollfd waiting{fd, POLLIN, 0};
    if (::poll(&waiting, 1, 1000) <= 0) break;
    char byte;
    if (::read(fd, &byte, 1) != 1) break;
    text += byte;
  }
  return text;
}

BusIo receive_within_a_second(Bus& bus, BusFrame* got) {
  for (int i = 0; i < 10; ++i) {
    const BusIo result = bus.receive(got, 77);
    if (result != BusIo::empty) return result;
    pollfd waiting{bus.descriptor(), POLLIN, 0};
    ::poll(&waiting, 1, 100);
  }
  return BusIo::empty;
}

int open_adapter(std::string* path) {
  const int fd = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (fd < 0 || ::grantpt(fd) != 0 || ::unlockpt(fd) != 0) return -1;
  const char* name = ::ptsname(fd);
  if (name == nullptr) return -1;
  *path = name;
  return fd;
}

void test_pty() {
  std::string path;
  const int adapter = open_adapter(&path);
  if (adapter < 0) {
    tap::skip("slcan over a pty", "this machine gives no pseudo-terminals");
    return;
  }
  SlcanBus bus({.device = path});
  tap::ok(bus.open().ok(), "slcan over a pty: opens " + bus.problem().message);
  tap::equal(read_until(adapter, "O\r"), std::string("\rC\rS8\rO\r"), "slcan over a pty: closes, sets 1 Mbit/s, opens");
  tap::ok(bus.send(counted_frame(0x123, 8), 0) == BusIo::ok, "slcan over a pty: sends");
  tap::equal(read_until(adapter, "\r"), std::string("t12381122334455667788\r"),
             "slcan over a pty: the adapter reads it");
  const std::string answer = "\r\r\rz\rt7010\rgarbage\rt0112AAFF\r\a";
  tap::ok(::write(adapter, answer.data(), answer.size()) == static_cast<ssize_t>(answer.size()), "adapter answers");
  BusFrame got;
  tap::ok(receive_within_a_second(bus, &got) == BusIo::ok && got.frame.id == 0x701, "slcan over a pty: a first frame");
  tap::ok(receive_within_a_second(bus, &got) == BusIo::ok && got.frame.id == 0x11 && got.frame.data[0] == 0xaa &&
              got.received_us == 77,
          "slcan over a pty: and the one behind garbage");
  tap::ok(receive_within_a_second(bus, &got) == BusIo::empty, "slcan over a pty: no more");
  tap::ok(bus.counters().malformed == 1 && bus.refusals() == 1 && bus.counters().received == 2,
          "slcan over a pty: garbage and refusals are counted");
  pm_can_frame fd = counted_frame(1, 8);
  fd.is_fd = true;
  tap::ok(bus.send(fd, 0) == BusIo::refused, "slcan over a pty: FD is refused");
  bus.close();
  tap::equal(read_until(adapter, "C\r"), std::string("C\r"), "slcan over a pty: close closes the channel");
  ::close(adapter);
}

// Nobody reads: the line fills, frames wait one per identifier, and the newest of each gets out.
void test_full_line() {
  std::string path;
  const int adapter = open_adapter(&path);
  if (adapter < 0) {
    tap::skip("slcan on a full line", "this machine gives no pseudo-terminals");
    return;
  }
  SlcanBus bus({.device = path, .stale_us = 1'000'000});
  tap::ok(bus.open().ok(), "slcan on a full line: opens");
  int queued = 0;
  std::uint64_t given = 0;
  std::uint8_t number = 0;
  for (int i = 0; i < 100000 && queued < 20; ++i) {
    ++given;
    pm_can_frame frame = counted_frame(0x55, 1);
    frame.data[0] = ++number;
    queued += bus.send(frame, i) == BusIo::queued ? 1 : 0;
  }
  if (queued < 20) {
    tap::skip("slcan on a full line: queues", "this kernel's pseudo-terminal never fills");
  } else {
    // The kernel may take some bytes between two sends, so the number that was dropped is not fixed; the sum is.
    const auto& counters = bus.counters();
    tap::ok(counters.dropped_stale > 0 && counters.sent + counters.dropped_stale + 1 == given,
            "slcan on a full line: all but the one that waits were sent or dropped");
    std::string seen;
    for (int i = 0; i < 4000; ++i) {
      pollfd waiting{adapter, POLLIN, 0};
      if (::poll(&waiting, 1, 50) <= 0) break;
      std::array<char, 4096> part;
      const ssize_t got = ::read(adapter, part.data(), part.size());
      if (got <= 0) break;
      seen.append(part.data(), static_cast<std::size_t>(got));
      BusFrame ignored;
      static_cast<void>(bus.receive(&ignored, 100000));
    }
    const std::string last = text_of([&] {
      pm_can_frame frame = counted_frame(0x55, 1);
      frame.data[0] = number;
      return frame;
    }());
    tap::ok(seen.size() >= last.size() && seen.compare(seen.size() - last.size(), last.size(), last) == 0,
            "slcan on a full line: the newest goes out when there is room, whole");
  }
  ::close(adapter);
}

void test_errors() {
  SlcanBus missing({.device = "/dev/no-such-adapter"});
  const Status status = missing.open();
  tap::note(status.message);
  tap::ok(
      std::string(status.code) == "CAN_DEVICE_MISSING" && status.message.find("no-such-adapter") != std::string::npos,
      "slcan: a missing device is named");
  SlcanBus wrong({.device = "/dev/null", .bit_rate_code = 9});
  tap::equal(std::string(wrong.open().code), std::string("ARGUMENT_INVALID"), "slcan: S9 does not exist");
  SlcanBus odd({.device = "/dev/null", .serial_baud = 12345});
  tap::equal(std::string(odd.open().code), std::string("ARGUMENT_INVALID"), "slcan: an unusual speed is refused");
}

}  // namespace

int main() {
  test_codec();
  test_round_trip();
  test_pty();
  test_full_line();
  test_errors();
  return tap::finish();
}
