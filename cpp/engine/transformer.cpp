#include "engine/transformer.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/half.h"

namespace premotor::engine {
namespace {

// Sinusoid of diffusers' Timesteps(flip_sin_to_cos = true, downscale_freq_shift = 0): cosines first, float32.
std::vector<float> timestep_sinusoid(float timestep, std::int64_t dim) {
  const std::int64_t half = dim / 2;
  std::vector<float> values(static_cast<std::size_t>(dim), 0.0f);
  const float log_period = static_cast<float>(-std::log(10000.0));
  for (std::int64_t k = 0; k < half; ++k) {
    const float exponent = log_period * static_cast<float>(k) / static_cast<float>(half);
    const float frequency = static_cast<float>(std::exp(static_cast<double>(exponent)));
    const double angle = timestep * frequency;  // float32 product
    values[static_cast<std::size_t>(k)] = static_cast<float>(std::cos(angle));
    values[static_cast<std::size_t>(half + k)] = static_cast<float>(std::sin(angle));
  }
  return values;
}

void grow(std::vector<float>& buffer, std::int64_t count) {
  if (std::ssize(buffer) < count) buffer.resize(static_cast<std::size_t>(count));
}

Status aborted() { return Status::error("ABORTED", "The computation was stopped on request."); }

bool cancelled(const std::atomic<bool>* cancel) { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }

}  // namespace

// Steps of a block: 0 q k v, 1 attention, 2 out into the residual; 3 q, 4 text, 5 out; 6 up, 7 down. 8: what follows
// the last block. Norms go with the products, so that no buffer holds normed rows.
void Transformer::Scratch::fit(std::int64_t pass_rows, std::int64_t width, std::int64_t inner, std::int64_t ffn) {
  const std::int64_t wanted[kBuffers] = {width, 3 * inner, inner, ffn};
  bool grows = false;
  for (int i = 0; i < kBuffers; ++i) {
    grows = grows || pass_rows * wanted[i] > floats[i];
    floats[i] = std::max(floats[i], pass_rows * wanted[i]);
  }
  rows = std::max(rows, pass_rows);
  if (!grows) return;
  const std::vector<Arena::Span> lives[kBuffers] = {{{0, 8}}, {{0, 1}, {3, 4}}, {{1, 2}, {4, 5}}, {{6, 7}}};
  arena = {};
  for (int i = 0; i < kBuffers; ++i) arena.declare(floats[i] * static_cast<std::int64_t>(sizeof(float)), lives[i]);
  arena.solve();
  arena.allocate();
  float** const buffers[kBuffers] = {&hidden, &qkv, &attended, &up};
  for (Arena::Id i = 0; i < kBuffers; ++i) *buffers[i] = arena.at<float>(i);
}

void Transformer::reserve(std::int64_t rows) {
  for (const StreamWeights& stream : streams_) scratch_.fit(rows, stream.width, config_.inner_dim(), stream.ffn_dim);
  scratch_.row_map.reserve(static_cast<std::size_t>(rows));
}

void Transformer::linear(const Linear& layer, const float* x, std::int64_t rows, ops::Activation act, float* y) {
  ops_.linear(x, rows, layer.weight.cols, layer.weight, layer.bias.data(), act, rounding_, y, layer.weight.rows);
}

// The norm of a block's or the last layer's modulation, by the pass' row map.
ops::Ops::Norm Transformer::modulated(const float* shift, const float* scale, std::int64_t stride) const {
  return {config_.eps, nullptr, nullptr, scale, shift, stride, scratch_.row_map.data()};
}

// y = act(norm(hidden) w^T + bias)
void Transformer::normed_linear(const ops::Ops::Norm& norm, const Linear& layer, std::int64_t rows, ops::Activation act,
                                float* y) {
  ops::Ops::FusedLinear args;
  args.x = scratch_.hidden;
  args.m = rows;
  args.ldx = layer.weight.cols;
  args.norm = &norm;
  args.w = &layer.weight;
  args.bias = layer.bias.data();
  args.act = act;
  args.rounding = rounding_;
  args.y = y;
  args.ldy = layer.weight.rows;
  ops_.fused_linear(args);
}

// hidden += gate * (x w^T + bias); gate by the pass' row map, or 1 when null.
void Transformer::add_linear(const float* x, const Linear& layer, std::int64_t rows, const float* gate,
                             std::int64_t gate_stride) {
  ops::Ops::FusedLinear args;
  args.x = x;
  args.m = rows;
  args.ldx = layer.weight.cols;
  args.w = &layer.weight;
  args.bias = layer.bias.data();
  args.rounding = rounding_;
  args.is_residual = true;
  args.gate = gate;
  args.gate_stride = gate_stride;
  args.row_map = scratch_.row_map.data();
  args.y = scratch_.hidden;
  args.ldy = layer.weight.rows;
  ops_.fused_linear(args);
}

// y = norm(x) w^T + bias, all parts side by side in rows of ldy. x: [rows, cols]; norm may be null.
void Transformer::stacked_linear(const float* x, const ops::Ops::Norm* norm, const StackedLinear& layer,
                                 std::int64_t rows, std::int64_t cols, float* y, std::int64_t ldy) {
  ops::Ops::FusedLinear args;
  args.x = x;
  args.m = rows;
  args.ldx = cols;
  args.norm = norm;
  args.w = &layer.weight.whole;
  args.bias = layer.bias.data();
  args.rounding = rounding_;
  args.y = y;
  args.ldy = ldy;
  if (layer.weight.parts.empty()) return ops_.fused_linear(args);
  for (const ops::Matrix& part : layer.weight.parts) {
    args.w = &part;
    ops_.fused_linear(args);
    args.bias += part.rows;
    args.y += part.rows;
  }
}

Status Transformer::project_text(const float* embeddings, std::int64_t count, std::int64_t padded_rows,
                                 ops::Dtype dtype, const std::atomic<bool>* cancel, TextKeysValues* out) {
  assert(count + padded_rows >= 1);
  out->rows = count + (padded_rows > 0 ? 1 : 0);
  out->last_weight = static_cast<float>(std::max<std::int64_t>(padded_rows, 1));
  out->dtype = dtype;
  out->streams = config_.mot ? 2 : 1;
  const std::int64_t inner = config_.inner_dim();
  std::vector<float> input(static_cast<std::size_t>(out->rows * config_.text_dim), 0.0f);
  std::copy_n(embeddings, count * config_.text_dim, input.begin());
  std::vector<float> middle(static_cast<std::size_t>(out->rows * inner)), rows(middle.size());
  linear(text_1_, input.data(), out->rows, ops::Activation::gelu_tanh, middle.data());
  linear(text_2_, middle.data(), out->rows, ops::Activation::none, rows.data());
  out->layout = {config_.num_attention_heads, ops::kv_rows(out->rows), config_.attention_head_dim, dtype};
  out->data.assign(static_cast<std::size_t>(out->streams * config_.num_layers * out->plane_bytes()), std::byte{0});
  for (std::int64_t stream = 0; stream < out->streams; ++stream) {
    for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
      if (cancelled(cancel)) return aborted();
      std::byte* k = out->data.data() + (stream * config_.num_layers + layer) * out->plane_bytes();
      project_text_layer((*streams_[stream].blocks)[static_cast<std::size_t>(layer)], rows, k, out);
    }
  }
  return Status::good();
}

