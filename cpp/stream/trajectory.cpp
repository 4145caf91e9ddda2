#include "stream/trajectory.h"

#include <algorithm>
#include <cassert>

namespace premotor::stream {

namespace {

constexpr double kSecondsPerNs = 1e-9;

// The polynomial of degree five with given position, velocity and acceleration at both ends of [0, duration_s]
// (Biagiotti and Melchiorri, Trajectory Planning for Automatic Machines and Robots, 2008, section 2.1.4).
struct Quintic {
  std::array<double, 6> c{};  // of x = t / duration_s
  double duration_s = 1;

  Quintic(const MotionState& from, const MotionState& to, double duration) : duration_s(duration) {
    const double t = duration, tt = t * t;
    c[0] = from.position, c[1] = from.velocity * t, c[2] = from.acceleration * tt / 2;
    const double way = to.position - c[0] - c[1] - c[2];
    const double velocity = to.velocity * t - c[1] - 2 * c[2];
    const double acceleration = to.acceleration * tt - 2 * c[2];
    c[3] = 10 * way - 4 * velocity + acceleration / 2;
    c[4] = -15 * way + 7 * velocity - acceleration;
    c[5] = 6 * way - 3 * velocity + acceleration / 2;
  }

  [[nodiscard]] MotionState at(double time_s) const {
    const double x = time_s / duration_s, t = duration_s;
    return {c[0] + x * (c[1] + x * (c[2] + x * (c[3] + x * (c[4] + x * c[5])))),
            (c[1] + x * (2 * c[2] + x * (3 * c[3] + x * (4 * c[4] + x * 5 * c[5])))) / t,
            (2 * c[2] + x * (6 * c[3] + x * (12 * c[4] + x * 20 * c[5]))) / (t * t)};
  }

