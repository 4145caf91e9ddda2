// How long the CAN layer's share of a control period takes: codecs alone, and two arms of seven drives each with their
// simulated motors on a captured virtual bus. Verifies that every drive came up and followed before it prints a figure.
// Usage: can_sessions [--tiny]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "can/candump_log.h"
#include "can/factory.h"
#include "can/virtual_bus.h"

using namespace premotor;
using namespace premotor::can;

namespace {

constexpr std::size_t drives_count = 14;
constexpr std::int64_t period_us = 1000;
constexpr pm_damiao_range range = {12.5f, 8, 28};

double now_us_of_wall() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

void print_spread(const char* name, std::vector<double> values, const char* unit) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) { return values[static_cast<std::size_t>(share * double(values.size() - 1))]; };
  std::printf("%-46s p50 %8.3f  p99 %8.3f  max %8.3f %s\n", name, at(0.5), at(0.99), at(1), unit);
}

void bench_codec(int rounds) {
  std::vector<double> each_ns;
  std::uint32_t hash = 0;
  for (int round = 0; round < rounds; ++round) {
    const double began = now_us_of_wall();
    for (int i = 0; i < 1000; ++i) {
      const float part = static_cast<float>(i) * 1e-3f;
      const pm_damiao_command command = {part, part, 60 * part, part, part};
      pm_can_frame frame{};
      pm_damiao_request request{};
      pm_damiao_encode_command(1, &range, &command, &frame, nullptr);
      pm_damiao_decode_request(&frame, 1, &range, &request);
      hash = hash * 31 + frame.data[7] + static_cast<std::uint32_t>(request.kind);
    }
    each_ns.push_back(now_us_of_wall() - began);  // us for 1000 = ns for one
  }
  print_spread("Damiao command, encode and decode", each_ns, "ns");
  std::printf("hash of the frames %08x\n", hash);
}

struct Arm {
  VirtualWire wire;
  std::unique_ptr<Bus> host = wire.endpoint("host"), motors = wire.endpoint("motors");
  CaptureRingDropNewest log{"virtual0", 1024};
  std::vector<std::unique_ptr<Drive>> drives;
  std::vector<std::unique_ptr<Device>> devices;
  std::int64_t now_us = 0;
  double host_us = 0;  // wall time of the last period's host side

  Arm() {
    static_cast<void>(host->open());
    static_cast<void>(motors->open());
    host->set_capture(&log);
    for (std::size_t i = 0; i < drives_count; ++i) {
      DamiaoOptions options;
      options.motor_id = static_cast<std::uint16_t>(1 + i);
      options.master_id = static_cast<std::uint16_t>(0x21 + i);
      options.range = range;
      drives.push_back(make_drive(options));
      devices.push_back(make_device(DamiaoDeviceOptions{options.motor_id, options.master_id, range, 1, 0, 0.2f}));
    }
  }

  void send(Bus& bus, const FrameBatch& batch) const {
    for (std::size_t i = 0; i < batch.count; ++i) static_cast<void>(bus.send(batch.frames[i], now_us));
  }

  void step(float target_rad) {
    now_us += period_us;
    BusFrame got;
    const double began = now_us_of_wall();
    while (host->receive(&got, now_us) == BusIo::ok) {
      for (const auto& drive : drives) {
        if (drive->accept(got.frame, now_us)) break;
      }
    }
    for (const auto& drive : drives) {
      static_cast<void>(drive->set_setpoint({target_rad, 0, 0, 60, 2}, now_us));
      FrameBatch out;
      drive->step(now_us, &out);
      send(*host, out);
    }
    host_us = now_us_of_wall() - began;
    while (motors->receive(&got, now_us) == BusIo::ok) {
      for (const auto& device : devices) {
        FrameBatch out;
        device->accept(got.frame, now_us, &out);
        send(*motors, out);
      }
    }
    FrameBatch out;
    for (const auto& device : devices) {
      out.clear();
      device->step(now_us, &out);
      send(*motors, out);
    }
  }
};

bool bench_arms(int periods) {
  Arm arm;
  for (const auto& drive : arm.drives) {
    if (!drive->start(0).ok()) return false;
  }
  std::vector<double> host_us;
  std::string text;
  for (int i = 0; i < 100; ++i) {
    arm.step(0.2f);
    static_cast<void>(arm.log.drain(&text));
  }
  for (int i = 0; i < periods; ++i) {
    const float phase = std::min(1.0f, static_cast<float>(i) * 1e-3f);
    arm.step(0.2f + 0.3f * phase);
    host_us.push_back(arm.host_us);
    text.clear();
    static_cast<void>(arm.log.drain(&text));
  }
  for (std::size_t i = 0; i < drives_count; ++i) {
    const float expected_rad = 0.2f + 0.3f * std::min(1.0f, static_cast<float>(periods - 1) * 1e-3f);
    if (arm.drives[i]->state() != DriveState::enabled) return false;
    if (std::abs(arm.devices[i]->axis().position_rad - expected_rad) > 0.1f) return false;
  }
  print_spread("host side of one period, 14 Damiao drives", host_us, "us");
  std::printf("%llu frames sent, %llu received, %llu missing in the log\n",
              static_cast<unsigned long long>(arm.host->counters().sent),
              static_cast<unsigned long long>(arm.host->counters().received),
              static_cast<unsigned long long>(arm.log.dropped()));
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool is_tiny = argc > 1 && std::strcmp(argv[1], "--tiny") == 0;
  bench_codec(is_tiny ? 10 : 2000);
  if (bench_arms(is_tiny ? 200 : 5000)) return 0;
  std::printf("FAILED: a drive did not come up or did not follow\n");
  return 1;
}