void Transformer::project_text_layer(const BlockWeights& block, const std::vector<float>& rows, std::byte* k,
                                     TextKeysValues* out) {
  const std::int64_t inner = config_.inner_dim(), heads = config_.num_attention_heads,
                     head_dim = config_.attention_head_dim;
  std::vector<std::int32_t> slots(static_cast<std::size_t>(out->rows));
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<std::int32_t>(i);
  std::vector<float> projected(static_cast<std::size_t>(out->rows * 2 * inner));
  stacked_linear(rows.data(), nullptr, block.cross.kv, out->rows, inner, projected.data(), 2 * inner);
  ops::Ops::HeadRows args;
  args.k = projected.data();
  args.v = projected.data() + inner;
  args.rows = out->rows;
  args.heads = heads;
  args.head_dim = head_dim;
  args.ld = 2 * inner;
  args.eps = config_.eps;
  args.norm_k = block.cross.norm_k.data();
  args.k_plane = k;
  args.v_plane = k + out->layout.key_bytes();
  args.dtype = out->dtype;
  args.plane_rows = out->layout.rows;
  args.slots = slots.data();
  args.rounding = rounding_;
  ops_.cache_heads(args);
}

const Transformer::Conditioning& Transformer::condition(Modality modality, float timestep) {
  std::vector<Conditioning>& known = conditioning_[static_cast<int>(modality)];
  for (const Conditioning& entry : known)
    if (entry.timestep == timestep) return entry;
  if (known.size() >= kConditioningMax) known.clear();
  known.reserve(kConditioningMax);  // references to entries stay valid
  const StreamWeights& stream = streams_[static_cast<int>(modality)];
  Conditioning entry{timestep, std::vector<float>(static_cast<std::size_t>(stream.width)),
                     std::vector<float>(static_cast<std::size_t>(6 * stream.width))};
  std::vector<float> sinusoid = timestep_sinusoid(timestep, config_.freq_dim);
  const auto round = [&](std::vector<float>& values) {
    if (rounding_ == ops::Rounding::bf16)
      for (float& value : values) value = round_to_bf16(value);
  };
  round(sinusoid);
  std::vector<float> middle(entry.temb.size());
  linear(stream.time.linear_1, sinusoid.data(), 1, ops::Activation::silu, middle.data());
  linear(stream.time.linear_2, middle.data(), 1, ops::Activation::none, entry.temb.data());
  for (std::size_t c = 0; c < middle.size(); ++c) middle[c] = entry.temb[c] / (1.0f + std::exp(-entry.temb[c]));
  round(middle);
  linear(stream.time.time_proj, middle.data(), 1, ops::Activation::none, entry.projection.data());
  known.push_back(std::move(entry));
  return known.back();
}

