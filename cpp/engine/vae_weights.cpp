#include "engine/vae_weights.h"

#include <array>
#include <cstddef>
#include <vector>

namespace premotor::engine::vae {
namespace {

using Shape = std::vector<std::int64_t>;

// Reads parts by their path in the checkpoint; each function's `name` is the part's prefix without a trailing dot.
class PartReader {
 public:
  PartReader(WeightReader& reader, const VaeConfig& config) : reader_(reader), config_(config) {}

  // kernel_t == 0 means a two-dimensional convolution: the stored weight has no time axis.
  Status conv(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel_t, std::int64_t kernel_s,
              Conv* to) {
    return convs<1>(name, in, out, kernel_t, kernel_s, {to});
  }

  // One stored convolution cut by output channels: each part then has panels of its own.
  template <std::size_t parts>
  Status convs(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t kernel_t, std::int64_t kernel_s,
               const std::array<Conv*, parts>& to) {
    Shape shape = {out, in};
    if (kernel_t > 0) shape.push_back(kernel_t);
    shape.insert(shape.end(), 2, kernel_s);
    std::array<ops::Matrix, parts> weights;
    std::vector<float> bias;
    PREMOTOR_TRY(reader_.convolution(name + ".weight", shape, weights.data(), parts));
    PREMOTOR_TRY(reader_.floats(name + ".bias", {out}, &bias));
    const auto each = static_cast<std::ptrdiff_t>(bias.size() / parts);
    for (std::size_t i = 0; i < parts; ++i) {
      const auto first = bias.begin() + static_cast<std::ptrdiff_t>(i) * each;
      *to[i] = {weights[i], {first, first + each}, in, each, kernel_t > 0 ? kernel_t : 1, kernel_s};
    }
    return Status::good();
  }

  Status residual(const std::string& name, std::int64_t in, std::int64_t out, ResidualBlock* to) {
    PREMOTOR_TRY(reader_.floats(name + ".norm1.gamma", {in, 1, 1, 1}, &to->gamma1));
    PREMOTOR_TRY(conv(name + ".conv1", in, out, 3, 3, &to->conv1));
    PREMOTOR_TRY(reader_.floats(name + ".norm2.gamma", {out, 1, 1, 1}, &to->gamma2));
    PREMOTOR_TRY(conv(name + ".conv2", out, out, 3, 3, &to->conv2));
    if (in == out) return Status::good();
    return conv(name + ".conv_shortcut", in, out, 1, 1, &to->shortcut.emplace());
  }

  Status mid(const std::string& name, std::int64_t channels, MidBlock* to) {
    PREMOTOR_TRY(residual(name + ".resnets.0", channels, channels, &to->first));
    const std::string attention = name + ".attentions.0";
    PREMOTOR_TRY(reader_.floats(attention + ".norm.gamma", {channels, 1, 1}, &to->attention.gamma));
    Attention& part = to->attention;
    PREMOTOR_TRY(convs<3>(attention + ".to_qkv", channels, 3 * channels, 0, 1, {&part.q, &part.k, &part.v}));
    PREMOTOR_TRY(conv(attention + ".proj", channels, channels, 0, 1, &to->attention.proj));
    return residual(name + ".resnets.1", channels, channels, &to->second);
  }

  // `resampler` is the name of the part that halves or doubles, empty in the last stage; time_channels is 0 when the
  // frame rate stays.
  Status stage(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t blocks,
               const std::string& resampler, std::int64_t time_channels, Stage* to) {
    to->channels_in = in;
    to->channels_out = out;
    to->blocks.resize(static_cast<std::size_t>(blocks));
    for (std::size_t i = 0; i < to->blocks.size(); ++i)
      PREMOTOR_TRY(residual(name + ".resnets." + std::to_string(i), i == 0 ? in : out, out, &to->blocks[i]));
    if (resampler.empty()) return Status::good();
    Resample& resample = to->resample.emplace();
    const std::string part = name + "." + resampler;
    PREMOTOR_TRY(conv(part + ".resample.1", out, out, 0, 3, &resample.spatial));
    if (time_channels == 0) return Status::good();
    resample.time.resize(static_cast<std::size_t>(time_channels / out));
    if (time_channels == out) return conv(part + ".time_conv", out, out, 3, 1, &resample.time.front());
    return convs<2>(part + ".time_conv", out, time_channels, 3, 1, {&resample.time[0], &resample.time[1]});
  }

  Status encoder(Network* to) {
    const std::size_t stages = config_.dim_mult.size();
    std::int64_t width = config_.base_dim;
    PREMOTOR_TRY(conv("encoder.conv_in", config_.in_channels, width, 3, 3, &to->conv_in));
    to->stages.resize(stages);
    for (std::size_t i = 0; i < stages; ++i) {
      const std::int64_t out = config_.base_dim * config_.dim_mult[i];
      const bool last = i + 1 == stages;
      const std::int64_t time_channels = !last && config_.temperal_downsample[i] ? out : 0;
      PREMOTOR_TRY(stage("encoder.down_blocks." + std::to_string(i), width, out, config_.num_res_blocks,
                         last ? "" : "downsampler", time_channels, &to->stages[i]));
      width = out;
    }
    PREMOTOR_TRY(mid("encoder.mid_block", width, &to->mid));
    PREMOTOR_TRY(reader_.floats("encoder.norm_out.gamma", {width, 1, 1, 1}, &to->gamma_out));
    return conv("encoder.conv_out", width, 2 * config_.z_dim, 3, 3, &to->conv_out);
  }

  Status decoder(Network* to) {
    const std::size_t stages = config_.dim_mult.size();
    std::int64_t width = config_.decoder_base_dim * config_.dim_mult.back();
    PREMOTOR_TRY(conv("decoder.conv_in", config_.z_dim, width, 3, 3, &to->conv_in));
    PREMOTOR_TRY(mid("decoder.mid_block", width, &to->mid));
    to->stages.resize(stages);
    for (std::size_t i = 0; i < stages; ++i) {
      const std::int64_t out = config_.decoder_base_dim * config_.dim_mult[stages - 1 - i];
      const bool last = i + 1 == stages;
      // The decoder undoes the encoder's stages from the last to the first.
      const std::int64_t time_channels = !last && config_.temperal_downsample[stages - 2 - i] ? 2 * out : 0;
      PREMOTOR_TRY(stage("decoder.up_blocks." + std::to_string(i), width, out, config_.num_res_blocks + 1,
                         last ? "" : "upsampler", time_channels, &to->stages[i]));
      width = out;
    }
    PREMOTOR_TRY(reader_.floats("decoder.norm_out.gamma", {width, 1, 1, 1}, &to->gamma_out));
    return conv("decoder.conv_out", width, config_.out_channels, 3, 3, &to->conv_out);
  }

 private:
  WeightReader& reader_;
  const VaeConfig& config_;
};

}  // namespace

Status read_weights(WeightReader& reader, const VaeConfig& config, Weights* out) {
  PartReader parts(reader, config);
  PREMOTOR_TRY(parts.encoder(&out->encoder));
  PREMOTOR_TRY(parts.conv("quant_conv", 2 * config.z_dim, 2 * config.z_dim, 1, 1, &out->quant));
  PREMOTOR_TRY(parts.conv("post_quant_conv", config.z_dim, config.z_dim, 1, 1, &out->post_quant));
  return parts.decoder(&out->decoder);
}

}  // namespace premotor::engine::vae
