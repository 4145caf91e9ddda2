// One transformer of one size and precision on a KV cache that is full but for a chunk: the passes that
// cpp/engine/session_predict.cpp runs, one by one or as a whole guided chunk with its commit. Whatever runs starts from
// the same state and leaves none behind.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/half.h"
#include "bench/passes_checkpoint.h"
#include "engine/schedule.h"
#include "engine/transformer.h"
#include "ops/cpu/cpu_ops.h"

namespace passes {

namespace engine = premotor::engine;
namespace ops = premotor::ops;
using engine::Modality;
using engine::WriteKind;

inline void need(const premotor::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", status.code, status.message.c_str());
  std::exit(1);
}

class Rig {
 public:
  Rig(const Size& size, const Precision& precision, const std::string& transformer, ops::CpuOps& ops)
      : size_(size), precision_(precision), ops_(ops) {
    need(engine::Transformer::open(transformer, precision.weights, precision.rounding, ops, &transformer_));
    const engine::TransformerConfig& config = transformer_->config();
    inputs_ = std::make_unique<Inputs>(size, config);
    if (precision.rounding == ops::Rounding::bf16)
      for (std::vector<float>* values : {&inputs_->video, &inputs_->action, &inputs_->text[0], &inputs_->text[1]})
        for (float& value : *values) value = premotor::round_to_bf16(value);
    open_cache();
    for (std::int64_t row = 0; row < kGuidanceRows; ++row) {
      const auto real = std::ssize(inputs_->text[row]) / config.text_dim;
      need(transformer_->project_text(inputs_->text[row].data(), real, size.text_rows - real, precision.cache, nullptr,
                                      &text_[static_cast<std::size_t>(row)]));
    }
    const std::int64_t start = size.history() / (size.video_tokens() + size.action_tokens()) * size.frames;
    transformer_->rope().video(start, size.frames, size.grid_h, size.grid_w, &rope_[0]);
    transformer_->rope().action(start, size.frames, size.action_per_frame, rounds(), &rope_[1]);
  }

  [[nodiscard]] const engine::Transformer& transformer() const { return *transformer_; }
  [[nodiscard]] const Precision& precision() const { return precision_; }
  // Of everything since the last call.
  Work take_work() { return std::exchange(work_, {}); }

  // One denoising pass at t = 500, its output [rows, tokens, features].
  std::vector<float> denoise(Modality modality, std::int64_t rows) {
    std::vector<float> out(static_cast<std::size_t>(rows * tokens(modality) * features(modality, true)));
    write(modality, WriteKind::temporary, 500.0f, x(modality), rows, out.data());
    return out;
  }

  // A commit of both modalities; the last layer's new entries are left to `entries` when it is given.
  void commit(std::vector<float>* entries) {
    cache_->mark();
    commit_from(inputs_->video, inputs_->action, entries);
    cache_->rollback();
  }

  // A guided chunk with its commit; returns its latents and actions, in tokens.
  std::vector<float> chunk(std::int64_t video_steps, std::int64_t action_steps) {
    std::vector<float> video = inputs_->video, action = inputs_->action, out;
    cache_->mark();
    const engine::Schedule video_schedule = engine::make_schedule(video_steps, kVideoShift),
                           action_schedule = engine::make_schedule(action_steps, kActionShift);
    out.resize(static_cast<std::size_t>(kGuidanceRows) * video.size());
    for (std::size_t i = 0; i < video_schedule.timesteps.size(); ++i) {
      write(Modality::video, WriteKind::temporary, video_schedule.timesteps[i], video, kGuidanceRows, out.data());
      step_video(out, video_schedule.step_size(i), &video);
    }
    write(Modality::video, WriteKind::predicted, 0, video, kGuidanceRows, nullptr);
    // Actions are not guided, so that one row is enough.
    for (std::size_t i = 0; i < action_schedule.timesteps.size(); ++i) {
      write(Modality::action, WriteKind::temporary, action_schedule.timesteps[i], action, 1, out.data());
      for (std::size_t j = 0; j < action.size(); ++j) move(&action[j], out[j], action_schedule.step_size(i));
    }
    // The last action pass waits for a reader that never comes: only its slots are taken.
    need(cache_->begin_write(tokens(Modality::action), WriteKind::predicted));
    cache_->end_write();
    cache_->clear_predicted();
    commit_from(video, action, nullptr);
    cache_->rollback();
    video.insert(video.end(), action.begin(), action.end());
    return video;
  }

