// The unit-level golden vectors (test/goldens/units/index.json): RoPE, schedules, time and text embedders, one
// transformer block over a small cache, and action normalisation. Pictures, the autoencoder, the text encoder, the
// tokenizer and the cache's bookkeeping have tests of their own.
#include <algorithm>
#include <memory>
#include <numeric>

#include "engine/job.h"
#include "engine/rope.h"
#include "engine/schedule.h"
#include "engine/transformer.h"
#include "golden.h"
#include "ops/cpu/cpu_ops.h"
#include "tap.h"

namespace premotor::engine {

// Builds a transformer from loose tensors and runs its parts one by one.
class TransformerProbe {
 public:
  TransformerProbe(const TransformerConfig& config, ops::Rounding rounding, ops::Ops& backend)
      : transformer_(new Transformer(config, rounding, backend)), rounding_(rounding) {}

  // Weights are kept as float32 in memory that this object owns, rounded to bfloat16 values when rounding is on.
  Linear linear(const TensorStore& store, const std::string& prefix) {
    const std::vector<std::int64_t>& shape = store.find(prefix + ".weight")->shape;
    kept_.push_back(std::make_unique<std::vector<float>>(values(store, prefix + ".weight")));
    return {{kept_.back()->data(), ops::Dtype::f32, shape[0], shape[1]}, values(store, prefix + ".bias")};
  }
  std::vector<float> values(const TensorStore& store, const std::string& name) {
    std::vector<float> result = golden::floats(store, name);
    if (rounding_ == ops::Rounding::bf16)
      for (float& value : result) value = round_to_bf16(value);
    return result;
  }

  void load_embedders(const TensorStore& store, const std::string& prefix, std::int64_t width) {
    StreamWeights& stream = transformer_->streams_[0];
    stream.width = width;
    stream.time = {linear(store, prefix + "time_embedder.linear_1"), linear(store, prefix + "time_embedder.linear_2"),
                   linear(store, prefix + "time_proj")};
    text_1_ = linear(store, prefix + "text_embedder.linear_1");
    text_2_ = linear(store, prefix + "text_embedder.linear_2");
  }
  void condition(float timestep, std::vector<float>* temb, std::vector<float>* projection) {
    const auto& entry = transformer_->condition(Modality::video, timestep);
    temb->insert(temb->end(), entry.temb.begin(), entry.temb.end());
    projection->insert(projection->end(), entry.projection.begin(), entry.projection.end());
  }
  std::vector<float> embed_text(const std::vector<float>& rows, std::int64_t count, std::int64_t width) {
    std::vector<float> middle(static_cast<std::size_t>(count * width)), result(middle.size());
    transformer_->linear(text_1_, rows.data(), count, ops::Activation::gelu_tanh, middle.data());
    transformer_->linear(text_2_, middle.data(), count, ops::Activation::none, result.data());
    return result;
  }

  void load_block(const TensorStore& store) {
    const auto stacked = [&](const std::vector<std::string>& prefixes) {
      StackedLinear layer;
      for (const std::string& prefix : prefixes) {
        Linear one = linear(store, prefix);
        layer.weight.parts.push_back(one.weight);
        layer.bias.insert(layer.bias.end(), one.bias.begin(), one.bias.end());
      }
      return layer;
    };
    block_.self = {stacked({"w.attn1.to_q", "w.attn1.to_k", "w.attn1.to_v"}), linear(store, "w.attn1.to_out.0"),
                   values(store, "w.attn1.norm_q.weight"), values(store, "w.attn1.norm_k.weight")};
    block_.cross = {linear(store, "w.attn2.to_q"), linear(store, "w.attn2.to_out.0"),
                    stacked({"w.attn2.to_k", "w.attn2.to_v"}), values(store, "w.attn2.norm_q.weight"),
                    values(store, "w.attn2.norm_k.weight")};
    block_.norm2_weight = values(store, "w.norm2.weight");
    block_.norm2_bias = values(store, "w.norm2.bias");
    block_.ffn_up = linear(store, "w.ffn.net.0.proj");
    block_.ffn_down = linear(store, "w.ffn.net.2");
    block_.scale_shift_table = values(store, "w.scale_shift_table");
  }

