// Cuts attention over the cache into tasks. A task is one head, a block of queries and a stretch of the cache (all of
// it, when there is work enough without); it passes over chunks of panels. In a chunk all tiles of queries meet one
// panel of keys after the other, then each makes its weights, and all meet one panel of values after the other: what
// tiles share stays in the first-level cache meanwhile, and comes from memory once. Stretches are merged as chunks are.
//
// A chunk is up to eight attended panels of 32 slots, in ascending order. Which slots share a chunk, and so the order
// of every sum, depends on the slots and on the shape alone: not on threads, and not on the rows in which slots lie.
#include "ops/cpu/cached_attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <span>

#include "base/half.h"
#include "ops/cpu/row_tiles.h"
#include "ops/kv_layout.h"

namespace premotor::ops {
namespace {

constexpr std::int64_t kBlockQueries = 96;  // of one task
constexpr std::int64_t kTasksWanted = 16;   // fewer heads and blocks than this: the cache is cut into stretches
constexpr std::int64_t kStretchChunks = 2;  // of a stretch at least
constexpr float kLog2e = 1.44269504088896341f;

// The attended panels, and how many queries and stretches there are.
struct Job {
  const AttentionKernels& kernels;
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

// One chunk's keys and values as a task's tiles read them: where they lie, or copies that are made once for all of the
// task's queries. Copied are panels that are partly attended (their other rows get zeros as values: a weight of zero
// does not take out what is not finite), panels with slots that lie in other rows, and all of an int8 cache, whose
// integers bf16 holds exactly.
struct Chunk {
  const char* keys[kChunkPanels];
  ValueRun runs[kChunkPanels];
  std::int64_t count = 0, run_count = 0;
  alignas(64) char k[kChunkPanels * kKvPanel * kHeadDimMost * 4];
  alignas(64) char v[kChunkPanels * kKvPanel * kHeadDimMost * 4];
  alignas(64) float key_scales[kChunkPanels * kKvPanel], value_scales[kChunkPanels * kKvPanel];  // of an int8 cache

  void take(const Job& job, std::int64_t head, std::int64_t first, std::int64_t panels);

