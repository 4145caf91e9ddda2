// One datagram to a Unix socket by its address: how a service tells the system's service manager how it is (sd_notify).
// It opens a socket for each message, keeps nothing, and never waits.
#pragma once

#include <string>

#include "base/status.h"

namespace premotor {

// `address`: an absolute path, or a name of the abstract namespace as "@name". NOTIFY_FAILED when nobody listens there,
// when the message does not fit or when the receiver's queue is full: the caller is never blocked by a slow one.
Status send_datagram(const std::string& address, const std::string& text);

}  // namespace premotor
