// Grounded steps, inpainting and restoring on the native session: bits against commit and predict, and no mark, no
// predicted entry and no changed checksum left behind, whatever a call ends with. The sanitizers run it too.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/session.h"
#include "golden.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

// A session over a golden case's checkpoint and pictures of its own.
class Rig {
 public:
  explicit Rig(const std::string& name, std::optional<ops::Dtype> cache = std::nullopt) {
    const std::string root = golden::folder() + "/" + name;
    SessionOptions options;
    options.checkpoint = root + "/checkpoint";
    options.job = golden::read_job(golden::read_json(root + "/job.json"));
    options.job.imagine_steps = 2;
    options.threads = 2;
    options.cache = cache;
    job = options.job;
    golden::need(Session::open(options, &session));
    info = session->info();
    text.assign(static_cast<std::size_t>(2 * info.text_dim), 0.1f);
    for (std::size_t i = 0; i < picture.size(); ++i) picture[i] = static_cast<std::uint8_t>(i * 7);
  }

  [[nodiscard]] Moment moment() const {
    return Moment(static_cast<std::size_t>(job.cameras), Picture{picture.data(), 12, 10});
  }
  [[nodiscard]] std::vector<float> actions(std::int64_t frames, float size = 0.1f) const {
    std::vector<float> values(static_cast<std::size_t>(info.action_shape[0] * frames * info.action_shape[2]));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = size * static_cast<float>(i % 5) - 0.2f;
    return values;
  }
  Status reset() { return session->reset(text, job.guided() ? text : std::vector<float>{}); }

  // Starts an episode: the first prediction, and the commit of frame 0 with its padding group.
  CommitResult begin() {
    const Moment first = moment();
    PredictArgs args;
    args.observation = &first;
    ChunkResult chunk;
    golden::need(reset());
    golden::need(session->predict(args, &chunk));
    return commit(0, 1);
  }
  CommitResult commit(std::int64_t moments, std::int64_t frames) {
    const std::vector<Moment> seen(static_cast<std::size_t>(moments), moment());
    const std::vector<float> executed = actions(frames);
    CommitArgs args;
    args.moments = &seen;
    args.actions = executed.data();
    args.action_count = frames * info.action_shape[2];
    CommitResult result;
    golden::need(session->commit(args, &result));
    return result;
  }
  ChunkResult next(const ExecutingArgs& executing, const PredictArgs& args = {}) {
    ChunkResult chunk;
    golden::need(session->predict_next(nullptr, executing, args, &chunk));
    return chunk;
  }

  JobConfig job;
  SessionInfo info;
  std::unique_ptr<Session> session;
  std::vector<float> text;
  std::vector<std::uint8_t> picture = std::vector<std::uint8_t>(12 * 10 * 3);
};

void test_steps(const std::string& name) {
  Rig rig(name);
  ExecutingArgs executing;
  ChunkResult chunk;
  golden::need(rig.reset());
  tap::equal(std::string(rig.session->predict_next(nullptr, executing, {}, &chunk).code), std::string("OBS_REQUIRED"),
             name + ": nothing was committed");
  tap::equal(rig.begin().frame_index, std::int64_t{1}, name + ": frame 0 is committed alone");
  const std::int64_t chunk_frames = rig.info.action_shape[1];
  for (const std::int64_t frames : {std::int64_t{1}, chunk_frames}) {
    const std::string what = name + ", E = " + std::to_string(frames) + ": ";
    rig.begin();
    const std::vector<float> given = rig.actions(frames);
    const CommitResult seen = rig.commit(4 * frames, frames);
    const ChunkResult expected = rig.next({});
    rig.begin();
    const CacheState before = rig.session->cache_state();
    executing = {given.data(), frames, seen.latents.data()};
    const ChunkResult found = rig.next(executing);
    tap::ok(found.actions == expected.actions && found.latents == expected.latents, what + "bits of a commit");
    tap::ok(found.imagined.empty() && !found.committed, what + "nothing imagined, nothing committed");
    executing.forecast = nullptr;
    const ChunkResult dreamt = rig.next(executing);
    executing.forecast = dreamt.imagined.data();
    tap::ok(rig.next(executing).actions == dreamt.actions, what + "imagined frames are appended as a forecast");
    const CacheState after = rig.session->cache_state();
    tap::ok(after.checksum == before.checksum && after.counts.predicted == 0 && rig.session->cache().marks() == 0,
            what + "nothing is left behind");
    rig.session->cancel();
    executing.forecast = nullptr;
    const Status stopped = rig.session->predict_next(nullptr, executing, {}, &chunk);
    rig.session->clear_cancel();
    tap::equal(std::string(stopped.code), std::string("ABORTED"), what + "a cancelled step stops");
    tap::ok(rig.session->cache_state().checksum == before.checksum && rig.session->cache().marks() == 0,
            what + "and leaves nothing behind");
  }
  executing.frames = chunk_frames + 1;
  tap::equal(std::string(rig.session->predict_next(nullptr, executing, {}, &chunk).code),
             std::string("ACTIONS_INVALID"), name + ": more than a chunk is executing");
}

