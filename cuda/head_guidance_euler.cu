// The end of a denoising pass: last norm, head, guidance and the step of the solver, from the residual stream to the
// next pass's input without anything in between in memory.
//
//   n = norm(h) (layer_norm_modulate.cu), rounded;  o = round(n w^T + bias), of each guidance row
//   v = round(o1 + round(guidance * round(o0 - o1))) with guidance, o0 without
//   x[t, feature_map[j]] = round(x[t, feature_map[j]] + round(v[t, j] * step))   for tokens t >= frozen_tokens
//
//   operand      shape                             dtype  alignment                        aliasing
//   h            [guidance rows, tokens, dim], ldh bf16   16 bytes, ldh a multiple of 8    none
//   norm         as layer_norm_modulate.cu; row_map [tokens]
//   w            [features, dim], ldw              bf16   16 bytes, ldw a multiple of 8    none; features <= 192
//   bias         [features]                        f32    4 bytes                          none
//   feature_map  [features]                        s32    4 bytes                          none; -1: an unused channel
//   x            [tokens, features], ldx           f32    4 bytes                          none
//   velocity     [tokens, features]                f32    4 bytes                          none
//
//   block  128 threads; the 16 rows of one mma tile are 8 tokens of both guidance rows (row g and row g + 8 are the
//          same token, and lie in the same lane), or 16 tokens without guidance
//   warp   every fourth tile of 8 features
//
// The head is 0.3 % of a pass, so one block per 8 tokens reads w again from the second-level cache: 30 blocks for 240
// tokens. Bytes: 2 (rows dim + blocks features dim); FLOPs: 2 rows dim features.
// SMs: 8.0 and later. Sums in float32; as gemm_bf16.cu, and each rounding of the guidance may carry a difference on, so
// v is within guidance + 1 roundings to bfloat16 where o differs at all, seldom.
#include "cuda/block.h"
#include "cuda/gemm_tile.h"
#include "cuda/ops.h"

namespace premotor::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kLanes;
constexpr int kTileRows = 16, kFeatureTiles = 24, kFeatures = kFeatureTiles * 8;
constexpr int kTilesOfWarp = kFeatureTiles / kWarps;
constexpr int kChunks = 8, kDepth = kChunks * 8;  // of a step of dim: chunks and values
constexpr int kStages = 2;
constexpr int kStageChunks = (kTileRows + kFeatures) * kChunks;
constexpr std::uint32_t kStatisticsAt = kStages * kStageChunks * sizeof(Chunk);
constexpr std::uint32_t kSharedBytes = kStatisticsAt + 2 * kTileRows * 4;

struct Place {
  std::int64_t token, row;  // row of h
  bool is_there;
};

__device__ __forceinline__ Place place_of(const HeadGuidanceEuler& a, int tile_row) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * (a.is_guided ? 8 : 16);
  const std::int64_t token = first + (a.is_guided ? tile_row % 8 : tile_row);
  const bool is_there = token < a.tokens;
  return {token, (a.is_guided && tile_row >= 8 ? a.tokens : 0) + token, is_there};
}

// Mean and 1 / deviation of each row, four rows a warp.
__device__ __forceinline__ void measure_rows(const HeadGuidanceEuler& a, const Shared<float>& statistics) {
  const int warp = static_cast<int>(threadIdx.x / kLanes), lane = static_cast<int>(threadIdx.x % kLanes);
  const int dim = static_cast<int>(a.dim);
  for (int r = warp; r < kTileRows; r += kWarps) {
    const Place place = place_of(a, r);
    const std::uint16_t* h = a.h + (place.is_there ? place.row * a.ldh : 0);
    float v[kTaken], sum = 0, squares = 0;
    for (int c = lane * kTaken; c < dim; c += kLanes * kTaken) {
      take_bf16(h + c, dim - c, v);
      PREMOTOR_UNROLL
      for (int i = 0; i < kTaken; ++i) sum += v[i];
    }
    const float mean = warp_sum(sum) / static_cast<float>(dim);
    for (int c = lane * kTaken; c < dim; c += kLanes * kTaken) {
      take_bf16(h + c, dim - c, v);
      PREMOTOR_UNROLL
      for (int i = 0; i < kTaken; ++i) squares += c + i < dim ? (v[i] - mean) * (v[i] - mean) : 0.0f;
    }
    const float inverse = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(dim) + a.norm.eps);
    if (lane == 0) {
      statistics.store(2 * r, mean);
      statistics.store(2 * r + 1, inverse);
    }
  }
}