std::int64_t Transformer::rows_of(std::span<const Pass> parts) {
  std::int64_t rows = 0;
  for (const Pass& pass : parts) rows += rows_of(pass);
  return rows;
}

// Maps every token row of the pass to the conditioning of its frame's timestep; new ones are added. to: [rows].
void Transformer::map_rows(const Pass& pass, std::int32_t* to) {
  const std::int64_t tokens = pass.frames * pass.tokens_per_frame;
  std::vector<const Conditioning*>& conditions = scratch_.conditions;
  std::vector<float>& distinct = scratch_.distinct;
  const auto first = static_cast<std::int32_t>(conditions.size());
  distinct.clear();
  for (std::int64_t f = 0; f < pass.frames; ++f) {
    auto at = std::find(distinct.begin(), distinct.end(), pass.frame_timesteps[f]);
    if (at == distinct.end()) at = distinct.insert(at, pass.frame_timesteps[f]);
    const auto index = first + static_cast<std::int32_t>(at - distinct.begin());
    for (std::int64_t row = 0; row < pass.guidance_rows; ++row)
      std::fill_n(to + row * tokens + f * pass.tokens_per_frame, pass.tokens_per_frame, index);
  }
  for (const float timestep : distinct) condition(pass.modality, timestep);
  for (const float timestep : distinct) conditions.push_back(&condition(pass.modality, timestep));
}

// scale_shift_table + projection for each distinct timestep: [distinct, 6, width], float32 even in a bfloat16
// deployment.
void Transformer::block_modulation(const BlockWeights& block, std::int64_t width) {
  const std::vector<const Conditioning*>& conditions = scratch_.conditions;
  grow(scratch_.modulation, std::ssize(conditions) * 6 * width);
  for (std::size_t i = 0; i < conditions.size(); ++i)
    modulate(block, *conditions[i], scratch_.modulation.data() + static_cast<std::int64_t>(i) * 6 * width);
}

void Transformer::modulate(const BlockWeights& block, const Conditioning& condition, float* to) {
  for (std::size_t c = 0; c < condition.projection.size(); ++c)
    to[c] = block.scale_shift_table[c] + condition.projection[c];
}

// to: [guidance rows, tokens, width]
void Transformer::embed(const Pass& pass, float* to) {
  const StreamWeights& stream = streams_[static_cast<int>(pass.modality)];
  const std::int64_t tokens = pass.frames * pass.tokens_per_frame;
  linear(stream.embed, pass.x, tokens, ops::Activation::none, to);
  for (std::int64_t row = 1; row < pass.guidance_rows; ++row)
    std::copy_n(to, tokens * stream.width, to + row * tokens * stream.width);
}

