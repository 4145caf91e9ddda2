// VirtualWire: a CAN bus inside one process, deterministic, with faults on request. Every endpoint is a Bus; a frame
// that one sends reaches all others. Frames travel when somebody sends or receives and the time given has come.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "can/bus.h"

namespace premotor::can {

// Chances are per frame and receiver, in thousandths. The same seed and the same calls give the same faults.
struct WireFaults {
  std::uint32_t drop_permille = 0;
  std::uint32_t corrupt_permille = 0;    // one data bit flips: what a real CRC catches but a faulty sender does not
  std::uint32_t duplicate_permille = 0;  // arrives twice, as after a lost acknowledge bit
  std::uint32_t reorder_permille = 0;    // arrives up to reorder_us later, so others overtake it
  std::int64_t reorder_us = 2000;
  std::int64_t delay_us = 0;  // of every frame
  std::uint64_t seed = 1;
};

class VirtualWire {
 public:
  static constexpr std::size_t in_flight_max = 4096;
  static constexpr std::size_t endpoints_max = 32;

  explicit VirtualWire(std::string name = "virtual");
  ~VirtualWire();
  VirtualWire(const VirtualWire&) = delete;
  VirtualWire& operator=(const VirtualWire&) = delete;

  // A new endpoint, closed. The wire must outlive it.
  std::unique_ptr<Bus> endpoint(std::string name);
  void set_faults(const WireFaults& faults);
  // Takes one endpoint off the bus as a controller with too many errors would go.
  void force_bus_off(Bus* endpoint);

  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }
  [[nodiscard]] std::uint64_t corrupted() const { return corrupted_; }
  [[nodiscard]] std::uint64_t duplicated() const { return duplicated_; }
  [[nodiscard]] std::uint64_t reordered() const { return reordered_; }

 private:
  friend class VirtualEndpoint;
  struct InFlight {
    std::int64_t due_us;
    std::uint64_t sequence;  // keeps frames of one instant in order
    std::size_t receiver;
    pm_can_frame frame;
  };

  void transmit(std::size_t sender, const pm_can_frame& frame, std::int64_t now_us);
  void launch(std::size_t receiver, const pm_can_frame& frame, std::int64_t due_us);
  void advance(std::int64_t now_us);
  std::uint64_t random();
  bool chance(std::uint32_t permille);

  std::string name_;
  std::array<class VirtualEndpoint*, endpoints_max> endpoints_{};
  std::size_t endpoint_count_ = 0;
  std::vector<InFlight> in_flight_;  // a heap, earliest first; never grows beyond its reserve
  std::uint64_t sequence_ = 0;
  WireFaults faults_;
  std::uint64_t random_state_ = 1;
  std::uint64_t dropped_ = 0, corrupted_ = 0, duplicated_ = 0, reordered_ = 0;
};

}  // namespace premotor::can
