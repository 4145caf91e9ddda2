// Pictures in and out of a session: resize, video encoder, joined latents; and the decoder for imagined video
// (docs/MODEL.md section 6).
#include <algorithm>
#include <functional>

#include "base/thread_pool.h"
#include "engine/preprocess.h"
#include "engine/session.h"

namespace premotor::engine {

// Resizes and encodes one camera's pictures; its stream's state moves on. moments_out: [frames, h, w, 2 z], channels
// last.
Status Session::encode_camera(const std::vector<Moment>& moments, const CameraGroup& group, std::int64_t camera,
                              const FramesDone& on_done, std::vector<float>* pixels, std::vector<float>* moments_out,
                              std::int64_t* frames) {
  const std::int64_t picture = group.height * group.width * 3, count = std::ssize(moments);
  pixels->resize(static_cast<std::size_t>(count * picture));
  ops_->pool().parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const Picture& source = moments[static_cast<std::size_t>(t)][static_cast<std::size_t>(camera)];
      float* to = pixels->data() + t * picture;
      resize_bilinear(source.rgb, source.height, source.width, group.height, group.width, to);
      normalise_pixels(to, picture, rounds());
    }
  });
  VaeStreamState* state = &streams_[static_cast<std::size_t>(camera)];
  PREMOTOR_TRY(vae_->encode(pixels->data(), count, group.height, group.width, state, moments_out, {}, on_done));
  const std::int64_t factor = geometry_.spatial_factor;
  *frames = std::ssize(*moments_out) / ((group.height / factor) * (group.width / factor) * 2 * vae_->config().z_dim);
  return Status::good();
}

// Puts one camera's normalised latent means into their place in the joined latents [C, frames, h, w].
void Session::place_latent(const std::vector<float>& moments, std::int64_t frames, const CameraGroup& group,
                           std::int64_t camera, std::vector<float>* latents) {
  const std::int64_t channels = vae_->config().z_dim;
  const std::int64_t height = group.height / geometry_.spatial_factor, width = group.width / geometry_.spatial_factor;
  std::vector<float>& normal = buffers_.normal;
  normal.resize(static_cast<std::size_t>(frames * height * width * channels));
  normalise_latents(vae_->config(), moments.data(), frames * height * width, rounding(), normal.data());
  // The T shape has the half-size cameras on top, side by side, and the first camera below; otherwise cameras lie side
  // by side.
  const std::int64_t left = job_.tshape ? (camera == 0 ? 0 : (camera - 1) * width) : camera * width;
  const std::int64_t top = job_.tshape && camera == 0 ? latent_.height - height : 0;
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t f = 0; f < frames; ++f)
      for (std::int64_t y = 0; y < height; ++y) {
        const float* from = normal.data() + (f * height + y) * width * channels + c;
        float* to = latents->data() + ((c * frames + f) * latent_.height + top + y) * latent_.width + left;
        for (std::int64_t x = 0; x < width; ++x) to[x] = from[x * channels];
      }
}

// Progress is told in pictures, after every few of them: on a slow computer a chunk's take longer than a sign of life
// may wait (docs/CONTROL.md).
Status Session::encode(const std::vector<Moment>& moments, Trace* trace, bool with_vae,
                       const ProgressCallback& progress, std::vector<float>* latents, std::int64_t* frames) {
  const std::int64_t pictures = std::ssize(moments);
  for (const CameraGroup& group : groups_) {
    std::vector<std::vector<float>>&pixels = buffers_.pixels, &encoded = buffers_.moments;
    if (std::ssize(pixels) < group.count) pixels.resize(static_cast<std::size_t>(group.count));
    encoded.resize(pixels.size());
    for (std::int64_t i = 0; i < group.count; ++i) {
      const std::int64_t camera = group.first + i;
      const auto at = static_cast<std::size_t>(i);
      const auto tell = [&](std::int64_t done) {
        if (progress) progress("encode", camera * pictures + done, std::ssize(streams_) * pictures);
      };
      // By reference: what it captures would be copied into the heap at every commit.
      PREMOTOR_TRY(encode_camera(moments, group, camera, std::ref(tell), &pixels[at], &encoded[at], frames));
      latents->resize(static_cast<std::size_t>(vae_->config().z_dim * *frames * latent_plane()));
      place_latent(encoded[at], *frames, group, camera, latents);
    }
    if (trace != nullptr && with_vae) trace_vae(trace, group, std::ssize(moments), *frames);
  }
  if (trace != nullptr)
    trace->add("obs_latent", {1, vae_->config().z_dim, *frames, latent_.height, latent_.width},
               std::vector<float>(*latents));
  return Status::good();
}

Status Session::decode(std::span<const float> latents, std::int64_t frames, std::vector<float>* pictures,
                       std::int64_t shape[4]) {
  PREMOTOR_TRY(check_plan());
  const VaeConfig& vae = vae_->config();
  const std::int64_t plane = latent_plane();
  if (frames < 1 || std::ssize(latents) != vae.z_dim * frames * plane)
    return Status::error("ARGUMENT_INVALID",
                         "decode needs latents of " + std::to_string(vae.z_dim) + " channels x frames x " +
                             std::to_string(latent_.height) + " x " + std::to_string(latent_.width) + ", found " +
                             std::to_string(latents.size()) + " values for " + std::to_string(frames) + " frames.");
  const ThreadPool::CallerCores cores(ops_->pool());
  std::vector<float> last(latents.size());  // [frames, h, w, C]
  for (std::int64_t c = 0; c < vae.z_dim; ++c)
    for (std::int64_t i = 0; i < frames * plane; ++i)
      last[static_cast<std::size_t>(i * vae.z_dim + c)] = latents[static_cast<std::size_t>(c * frames * plane + i)];
  denormalise_latents(vae, last.data(), frames * plane, rounding(), last.data());
  PREMOTOR_TRY(vae_->decode(last.data(), frames, latent_.height, latent_.width, pictures));
  for (float& value : *pictures) value = std::clamp(value / 2.0f + 0.5f, 0.0f, 1.0f);
  shape[1] = latent_.height * geometry_.spatial_factor;
  shape[2] = latent_.width * geometry_.spatial_factor;
  shape[3] = 3;
  shape[0] = std::ssize(*pictures) / (shape[1] * shape[2] * 3);
  return Status::good();
}

}  // namespace premotor::engine