// One step of dim of the normed rows, a chunk a thread.
__device__ __forceinline__ void norm_step(const HeadGuidanceEuler& a, const Shared<Chunk>& shared,
                                          const Shared<float>& statistics, int stage, int step) {
  static_assert(kTileRows * kChunks == kThreads);
  const int r = static_cast<int>(threadIdx.x) / kChunks, chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int c = step * kDepth + chunk * kTaken, count = static_cast<int>(a.dim) - c;
  const Place place = place_of(a, r);
  Chunk packed{{0, 0, 0, 0}};
  if (place.is_there && count > 0) {
    const float mean = statistics.load(2 * r), inverse = statistics.load(2 * r + 1);
    float v[kTaken], by[kTaken], plus[kTaken];
    take_bf16(a.h + place.row * a.ldh + c, count, v);
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken; ++i) v[i] = (v[i] - mean) * inverse;
    if (a.norm.weight != nullptr) {
      take_f32(a.norm.weight + c, count, by);
      take_f32(a.norm.bias + c, count, plus);
      PREMOTOR_UNROLL
      for (int i = 0; i < kTaken; ++i) v[i] = v[i] * by[i] + plus[i];
    }
    if (a.norm.scale != nullptr) {
      const std::int64_t map = a.norm.row_map == nullptr ? 0 : a.norm.row_map[place.token];
      take_f32(a.norm.scale + map * a.norm.mod_stride + c, count, by);
      take_f32(a.norm.shift + map * a.norm.mod_stride + c, count, plus);
      PREMOTOR_UNROLL
      for (int i = 0; i < kTaken; ++i) v[i] = v[i] * (by[i] + 1.0f) + plus[i];
    }
    PREMOTOR_UNROLL
    for (int i = 0; i < kTaken / 2; ++i)
      packed.word[i] = pack_bf16(2 * i < count ? v[2 * i] : 0.0f, 2 * i + 1 < count ? v[2 * i + 1] : 0.0f);
  }
  shared.store(stage * kStageChunks + chunk_at<kChunks>(r, chunk), packed);
}

__device__ __forceinline__ void copy_weights(const HeadGuidanceEuler& a, const Shared<Chunk>& shared, int stage,
                                             int step) {
  const int rows = (static_cast<int>(a.features) + 7) / 8 * 8;
  for (int number = static_cast<int>(threadIdx.x); number < rows * kChunks; number += kThreads) {
    const int feature = number / kChunks, chunk = number % kChunks;
    const std::int64_t at = static_cast<std::int64_t>(step) * kDepth + chunk * 8, left = (a.dim - at) * 2;
    int bytes = left >= 16 ? 16 : (left > 0 ? static_cast<int>(left) : 0);
    if (feature >= a.features) bytes = 0;
    copy_async(shared, stage * kStageChunks + chunk_at<kChunks>(kTileRows + feature, chunk),
               bytes > 0 ? a.w + feature * a.ldw + at : a.w, bytes);
  }
}

__device__ __forceinline__ void multiply_step(const HeadGuidanceEuler& a, const Shared<Chunk>& shared, int stage,
                                              float (&sums)[kTilesOfWarp][4]) {
  const int warp = static_cast<int>(threadIdx.x / kLanes), lane = static_cast<int>(threadIdx.x % kLanes);
  const int base = stage * kStageChunks;
  // Two steps of 16 at a time: ldmatrix then brings the right fragments of both.
  PREMOTOR_UNROLL
  for (int k = 0; k < kChunks / 2; k += 2) {
    std::uint32_t left[2][4];
    PREMOTOR_UNROLL
    for (int i = 0; i < 2; ++i)
      load_matrices(left[i], shared, base + chunk_at<kChunks>(lane % 16, 2 * (k + i) + lane / 16));
    PREMOTOR_UNROLL
    for (int j = 0; j < kTilesOfWarp; ++j) {
      const int feature = (j * kWarps + warp) * 8;
      if (feature >= a.features) continue;
      std::uint32_t right[4];
      load_matrices(right, shared, base + chunk_at<kChunks>(kTileRows + feature + lane % 8, 2 * k + lane / 8));
      multiply_bf16(sums[j], left[0], right[0], right[1]);
      multiply_bf16(sums[j], left[1], right[2], right[3]);
    }
  }
}

