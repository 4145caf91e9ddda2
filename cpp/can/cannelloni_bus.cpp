// The UDP socket behind the cannelloni codec.
#include "can/cannelloni_bus.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace premotor::can {
namespace {

constexpr int datagrams_per_call_max = 64;

Status parse_address(const std::string& address, std::uint16_t port, sockaddr_in* out) {
  *out = {};
  out->sin_family = AF_INET;
  out->sin_port = htons(port);
  if (::inet_pton(AF_INET, address.c_str(), &out->sin_addr) == 1) return Status::good();
  Status status = Status::error("ARGUMENT_INVALID", "cannelloni: expected an IPv4 address, found \"" + address + '"');
  status.expected = "an IPv4 address";
  status.found = address;
  return status;
}

}  // namespace

CannelloniBus::CannelloniBus(CannelloniOptions options) : options_(std::move(options)), waiting_(options_.stale_us) {}

std::string CannelloniBus::name() const {
  return "cannelloni " + options_.remote_address + ':' + std::to_string(options_.remote_port);
}

Status CannelloniBus::problem() const {
  if (last_errno_ == 0) return Status::good();
  const char* remedy = last_errno_ == ECONNREFUSED ? "; start cannelloni on the other side" : "; check the network";
  return Status::error("CAN_IO", name() + ": " + std::strerror(last_errno_) + remedy);
}

Status CannelloniBus::open() {
  if (fd_.is_open()) return Status::good();
  sockaddr_in local{};
  PREMOTOR_TRY(parse_address(options_.local_address, options_.local_port, &local));
  FileDescriptor fd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  socklen_t bytes = sizeof local;
  if (!fd.is_open() || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&local), bytes) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&local), &bytes) != 0) {
    const int error = errno;
    return Status::error("CAN_OPEN", "cannelloni: cannot bind " + options_.local_address + ':' +
                                         std::to_string(options_.local_port) + ": " + std::strerror(error) +
                                         "; choose a free port and an address of this machine");
  }
  fd_ = std::move(fd);
  bound_port_ = ntohs(local.sin_port);
  next_sequence_ = 0;
  expected_sequence_ = -1;
  is_reading_ = false;
  last_errno_ = 0;
  if (options_.remote_port == 0) return Status::good();  // set_remote follows
  const Status status = set_remote(options_.remote_address, options_.remote_port);
  if (!status.ok()) fd_.reset();
  return status;
}

// Connected, so that the kernel drops what other senders send.
Status CannelloniBus::set_remote(const std::string& address, std::uint16_t port) {
  sockaddr_in remote{};
  PREMOTOR_TRY(parse_address(address, port, &remote));
  if (!fd_.is_open() || ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&remote), sizeof remote) != 0) {
    const int error = fd_.is_open() ? errno : EBADF;
    return Status::error(
        "CAN_OPEN", "cannelloni: cannot reach " + address + ':' + std::to_string(port) + ": " + std::strerror(error));
  }
  options_.remote_address = address;
  options_.remote_port = port;
  return Status::good();
}

void CannelloniBus::close() {
  if (!fd_.is_open()) return;
  counters_.dropped_stale += waiting_.clear();
  fd_.reset();
}

BusIo CannelloniBus::write_datagram(const pm_can_frame& frame, std::int64_t now_us) {
  std::array<std::uint8_t, cannelloni_header_bytes + cannelloni_frame_bytes_max> packet;
  cannelloni_write_header(next_sequence_, 1, packet);
  const std::span<std::uint8_t> body = std::span(packet).subspan(cannelloni_header_bytes);
  const std::size_t bytes = cannelloni_header_bytes + cannelloni_write_frame(frame, body);
  ssize_t sent;
  // A refused connection is reported once for the datagram before: the second try is this one's own.
  for (int tries = 0; (sent = ::send(fd_.get(), packet.data(), bytes, MSG_NOSIGNAL)) < 0 && tries < 2; ++tries) {
    if (errno != EINTR && errno != ECONNREFUSED) break;
    if (errno == ECONNREFUSED) last_errno_ = errno;
  }
  if (sent == static_cast<ssize_t>(bytes)) {
    ++next_sequence_;
    note_sent(frame, now_us);
    return BusIo::ok;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return BusIo::queued;
  last_errno_ = errno;
  ++counters_.errors;
  return BusIo::failed;
}

BusIo CannelloniBus::flush(std::int64_t now_us) {
  counters_.dropped_stale += waiting_.drop_stale(now_us);
  while (!waiting_.is_empty()) {
    const BusIo result = write_datagram(waiting_.front(), now_us);
    if (result != BusIo::ok) return result;
    waiting_.pop();
  }
  return BusIo::ok;
}

BusIo CannelloniBus::send_frame(const pm_can_frame& frame, std::int64_t now_us) {
  BusIo result = flush(now_us);
  if (result == BusIo::ok) result = write_datagram(frame, now_us);
  if (result == BusIo::queued) counters_.dropped_stale += waiting_.push(frame, now_us);
  return result;
}

// A gap in the numbers is lost datagrams; a number from before is one that came late.
void CannelloniBus::note_sequence(std::uint8_t sequence) {
  const auto gap = static_cast<std::uint8_t>(sequence - expected_sequence_);
  if (expected_sequence_ >= 0 && gap != 0 && gap < 128) counters_.lost += gap;
  expected_sequence_ = static_cast<std::uint8_t>(sequence + 1);
}

BusIo CannelloniBus::receive_frame(BusFrame* out, std::int64_t now_us) {
  if (!waiting_.is_empty()) flush(now_us);
  // Bounded, so that a flood of broken datagrams cannot keep the caller here.
  for (int datagrams = 0; datagrams < datagrams_per_call_max; ++datagrams) {
    while (is_reading_) {
      *out = {};
      const CannelloniReader::Result result = reader_.next(&out->frame);
      if (result == CannelloniReader::Result::frame) {
        out->received_us = now_us;
        return BusIo::ok;
      }
      if (result == CannelloniReader::Result::error_frame) ++counters_.errors;
      if (result == CannelloniReader::Result::malformed) ++counters_.malformed;
      is_reading_ = result == CannelloniReader::Result::error_frame;
    }
    const ssize_t got = ::recv(fd_.get(), datagram_.data(), datagram_.size(), 0);
    if (got >= 0) {
      is_reading_ = reader_.open(std::span(datagram_).first(static_cast<std::size_t>(got)));
      if (is_reading_) {
        note_sequence(reader_.sequence());
      } else {
        ++counters_.malformed;
      }
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return BusIo::empty;
    last_errno_ = errno;
    ++counters_.errors;
    // The peer is not there (yet): nothing to receive, and no reason to give up.
    return errno == ECONNREFUSED ? BusIo::empty : BusIo::failed;
  }
  return BusIo::empty;
}

}  // namespace premotor::can
