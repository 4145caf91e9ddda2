// What the motors did, once per cycle, for whoever records or shows it: one writer, the loop; one reader, who takes
// what came since it last looked. Plain data of fixed size, so that it lies in shared memory as well as on a heap.
// Overflow: the oldest is lost, and the reader counts it; the writer never waits and never reads back.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "motion/motion.h"
#include "motion/seqlock.h"

namespace premotor::motion {

inline constexpr int kSamplesMax = 2048;  // two seconds of a supervisor that looks elsewhere, at 1 kHz

struct MotionSample {
  std::int64_t time_ns = 0;        // of the cycle
  std::int64_t measured_ns = -1;   // when the feedback came, -1 before the first
  std::uint32_t has_setpoint = 0;  // 0: the stream told the joints nothing
  std::uint32_t valid = 0;         // bit per axis: it reported to the bridge in the last 50 ms
  std::array<double, stream::kJointsMax> setpoint_rad{};
  std::array<double, PM_AXES_MAX> position_rad{};
  std::array<double, PM_AXES_MAX> velocity_rad_s{};
};

inline MotionSample sample_of(const MotionStatus& status) {
  const LinkMeasured& measured = status.measured;
  const bool is_measured = measured.received_us >= 0;
  return {status.time_ns,
          is_measured ? measured.received_us * 1000 : -1,
          status.setpoints.is_valid ? 1u : 0u,
          is_measured ? measured.valid : 0u,
          status.setpoints.position,
          measured.position_rad,
          measured.velocity_rad_s};
}

// All zero is empty.
struct SampleRing {
  alignas(64) std::atomic<std::uint64_t> written;
  alignas(64) std::array<Seqlock<MotionSample>, kSamplesMax> samples;
};

class SampleWriter {
 public:
  void put(SampleRing* ring, const MotionSample& sample) {
    ring->samples[written_ % kSamplesMax].store(sample);
    ring->written.store(++written_, std::memory_order_release);
  }

 private:
  std::uint64_t written_ = 0;
};

class SampleReader {
 public:
  // What was written before is not this reader's, and not lost either.
  void begin(const SampleRing& ring) { read_ = ring.written.load(std::memory_order_acquire); }

  // The oldest one that was not taken yet; false when there is none.
  [[nodiscard]] bool next(const SampleRing& ring, MotionSample* out) {
    const std::uint64_t written = ring.written.load(std::memory_order_acquire);
    const std::uint64_t oldest = written > kSamplesMax ? written - kSamplesMax : 0;
    if (read_ < oldest || read_ > written) {
      lost_ += read_ < oldest ? oldest - read_ : 0;
      read_ = oldest;
    }
    // At most a ring's length of tries, because each moves on.
    while (read_ < written) {
      const std::uint64_t at = read_++;
      std::uint64_t version = 0;
      if (ring.samples[at % kSamplesMax].load(out, &version) && version == 2 * (at / kSamplesMax + 1)) return true;
      ++lost_;
    }
    return false;
  }

  [[nodiscard]] std::uint64_t lost() const { return lost_; }

 private:
  std::uint64_t read_ = 0;
  std::uint64_t lost_ = 0;
};

}  // namespace premotor::motion
