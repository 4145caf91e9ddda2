#include "base/datagram.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace premotor {
namespace {

Status failed(const std::string& address, const std::string& found) {
  Status status = Status::error("NOTIFY_FAILED", "The service manager cannot be told: expected a datagram socket at " +
                                                     address + ", found " + found + ". Check NOTIFY_SOCKET.");
  status.expected = "a datagram socket";
  status.found = found;
  return status;
}

}  // namespace

Status send_datagram(const std::string& address, const std::string& text) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  const bool is_abstract = !address.empty() && address[0] == '@';
  if (address.size() < 2 || (!is_abstract && address[0] != '/')) return failed(address, "neither a path nor @name");
  // A path ends with a zero byte; a name of the abstract namespace begins with one and has no end but its length.
  if (address.size() + (is_abstract ? 0 : 1) > sizeof to.sun_path) return failed(address, "too long a name");
  std::memcpy(to.sun_path, address.data(), address.size());
  if (is_abstract) to.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size() + (is_abstract ? 0 : 1));

  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return failed(address, std::strerror(errno));
  const ssize_t sent = ::sendto(socket, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                                reinterpret_cast<const sockaddr*>(&to), length);
  const int error = errno;
  ::close(socket);
  if (sent == static_cast<ssize_t>(text.size())) return Status::good();
  return failed(address, sent < 0 ? std::strerror(error) : "a message that was cut");
}

}  // namespace premotor