Status Transformer::forward(std::span<const Pass> parts) {
  const Pass& lead = parts.front();
  const StreamWeights& stream = streams_[static_cast<int>(lead.modality)];
  const std::int64_t rows = rows_of(parts);
  scratch_.fit(rows, stream.width, config_.inner_dim(), stream.ffn_dim);
  scratch_.row_map.resize(static_cast<std::size_t>(rows));
  scratch_.conditions.clear();
  std::int64_t first = 0;
  for (const Pass& pass : parts) {
    assert(parts.size() == 1 || (can_pack() && pass.out == nullptr && pass.guidance_rows == lead.guidance_rows));
    assert(std::ssize(*pass.write_rows) == pass.frames * pass.tokens_per_frame &&
           std::ssize(pass.rope->cos) == std::ssize(*pass.write_rows) * (config_.attention_head_dim / 2));
    map_rows(pass, scratch_.row_map.data() + first);
    embed(pass, scratch_.hidden + first * stream.width);
    first += rows_of(pass);
  }
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    if (cancelled(lead.cancel)) return aborted();
    const BlockWeights& block = (*stream.blocks)[static_cast<std::size_t>(layer)];
    block_modulation(block, stream.width);
    // The last layer's output has no reader when only the cache is wanted.
    const bool wanted = lead.out != nullptr || layer + 1 < config_.num_layers;
    self_attention(parts, block, layer, wanted);
    if (!wanted) break;
    cross_attention(parts, block, layer);
    feed_forward(stream, block, rows);
  }
  if (lead.out != nullptr) finish(lead, stream, rows);
  return Status::good();
}

void Transformer::self_attention(std::span<const Pass> parts, const BlockWeights& block, std::int64_t layer,
                                 bool wanted) {
  const std::int64_t rows = rows_of(parts), width = block.self.out.weight.rows, inner = config_.inner_dim();
  const float* modulation = scratch_.modulation.data();  // shift, scale, gate of attention first
  const ops::Ops::Norm norm = modulated(modulation, modulation + width, 6 * width);
  stacked_linear(scratch_.hidden, &norm, block.self.qkv, rows, width, scratch_.qkv, 3 * inner);
  std::int64_t first = 0;
  for (const Pass& pass : parts) {
    attend_cache(pass, first, block, layer, wanted);
    first += rows_of(pass);
  }
  if (wanted) add_linear(scratch_.attended, block.self.out, rows, modulation + 2 * width, 6 * width);
}

// One part's keys and values into the cache, then its queries over it. A part after it may overwrite what this one
// attended to: it was evicted in between.
void Transformer::attend_cache(const Pass& pass, std::int64_t first, const BlockWeights& block, std::int64_t layer,
                               bool wanted) {
  const std::int64_t tokens = pass.frames * pass.tokens_per_frame, inner = config_.inner_dim();
  KvCache& cache = *pass.cache;
  ops::Ops::HeadRows args;
  args.rows = tokens;
  args.heads = config_.num_attention_heads;
  args.head_dim = config_.attention_head_dim;
  args.ld = 3 * inner;
  args.eps = config_.eps;
  args.norm_q = block.self.norm_q.data();
  args.norm_k = block.self.norm_k.data();
  args.cos = pass.rope->cos.data();
  args.sin = pass.rope->sin.data();
  args.dtype = cache.shape().dtype;
  args.plane_rows = cache.rows();
  args.slots = pass.write_rows->data();
  args.rounding = rounding_;
  const float scale = 1.0f / std::sqrt(static_cast<float>(args.head_dim));
  for (std::int64_t row = 0; row < pass.guidance_rows; ++row) {
    const std::int64_t at = first + row * tokens;
    float* q = scratch_.qkv + at * 3 * inner;
    args.q = wanted ? q : nullptr;
    args.k = q + inner;
    args.v = q + 2 * inner;
    args.k_plane = cache.keys(layer, row);
    args.v_plane = cache.values(layer, row);
    ops_.cache_heads(args);
    if (!wanted) continue;
    const ops::CachedView view{args.k_plane,
                               args.v_plane,
                               args.dtype,
                               cache.rows(),
                               pass.attended->data(),
                               0,
                               pass.moved->data(),
                               std::ssize(*pass.moved),
                               1.0f};
    ops_.cached_attention(
        {q, tokens, args.heads, args.head_dim, args.ld, view, scale, rounding_, scratch_.attended + at * inner, inner});
  }
}

