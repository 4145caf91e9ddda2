#include "engine/vae_network.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <utility>

namespace premotor::engine::vae {
namespace {

constexpr std::int64_t kHistoryFrames = 2;  // what a kernel of three frames sees of the past

}  // namespace

// Makes room for the new frames behind the remembered ones of the next slot; the caller writes them to fresh().
NetworkRun::CausalInput NetworkRun::begin_causal(const Shape& shape, std::int64_t history) {
  CausalInput input;
  input.shape = shape;
  input.history = history;
  input.slot = slot_++;
  const std::int64_t old_floats = history * shape.frame_floats();
  input.block = scratch_.take(old_floats + shape.floats());
  if (state_.history.size() <= input.slot) state_.history.resize(input.slot + 1);
  // Frames before the start of the stream are zero.
  const std::vector<float>& kept = state_.history[input.slot];
  const std::int64_t missing = old_floats - static_cast<std::int64_t>(kept.size());
  assert(missing >= 0);
  std::fill_n(input.data(), missing, 0.0f);
  std::copy(kept.begin(), kept.end(), input.data() + missing);
  return input;
}

// Keeps the last frames of a complete input for the next chunk.
void NetworkRun::remember(const CausalInput& input) {
  const float* end = input.fresh() + input.shape.floats();
  state_.history[input.slot].assign(end - input.history * input.shape.frame_floats(), end);
}

// Runs a convolution over a complete input, stride 1, zero borders of half a kernel.
Map NetworkRun::causal_conv(const Conv& conv, CausalInput input) {
  remember(input);
  Shape out = input.shape;
  out.channels = conv.channels_out;
  Map y = take(out);
  ops::Conv3d args;
  args.x = input.data();
  args.frames_in = input.history + input.shape.frames;
  args.height_in = input.shape.height;
  args.width_in = input.shape.width;
  args.channels_in = conv.channels_in;
  args.weight = conv.weight;
  args.bias = conv.bias.data();
  args.kernel_t = conv.kernel_t;
  args.kernel_s = conv.kernel_s;
  args.pad_top = args.pad_left = conv.kernel_s / 2;
  args.frames_out = out.frames;
  args.height_out = out.height;
  args.width_out = out.width;
  args.y = y.data();
  ops_.conv3d(args, rounding_);
  return y;
}

Map NetworkRun::causal_conv_in(const Conv& conv, const float* x, const Shape& shape) {
  CausalInput input = begin_causal(shape, kHistoryFrames);
  std::copy_n(x, shape.floats(), input.fresh());
  return causal_conv(conv, std::move(input));
}

// silu(normalise(x)), written straight behind the remembered frames.
NetworkRun::CausalInput NetworkRun::normalised(const std::vector<float>& gamma, const Map& x) {
  CausalInput input = begin_causal(x.shape, kHistoryFrames);
  ops_.normalise_channels(x.data(), x.shape.pixels(), x.shape.channels, gamma.data(), true, rounding_, input.fresh());
  return input;
}

// A convolution within each frame.
void NetworkRun::spatial_conv(const Conv& conv, const float* x, const Shape& in, std::int64_t stride, std::int64_t pad,
                              const Shape& out, float* y) {
  ops::Conv3d args;
  args.x = x;
  args.frames_in = args.frames_out = in.frames;
  args.height_in = in.height;
  args.width_in = in.width;
  args.channels_in = conv.channels_in;
  args.weight = conv.weight;
  args.bias = conv.bias.data();
  args.kernel_s = conv.kernel_s;
  args.stride_s = stride;
  args.pad_top = args.pad_left = pad;
  args.height_out = out.height;
  args.width_out = out.width;
  args.y = y;
  ops_.conv3d(args, rounding_);
}

Map NetworkRun::pointwise(const Conv& conv, const float* x, const Shape& shape) {
  Shape out = shape;
  out.channels = conv.channels_out;
  Map y = take(out);
  ops_.linear(x, shape.pixels(), shape.channels, conv.weight, conv.bias.data(), ops::Activation::none, rounding_,
              y.data(), out.channels);
  return y;
}

// conv2(silu(norm2(conv1(silu(norm1(x)))))) + shortcut(x).
Map NetworkRun::residual(const ResidualBlock& block, const Map& x) {
  Map inner = causal_conv(block.conv1, normalised(block.gamma1, x));
  CausalInput second = normalised(block.gamma2, inner);
  inner = {};  // its memory is free for the result
  Map y = causal_conv(block.conv2, std::move(second));
  const Map projected = block.shortcut ? pointwise(*block.shortcut, x.data(), x.shape) : Map{};
  const Map& direct = block.shortcut ? projected : x;
  ops_.add_gated(y.data(), direct.data(), y.shape.pixels(), y.shape.channels, nullptr, 0, nullptr, rounding_);
  return y;
}

// x += proj(attention(q, k, v)) with one head over the pixels of each frame.
void NetworkRun::attention(const Attention& part, Map* x) {
  const std::int64_t channels = x->shape.channels, pixels = x->shape.pixels(), frame_floats = x->shape.frame_floats();
  Map normed = take(x->shape);
  ops_.normalise_channels(x->data(), pixels, channels, part.gamma.data(), false, rounding_, normed.data());
  const Map q = pointwise(part.q, normed.data(), x->shape), k = pointwise(part.k, normed.data(), x->shape),
            v = pointwise(part.v, normed.data(), x->shape);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(channels)));
  for (std::int64_t f = 0; f < x->shape.frames; ++f) {
    ops::KeyValueView view;
    view.k = k.data() + f * frame_floats;
    view.v = v.data() + f * frame_floats;
    view.count = x->shape.height * x->shape.width;
    ops_.attention(q.data() + f * frame_floats, view.count, 1, channels, channels, view, scale, rounding_,
                   normed.data() + f * frame_floats, channels);
  }
  const Map out = pointwise(part.proj, normed.data(), x->shape);
  ops_.add_gated(x->data(), out.data(), pixels, channels, nullptr, 0, nullptr, rounding_);
}

