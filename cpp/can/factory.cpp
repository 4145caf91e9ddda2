// Addresses of buses, and which class belongs to which options.
#include "can/factory.h"

#include <charconv>
#include <string_view>

#include "can/cannelloni_bus.h"
#include "can/slcan_bus.h"
#include "can/socketcan_bus.h"

namespace premotor::can {
namespace {

bool parse_port(std::string_view text, std::uint16_t* port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *port);
  return error == std::errc{} && end == text.data() + text.size() && *port != 0;
}

// `20000:192.0.2.1:20001`
bool parse_cannelloni(std::string_view text, CannelloniOptions* options) {
  const std::size_t first = text.find(':'), last = text.rfind(':');
  if (first == std::string_view::npos || last == first) return false;
  options->remote_address = text.substr(first + 1, last - first - 1);
  options->local_address = options->remote_address.starts_with("127.") ? "127.0.0.1" : "0.0.0.0";
  return parse_port(text.substr(0, first), &options->local_port) &&
         parse_port(text.substr(last + 1), &options->remote_port);
}

struct MakeDrive {
  std::unique_ptr<Drive> operator()(const DamiaoOptions& o) const { return std::make_unique<DamiaoDrive>(o); }
  std::unique_ptr<Drive> operator()(const OdriveOptions& o) const { return std::make_unique<OdriveDrive>(o); }
  std::unique_ptr<Drive> operator()(const Cia402Options& o) const { return std::make_unique<Cia402Drive>(o); }
};

struct MakeDevice {
  std::unique_ptr<Device> operator()(const DamiaoDeviceOptions& o) const { return std::make_unique<DamiaoDevice>(o); }
  std::unique_ptr<Device> operator()(const OdriveDeviceOptions& o) const { return std::make_unique<OdriveDevice>(o); }
  std::unique_ptr<Device> operator()(const Cia402DeviceOptions& o) const { return std::make_unique<Cia402Device>(o); }
};

}  // namespace

Status make_bus(const std::string& address, std::unique_ptr<Bus>* out) {
  const std::size_t colon = address.find(':');
  const std::string kind = address.substr(0, colon);
  const std::string rest = colon == std::string::npos ? "" : address.substr(colon + 1);
  CannelloniOptions cannelloni;
  if ((kind == "socketcan" || kind == "socketcan-fd") && !rest.empty()) {
    SocketcanOptions options;
    options.interface = rest;
    options.wants_fd = kind == "socketcan-fd";
    *out = std::make_unique<SocketcanBus>(options);
  } else if (kind == "slcan" && !rest.empty()) {
    SlcanOptions options;
    options.device = rest;
    *out = std::make_unique<SlcanBus>(options);
  } else if (kind == "cannelloni" && parse_cannelloni(rest, &cannelloni)) {
    *out = std::make_unique<CannelloniBus>(cannelloni);
  } else {
    Status status = Status::error("ARGUMENT_INVALID",
                                  "expected a CAN bus such as socketcan:can0, socketcan-fd:can0, "
                                  "slcan:/dev/ttyACM0 or cannelloni:20000:192.0.2.1:20001, found \"" +
                                      address + '"');
    status.found = address;
    return status;
  }
  return Status::good();
}

std::unique_ptr<Drive> make_drive(const AnyDriveOptions& options) { return std::visit(MakeDrive{}, options); }

std::unique_ptr<Device> make_device(const AnyDeviceOptions& options) { return std::visit(MakeDevice{}, options); }

}  // namespace premotor::can
