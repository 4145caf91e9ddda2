// The video autoencoder against the reference: unit vectors with inner activations (test/goldens/units/vae), the traced
// first calls of every golden case, the decoded imagined video; and what must hold for any checkpoint: streaming,
// independence of streams and threads, refused inputs.
#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <cstring>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/preprocess.h"
#include "engine/vae.h"
#include "engine/vae_pointwise.h"
#include "golden.h"
#include "ops/cpu/cpu_ops.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

// Wanted in float32; the limit that separates mistakes (7e-3 and more) from rounding is 1e-4.
constexpr double kWanted = 1e-5;
// In bfloat16 two correct runs differ by 0.5 .. 1.5 e-2 where the order of a sum differs; the limit of the fixtures is
// 2e-2.
constexpr double kLimitBf16 = 2e-2;

// Tensors of the reference are [batch, channel, frame, row, column]: one batch row as [frame, row, column, channel].
std::vector<float> channels_last(const TensorStore& store, const std::string& name, std::int64_t row = 0) {
  const StoredTensor* tensor = store.find(name);
  const std::vector<float> all = golden::floats(store, name);
  const std::int64_t channels = tensor->shape[1], pixels = tensor->elements() / tensor->shape[0] / channels;
  std::vector<float> to(static_cast<std::size_t>(channels * pixels));
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t p = 0; p < pixels; ++p)
      to[static_cast<std::size_t>(p * channels + c)] = all[static_cast<std::size_t>((row * channels + c) * pixels + p)];
  return to;
}

