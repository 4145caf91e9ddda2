// Sessions through plans: every bit as without one, at every precision; what a plan is refused for; damage that is
// found while a session runs.
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/plan_file.h"
#include "engine/session.h"
#include "ops/cpu/cpu_ops.h"
#include "plan_files.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

// An episode on a session: two chunks with a commit between them, and everything that came out.
struct Episode {
  explicit Episode(const SessionOptions& options) {
    golden::need(Session::open(options, &session));
    const SessionInfo info = session->info();
    std::vector<float> text(static_cast<std::size_t>(2 * info.text_dim), 0.1f);
    std::vector<std::uint8_t> picture(12 * 10 * 3);
    for (std::size_t i = 0; i < picture.size(); ++i) picture[i] = static_cast<std::uint8_t>(i * 7);
    const Moment moment(static_cast<std::size_t>(options.job.cameras), Picture{picture.data(), 12, 10});
    golden::need(session->reset(text, options.job.guided() ? text : std::vector<float>{}));
    PredictArgs args;
    args.observation = &moment;
    take(args);
    if (options.job.i2va) {
      take({});
      return;
    }
    const std::int64_t frames = info.action_shape[1];
    const std::vector<Moment> seen(static_cast<std::size_t>(4 * (frames - 1)), moment);
    const std::vector<float> executed(static_cast<std::size_t>(info.action_shape[0] * frames * info.action_shape[2]),
                                      0.25f);
    CommitArgs commit;
    commit.moments = &seen;
    commit.actions = executed.data();
    commit.action_count = frames * info.action_shape[2];
    CommitResult result;
    golden::need(session->commit(commit, &result));
    add(result.latents);
    take({});
    std::vector<float> pictures;
    std::int64_t shape[4];
    golden::need(session->decode(std::span(latents), frames, &pictures, shape));
    add(pictures);
  }
  void take(const PredictArgs& args) {
    ChunkResult chunk;
    golden::need(session->predict(args, &chunk));
    add(chunk.actions);
    add(chunk.latents);
    latents = chunk.latents;
  }
  void add(const std::vector<float>& more) { values.insert(values.end(), more.begin(), more.end()); }