void NetworkRun::mid(const MidBlock& part, Map* x) {
  *x = residual(part.first, *x);
  attention(part.attention, x);
  *x = residual(part.second, *x);
}

// Half the rows and columns (the zero border lies right and below), and half the frames where there is a time
// convolution: each new frame reads two frames and the one before them.
Map NetworkRun::halve(const Resample& part, const Map& x) {
  Shape half = x.shape;
  half.height /= 2;
  half.width /= 2;
  if (part.time.empty()) {
    Map y = take(half);
    spatial_conv(part.spatial, x.data(), x.shape, 2, 0, half, y.data());
    return y;
  }
  CausalInput input = begin_causal(half, 1);
  spatial_conv(part.spatial, x.data(), x.shape, 2, 0, half, input.fresh());
  remember(input);
  if (!state_.started) {
    Map y = take(half);
    std::copy_n(input.fresh(), half.floats(), y.data());
    return y;
  }
  Shape out = half;
  out.frames /= 2;
  Map y = take(out);
  ops::Conv3d args;
  args.x = input.data();
  args.frames_in = 1 + half.frames;
  args.height_in = args.height_out = half.height;
  args.width_in = args.width_out = half.width;
  args.channels_in = part.time.front().channels_in;
  args.weight = part.time.front().weight;
  args.bias = part.time.front().bias.data();
  args.kernel_t = part.time.front().kernel_t;
  args.stride_t = 2;
  args.frames_out = out.frames;
  args.y = y.data();
  ops_.conv3d(args, rounding_);
  return y;
}

// Two frames from each: one convolution gives the first, another the second.
Map NetworkRun::double_frames(const std::vector<Conv>& convs, const Map& x) {
  const CausalInput input = begin_causal(x.shape, kHistoryFrames);
  std::copy_n(x.data(), x.shape.floats(), input.fresh());
  remember(input);
  Shape out = x.shape;
  out.frames *= 2;
  out.channels = convs.front().channels_out;
  Map y = take(out);
  for (std::int64_t f = 0; f < out.frames; ++f) {
    const Conv& conv = convs[static_cast<std::size_t>(f % 2)];
    ops::Conv3d args;
    args.x = input.data() + f / 2 * x.shape.frame_floats();
    args.frames_in = conv.kernel_t;
    args.height_in = args.height_out = out.height;
    args.width_in = args.width_out = out.width;
    args.channels_in = conv.channels_in;
    args.weight = conv.weight;
    args.bias = conv.bias.data();
    args.kernel_t = conv.kernel_t;
    args.frames_out = 1;
    args.y = y.data() + f * out.frame_floats();
    ops_.conv3d(args, rounding_);
  }
  return y;
}

