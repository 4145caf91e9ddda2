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

// Steps of a block: 0 norm, 1 q k v, 2 attention in place of q, 3 out, 4 residual; 5 norm, 6 q, 7 text, 8 out, 9
// residual; 10 norm, 11 up, 12 down, 13 residual. 14: what follows the last block.
void Transformer::Scratch::fit(std::int64_t pass_rows, std::int64_t width, std::int64_t inner, std::int64_t ffn) {
  const std::int64_t wanted[7] = {width, width, inner, inner, inner, std::max(width, inner), ffn};
  bool grows = false;
  for (int i = 0; i < 7; ++i) {
    grows = grows || pass_rows * wanted[i] > floats[i];
    floats[i] = std::max(floats[i], pass_rows * wanted[i]);
  }
  rows = std::max(rows, pass_rows);
  if (!grows) return;
  const std::vector<Arena::Span> lives[7] = {
      {{0, 14}}, {{0, 1}, {5, 6}, {10, 11}, {14, 14}}, {{1, 3}, {6, 8}}, {{1, 2}},
      {{1, 2}},  {{3, 4}, {8, 9}, {12, 13}},           {{11, 12}}};
  arena = {};
  for (int i = 0; i < 7; ++i) arena.declare(floats[i] * static_cast<std::int64_t>(sizeof(float)), lives[i]);
  arena.solve();
  arena.allocate();
  float** const buffers[7] = {&hidden, &normed, &q, &k, &v, &attended, &up};
  for (Arena::Id i = 0; i < 7; ++i) *buffers[i] = arena.at<float>(i);
}

void Transformer::reserve(std::int64_t rows) {
  for (const StreamWeights& stream : streams_) scratch_.fit(rows, stream.width, config_.inner_dim(), stream.ffn_dim);
  scratch_.row_map.reserve(static_cast<std::size_t>(rows));
}

