// Random frames and bytes into every decoder, session and simulated drive, in every build: the libFuzzer target's
// checks without clang. PREMOTOR_CAN_FUZZ_FRAMES raises the number of frames; the seed is printed and
// PREMOTOR_CAN_FUZZ_SEED sets it.
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "../fuzz/can_targets.h"
#include "tap.h"

namespace {

constexpr std::uint64_t frames_default = 900'000;

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// xorshift64: the standard generators would take most of the time.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed | 1) {}
  std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>((next() >> 16) % bound); }

 private:
  std::uint64_t state_;
};

// Half of the frames go to identifiers that somebody listens to, and some bytes are ones that mean something.
pm_can_frame random_frame(Random* random) {
  static constexpr std::uint32_t ids[] = {0x001, 0x011, 0x7ff, 0x000, 0x080, 0x085, 0x185, 0x205,
                                          0x585, 0x605, 0x705, 0x77f, 0x0a1, 0x0a0, 0x0a9, 0x0a5};
  static constexpr std::uint8_t bytes[] = {0x33, 0x55, 21,   22,   23,   9,    10, 0x0f,
                                           0x07, 0x06, 0x80, 0x60, 0x40, 0x11, 1,  0};
  pm_can_frame frame{};
  const std::uint64_t flags = random->next() >> 16;
  frame.is_extended = flags % 64 == 0;
  frame.is_remote = (flags >> 8) % 32 == 0;
  frame.id = random->below(frame.is_extended ? 0x20000000u : 0x800u);
  if ((flags >> 16) % 2 == 0) frame.id = ids[random->below(16)];
  frame.data_bytes = static_cast<std::uint8_t>((flags >> 24) % 4 == 0 ? random->below(9) : 8);
  if (frame.id >> 7 == 3 || frame.id == 0x205) frame.data_bytes = 6;
  const std::uint64_t data = random->next();
  std::memcpy(frame.data, &data, 8);
  for (int i = 0; i < 3; ++i) {
    if ((flags >> (28 + i)) % 2 == 0) frame.data[random->below(8)] = bytes[random->below(16)];
  }
  return frame;
}

// The rare frame that rightly ends a session's waiting must not pass as garbage: feedback that says enabled is allowed,
// for a session asks for three matching ranges first.
void test_frames(std::uint64_t frames, std::uint64_t seed) {
  Random random(seed);
  can_fuzz::Fleet fleet;
  std::string violated;
  std::uint64_t fed = 0;
  for (; fed < frames && violated.empty(); ++fed) {
    const pm_can_frame frame = random_frame(&random);
    violated = can_fuzz::check_decoders(frame);
    if (violated.empty() && fed % 4 == 0) violated = fleet.feed(frame, true);
  }
  tap::note(std::to_string(fed * can_fuzz::decoders_per_frame) + " decoder calls, " + std::to_string(fed / 4) +
            " frames into each session and drive, seed " + std::to_string(seed));
  tap::ok(violated.empty(), "random frames: " + (violated.empty() ? std::string("all properties hold") : violated));
}

// Fresh drives that nobody enables, each under a short storm without the frames that enable: none moves.
void test_never_enabled(std::uint64_t seed) {
  Random random(seed + 1);
  std::string violated;
  int storms = 0;
  for (; storms < 400 && violated.empty(); ++storms) {
    can_fuzz::Fleet fleet;
    for (int i = 0; i < 100 && violated.empty(); ++i) violated = fleet.feed(random_frame(&random), true);
  }
  tap::ok(violated.empty(), std::to_string(storms) + " storms on fresh drives: " +
                                (violated.empty() ? std::string("nothing moves unless enabled") : violated));
}

void test_streams(std::uint64_t seed) {
  Random random(seed + 2);
  std::string violated;
  static constexpr char alphabet[] = "tTrR0123456789ABCDEF\r\r\azZFVN()#. vcan";
  for (int i = 0; i < 60000 && violated.empty(); ++i) {
    std::vector<std::uint8_t> bytes(random.below(100));
    for (std::uint8_t& byte : bytes) {
      byte = static_cast<std::uint8_t>(i % 2 == 0 ? alphabet[random.below(sizeof alphabet - 1)] : random.below(256));
    }
    if (i % 3 == 0 && bytes.size() > 5) bytes[0] = 2, bytes[1] = 0, bytes[3] = 0;  // a cannelloni header
    violated = can_fuzz::check_streams(bytes);
  }
  tap::ok(violated.empty(), "random bytes: " + (violated.empty() ? std::string("all properties hold") : violated));
}

}  // namespace

int main() {
  const std::uint64_t seed = setting("PREMOTOR_CAN_FUZZ_SEED", 20261124);
  test_frames(setting("PREMOTOR_CAN_FUZZ_FRAMES", frames_default), seed);
  test_never_enabled(seed);
  test_streams(seed);
  return tap::finish();
}
