// Cuts attention over the cache into tasks. A task is one head, a block of queries and a stretch of the cache (all of
// it, when there is work enough without); it passes over chunks of panels, and over a chunk with one tile of queries
// after the other, so that a chunk's keys and values come from memory once. Stretches are merged as chunks are.
//
// A chunk is up to eight attended panels of 32 rows, in ascending order. Which rows share a chunk, and so the order of
// every sum, depends on the rows and on the shape alone: not on threads.
#include "ops/cpu/cached_attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "ops/kv_layout.h"

namespace premotor::ops {
namespace {

constexpr std::int64_t kHeadDimMost = 256;
constexpr std::int64_t kBlockQueries = 96;  // of one task
constexpr std::int64_t kTasksWanted = 16;   // fewer heads and blocks than this: the cache is cut into stretches
constexpr std::int64_t kStretchChunks = 2;  // of a stretch at least
constexpr float kLog2e = 1.44269504088896341f;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The attended panels, and how many queries and stretches there are.
struct Job {
  const AttentionKernels& kernels;
  const PackedKernels& packed;
  const Ops::CachedAttention& args;
  KvLayout layout;
  Product product;
  std::int32_t* panels;  // [panel_count] ascending
  std::uint32_t* masks;  // [panel_count]
  std::int64_t panel_count;
  std::int64_t blocks, stretches;
  float* partial;  // [head, stretch, query] x partial_floats(): out, top, sum; null with one stretch
};

std::int64_t partial_floats(std::int64_t head_dim) { return ceil_div(head_dim, 16) * 16 + 16; }

std::int64_t stretches_of(const Ops::CachedAttention& args, std::int64_t panels) {
  const std::int64_t tasks = args.heads * ceil_div(args.rows, kBlockQueries);
  const std::int64_t wanted = ceil_div(kTasksWanted, tasks), chunks = ceil_div(panels, kChunkPanels);
  return std::clamp<std::int64_t>(chunks / kStretchChunks, 1, wanted);
}

// A cache that was rounded is worth no more than rounded queries and weights. (Queries of a rounded pass are bf16
// values and multiply exactly.)
Product product_of(const AttentionKernels& kernels, const Ops::CachedAttention& args) {
  if (args.kv.dtype == Dtype::f32) return Product::f32;
  return kernels.has_dot ? Product::bf16_dot : Product::bf16;
}

void round_row(const Job& job, float* y) {
  if (job.args.rounding != Rounding::bf16) return;
  for (std::int64_t c = 0; c < job.args.head_dim; ++c) y[c] = round_to_bf16(y[c]);
}

// A chunk of an int8 cache as bf16, made once for all of a task's queries: keys as panels in the chunk's order, values
// as [panel of head_dim][unit along the chunk's rows][32]. Rows that are not attended have zeros as values.
struct WideChunk {
  alignas(64) std::uint16_t k[kChunkPanels * kKvPanel * kHeadDimMost];
  alignas(64) std::uint16_t v[kChunkPanels * kKvPanel * kHeadDimMost];
  alignas(64) float key_scales[kChunkPanels * kKvPanel], value_scales[kChunkPanels * kKvPanel];