void test_inpainting() {
  Rig rig("nocfg_partial");
  rig.begin();
  const std::vector<float> held = rig.actions(rig.info.action_shape[1]);
  std::vector<float> weights(static_cast<std::size_t>(rig.info.action_shape[1] * rig.info.action_shape[2]), 0.0f);
  const InpaintArgs inpaint{held.data(), weights.data(), 1000.0f};
  PredictArgs args;
  const ChunkResult free = rig.next({}, args);
  args.inpaint = &inpaint;
  tap::ok(rig.next({}, args).actions == free.actions, "weights of 0 change nothing");
  weights.assign(weights.size(), 1.0f);
  const ChunkResult firm = rig.next({}, args);
  double free_worst = 0, firm_worst = 0;
  for (std::size_t i = 0; i < held.size(); ++i) {
    free_worst = std::max(free_worst, std::abs(double{free.actions[i]} - held[i]));
    firm_worst = std::max(firm_worst, std::abs(double{firm.actions[i]} - held[i]));
  }
  tap::note("worst distance " + std::to_string(firm_worst) + " instead of " + std::to_string(free_worst));
  tap::ok(firm_worst < free_worst / 10, "weights of 1 give nearly the actions themselves");
}

void test_restore(ops::Dtype cache) {
  Rig rig("robotwin_tiny", cache), other("robotwin_tiny", cache);
  std::vector<CommitResult> written{rig.begin()};
  RestoreArgs args;
  const std::vector<float> one = rig.actions(1), two = rig.actions(2);
  for (int i = 0; i < 4; ++i) written.push_back(rig.commit(8, 2));
  for (const CommitResult& commit : written)
    args.commits.push_back({commit.latents.data(), commit.frames == 1 ? one.data() : two.data(), commit.frames});
  std::vector<std::uint8_t> bytes;
  golden::need(rig.session->encoder_state("a tag", &bytes));
  args.positive = args.negative = rig.text;
  args.encoder = bytes;
  args.tag = "another tag";
  const Status foreign = other.session->restore(args);
  tap::equal(std::string(foreign.code), std::string("RESTORE_STATE"), "another checkpoint's state");
  args.tag = "a tag";
  golden::need(other.session->restore(args));
  tap::equal(other.session->cache_state().checksum, rig.session->cache_state().checksum, "the cache is the same");
  tap::ok(other.next({}).actions == rig.next({}).actions, "so is a prediction");
  tap::ok(other.commit(8, 2).latents == rig.commit(8, 2).latents, "and what the encoder makes of the next pictures");
  golden::need(rig.session->occupy());
  const KvCounts counts = rig.session->cache_counts();
  tap::ok(counts.valid == counts.capacity && counts.committed == counts.capacity, "an occupied cache is full");
  const std::vector<float> actions = rig.next({}).actions;
  tap::ok(std::all_of(actions.begin(), actions.end(), [](float value) { return std::isfinite(value); }), "of numbers");
}

// What a session says that its cache takes, and what is read back from one: int8 with its scales.
void test_cache_dtypes() {
  std::int64_t bytes[3] = {};
  std::vector<float> entries[3];
  const ops::Dtype dtypes[] = {ops::Dtype::f32, ops::Dtype::bf16, ops::Dtype::int8};
  for (int i = 0; i < 3; ++i) {
    Rig rig("robotwin_tiny", dtypes[i]);
    rig.begin();
    rig.commit(8, 2);
    KvCache& cache = rig.session->cache();
    bytes[i] = rig.info.cache_bytes;
    const ops::KvLayout layout = cache.layout();
    const std::int64_t planes = cache.shape().layers * cache.shape().guidance_rows;
    tap::equal(bytes[i], planes * (layout.key_bytes() + layout.value_bytes()), "bytes of all planes");
    for (std::int64_t head = 0; head < cache.shape().heads; ++head)
      for (const bool is_key : {true, false}) cache.read_entry(is_key, 0, 0, head, 0, &entries[i]);
    tap::note("cache of " + std::to_string(bytes[i]) + " bytes, error of an entry of layer 0 " +
              std::to_string(golden::relative_rms(entries[i], entries[0])));
  }
  tap::equal(bytes[0], 2 * bytes[1], "f32 takes twice the bytes of bf16");
  tap::ok(2 * bytes[2] > bytes[1] && bytes[2] < bytes[1], "int8 takes more than half of them, for its scales");
  tap::ok(golden::relative_rms(entries[1], entries[0]) < 4e-3, "bf16 rounds to 8 bits");
  tap::ok(entries[2] != entries[0] && golden::relative_rms(entries[2], entries[0]) < 1e-2, "int8 to 127 steps");
}

}  // namespace

int main() {
  for (const char* name : {"nocfg_partial", "robotwin_tiny"}) test_steps(name);
  test_inpainting();
  for (const ops::Dtype cache : {ops::Dtype::f32, ops::Dtype::int8}) test_restore(cache);
  test_cache_dtypes();
  return tap::finish();
}
