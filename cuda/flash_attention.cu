// Attention of one pass's queries over the cached rows that they attend to, with an online softmax, and the same cut
// along the keys for passes of few queries.
//
//   y = softmax(scale * q k^T + log(w)) v per head, w = last_weight for the last attended row, else 1
//
//   operand    shape                           dtype  alignment                       aliasing
//   q          [batch, rows, heads, 128], ldq  bf16   16 bytes, ldq a multiple of 8   may be y
//   k, v       [heads, plane_rows, 128]        bf16   16 bytes                        none; only attended rows are read
//   or k8, v8  [heads, plane_rows, 128]        s8     16 bytes                        none; a vector is its integers
//     scales   [heads, plane_rows]             f32    4 bytes                         times its scale
//   rows       [count]                         s32    4 bytes                         none; null: rows 0 .. count-1
//   y          [batch, rows, heads, 128], ldy  bf16   4 bytes, ldy even               may be q
//   workspace  [splits, batch, rows, heads, 130] f32  16 bytes                        none; with splits > 1
//
//   block  16 queries a warp, 4 warps (video) or 2 (action), one head, one guidance row, a share of the keys
//   tile   64 keys: their rows of k and v are gathered by cp.async, two tiles deep, chunks of sixteen bytes swizzled;
//          s = q k^T as mma m16n8k16: lane l = 4 g + t of a warp has queries g and g + 8, of each 8 keys 2t and 2t + 1;
//          these sums are, rounded to bfloat16, just the left fragments of the product with v
//
// A tile of int8 comes as it is, two deep, and becomes bfloat16 in a third place, exactly; its keys' scales multiply
// the scores and its values' scales the weights, so that half the bytes are read and nothing but the cache is less
// exact. A share that has no tile leaves a sum of zero, and nothing of its values is read. Bytes: 512 (int8: 264) count
// heads of k and v per block of queries (the second-level cache serves the later ones), q and y; FLOPs: 512 rows count
// heads. Bound by arithmetic for video, by the cache's bytes for action passes. SMs: 8.0 and later. Scores, sums and
// results in float32; weights are rounded to bfloat16 before they meet v, as the contract allows: an error of 2^-9 of
// each weight, so of about 2^-9 of a result's own size or less.
#include "cuda/device.h"
#include "cuda/ops.h"

namespace premotor::cuda {
namespace {

constexpr int kHeadDim = 128;
constexpr int kRowChunks = kHeadDim * 2 / 16;
constexpr int kKeys = 64;  // of a tile
constexpr int kQueriesOfWarp = 16;
constexpr int kKeyTiles = kKeys / 8, kValueTiles = kHeadDim / 8, kDepth = kHeadDim / 16;
constexpr int kPartFloats = kHeadDim + 2;  // values, the largest score, the sum of weights
constexpr int kStages = 2;
constexpr int kTileChunks = kKeys * kRowChunks;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kNone = -INFINITY;

struct Softmax {
  float values[kValueTiles][4];  // sums of weights times v
  float most[2], sum[2];         // of query g and g + 8: the largest score, in powers of 2, and the lane's weights
};

__device__ __forceinline__ int chunk_of(int row, int chunk) { return row * kRowChunks + (chunk ^ (row & 7)); }

// Queries; keys and values of two tiles; of int8 one tile as bfloat16 before them, and their scales behind.
template <int kWarps, bool is_quantised>
struct Memory {
  static constexpr int kThreads = kWarps * kLanes, kQueries = kWarps * kQueriesOfWarp;
  static constexpr int kQueryChunks = kQueries * kRowChunks;
  static constexpr int kArrivedChunks = is_quantised ? kTileChunks / 2 : kTileChunks;  // of keys, or of values
  static constexpr int kArrivedAt = kQueryChunks + (is_quantised ? 2 * kTileChunks : 0);
  static constexpr int kChunks = kArrivedAt + kStages * 2 * kArrivedChunks;
  static constexpr int kScales = is_quantised ? kStages * 2 * kKeys : 0;
  static constexpr std::uint32_t kScalesAt = static_cast<std::uint32_t>(kChunks) * sizeof(Chunk);
  static constexpr std::uint32_t kBytes = kScalesAt + static_cast<std::uint32_t>(kScales) * sizeof(float);