__device__ __forceinline__ void step_feature(const HeadGuidanceEuler& a, std::int64_t token, int feature, float v) {
  if (a.velocity != nullptr) a.velocity[token * a.features + feature] = v;
  const int to = a.feature_map == nullptr ? feature : a.feature_map[feature];
  if (to < 0 || token < a.frozen_tokens) return;
  float* x = a.x + token * a.ldx + to;
  *x = round_bf16(*x + round_bf16(v * a.step));
}

// What becomes of a lane's sums: e = 0, 1 are row g, e = 2, 3 row g + 8 of the tile.
__device__ __forceinline__ void finish(const HeadGuidanceEuler& a, float (&sums)[kTilesOfWarp][4]) {
  const int warp = static_cast<int>(threadIdx.x / kLanes), lane = static_cast<int>(threadIdx.x % kLanes);
  const Place first = place_of(a, lane / 4), second = place_of(a, lane / 4 + 8);
  PREMOTOR_UNROLL
  for (int j = 0; j < kTilesOfWarp; ++j) PREMOTOR_UNROLL
  for (int e = 0; e < 2; ++e) {
    const int feature = (j * kWarps + warp) * 8 + lane % 4 * 2 + e;
    if (feature >= a.features) continue;
    const float bias = a.bias == nullptr ? 0.0f : a.bias[feature];
    const float low = round_bf16(sums[j][e] + bias), high = round_bf16(sums[j][e + 2] + bias);
    if (a.is_guided) {
      if (first.is_there)
        step_feature(a, first.token, feature, round_bf16(high + round_bf16(a.guidance * round_bf16(low - high))));
      continue;
    }
    if (first.is_there) step_feature(a, first.token, feature, low);
    if (second.is_there) step_feature(a, second.token, feature, high);
  }
}

__global__ void __launch_bounds__(kThreads) head_guidance_euler_kernel(const HeadGuidanceEuler a) {
  const Shared<Chunk> shared(0, kStages * kStageChunks);
  const Shared<float> statistics(kStatisticsAt, 2 * kTileRows);
  const int steps = static_cast<int>((a.dim + kDepth - 1) / kDepth);
  float sums[kTilesOfWarp][4] = {};
  copy_weights(a, shared, 0, 0);
  commit_copies();
  measure_rows(a, statistics);
  __syncthreads();
  norm_step(a, shared, statistics, 0, 0);
  for (int step = 0; step < steps; ++step) {
    const int stage = step % kStages, next = (step + 1) % kStages;
    wait_copies<0>();
    // This stage is complete for all, and all are done with the other.
    __syncthreads();
    if (step + 1 < steps) copy_weights(a, shared, next, step + 1);
    commit_copies();
    multiply_step(a, shared, stage, sums);
    if (step + 1 < steps) norm_step(a, shared, statistics, next, step + 1);
  }
  wait_copies<0>();
  finish(a, sums);
}

}  // namespace

Outcome head_guidance_euler(const HeadGuidanceEuler& a, Stream stream) {
  if (a.tokens == 0) return Outcome::launched;
  const NormTerms& n = a.norm;
  if (a.tokens < 0 || a.tokens > (1 << 24) || a.dim < 1 || a.dim > (1 << 20) || a.features < 1 ||
      a.features > kFeatures || a.ldh < a.dim || a.ldw < a.dim || a.ldx < 1 || a.x == nullptr ||
      (a.feature_map == nullptr && a.ldx < a.features) || (n.weight == nullptr) != (n.bias == nullptr) ||
      (n.scale == nullptr) != (n.shift == nullptr))
    return Outcome::bad_shape;
  if (!is_aligned(a.h, 16) || a.ldh % 8 != 0 || !is_aligned(a.w, 16) || a.ldw % 8 != 0 || !is_aligned(n.weight, 16) ||
      !is_aligned(n.bias, 16) || !is_aligned(n.scale, 16) || !is_aligned(n.shift, 16) || n.mod_stride % 4 != 0)
    return Outcome::misaligned;
  const LaunchShape shape{
      {static_cast<std::uint32_t>(blocks_of(a.tokens, a.is_guided ? 8 : 16)), 1, 1}, kThreads, kSharedBytes, stream};
  return launch(head_guidance_euler_kernel, shape, a);
}

}  // namespace premotor::cuda