void check(const std::vector<float>& found, const std::vector<float>& expected, double limit, const std::string& name) {
  const double error = golden::relative_rms(found, expected);
  tap::ok(error <= limit, name);
  char text[160];
  std::snprintf(text, sizeof text, "%s: relative RMS %.3g", name.c_str(), error);
  tap::note(text);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::unique_ptr<Vae> open_vae(const std::string& folder, ops::Ops& ops, ops::Rounding rounding = ops::Rounding::none) {
  std::unique_ptr<Vae> vae;
  golden::need(Vae::open(folder, rounding == ops::Rounding::bf16 ? WeightPrecision::bf16 : WeightPrecision::f32,
                         rounding, ops, &vae));
  return vae;
}

// Activations by name, one entry for each pass over the network.
using Seen = std::map<std::string, std::vector<std::vector<float>>>;

VaeTap record(Seen* seen) {
  return
      [seen](const std::string& name, const float* data, std::int64_t frames, std::int64_t height, std::int64_t width,
             std::int64_t channels) { (*seen)[name].emplace_back(data, data + frames * height * width * channels); };
}

struct Units {
  std::string checkpoint = golden::folder() + "/units/vae/checkpoint";
  TensorStore store;
  std::int64_t height = 32, width = 48;

  Units() { golden::need(TensorStore::open_file(golden::folder() + "/units/vae/vae.safetensors", &store)); }

  // Frames [first, first + count) of one stream, scaled to [-1, 1].
  [[nodiscard]] std::vector<float> pixels(std::int64_t stream, std::int64_t first, std::int64_t count) const {
    const std::vector<std::uint8_t> frames = golden::integers<std::uint8_t>(store, "frames");  // [2, 21, 32, 48, 3]
    const std::int64_t picture = height * width * 3, begin = (stream * 21 + first) * picture;
    std::vector<float> values(frames.begin() + begin, frames.begin() + begin + count * picture);
    normalise_pixels(values.data(), std::ssize(values), false);
    return values;
  }
};

void test_unit_encoder(const Units& units) {
  ops::CpuOps ops(2);
  const std::unique_ptr<Vae> vae = open_vae(units.checkpoint, ops);
  tap::ok(vae->unread().empty(), "every tensor of the checkpoint is used");
  tap::ok(vae->weight_bytes() > 0, "the weights have a size");
  const std::int64_t counts[] = {1, 4, 8, 8};
  for (std::int64_t stream = 0; stream < 2; ++stream) {
    VaeStreamState state;
    Seen seen;
    std::int64_t first = 0;
    for (int chunk = 0; chunk < 4; ++chunk) {
      std::vector<float> moments;
      const std::vector<float> pixels = units.pixels(stream, first, counts[chunk]);
      golden::need(vae->encode(pixels.data(), counts[chunk], units.height, units.width, &state, &moments,
                               stream == 0 && chunk < 2 ? record(&seen) : VaeTap{}));
      const std::string name = "enc.chunk" + std::to_string(chunk) + ".moments";
      check(moments, channels_last(units.store, name, stream), kWanted, name + " of stream " + std::to_string(stream));
      first += counts[chunk];
      if (chunk != 1) continue;
      std::vector<float> latents(moments.size() / 2);
      normalise_latents(vae->config(), moments.data(), std::ssize(latents) / vae->config().z_dim, ops::Rounding::none,
                        latents.data());
      check(latents, channels_last(units.store, "enc.chunk1.normalized", stream), kWanted, "normalised latents");
    }
    if (stream != 0) continue;
    const std::pair<const char*, const char*> taps[] = {
        {"encoder.conv_in", "conv_in"},     {"encoder.down_blocks.0", "down0"}, {"encoder.down_blocks.1", "down1"},
        {"encoder.down_blocks.2", "down2"}, {"encoder.down_blocks.3", "down3"}, {"encoder.mid_block", "mid"}};
    for (const auto& [ours, theirs] : taps)
      for (std::size_t chunk = 0; chunk < 2; ++chunk) {
        const std::string name = "act.enc.chunk" + std::to_string(chunk) + "." + theirs;
        check(seen[ours].at(chunk), channels_last(units.store, name), kWanted, name);
      }
  }
}

void test_unit_decoder(const Units& units) {
  ops::CpuOps ops(2);
  const std::unique_ptr<Vae> vae = open_vae(units.checkpoint, ops);
  const std::vector<float> normalised = channels_last(units.store, "dec.normalized_latent");
  std::vector<float> latents(normalised.size()), video;
  denormalise_latents(vae->config(), normalised.data(), std::ssize(latents) / vae->config().z_dim, ops::Rounding::none,
                      latents.data());
  check(latents, channels_last(units.store, "dec.latent"), 1e-6, "de-normalised latents");
  Seen seen;
  golden::need(vae->decode(latents.data(), 4, 2, 3, &video, record(&seen)));
  check(video, channels_last(units.store, "dec.video"), kWanted, "decoded video");
  const auto [low, high] = std::minmax_element(video.begin(), video.end());
  tap::ok(*low >= -1.0f && *high <= 1.0f, "decoded video lies in [-1, 1]");
  const std::pair<const char*, const char*> taps[] = {{"decoder.conv_in", "conv_in"},
                                                      {"decoder.mid_block", "mid"},
                                                      {"decoder.up_blocks.0", "up0"},
                                                      {"decoder.up_blocks.1", "up1"}};
  for (const auto& [ours, theirs] : taps)
    for (std::size_t frame = 0; frame < 2; ++frame) {
      const std::string name = "act.dec.frame" + std::to_string(frame) + "." + theirs;
      check(seen[ours].at(frame), channels_last(units.store, name), kWanted, name);
    }
}

// The first observation of a traced case through its own checkpoint.
void test_trace(const std::string& name, const std::string& stream, bool bf16) {
  const std::string folder = golden::folder() + "/" + name;
  TensorStore store;
  golden::need(TensorStore::open_file(folder + "/trace.safetensors", &store));
  ops::CpuOps ops(2);
  const std::unique_ptr<Vae> vae =
      open_vae(folder + "/checkpoint/vae", ops, bf16 ? ops::Rounding::bf16 : ops::Rounding::none);
  const std::string prefix = "c01." + stream;
  const std::vector<std::int64_t>& shape = store.find(prefix + ".pixels")->shape;  // [cameras, 3, 1, height, width]
  for (std::int64_t camera = 0; camera < shape[0]; ++camera) {
    const std::vector<float> pixels = channels_last(store, prefix + ".pixels", camera);
    VaeStreamState state;
    std::vector<float> moments;
    golden::need(vae->encode(pixels.data(), 1, shape[3], shape[4], &state, &moments));
    check(moments, channels_last(store, prefix + ".moments", camera), bf16 ? kLimitBf16 : kWanted,
          name + " " + prefix + ".moments, camera " + std::to_string(camera));
  }
}

// A whole traced episode of one camera: every observation from pictures to normalised latents, the stream going on from
// call to call.
void test_traced_episode(const std::string& name, bool bf16) {
  const std::string folder = golden::folder() + "/" + name;
  TensorStore store;
  golden::need(TensorStore::open_file(folder + "/trace.safetensors", &store));
  ops::CpuOps ops(2);
  const ops::Rounding rounding = bf16 ? ops::Rounding::bf16 : ops::Rounding::none;
  const std::unique_ptr<Vae> vae = open_vae(folder + "/checkpoint/vae", ops, rounding);
  VaeStreamState state;
  for (const std::string prefix : {"c01.", "c02.", "c04.", "c06."}) {
    const std::vector<std::int64_t>& shape = store.find(prefix + "obs_latent")->shape;  // [1, z, frames, h, w]
    const std::vector<std::int64_t>& image = store.find(prefix + "img0")->shape;        // [frames, height, width, 3]
    const std::int64_t height = shape[3] * vae->config().scale_factor_spatial,
                       width = shape[4] * vae->config().scale_factor_spatial;
    const std::vector<std::uint8_t> rgb = golden::integers<std::uint8_t>(store, prefix + "img0");
    std::vector<float> pixels(static_cast<std::size_t>(image[0] * height * width * 3)), moments;
    for (std::int64_t f = 0; f < image[0]; ++f)
      resize_bilinear(rgb.data() + f * image[1] * image[2] * 3, image[1], image[2], height, width,
                      pixels.data() + f * height * width * 3);
    normalise_pixels(pixels.data(), std::ssize(pixels), bf16);
    golden::need(vae->encode(pixels.data(), image[0], height, width, &state, &moments));
    std::vector<float> latents(moments.size() / 2);
    normalise_latents(vae->config(), moments.data(), std::ssize(latents) / vae->config().z_dim, rounding,
                      latents.data());
    check(latents, channels_last(store, prefix + "obs_latent"), bf16 ? kLimitBf16 : kWanted,
          name + " " + prefix + "obs_latent");
  }
}

void test_imagined_video() {
  const std::string folder = golden::folder() + "/i2va_tiny";
  TensorStore store;
  golden::need(TensorStore::open_file(folder + "/trace.safetensors", &store));
  ops::CpuOps ops(2);
  const std::unique_ptr<Vae> vae = open_vae(folder + "/checkpoint/vae", ops);
  const std::vector<std::int64_t>& shape = store.find("c04.latents_all")->shape;
  std::vector<float> latents = channels_last(store, "c04.latents_all"), video;
  denormalise_latents(vae->config(), latents.data(), std::ssize(latents) / vae->config().z_dim, ops::Rounding::none,
                      latents.data());
  golden::need(vae->decode(latents.data(), shape[2], shape[3], shape[4], &video));
  for (float& value : video) value = std::clamp(value / 2.0f + 0.5f, 0.0f, 1.0f);
  check(video, golden::floats(store, "c04.video"), kWanted, "i2va_tiny: imagined video");
}

// Normalisation with SiLU against its definition in double precision, over the whole range of an exponential, with zero
// and broken pixels.
void test_normalisation() {
  constexpr std::int64_t channels = 37;
  ops::CpuOps ops(2);
  std::vector<float> x(3 * channels), gamma(channels), y(x.size());
  for (std::int64_t c = 0; c < channels; ++c) {
    x[static_cast<std::size_t>(c)] = std::sin(static_cast<float>(c)) * 3.0f;
    gamma[static_cast<std::size_t>(c)] = (c % 2 == 0 ? 1.0f : -1.0f) * std::pow(1.4f, static_cast<float>(c) - 18.0f);
    x[static_cast<std::size_t>(2 * channels + c)] = c == 5 ? NAN : 1.0f;
  }
  ops.normalise_channels(x.data(), 3, channels, gamma.data(), true, ops::Rounding::none, y.data());
  double norm = 0, worst = 0, low = 0, high = 0;
  for (std::size_t c = 0; c < channels; ++c) norm += static_cast<double>(x[c]) * x[c];
  for (std::size_t c = 0; c < channels; ++c) {
    const double v = x[c] / std::sqrt(norm) * std::sqrt(static_cast<double>(channels)) * gamma[c],
                 expected = v / (1 + std::exp(-v));
    low = std::min(low, v);
    high = std::max(high, v);
    // The exponent's own rounding error grows with |v|: half a step of a float near |v| for each of a few operations.
    worst = std::max(worst, std::abs(y[c] - expected) / (std::abs(expected) * (1 + std::abs(v)) + 1e-28));
  }
  tap::ok(low < -100 && high > 100, "the test reaches beyond the exponential's range");
  tap::is_near(worst, 0, 5e-7, "normalisation and SiLU as defined");
  tap::note("largest error " + std::to_string(worst * 1e9) + "e-9");
  tap::ok(std::all_of(y.begin() + channels, y.begin() + 2 * channels, [](float v) { return v == 0; }),
          "a zero pixel stays zero");
  tap::ok(std::all_of(y.begin() + 2 * channels, y.end(), [](float v) { return std::isnan(v); }),
          "a broken pixel stays visible");
}

// Encodes one stream of the unit frames in chunks of the given sizes, with a chosen number of threads.
std::vector<float> encode_in_chunks(const Units& units, std::int64_t stream, const std::vector<std::int64_t>& counts,
                                    int threads) {
  ops::CpuOps ops(threads);
  const std::unique_ptr<Vae> vae = open_vae(units.checkpoint, ops);
  VaeStreamState state;
  std::vector<float> all;
  std::int64_t first = 0;
  for (std::int64_t count : counts) {
    std::vector<float> moments;
    golden::need(
        vae->encode(units.pixels(stream, first, count).data(), count, units.height, units.width, &state, &moments));
    all.insert(all.end(), moments.begin(), moments.end());
    first += count;
  }
  return all;
}

void test_streaming(const Units& units) {
  const std::vector<float> plain = encode_in_chunks(units, 0, {1, 4, 8, 8}, 1);
  tap::ok(same_bits(plain, encode_in_chunks(units, 0, {1, 4, 4, 4, 4, 4}, 1)),
          "an 8-frame chunk is two 4-frame chunks, to the bit");
  tap::ok(same_bits(plain, encode_in_chunks(units, 0, {1, 20}, 3)),
          "and 20 frames at once with three threads, to the bit");
  ops::CpuOps ops(2);
  const std::unique_ptr<Vae> vae = open_vae(units.checkpoint, ops);
  VaeStreamState states[2];
  std::vector<float> streams[2];
  for (std::int64_t first = 0; first < 9; first += first == 0 ? 1 : 4)
    for (std::int64_t stream = 0; stream < 2; ++stream) {
      std::vector<float> moments;
      const std::int64_t count = first == 0 ? 1 : 4;
      golden::need(vae->encode(units.pixels(stream, first, count).data(), count, 32, 48, &states[stream], &moments));
      streams[stream].insert(streams[stream].end(), moments.begin(), moments.end());
    }
  for (std::int64_t stream = 0; stream < 2; ++stream)
    tap::ok(same_bits(streams[stream], encode_in_chunks(units, stream, {1, 4, 4}, 2)),
            "interleaved streams do not mix");
  states[0].clear();
  std::vector<float> moments;
  golden::need(vae->encode(units.pixels(1, 0, 1).data(), 1, 32, 48, &states[0], &moments));
  tap::ok(same_bits(moments, encode_in_chunks(units, 1, {1}, 2)), "a cleared stream starts a new episode");
}

void refuse(const Status& status, const std::string& expected, const std::string& found, const std::string& name) {
  tap::ok(std::string(status.code) == "FRAME_INVALID" && status.message.find(expected) != std::string::npos &&
              status.message.find(found) != std::string::npos,
          name);
  tap::note(status.message);
}

void test_refusals(const Units& units) {
  ops::CpuOps ops(1);
  const std::unique_ptr<Vae> vae = open_vae(units.checkpoint, ops);
  VaeStreamState state;
  std::vector<float> moments, again;
  const std::vector<float> pixels = units.pixels(0, 0, 9);
  const std::int64_t picture = 32 * 48 * 3;
  refuse(vae->encode(pixels.data(), 1, 30, 48, &state, &moments), "multiples of 16", "30 x 48",
         "a height that does not halve evenly");
  refuse(vae->encode(pixels.data(), 1, 0, 48, &state, &moments), "multiples of 16", "0 x 48", "an empty picture");
  refuse(vae->encode(pixels.data(), 1, 1 << 30, 48, &state, &moments), "at most", "1073741824", "a huge picture");
  refuse(vae->encode(pixels.data(), 4, 32, 48, &state, &moments), "1 frame", "4", "a first chunk of four frames");
  tap::ok(!state.started && state.history.empty(), "a refused chunk does not start the stream");
  golden::need(vae->encode(pixels.data(), 1, 32, 48, &state, &moments));
  refuse(vae->encode(pixels.data(), 3, 32, 48, &state, &moments), "a multiple of 4", "3",
         "a later chunk of three frames");
  refuse(vae->encode(pixels.data(), 0, 32, 48, &state, &moments), "a multiple of 4", "0", "a later chunk of no frames");
  refuse(vae->encode(pixels.data(), 4, 48, 32, &state, &moments), "32 x 48", "48 x 32",
         "a stream that turns its pictures");
  golden::need(vae->encode(pixels.data() + picture, 4, 32, 48, &state, &moments));
  const std::vector<float> all = encode_in_chunks(units, 0, {1, 4}, 1);
  const std::vector<float> second(all.begin() + std::ssize(all) / 2, all.end());
  tap::ok(same_bits(moments, second), "refused chunks leave a running stream as it was");
  refuse(vae->decode(pixels.data(), 0, 2, 3, &again), "at least 1 frame", "0 frames", "decoding nothing");
  refuse(vae->decode(pixels.data(), 1, 0, 3, &again), "sides of 1", "0 x 3", "decoding an empty picture");
}

// A copy of the unit checkpoint with one piece of config.json replaced.
Status open_changed(const Units& units, const std::string& from, const std::string& to) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("premotor-vae-test-" + std::to_string(::getpid()));
  fs::remove_all(folder);
  fs::copy(units.checkpoint, folder);
  std::ifstream in(units.checkpoint + "/config.json");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  const std::size_t at = text.find(from);
  if (at == std::string::npos) return Status::error("TEST", "config.json has no " + from);
  text.replace(at, from.size(), to);
  fs::permissions(folder / "config.json", fs::perms::owner_all);
  std::ofstream(folder / "config.json") << text;
  ops::CpuOps ops(1);
  std::unique_ptr<Vae> vae;
  const Status status = Vae::open(folder.string(), WeightPrecision::f32, ops::Rounding::none, ops, &vae);
  fs::remove_all(folder);
  return status;
}