 private:
  static constexpr float kVideoShift = 5, kActionShift = 1;

  [[nodiscard]] bool rounds() const { return precision_.rounding == ops::Rounding::bf16; }
  [[nodiscard]] float rounded(float value) const { return rounds() ? premotor::round_to_bf16(value) : value; }
  [[nodiscard]] std::int64_t tokens(Modality modality) const {
    return modality == Modality::video ? size_.video_tokens() : size_.action_tokens();
  }
  [[nodiscard]] std::int64_t features(Modality modality, bool is_output) const {
    const engine::TransformerConfig& config = transformer_->config();
    if (modality == Modality::action) return config.action_dim;
    return (is_output ? config.out_channels : config.in_channels) * config.patch_volume();
  }
  [[nodiscard]] const std::vector<float>& x(Modality modality) const {
    return modality == Modality::video ? inputs_->video : inputs_->action;
  }

  void open_cache() {
    const engine::TransformerConfig& config = transformer_->config();
    engine::KvCacheShape shape;
    shape.layers = config.num_layers;
    shape.guidance_rows = kGuidanceRows;
    shape.heads = config.num_attention_heads;
    shape.head_dim = config.attention_head_dim;
    shape.capacity = size_.capacity;
    shape.headroom = 2 * (size_.video_tokens() + size_.action_tokens()) + size_.video_tokens();
    shape.dtype = precision_.cache;
    need(engine::KvCache::open(shape, &cache_));
    if (size_.history() == 0) return;
    need(cache_->begin_write(size_.history(), WriteKind::committed));
    std::vector<float> keys(static_cast<std::size_t>(size_.history() * config.inner_dim())), values(keys.size());
    for (std::int64_t layer = 0; layer < config.num_layers; ++layer)
      for (std::int64_t row = 0; row < kGuidanceRows; ++row) {
        Inputs::history(layer, row, false, &keys);
        Inputs::history(layer, row, true, &values);
        ops_.store_kv({keys.data(), values.data(), size_.history(), shape.heads, shape.head_dim, config.inner_dim(),
                       cache_->keys(layer, row), cache_->values(layer, row), shape.dtype, cache_->rows(),
                       cache_->write_rows().data()});
      }
    cache_->end_write();
  }

  engine::Pass part(Modality modality, WriteKind kind, float timestep, const std::vector<float>& input,
                    std::int64_t rows, float* out) {
    const auto at = static_cast<std::size_t>(modality);
    need(cache_->begin_write(tokens(modality), kind));
    rows_[at] = cache_->write_rows();
    attended_[at] = cache_->attended();
    moved_[at] = cache_->moved();
    timesteps_[at].assign(static_cast<std::size_t>(size_.frames), rounded(timestep));
    engine::Pass pass;
    pass.modality = modality;
    pass.x = input.data();
    pass.frames = size_.frames;
    pass.tokens_per_frame = tokens(modality) / size_.frames;
    pass.frame_timesteps = timesteps_[at].data();
    pass.rope = &rope_[at];
    pass.guidance_rows = rows;
    pass.text = &text_;
    pass.cache = cache_.get();
    pass.write_rows = &rows_[at];
    pass.attended = &attended_[at];
    pass.moved = &moved_[at];
    pass.out = out;
    return pass;
  }

  static std::int64_t attended_rows(const std::vector<std::uint32_t>& words) {
    std::int64_t rows = 0;
    for (const std::uint32_t word : words) rows += std::popcount(word);
    return rows;
  }

