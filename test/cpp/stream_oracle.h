// An independent, slow search for the fastest motion to rest: bisection over cruise velocities and over the length of
// each push, brute force over sign structures. It shares no formula with cpp/stream/profile.cpp: motion is integrated
// arc by arc, velocity limits are kept by rejecting candidates, and the last arcs are found by bisection.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace oracle {

struct State {
  double p, v, a;
};
struct Limits {
  double v, a, j;
};

class Search {
 public:
  Search(State start, double target, Limits limits) : start_(start), target_(target), limits_(limits) {}

  // Seconds. `lead_grid` is the number of lengths tried for an extra arc before the usual three: 0 leaves it out.
  double fastest(int lead_grid) {
    best_ = std::numeric_limits<double>::infinity();
    for (int sign : {1, -1}) {
      search_push(start_, 0, sign);
      for (int i = 1; i <= lead_grid; ++i) {
        Motion lead = begin(start_);
        push(&lead, -sign, i * 0.05 * limits_.a / limits_.j);
        search_push(lead.state, lead.time, sign);
        // The mirrored three-arc search after this lead is the four-arc structure.
      }
      for (double share : {1.0, 0.98, 0.9, 0.7, 0.5, 0.3, 0.1}) search_cruise(sign * share * limits_.v);
    }
    return best_;
  }

 private:
  struct Motion {
    State state;
    double time;
    bool legal;
  };

  Motion begin(State state) const { return {state, 0, true}; }

  void arc(Motion* motion, double jerk, double time) const {
    State& s = motion->state;
    // A velocity extremum inside the arc lies where the acceleration is zero.
    if (jerk != 0) {
      const double zero = -s.a / jerk;
      if (zero > 0 && zero < time) check(motion, s.v + s.a * zero + jerk * zero * zero / 2);
    }
    s.p += s.v * time + s.a * time * time / 2 + jerk * time * time * time / 6;
    s.v += s.a * time + jerk * time * time / 2;
    s.a += jerk * time;
    motion->time += time;
    check(motion, s.v);
  }

  void check(Motion* motion, double v) const {
    if (std::abs(v) > limits_.v * (1 + 1e-7)) motion->legal = false;
  }

  // Full jerk towards sign * a_max, then staying there, for `time` in all.
  void push(Motion* motion, int sign, double time) const {
    const double ramp = std::max(0.0, (limits_.a - sign * motion->state.a) / limits_.j);
    arc(motion, sign * limits_.j, std::min(time, ramp));
    if (time > ramp) arc(motion, 0, time - ramp);
  }

  void release(Motion* motion) const {
    const double a = motion->state.a;
    arc(motion, a > 0 ? -limits_.j : limits_.j, std::abs(a) / limits_.j);
    motion->state.a = 0;
  }

  // Pushes until a release ends at velocity v; false where this sign cannot.
  bool reach(Motion* motion, int sign, double v) const {
    const auto end = [&](double time) {
      Motion trial = *motion;
      push(&trial, sign, time);
      release(&trial);
      return sign * (trial.state.v - v);
    };
    double low = 0, high = 1e-3;
    if (end(0) > 1e-12) return false;
    while (end(high) < 0) {
      high *= 2;
      if (high > 1e6) return false;
    }
    for (int i = 0; i < 60; ++i) (end((low + high) / 2) < 0 ? low : high) = (low + high) / 2;
    push(motion, sign, (low + high) / 2);
    release(motion);
    return true;
  }

  // After a push of `time`: the other arcs to rest. Either sign may be the one that stops.
  bool to_rest(State from, int sign, double time, Motion* out) const {
    *out = begin(from);
    push(out, sign, time);
    const Motion pushed = *out;
    if (reach(out, -sign, 0)) return true;
    *out = pushed;
    return reach(out, sign, 0);
  }

  double miss(State from, int sign, double time, Motion* out) const {
    return to_rest(from, sign, time, out) ? out->state.p - target_ : std::numeric_limits<double>::quiet_NaN();
  }

  void search_push(State from, double lead_time, int sign) {
    constexpr int grid = 48;
    const double longest = 2 * limits_.v / limits_.a + 3 * limits_.a / limits_.j + 2 * std::sqrt(limits_.v / limits_.j);
    Motion motion{};
    double time_before = 0, miss_before = miss(from, sign, 0, &motion);
    for (int i = 1; i <= grid; ++i) {
      // Short pushes matter as much as long ones.
      const double time = longest * std::pow(static_cast<double>(i) / grid, 3);
      const double found = miss(from, sign, time, &motion);
      if (miss_before * found <= 0) {
        double low = time_before, high = time;
        for (int k = 0; k < 50; ++k) {
          const double middle = (low + high) / 2;
          (miss(from, sign, middle, &motion) * miss_before > 0 ? low : high) = middle;
        }
        const double left = miss(from, sign, high, &motion);
        if (motion.legal && std::abs(left) < 1e-6 * (1 + std::abs(target_)))
          best_ = std::min(best_, lead_time + motion.time);
      }
      time_before = time, miss_before = found;
    }
  }

  void search_cruise(double v) {
    for (int first : {1, -1}) {
      Motion motion = begin(start_);
      if (!reach(&motion, first, v)) continue;
      Motion rest = motion;
      const double way_left = [&] {
        reach(&rest, v > 0 ? -1 : 1, 0);
        return target_ - rest.state.p;
      }();
      const double cruise = way_left / v;
      if (cruise >= 0 && rest.legal) best_ = std::min(best_, rest.time + cruise);
    }
  }

  State start_;
  double target_;
  Limits limits_;
  double best_ = 0;
};

}  // namespace oracle