void test_wrong_checkpoint(const Units& units) {
  const Status wide = open_changed(units, "\"base_dim\": 4", "\"base_dim\": 8");
  tap::ok(std::string(wide.code) == "CHECKPOINT_SHAPE" && wide.tensor == "encoder.conv_in.weight",
          "weights of another width are refused");
  tap::note(wide.message);
  const Status deep = open_changed(units, "\"num_res_blocks\": 2", "\"num_res_blocks\": 3");
  tap::ok(std::string(deep.code) == "CHECKPOINT_MISSING_TENSOR", "weights of another depth are refused");
  tap::note(deep.message);
  const Status flat = open_changed(units, "\"is_residual\": true", "\"is_residual\": false");
  tap::ok(std::string(flat.code) == "CHECKPOINT_CONFIG", "the Wan2.1 form is refused");
}

}  // namespace

int main() {
  const Units units;
  test_unit_encoder(units);
  test_unit_decoder(units);
  for (const char* name : {"franka_tiny", "robotwin_tiny", "nocfg_partial", "i2va_tiny"})
    test_trace(name, "streaming_vae", false);
  test_trace("robotwin_tiny", "streaming_vae_half", false);
  test_trace("bf16", "streaming_vae", true);
  test_traced_episode("nocfg_partial", false);
  test_traced_episode("bf16", true);
  test_imagined_video();
  test_normalisation();
  test_streaming(units);
  test_refusals(units);
  test_wrong_checkpoint(units);
  return tap::finish();
}
