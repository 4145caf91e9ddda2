// The video autoencoder with structures other than the released one, against what the reference computes with the same
// tiny random checkpoints (test/goldens/structures, made by training/goldens/vae_structures.py): other depths, widths,
// block counts, patch sizes and frame rates. What holds for any checkpoint is in vae_test.cpp.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "engine/vae.h"
#include "golden.h"
#include "ops/cpu/cpu_ops.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

constexpr double kLimit = 1e-5;  // relative RMS in float32

// What a structure's config.json must lead to.
struct Expected {
  const char* name;
  std::int64_t space, time;  // pixels per latent side, frames per latent frame
};

constexpr Expected kStructures[] = {
    {"three_stages", 4, 2}, {"early_time", 16, 4}, {"eight_frames", 16, 8}, {"constant_rate", 8, 1}};

const StoredTensor& find(const TensorStore& store, const std::string& name) {
  const StoredTensor* tensor = store.find(name);
  if (tensor == nullptr)
    golden::need(Status::error("TEST", "the fixture has no tensor " + name + "; make it again with the script"));
  return *tensor;
}

// Tensors of the reference are [1, channel, frame, row, column]; here [frame, row, column, channel].
std::vector<float> channels_last(const TensorStore& store, const std::string& name) {
  const StoredTensor& tensor = find(store, name);
  const std::vector<float> from = golden::floats(store, name);
  const std::int64_t channels = tensor.shape[1], pixels = tensor.elements() / channels;
  std::vector<float> to(from.size());
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t p = 0; p < pixels; ++p)
      to[static_cast<std::size_t>(p * channels + c)] = from[static_cast<std::size_t>(c * pixels + p)];
  return to;
}

void check(const std::vector<float>& found, const std::vector<float>& expected, const std::string& name) {
  const double error = golden::relative_rms(found, expected);
  tap::ok(error <= kLimit, name);
  char text[160];
  std::snprintf(text, sizeof text, "%s: relative RMS %.3g", name.c_str(), error);
  tap::note(text);
}

// One stream, chunk by chunk.
void test_encode(const Vae& vae, const TensorStore& io, const std::string& name) {
  const std::vector<std::int64_t>& shape = find(io, "pixels").shape;  // [1, 3, frames, height, width]
  const std::vector<float> pixels = channels_last(io, "pixels");
  find(io, "chunks");
  VaeStreamState state;
  std::int64_t first = 0;
  int chunk = 0;
  for (const std::int32_t count : golden::integers<std::int32_t>(io, "chunks")) {
    std::vector<float> moments;
    golden::need(
        vae.encode(pixels.data() + first * shape[3] * shape[4] * 3, count, shape[3], shape[4], &state, &moments));
    check(moments, channels_last(io, "moments" + std::to_string(chunk)),
          name + " moments of chunk " + std::to_string(chunk) + ", frames " + std::to_string(count));
    first += count;
    ++chunk;
  }
  tap::ok(chunk >= 3 && first == shape[2], name + " the chunks are the whole stream");
}

void test_decode(const Vae& vae, const TensorStore& io, const std::string& name) {
  const std::vector<std::int64_t>& shape = find(io, "latents").shape;  // [1, z_dim, frames, height, width]
  std::vector<float> video;
  golden::need(vae.decode(channels_last(io, "latents").data(), shape[2], shape[3], shape[4], &video));
  check(video, channels_last(io, "video"), name + " video");
}

void test_structure(const Expected& expected) {
  const std::string name = expected.name, folder = golden::folder() + "/structures/vae_" + name;
  TensorStore io;
  golden::need(TensorStore::open_file(folder + "/io.safetensors", &io));
  ops::CpuOps ops(2);
  std::unique_ptr<Vae> vae;
  golden::need(Vae::open(folder, WeightPrecision::f32, ops::Rounding::none, ops, &vae));
  tap::ok(vae->unread().empty(), name + " every tensor of the checkpoint is used");
  tap::ok(vae->config().scale_factor_spatial == expected.space && vae->config().scale_factor_temporal == expected.time,
          name + " factors of space and time");
  test_encode(*vae, io, name);
  test_decode(*vae, io, name);
}

}  // namespace

int main() {
  for (const Expected& expected : kStructures) test_structure(expected);
  return tap::finish();
}
