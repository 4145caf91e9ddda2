// Datagrams to the service manager: to a path, to a name of the abstract namespace, and what a sender is told when
// nobody listens, when the name is none, and when the receiver is slow.
#include "base/datagram.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tap.h"

namespace {

// A receiver as the service manager is one.
class Receiver {
 public:
  explicit Receiver(const std::string& name) : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    std::memcpy(at.sun_path, name.data(), name.size());
    const bool is_abstract = name[0] == '@';
    if (is_abstract) at.sun_path[0] = '\0';
    const std::size_t length = offsetof(sockaddr_un, sun_path) + name.size() + (is_abstract ? 0 : 1);
    is_bound_ = ::bind(socket_, reinterpret_cast<const sockaddr*>(&at), static_cast<socklen_t>(length)) == 0;
  }
  ~Receiver() { ::close(socket_); }
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  [[nodiscard]] bool is_bound() const { return is_bound_; }
  // What came next; empty when nothing did.
  std::string receive() const {
    char text[4096];
    const ssize_t count = ::recv(socket_, text, sizeof text, 0);
    return count < 0 ? std::string{} : std::string(text, static_cast<std::size_t>(count));
  }

 private:
  int socket_;
  bool is_bound_ = false;
};

void reaches(const std::string& name, const char* what) {
  const Receiver receiver(name);
  tap::ok(receiver.is_bound(), std::string(what) + ": the receiver is there");
  tap::ok(premotor::send_datagram(name, "READY=1\nSTATUS=waiting").ok(), std::string(what) + ": it is sent");
  tap::equal(receiver.receive(), std::string("READY=1\nSTATUS=waiting"), std::string(what) + ": it arrives whole");
  tap::equal(receiver.receive(), std::string(), std::string(what) + ": and once");
}

void refused(const std::string& name, const char* what) {
  const premotor::Status status = premotor::send_datagram(name, "READY=1");
  tap::equal(std::string(status.code), std::string("NOTIFY_FAILED"), what);
}

}  // namespace

int main() {
  char folder[] = "/tmp/premotor-datagram-XXXXXX";
  if (!tap::ok(::mkdtemp(folder) != nullptr, "a folder")) return tap::finish();
  const std::string path = std::string(folder) + "/notify";
  const std::string name = "@premotor-datagram-" + std::to_string(::getpid());
  reaches(path, "a path");
  reaches(name, "an abstract name");
  refused(path, "a socket whose owner is gone");
  refused(name, "an abstract name that nobody has");
  refused("", "no address");
  refused("@", "a name without letters");
  refused("relative/notify", "a relative path");
  refused("/" + std::string(200, 'x'), "a path that is too long");
  ::unlink(path.c_str());
  {
    const Receiver slow(path);
    int sent = 0;
    while (sent < 100000 && premotor::send_datagram(path, "WATCHDOG=1").ok()) ++sent;
    tap::ok(sent > 0 && sent < 100000, "a receiver that does not read is an error, and blocks nobody");
    tap::note(std::to_string(sent) + " messages fitted into its queue");
  }
  ::unlink(path.c_str());
  ::rmdir(folder);
  return tap::finish();
}
