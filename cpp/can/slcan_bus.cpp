// The serial port behind the Lawicel codec: non-blocking reads and writes, with partial writes finished first.
#include "can/slcan_bus.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

namespace premotor::can {
namespace {

constexpr int reads_per_call_max = 4;

struct Baud {
  int rate;
  speed_t code;
};
constexpr Baud bauds[] = {{9600, B9600},     {19200, B19200},     {38400, B38400},     {57600, B57600},
                          {115200, B115200}, {230400, B230400},   {460800, B460800},   {500000, B500000},
                          {921600, B921600}, {1000000, B1000000}, {2000000, B2000000}, {3000000, B3000000}};

Status open_error(const std::string& what, int error) {
  const bool is_missing = error == ENOENT || error == ENODEV || error == ENXIO;
  std::string message = what + ": " + std::strerror(error);
  if (is_missing) message += "; connect the adapter, or correct the device's path";
  if (error == EACCES) message += "; add this user to the group that owns the device (often dialout)";
  Status status = Status::error(is_missing ? "CAN_DEVICE_MISSING" : "CAN_OPEN", message);
  status.found = std::strerror(error);
  return status;
}

// No echo, no line editing, no translation of CR; reads return at once.
bool make_raw(int fd, speed_t speed) {
  termios settings{};
  if (::tcgetattr(fd, &settings) != 0) return false;
  ::cfmakeraw(&settings);
  settings.c_cflag |= CLOCAL | CREAD;
  settings.c_cc[VMIN] = 0;
  settings.c_cc[VTIME] = 0;
  if (speed != B0 && ::cfsetspeed(&settings, speed) != 0) return false;
  return ::tcsetattr(fd, TCSANOW, &settings) == 0;
}

}  // namespace

SlcanBus::SlcanBus(SlcanOptions options) : options_(std::move(options)), waiting_(options_.stale_us) {}

SlcanBus::~SlcanBus() { close(); }

std::string SlcanBus::name() const {
  return options_.borrowed_fd >= 0 ? "slcan (descriptor)" : "slcan " + options_.device;
}

Status SlcanBus::problem() const {
  if (last_errno_ == 0) return Status::good();
  return Status::error("CAN_IO",
                       name() + ": " + std::strerror(last_errno_) + "; check the cable, then open the bus again");
}

Status SlcanBus::open_port() {
  speed_t speed = B0;
  for (const Baud& baud : bauds) {
    if (baud.rate == options_.serial_baud) speed = baud.code;
  }
  if (options_.serial_baud != 0 && speed == B0) {
    return Status::error("ARGUMENT_INVALID", "slcan: expected a usual serial speed, found " +
                                                 std::to_string(options_.serial_baud) + " baud");
  }
  if (options_.borrowed_fd >= 0) {
    fd_ = FileDescriptor(::fcntl(options_.borrowed_fd, F_DUPFD_CLOEXEC, 0));
    if (!fd_.is_open()) return open_error(name(), errno);
    const int flags = ::fcntl(fd_.get(), F_GETFL);
    if (flags < 0 || ::fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK) != 0) return open_error(name(), errno);
    return Status::good();
  }
  fd_ = FileDescriptor(::open(options_.device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!fd_.is_open()) return open_error(name(), errno);
  if (::isatty(fd_.get()) == 1 && !make_raw(fd_.get(), speed)) return open_error(name(), errno);
  return Status::good();
}

// A lone CR first ends whatever line the adapter had begun.
Status SlcanBus::write_setup() {
  const std::string text = std::string("\rC\rS") + static_cast<char>('0' + options_.bit_rate_code) + '\r' +
                           (options_.is_listen_only ? 'L' : 'O') + '\r';
  const ssize_t written = ::write(fd_.get(), text.data(), text.size());
  if (written == static_cast<ssize_t>(text.size())) return Status::good();
  return open_error(name() + ", opening the channel", written < 0 ? errno : EAGAIN);
}

Status SlcanBus::open() {
  if (fd_.is_open()) return Status::good();
  if (options_.bit_rate_code < 0 || options_.bit_rate_code > 8) {
    return Status::error("ARGUMENT_INVALID",
                         "slcan: expected a bit rate code of 0 to 8, found " + std::to_string(options_.bit_rate_code));
  }
  Status status = open_port();
  if (status.ok()) status = write_setup();
  if (!status.ok()) fd_.reset();
  parser_.reset();
  partial_bytes_ = partial_at_ = input_bytes_ = input_at_ = 0;
  last_errno_ = 0;
  return status;
}

void SlcanBus::close() {
  if (!fd_.is_open()) return;
  counters_.dropped_stale += waiting_.clear();
  // The channel is closed as well as can be: a port that takes no byte now is lost anyway.
  if (write_rest() && ::write(fd_.get(), "C\r", 2) != 2) ++counters_.errors;
  fd_.reset();
}

// True when no frame is half written any more.
bool SlcanBus::write_rest() {
  while (partial_at_ < partial_bytes_) {
    const ssize_t written = ::write(fd_.get(), partial_.data() + partial_at_, partial_bytes_ - partial_at_);
    if (written > 0) {
      partial_at_ += static_cast<std::size_t>(written);
      continue;
    }
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
      last_errno_ = errno;
      ++counters_.errors;
    }
    return false;
  }
  return true;
}

