// Cuts packed products into cache blocks and tasks; the choice of the kernels' table. See packed_linear.h.
#include "ops/cpu/packed_linear.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>

#include "ops/cpu/int4.h"
#include "ops/cpu/row_ops.h"
#include "ops/cpu/row_tiles.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace premotor::ops {
namespace {

std::int64_t activation_bytes(std::int64_t m, std::int64_t row_bytes) { return ceil_div(m * row_bytes, 64) * 64; }

// What multiplies: 4-bit weights are bf16 by then.
std::size_t multiplied_as(Product product) {
  return static_cast<std::size_t>(product == Product::int4 ? Product::bf16_dot : product);
}

std::int64_t units_of(Product product, std::int64_t k) {
  return packed_units(product == Product::int4 ? PackedPrecision::bf16 : packed_precision(product), k);
}

// Of one row of activations, padded to whole blocks where they have a pitch.
std::int64_t activation_row_bytes(const PackedKernels& kernels, Product product, std::int64_t k) {
  std::int64_t units = units_of(product, k);
  if (kernels.pitch_units > 0) units = ceil_div(units, kPackedBlock) * kernels.pitch_units;
  return units * kernels.unit_bytes[multiplied_as(product)];
}

// One product with what its tasks need.
struct Job {
  const PackedKernels& kernels;
  const PackedProduct& args;
  std::size_t product;
  RowTiles tiles;
  std::int64_t units, unit_bytes, row_bytes;

  Job(const PackedKernels& table, const PackedProduct& given)
      : kernels(table),
        args(given),
        product(multiplied_as(given.product)),
        tiles(given.m, table.rows),
        units(units_of(given.product, given.w.k)),
        unit_bytes(table.unit_bytes[product]),
        row_bytes(activation_row_bytes(table, given.product, given.w.k)) {}

  void run_panels(std::int64_t tile_begin, std::int64_t tile_end, std::int64_t panel_begin,
                  std::int64_t panel_end) const;

 private:
  // Units of one panel.
  struct Block {
    std::int64_t panel, unit, count;
  };
  // The sums of one panel and all tiles of a task on their way along k.
  struct Sums {
    alignas(64) float of_tile[kTaskTiles][kTileRowsMost * kPanelColumns];
  };