  [[nodiscard]] double jerk_at(double time_s) const {
    const double x = time_s / duration_s, t = duration_s;
    return (6 * c[3] + x * (24 * c[4] + x * 60 * c[5])) / (t * t * t);
  }
};

std::int64_t time_of(const ChunkHeader& header, int knot) { return header.start_ns + knot * header.knot_period_ns; }

// Central differences inside; at the ends the one difference there is, and no acceleration.
MotionState knot_state(const Chunk& chunk, int knot, int joint) {
  const auto q = [&](int k) { return chunk.knots[static_cast<std::size_t>(k)][static_cast<std::size_t>(joint)]; };
  const double h = static_cast<double>(chunk.header.knot_period_ns) * kSecondsPerNs;
  const int last = chunk.header.knot_count - 1;
  if (last == 0) return {q(0), 0, 0};
  if (knot == 0) return {q(0), (q(1) - q(0)) / h, 0};
  if (knot == last) return {q(last), (q(last) - q(last - 1)) / h, 0};
  return {q(knot), (q(knot + 1) - q(knot - 1)) / (2 * h), (q(knot + 1) - 2 * q(knot) + q(knot - 1)) / (h * h)};
}

// How a quintic keeps the limits, or at least does not go beyond what its ends already ask for.
enum class Fit : std::uint8_t {
  none,  // it leaves the range, or is faster in the mean than the joint can be
  but_for_motion,
  but_for_jerk,
  all,
};

struct Judged {
  Fit fit = Fit::none;
  double excess = 1;  // of the peak velocity or acceleration over its limit, whichever is more
};

Judged judge(const Quintic& path, const MotionState& from, const MotionState& to, const JointLimits& limits) {
  constexpr int samples = 16;
  constexpr double rounding = 1 + 1e-9;
  const double v = std::max({limits.velocity_max, std::abs(from.velocity), std::abs(to.velocity)});
  const double a = std::max({limits.acceleration_max, std::abs(from.acceleration), std::abs(to.acceleration)});
  const bool is_in_reach = std::abs(to.position - from.position) <= limits.velocity_max * path.duration_s;
  Judged result{Fit::all};
  for (int i = 0; i <= samples; ++i) {
    const double t = path.duration_s * i / samples;
    const MotionState s = path.at(t);
    if (s.position < limits.position_min || s.position > limits.position_max) return {};
    result.excess = std::max({result.excess, std::abs(s.velocity) / v, std::abs(s.acceleration) / a});
    if (std::abs(path.jerk_at(t)) > limits.jerk_max) result.fit = Fit::but_for_jerk;
  }
  if (result.excess > rounding) result.fit = is_in_reach ? Fit::but_for_motion : Fit::none;
  return result;
}

}  // namespace

void Trajectory::open(const JointLimits* limits, int joints) {
  assert(joints >= 1 && joints <= kJointsMax);
  joints_ = joints;
  std::copy(limits, limits + joints, limits_.begin());
  clear();
}

// The first knot that a quintic reaches within all limits; else the first that it reaches with too much jerk; else the
// one it reaches with the least excess of speed or acceleration; else -1. The limiter holds back what is too much: a
// chunk that comes as its predecessor ends finds the joint braking, and at full speed nothing can make up for that.
int Trajectory::join_of(const Path& path, int joint, int first) const {
  const auto j = static_cast<std::size_t>(joint);
  int best = -1;
  Judged found;
  for (int knot = first; knot < path.chunk.header.knot_count; ++knot) {
    const double duration_s = static_cast<double>(time_of(path.chunk.header, knot) - path.splice_ns) * kSecondsPerNs;
    const MotionState to = knot_state(path.chunk, knot, joint);
    const Judged judged = judge(Quintic(path.from[j], to, duration_s), path.from[j], to, limits_[j]);
    if (judged.fit == Fit::all) return knot;
    const bool is_closer = judged.fit == Fit::but_for_motion && judged.excess < found.excess;
    if (judged.fit > found.fit || (judged.fit == found.fit && is_closer)) best = knot, found = judged;
  }
  return best;
}

Splice Trajectory::splice(const Chunk& chunk, std::int64_t splice_ns, const MotionState* from) {
  const ChunkHeader& header = chunk.header;
  // A knot nearer than half a period would make the first quintic short and steep: it is passed over.
  int first = 0;
  while (first < header.knot_count && time_of(header, first) < splice_ns + header.knot_period_ns / 2) ++first;
  if (first == header.knot_count) return Splice::stale;
  candidate_.splice_ns = splice_ns;
  candidate_.chunk = chunk;
  std::copy(from, from + joints_, candidate_.from.begin());
  for (int joint = 0; joint < joints_; ++joint) {
    const int join = join_of(candidate_, joint, first);
    if (join < 0) return Splice::jump;
    candidate_.join[static_cast<std::size_t>(joint)] = join;
  }
  int kept = count_;
  while (kept > 0 && paths_[static_cast<std::size_t>(kept - 1)].splice_ns >= splice_ns) --kept;
  if (kept == kPathsMax) return Splice::full;
  paths_[static_cast<std::size_t>(kept)] = candidate_;
  count_ = kept + 1;
  return Splice::done;
}

void Trajectory::forget_before(std::int64_t time_ns) {
  int gone = 0;
  while (gone + 1 < count_ && paths_[static_cast<std::size_t>(gone + 1)].splice_ns <= time_ns) ++gone;
  if (gone == 0) return;
  std::copy(paths_.begin() + gone, paths_.begin() + count_, paths_.begin());
  count_ -= gone;
}

const Trajectory::Path* Trajectory::path_at(std::int64_t time_ns) const {
  for (int i = count_ - 1; i >= 0; --i)
    if (paths_[static_cast<std::size_t>(i)].splice_ns <= time_ns) return &paths_[static_cast<std::size_t>(i)];
  return nullptr;
}

const ChunkHeader* Trajectory::in_charge(std::int64_t time_ns) const {
  const Path* path = path_at(time_ns);
  return path == nullptr ? nullptr : &path->chunk.header;
}

std::int64_t Trajectory::end_ns() const {
  assert(count_ > 0);
  return time_of(newest().header, newest().header.knot_count - 1);
}

bool Trajectory::covers(std::int64_t time_ns) const {
  const ChunkHeader* header = in_charge(time_ns);
  return header != nullptr && time_ns <= time_of(*header, header->knot_count - 1);
}

MotionState Trajectory::at(std::int64_t time_ns, int joint) const {
  const Path* path = path_at(time_ns);
  assert(path != nullptr);
  const ChunkHeader& header = path->chunk.header;
  const auto j = static_cast<std::size_t>(joint);
  const int last = header.knot_count - 1;
  const std::int64_t now = std::min(time_ns, time_of(header, last));
  const std::int64_t joined = time_of(header, path->join[j]);
  if (now < joined) {
    const double duration_s = static_cast<double>(joined - path->splice_ns) * kSecondsPerNs;
    const Quintic first(path->from[j], knot_state(path->chunk, path->join[j], joint), duration_s);
    return first.at(static_cast<double>(now - path->splice_ns) * kSecondsPerNs);
  }
  const auto knot = static_cast<int>((now - header.start_ns) / header.knot_period_ns);
  if (knot >= last) return knot_state(path->chunk, last, joint);
  const Quintic between(knot_state(path->chunk, knot, joint), knot_state(path->chunk, knot + 1, joint),
                        static_cast<double>(header.knot_period_ns) * kSecondsPerNs);
  return between.at(static_cast<double>(now - time_of(header, knot)) * kSecondsPerNs);
}

}  // namespace premotor::stream