  void fill(const Job& job, std::int64_t head, std::int64_t first, std::int64_t count);
};
constexpr std::int32_t kInOrder[kChunkPanels] = {0, 1, 2, 3, 4, 5, 6, 7};

void WideChunk::fill(const Job& job, std::int64_t head, std::int64_t first, std::int64_t count) {
  const KvLayout& l = job.layout;
  const auto* keys = static_cast<const std::int8_t*>(job.args.kv.k);
  const auto* values = static_cast<const std::int8_t*>(job.args.kv.v);
  const std::int64_t key_count = l.key_units() * kKvPanel * 2, value_count = kKvPanel * kKvPanel;
  for (std::int64_t p = 0; p < count; ++p) {
    const std::int64_t row = job.panels[first + p] * kKvPanel;
    const std::uint32_t mask = job.masks[first + p];
    job.kernels.widen({keys + l.key_at(head, row, 0), key_count, k + p * key_count});
    for (std::int64_t d = 0; d < l.value_panels(); ++d) {
      std::uint16_t* to = v + (d * count + p) * value_count;
      job.kernels.widen({values + l.value_at(head, row, d * kKvPanel), value_count, to});
      for (std::int64_t r = 0; mask != ~std::uint32_t{0} && r < kKvPanel; ++r)
        for (std::int64_t c = 0; (mask >> r & 1) == 0 && c < kKvPanel; ++c) to[(r / 2 * kKvPanel + c) * 2 + r % 2] = 0;
    }
    const auto* k_scale = reinterpret_cast<const float*>(keys + l.key_scales()) + head * l.rows + row;
    const auto* v_scale = reinterpret_cast<const float*>(values + l.value_scales()) + head * l.rows + row;
    for (std::int64_t r = 0; r < kKvPanel; ++r) {
      key_scales[p * kKvPanel + r] = k_scale[r];
      value_scales[p * kKvPanel + r] = (mask >> r & 1) != 0 ? v_scale[r] : 0.0f;
    }
  }
}

// One task's memory.
struct Task {
  const Job& job;
  std::int64_t head, first_query, queries;
  std::int64_t tile_count, pitch;
  const WideChunk* wide = nullptr;  // of an int8 cache
  alignas(64) float q[kBlockQueries * kHeadDimMost];
  alignas(64) float out[kBlockQueries * kHeadDimMost];
  alignas(64) float scores[kQueriesMost * kChunkPanels * kPanelColumns];
  alignas(64) float weights[kQueriesMost * kWeightPitch];
  alignas(64) float edge[kHeadDimMost * kKvPanel];  // values of a partly attended panel, zeros elsewhere
  float top[kBlockQueries], sum[kBlockQueries], keep[kQueriesMost];

