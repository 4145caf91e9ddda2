// The autoencoder's outside: opening, checking what it is given, cutting a stream into chunks, pixels to patches and
// back. The layers are in vae_network.cpp and vae_pointwise.cpp, their weights in vae_weights.cpp.
#include "engine/vae.h"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <new>
#include <utility>

#include "base/half.h"
#include "engine/plan_file.h"
#include "engine/preprocess.h"
#include "engine/safetensors.h"
#include "engine/vae_network.h"
#include "engine/vae_scratch.h"
#include "engine/vae_weights.h"

namespace premotor::engine {
namespace {

constexpr std::int64_t kFramesAtOnce = 4;  // encoded together; more would only need more memory
// A picture's side, and the frames of one call: far above any camera, far below what could overflow a product.
constexpr std::int64_t kSideMax = 16384;
constexpr std::int64_t kFramesMax = 65536;

Status frame_error(const std::string& what, const std::string& expected, const std::string& found,
                   const std::string& advice) {
  Status status = Status::error("FRAME_INVALID", what + ": expected " + expected + ", found " + found + ". " + advice);
  status.expected = expected;
  status.found = found;
  return status;
}

std::string size_text(std::int64_t height, std::int64_t width) {
  return std::to_string(height) + " x " + std::to_string(width) + " (height x width)";
}

Status memory_error(const char* doing) {
  return Status::error("OUT_OF_MEMORY", std::string("There was too little memory for ") + doing +
                                            ". Free memory, or use smaller pictures, then start the episode again.");
}

}  // namespace

struct Vae::Impl {
  VaeConfig config;
  ops::Rounding rounding = ops::Rounding::none;
  ops::Ops* ops = nullptr;
  TensorStore store;
  std::vector<std::unique_ptr<std::byte[]>> buffers;  // converted weights
  std::vector<std::string> unread;
  std::int64_t weight_bytes = 0;
  vae::Weights weights;
  // Kept between the chunks of an episode, which come all the time. The decoder's goes with each call: it is large, and
  // only looked at.
  vae::Scratch encoder_scratch;