  [[nodiscard]] const char* activations() const { return static_cast<const char*>(args.converted); }
  [[nodiscard]] const float* x_scales() const {
    return reinterpret_cast<const float*>(activations() + activation_bytes(args.m, row_bytes));
  }
  [[nodiscard]] const char* weights(std::int64_t panel, std::int64_t unit) const;
  [[nodiscard]] std::int64_t weight_bytes(std::int64_t count) const;
  void multiply(std::int64_t tile, const Block& block, const void* w, const char* ahead, std::int64_t ahead_step,
                bool is_carried, float* sum) const;
  void copy_sums(std::int64_t tile, std::int64_t panel, float* sum, bool is_taken) const;
  void finish(std::int64_t tile, std::int64_t panel, const float* sum) const;
};

// Where a unit of a panel lies; of 4-bit weights the scales of the group that begins there.
const char* Job::weights(std::int64_t panel, std::int64_t unit) const {
  const char* data = static_cast<const char*>(args.w.data);
  if (args.product != Product::int4) return data + (panel * units + unit) * kPanelColumns * 4;
  return data + panel * int4_panel_bytes(args.w.k, args.w.group) +
         unit * 2 / args.w.group * int4_group_bytes(args.w.group);
}

std::int64_t Job::weight_bytes(std::int64_t count) const {
  if (args.product != Product::int4) return count * kPanelColumns * 4;
  return int4_panel_bytes(count * 2, args.w.group);
}

void Job::multiply(std::int64_t tile, const Block& block, const void* w, const char* ahead, std::int64_t ahead_step,
                   bool is_carried, float* sum) const {
  const std::int64_t row = tiles.begin(tile), rows = tiles.rows(tile);
  const std::int64_t at = kernels.pitch_units > 0 ? block.unit / kPackedBlock * kernels.pitch_units : block.unit;
  const char* x = activations() + row * row_bytes + at * rows * unit_bytes;
  kernels.multiply[product]({x, rows, w, block.count, sum, is_carried, ahead, ahead_step});
}

// Between two stretches of k a panel's sums wait in y.
void Job::copy_sums(std::int64_t tile, std::int64_t panel, float* sum, bool is_taken) const {
  const std::int64_t column = panel * kPanelColumns, columns = std::min(kPanelColumns, args.w.n - column);
  float* y = args.y + tiles.begin(tile) * args.ldy + column;
  for (std::int64_t r = 0; r < tiles.rows(tile); ++r, y += args.ldy, sum += kPanelColumns)
    std::memcpy(is_taken ? sum : y, is_taken ? y : sum, static_cast<std::size_t>(columns) * 4);
}

void Job::finish(std::int64_t tile, std::int64_t panel, const float* sum) const {
  const std::int64_t row = tiles.begin(tile), column = panel * kPanelColumns;
  PackedFinish what = {};
  what.sum = sum;
  what.rows = tiles.rows(tile);
  what.columns = std::min(kPanelColumns, args.w.n - column);
  what.bias = args.bias == nullptr ? nullptr : args.bias + column;
  what.act = args.act;
  what.rounding = args.rounding;
  what.y = args.y + row * args.ldy + column;
  what.ldy = args.ldy;
  if (args.residual != nullptr) {
    what.residual = args.residual + row * args.residual_stride + column;
    what.residual_stride = args.residual_stride;
    what.gate = args.gate == nullptr ? nullptr : args.gate + column;
    what.gate_stride = args.gate_stride;
    what.row_map = args.row_map == nullptr ? nullptr : args.row_map + row;
  }
  if (args.product != Product::int8) return kernels.finish(what);
  what.x_scale = x_scales() + row;
  what.w_scale = packed_scales(args.w) + column;
  what.sums = packed_sums(args.w) + column;
  kernels.finish_int8(what);
}

// Panels pass over a stretch of k whose activations stay in the second-level cache; inside it, a block of one panel
// stays in the first-level cache while the tiles of rows pass. With few rows the stretch is all of k, and the weights
// are read front to back.
void Job::run_panels(std::int64_t tile_begin, std::int64_t tile_end, std::int64_t panel_begin,
                     std::int64_t panel_end) const {
  alignas(64) char widened[kPackedBlock * kPanelColumns * 4];
  Sums sums;
  assert(kernels.rows <= kTileRowsMost && tile_end - tile_begin <= kTaskTiles);
  const std::int64_t rows = tiles.begin(tile_end - 1) + tiles.rows(tile_end - 1) - tiles.begin(tile_begin);
  const std::int64_t fitting = kActivationBytes / (rows * unit_bytes) / kPackedBlock * kPackedBlock;
  const std::int64_t stretch = std::max(fitting, kPackedBlock), passing = tile_end - tile_begin;
  for (std::int64_t begin = 0; begin < units; begin += stretch) {
    const std::int64_t end = std::min(begin + stretch, units);
    for (std::int64_t panel = panel_begin; panel < panel_end; ++panel)
      for (std::int64_t unit = begin; unit < end; unit += kPackedBlock) {
        const Block block{panel, unit, std::min(kPackedBlock, end - unit)};
        const bool is_end = unit + block.count == end;
        const char* w = weights(panel, unit);
        if (args.product == Product::int4) {
          kernels.widen_int4({w, ceil_div(block.count, 4), args.w.group / kInt4Unit, widened});
          w = widened;
        }
        // While the tiles pass over this block, each fetches its share of the next one.
        const char* next = is_end ? weights(panel + 1, begin) : weights(panel, unit + block.count);
        if (is_end && panel + 1 == panel_end) next = weights(panel_begin, end < units ? end : 0);
        const std::int64_t step = ceil_div(weight_bytes(block.count), passing * block.count);
        for (std::int64_t tile = tile_begin; tile < tile_end; ++tile) {
          float* sum = sums.of_tile[tile - tile_begin];
          if (unit == begin && begin > 0) copy_sums(tile, panel, sum, true);
          multiply(tile, block, w, next + (tile - tile_begin) * step * block.count, step, unit > 0, sum);
          if (!is_end) continue;
          if (end == units)
            finish(tile, panel, sum);
          else
            copy_sums(tile, panel, sum, false);
        }
      }
  }
}

// Rows to convert, normed first when asked.
struct Rows {
  const float* x;
  std::int64_t ldx;
};

Rows rows_of(const float* x, std::int64_t ldx, std::int64_t row, std::int64_t rows, std::int64_t k,
             const PackedNorm* norm) {
  if (norm == nullptr) return {x + row * ldx, ldx};
  for (std::int64_t r = row; r < row + rows; ++r)
    norm->kernels.layer_norm(x + r * ldx, row_norm(norm->norm, k, r, norm->rounding), norm->normed + r * k);
  return {norm->normed + row * k, k};
}

}  // namespace

std::int64_t packed_scratch_bytes(const PackedKernels& kernels, Product product, std::int64_t m, std::int64_t k) {
  const std::int64_t scales = product == Product::int8 ? ceil_div(m * 4, 64) * 64 : 0;
  return activation_bytes(m, activation_row_bytes(kernels, product, k)) + scales;
}