  std::unique_ptr<Session> session;
  std::vector<float> values, latents;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void test_bits(const std::string& name, WeightPrecision precision) {
  const std::string what = name + ", " + name_of(precision) + ": ";
  checkpoint_files::TempFolder folder;
  SessionOptions options = plan_files::options_of(name);
  options.precision = precision;
  const PlanBuildResult built = plan_files::build(options, folder / "a.plan");
  tap::ok(built.tables >= 2 && built.size_bytes > 4096, what + "built");
  const Episode without(options);
  options.plan = folder / "a.plan";
  const Episode with(options);
  tap::ok(same_bits(with.values, without.values), what + "every bit of " + std::to_string(with.values.size()));
  const SessionInfo a = with.session->info(), b = without.session->info();
  tap::ok(a.parameters == b.parameters && a.weight_bytes == b.weight_bytes && a.unused_tensors == b.unused_tensors &&
              a.backend == b.backend,
          what + "the same account of itself");
  tap::ok(a.plan_checkpoint == "hash" && b.plan_checkpoint.empty(), what + "and the checkpoint's hash");
  tap::equal(with.session->cache_state().checksum, without.session->cache_state().checksum, what + "the same cache");
  options.threads = 1;
  tap::ok(same_bits(Episode(options).values, without.values), what + "with other threads, too");
  const std::string first = checkpoint_files::read_text(options.plan);
  options.plan.clear();
  plan_files::build(options, folder / "b.plan");
  tap::ok(first == checkpoint_files::read_text(folder / "b.plan"),
          what + "built again, with other threads: the same file");
}

std::string code_of(const SessionOptions& options) {
  std::unique_ptr<Session> session;
  return Session::open(options, &session).code;
}

void test_refusals() {
  checkpoint_files::TempFolder folder;
  SessionOptions options = plan_files::options_of("franka_tiny");
  plan_files::build(options, folder / "a.plan");
  options.plan = folder / "a.plan";
  tap::equal(code_of(options), std::string(), "its own use");
  SessionOptions other = options;
  other.precision = WeightPrecision::bf16;
  tap::equal(code_of(other), std::string("PLAN_PRECISION"), "another precision");
  other.job.deployed_bf16 = true;
  tap::equal(code_of(other), std::string("PLAN_PRECISION"), "rounded activations");
  other = options;
  other.checkpoint = checkpoint_files::golden_checkpoint("robotwin_tiny");
  tap::equal(code_of(other), std::string("PLAN_CHECKPOINT"), "another checkpoint");
  other = options;
  other.plan = folder / "none.plan";
  tap::equal(code_of(other), std::string("PLAN_MISSING"), "no file");
  other.plan = folder.path();
  tap::equal(code_of(other), std::string("PLAN_MISSING"), "a folder");
  const std::string good = checkpoint_files::read_text(options.plan);
  const auto changed = [&](const std::string& from, const std::string& to) {
    const std::string directory = checkpoint_files::replaced(plan_files::directory_of(good), from, to);
    other.plan = folder / "changed.plan";
    checkpoint_files::write_text(other.plan, plan_files::with_directory(good, directory));
    return code_of(other);
  };
  tap::equal(changed("\"device\":\"cpu\"", "\"device\":\"cuda\""), std::string("PLAN_DEVICE"), "another device");
  tap::equal(changed("\"layout\":2", "\"layout\":77"), std::string("PLAN_VERSION"), "another layout");
  tap::equal(changed("transformer/blocks.0.attn1.to_q.weight", "transformer/x"), std::string("PLAN_TENSOR"),
             "a matrix is missing");
  tap::equal(changed("transformer/blocks.0.attn1.to_q.bias", "transformer/x"), std::string("PLAN_TENSOR"),
             "a vector is missing");
  tap::equal(changed("\"product\":\"f32\"", "\"product\":\"f31\""), std::string("PLAN_TENSOR"), "another product");
  tap::equal(changed("\"backend\":\"cpu", "\"backend\":\"xpu"), std::string(), "tables of another backend are left");
}

// A copy of the checkpoint that changes under the plan.
void test_checkpoint() {
  checkpoint_files::TempFolder folder;
  SessionOptions options = plan_files::options_of("franka_tiny");
  std::filesystem::copy(options.checkpoint, folder / "c", std::filesystem::copy_options::recursive);
  options.checkpoint = folder / "c";
  plan_files::build(options, folder / "a.plan");
  options.plan = folder / "a.plan";
  const std::string weights = folder / "c/transformer/diffusion_pytorch_model.safetensors";
  const std::string before = checkpoint_files::read_text(weights);
  const auto write = [&](const std::string& text) {
    checkpoint_files::write_text(weights, text);
    std::filesystem::last_write_time(weights, std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  };
  write(before);
  tap::equal(code_of(options), std::string(), "written again: the same checkpoint at another time");
  std::string values = before;
  values.back() = static_cast<char>(values.back() ^ 1);
  write(values);
  tap::equal(code_of(options), std::string("PLAN_CHECKPOINT"), "another value");
  write(before + " ");
  tap::equal(code_of(options), std::string("PLAN_CHECKPOINT"), "another size");
  write(checkpoint_files::replaced(before, "scale_shift_table", "scale_shift_tablE"));
  tap::equal(code_of(options), std::string("PLAN_CHECKPOINT"), "another header");
  write(before);
  const std::string config = folder / "c/vae/config.json", kept = checkpoint_files::read_text(config);
  checkpoint_files::write_text(config, kept + "\n");
  tap::equal(code_of(options), std::string("PLAN_CHECKPOINT"), "another config.json");
  checkpoint_files::write_text(config, kept);
  checkpoint_files::write_text(folder / "c/vae/more.safetensors", before);
  tap::equal(code_of(options), std::string("PLAN_CHECKPOINT"), "a file more");
  std::filesystem::remove(folder / "c/vae/more.safetensors");
  tap::equal(code_of(options), std::string(), "as it was");
}

// Damage of the payload: at once when it is small, with the next call when the check runs in the background.
void test_damage() {
  checkpoint_files::TempFolder folder;
  SessionOptions options = plan_files::options_of("franka_tiny");
  plan_files::build(options, folder / "a.plan");
  options.plan = folder / "a.plan";
  std::string file = checkpoint_files::read_text(options.plan);
  const PlanNeed need{"cpu", "f32", "none", ops::kPackedLayout, options.checkpoint};
  std::unique_ptr<PlanFile> plan;
  golden::need(PlanFile::open_for(options.plan, need, &plan));
  tap::ok(plan->is_checked(), "a small plan is checked when it is open");
  golden::need(PlanFile::open_for(options.plan, need, &plan, 0));
  while (!plan->is_checked()) std::this_thread::yield();
  tap::ok(plan->damage().ok(), "a large one is checked in the end");
  file[4096 + 1000] = static_cast<char>(file[4096 + 1000] ^ 1);
  checkpoint_files::write_text(options.plan, file);
  tap::equal(code_of(options), std::string("PLAN_DAMAGED"), "a small one with another bit is not opened");
  options.plan_checked_at_open_max = 0;
  std::unique_ptr<Session> session;
  golden::need(Session::open(options, &session));
  golden::need(PlanFile::open_for(options.plan, need, &plan, 0));
  while (plan->damage().ok()) std::this_thread::yield();
  const Status damage = plan->damage();
  tap::ok(std::string(damage.code) == "PLAN_DAMAGED" && !plan->is_checked() && damage.file == options.plan,
          "found in the background");
  const std::vector<float> text(static_cast<std::size_t>(session->info().text_dim), 0.1f);
  Status status;
  do status = session->reset(text, text);
  while (status.ok());
  tap::equal(std::string(status.code), std::string("PLAN_DAMAGED"), "a session says so with a next call");
  ChunkResult chunk;
  tap::equal(std::string(session->predict({}, &chunk).code), std::string("PLAN_DAMAGED"),
             "and with every one after it");
  golden::need(PlanFile::open(options.plan, &plan));
  tap::equal(std::string(plan->verify({}, nullptr).code), std::string("PLAN_DAMAGED"), "the whole check finds it, too");
}

void test_stopped() {
  checkpoint_files::TempFolder folder;
  std::atomic<bool> cancel{false};
  PlanBuildOptions options;
  options.session = plan_files::options_of("franka_tiny");
  options.file = folder / "a.plan";
  options.cancel = &cancel;
  std::int64_t calls = 0;
  options.progress = [&](const char*, std::int64_t done, std::int64_t total) {
    if (done > total) ++calls;
    if (done > total / 2) cancel = true;
  };
  PlanBuildResult result;
  tap::equal(std::string(build_plan(options, &result).code), std::string("ABORTED"), "stopped half way");
  tap::ok(std::filesystem::is_empty(folder.path()) && calls == 0, "nothing is left");
}

}  // namespace

int main() {
  test_bits("franka_tiny", WeightPrecision::f32);
  test_bits("robotwin_tiny", WeightPrecision::f32);
  test_bits("robotwin_tiny", WeightPrecision::bf16);
  test_bits("i2va_tiny", WeightPrecision::f32);
  test_bits("bf16", WeightPrecision::bf16);
  test_bits("robotwin_tiny", WeightPrecision::int8);
  test_bits("robotwin_tiny", WeightPrecision::int4_32);
  test_bits("franka_tiny", WeightPrecision::int4_64);
  test_bits("i2va_tiny", WeightPrecision::int4_128);
  test_bits("bf16", WeightPrecision::int8);
  test_bits("bf16", WeightPrecision::int4_32);
  test_refusals();
  test_checkpoint();
  test_damage();
  test_stopped();
  return tap::finish();
}
