// How the work of a product is cut. Time alone depends on it: whatever a tactic says, the bits are the same, so it is a
// hint that may be missing, stale or wrong.
#pragma once

#include <array>
#include <cstdint>

namespace premotor::ops {

// Most tiles of rows in one task: those whose activations of one block of k stay in a second-level cache.
inline constexpr std::int64_t kTaskTiles = 20;
// What a tactic may choose; the first is what every product takes without one.
inline constexpr std::array<std::int64_t, 3> kTaskTileChoices = {kTaskTiles, 10, 5};

// Who works on a product. rule: the backend's own rule, by the amount of work; alone: the calling thread; shared: all.
enum class Split : std::uint8_t { rule, alone, shared };

struct Tactic {
  std::int64_t rows = 0;  // of activations: what it is for
  Split split = Split::rule;
  std::int64_t task_tiles = kTaskTiles;  // one of kTaskTileChoices

  [[nodiscard]] bool is_rule() const { return split == Split::rule && task_tiles == kTaskTiles; }
  bool operator==(const Tactic&) const = default;
};

}  // namespace premotor::ops