 private:
  void take_panel(const Job& job, std::int64_t head, std::int64_t at, std::int64_t first);
  void take_int8(const Job& job, std::int64_t head, std::int64_t at, std::int64_t first);
  void add_run(const char* values, std::int64_t at, std::int64_t units, std::int64_t stride);
};

void Chunk::take(const Job& job, std::int64_t head, std::int64_t first, std::int64_t panels) {
  count = panels;
  run_count = 0;
  for (std::int64_t at = 0; at < count; ++at) {
    if (job.layout.dtype == Dtype::int8)
      take_int8(job, head, at, first);
    else
      take_panel(job, head, at, first);
  }
}

// Neighbouring panels are one run.
void Chunk::add_run(const char* values, std::int64_t at, std::int64_t units, std::int64_t stride) {
  ValueRun* last = run_count == 0 ? nullptr : &runs[run_count - 1];
  if (last != nullptr && last->stride == stride && last->values + last->units * kKvPanel * 4 == values)
    last->units += units;
  else
    runs[run_count++] = {values, at * kKvPanel, units, stride};
}

// The slots of a panel that lie in other rows.
std::span<const MovedSlot> moved_of(const CachedView& kv, std::int64_t panel) {
  const auto before = [](const MovedSlot& moved, std::int64_t slot) { return moved.slot < slot; };
  const MovedSlot* const end = kv.moved + kv.moved_count;
  const MovedSlot* const from = std::lower_bound(kv.moved, end, panel * kKvPanel, before);
  return {from, std::lower_bound(from, end, (panel + 1) * kKvPanel, before)};
}

// Values of slot `r` of a copied panel, 4-byte units of `unit` values each: [panel of head_dim][units][32].
std::int64_t copied_value_at(std::int64_t r, std::int64_t d, std::int64_t unit) {
  return d / kKvPanel * kKvPanel * kKvPanel + (r / unit * kKvPanel + d % kKvPanel) * unit + r % unit;
}
std::int64_t copied_key_at(std::int64_t r, std::int64_t d, std::int64_t unit) {
  return (d / unit * kKvPanel + r) * unit + d % unit;
}

template <typename T>
void patch(const KvLayout& l, const CachedView& kv, std::int64_t head, const MovedSlot& moved, T* k, T* v) {
  const T* keys = static_cast<const T*>(kv.k);
  const T* values = static_cast<const T*>(kv.v);
  const std::int64_t r = moved.slot % kKvPanel, unit = l.unit();
  for (std::int64_t d = 0; d < l.head_dim; ++d) {
    k[copied_key_at(r, d, unit)] = keys[l.key_at(head, moved.row, d)];
    v[copied_value_at(r, d, unit)] = values[l.value_at(head, moved.row, d)];
  }
}

template <typename T>
void clear_values(const KvLayout& l, std::uint32_t mask, T* v) {
  for (std::int64_t r = 0; r < kKvPanel; ++r)
    for (std::int64_t d = 0; (mask >> r & 1) == 0 && d < l.value_panels() * kKvPanel; ++d)
      v[copied_value_at(r, d, l.unit())] = 0;
}

void Chunk::take_panel(const Job& job, std::int64_t head, std::int64_t at, std::int64_t first) {
  const KvLayout& l = job.layout;
  const CachedView& kv = job.args.kv;
  const std::int64_t panel = job.panels[first + at], units = kKvPanel / l.unit(),
                     key_bytes = l.key_units() * kKvPanel * 4;
  const std::int64_t value_bytes = units * kKvPanel * 4, stride = l.rows / kKvPanel * value_bytes;
  const char* from_k = static_cast<const char*>(kv.k) + head * l.key_scales() / l.heads + panel * key_bytes;
  const char* from_v = static_cast<const char*>(kv.v) + head * l.value_scales() / l.heads + panel * value_bytes;
  const std::uint32_t mask = job.masks[first + at];
  const std::span<const MovedSlot> moved = moved_of(kv, panel);
  keys[at] = from_k;
  if (moved.empty() && (mask == ~std::uint32_t{0} || kv.attended == nullptr)) return add_run(from_v, at, units, stride);
  char* to_k = k + at * key_bytes;
  char* to_v = v + at * l.value_panels() * value_bytes;
  for (std::int64_t d = 0; d < l.value_panels(); ++d)
    std::memcpy(to_v + d * value_bytes, from_v + d * stride, static_cast<std::size_t>(value_bytes));
  if (!moved.empty()) {
    std::memcpy(to_k, from_k, static_cast<std::size_t>(key_bytes));
    keys[at] = to_k;
  }
  for (const MovedSlot& each : moved) {
    if (l.dtype == Dtype::f32)
      patch(l, kv, head, each, reinterpret_cast<float*>(to_k), reinterpret_cast<float*>(to_v));
    else
      patch(l, kv, head, each, reinterpret_cast<std::uint16_t*>(to_k), reinterpret_cast<std::uint16_t*>(to_v));
  }
  if (l.dtype == Dtype::f32)
    clear_values(l, mask, reinterpret_cast<float*>(to_v));
  else
    clear_values(l, mask, reinterpret_cast<std::uint16_t*>(to_v));
  add_run(to_v, at, units, value_bytes);
}

void Chunk::take_int8(const Job& job, std::int64_t head, std::int64_t at, std::int64_t first) {
  const KvLayout& l = job.layout;
  const CachedView& kv = job.args.kv;
  const auto* from_k = static_cast<const std::int8_t*>(kv.k);
  const auto* from_v = static_cast<const std::int8_t*>(kv.v);
  const auto* k_scales = reinterpret_cast<const float*>(from_k + l.key_scales()) + head * l.rows;
  const auto* v_scales = reinterpret_cast<const float*>(from_v + l.value_scales()) + head * l.rows;
  const std::int64_t panel = job.panels[first + at], row = panel * kKvPanel, panel_values = kKvPanel * kKvPanel;
  const std::uint32_t mask = job.masks[first + at];
  auto* to_k = reinterpret_cast<std::uint16_t*>(k + at * l.key_units() * kKvPanel * 4);
  auto* to_v = reinterpret_cast<std::uint16_t*>(v + at * l.value_panels() * panel_values * 2);
  job.kernels.widen({from_k + l.key_at(head, row, 0), l.key_units() * kKvPanel * 2, to_k});
  for (std::int64_t d = 0; d < l.value_panels(); ++d)
    job.kernels.widen({from_v + l.value_at(head, row, d * kKvPanel), panel_values, to_v + d * panel_values});
  std::copy_n(k_scales + row, kKvPanel, key_scales + at * kKvPanel);
  std::copy_n(v_scales + row, kKvPanel, value_scales + at * kKvPanel);
  for (const MovedSlot& each : moved_of(kv, panel)) {
    const std::int64_t r = each.slot % kKvPanel;
    for (std::int64_t d = 0; d < l.head_dim; ++d) {
      to_k[copied_key_at(r, d, 2)] = f32_to_bf16(from_k[l.key_at(head, each.row, d)]);
      to_v[copied_value_at(r, d, 2)] = f32_to_bf16(from_v[l.value_at(head, each.row, d)]);
    }
    key_scales[at * kKvPanel + r] = k_scales[each.row];
    value_scales[at * kKvPanel + r] = v_scales[each.row];
  }
  for (std::int64_t r = 0; r < kKvPanel; ++r)
    if ((mask >> r & 1) == 0) value_scales[at * kKvPanel + r] = 0;
  if (mask != ~std::uint32_t{0}) clear_values(l, mask, to_v);
  keys[at] = reinterpret_cast<const char*>(to_k);
  add_run(reinterpret_cast<const char*>(to_v), at, kKvPanel / 2, panel_values * 2);
}

// One task's memory.
struct Task {
  const Job& job;
  std::int64_t head, first_query, queries;
  std::int64_t tile_count, pitch;
  const Chunk* chunk = nullptr;  // the one in hand
  alignas(64) char q[kBlockQueries * kQueryPitchBytes];
  alignas(64) float out[kBlockQueries * kHeadDimMost];
  alignas(64) float scores[kBlockQueries * kChunkPanels * kPanelColumns];  // a tile's behind another's
  alignas(64) float weights[kBlockQueries * kWeightPitch];
  float top[kBlockQueries], sum[kBlockQueries], keep[kBlockQueries];