  struct BlockCall {
    std::vector<float> x, text, temb, cos, sin;  // x [2, n, d], text [2, t, d], temb [2, n, 6, d]
    std::int64_t tokens = 0, text_rows = 0;
    KvCache* cache = nullptr;
  };
  struct BlockResult {
    std::vector<float> self, cross, ffn, y;
  };
  BlockResult run_block(const BlockCall& call) {
    const TransformerConfig& config = transformer_->config();
    const std::int64_t width = config.inner_dim(), rows = 2 * call.tokens;
    StreamWeights& stream = transformer_->streams_[0];
    stream.width = width;
    auto& scratch = transformer_->scratch_;
    scratch.fit(rows, width, width, config.ffn_dim);
    scratch.modulation.resize(static_cast<std::size_t>(rows * 6 * width));
    for (std::size_t i = 0; i < scratch.modulation.size(); ++i)
      scratch.modulation[i] = block_.scale_shift_table[i % static_cast<std::size_t>(6 * width)] + call.temb[i];
    scratch.row_map.resize(static_cast<std::size_t>(rows));
    std::iota(scratch.row_map.begin(), scratch.row_map.end(), 0);
    std::copy(call.x.begin(), call.x.end(), scratch.hidden);
    const RopeTable rope{call.cos, call.sin};
    const std::vector<TextKeysValues> text = project(call, width);
    float dummy = 0;
    Pass pass;
    pass.frames = 1;
    pass.tokens_per_frame = call.tokens;
    pass.rope = &rope;
    pass.guidance_rows = 2;
    pass.text = &text;
    pass.cache = call.cache;
    pass.write_rows = &call.cache->write_rows();
    pass.attended = &call.cache->attended();
    pass.moved = &call.cache->moved();
    pass.out = &dummy;  // not written here: the head is not part of a block
    BlockResult result;
    // What a part adds to the residual is not kept; its last layer is run once more.
    const auto last = [&](const Linear& layer, const float* input) {
      std::vector<float> added(static_cast<std::size_t>(rows * width));
      transformer_->linear(layer, input, rows, ops::Activation::none, added.data());
      return added;
    };
    transformer_->self_attention({&pass, 1}, block_, 0, true);
    result.self = last(block_.self.out, scratch.attended);
    transformer_->cross_attention({&pass, 1}, block_, 0);
    result.cross = last(block_.cross.out, scratch.attended);
    transformer_->feed_forward(stream, block_, rows);
    result.ffn = last(block_.ffn_down, scratch.up);
    result.y.assign(scratch.hidden, scratch.hidden + rows * width);
    return result;
  }

 private:
  std::vector<TextKeysValues> project(const BlockCall& call, std::int64_t width) {
    std::vector<TextKeysValues> text(2);
    for (std::size_t row = 0; row < 2; ++row) {
      text[row].rows = call.text_rows;
      text[row].dtype = rounding_ == ops::Rounding::bf16 ? ops::Dtype::bf16 : ops::Dtype::f32;
      const TransformerConfig& config = transformer_->config();
      text[row].layout = {config.num_attention_heads, ops::kv_rows(call.text_rows), config.attention_head_dim,
                          text[row].dtype};
      text[row].data.resize(static_cast<std::size_t>(text[row].plane_bytes()));
      const auto size = static_cast<std::size_t>(call.text_rows * width);
      const std::vector<float> rows(call.text.begin() + static_cast<std::ptrdiff_t>(row * size),
                                    call.text.begin() + static_cast<std::ptrdiff_t>((row + 1) * size));
      transformer_->project_text_layer(block_, rows, text[row].data.data(), &text[row]);
    }
    return text;
  }

  std::unique_ptr<Transformer> transformer_;
  ops::Rounding rounding_;
  std::vector<std::unique_ptr<std::vector<float>>> kept_;
  Linear text_1_, text_2_;
  BlockWeights block_;
};

}  // namespace premotor::engine

using namespace premotor;
using namespace premotor::engine;