void packed_convert(ThreadPool& pool, const PackedKernels& kernels, Product product, const float* x, std::int64_t m,
                    std::int64_t k, std::int64_t ldx, void* converted, const PackedNorm* norm, bool is_alone) {
  assert(m >= 1 && k >= 1 && ldx >= k);
  assert(product != Product::int8 || k <= kPackedDepthMax);
  const std::size_t at = multiplied_as(product);
  const std::int64_t row_bytes = activation_row_bytes(kernels, product, k);
  const RowTiles tiles(m, kernels.rows);
  char* to = static_cast<char*>(converted);
  float* scales = reinterpret_cast<float*>(to + activation_bytes(m, row_bytes));
  const std::int64_t grain = is_alone || m * k < kSerialValues ? tiles.count : 1;
  pool.parallel_for(tiles.count, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const std::int64_t row = tiles.begin(tile), rows = tiles.rows(tile);
      const Rows from = rows_of(x, ldx, row, rows, k, norm);
      kernels.convert[at](from.x, from.ldx, rows, k, to + row * row_bytes, scales + row);
    }
  });
}

bool packed_alone_by_rule(Product product, std::int64_t m, std::int64_t n, std::int64_t k) {
  return m * n * units_of(product, k) < kSerialMultiplies;
}

void packed_multiply(ThreadPool& pool, const PackedKernels& kernels, const PackedProduct& args) {
  assert(args.m >= 1 && args.w.n >= 1 && args.w.k >= 1 && args.ldy >= args.w.n);
  assert(args.w.precision == packed_precision(args.product));
  const Job job(kernels, args);
  const std::int64_t task_tiles = args.tactic.task_tiles;
  const std::int64_t panels = packed_panels(args.w.n), chunks = ceil_div(job.tiles.count, task_tiles);
  const Split split = args.tactic.split;
  const bool is_alone =
      split == Split::rule ? packed_alone_by_rule(args.product, args.m, args.w.n, args.w.k) : split == Split::alone;
  const std::int64_t grain = is_alone ? panels * chunks : 1;
  pool.parallel_for(panels * chunks, grain, [&](std::int64_t begin, std::int64_t end) {
    run_tasks(job.tiles, task_tiles, panels, begin, end, [&](auto... range) { job.run_panels(range...); });
  });
}

void packed_linear(ThreadPool& pool, const PackedKernels& kernels, const float* x, std::int64_t ldx, void* scratch,
                   PackedProduct args, const PackedNorm* norm) {
  packed_convert(pool, kernels, args.product, x, args.m, args.w.k, ldx, scratch, norm,
                 args.tactic.split == Split::alone);
  args.converted = scratch;
  packed_multiply(pool, kernels, args);
}

int cpu_packed_tables(const PackedKernels* tables[kPackedTables]) {
  int count = 0;
  tables[count++] = &baseline::packed_kernels();
#if defined(PREMOTOR_X86_64)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return count;
  tables[count++] = &avx2::packed_kernels();
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
    return count;
  tables[count++] = &avx512::packed_kernels();
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni")) return count;
  tables[count++] = &avx512_dot::packed_kernels();
#elif defined(__aarch64__) && defined(__linux__)
  // Bits of the kernel's interface (arch/arm64/include/uapi/asm/hwcap.h), which older C libraries have no names for.
  constexpr unsigned long kDotProducts = 1ul << 20, kInt8Matrices = 1ul << 13, kBf16 = 1ul << 14;
  if ((getauxval(AT_HWCAP) & kDotProducts) == 0) return count;
  tables[count++] = &neon_dot::packed_kernels();
  const unsigned long more = getauxval(AT_HWCAP2);
  if ((more & kInt8Matrices) == 0) return count;
  tables[count++] = &neon_i8mm::packed_kernels();
  if ((more & kBf16) == 0) return count;
  tables[count++] = &neon_bf16::packed_kernels();
#endif
  return count;
}

const PackedKernels& cpu_packed_kernels() {
  static const PackedKernels& best = []() -> const PackedKernels& {
    const PackedKernels* tables[kPackedTables];
    const int count = cpu_packed_tables(tables);
    const char* forced = std::getenv("PREMOTOR_ISA");
    if (forced == nullptr) return *tables[count - 1];
    for (int i = 0; i < count; ++i)
      if (std::strcmp(tables[i]->name + std::strlen("cpu-"), forced) == 0) return *tables[i];
    return *tables[0];
  }();
  return best;
}

}  // namespace premotor::ops
