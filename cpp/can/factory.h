// The one place that turns a choice into an object: a bus by its address, a drive session or a simulated drive by its
// options' type. Everything else knows Bus, Drive and Device only.
#pragma once

#include <memory>
#include <string>
#include <variant>

#include "base/status.h"
#include "can/bus.h"
#include "can/cia402_device.h"
#include "can/cia402_drive.h"
#include "can/damiao_device.h"
#include "can/damiao_drive.h"
#include "can/odrive_device.h"
#include "can/odrive_drive.h"

namespace premotor::can {

// A bus that is not open yet:
//   socketcan:can0                      classic frames        socketcan-fd:can0    classic and FD frames
//   slcan:/dev/ttyACM0                  1 Mbit/s
//   cannelloni:20000:192.0.2.1:20001    local port, the peer's address and port; bound to 127.0.0.1 when the peer is
//                                       there, else to all addresses
// Errors: ARGUMENT_INVALID. A virtual bus has no address: it is made by its wire.
Status make_bus(const std::string& address, std::unique_ptr<Bus>* out);

using AnyDriveOptions = std::variant<DamiaoOptions, OdriveOptions, Cia402Options>;
std::unique_ptr<Drive> make_drive(const AnyDriveOptions& options);

using AnyDeviceOptions = std::variant<DamiaoDeviceOptions, OdriveDeviceOptions, Cia402DeviceOptions>;
std::unique_ptr<Device> make_device(const AnyDeviceOptions& options);

}  // namespace premotor::can
