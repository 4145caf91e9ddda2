// What a plan says about its passes: counted by hand for one checkpoint, against the job for the others, and the
// folding of repeated steps.
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/pass_outline.h"
#include "plan_files.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

std::vector<PassStep> steps_of(const std::string& letters) {
  std::vector<PassStep> steps;
  for (const char letter : letters) steps.emplace_back().op = letter;
  return steps;
}

// "A3(bc)D": groups as text.
std::string folded_text(const std::string& letters) {
  std::string text;
  for (const StepGroup& group : folded(steps_of(letters))) {
    if (group.times > 1) text += std::to_string(group.times) + "(";
    for (const PassStep& step : group.steps) text += step.op;
    if (group.times > 1) text += ")";
  }
  return text;
}

void test_folding() {
  const std::pair<const char*, const char*> cases[] = {
      {"", ""},
      {"a", "a"},
      {"abc", "abc"},
      {"abcbcbcd", "a3(bc)d"},
      {"abababa", "3(ab)a"},
      {"xaabaabaabaay", "x3(aab)aay"},
      {"aaaa", "4(a)"},
      {"abcabcabd", "2(abc)abd"},
  };
  for (const auto& [given, expected] : cases)
    tap::equal(folded_text(given), std::string(expected), std::string("folded: ") + given);
}

double flops_of(const PassOutline& pass, const std::string& op) {
  double sum = 0;
  for (const StepGroup& group : pass.groups)
    for (const PassStep& step : group.steps)
      if (step.op == op) sum += static_cast<double>(group.times) * step.flops;
  return sum;
}

// A pass's products counted from the configuration: 2 operations per weight and row; text keys and values are kept.
void test_counts(const std::string& name) {
  checkpoint_files::TempFolder folder;
  const SessionOptions options = plan_files::options_of(name);
  plan_files::build(options, folder / "a.plan");
  std::unique_ptr<PlanFile> plan;
  golden::need(PlanFile::open(folder / "a.plan", &plan));
  std::vector<PassOutline> passes;
  golden::need(outline_passes(*plan, options, &passes));
  TransformerConfig config;
  golden::need(read_transformer_config(options.checkpoint + "/transformer", &config));
  const auto layers = static_cast<double>(config.num_layers), inner = static_cast<double>(config.inner_dim());
  const auto ffn = static_cast<double>(config.ffn_dim);
  const double block = 2 * (6 * inner * inner + 2 * inner * ffn);
  std::string names;
  for (const PassOutline& pass : passes) {
    names += pass.name + " x" + std::to_string(pass.per_chunk) + "; ";
    const auto tokens = static_cast<double>(pass.video_tokens + pass.action_tokens);
    const double rows = tokens * static_cast<double>(pass.guidance_rows);
    const bool video = pass.action_tokens == 0, both = pass.video_tokens > 0 && pass.action_tokens > 0;
    const auto in = static_cast<double>(video ? config.in_channels * config.patch_volume() : config.action_dim);
    const std::string what = name + ", " + pass.name + ": ";
    if (pass.name == "video" || pass.name == "action" || pass.name == "video (last)") {
      // Embedding once for all guidance rows, head for each.
      const double expected = rows * layers * block + 2 * tokens * in * inner + 2 * rows * inner * in;
      tap::is_near(flops_of(pass, "linear") / expected, 1, 1e-9, what + "products");
      const double attended = static_cast<double>(pass.entries) + static_cast<double>(kOutlineTextRows);
      tap::ok(flops_of(pass, "attention") >= 4 * rows * layers * inner * attended, what + "attention");
      tap::equal(pass.groups.size() == 3 && pass.groups[1].times == config.num_layers, config.num_layers > 1,
                 what + "the layers are one group");
    } else {
      // Of the last layer only keys and values are wanted.
      const double least = rows * (layers - 1) * block;
      tap::ok(flops_of(pass, "linear") >= least && flops_of(pass, "linear") < rows * layers * block + 1e9,
              what + "products of all but the last layer");
    }
    if (both) tap::equal(pass.name, std::string("commit"), what + "one pass of both");
  }
  tap::note(name + ": " + names);
  const auto [video, frames] = std::pair(passes[0].video_tokens, options.job.frame_chunk_size);
  tap::ok(video > 0 && video % frames == 0, name + ": tokens of whole frames");
  JsonValue json;
  tap::ok(parse_json(outline_json(passes), &json).ok() && json.items().size() == passes.size() &&
              json.items()[0].find("groups")->items()[0].find("steps")->items()[0].find("flops")->integer() > 0,
          name + ": as JSON");
  const std::string weight = passes[0].groups[0].steps[0].weight;
  tap::equal(weight, std::string("patch_embedding_mlp.weight"), name + ": steps name their weights");
}

// Two operations for every weight of a convolution and pixel that it gives.
double convolution(double pixels, std::int64_t in, std::int64_t out, double taps) {
  return 2 * pixels * static_cast<double>(in) * static_cast<double>(out) * taps;
}

double residual_flops(double pixels, std::int64_t in, std::int64_t out) {
  return convolution(pixels, in, out, 27) + convolution(pixels, out, out, 27) +
         (in == out ? 0 : convolution(pixels, in, out, 1));
}

