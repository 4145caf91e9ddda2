// Buses: the virtual wire and its faults, what waits when a transport is full, and what of SocketCAN can be tested
// without a kernel that has it: records, error frames, and the words of its failures.
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "can/factory.h"
#include "can/newest_queue.h"
#include "can/socketcan_bus.h"
#include "can/virtual_bus.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::can;

namespace {

pm_can_frame frame_of(std::uint32_t id, std::uint8_t first) {
  pm_can_frame frame{};
  frame.id = id;
  frame.data_bytes = 2;
  frame.data[0] = first;
  return frame;
}

std::vector<BusFrame> drain(Bus& bus, std::int64_t now_us) {
  std::vector<BusFrame> frames;
  BusFrame got;
  while (bus.receive(&got, now_us) == BusIo::ok) frames.push_back(got);
  return frames;
}

void test_virtual() {
  VirtualWire wire;
  auto a = wire.endpoint("a"), b = wire.endpoint("b"), c = wire.endpoint("c");
  tap::ok(a->send(frame_of(1, 1), 0) == BusIo::closed && a->counters().refused == 1, "virtual: closed until opened");
  for (const auto& bus : {a.get(), b.get(), c.get()}) tap::ok(bus->open().ok(), "virtual: opens");
  BusFrame got;
  tap::ok(b->receive(&got, 0) == BusIo::empty, "virtual: empty at first");
  for (std::uint8_t i = 0; i < 3; ++i) tap::ok(a->send(frame_of(0x100u + i, i), 5) == BusIo::ok, "virtual: sends");
  const auto at_b = drain(*b, 5), at_c = drain(*c, 5);
  tap::ok(at_b.size() == 3 && at_c.size() == 3 && drain(*a, 5).empty(), "virtual: all others receive");
  bool in_order = true;
  for (std::size_t i = 0; i < at_b.size(); ++i) in_order = in_order && at_b[i].frame.id == 0x100 + i;
  tap::ok(in_order, "virtual: in order");
  tap::ok(a->counters().sent == 3 && b->counters().received == 3, "virtual: counted");
  pm_can_frame wrong = frame_of(0x800, 0);
  tap::ok(a->send(wrong, 5) == BusIo::refused, "virtual: an identifier of 12 bits is refused");
  wrong = frame_of(1, 0);
  wrong.data_bytes = 9;
  tap::ok(a->send(wrong, 5) == BusIo::refused, "virtual: nine bytes in a classic frame too");
  wrong.is_fd = true;
  tap::ok(a->send(wrong, 5) == BusIo::refused, "virtual: and in an FD frame");
  wrong.data_bytes = 12;
  tap::ok(a->send(wrong, 5) == BusIo::ok, "virtual: twelve exist");
  wire.force_bus_off(a.get());
  tap::ok(a->send(frame_of(1, 1), 6) == BusIo::bus_off && a->counters().bus_off == 1, "virtual: bus-off");
  tap::equal(std::string(a->problem().code), std::string("CAN_BUS_OFF"), "virtual: has a name");
  tap::ok(a->send(frame_of(1, 1), 1'000'000) == BusIo::bus_off, "virtual: and stays until asked");
  tap::ok(a->recover().ok() && a->send(frame_of(1, 1), 1'000'001) == BusIo::ok, "virtual: recovery on request");
  a->close();
  a->close();
  tap::ok(!a->is_open(), "virtual: close is idempotent");
}

// One sender, one receiver, one kind of fault at a time.
struct FaultRun {
  std::vector<std::uint16_t> numbers;  // in the order of arrival
  std::uint64_t dropped, corrupted, duplicated, reordered;
};

FaultRun run_with(const WireFaults& faults) {
  VirtualWire wire;
  wire.set_faults(faults);
  auto a = wire.endpoint("a"), b = wire.endpoint("b");
  static_cast<void>(a->open());
  static_cast<void>(b->open());
  FaultRun run{};
  for (std::int64_t i = 0; i < 1000; ++i) {
    pm_can_frame frame = frame_of(0x10, static_cast<std::uint8_t>(i & 0xff));
    frame.data[1] = static_cast<std::uint8_t>(i >> 8);
    static_cast<void>(a->send(frame, i * 1000));
    for (const BusFrame& got : drain(*b, i * 1000)) {
      run.numbers.push_back(static_cast<std::uint16_t>(got.frame.data[0] | got.frame.data[1] << 8));
    }
  }
  for (const BusFrame& got : drain(*b, 2'000'000)) {
    run.numbers.push_back(static_cast<std::uint16_t>(got.frame.data[0] | got.frame.data[1] << 8));
  }
  run.dropped = wire.dropped();
  run.corrupted = wire.corrupted();
  run.duplicated = wire.duplicated();
  run.reordered = wire.reordered();
  return run;
}

void test_faults() {
  WireFaults faults;
  tap::equal(run_with(faults).numbers.size(), std::size_t{1000}, "faults: none by default");
  faults.drop_permille = 100;
  const FaultRun dropped = run_with(faults);
  tap::ok(dropped.dropped > 60 && dropped.dropped < 140, "faults: about a tenth dropped");
  tap::equal(dropped.numbers.size(), std::size_t{1000 - dropped.dropped}, "faults: the others arrive");
  tap::ok(run_with(faults).numbers == dropped.numbers, "faults: the same seed drops the same frames");
  faults.seed = 99;
  tap::ok(run_with(faults).numbers != dropped.numbers, "faults: another seed drops others");
  faults = {};
  faults.duplicate_permille = 100;
  const FaultRun doubled = run_with(faults);
  tap::equal(doubled.numbers.size(), std::size_t{1000 + doubled.duplicated}, "faults: duplicates arrive twice");
  faults = {};
  faults.corrupt_permille = 100;
  const FaultRun corrupted = run_with(faults);
  std::uint64_t wrong = 0;
  for (std::size_t i = 0; i < 1000; ++i) wrong += corrupted.numbers[i] != i ? 1 : 0;
  tap::ok(wrong == corrupted.corrupted && wrong > 0, "faults: a corrupted frame differs");
  faults = {};
  faults.reorder_permille = 200;
  faults.reorder_us = 3000;
  const FaultRun reordered = run_with(faults);
  std::uint64_t overtaken = 0;
  for (std::size_t i = 1; i < reordered.numbers.size(); ++i) {
    overtaken += reordered.numbers[i] < reordered.numbers[i - 1] ? 1 : 0;
  }
  tap::ok(reordered.numbers.size() == 1000 && overtaken > 0, "faults: late frames are overtaken, none is lost");
}

void test_delay_and_overflow() {
  VirtualWire wire;
  auto a = wire.endpoint("a"), b = wire.endpoint("b");
  static_cast<void>(a->open());
  static_cast<void>(b->open());
  WireFaults faults;
  faults.delay_us = 500;
  wire.set_faults(faults);
  static_cast<void>(a->send(frame_of(1, 1), 1000));
  tap::ok(drain(*b, 1499).empty() && drain(*b, 1500).size() == 1, "faults: a delay is exact");
  wire.set_faults({});
  for (int i = 0; i < 1500; ++i) static_cast<void>(a->send(frame_of(1, 1), 2000));
  tap::ok(drain(*b, 2000).size() == 1024 && b->counters().dropped_full == 476,
          "virtual: an unread inbox drops, counted");
}

void test_newest_queue() {
  NewestPerIdQueue queue(5000);
  std::uint64_t dropped = 0;
  dropped += queue.push(frame_of(0x11, 1), 0);
  dropped += queue.push(frame_of(0x12, 2), 100);
  dropped += queue.push(frame_of(0x11, 3), 200);
  tap::ok(dropped == 1 && queue.count() == 2, "queue: the older frame of an identifier is dropped");
  tap::ok(queue.front().id == 0x11 && queue.front().data[0] == 3, "queue: the newer has its place");
  pm_can_frame extended = frame_of(0x11, 4);
  extended.is_extended = true;
  tap::equal(queue.push(extended, 200), std::uint64_t{0}, "queue: 29 bits are another identifier");
  tap::ok(queue.drop_stale(5150) == 1 && queue.count() == 2, "queue: what waited too long goes, the others stay");
  queue.clear();
  dropped = 0;
  for (std::uint32_t id = 0; id < 100; ++id) dropped += queue.push(frame_of(id, 0), 0);
  tap::ok(dropped == 36 && queue.front().id == 36, "queue: full, it drops the oldest");
}

void test_socketcan_records() {
  pm_can_frame fd{};
  fd.id = 0x1abcdef0;
  fd.is_extended = fd.is_fd = fd.is_bit_rate_switched = true;
  fd.data_bytes = 64;
  for (std::uint8_t i = 0; i < 64; ++i) fd.data[i] = static_cast<std::uint8_t>(i * 3);
  pm_can_frame remote{};
  remote.id = 0x123;
  remote.is_remote = true;
  remote.data_bytes = 4;
  for (const pm_can_frame& frame : {frame_of(0x7ff, 9), remote, fd}) {
    SocketcanRecord record{};
    const std::size_t bytes = socketcan_encode(frame, &record);
    tap::equal(bytes, std::size_t{frame.is_fd ? 72u : 16u}, "socketcan: record size");
    pm_can_frame back{};
    tap::ok(socketcan_decode(record, bytes, &back) == SocketcanRead::frame && is_same(frame, back),
            "socketcan: a frame survives the kernel's record");
  }
  SocketcanRecord record{};
  static_cast<void>(socketcan_encode(fd, &record));
  // linux/can.h: the identifier in host order with bit 31, the length, then the flags with BRS = 1.
  std::uint32_t id = 0;
  std::memcpy(&id, record.data(), 4);
  tap::ok(id == 0x9abcdef0u && record[4] == std::byte{64} && record[5] == std::byte{1},
          "socketcan: bytes of linux/can.h");
  pm_can_frame out{};
  const auto read_error = [&](std::uint32_t bits) {
    const std::uint32_t error_id = 0x20000000u | bits;
    SocketcanRecord error{};
    std::memcpy(error.data(), &error_id, 4);
    error[4] = std::byte{8};
    return socketcan_decode(error, 16, &out);
  };
  tap::ok(read_error(0x40) == SocketcanRead::bus_off, "socketcan: the bus-off error frame");
  tap::ok(read_error(0x100) == SocketcanRead::restarted, "socketcan: the restart");
  tap::ok(read_error(0x20) == SocketcanRead::error, "socketcan: a missing acknowledge");
  tap::ok(socketcan_decode(record, 40, &out) == SocketcanRead::malformed, "socketcan: other sizes are no record");
  record[4] = std::byte{9};
  tap::ok(socketcan_decode(record, 16, &out) == SocketcanRead::malformed, "socketcan: nor are nine classic bytes");
}

void test_socketcan_missing() {
  SocketcanBus bus({.interface = "nosuchcan7"});
  const Status status = bus.open();
  tap::note(status.message);
  const std::string code = status.code;
  tap::ok(code == "CAN_UNSUPPORTED" || code == "CAN_INTERFACE_MISSING", "socketcan: a missing interface is an error");
  tap::ok(status.message.find("nosuchcan7") != std::string::npos, "socketcan: that names it");
  tap::ok(status.message.find("load the module") != std::string::npos ||
              status.message.find("ip link") != std::string::npos,
          "socketcan: and says what to do");
  tap::ok(!bus.is_open() && bus.send(frame_of(1, 1), 0) == BusIo::closed, "socketcan: it stays closed");
  SocketcanBus nameless({.interface = "an-interface-name-too-long"});
  tap::equal(std::string(nameless.open().code), std::string("ARGUMENT_INVALID"), "socketcan: a name of 16 or more");
  SocketcanBus real({.interface = "vcan0"});
  if (!real.open().ok()) {
    tap::skip("socketcan: frames over vcan0", "this machine has no vcan0");
    return;
  }
  SocketcanBus peer({.interface = "vcan0"});
  tap::ok(peer.open().ok() && real.send(frame_of(0x321, 7), 0) == BusIo::ok, "socketcan: sends over vcan0");
  BusFrame got;
  BusIo result = BusIo::empty;
  for (int i = 0; i < 100000 && result == BusIo::empty; ++i) result = peer.receive(&got, 0);
  tap::ok(result == BusIo::ok && got.frame.id == 0x321, "socketcan: frames over vcan0");
}

void test_addresses() {
  const std::pair<const char*, const char*> good[] = {
      {"socketcan:can0", "can0"},
      {"socketcan-fd:can1", "can1"},
      {"slcan:/dev/ttyACM0", "slcan /dev/ttyACM0"},
      {"cannelloni:20000:192.0.2.1:20001", "cannelloni 192.0.2.1:20001"}};
  for (const auto& [address, name] : good) {
    std::unique_ptr<Bus> bus;
    tap::ok(make_bus(address, &bus).ok() && bus != nullptr && bus->name() == name && !bus->is_open(),
            std::string("address: ") + address);
  }
  for (const char* address :
       {"", "can0", "socketcan:", "slcan:", "usb:1", "cannelloni:20000", "cannelloni:0:127.0.0.1:9",
        "cannelloni:20000:127.0.0.1:70000", "cannelloni:20000:127.0.0.1:9x"}) {
    std::unique_ptr<Bus> bus;
    const Status status = make_bus(address, &bus);
    tap::ok(std::string(status.code) == "ARGUMENT_INVALID" && status.found == address && bus == nullptr,
            std::string("address refused: \"") + address + '"');
  }
}

}  // namespace

int main() {
  test_addresses();
  test_virtual();
  test_faults();
  test_delay_and_overflow();
  test_newest_queue();
  test_socketcan_records();
  test_socketcan_missing();
  return tap::finish();
}
