// Packing of 4-bit weights, and the driver of their products: see int4.h.
#include "ops/cpu/int4.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/half.h"
#include "ops/cpu/int4_kernels.h"
#include "ops/cpu/row_tiles.h"

namespace premotor::ops {
namespace {

// From so many tiles on, a block is widened once for all of them instead of by each.
constexpr std::int64_t kWidenedTiles = 3;

std::int64_t pairs_of(std::int64_t k) { return 4 * ceil_div(k, kInt4Unit); }

// The values of one output's group as they are packed: `count` of them in units that lie a panel's width apart.
void put_group(const std::int8_t* q, std::int64_t count, char* units) {
  for (std::int64_t first = 0; first < count; first += kInt4Unit, units += kPanelColumns * 4) {
    std::uint32_t unit = 0;
    for (std::int64_t i = 0; i < std::min(kInt4Unit, count - first); ++i)
      unit |= (static_cast<std::uint32_t>(q[first + i]) & 15u) << (4 * (i / 2) + 16 * (i % 2));
    std::memcpy(units, &unit, 4);
  }
}

std::int32_t value_of(std::uint32_t unit, std::int64_t i) {
  const auto q = static_cast<std::int32_t>(unit >> (4 * (i / 2) + 16 * (i % 2)) & 15u);
  return q < 8 ? q : q - 16;
}

struct Job {
  const PackedKernels& kernels;
  const Int4Kernels& int4;
  const PackedProduct& args;
  RowTiles tiles;
  std::int64_t units, panel_bytes;

  Job(const PackedKernels& table, const PackedProduct& given)
      : kernels(table),
        int4(*table.int4),
        args(given),
        tiles(given.m, int4.rows),
        units(packed_units(PackedPrecision::int4, given.w.k)),
        panel_bytes(int4_panel_bytes(given.w.k, given.w.group)) {}

  void run_tile(std::int64_t panel, std::int64_t tile, std::int64_t first_unit, std::int64_t count,
                const void* widened) const;
  void run_panels(std::int64_t tile_begin, std::int64_t tile_end, std::int64_t panel_begin,
                  std::int64_t panel_end) const;
};

const char* block_of(const PackedMatrix& w, std::int64_t panel_bytes, std::int64_t panel, std::int64_t first_unit) {
  return static_cast<const char*>(w.data) + panel * panel_bytes +
         first_unit * kInt4Unit / w.group * int4_group_bytes(w.group);
}

void Job::run_tile(std::int64_t panel, std::int64_t tile, std::int64_t first_unit, std::int64_t count,
                   const void* widened) const {
  constexpr std::int64_t kRowsMost = 16;
  alignas(64) float sum[kRowsMost * kPanelColumns];
  const std::int64_t row = tiles.begin(tile), rows = tiles.rows(tile), column = panel * kPanelColumns;
  assert(rows <= kRowsMost);
  const char* x = static_cast<const char*>(args.converted) + (row * units + first_unit * rows) * 4 * int4.pair_bytes;
  const Int4Tile what{x, rows, block_of(args.w, panel_bytes, panel, first_unit), count, args.w.group / kInt4Unit, sum};
  if (widened != nullptr)
    int4.multiply_widened(what, widened);
  else
    int4.multiply(what);

  PackedFinish finish = packed_finish(args, row, rows, column, sum);
  finish.is_first = first_unit == 0;
  finish.is_last = first_unit + count == units;
  kernels.finish(finish);
}

// Panels pass over a stretch of k whose activations stay in the second-level cache; inside it, a widened block of one
// panel stays in the first-level cache while the tiles of rows pass.
void Job::run_panels(std::int64_t tile_begin, std::int64_t tile_end, std::int64_t panel_begin,
                     std::int64_t panel_end) const {
  alignas(64) char widened[kInt4WidenedBytes];
  const bool is_widened = tile_end - tile_begin >= kWidenedTiles;
  const std::int64_t rows = tiles.begin(tile_end - 1) + tiles.rows(tile_end - 1) - tiles.begin(tile_begin);
  const std::int64_t fitting = kActivationBytes / (rows * 4 * int4.pair_bytes) / kInt4Block * kInt4Block;
  const std::int64_t stretch = std::max(fitting, kInt4Block);
  for (std::int64_t begin = 0; begin < units; begin += stretch) {
    const std::int64_t end = std::min(begin + stretch, units);
    for (std::int64_t panel = panel_begin; panel < panel_end; ++panel)
      for (std::int64_t unit = begin; unit < end; unit += kInt4Block) {
        const std::int64_t count = std::min(kInt4Block, end - unit);
        if (is_widened)
          int4.widen(block_of(args.w, panel_bytes, panel, unit), count, args.w.group / kInt4Unit, widened);
        for (std::int64_t tile = tile_begin; tile < tile_end; ++tile)
          run_tile(panel, tile, unit, count, is_widened ? widened : nullptr);
      }
  }
}

}  // namespace

void pack_int4(const Matrix& w, std::int64_t group, std::int64_t panel_begin, std::int64_t panel_end, void* to,
               Int4Rounding how) {
  assert(group == 32 || group == 64 || group == 128);
  const std::int64_t bytes = int4_panel_bytes(w.cols, group);
  for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
    char* at = static_cast<char*>(to) + panel * bytes;
    std::memset(at, 0, static_cast<std::size_t>(bytes));
    const std::int64_t columns = std::min(kPanelColumns, w.rows - panel * kPanelColumns);
    for (std::int64_t first = 0; first < w.cols; first += group, at += int4_group_bytes(group)) {
      const std::int64_t count = std::min(group, w.cols - first);
      for (std::int64_t column = 0; column < columns; ++column) {
        float values[kInt4GroupMax];
        std::int8_t q[kInt4GroupMax];
        const std::int64_t from = (panel * kPanelColumns + column) * w.cols + first;
        for (std::int64_t i = 0; i < count; ++i)
          values[i] = w.dtype == Dtype::f32 ? static_cast<const float*>(w.data)[from + i]
                                            : bf16_to_f32(static_cast<const std::uint16_t*>(w.data)[from + i]);
        const std::uint16_t scale = f32_to_bf16(round_int4(values, count, how, q).scale);
        std::memcpy(at + 2 * column, &scale, 2);
        put_group(q, count, at + 2 * kPanelColumns + 4 * column);
      }
    }
  }
}

