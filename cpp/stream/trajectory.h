// Position of every joint at any time, from chunks of knots: twice continuously differentiable inside a chunk and where
// a new chunk takes over. It bends to no limit (limiter.h does); it says when no chunk covers a time.
//
// Between knots runs a quintic that has the positions, velocities and accelerations of both ends, those of a knot being
// the central differences of its neighbours; from the splice, one that starts with the state that the robot is
// commanded then. Equations and sources: docs/STREAM.md.
#pragma once

#include <array>
#include <cstdint>

#include "stream/motion.h"
#include "stream/timeline.h"

namespace premotor::stream {

enum class Splice : std::uint8_t {
  done,
  stale,  // the chunk ends before it could be joined
  jump,   // from here no knot of the chunk is in reach, or only outside the range
  full,   // kPathsMax chunks wait for their splice already
};

class Trajectory {
 public:
  static constexpr int kPathsMax = 4;

  void open(const JointLimits* limits, int joints);
  void clear() { count_ = 0; }

  // From splice_ns on, the knots of `chunk` (checked by the caller) replace every path. `from` is the state of each
  // joint at splice_ns: of at(), or what is commanded. Nothing changes unless the result is done.
  Splice splice(const Chunk& chunk, std::int64_t splice_ns, const MotionState* from);

  // Forgets the paths that a later one has replaced by `time_ns`.
  void forget_before(std::int64_t time_ns);

  // Is there a path in charge at this time? After its last knot there is none.
  [[nodiscard]] bool covers(std::int64_t time_ns) const;
  // The end of the newest path: its last knot. Some path exists.
  [[nodiscard]] std::int64_t end_ns() const;
  // The chunk of the newest path. Some path exists.
  [[nodiscard]] const Chunk& newest() const { return paths_[static_cast<std::size_t>(count_ - 1)].chunk; }
  // The path in charge, its last state after its end. Some path begins before `time_ns`.
  [[nodiscard]] MotionState at(std::int64_t time_ns, int joint) const;
  // The chunk in charge, nullptr before every splice.
  [[nodiscard]] const ChunkHeader* in_charge(std::int64_t time_ns) const;

 private:
  struct Path {
    std::int64_t splice_ns = 0;
    std::array<MotionState, kJointsMax> from{};
    std::array<int, kJointsMax> join{};  // the knot that each joint's first quintic leads to
    Chunk chunk;
  };

  [[nodiscard]] const Path* path_at(std::int64_t time_ns) const;
  [[nodiscard]] int join_of(const Path& path, int joint, int first) const;

  int joints_ = 0;
  int count_ = 0;
  std::array<JointLimits, kJointsMax> limits_{};
  std::array<Path, kPathsMax> paths_{};  // by splice_ns
  Path candidate_;                       // filled before it replaces anything
};

}  // namespace premotor::stream