  Status read(const PlanFile& plan);
  Status read(const std::string& folder, WeightPrecision precision, PlanWriter* plan);
  Status check_chunk(std::int64_t frames, std::int64_t height, std::int64_t width, const VaeStreamState& state) const;
  void encode(const float* pixels, std::int64_t frames, VaeStreamState* state, std::vector<float>* moments,
              const VaeTap& tap, const FramesDone& on_done);
  void decode(const float* latents, std::int64_t frames, std::int64_t height, std::int64_t width,
              std::vector<float>* pixels, const VaeTap& tap) const;
};

Vae::Vae(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Vae::~Vae() = default;

const VaeConfig& Vae::config() const { return impl_->config; }
std::int64_t Vae::weight_bytes() const { return impl_->weight_bytes; }
const std::vector<std::string>& Vae::unread() const { return impl_->unread; }

Status Vae::open(const std::string& folder, WeightPrecision precision, ops::Rounding rounding, ops::Ops& ops,
                 std::unique_ptr<Vae>* out, PlanUse plan) {
  auto impl = std::make_unique<Impl>();
  impl->rounding = rounding;
  impl->ops = &ops;
  PREMOTOR_TRY(read_vae_config(folder, &impl->config));
  if (plan.sketch != nullptr) {
    WeightReader reader(*plan.sketch, "vae", precision);
    PREMOTOR_TRY(vae::read_weights(reader, impl->config, &impl->weights));
  } else {
    PREMOTOR_TRY(plan.from != nullptr ? impl->read(*plan.from) : impl->read(folder, precision, plan.to));
  }
  out->reset(new Vae(std::move(impl)));
  return Status::good();
}

Status Vae::Impl::read(const PlanFile& plan) {
  WeightReader reader(plan, "vae", *ops);
  PREMOTOR_TRY(vae::read_weights(reader, config, &weights));
  if (const PlanPart* part = plan.contents().part("vae")) {
    unread = part->unread;
    weight_bytes = part->weight_bytes;
  }
  return Status::good();
}

Status Vae::Impl::read(const std::string& folder, WeightPrecision precision, PlanWriter* plan) {
  PREMOTOR_TRY(TensorStore::open_folder(folder, diffusers_stems, &store));
  WeightReader reader(store, precision);
  if (plan != nullptr)
    reader.record_to(*plan, "vae", *ops, rounding);
  else
    reader.prepare_with(*ops, rounding);
  PREMOTOR_TRY(vae::read_weights(reader, config, &weights));
  unread = reader.unread();
  weight_bytes = reader.weight_bytes();
  buffers = reader.take_buffers();
  if (plan == nullptr) return Status::good();
  std::int64_t parameters = 0;
  for (const StoredTensor& tensor : store.tensors()) parameters += tensor.elements();
  plan->contents().parts.push_back({"vae", parameters, weight_bytes, unread});
  return Status::good();
}

// The pictures must halve evenly down to the latent, and a stream keeps its size and rhythm.
Status Vae::Impl::check_chunk(std::int64_t frames, std::int64_t height, std::int64_t width,
                              const VaeStreamState& state) const {
  const std::int64_t space = config.scale_factor_spatial, time = config.scale_factor_temporal;
  const auto fits = [&](std::int64_t side) { return side >= space && side <= kSideMax && side % space == 0; };
  if (!fits(height) || !fits(width))
    return frame_error(
        "A picture for the autoencoder",
        "height and width that are multiples of " + std::to_string(space) + ", at most " + std::to_string(kSideMax),
        size_text(height, width), "Change the job's height and width.");
  if (!state.started) {
    if (frames == 1) return Status::good();
    return frame_error("The first chunk of a camera stream", "1 frame", std::to_string(frames),
                       "An episode starts with one observation; commit the later ones after it.");
  }
  if (height != state.height || width != state.width)
    return frame_error("A later chunk of a camera stream", "the stream's size, " + size_text(state.height, state.width),
                       size_text(height, width), "Reset the policy before the size changes.");
  if (frames >= time && frames <= kFramesMax && frames % time == 0) return Status::good();
  return frame_error("A later chunk of a camera stream",
                     "a multiple of " + std::to_string(time) + " frames, at most " + std::to_string(kFramesMax),
                     std::to_string(frames), "Give one frame for each moment of the executed chunk.");
}

void Vae::Impl::encode(const float* pixels, std::int64_t frames, VaeStreamState* state, std::vector<float>* moments,
                       const VaeTap& tap, const FramesDone& on_done) {
  const std::int64_t patch = config.patch_size, picture_floats = state->height * state->width * 3;
  const std::int64_t at_once =
      std::max(kFramesAtOnce / config.scale_factor_temporal, std::int64_t{1}) * config.scale_factor_temporal;
  vae::Scratch& scratch = encoder_scratch;
  moments->clear();
  for (std::int64_t done = 0; done < frames;) {
    const std::int64_t now = std::min(at_once, frames - done);
    const vae::Shape shape = {now, state->height / patch, state->width / patch, config.in_channels};
    const vae::Scratch::Block folded = scratch.take(shape.floats());
    patchify(pixels + done * picture_floats, now, state->height, state->width, 3, patch, folded.data());
    vae::NetworkRun run(*ops, rounding, scratch, *state, tap);
    const vae::Map hidden = run.encode(weights.encoder, folded.data(), shape);
    const vae::Map chunk = run.pointwise(weights.quant, hidden.data(), hidden.shape);
    moments->insert(moments->end(), chunk.data(), chunk.data() + chunk.shape.floats());
    done += now;
    if (on_done) on_done(done);
  }
}

Status Vae::encode(const float* pixels, std::int64_t frames, std::int64_t height, std::int64_t width,
                   VaeStreamState* state, std::vector<float>* moments, const VaeTap& tap,
                   const FramesDone& on_done) const {
  PREMOTOR_TRY(impl_->check_chunk(frames, height, width, *state));
  state->height = height;
  state->width = width;
  try {
    impl_->encode(pixels, frames, state, moments, tap, on_done);
  } catch (const std::bad_alloc&) {
    state->clear();
    return memory_error("encoding camera pictures");
  }
  return Status::good();
}

void Vae::Impl::decode(const float* latents, std::int64_t frames, std::int64_t height, std::int64_t width,
                       std::vector<float>* pixels, const VaeTap& tap) const {
  const std::int64_t patch = config.patch_size;
  const vae::Shape one = {1, height, width, config.z_dim};
  const std::int64_t picture_floats = height * config.scale_factor_spatial * width * config.scale_factor_spatial * 3;
  vae::Scratch scratch;
  VaeStreamState state;
  pixels->clear();
  pixels->reserve(static_cast<std::size_t>((1 + (frames - 1) * config.scale_factor_temporal) * picture_floats));
  for (std::int64_t f = 0; f < frames; ++f) {
    const vae::Map latent = {scratch.take(one.floats()), one};
    std::copy_n(latents + f * one.floats(), one.floats(), latent.data());
    if (rounding == ops::Rounding::bf16)
      for (std::int64_t i = 0; i < one.floats(); ++i) latent.data()[i] = round_to_bf16(latent.data()[i]);
    vae::NetworkRun run(*ops, rounding, scratch, state, tap);
    const vae::Map start = run.pointwise(weights.post_quant, latent.data(), one);
    const vae::Map folded = run.decode(weights.decoder, start.data(), start.shape);
    const std::size_t at = pixels->size();
    pixels->resize(at + static_cast<std::size_t>(folded.shape.floats()));
    unpatchify(folded.data(), folded.shape.frames, folded.shape.height * patch, folded.shape.width * patch, 3, patch,
               pixels->data() + at);
  }
  for (float& value : *pixels) value = std::clamp(value, -1.0f, 1.0f);
}

Status Vae::decode(const float* latents, std::int64_t frames, std::int64_t height, std::int64_t width,
                   std::vector<float>* pixels, const VaeTap& tap) const {
  const std::int64_t side_max = kSideMax / impl_->config.scale_factor_spatial;
  if (frames < 1 || frames > kFramesMax || height < 1 || height > side_max || width < 1 || width > side_max)
    return frame_error("Latents to decode", "at least 1 frame and sides of 1 .. " + std::to_string(side_max),
                       std::to_string(frames) + " frames of " + size_text(height, width),
                       "Pass the latents that predict returned.");
  try {
    impl_->decode(latents, frames, height, width, pixels, tap);
  } catch (const std::bad_alloc&) {
    return memory_error("decoding latents");
  }
  return Status::good();
}

void normalise_latents(const VaeConfig& config, const float* moments, std::int64_t rows, ops::Rounding rounding,
                       float* latents) {
  const std::size_t z = static_cast<std::size_t>(config.z_dim);
  for (std::int64_t r = 0; r < rows; ++r, moments += 2 * z, latents += z) {
    for (std::size_t c = 0; c < z; ++c) {
      const float value = (moments[c] - config.latents_mean[c]) * (1.0f / config.latents_std[c]);
      latents[c] = rounding == ops::Rounding::bf16 ? round_to_bf16(value) : value;
    }
  }
}

void denormalise_latents(const VaeConfig& config, const float* latents, std::int64_t rows, ops::Rounding rounding,
                         float* out) {
  const std::size_t z = static_cast<std::size_t>(config.z_dim);
  const auto held = [&](float value) { return rounding == ops::Rounding::bf16 ? round_to_bf16(value) : value; };
  for (std::size_t c = 0; c < z; ++c) {
    const float mean = held(config.latents_mean[c]), inverse = held(1.0f / held(config.latents_std[c]));
    for (std::size_t i = c; i < static_cast<std::size_t>(rows) * z; i += z)
      out[i] = held(held(held(latents[i]) / inverse) + mean);
  }
}

}  // namespace premotor::engine