// From the configuration alone: docs/MODEL.md section 2.
double encoding_flops(const VaeConfig& config, const PassOutline& pass) {
  auto pixels =
      static_cast<double>(pass.pictures * (pass.height / config.patch_size) * (pass.width / config.patch_size));
  std::int64_t width = config.base_dim;
  double sum = convolution(pixels, config.in_channels, width, 27);
  for (std::size_t i = 0; i < config.dim_mult.size(); ++i) {
    const std::int64_t out = config.base_dim * config.dim_mult[i];
    for (std::int64_t block = 0; block < config.num_res_blocks; ++block)
      sum += residual_flops(pixels, block == 0 ? width : out, out);
    width = out;
    if (i + 1 == config.dim_mult.size()) break;
    pixels /= 4;
    sum += convolution(pixels, out, out, 9);
    if (!config.temperal_downsample[i]) continue;
    pixels /= 2;
    sum += convolution(pixels, out, out, 3);
  }
  sum += 2 * residual_flops(pixels, width, width) + 4 * convolution(pixels, width, width, 1);
  return sum + convolution(pixels, width, 2 * config.z_dim, 27) +
         convolution(pixels, 2 * config.z_dim, 2 * config.z_dim, 1);
}

// Encoding: the convolutions counted from the configuration, for every camera.
void test_encoding(const std::string& name) {
  checkpoint_files::TempFolder folder;
  const SessionOptions options = plan_files::options_of(name);
  const JobConfig& job = options.job;
  plan_files::build(options, folder / "a.plan");
  std::unique_ptr<PlanFile> plan;
  golden::need(PlanFile::open(folder / "a.plan", &plan));
  std::vector<PassOutline> passes;
  golden::need(outline_encoding(*plan, options, &passes));
  const std::string what = name + ", encoding: ";
  if (job.i2va) {
    tap::ok(passes.empty(), what + "none in a chunk that goes on from what it imagined");
    return;
  }
  VaeConfig config;
  golden::need(read_vae_config(options.checkpoint + "/vae", &config));
  std::int64_t cameras = 0;
  for (const PassOutline& pass : passes) {
    cameras += pass.per_chunk;
    tap::equal(pass.pictures, job.frame_chunk_size * config.scale_factor_temporal, what + "pictures of a chunk");
    const double counted = flops_of(pass, "conv3d") + flops_of(pass, "linear");
    tap::is_near(counted / encoding_flops(config, pass), 1, 1e-9, what + "convolutions, " + pass.name);
    double wrong = 0;
    for (const StepGroup& group : pass.groups)
      for (const PassStep& step : group.steps)
        wrong += (step.op == "conv3d" && step.weight.empty()) || step.cache_bytes > 0 ? 1 : 0;
    tap::equal(wrong, 0.0, what + "every convolution names its weight, and nothing is in a cache");
  }
  tap::equal(cameras, job.cameras, what + "every camera");
  tap::ok(passes.size() == (job.tshape ? 2u : 1u), what + "each size of picture");
}

double cache_bytes_of(const PassOutline& pass, const std::string& op) {
  double sum = 0;
  for (const StepGroup& group : pass.groups)
    for (const PassStep& step : group.steps)
      if (step.op == op) sum += static_cast<double>(group.times) * step.cache_bytes;
  return sum;
}

// What a plan says about its cache is what its build was asked for; weights and arena are the same.
void test_cache(const std::string& name) {
  checkpoint_files::TempFolder folder;
  SessionOptions options = plan_files::options_of(name);
  TransformerConfig config;
  golden::need(read_transformer_config(options.checkpoint + "/transformer", &config));
  const auto values = static_cast<double>(config.inner_dim()), heads = static_cast<double>(config.num_attention_heads);
  const std::pair<ops::Dtype, double> vectors[] = {
      {ops::Dtype::f32, 4 * values}, {ops::Dtype::bf16, 2 * values}, {ops::Dtype::int8, values + 4 * heads}};
  std::int64_t arena = 0;
  for (const auto& [dtype, vector_bytes] : vectors) {
    options.cache = dtype;
    const std::string file = folder / "a.plan", what = name + ", cache in " + name_of(dtype) + ": ";
    const PlanBuildResult built = plan_files::build(options, file);
    tap::ok(arena == 0 || arena == built.arena.bytes, what + "the same arena");
    arena = built.arena.bytes;
    std::unique_ptr<PlanFile> plan;
    golden::need(PlanFile::open(file, &plan));
    const std::string told = "\"kvCache\":\"" + std::string(name_of(dtype)) + "\"";
    tap::ok(plan->contents().directory.find(told) != std::string_view::npos, what + "the plan says so");
    std::vector<PassOutline> passes;
    golden::need(outline_passes(*plan, options, &passes));
    const PassOutline& pass = passes[0];
    tap::equal(pass.name, std::string("video"), what + "the first pass");
    const auto rows = static_cast<double>(pass.guidance_rows * config.num_layers);
    const auto attended = static_cast<double>(pass.entries + kOutlineTextRows);
    tap::is_near(cache_bytes_of(pass, "attention") / (2 * vector_bytes * rows * attended), 1, 1e-9,
                 what + "bytes of keys and values that are attended to, scales with them");
    tap::is_near(cache_bytes_of(pass, "cache_heads") / (2 * vector_bytes * rows * double(pass.video_tokens)), 1, 1e-9,
                 what + "bytes that are written");
  }
}

}  // namespace

int main() {
  test_folding();
  for (const char* name : {"franka_tiny", "robotwin_tiny"}) test_cache(name);
  for (const char* name : {"franka_tiny", "robotwin_tiny", "nocfg_partial", "i2va_tiny", "bf16"}) test_counts(name);
  for (const char* name : {"franka_tiny", "robotwin_tiny", "i2va_tiny", "bf16"}) test_encoding(name);
  return tap::finish();
}