void unpack_int4(const PackedMatrix& packed, float* w) {
  const std::int64_t panel_bytes = int4_panel_bytes(packed.k, packed.group);
  for (std::int64_t row = 0; row < packed.n; ++row) {
    const std::int64_t column = row % kPanelColumns;
    for (std::int64_t col = 0; col < packed.k; ++col) {
      const std::int64_t in_group = col % packed.group;
      const char* at = block_of(packed, panel_bytes, row / kPanelColumns, (col - in_group) / kInt4Unit);
      std::uint16_t scale;
      std::uint32_t unit;
      std::memcpy(&scale, at + 2 * column, 2);
      std::memcpy(&unit, at + 2 * kPanelColumns + (in_group / kInt4Unit * kPanelColumns + column) * 4, 4);
      w[row * packed.k + col] = bf16_to_f32(scale) * static_cast<float>(value_of(unit, col % kInt4Unit));
    }
  }
}

std::int64_t int4_scratch_bytes(const PackedKernels& kernels, std::int64_t m, std::int64_t k) {
  return ceil_div(m * pairs_of(k) * kernels.int4->pair_bytes, 64) * 64;
}

void int4_convert(ThreadPool& pool, const PackedKernels& kernels, const float* x, std::int64_t m, std::int64_t k,
                  std::int64_t ldx, void* converted, const PackedNorm* norm) {
  const Int4Kernels& int4 = *kernels.int4;
  const std::int64_t row_bytes = pairs_of(k) * int4.pair_bytes;
  const RowTiles tiles(m, int4.rows);
  const std::int64_t grain = m * k < kSerialValues ? tiles.count : 1;
  pool.parallel_for(tiles.count, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const std::int64_t row = tiles.begin(tile), rows = tiles.rows(tile);
      const PackedRows from = packed_rows(x, ldx, row, rows, k, norm);
      int4.convert(from.x, from.ldx, rows, k, static_cast<char*>(converted) + row * row_bytes);
    }
  });
}

void int4_multiply(ThreadPool& pool, const PackedKernels& kernels, const PackedProduct& args) {
  const Job job(kernels, args);
  const std::int64_t panels = packed_panels(args.w.n), chunks = ceil_div(job.tiles.count, kTaskTiles);
  const std::int64_t grain = args.m * args.w.n * args.w.k < kSerialMultiplies ? panels * chunks : 1;
  pool.parallel_for(panels * chunks, grain, [&](std::int64_t begin, std::int64_t end) {
    run_tasks(job.tiles, panels, begin, end, [&](auto... range) { job.run_panels(range...); });
  });
}

}  // namespace premotor::ops