namespace {

TensorStore open(const std::string& name) {
  TensorStore store;
  golden::need(TensorStore::open_file(golden::folder() + "/units/" + name + ".safetensors", &store));
  return store;
}

void near(const std::vector<float>& found, const std::vector<float>& expected, double limit, const std::string& name) {
  const double error = golden::relative_rms(found, expected);
  if (!tap::ok(error <= limit, name))
    tap::note("relative RMS " + std::to_string(error) + ", limit " + std::to_string(limit));
}

// The table of tokens at any whole positions: each is the last of a grid that ends there.
RopeTable pick_tokens(const Rope& rope, const float* f, const float* h, const float* w, std::int64_t tokens) {
  RopeTable table;
  for (std::int64_t i = 0; i < tokens; ++i) {
    RopeTable one;
    rope.video(static_cast<std::int64_t>(f[i]), 1, static_cast<std::int64_t>(h[i]) + 1,
               static_cast<std::int64_t>(w[i]) + 1, &one);
    table.cos.insert(table.cos.end(), one.cos.end() - 64, one.cos.end());
    table.sin.insert(table.sin.end(), one.sin.end() - 64, one.sin.end());
  }
  return table;
}

// The recorded grids have F frames of a regular grid; their first row is the frame index, which for actions is
// fractional.
void test_rope() {
  const TensorStore store = open("rope");
  const JsonValue index = golden::read_json(golden::folder() + "/units/index.json");
  ops::CpuOps backend(1);
  for (const JsonValue& item : index.find("rope")->find("cases")->items()) {
    const std::string prefix = item.find("prefix")->string();
    const std::int64_t head_dim = item.find("head_dim")->integer();
    const std::vector<float> grid = golden::floats(store, prefix + ".grid");
    const std::int64_t tokens = store.find(prefix + ".grid")->shape[1];
    const float* f = grid.data();
    const float* h = f + tokens;
    const float* w = h + tokens;
    const std::int64_t start = static_cast<std::int64_t>(f[0]);
    const std::int64_t frames = static_cast<std::int64_t>(f[tokens - 1]) - start + 1, per_frame = tokens / frames;
    const Rope rope(head_dim);
    for (const bool cast : {false, true}) {
      RopeTable table;
      if (h[0] < 0)
        rope.action(start, frames, per_frame, cast, &table);
      else if (prefix.ends_with("_far"))
        table = pick_tokens(rope, f, h, w, tokens);
      else
        rope.video(start, frames, static_cast<std::int64_t>(h[tokens - 1]) + 1,
                   static_cast<std::int64_t>(w[tokens - 1]) + 1, &table);
      const std::string name = prefix + (cast ? ".bf16cast" : "");
      near(table.cos, golden::floats(store, name + ".cos"), 1e-6, "rope " + name + " cos");
      near(table.sin, golden::floats(store, name + ".sin"), 1e-6, "rope " + name + " sin");
      if (cast || store.find(prefix + ".x") == nullptr) continue;
      std::vector<float> x = golden::floats(store, prefix + ".x");
      const std::int64_t heads = store.find(prefix + ".x")->shape[2];
      backend.rope(x.data(), tokens, heads, head_dim, heads * head_dim, table.cos.data(), table.sin.data(),
                   ops::Rounding::none);
      near(x, golden::floats(store, prefix + ".y"), 1e-6, "rope " + prefix + " rotation");
    }
  }
}

void test_schedule() {
  const TensorStore store = open("scheduler");
  for (const char* shift : {"5.0", "1.0", "3.0", "1.5"}) {
    for (const std::int64_t steps : {5, 10, 25, 50, 4, 3}) {
      const Schedule schedule = make_schedule(steps, std::strtof(shift, nullptr));
      const std::string prefix = std::string("shift") + shift + ".n" + std::to_string(steps);
      near(schedule.sigmas, golden::floats(store, prefix + ".sigmas"), 1e-7, "schedule " + prefix + " sigmas");
      near(schedule.timesteps, golden::floats(store, prefix + ".timesteps"), 1e-7, "schedule " + prefix + " timesteps");
    }
  }
  const Schedule schedule = make_schedule(5, 5.0f);
  for (const bool bf16 : {false, true}) {
    const std::string prefix = bf16 ? "step.bf16." : "step.f32.";
    const auto step = [&](const std::string& from, const std::string& velocity, std::size_t i, const std::string& to) {
      std::vector<float> x = golden::floats(store, prefix + from);
      const std::vector<float> v = golden::floats(store, prefix + velocity);
      for (std::size_t j = 0; j < x.size(); ++j)
        x[j] = bf16 ? round_to_bf16(x[j] + round_to_bf16(v[j] * schedule.step_size(i)))
                    : x[j] + v[j] * schedule.step_size(i);
      near(x, golden::floats(store, prefix + to), bf16 ? 0 : 1e-7, prefix + to);
    };
    for (std::size_t i = 0; i < 5; ++i)
      step("x" + std::to_string(i), "v" + std::to_string(i), i, "x" + std::to_string(i + 1));
    step("x5", "v_t0", 5, "x_t0");
  }
  tap::equal(schedule.loop(-1).size(), std::size_t{6}, "a full loop visits all steps and t = 0");
  tap::equal(schedule.loop(3).size(), std::size_t{3}, "a partial loop visits the first steps only");
}

void test_embedders() {
  const TensorStore store = open("timestep_embedding");
  for (const bool bf16 : {false, true}) {
    ops::CpuOps backend(2);
    TransformerConfig config;
    config.attention_head_dim = 24;
    config.num_attention_heads = 2;
    config.freq_dim = 64;
    TransformerProbe probe(config, bf16 ? ops::Rounding::bf16 : ops::Rounding::none, backend);
    probe.load_embedders(store, "fd64.w.", 48);
    std::vector<float> temb, projection;
    for (const float t : golden::floats(store, "fd64.t"))
      probe.condition(bf16 ? round_to_bf16(t) : t, &temb, &projection);
    const std::string prefix = bf16 ? "fd64.bf16." : "fd64.";
    near(temb, golden::floats(store, prefix + "temb"), bf16 ? 3e-3 : 1e-5, prefix + "temb");
    near(projection, golden::floats(store, prefix + "timestep_proj"), bf16 ? 3e-3 : 1e-5, prefix + "timestep_proj");
    if (bf16) continue;
    near(probe.embed_text(golden::floats(store, "fd64.text_in"), 6, 48), golden::floats(store, "fd64.text_out"), 1e-6,
         "text embedder");
  }
}

void test_block() {
  const TensorStore store = open("block");
  const WriteKind kinds[] = {WriteKind::committed, WriteKind::committed, WriteKind::temporary, WriteKind::predicted,
                             WriteKind::predicted};
  for (const bool bf16 : {false, true}) {
    ops::CpuOps backend(2);
    TransformerConfig config;
    config.attention_head_dim = 24;
    config.num_attention_heads = 2;
    config.ffn_dim = 96;
    config.num_layers = 2;  // so that the block is not taken for the last one
    TransformerProbe probe(config, bf16 ? ops::Rounding::bf16 : ops::Rounding::none, backend);
    probe.load_block(store);
    std::unique_ptr<KvCache> cache;
    golden::need(KvCache::open({1, 2, 2, 24, 40, 0, bf16 ? ops::Dtype::bf16 : ops::Dtype::f32}, &cache));
    for (int i = 0; i < 5; ++i) {
      const std::string prefix = (bf16 ? "bf16.call" : "f32.call") + std::to_string(i) + ".";
      const std::vector<float> grid = golden::floats(store, prefix + "grid");
      TransformerProbe::BlockCall call{golden::floats(store, prefix + "x"),
                                       golden::floats(store, prefix + "text"),
                                       golden::floats(store, prefix + "temb"),
                                       {},
                                       {}};
      call.tokens = store.find(prefix + "x")->shape[1];
      call.text_rows = store.find(prefix + "text")->shape[1];
      call.cache = cache.get();
      const bool action = grid[static_cast<std::size_t>(call.tokens)] < 0;
      RopeTable rope;
      const std::int64_t start = static_cast<std::int64_t>(grid[0]),
                         frames =
                             static_cast<std::int64_t>(grid[static_cast<std::size_t>(call.tokens - 1)]) - start + 1;
      if (action)
        Rope(24).action(start, frames, call.tokens / frames, false, &rope);
      else
        Rope(24).video(start, frames,
                       static_cast<std::int64_t>(grid[static_cast<std::size_t>(2 * call.tokens - 1)]) + 1,
                       static_cast<std::int64_t>(grid[static_cast<std::size_t>(3 * call.tokens - 1)]) + 1, &rope);
      call.cos = rope.cos;
      call.sin = rope.sin;
      golden::need(cache->begin_write(call.tokens, kinds[i]));
      const auto result = probe.run_block(call);
      cache->end_write();
      const double limit = bf16 ? 6e-3 : 1e-5;
      near(result.self, golden::floats(store, prefix + "out.attn1"), limit, prefix + "self-attention");
      near(result.cross, golden::floats(store, prefix + "out.attn2"), limit, prefix + "cross-attention");
      near(result.ffn, golden::floats(store, prefix + "out.ffn"), limit, prefix + "feed-forward");
      near(result.y, golden::floats(store, prefix + "y"), limit, prefix + "block");
      const auto mask = golden::integers<std::uint8_t>(store, prefix + "mask");
      const auto ids = golden::integers<std::int32_t>(store, prefix + "id");
      bool same = true;
      for (std::size_t slot = 0; slot < mask.size(); ++slot)
        same = same && (cache->slots().id[slot] >= 0) == (mask[slot] != 0) &&
               (mask[slot] == 0 || cache->slots().id[slot] == ids[slot]);
      tap::ok(same, prefix + "cache slots and ids");
    }
  }
}

void test_action_norm() {
  const TensorStore store = open("action_norm");
  const ActionScaler scaler(golden::read_job(golden::read_json(golden::folder() + "/franka_tiny/job.json")), 30);
  const std::vector<float> normal = golden::floats(store, "post.in"), half = golden::floats(store, "post.bf16.in");
  std::vector<float> physical(16 * 6), scaled(30 * 6);
  scaler.denormalise(normal.data(), 6, false, physical.data());
  near(physical, golden::floats(store, "post.out"), 1e-7, "actions to physical units");
  scaler.denormalise(half.data(), 6, true, physical.data());
  near(physical, golden::floats(store, "post.bf16.out"), 1e-7, "bfloat16 actions to physical units");
  const std::vector<float> given = golden::floats(store, "pre.float32.in");
  scaler.normalise(given.data(), 6, false, scaled.data());
  near(scaled, golden::floats(store, "pre.float32.out"), 1e-6, "actions from physical units");
}

}  // namespace

int main() {
  test_rope();
  test_schedule();
  test_embedders();
  test_block();
  test_action_norm();
  return tap::finish();
}
