// How the drivers of packed products cut rows into tiles and tasks.
#pragma once

#include <algorithm>
#include <cstdint>

namespace premotor::ops {

// Rows of one task, in tiles: their activations of one block of k stay in a second-level cache while panels pass.
constexpr std::int64_t kTaskTiles = 20;
constexpr std::int64_t kTileRowsMost = 16;  // of every table
constexpr std::int64_t kActivationBytes = 800 * 1024;
// Below this much work a thread takes longer to join than to do its share: a few microseconds, in multiplications of
// f32, of which bf16 pairs do two and int8 units four at a time.
constexpr std::int64_t kSerialMultiplies = 1 << 20;
constexpr std::int64_t kSerialValues = 1 << 15;

[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Rows as tiles of as equal a height as can be: 16 rows are 8 + 8, not 12 + 4.
struct RowTiles {
  std::int64_t count, least, taller;

  RowTiles(std::int64_t rows, std::int64_t most)
      : count(ceil_div(rows, most)), least(rows / count), taller(rows % count) {}
  [[nodiscard]] std::int64_t begin(std::int64_t tile) const { return tile * least + std::min(tile, taller); }
  [[nodiscard]] std::int64_t rows(std::int64_t tile) const { return least + (tile < taller ? 1 : 0); }
};

// Calls run(tile_begin, tile_end, panel_begin, panel_end) for the tasks begin .. end of panels x chunks of tiles.
template <typename Run>
void run_tasks(const RowTiles& tiles, std::int64_t panels, std::int64_t begin, std::int64_t end, const Run& run) {
  while (begin < end) {
    const std::int64_t chunk = begin / panels, panel = begin % panels;
    const std::int64_t panel_end = std::min(panels, panel + end - begin);
    run(chunk * kTaskTiles, std::min((chunk + 1) * kTaskTiles, tiles.count), panel, panel_end);
    begin += panel_end - panel;
  }
}

}  // namespace premotor::ops