  // Where a tile's keys come to, and behind them its values; its keys' scales, and behind them its values'.
  __device__ static __forceinline__ int arrived(std::int64_t tile) {
    return kArrivedAt + static_cast<int>(tile % kStages) * 2 * kArrivedChunks;
  }
  __device__ static __forceinline__ int scales(std::int64_t tile) {
    return static_cast<int>(tile % kStages) * 2 * kKeys;
  }
};

// Gathers the keys and values of a tile; rows behind the last become zero.
template <int kWarps>
__device__ __forceinline__ void copy_tile(const AttendedRows& kv, std::int64_t head_row, std::int64_t tile,
                                          const Shared<Chunk>& shared) {
  using M = Memory<kWarps, false>;
  const int base = M::arrived(tile);
  for (int number = static_cast<int>(threadIdx.x); number < kTileChunks; number += M::kThreads) {
    const int key = number / kRowChunks, chunk = number % kRowChunks;
    const std::int64_t i = tile * kKeys + key;
    const bool is_there = i < kv.count;
    const std::int64_t row = head_row + (!is_there ? 0 : kv.rows == nullptr ? i : kv.rows[i]);
    const std::int64_t at = row * kHeadDim + chunk * 8;
    copy_async(shared, base + chunk_of(key, chunk), kv.k + at, is_there ? 16 : 0);
    copy_async(shared, base + kTileChunks + chunk_of(key, chunk), kv.v + at, is_there ? 16 : 0);
  }
}

// The same of int8, a row's chunks in order; scales of rows behind the last are zero.
template <int kWarps>
__device__ __forceinline__ void copy_tile_int8(const AttendedRows& kv, std::int64_t head_row, std::int64_t tile,
                                               const Shared<Chunk>& shared, const Shared<float>& scales) {
  using M = Memory<kWarps, true>;
  const int base = M::arrived(tile), first_scale = M::scales(tile);
  for (int number = static_cast<int>(threadIdx.x); number < M::kArrivedChunks; number += M::kThreads) {
    const int key = number / (kRowChunks / 2), chunk = number % (kRowChunks / 2);
    const std::int64_t i = tile * kKeys + key;
    const bool is_there = i < kv.count;
    const std::int64_t row = head_row + (!is_there ? 0 : kv.rows == nullptr ? i : kv.rows[i]);
    const std::int64_t at = row * kHeadDim + chunk * 16;
    copy_async(shared, base + number, kv.k8 + at, is_there ? 16 : 0);
    copy_async(shared, base + M::kArrivedChunks + number, kv.v8 + at, is_there ? 16 : 0);
    if (chunk != 0) continue;
    scales.store(first_scale + key, is_there ? kv.k_scales[row] : 0.0f);
    scales.store(first_scale + kKeys + key, is_there ? kv.v_scales[row] : 0.0f);
  }
}

// Four int8 values as bfloat16, exactly.
__device__ __forceinline__ void widen_int8(std::uint32_t word, std::uint32_t* to) {
  float v[4];
  PREMOTOR_UNROLL
  for (int i = 0; i < 4; ++i) v[i] = static_cast<float>(static_cast<std::int8_t>(word >> (8 * i)));
  to[0] = pack_bf16(v[0], v[1]);
  to[1] = pack_bf16(v[2], v[3]);
}

// A tile that has come, as bfloat16 behind the queries.
template <int kWarps>
__device__ __forceinline__ void widen_tile(std::int64_t tile, const Shared<Chunk>& shared) {
  using M = Memory<kWarps, true>;
  const int base = M::arrived(tile);
  for (int number = static_cast<int>(threadIdx.x); number < 2 * M::kArrivedChunks; number += M::kThreads) {
    const int part = number / M::kArrivedChunks, of_part = number % M::kArrivedChunks;
    const int key = of_part / (kRowChunks / 2), chunk = of_part % (kRowChunks / 2);
    const Chunk from = shared.load(base + number);
    Chunk low, high;
    widen_int8(from.word[0], low.word);
    widen_int8(from.word[1], low.word + 2);
    widen_int8(from.word[2], high.word);
    widen_int8(from.word[3], high.word + 2);
    const int to = M::kQueryChunks + part * kTileChunks;
    shared.store(to + chunk_of(key, 2 * chunk), low);
    shared.store(to + chunk_of(key, 2 * chunk + 1), high);
  }
}

// Queries of the block, zero behind the last, through shared memory into the left fragments.
template <int kWarps, bool is_quantised>
__device__ __forceinline__ void load_queries(const FlashAttention& a, const std::uint16_t* q, std::int64_t first,
                                             const Shared<Chunk>& shared, std::uint32_t (&fragments)[kDepth][4]) {
  using M = Memory<kWarps, is_quantised>;
  const int warp = static_cast<int>(threadIdx.x / kLanes), lane = static_cast<int>(threadIdx.x % kLanes);
  for (int number = static_cast<int>(threadIdx.x); number < M::kQueryChunks; number += M::kThreads) {
    const int query = number / kRowChunks, chunk = number % kRowChunks;
    const bool is_there = first + query < a.rows;
    copy_async(shared, chunk_of(query, chunk), is_there ? q + (first + query) * a.ldq + chunk * 8 : q,
               is_there ? 16 : 0);
  }
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  PREMOTOR_UNROLL
  for (int k = 0; k < kDepth; ++k)
    load_matrices(fragments[k], shared, chunk_of(warp * kQueriesOfWarp + lane % 16, 2 * k + lane / 16));
}

// Multiplies what a warp has for each key of a tile.
__device__ __forceinline__ void scale_keys(const Shared<float>& scales, int first, float (&of_keys)[kKeyTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  PREMOTOR_UNROLL
  for (int j = 0; j < kKeyTiles; ++j) {
    const float even = scales.load(first + j * 8 + lane % 4 * 2), odd = scales.load(first + j * 8 + lane % 4 * 2 + 1);
    of_keys[j][0] *= even;
    of_keys[j][1] *= odd;
    of_keys[j][2] *= even;
    of_keys[j][3] *= odd;
  }
}

// Products of a warp's queries and a tile's keys.
__device__ __forceinline__ void score(const std::uint32_t (&q)[kDepth][4], const Shared<Chunk>& shared, int base,
                                      float (&scores)[kKeyTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  PREMOTOR_UNROLL
  for (int j = 0; j < kKeyTiles; j += 2) {
    PREMOTOR_UNROLL
    for (int e = 0; e < 4; ++e) scores[j][e] = scores[j + 1][e] = 0;
    PREMOTOR_UNROLL
    for (int k = 0; k < kDepth; ++k) {
      std::uint32_t keys[4];
      load_matrices(keys, shared, base + chunk_of(j * 8 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
      multiply_bf16(scores[j], q[k], keys[0], keys[1]);
      multiply_bf16(scores[j + 1], q[k], keys[2], keys[3]);
    }
  }
}

// They become scores in powers of 2; none behind the last key.
__device__ __forceinline__ void finish_scores(std::int64_t left, float scale, float last_weight,
                                              float (&scores)[kKeyTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  const float more = last_weight == 1.0f ? 0.0f : log2f(last_weight);
  PREMOTOR_UNROLL
  for (int j = 0; j < kKeyTiles; ++j) PREMOTOR_UNROLL
  for (int e = 0; e < 4; ++e) {
    const std::int64_t key = j * 8 + lane % 4 * 2 + e % 2;
    float s = scores[j][e] * scale;
    if (key == left - 1) s += more;
    scores[j][e] = key < left ? s : kNone;
  }
}

// Scores become weights against the largest score so far, to which the sums are brought.
__device__ __forceinline__ void weigh(float (&scores)[kKeyTiles][4], Softmax& softmax) {
  PREMOTOR_UNROLL
  for (int half = 0; half < 2; ++half) {
    float most = softmax.most[half];
    PREMOTOR_UNROLL
    for (int j = 0; j < kKeyTiles; ++j) most = fmaxf(most, fmaxf(scores[j][half * 2], scores[j][half * 2 + 1]));
    // The four lanes that share a query.
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
    const float shrink = exp2f(softmax.most[half] - most);
    softmax.most[half] = most;
    softmax.sum[half] *= shrink;
    PREMOTOR_UNROLL
    for (int j = 0; j < kKeyTiles; ++j) PREMOTOR_UNROLL
    for (int e = half * 2; e < half * 2 + 2; ++e) {
      scores[j][e] = exp2f(scores[j][e] - most);
      softmax.sum[half] += scores[j][e];
    }
    PREMOTOR_UNROLL
    for (int j = 0; j < kValueTiles; ++j) {
      softmax.values[j][half * 2] *= shrink;
      softmax.values[j][half * 2 + 1] *= shrink;
    }
  }
}

__device__ __forceinline__ void add_values(const float (&weights)[kKeyTiles][4], const Shared<Chunk>& shared, int base,
                                           Softmax& softmax) {
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  PREMOTOR_UNROLL
  for (int k = 0; k < kKeys / 16; ++k) {
    const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
    const std::uint32_t left[4] = {pack_bf16(low[0], low[1]), pack_bf16(low[2], low[3]), pack_bf16(high[0], high[1]),
                                   pack_bf16(high[2], high[3])};
    PREMOTOR_UNROLL
    for (int j = 0; j < kValueTiles; j += 2) {
      std::uint32_t v[4];
      load_matrices_transposed(v, shared, base + chunk_of(k * 16 + lane % 16, j + lane / 16));
      multiply_bf16(softmax.values[j], left, v[0], v[1]);
      multiply_bf16(softmax.values[j + 1], left, v[2], v[3]);
    }
  }
}

// Results of a whole block of keys, or the part of a split.
__device__ __forceinline__ void put(const FlashAttention& a, std::int64_t batch_row, std::int64_t head, int split,
                                    int half, bool is_there, Softmax& softmax) {
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  float sum = softmax.sum[half];
  sum += __shfl_xor_sync(kAllLanes, sum, 1);
  sum += __shfl_xor_sync(kAllLanes, sum, 2);
  if (!is_there) return;
  const int column = lane % 4 * 2;
  if (a.splits == 1) {
    std::uint16_t* y = a.y + batch_row * a.ldy + head * kHeadDim + column;
    const float inverse = 1.0f / sum;
    PREMOTOR_UNROLL
    for (int j = 0; j < kValueTiles; ++j)
      store4(y + j * 8, pack_bf16(softmax.values[j][half * 2] * inverse, softmax.values[j][half * 2 + 1] * inverse));
    return;
  }
  const std::int64_t number = (split * a.batch * a.rows + batch_row) * a.heads + head;
  float* part = static_cast<float*>(a.workspace) + number * kPartFloats;
  if (lane % 4 == 0) part[kHeadDim] = softmax.most[half];
  if (lane % 4 == 0) part[kHeadDim + 1] = sum;
  if (sum == 0.0f) return;
  PREMOTOR_UNROLL
  for (int j = 0; j < kValueTiles; ++j) {
    part[j * 8 + column] = softmax.values[j][half * 2];
    part[j * 8 + column + 1] = softmax.values[j][half * 2 + 1];
  }
}

// Blocks: x queries, y heads, z guidance rows and, fastest, splits.
template <int kWarps, bool is_quantised>
__global__ void __launch_bounds__(kWarps* kLanes) flash_attention_kernel(const FlashAttention a) {
  using M = Memory<kWarps, is_quantised>;
  const int split = static_cast<int>(blockIdx.z) % a.splits, batch = static_cast<int>(blockIdx.z) / a.splits;
  const std::int64_t head = blockIdx.y, first = static_cast<std::int64_t>(blockIdx.x) * M::kQueries;
  const AttendedRows& kv = a.attended[batch];
  const std::int64_t head_row = head * a.plane_rows[batch], tiles = (kv.count + kKeys - 1) / kKeys;
  const std::int64_t begin = tiles * split / a.splits, end = tiles * (split + 1) / a.splits;
  const Shared<Chunk> shared(0, M::kChunks);
  const Shared<float> scales(M::kScalesAt, M::kScales);
  const auto copy = [&](std::int64_t tile) {
    if constexpr (is_quantised)
      copy_tile_int8<kWarps>(kv, head_row, tile, shared, scales);
    else
      copy_tile<kWarps>(kv, head_row, tile, shared);
  };
  std::uint32_t q[kDepth][4];
  load_queries<kWarps, is_quantised>(a, a.q + batch * a.rows * a.ldq + head * kHeadDim, first, shared, q);
  Softmax softmax{{}, {kNone, kNone}, {0, 0}};
  if (begin < end) copy(begin);
  commit_copies();
  for (std::int64_t tile = begin; tile < end; ++tile) {
    if (tile + 1 < end) copy(tile + 1);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    if constexpr (is_quantised) {
      widen_tile<kWarps>(tile, shared);
      __syncthreads();
    }
    const int base = is_quantised ? M::kQueryChunks : M::arrived(tile);
    float scores[kKeyTiles][4];
    score(q, shared, base, scores);
    if constexpr (is_quantised) scale_keys(scales, M::scales(tile), scores);
    finish_scores(kv.count - tile * kKeys, a.scale * kLog2E, kv.last_weight, scores);
    weigh(scores, softmax);
    if constexpr (is_quantised) scale_keys(scales, M::scales(tile) + kKeys, scores);
    add_values(scores, shared, base + kTileChunks, softmax);
    // The next turn copies over this tile.
    __syncthreads();
  }
  wait_copies<0>();
  const int warp = static_cast<int>(threadIdx.x / kLanes), lane = static_cast<int>(threadIdx.x % kLanes);
  PREMOTOR_UNROLL
  for (int half = 0; half < 2; ++half) {
    const std::int64_t row = first + warp * kQueriesOfWarp + lane / 4 + half * 8;
    put(a, batch * a.rows + row, head, split, half, row < a.rows, softmax);
  }
}

// One warp per query and head adds the parts of the splits, in ascending order; a lane has four values.
__global__ void __launch_bounds__(kLanes) join_splits_kernel(const FlashAttention a) {
  const std::int64_t number = blockIdx.x, stride = a.batch * a.rows * a.heads * kPartFloats;
  const float* part = static_cast<const float*>(a.workspace) + number * kPartFloats;
  const int d = static_cast<int>(threadIdx.x) * 4;
  float most = kNone, sum = 0, values[4] = {};
  for (int split = 0; split < a.splits; ++split) most = fmaxf(most, part[split * stride + kHeadDim]);
  for (int split = 0; split < a.splits; ++split, part += stride) {
    if (part[kHeadDim + 1] == 0.0f) continue;
    const float weight = exp2f(part[kHeadDim] - most);
    sum += weight * part[kHeadDim + 1];
    PREMOTOR_UNROLL
    for (int i = 0; i < 4; ++i) values[i] += weight * part[d + i];
  }
  std::uint16_t* y = a.y + number / a.heads * a.ldy + number % a.heads * kHeadDim + d;
  store4(y, pack_bf16(values[0] / sum, values[1] / sum));
  store4(y + 2, pack_bf16(values[2] / sum, values[3] / sum));
}

template <int kWarps, bool is_quantised>
Outcome launch_attention(const FlashAttention& a, Stream stream) {
  using M = Memory<kWarps, is_quantised>;
  const LaunchShape shape{{static_cast<std::uint32_t>(blocks_of(a.rows, M::kQueries)),
                           static_cast<std::uint32_t>(a.heads), static_cast<std::uint32_t>(a.batch * a.splits)},
                          M::kThreads,
                          M::kBytes,
                          stream};
  const Outcome outcome = launch(flash_attention_kernel<kWarps, is_quantised>, shape, a);
  if (outcome != Outcome::launched || a.splits == 1) return outcome;
  const LaunchShape join{{static_cast<std::uint32_t>(a.batch * a.rows * a.heads), 1, 1}, kLanes, 0, stream};
  return launch(join_splits_kernel, join, a);
}

constexpr int kVideoWarps = 4, kActionWarps = 2;

template <bool is_quantised>
Outcome launch_attention(const FlashAttention& a, Stream stream) {
  return a.rows <= kActionWarps * kQueriesOfWarp ? launch_attention<kActionWarps, is_quantised>(a, stream)
                                                 : launch_attention<kVideoWarps, is_quantised>(a, stream);
}

// One kind of cache, with all that belongs to it.
bool is_whole(const AttendedRows& kv, bool is_quantised) {
  if (!is_quantised) return kv.k != nullptr && kv.v != nullptr && kv.k8 == nullptr;
  return kv.k8 != nullptr && kv.v8 != nullptr && kv.k_scales != nullptr && kv.v_scales != nullptr;
}

}  // namespace

std::int64_t attention_workspace_bytes(std::int64_t rows, std::int64_t heads, int batch, int splits) {
  return splits == 1 ? 0 : splits * batch * rows * heads * kPartFloats * 4;
}

int plan_attention_splits(std::int64_t rows, std::int64_t heads, int batch, std::int64_t attended,
                          int multiprocessors) {
  const std::int64_t queries = (rows <= kActionWarps * kQueriesOfWarp ? kActionWarps : kVideoWarps) * kQueriesOfWarp;
  const std::int64_t blocks = blocks_of(rows, queries) * heads * batch;
  // Two blocks a multiprocessor; a split has four tiles at least, or joining costs more than it gains.
  const std::int64_t wanted = blocks == 0 ? 1 : 2 * multiprocessors / blocks, most = blocks_of(attended, kKeys) / 4;
  const std::int64_t splits = wanted < most ? wanted : most;
  return splits < 1 ? 1 : (splits > 32 ? 32 : static_cast<int>(splits));
}

Outcome flash_attention(const FlashAttention& a, Stream stream) {
  if (a.rows == 0) return Outcome::launched;
  if (a.rows < 0 || a.rows > (1 << 20) || a.heads < 1 || a.heads > 1024 || a.batch < 1 || a.batch > kGuidanceRows ||
      a.splits < 1 || a.splits > 64 || a.ldq < a.heads * kHeadDim || a.ldy < a.heads * kHeadDim || a.y == nullptr ||
      (a.splits > 1 && a.workspace == nullptr))
    return Outcome::bad_shape;
  const bool is_quantised = a.attended[0].k8 != nullptr;
  for (int b = 0; b < a.batch; ++b) {
    const AttendedRows& kv = a.attended[b];
    if (kv.count < 1 || kv.count > a.plane_rows[b] || !(kv.last_weight > 0) || !is_whole(kv, is_quantised))
      return Outcome::bad_shape;
    if (!is_aligned(kv.k, 16) || !is_aligned(kv.v, 16) || !is_aligned(kv.k8, 16) || !is_aligned(kv.v8, 16))
      return Outcome::misaligned;
  }
  if (!is_aligned(a.q, 16) || a.ldq % 8 != 0 || !is_aligned(a.y, 4) || a.ldy % 2 != 0 || !is_aligned(a.workspace, 16))
    return Outcome::misaligned;
  return is_quantised ? launch_attention<true>(a, stream) : launch_attention<false>(a, stream);
}

}  // namespace premotor::cuda