  Task(const Job& of, std::int64_t head_of, std::int64_t block) : job(of), head(head_of) {
    first_query = block * kBlockQueries;
    queries = std::min(kBlockQueries, of.args.rows - first_query);
    tile_count = ceil_div(queries, of.kernels.rows);
    pitch = of.layout.value_panels() * kKvPanel;
  }
  [[nodiscard]] std::int64_t begin_of(std::int64_t tile) const { return queries * tile / tile_count; }
  [[nodiscard]] const char* keys() const {
    return static_cast<const char*>(job.args.kv.k) + head * job.layout.key_scales() / job.layout.heads;
  }
  [[nodiscard]] const char* values() const {
    return static_cast<const char*>(job.args.kv.v) + head * job.layout.value_scales() / job.layout.heads;
  }
  void begin();
  [[nodiscard]] std::int64_t rows_of(std::int64_t tile) const { return begin_of(tile + 1) - begin_of(tile); }
  [[nodiscard]] float* scores_of(std::int64_t tile) { return scores + begin_of(tile) * chunk->count * kPanelColumns; }
  void score(std::int64_t panel, const char* ahead);
  void weigh(std::int64_t first);
  void accumulate(std::int64_t panel, const char* ahead);
  void pass(std::int64_t first);
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
    job.kernels.convert[how](from, job.args.ldq, rows, job.args.head_dim, q + row * kQueryPitchBytes);
  }
}

// All tiles over the keys of one panel of the chunk. Each fetches its share of what lies at `ahead`.
void Task::score(std::int64_t panel, const char* ahead) {
  const std::int64_t units = job.layout.key_units(), step = kKvPanel * 4 / tile_count;
  for (std::int64_t tile = 0; tile < tile_count; ++tile)
    job.kernels.scores[static_cast<std::size_t>(job.product)](
        {q + begin_of(tile) * kQueryPitchBytes, rows_of(tile), chunk->keys[panel], units,
         scores_of(tile) + panel * rows_of(tile) * kPanelColumns, ahead + tile * step * units, step});
}

// `first`: the chunk's first panel among the job's.
void Task::weigh(std::int64_t first) {
  const bool is_int8 = job.layout.dtype == Dtype::int8;
  const std::int64_t count = chunk->count;
  for (std::int64_t tile = 0; tile < tile_count; ++tile) {
    const std::int64_t row = begin_of(tile), rows = rows_of(tile);
    float* to_weigh = scores_of(tile);
    if (first + count == job.panel_count && job.args.kv.last_weight != 1.0f) {
      const std::int64_t last = (count - 1) * kPanelColumns, lane = 31 - __builtin_clz(job.masks[job.panel_count - 1]);
      float more = std::log(job.args.kv.last_weight) / job.args.scale;
      if (is_int8) more /= chunk->key_scales[last + lane];  // scores are still of integers
      for (std::int64_t r = 0; r < rows; ++r) to_weigh[last * rows + r * kPanelColumns + lane] += more;
    }
    job.kernels.weigh[static_cast<std::size_t>(job.product)](
        {to_weigh, rows, count, job.masks + first, is_int8 ? chunk->key_scales : nullptr,
         is_int8 ? chunk->value_scales : nullptr, job.args.scale * kLog2e, top + row, sum + row, keep + row,
         job.args.rounding == Rounding::bf16, weights + row * kWeightPitch});
  }
}

// All tiles over the chunk's values of one panel along head_dim.
void Task::accumulate(std::int64_t panel, const char* ahead) {
  const KvLayout& l = job.layout;
  const std::int64_t units = chunk->count * kKvPanel / l.unit(), step = kKvPanel * 4 / tile_count;
  const std::int64_t columns = std::min(kKvPanel, l.head_dim - panel * kKvPanel);
  for (std::int64_t tile = 0; tile < tile_count; ++tile) {
    const std::int64_t row = begin_of(tile);
    job.kernels.accumulate[static_cast<std::size_t>(job.product)](
        {weights + row * kWeightPitch, rows_of(tile), chunk->runs, chunk->run_count, panel, columns, keep + row,
         out + row * pitch + panel * kKvPanel, pitch, ahead + tile * step * units, step});
  }
}

// The chunk in hand, whose first panel is number `first` of the job's. What comes next is fetched meanwhile: of an int8
// cache the next chunk's integers, otherwise the next panel of keys or values.
void Task::pass(std::int64_t first) {
  const KvLayout& l = job.layout;
  const std::int64_t count = chunk->count, next = first + count < job.panel_count ? job.panels[first + count] : 0;
  const char* next_keys = keys() + next * l.key_units() * kKvPanel * l.unit_bytes();
  const char* next_values = values() + next * kKvPanel * kKvPanel * bytes_of(l.dtype);
  const std::int64_t next_stride = l.rows * kKvPanel * bytes_of(l.dtype);
  const bool is_int8 = l.dtype == Dtype::int8;
  for (std::int64_t panel = 0; panel < count; ++panel) {
    const char* ahead = panel + 1 < count ? chunk->keys[panel + 1] : chunk->runs[0].values;
    score(panel, is_int8 ? next_keys + panel * l.key_units() * kKvPanel * l.unit_bytes() : ahead);
  }
  weigh(first);
  for (std::int64_t panel = 0; panel < l.value_panels(); ++panel) {
    const bool is_last = panel + 1 == l.value_panels();
    const char* ahead = is_last ? next_keys : chunk->runs[0].values + (panel + 1) * chunk->runs[0].stride;
    accumulate(panel, is_int8 ? next_values + panel * next_stride : ahead);
  }
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

void run_task(const Job& job, std::int64_t number, Chunk* chunk) {
  const std::int64_t stretch = number % job.stretches, block = number / job.stretches % job.blocks;
  Task task(job, number / job.stretches / job.blocks, block);
  task.begin();
  task.chunk = chunk;
  const std::int64_t chunks = ceil_div(job.panel_count, kChunkPanels);
  const std::int64_t begin = chunks * stretch / job.stretches, end = chunks * (stretch + 1) / job.stretches;
  for (std::int64_t number_of = begin; number_of < end; ++number_of) {
    const std::int64_t first = number_of * kChunkPanels, count = std::min(kChunkPanels, job.panel_count - first);
    chunk->take(job, task.head, first, count);
    task.pass(first);
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

void cached_attention(ThreadPool& pool, const AttentionKernels& kernels, const Ops::CachedAttention& args,
                      void* scratch) {
  assert(args.rows >= 1 && args.head_dim >= 1 && args.head_dim <= kHeadDimMost);
  assert(args.kv.dtype != Dtype::f16 && args.kv.rows % kKvPanel == 0);
  Job job{kernels,
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
  const std::int64_t tasks = args.heads * job.blocks * job.stretches;
  const std::int64_t multiplies =
      2 * args.heads * args.rows * job.panel_count * kKvPanel * args.head_dim / job.layout.unit();
  pool.parallel_for(tasks, multiplies < kSerialMultiplies ? tasks : 1, [&](std::int64_t begin, std::int64_t end) {
    Chunk chunk;
    for (std::int64_t task = begin; task < end; ++task) run_task(job, task, &chunk);
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
