// A pass of both modalities against two passes, one after the other: every key and value that stays in the cache, bit
// by bit, while the cache fills and evicts. The mixture-of-transformers form shares no blocks and is not packed.
#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/transformer.h"
#include "golden.h"
#include "ops/cpu/cpu_ops.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

constexpr std::int64_t kFrames = 2, kGrid = 3, kPerFrame = 4, kTextRows = 3, kGuidanceRows = 2;
constexpr std::int64_t kVideoTokens = kFrames * kGrid * kGrid, kActionTokens = kFrames * kPerFrame;

// One cache and the inputs of one write.
struct Rig {
  Transformer& transformer;
  std::unique_ptr<KvCache> cache;
  std::vector<TextKeysValues> text;
  std::vector<float> video, action, clean = std::vector<float>(kFrames, 0.0f);
  RopeTable video_rope, action_rope;
  std::vector<std::int32_t> rows[2];
  std::vector<std::uint32_t> attended[2];
  std::vector<ops::MovedSlot> moved[2];

  Rig(Transformer& with, ops::Dtype dtype) : transformer(with), text(kGuidanceRows) {
    const TransformerConfig& config = transformer.config();
    KvCacheShape shape;
    shape.layers = config.num_layers;
    shape.guidance_rows = kGuidanceRows;
    shape.heads = config.num_attention_heads;
    shape.head_dim = config.attention_head_dim;
    // Two and a half writes fit: the third evicts in the middle of its two parts.
    shape.capacity = 2 * (kVideoTokens + kActionTokens) + kVideoTokens - 3;
    shape.dtype = dtype;
    golden::need(KvCache::open(shape, &cache));
    const std::vector<float> prompt(static_cast<std::size_t>(kTextRows * config.text_dim), 0.2f);
    for (TextKeysValues& one : text)
      golden::need(transformer.project_text(prompt.data(), kTextRows, 5, dtype, nullptr, &one));
  }

  void fill(std::uint32_t seed, std::int64_t frame_start) {
    const TransformerConfig& config = transformer.config();
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    video.resize(static_cast<std::size_t>(kVideoTokens * config.in_channels * config.patch_h * config.patch_w));
    action.resize(static_cast<std::size_t>(kActionTokens * config.action_dim));
    for (std::vector<float>* values : {&video, &action})
      for (float& value : *values) value = normal(generator);
    transformer.rope().video(frame_start, kFrames, kGrid, kGrid, &video_rope);
    transformer.rope().action(frame_start, kFrames, kPerFrame, false, &action_rope);
  }

  // The pass of a modality; takes its slots.
  Pass part(Modality modality) {
    const bool is_video = modality == Modality::video;
    const int at = static_cast<int>(modality);
    golden::need(cache->begin_write(is_video ? kVideoTokens : kActionTokens, WriteKind::committed));
    rows[at] = cache->write_rows();
    attended[at] = cache->attended();
    moved[at] = cache->moved();
    cache->end_write();
    Pass pass;
    pass.modality = modality;
    pass.x = is_video ? video.data() : action.data();
    pass.frames = kFrames;
    pass.tokens_per_frame = is_video ? kGrid * kGrid : kPerFrame;
    pass.frame_timesteps = clean.data();
    pass.rope = is_video ? &video_rope : &action_rope;
    pass.guidance_rows = kGuidanceRows;
    pass.text = &text;
    pass.cache = cache.get();
    pass.write_rows = &rows[at];
    pass.attended = &attended[at];
    pass.moved = &moved[at];
    return pass;
  }
  void write_apart() {
    golden::need(transformer.forward(part(Modality::video)));
    golden::need(transformer.forward(part(Modality::action)));
  }
  void write_packed() {
    const Pass parts[2] = {part(Modality::video), part(Modality::action)};
    golden::need(transformer.forward(parts));
  }

  // Keys and values of all valid entries, by slot.
  [[nodiscard]] std::vector<float> entries() const {
    const KvCacheShape& shape = cache->shape();
    std::vector<float> found;
    const KvCache::SlotState& slots = cache->slots();
    for (std::int64_t layer = 0; layer < shape.layers; ++layer)
      for (std::int64_t row = 0; row < kGuidanceRows; ++row)
        for (std::int64_t head = 0; head < shape.heads; ++head)
          for (std::size_t slot = 0; slot < slots.id.size(); ++slot) {
            if (slots.id[slot] < 0) continue;
            for (const bool is_key : {true, false})
              cache->read_entry(is_key, layer, row, head, slots.row[slot], &found);
          }
    return found;
  }
};

void test_case(const std::string& name, WeightPrecision precision, ops::Rounding rounding, ops::Dtype dtype) {
  ops::CpuOps ops(2);
  std::unique_ptr<Transformer> transformer;
  golden::need(Transformer::open(golden::folder() + "/" + name + "/checkpoint/transformer", precision, rounding, ops,
                                 &transformer));
  tap::ok(transformer->can_pack(), name + ": video and action share their blocks");
  Rig apart(*transformer, dtype), packed(*transformer, dtype);
  for (std::uint32_t write = 0; write < 5; ++write) {
    for (Rig* rig : {&apart, &packed}) rig->fill(write, static_cast<std::int64_t>(write) * kFrames);
    apart.write_apart();
    packed.write_packed();
    const std::vector<float> one = apart.entries(), other = packed.entries();
    tap::ok(one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size() * sizeof(float)) == 0,
            name + ": every bit, write " + std::to_string(write) + " of " + std::to_string(one.size()) + " values");
  }
  const KvCounts counts = packed.cache->counts();
  tap::ok(counts.valid <= counts.capacity && counts.valid > counts.capacity - kVideoTokens, name + ": it has evicted");
  // Without what it wrote before, a later part would differ: the test can tell.
  for (Rig* rig : {&apart, &packed}) rig->fill(9, 10);
  packed.video[0] += 1;
  apart.write_apart();
  packed.write_packed();
  tap::ok(apart.entries() != packed.entries(), name + ": another frame, other entries");
}

}  // namespace

int main() {
  test_case("robotwin_tiny", WeightPrecision::f32, ops::Rounding::none, ops::Dtype::f32);
  test_case("franka_tiny", WeightPrecision::f32, ops::Rounding::none, ops::Dtype::f32);
  test_case("bf16", WeightPrecision::bf16, ops::Rounding::bf16, ops::Dtype::bf16);
  test_case("robotwin_tiny", WeightPrecision::int8, ops::Rounding::none, ops::Dtype::bf16);
  test_case("robotwin_tiny", WeightPrecision::int4_32, ops::Rounding::none, ops::Dtype::bf16);
  test_case("robotwin_tiny", WeightPrecision::int8, ops::Rounding::none, ops::Dtype::int8);
  return tap::finish();
}
