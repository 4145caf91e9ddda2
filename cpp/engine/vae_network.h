// One run of the encoder or the decoder over the next chunk of frames. Part of vae.cpp's implementation.
//
// Every 3-frame convolution is causal: it reads the last two frames of its input's past, which live in a
// VaeStreamState, in front of the new ones. A stream starts from two frames of zeros. Two kinds of layer treat a
// stream's first chunk (one frame) differently, as the reference does: the encoder's halving of the frame rate passes
// it through and only remembers it; the decoder's doubling passes it through and forgets it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/vae.h"
#include "engine/vae_pointwise.h"
#include "engine/vae_scratch.h"
#include "engine/vae_weights.h"
#include "ops/ops.h"

namespace premotor::engine::vae {

// An activation: memory and what is in it.
struct Map {
  Scratch::Block block;
  Shape shape;

  [[nodiscard]] float* data() const { return block.data(); }
};

class NetworkRun {
 public:
  // `state` belongs to this direction of one stream; the run reads it and leaves it ready for the next chunk.
  NetworkRun(ops::Ops& ops, ops::Rounding rounding, Scratch& scratch, VaeStreamState& state, const VaeTap& tap)
      : ops_(ops), rounding_(rounding), scratch_(scratch), state_(state), tap_(tap) {}

  // folded: [frames, h, w, channels] pictures after patchify; returns the moments before quant_conv. Throws
  // std::bad_alloc.
  Map encode(const Network& encoder, const float* folded, const Shape& shape);
  // latent: [1, h, w, z_dim] after post_quant_conv; returns the pictures before unpatchify. Throws std::bad_alloc.
  Map decode(const Network& decoder, const float* latent, const Shape& shape);

  // A 1x1x1 convolution of any activation.
  Map pointwise(const Conv& conv, const float* x, const Shape& shape);

 private:
  // The input of a causal convolution while it is being written: `history` old frames, then the new ones.
  struct CausalInput {
    Scratch::Block block;
    Shape shape;               // of the new frames
    std::int64_t history = 0;  // frames
    std::size_t slot = 0;      // in the state

    [[nodiscard]] float* data() const { return block.data(); }
    [[nodiscard]] float* fresh() const { return block.data() + history * shape.frame_floats(); }
  };

  Map take(const Shape& shape) { return {scratch_.take(shape.floats()), shape}; }
  CausalInput begin_causal(const Shape& shape, std::int64_t history);
  void remember(const CausalInput& input);
  Map causal_conv(const Conv& conv, CausalInput input);
  Map causal_conv_in(const Conv& conv, const float* x, const Shape& shape);
  CausalInput normalised(const std::vector<float>& gamma, const Map& x);
  void spatial_conv(const Conv& conv, const float* x, const Shape& in, std::int64_t stride, std::int64_t pad,
                    const Shape& out, float* y);

  Map residual(const ResidualBlock& block, const Map& x);
  void attention(const Attention& part, Map* x);
  void mid(const MidBlock& part, Map* x);
  Map halve(const Resample& part, const Map& x);
  Map double_up(const Resample& part, Map x);
  Map double_frames(const std::vector<Conv>& convs, const Map& x);
  void down_stage(const Stage& stage, Map* x);
  void up_stage(const Stage& stage, Map* x);
  void show(const char* name, const Map& x) const;
  void show(const char* name, std::size_t index, const Map& x) const;

  ops::Ops& ops_;
  ops::Rounding rounding_;
  Scratch& scratch_;
  VaeStreamState& state_;
  const VaeTap& tap_;
  std::size_t slot_ = 0;  // of the next causal convolution, in the order of execution
};

}  // namespace premotor::engine::vae
