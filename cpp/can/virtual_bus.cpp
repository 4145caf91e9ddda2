// Delivery and faults of the in-process bus.
#include "can/virtual_bus.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace premotor::can {

// The receiving half holds what arrived until its owner asks; when full the newest is dropped, as a controller does.
class VirtualEndpoint final : public Bus {
 public:
  static constexpr std::size_t inbox_max = 1024;  // frames

  VirtualEndpoint(VirtualWire* wire, std::size_t index, std::string name)
      : wire_(wire), index_(index), name_(std::move(name)), inbox_(inbox_max) {}
  ~VirtualEndpoint() override { wire_->endpoints_[index_] = nullptr; }

  Status open() override {
    is_open_ = true;
    return Status::good();
  }
  void close() override {
    is_open_ = false;
    head_ = count_ = 0;
  }
  [[nodiscard]] bool is_open() const override { return is_open_; }
  [[nodiscard]] std::string name() const override { return wire_->name_ + ":" + name_; }
  [[nodiscard]] Status problem() const override {
    if (!is_off_) return Status::good();
    return Status::error("CAN_BUS_OFF", name() + " is off the bus (injected fault): call recover() to go on");
  }
  Status recover() override {
    is_off_ = false;
    return Status::good();
  }

  void go_off() {
    if (!is_off_) ++counters_.bus_off;
    is_off_ = true;
    head_ = count_ = 0;
  }

  void deliver(const pm_can_frame& frame) {
    if (!is_open_ || is_off_) return;
    if (count_ == inbox_max) {
      ++counters_.dropped_full;
      return;
    }
    inbox_[(head_ + count_++) % inbox_max] = frame;
  }

 protected:
  BusIo send_frame(const pm_can_frame& frame, std::int64_t now_us) override {
    if (is_off_) return BusIo::bus_off;
    wire_->transmit(index_, frame, now_us);
    note_sent(frame, now_us);
    return BusIo::ok;
  }

  BusIo receive_frame(BusFrame* out, std::int64_t now_us) override {
    wire_->advance(now_us);
    if (is_off_) return BusIo::bus_off;
    if (count_ == 0) return BusIo::empty;
    *out = {inbox_[head_], now_us, false};
    head_ = (head_ + 1) % inbox_max;
    --count_;
    return BusIo::ok;
  }

 private:
  VirtualWire* wire_;
  std::size_t index_;
  std::string name_;
  std::vector<pm_can_frame> inbox_;
  std::size_t head_ = 0, count_ = 0;
  bool is_open_ = false, is_off_ = false;
};

namespace {

// The heap's order: the earliest frame on top.
struct Later {
  template <typename T>
  bool operator()(const T& a, const T& b) const {
    return a.due_us != b.due_us ? a.due_us > b.due_us : a.sequence > b.sequence;
  }
};

}  // namespace

VirtualWire::VirtualWire(std::string name) : name_(std::move(name)) { in_flight_.reserve(in_flight_max); }

VirtualWire::~VirtualWire() {
  // An endpoint that outlives its wire would send into freed memory.
  assert(std::all_of(endpoints_.begin(), endpoints_.end(), [](const VirtualEndpoint* one) { return one == nullptr; }));
}

std::unique_ptr<Bus> VirtualWire::endpoint(std::string name) {
  assert(endpoint_count_ < endpoints_max);
  auto made = std::make_unique<VirtualEndpoint>(this, endpoint_count_, std::move(name));
  endpoints_[endpoint_count_++] = made.get();
  return made;
}

void VirtualWire::set_faults(const WireFaults& faults) {
  faults_ = faults;
  random_state_ = faults.seed | 1;  // xorshift stands still at zero
}

void VirtualWire::force_bus_off(Bus* endpoint) {
  for (VirtualEndpoint* one : endpoints_) {
    if (one != nullptr && one == endpoint) one->go_off();
  }
}

std::uint64_t VirtualWire::random() {
  random_state_ ^= random_state_ << 13;
  random_state_ ^= random_state_ >> 7;
  random_state_ ^= random_state_ << 17;
  return random_state_;
}

bool VirtualWire::chance(std::uint32_t permille) { return permille > 0 && (random() >> 16) % 1000 < permille; }

void VirtualWire::launch(std::size_t receiver, const pm_can_frame& frame, std::int64_t due_us) {
  if (in_flight_.size() == in_flight_max) {
    ++dropped_;
    return;
  }
  in_flight_.push_back({due_us, sequence_++, receiver, frame});
  std::push_heap(in_flight_.begin(), in_flight_.end(), Later{});
}

void VirtualWire::transmit(std::size_t sender, const pm_can_frame& frame, std::int64_t now_us) {
  for (std::size_t i = 0; i < endpoint_count_; ++i) {
    if (i == sender || endpoints_[i] == nullptr) continue;
    if (chance(faults_.drop_permille)) {
      ++dropped_;
      continue;
    }
    pm_can_frame sent = frame;
    if (sent.data_bytes > 0 && chance(faults_.corrupt_permille)) {
      const std::uint64_t bit = (random() >> 16) % (8u * sent.data_bytes);
      sent.data[bit / 8] = static_cast<std::uint8_t>(sent.data[bit / 8] ^ (1u << (bit % 8)));
      ++corrupted_;
    }
    std::int64_t due_us = now_us + faults_.delay_us;
    if (faults_.reorder_us > 0 && chance(faults_.reorder_permille)) {
      due_us += 1 + static_cast<std::int64_t>((random() >> 16) % static_cast<std::uint64_t>(faults_.reorder_us));
      ++reordered_;
    }
    launch(i, sent, due_us);
    if (chance(faults_.duplicate_permille)) {
      launch(i, sent, due_us);
      ++duplicated_;
    }
  }
}

void VirtualWire::advance(std::int64_t now_us) {
  while (!in_flight_.empty() && in_flight_.front().due_us <= now_us) {
    std::pop_heap(in_flight_.begin(), in_flight_.end(), Later{});
    const InFlight& arrived = in_flight_.back();
    if (endpoints_[arrived.receiver] != nullptr) endpoints_[arrived.receiver]->deliver(arrived.frame);
    in_flight_.pop_back();
  }
}

}  // namespace premotor::can