  Task(const Job& of, std::int64_t head_of, std::int64_t block) : job(of), head(head_of) {
    first_query = block * kBlockQueries;
    queries = std::min(kBlockQueries, of.args.rows - first_query);
    tile_count = ceil_div(queries, of.kernels.rows);
    pitch = of.layout.value_panels() * kKvPanel;
  }
  [[nodiscard]] std::int64_t begin_of(std::int64_t tile) const { return queries * tile / tile_count; }
  [[nodiscard]] std::int64_t x_unit_bytes() const {
    return job.packed.unit_bytes[static_cast<std::size_t>(job.product)];
  }
  [[nodiscard]] const char* keys() const {
    return static_cast<const char*>(job.args.kv.k) + head * job.layout.key_scales() / job.layout.heads;
  }
  [[nodiscard]] const char* values() const {
    return static_cast<const char*>(job.args.kv.v) + head * job.layout.value_scales() / job.layout.heads;
  }
  void begin();
  void tile(std::int64_t at, std::int64_t first, std::int64_t count, std::int64_t next_count);
  void accumulate(std::int64_t at, std::int64_t first, std::int64_t count, std::int64_t next_count);
  ValueRun edge_run(std::int64_t panel, std::uint32_t mask);
  void finish();
  void keep_partial(std::int64_t stretch) const;
};

void Task::begin() {
  std::fill_n(top, queries, -INFINITY);
  std::fill_n(sum, queries, 0.0f);
  std::fill_n(out, queries * pitch, 0.0f);
  const auto how = static_cast<std::size_t>(job.product);
  for (std::int64_t at = 0; at < tile_count; ++at) {
    const std::int64_t row = begin_of(at), rows = begin_of(at + 1) - row;
    const float* from = job.args.q + (first_query + row) * job.args.ldq + head * job.args.head_dim;
    char* to = reinterpret_cast<char*>(q) + row * job.layout.key_units() * x_unit_bytes();
    job.packed.convert[how](from, job.args.ldq, rows, job.args.head_dim, to, nullptr);
  }
}

void Task::tile(std::int64_t at, std::int64_t first, std::int64_t count, std::int64_t next_count) {
  const auto how = static_cast<std::size_t>(job.product);
  const std::int64_t row = begin_of(at), rows = begin_of(at + 1) - row, units = job.layout.key_units();
  const char* converted = reinterpret_cast<const char*>(q) + row * units * x_unit_bytes();
  // Each tile fetches its share of the next chunk's keys while it multiplies, and of its values further down.
  const std::int64_t step = kPanelColumns * job.layout.unit_bytes() / tile_count;
  const char* ahead = keys();
  if (next_count > 0) ahead += job.panels[first + count] * units * kPanelColumns * job.layout.unit_bytes();
  const char* from = wide == nullptr ? keys() : reinterpret_cast<const char*>(wide->k);
  job.kernels.scores[how]({converted, rows, from, wide == nullptr ? job.panels + first : kInOrder, count, units, scores,
                           ahead + at * step * units * count, step});
  const bool has_last = first + count == job.panel_count;
  if (has_last && job.args.kv.last_weight != 1.0f) {
    const std::int64_t at_last = (count - 1) * kPanelColumns, lane = 31 - __builtin_clz(job.masks[job.panel_count - 1]);
    float more = std::log(job.args.kv.last_weight) / job.args.scale;
    if (wide != nullptr) more /= wide->key_scales[at_last + lane];  // scores are still of integers
    for (std::int64_t r = 0; r < rows; ++r) scores[at_last * rows + r * kPanelColumns + lane] += more;
  }
  job.kernels.weigh[how]({scores, rows, count, job.masks + first, wide == nullptr ? nullptr : wide->key_scales,
                          wide == nullptr ? nullptr : wide->value_scales, job.args.scale * kLog2e, top + row, sum + row,
                          keep, job.args.rounding == Rounding::bf16, weights});
  accumulate(at, first, count, next_count);
}

// A panel's values with zeros for the rows that are not attended: a weight of zero does not take out what is not
// finite.
ValueRun Task::edge_run(std::int64_t panel, std::uint32_t mask) {
  const KvLayout& l = job.layout;
  const std::int64_t bytes = bytes_of(l.dtype), unit = l.unit(), units = kKvPanel / unit;
  const std::int64_t stride = l.rows / unit * kKvPanel * 4;
  char* to = reinterpret_cast<char*>(edge);
  for (std::int64_t d = 0; d < l.value_panels(); ++d) {
    const char* from = values() + d * stride + panel * units * kKvPanel * 4;
    char* row = to + d * units * kKvPanel * 4;
    std::memcpy(row, from, static_cast<std::size_t>(units * kKvPanel * 4));
    for (std::int64_t r = 0; r < kKvPanel; ++r) {
      if ((mask >> r & 1) != 0) continue;
      for (std::int64_t c = 0; c < kKvPanel; ++c)
        std::memset(row + (r / unit * kKvPanel + c) * 4 + r % unit * bytes, 0, static_cast<std::size_t>(bytes));
    }
  }
  return {to, 0, units, units * kKvPanel * 4};
}

// Neighbouring whole panels are one run. A partly attended panel is a run of its own, from a copy.
void Task::accumulate(std::int64_t at, std::int64_t first, std::int64_t count, std::int64_t next_count) {
  const auto how = static_cast<std::size_t>(job.product);
  const KvLayout& l = job.layout;
  const std::int64_t row = begin_of(at), unit = l.unit(), units = kKvPanel / unit;
  const std::int64_t panel_bytes = units * kKvPanel * l.unit_bytes(), stride = l.rows / kKvPanel * panel_bytes;
  const std::int64_t step = kKvPanel * l.unit_bytes() / tile_count;
  const char* next = next_count > 0 ? values() + job.panels[first + count] * panel_bytes : values();
  ValueRun runs[kChunkPanels];
  std::int64_t run_count = 0;
  const auto flush = [&] {
    if (run_count == 0) return;
    job.kernels.accumulate[how]({weights, begin_of(at + 1) - row, runs, run_count, l.head_dim, keep, out + row * pitch,
                                 pitch, next + at * step * units * count, step});
    std::fill_n(keep, kQueriesMost, 1.0f);
    run_count = 0;
  };
  if (wide != nullptr) {
    runs[run_count++] = {reinterpret_cast<const char*>(wide->v), 0, count * units, count * units * kKvPanel * 4};
    return flush();
  }
  for (std::int64_t p = 0; p < count; ++p) {
    const std::int64_t panel = job.panels[first + p], column = p * kKvPanel;
    const std::uint32_t mask = job.masks[first + p];
    if (mask != ~std::uint32_t{0} && job.args.kv.attended != nullptr) {
      runs[run_count] = edge_run(panel, mask);
      runs[run_count++].first = column;
      flush();  // the copy's memory serves the next one
      continue;
    }
    const char* from = values() + panel * panel_bytes;
    if (run_count > 0 && runs[run_count - 1].values + runs[run_count - 1].units * kKvPanel * 4 == from)
      runs[run_count - 1].units += units;
    else
      runs[run_count++] = {from, column, units, stride};
  }
  flush();
}

void Task::finish() {
  for (std::int64_t r = 0; r < queries; ++r) {
    float* to = job.args.y + (first_query + r) * job.args.ldy + head * job.args.head_dim;
    const float inverse = 1.0f / sum[r];
    for (std::int64_t c = 0; c < job.args.head_dim; ++c) to[c] = out[r * pitch + c] * inverse;
    round_row(job, to);
  }
}

void Task::keep_partial(std::int64_t stretch) const {
  const std::int64_t floats = partial_floats(job.args.head_dim);
  for (std::int64_t r = 0; r < queries; ++r) {
    float* to = job.partial + ((head * job.stretches + stretch) * job.args.rows + first_query + r) * floats;
    std::copy_n(out + r * pitch, job.args.head_dim, to);
    to[floats - 2] = top[r];
    to[floats - 1] = sum[r];
  }
}

void run_task(const Job& job, std::int64_t number, WideChunk* wide) {
  const std::int64_t stretch = number % job.stretches, block = number / job.stretches % job.blocks;
  Task task(job, number / job.stretches / job.blocks, block);
  task.begin();
  task.wide = wide;
  const std::int64_t chunks = ceil_div(job.panel_count, kChunkPanels);
  const std::int64_t begin = chunks * stretch / job.stretches, end = chunks * (stretch + 1) / job.stretches;
  for (std::int64_t chunk = begin; chunk < end; ++chunk) {
    const std::int64_t first = chunk * kChunkPanels, count = std::min(kChunkPanels, job.panel_count - first);
    const std::int64_t next = std::min(kChunkPanels, job.panel_count - first - count);
    if (wide != nullptr) wide->fill(job, task.head, first, count);
    for (std::int64_t at = 0; at < task.tile_count; ++at) task.tile(at, first, count, next);
  }
  if (job.stretches == 1)
    task.finish();
  else
    task.keep_partial(stretch);
}

// y of one head and query from its stretches, in order.
void merge(const Job& job, std::int64_t head, std::int64_t query) {
  const std::int64_t floats = partial_floats(job.args.head_dim), next = job.args.rows * floats;
  const float* parts = job.partial + (head * job.stretches * job.args.rows + query) * floats;
  float top = -INFINITY, sum = 0;
  for (std::int64_t s = 0; s < job.stretches; ++s) top = std::max(top, parts[s * next + floats - 2]);
  float* to = job.args.y + query * job.args.ldy + head * job.args.head_dim;
  float share[kTasksWanted];
  for (std::int64_t s = 0; s < job.stretches; ++s) {
    share[s] = std::exp2(parts[s * next + floats - 2] - top);
    sum += share[s] * parts[s * next + floats - 1];
  }
  for (std::int64_t c = 0; c < job.args.head_dim; ++c) {
    float value = 0;
    for (std::int64_t s = 0; s < job.stretches; ++s) value += share[s] * parts[s * next + c];
    to[c] = value / sum;
  }
  round_row(job, to);
}

// The panels with attended rows.
void list_panels(Job* job) {
  const CachedView& kv = job->args.kv;
  job->panel_count = 0;
  for (std::int64_t panel = 0; panel < kv.rows / kKvPanel; ++panel) {
    std::uint32_t mask = ~std::uint32_t{0};
    if (kv.attended != nullptr)
      mask = kv.attended[panel];
    else if (kv.count - panel * kKvPanel < kKvPanel)
      mask = kv.count > panel * kKvPanel ? (std::uint32_t{1} << (kv.count - panel * kKvPanel)) - 1 : 0;
    if (mask == 0) continue;
    job->panels[job->panel_count] = static_cast<std::int32_t>(panel);
    job->masks[job->panel_count++] = mask;
  }
}

std::int64_t list_bytes(const CachedView& kv) { return ceil_div(kv.rows / kKvPanel * 8, 64) * 64; }

}  // namespace

std::int64_t cached_attention_scratch_bytes(const Ops::CachedAttention& args) {
  const std::int64_t stretches = stretches_of(args, args.kv.rows / kKvPanel);
  return list_bytes(args.kv) + args.heads * stretches * args.rows * partial_floats(args.head_dim) * 4;
}

void cached_attention(ThreadPool& pool, const AttentionKernels& kernels, const PackedKernels& packed,
                      const Ops::CachedAttention& args, void* scratch) {
  assert(args.rows >= 1 && args.head_dim >= 1 && args.head_dim <= kHeadDimMost);
  assert(args.kv.dtype != Dtype::f16 && args.kv.rows % kKvPanel == 0);
  Job job{kernels,
          packed,
          args,
          {args.heads, args.kv.rows, args.head_dim, args.kv.dtype},
          product_of(kernels, args),
          nullptr,
          nullptr,
          0,
          ceil_div(args.rows, kBlockQueries),
          1,
          nullptr};
  job.panels = static_cast<std::int32_t*>(scratch);
  job.masks = reinterpret_cast<std::uint32_t*>(job.panels + args.kv.rows / kKvPanel);
  list_panels(&job);
  assert(job.panel_count >= 1);
  job.stretches = stretches_of(args, job.panel_count);
  job.partial = reinterpret_cast<float*>(static_cast<char*>(scratch) + list_bytes(args.kv));
  pool.parallel_for(args.heads * job.blocks * job.stretches, 1, [&](std::int64_t begin, std::int64_t end) {
    if (args.kv.dtype != Dtype::int8) {
      for (std::int64_t task = begin; task < end; ++task) run_task(job, task, nullptr);
      return;
    }
    WideChunk wide;
    for (std::int64_t task = begin; task < end; ++task) run_task(job, task, &wide);
  });
  if (job.stretches == 1) return;
  pool.parallel_for(args.heads * args.rows, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; ++at) merge(job, at / args.rows, at % args.rows);
  });
}

const AttentionKernels& cpu_attention_kernels(const PackedKernels& packed) {
  const AttentionKernels* const tables[] = {
#if defined(__aarch64__)
    &neon::attention_kernels(),
    &neon_dot::attention_kernels(),
    &neon_i8mm::attention_kernels(),
    &neon_bf16::attention_kernels(),
#else
    &baseline::attention_kernels(),
#endif
#if defined(PREMOTOR_X86_64)
    &avx2::attention_kernels(),
    &avx512::attention_kernels(),
    &avx512_dot::attention_kernels(),
#endif
  };
  for (const AttentionKernels* table : tables)
    if (std::strcmp(table->name, packed.name) == 0) return *table;
  return *tables[0];
}

}  // namespace premotor::ops
