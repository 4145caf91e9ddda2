// Loading a backend: absent, foreign and damaged files, and one that opens: the host's machine as such a file.
#include <string>

#include "checkpoint_files.h"
#include "engine/device_library.h"
#include "tap.h"

using namespace premotor;

namespace {

Status open(const std::string& library, int ordinal, std::unique_ptr<device::Device>* out) {
  return engine::open_device(library, ordinal, out);
}

void test_files() {
  const checkpoint_files::TempFolder folder;
  std::unique_ptr<device::Device> device;
  Status status = open(folder / "absent.so", 0, &device);
  tap::equal(std::string(status.code), "DEVICE_UNAVAILABLE", "no file");
  tap::ok(status.file == folder / "absent.so" && status.message.find("build:cuda") != std::string::npos,
          "no file: named, with what to do");
  checkpoint_files::write_text(folder / "text.so", "not a library");
  status = open(folder / "text.so", 0, &device);
  tap::equal(std::string(status.code), "DEVICE_LIBRARY", "a text");
  const std::string whole = checkpoint_files::read_text(PREMOTOR_TEST_LIBRARY);
  checkpoint_files::write_text(folder / "half.so", whole.substr(0, whole.size() / 2));
  status = open(folder / "half.so", 0, &device);
  tap::equal(std::string(status.code), "DEVICE_LIBRARY", "half a library");
  tap::ok(device == nullptr, "nothing was opened");
}

void test_foreign() {
  std::unique_ptr<device::Device> device;
  const Status status = open(PREMOTOR_TEST_FOREIGN, 0, &device);
  tap::equal(std::string(status.code), "DEVICE_LIBRARY", "a library of something else");
  tap::ok(status.message.find("premotor_open_device") != std::string::npos, "says what it lacks");
}

void test_opens() {
  std::unique_ptr<device::Device> device;
  tap::equal(std::string(open(PREMOTOR_TEST_LIBRARY, 7, &device).code), "DEVICE_LIBRARY",
             "what the library says is told");
  tap::ok(open(PREMOTOR_TEST_LIBRARY, 0, &device).ok() && device != nullptr, "opens");
  if (device == nullptr) return;
  tap::equal(device->name(), "host machine", "is what it says");
  void* memory = nullptr;
  tap::ok(device->allocate(1000, &memory).ok(), "gives memory");
  std::uint32_t sent[4] = {1, 2, 3, 4}, back[4] = {};
  tap::ok(device->upload(memory, sent, sizeof sent) == device::Outcome::launched &&
              device->download(back, memory, sizeof back) == device::Outcome::launched && device->wait().ok(),
          "copies there and back");
  tap::ok(back[0] == 1 && back[3] == 4, "the same");
  device->release(memory);
}

}  // namespace

int main() {
  test_files();
  test_foreign();
  test_opens();
  return tap::finish();
}