void Transformer::cross_attention(std::span<const Pass> parts, const BlockWeights& block, std::int64_t layer) {
  const std::int64_t rows = rows_of(parts), inner = config_.inner_dim();
  float* q = scratch_.qkv;
  if (block.norm2_weight.empty()) {
    linear(block.cross.q, scratch_.hidden, rows, ops::Activation::none, q);
  } else {
    ops::Ops::Norm norm;
    norm.eps = config_.eps;
    norm.weight = block.norm2_weight.data();
    norm.bias = block.norm2_bias.data();
    normed_linear(norm, block.cross.q, rows, ops::Activation::none, q);
  }
  ops_.rms_norm(q, rows, inner, inner, config_.eps, block.cross.norm_q.data(), rounding_);
  std::int64_t first = 0;
  for (const Pass& pass : parts) {
    attend_text(pass, first, layer);
    first += rows_of(pass);
  }
  add_linear(scratch_.attended, block.cross.out, rows, nullptr, 0);
}

void Transformer::attend_text(const Pass& pass, std::int64_t first, std::int64_t layer) {
  const std::int64_t tokens = pass.frames * pass.tokens_per_frame;
  const std::int64_t inner = config_.inner_dim(), heads = config_.num_attention_heads,
                     head_dim = config_.attention_head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (std::int64_t row = 0; row < pass.guidance_rows; ++row) {
    const TextKeysValues& text = (*pass.text)[static_cast<std::size_t>(row)];
    const std::int64_t text_stream = text.streams == 2 ? static_cast<std::int64_t>(pass.modality) : 0;
    const std::byte* k = text.data.data() + (text_stream * config_.num_layers + layer) * text.plane_bytes();
    const std::int64_t at = (first + row * tokens) * inner;
    const ops::CachedView view{
        k, k + text.layout.key_bytes(), text.dtype, text.layout.rows, nullptr, text.rows, nullptr, 0, text.last_weight};
    ops_.cached_attention(
        {scratch_.qkv + at, tokens, heads, head_dim, inner, view, scale, rounding_, scratch_.attended + at, inner});
  }
}

void Transformer::feed_forward(const StreamWeights& stream, const BlockWeights& block, std::int64_t rows) {
  const std::int64_t width = stream.width;
  const float* modulation = scratch_.modulation.data() + 3 * width;  // shift, scale, gate of the feed-forward part
  normed_linear(modulated(modulation, modulation + width, 6 * width), block.ffn_up, rows, ops::Activation::gelu_tanh,
                scratch_.up);
  add_linear(scratch_.up, block.ffn_down, rows, modulation + 2 * width, 6 * width);
}

// The table plus temb: added, and 1 + scale taken, in bfloat16 in a bfloat16 deployment.
void Transformer::modulate_last(const StreamWeights& stream, const Conditioning& condition, float* to) const {
  const std::int64_t width = stream.width;
  float *shift = to, *scale = to + width;
  for (std::int64_t c = 0; c < width; ++c) {
    shift[c] = stream.scale_shift_table[c] + condition.temb[c];
    scale[c] = stream.scale_shift_table[width + c] + condition.temb[c];
    if (rounding_ != ops::Rounding::bf16) continue;
    shift[c] = round_to_bf16(shift[c]);
    scale[c] = round_to_bf16(1.0f + round_to_bf16(scale[c])) - 1.0f;
  }
}

// Final norm with shift and scale, then the head.
void Transformer::finish(const Pass& pass, const StreamWeights& stream, std::int64_t rows) {
  const std::vector<const Conditioning*>& conditions = scratch_.conditions;
  const std::int64_t width = stream.width;
  grow(scratch_.last_modulation, std::ssize(conditions) * 2 * width);
  for (std::size_t i = 0; i < conditions.size(); ++i)
    modulate_last(stream, *conditions[i], scratch_.last_modulation.data() + static_cast<std::int64_t>(i) * 2 * width);
  const float* shift = scratch_.last_modulation.data();
  normed_linear(modulated(shift, shift + width, 2 * width), stream.head, rows, ops::Activation::none, pass.out);
}

}  // namespace premotor::engine
