// The ring between whoever plans and the stream: chunks of knots at absolute times, one producer and one consumer, no
// lock. Lives in memory that the caller provides, which two processes may share: no pointer is inside.
//
// Overflow: push() refuses (the producer knows first that the stream has stopped reading); nothing is overwritten.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "stream/motion.h"

namespace premotor::stream {

inline constexpr int kKnotsMax = 128;  // per chunk: 2.56 s at 50 Hz

// Times are monotonic nanoseconds on one clock, which both sides read.
struct ChunkHeader {
  std::uint64_t sequence = 0;       // rises with every chunk; gaps are allowed
  std::uint64_t liveness = 0;       // the token of the control cycle that vouches for this plan
  std::int64_t splice_ns = 0;       // from here on this chunk replaces every earlier plan
  std::int64_t start_ns = 0;        // time of knot 0; knots before the splice are not driven
  std::int64_t deadline_ns = 0;     // no setpoint of this chunk is driven after this time
  std::int64_t knot_period_ns = 0;  // between two knots
  std::int32_t knot_count = 0;
  std::int32_t joint_count = 0;
};

struct Chunk {
  ChunkHeader header;
  std::array<std::array<double, kJointsMax>, kKnotsMax> knots{};  // [knot, joint] rad; unused entries are ignored
};

// One producer calls push(), one consumer pop(), each from one thread at a time.
class Timeline {
 public:
  static constexpr std::size_t kSlots = 8;
  static constexpr std::size_t kAlignment = 64;

  // Bytes that create() and attach() need, aligned to kAlignment.
  static std::size_t bytes();

  // Makes an empty ring of the memory. Whoever attaches must see it only afterwards.
  static Status create(void* memory, std::size_t size_bytes, Timeline* out);

  // Uses a ring that create() made, perhaps in another process. Refuses memory of another kind or layout.
  static Status attach(void* memory, std::size_t size_bytes, Timeline* out);

  // False when all slots are taken; the chunk is not stored then.
  [[nodiscard]] bool push(const Chunk& chunk);

  // The oldest chunk, by copy: false when there is none. The indices of a shared ring are checked, not trusted: a ring
  // whose producer wrote nonsense counts as empty.
  [[nodiscard]] bool pop(Chunk* out);

 private:
  struct Layout;
  Layout* layout_ = nullptr;
};

}  // namespace premotor::stream