// Twice the rows and columns, and twice the frames where there is a time convolution and the stream has started.
Map NetworkRun::double_up(const Resample& part, Map x) {
  if (!part.time.empty() && state_.started) x = double_frames(part.time, x);
  if (!part.time.empty() && !state_.started) ++slot_;  // the first chunk leaves the time convolution's past empty
  Shape one = x.shape;                                 // one doubled frame at a time, which bounds the scratch
  one.frames = 1;
  one.height *= 2;
  one.width *= 2;
  const Map wide = take(one);
  Shape out = one;
  out.channels = part.spatial.channels_out;
  const std::int64_t out_floats = out.floats();
  Shape all = out;
  all.frames = x.shape.frames;
  Map y = take(all);
  for (std::int64_t f = 0; f < x.shape.frames; ++f) {
    double_pixels(ops_.pool(), x.data() + f * x.shape.frame_floats(), x.shape.height, x.shape.width, x.shape.channels,
                  wide.data());
    spatial_conv(part.spatial, wide.data(), one, 1, 1, out, y.data() + f * out_floats);
  }
  return y;
}

void NetworkRun::down_stage(const Stage& stage, Map* x) {
  const std::int64_t factor_s = stage.resample ? 2 : 1;
  const std::int64_t factor_t = stage.resample && !stage.resample->time.empty() ? 2 : 1;
  // The shortcut comes first: it is much smaller than the input, whose memory the blocks can then reuse.
  const Map shortcut = take({(x->shape.frames + factor_t - 1) / factor_t, x->shape.height / factor_s,
                             x->shape.width / factor_s, stage.channels_out});
  average_down(ops_.pool(), x->data(), x->shape, factor_t, factor_s, stage.channels_out, rounding_, shortcut.data());
  for (const ResidualBlock& block : stage.blocks) *x = residual(block, *x);
  if (stage.resample) *x = halve(*stage.resample, *x);
  assert(x->shape.floats() == shortcut.shape.floats());
  ops_.add_gated(x->data(), shortcut.data(), x->shape.pixels(), x->shape.channels, nullptr, 0, nullptr, rounding_);
}

void NetworkRun::up_stage(const Stage& stage, Map* x) {
  const Map input = std::move(*x);
  *x = residual(stage.blocks.front(), input);
  for (std::size_t i = 1; i < stage.blocks.size(); ++i) *x = residual(stage.blocks[i], *x);
  if (!stage.resample) return;
  *x = double_up(*stage.resample, std::move(*x));
  const std::int64_t factor_t = stage.resample->time.empty() ? 1 : 2;
  const std::int64_t skip = state_.started ? 0 : factor_t - 1;
  add_repeated_up(ops_.pool(), input.data(), input.shape, factor_t, skip, x->shape, rounding_, x->data());
}

void NetworkRun::show(const char* name, std::size_t index, const Map& x) const {
  if (tap_)
    tap_(name + std::to_string(index), x.data(), x.shape.frames, x.shape.height, x.shape.width, x.shape.channels);
}

void NetworkRun::show(const char* name, const Map& x) const {
  if (tap_) tap_(name, x.data(), x.shape.frames, x.shape.height, x.shape.width, x.shape.channels);
}

Map NetworkRun::encode(const Network& encoder, const float* folded, const Shape& shape) {
  slot_ = 0;
  Map x = causal_conv_in(encoder.conv_in, folded, shape);
  show("encoder.conv_in", x);
  for (std::size_t i = 0; i < encoder.stages.size(); ++i) {
    down_stage(encoder.stages[i], &x);
    show("encoder.down_blocks.", i, x);
  }
  mid(encoder.mid, &x);
  show("encoder.mid_block", x);
  Map y = causal_conv(encoder.conv_out, normalised(encoder.gamma_out, x));
  state_.started = true;
  return y;
}

Map NetworkRun::decode(const Network& decoder, const float* latent, const Shape& shape) {
  slot_ = 0;
  Map x = causal_conv_in(decoder.conv_in, latent, shape);
  show("decoder.conv_in", x);
  mid(decoder.mid, &x);
  show("decoder.mid_block", x);
  for (std::size_t i = 0; i < decoder.stages.size(); ++i) {
    up_stage(decoder.stages[i], &x);
    show("decoder.up_blocks.", i, x);
  }
  Map y = causal_conv(decoder.conv_out, normalised(decoder.gamma_out, x));
  state_.started = true;
  return y;
}

}  // namespace premotor::engine::vae