void Transformer::linear(const Linear& layer, const float* x, std::int64_t rows, ops::Activation act, float* y) {
  ops_.linear(x, rows, layer.weight.cols, layer.weight, layer.bias.data(), act, rounding_, y, layer.weight.rows);
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
  const std::int64_t plane = out->rows * inner * ops::bytes_of(dtype);
  out->data.resize(static_cast<std::size_t>(out->streams * config_.num_layers * 2 * plane));
  for (std::int64_t stream = 0; stream < out->streams; ++stream) {
    for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
      if (cancelled(cancel)) return aborted();
      std::byte* k = out->data.data() + (stream * config_.num_layers + layer) * 2 * plane;
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
  std::vector<float> projected(static_cast<std::size_t>(out->rows * inner));
  linear(block.cross.k, rows.data(), out->rows, ops::Activation::none, projected.data());
  ops_.rms_norm(projected.data(), out->rows, inner, inner, config_.eps, block.cross.norm_k.data(), rounding_);
  ops_.store_kv(projected.data(), out->rows, heads, head_dim, inner, k, out->dtype, out->rows, slots.data());
  linear(block.cross.v, rows.data(), out->rows, ops::Activation::none, projected.data());
  std::byte* v = k + out->rows * inner * ops::bytes_of(out->dtype);
  ops_.store_kv(projected.data(), out->rows, heads, head_dim, inner, v, out->dtype, out->rows, slots.data());
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
void Transformer::map_rows(const Pass& pass, std::int32_t* to, std::vector<const Conditioning*>* conditions) {
  const std::int64_t tokens = pass.frames * pass.tokens_per_frame;
  const auto first = static_cast<std::int32_t>(conditions->size());
  std::vector<float> distinct;
  for (std::int64_t f = 0; f < pass.frames; ++f) {
    auto at = std::find(distinct.begin(), distinct.end(), pass.frame_timesteps[f]);
    if (at == distinct.end()) at = distinct.insert(at, pass.frame_timesteps[f]);
    const auto index = first + static_cast<std::int32_t>(at - distinct.begin());
    for (std::int64_t row = 0; row < pass.guidance_rows; ++row)
      std::fill_n(to + row * tokens + f * pass.tokens_per_frame, pass.tokens_per_frame, index);
  }
  for (const float timestep : distinct) condition(pass.modality, timestep);
  for (const float timestep : distinct) conditions->push_back(&condition(pass.modality, timestep));
}

// scale_shift_table + projection for each distinct timestep: [distinct, 6, width], float32 even in a bfloat16
// deployment.
void Transformer::block_modulation(const BlockWeights& block, const std::vector<const Conditioning*>& conditions,
                                   std::int64_t width) {
  grow(scratch_.modulation, std::ssize(conditions) * 6 * width);
  for (std::size_t i = 0; i < conditions.size(); ++i) {
    float* to = scratch_.modulation.data() + static_cast<std::int64_t>(i) * 6 * width;
    for (std::int64_t c = 0; c < 6 * width; ++c) to[c] = block.scale_shift_table[c] + conditions[i]->projection[c];
  }
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
  std::vector<const Conditioning*> conditions;
  std::int64_t first = 0;
  for (const Pass& pass : parts) {
    assert(parts.size() == 1 || (can_pack() && pass.out == nullptr && pass.guidance_rows == lead.guidance_rows));
    assert(std::ssize(*pass.write_rows) == pass.frames * pass.tokens_per_frame &&
           std::ssize(pass.rope->cos) == std::ssize(*pass.write_rows) * (config_.attention_head_dim / 2));
    map_rows(pass, scratch_.row_map.data() + first, &conditions);
    embed(pass, scratch_.hidden + first * stream.width);
    first += rows_of(pass);
  }
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    if (cancelled(lead.cancel)) return aborted();
    const BlockWeights& block = (*stream.blocks)[static_cast<std::size_t>(layer)];
    block_modulation(block, conditions, stream.width);
    // The last layer's output has no reader when only the cache is wanted.
    const bool wanted = lead.out != nullptr || layer + 1 < config_.num_layers;
    self_attention(parts, block, layer, wanted);
    if (!wanted) break;
    cross_attention(parts, block, layer);
    feed_forward(stream, block, rows);
  }
  if (lead.out != nullptr) finish(lead, stream, conditions, rows);
  return Status::good();
}

void Transformer::self_attention(std::span<const Pass> parts, const BlockWeights& block, std::int64_t layer,
                                 bool wanted) {
  const std::int64_t rows = rows_of(parts), width = block.self.q.weight.cols, inner = config_.inner_dim();
  const float* modulation = scratch_.modulation.data();  // shift, scale, gate of attention first
  ops_.layer_norm({scratch_.hidden, rows, width, config_.eps, nullptr, nullptr, modulation + width, modulation,
                   6 * width, scratch_.row_map.data(), rounding_, scratch_.normed});
  linear(block.self.q, scratch_.normed, rows, ops::Activation::none, scratch_.q);
  linear(block.self.k, scratch_.normed, rows, ops::Activation::none, scratch_.k);
  linear(block.self.v, scratch_.normed, rows, ops::Activation::none, scratch_.v);
  ops_.rms_norm(scratch_.q, rows, inner, inner, config_.eps, block.self.norm_q.data(), rounding_);
  ops_.rms_norm(scratch_.k, rows, inner, inner, config_.eps, block.self.norm_k.data(), rounding_);
  std::int64_t first = 0;
  for (const Pass& pass : parts) {
    attend_cache(pass, first, layer, wanted);
    first += rows_of(pass);
  }
  if (!wanted) return;
  linear(block.self.out, scratch_.q, rows, ops::Activation::none, scratch_.attended);
  ops_.add_gated(scratch_.hidden, scratch_.attended, rows, width, modulation + 2 * width, 6 * width,
                 scratch_.row_map.data(), rounding_);
}

// One part's keys and values into the cache, then its queries over it. A part after it may overwrite what this one
// attended to: it was evicted in between.
void Transformer::attend_cache(const Pass& pass, std::int64_t first, std::int64_t layer, bool wanted) {
  const std::int64_t tokens = pass.frames * pass.tokens_per_frame;
  const std::int64_t inner = config_.inner_dim(), heads = config_.num_attention_heads,
                     head_dim = config_.attention_head_dim;
  KvCache& cache = *pass.cache;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  const ops::Dtype dtype = cache.shape().dtype;
  for (std::int64_t row = 0; row < pass.guidance_rows; ++row) {
    const std::int64_t at = (first + row * tokens) * inner;
    float* q = scratch_.q + at;
    float* k = scratch_.k + at;
    ops_.rope(q, tokens, heads, head_dim, inner, pass.rope->cos.data(), pass.rope->sin.data(), rounding_);
    ops_.rope(k, tokens, heads, head_dim, inner, pass.rope->cos.data(), pass.rope->sin.data(), rounding_);
    ops_.store_kv(k, tokens, heads, head_dim, inner, cache.keys(layer, row), dtype, cache.rows(),
                  pass.write_rows->data());
    ops_.store_kv(scratch_.v + at, tokens, heads, head_dim, inner, cache.values(layer, row), dtype, cache.rows(),
                  pass.write_rows->data());
    if (!wanted) continue;
    const ops::KeyValueView view{cache.keys(layer, row),     cache.values(layer, row),        dtype, cache.rows(),
                                 pass.attended_rows->data(), std::ssize(*pass.attended_rows), 1.0f};
    ops_.attention(q, tokens, heads, head_dim, inner, view, scale, rounding_, q, inner);
  }
}

void Transformer::cross_attention(std::span<const Pass> parts, const BlockWeights& block, std::int64_t layer) {
  const std::int64_t rows = rows_of(parts), width = block.cross.q.weight.cols, inner = config_.inner_dim();
  const float* input = scratch_.hidden;
  if (!block.norm2_weight.empty()) {
    ops_.layer_norm({input, rows, width, config_.eps, block.norm2_weight.data(), block.norm2_bias.data(), nullptr,
                     nullptr, 0, nullptr, rounding_, scratch_.normed});
    input = scratch_.normed;
  }
  linear(block.cross.q, input, rows, ops::Activation::none, scratch_.q);
  ops_.rms_norm(scratch_.q, rows, inner, inner, config_.eps, block.cross.norm_q.data(), rounding_);
  std::int64_t first = 0;
  for (const Pass& pass : parts) {
    attend_text(pass, first, layer);
    first += rows_of(pass);
  }
  linear(block.cross.out, scratch_.q, rows, ops::Activation::none, scratch_.attended);
  ops_.add_gated(scratch_.hidden, scratch_.attended, rows, width, nullptr, 0, nullptr, rounding_);
}

void Transformer::attend_text(const Pass& pass, std::int64_t first, std::int64_t layer) {
  const std::int64_t tokens = pass.frames * pass.tokens_per_frame;
  const std::int64_t inner = config_.inner_dim(), heads = config_.num_attention_heads,
                     head_dim = config_.attention_head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (std::int64_t row = 0; row < pass.guidance_rows; ++row) {
    const TextKeysValues& text = (*pass.text)[static_cast<std::size_t>(row)];
    const std::int64_t plane = text.rows * inner * ops::bytes_of(text.dtype);
    const std::int64_t text_stream = text.streams == 2 ? static_cast<std::int64_t>(pass.modality) : 0;
    const std::byte* k = text.data.data() + (text_stream * config_.num_layers + layer) * 2 * plane;
    float* q = scratch_.q + (first + row * tokens) * inner;
    const ops::KeyValueView view{k, k + plane, text.dtype, text.rows, nullptr, text.rows, text.last_weight};
    ops_.attention(q, tokens, heads, head_dim, inner, view, scale, rounding_, q, inner);
  }
}

void Transformer::feed_forward(const StreamWeights& stream, const BlockWeights& block, std::int64_t rows) {
  const std::int64_t width = stream.width;
  const float* modulation = scratch_.modulation.data() + 3 * width;  // shift, scale, gate of the feed-forward part
  ops_.layer_norm({scratch_.hidden, rows, width, config_.eps, nullptr, nullptr, modulation + width, modulation,
                   6 * width, scratch_.row_map.data(), rounding_, scratch_.normed});
  linear(block.ffn_up, scratch_.normed, rows, ops::Activation::gelu_tanh, scratch_.up);
  linear(block.ffn_down, scratch_.up, rows, ops::Activation::none, scratch_.attended);
  ops_.add_gated(scratch_.hidden, scratch_.attended, rows, width, modulation + 2 * width, 6 * width,
                 scratch_.row_map.data(), rounding_);
}

// Final norm with shift and scale from the table plus temb (added, and 1 + scale taken, in bfloat16 in a bfloat16
// deployment), then the head.
void Transformer::finish(const Pass& pass, const StreamWeights& stream,
                         const std::vector<const Conditioning*>& conditions, std::int64_t rows) {
  const std::int64_t width = stream.width;
  grow(scratch_.last_modulation, std::ssize(conditions) * 2 * width);
  for (std::size_t i = 0; i < conditions.size(); ++i) {
    float* shift = scratch_.last_modulation.data() + static_cast<std::int64_t>(i) * 2 * width;
    float* scale = shift + width;
    for (std::int64_t c = 0; c < width; ++c) {
      shift[c] = stream.scale_shift_table[c] + conditions[i]->temb[c];
      scale[c] = stream.scale_shift_table[width + c] + conditions[i]->temb[c];
      if (rounding_ != ops::Rounding::bf16) continue;
      shift[c] = round_to_bf16(shift[c]);
      scale[c] = round_to_bf16(1.0f + round_to_bf16(scale[c])) - 1.0f;
    }
  }
  ops_.layer_norm({scratch_.hidden, rows, width, config_.eps, nullptr, nullptr, scratch_.last_modulation.data() + width,
                   scratch_.last_modulation.data(), 2 * width, scratch_.row_map.data(), rounding_, scratch_.normed});
  linear(stream.head, scratch_.normed, rows, ops::Activation::none, pass.out);
}

}  // namespace premotor::engine