  void run(std::span<const engine::Pass> parts) {
    std::vector<Part> counted;
    for (const engine::Pass& pass : parts)
      counted.push_back({tokens(pass.modality), attended_rows(*pass.attended), features(pass.modality, false),
                         features(pass.modality, true)});
    const engine::Pass& lead = parts.front();
    work_ +=
        work_of(transformer_->config(), precision_, counted, lead.guidance_rows, text_[0].rows, lead.out != nullptr);
    need(transformer_->forward(parts));
  }

  void write(Modality modality, WriteKind kind, float timestep, const std::vector<float>& input, std::int64_t rows,
             float* out) {
    const engine::Pass pass = part(modality, kind, timestep, input, rows, out);
    run({&pass, 1});
    cache_->end_write();
  }

  void commit_from(const std::vector<float>& video, const std::vector<float>& action, std::vector<float>* entries) {
    const engine::Pass first = part(Modality::video, WriteKind::committed, 0, video, kGuidanceRows, nullptr);
    cache_->end_write();
    const engine::Pass parts[2] = {first,
                                   part(Modality::action, WriteKind::committed, 0, action, kGuidanceRows, nullptr)};
    run(parts);
    cache_->end_write();
    if (entries != nullptr) read_entries(entries);
  }

  // The last layer's entries of the write that was just made: [guidance row][k, v][token][head][head_dim].
  void read_entries(std::vector<float>* to) {
    const engine::KvCacheShape& shape = cache_->shape();
    to->clear();
    for (std::int64_t row = 0; row < kGuidanceRows; ++row)
      for (const bool is_key : {true, false})
        for (const auto& written : rows_)
          for (const std::int32_t at : written)
            for (std::int64_t head = 0; head < shape.heads; ++head)
              cache_->read_entry(is_key, shape.layers - 1, row, head, at, to);
  }

  void move(float* value, float velocity, float size) const { *value = rounded(*value + rounded(velocity * size)); }

  // Guidance and one Euler step. Features of the input are ordered (channel, patch), of the output (patch, channel).
  void step_video(const std::vector<float>& out, float size, std::vector<float>* video) const {
    const std::int64_t channels = transformer_->config().in_channels, patch = transformer_->config().patch_volume();
    const std::int64_t per_row = std::ssize(*video), width = channels * patch;
    for (std::int64_t at = 0; at < per_row; ++at) {
      const std::int64_t from = at / width * width + at % patch * channels + at % width / patch;
      const float positive = out[static_cast<std::size_t>(from)],
                  negative = out[static_cast<std::size_t>(per_row + from)];
      const float guided = rounded(negative + rounded(kGuidanceScale * rounded(positive - negative)));
      move(&(*video)[static_cast<std::size_t>(at)], guided, size);
    }
  }

  const Size& size_;
  const Precision& precision_;
  ops::CpuOps& ops_;
  std::unique_ptr<engine::Transformer> transformer_;
  std::unique_ptr<engine::KvCache> cache_;
  std::unique_ptr<Inputs> inputs_;
  std::vector<engine::TextKeysValues> text_{static_cast<std::size_t>(kGuidanceRows)};
  engine::RopeTable rope_[2];
  std::vector<std::int32_t> rows_[2];
  std::vector<std::uint32_t> attended_[2];
  std::vector<ops::MovedSlot> moved_[2];
  std::vector<float> timesteps_[2];
  Work work_;
};

// Relative root mean square of the difference; infinite when it is no number or the lengths differ.
inline double relative_rms(const std::vector<float>& found, const std::vector<float>& wanted) {
  double wrong = 0, all = 0;
  if (found.size() != wanted.size() || found.empty()) return std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < found.size(); ++i) {
    wrong += (double(found[i]) - wanted[i]) * (double(found[i]) - wanted[i]);
    all += double(wanted[i]) * wanted[i];
  }
  const double relative = std::sqrt(wrong / all);
  return std::isfinite(relative) ? relative : std::numeric_limits<double>::infinity();
}

}  // namespace passes
