// cannelloni: bytes of datagrams, the reader on broken ones, and two buses over real UDP on the loopback.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "can/cannelloni_bus.h"
#include "can/cannelloni_codec.h"
#include "counted_frame.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::can;

namespace {

void test_codec() {
  std::array<std::uint8_t, 200> bytes{};
  cannelloni_write_header(7, 3, bytes);
  pm_can_frame fd = counted_frame(0x321, 12);
  fd.is_fd = fd.is_bit_rate_switched = true;
  pm_can_frame remote = counted_frame(0x123, 0);
  remote.is_remote = true;
  remote.data_bytes = 2;
  std::size_t at = cannelloni_header_bytes;
  for (const pm_can_frame& frame : {counted_frame(0x44, 2), fd, remote}) {
    at += cannelloni_write_frame(frame, std::span(bytes).subspan(at));
  }
  const std::vector<std::uint8_t> expected = {2,    0,    7,    0,    3,                      // header
                                              0,    0,    0,    0x44, 2,         0x11, 0x22,  // classic
                                              0,    0,    3,    0x21, 0x80 | 12, 1,           // FD, its flags
                                              0x11, 0x22, 0x33, 0x44, 0x55,      0x66, 0x77,
                                              0x88, 0x99, 0xaa, 0xbb, 0xcc,  // its data
                                              0x40, 0,    1,    0x23, 2};    // remote
  tap::ok(std::vector<std::uint8_t>(bytes.begin(), bytes.begin() + static_cast<long>(at)) == expected,
          "cannelloni: bytes of a datagram with three frames");
  CannelloniReader reader;
  pm_can_frame got{};
  tap::ok(reader.open(std::span(bytes).first(at)) && reader.sequence() == 7, "cannelloni: header");
  for (const pm_can_frame& frame : {counted_frame(0x44, 2), fd, remote}) {
    tap::ok(reader.next(&got) == CannelloniReader::Result::frame && is_same(got, frame), "cannelloni: reads it back");
  }
  tap::ok(reader.next(&got) == CannelloniReader::Result::end, "cannelloni: ends");
  for (std::size_t cut = cannelloni_header_bytes; cut < at; ++cut) {
    tap::ok(reader.open(std::span(bytes).first(cut)), "cannelloni: cut at " + std::to_string(cut));
    CannelloniReader::Result result;
    while ((result = reader.next(&got)) == CannelloniReader::Result::frame) continue;
    tap::ok(result == CannelloniReader::Result::malformed, "cannelloni: is malformed");
    tap::ok(reader.next(&got) == CannelloniReader::Result::end, "cannelloni: and ends there");
  }
  bytes[0] = 1;
  tap::ok(!reader.open(std::span(bytes).first(at)), "cannelloni: another version is refused");
}

BusIo receive_within_a_second(Bus& bus, BusFrame* got) {
  for (int i = 0; i < 10; ++i) {
    const BusIo result = bus.receive(got, 99);
    if (result != BusIo::empty) return result;
    pollfd waiting{bus.descriptor(), POLLIN, 0};
    ::poll(&waiting, 1, 100);
  }
  return BusIo::empty;
}

void test_udp() {
  CannelloniBus a({.local_port = 0, .remote_port = 0}), b({.local_port = 0, .remote_port = 0});
  tap::ok(a.open().ok() && b.open().ok(), "cannelloni over UDP: both bind a free port of the loopback");
  tap::ok(a.set_remote("127.0.0.1", b.local_port()).ok() && b.set_remote("127.0.0.1", a.local_port()).ok(),
          "cannelloni over UDP: and know each other");
  pm_can_frame fd = counted_frame(0x1234567, 64);
  fd.is_extended = fd.is_fd = fd.is_bit_rate_switched = true;
  for (const pm_can_frame& frame : {counted_frame(0x11, 8), counted_frame(0x12, 0), fd}) {
    tap::ok(a.send(frame, 0) == BusIo::ok, "cannelloni over UDP: sends");
    BusFrame got;
    tap::ok(receive_within_a_second(b, &got) == BusIo::ok && is_same(got.frame, frame) && got.received_us == 99,
            "cannelloni over UDP: arrives");
  }
  int arrived = 0;
  BusFrame got;
  for (std::uint32_t i = 0; i < 300; ++i) {
    static_cast<void>(b.send(counted_frame(i, 8), 0));
    arrived += receive_within_a_second(a, &got) == BusIo::ok && got.frame.id == i ? 1 : 0;
  }
  tap::equal(arrived, 300, "cannelloni over UDP: 300 frames in order, past the sequence's end");
  tap::equal(a.counters().lost, std::uint64_t{0}, "cannelloni over UDP: none missed");

  // A stranger on the loopback is not heard; the peer's broken datagrams are counted.
  const int stranger = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(a.local_port());
  ::inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  std::array<std::uint8_t, 32> bytes{};
  cannelloni_write_header(0, 1, bytes);
  const std::size_t size =
      cannelloni_header_bytes +
      cannelloni_write_frame(counted_frame(0x66, 2), std::span(bytes).subspan(cannelloni_header_bytes));
  ::sendto(stranger, bytes.data(), size, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  ::close(stranger);
  static_cast<void>(b.send(counted_frame(0x67, 2), 0));
  tap::ok(receive_within_a_second(a, &got) == BusIo::ok && got.frame.id == 0x67,
          "cannelloni over UDP: strangers are unheard");
  tap::ok(::send(b.descriptor(), "nonsense", 8, 0) == 8, "cannelloni over UDP: the peer sends nonsense");
  cannelloni_write_header(50, 1, bytes);
  tap::ok(::send(b.descriptor(), bytes.data(), size, 0) > 0, "cannelloni over UDP: and then a number too high");
  tap::ok(receive_within_a_second(a, &got) == BusIo::ok && got.frame.id == 0x66, "cannelloni over UDP: goes on");
  tap::ok(a.counters().malformed == 1 && a.counters().lost > 0, "cannelloni over UDP: nonsense and gaps are counted");
  b.close();
  static_cast<void>(a.send(counted_frame(1, 1), 0));
  tap::ok(a.receive(&got, 0) == BusIo::empty && a.is_open(), "cannelloni over UDP: a peer that is gone is no crash");
}

void test_errors() {
  CannelloniBus wrong({.local_address = "localhost"});
  const Status status = wrong.open();
  tap::ok(std::string(status.code) == "ARGUMENT_INVALID" && status.found == "localhost",
          "cannelloni: an address is needed");
  CannelloniBus first({.local_port = 0, .remote_port = 9});
  tap::ok(first.open().ok(), "cannelloni: opens with a peer");
  CannelloniBus second({.local_port = first.local_port(), .remote_port = 9});
  const Status taken = second.open();
  tap::note(taken.message);
  tap::equal(std::string(taken.code), std::string("CAN_OPEN"), "cannelloni: a taken port is an error");
}

}  // namespace

int main() {
  test_codec();
  test_udp();
  test_errors();
  return tap::finish();
}