// The frame counts as sent once its first byte is out: it can no longer be replaced by a newer one.
BusIo SlcanBus::start_frame(const pm_can_frame& frame, std::int64_t now_us) {
  const std::uint64_t errors = counters_.errors;
  partial_bytes_ = slcan_encode(frame, partial_);
  partial_at_ = 0;
  if (!write_rest() && partial_at_ == 0) {
    partial_bytes_ = 0;
    return counters_.errors > errors ? BusIo::failed : BusIo::queued;
  }
  note_sent(frame, now_us);
  return BusIo::ok;
}

BusIo SlcanBus::flush(std::int64_t now_us) {
  const std::uint64_t errors = counters_.errors;
  counters_.dropped_stale += waiting_.drop_stale(now_us);
  if (!write_rest()) return counters_.errors > errors ? BusIo::failed : BusIo::queued;
  while (!waiting_.is_empty()) {
    const BusIo result = start_frame(waiting_.front(), now_us);
    if (result != BusIo::ok) return result;
    waiting_.pop();
    if (partial_at_ < partial_bytes_) return BusIo::queued;
  }
  return BusIo::ok;
}

BusIo SlcanBus::send_frame(const pm_can_frame& frame, std::int64_t now_us) {
  if (frame.is_fd || options_.is_listen_only) return BusIo::refused;
  BusIo result = flush(now_us);
  if (result == BusIo::ok) result = start_frame(frame, now_us);
  if (result == BusIo::queued) counters_.dropped_stale += waiting_.push(frame, now_us);
  return result;
}

BusIo SlcanBus::receive_frame(BusFrame* out, std::int64_t now_us) {
  if (!waiting_.is_empty() || partial_at_ < partial_bytes_) flush(now_us);
  // Bounded, so that an adapter that floods the line with anything but frames cannot keep the caller here.
  for (int reads = 0; reads < reads_per_call_max; ++reads) {
    while (input_at_ < input_bytes_) {
      switch (parser_.push(input_[input_at_++])) {
        case SlcanEvent::frame:
          *out = {parser_.frame(), now_us, false};
          return BusIo::ok;
        case SlcanEvent::refused:
          ++refusals_;
          break;
        case SlcanEvent::malformed:
          ++counters_.malformed;
          break;
        default:
          break;
      }
    }
    const ssize_t got = ::read(fd_.get(), input_.data(), input_.size());
    if (got > 0) {
      input_at_ = 0;
      input_bytes_ = static_cast<std::size_t>(got);
      continue;
    }
    // A raw terminal answers 0 when it has nothing; so does a closed socket, which the next write will show.
    if (got == 0 || errno == EAGAIN || errno == EWOULDBLOCK) return BusIo::empty;
    if (errno == EINTR) continue;
    last_errno_ = errno;
    ++counters_.errors;
    return BusIo::failed;
  }
  return BusIo::empty;
}

}  // namespace premotor::can
