// A session: one checkpoint, one job, one robot's episode. Owns weights, KV cache, video encoder state and the order of
// passes (docs/MODEL.md sections 4 to 7). One thread calls it at a time; cancel() may come from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/device_transformer.h"
#include "engine/job.h"
#include "engine/kv_cache.h"
#include "engine/plan_file.h"
#include "engine/schedule.h"
#include "engine/trace.h"
#include "engine/transformer.h"
#include "engine/vae.h"
#include "ops/ops.h"

namespace premotor::engine {

// One picture: RGB, [height, width, 3].
struct Picture {
  const std::uint8_t* rgb = nullptr;
  std::int64_t width = 0, height = 0;
};
using Moment = std::vector<Picture>;  // one picture per camera, in the job's order

struct SessionOptions {
  std::string checkpoint;
  JobConfig job;
  WeightPrecision precision = WeightPrecision::f32;
  // Of cached keys and values, the text's too; none: the precision's default.
  std::optional<ops::Dtype> cache;
  int threads = 1;
  // Computes the transformer's passes, in bf16; null: the processor does. One session has it at a time.
  std::shared_ptr<device::Device> device;
  std::string plan;  // file, or empty: the checkpoint is made ready while it is opened
  std::uint64_t plan_checked_at_open_max = PlanFile::kCheckedAtOpenMax;

  [[nodiscard]] ops::Dtype cache_dtype() const { return cache.value_or(default_cache(precision)); }
};

struct Timing {
  double encode_ms = 0, video_ms = 0, action_ms = 0, commit_ms = 0, imagine_ms = 0, total_ms = 0;
  std::int64_t video_passes = 0, action_passes = 0;
};

// (stage, passes done, passes of the stage); called on the engine's thread.
using ProgressCallback = std::function<void(const char* stage, std::int64_t done, std::int64_t total)>;

// Actions that will be executed whatever comes out, and how firmly each holds what is denoised (session_inpaint.cpp).
struct InpaintArgs {
  const float* actions = nullptr;  // [used, K, H] physical
  const float* weights = nullptr;  // [K * H], 0 .. 1
  float beta_max = 5;
};

struct PredictArgs {
  const Moment* observation = nullptr;  // needed by the first prediction of an episode
  std::uint64_t seed = 0;
  const float* noise_video = nullptr;     // [C, K, h, w] or null: from the seed
  const float* noise_action = nullptr;    // [action_dim, K, H] or null
  const float* noise_imagined = nullptr;  // predict_next: [C, E, h, w] or null
  std::int64_t video_steps = 0;           // 0: the job's
  std::int64_t action_steps = 0;
  std::int64_t video_exec_step = 0;  // 0: the job's
  std::int64_t imagine_steps = 0;    // predict_next; 0: the job's
  const InpaintArgs* inpaint = nullptr;
  bool guided = true;  // false: denoise with the positive row alone; lasting writes fill all rows
  Trace* trace = nullptr;
  ProgressCallback progress;
};

struct CommitArgs {
  const std::vector<Moment>* moments = nullptr;
  const float* actions = nullptr;  // [used, F, H] physical, F = frames that the moments make
  std::int64_t action_count = 0;   // F * H
  Trace* trace = nullptr;
  ProgressCallback progress;
};

// The actions that a robot executes while the chunk after them is predicted.
struct ExecutingArgs {
  const float* actions = nullptr;   // [used, E, H] physical
  std::int64_t frames = 0;          // E, 0 .. K
  const float* forecast = nullptr;  // [C, E, h, w]: their frames, or null: they are imagined
};

// Results may be given again to the next call, which then takes no memory for them.
struct CommitResult {
  std::int64_t frame_index = 0;
  std::int64_t frames = 0;     // F
  std::vector<float> latents;  // [C, F, h, w], what the video pass got
  Timing timing;
};

struct ChunkResult {
  std::vector<float> actions;   // [used, K, H] physical
  std::vector<float> latents;   // [C, K, h, w]
  std::vector<float> imagined;  // predict_next: [C, E, h, w], empty when nothing was imagined
  std::optional<CommitResult> committed;
  std::int64_t frame_index = 0;
  Timing timing;
};

// One commit of the past: what it wrote.
struct PastCommit {
  const float* latents = nullptr;  // [C, F, h, w]
  const float* actions = nullptr;  // [used, F, H] physical
  std::int64_t frames = 0;         // F
  bool predicted = false;          // a closed-loop prediction came before it and evicted what it needed
};

struct RestoreArgs {
  std::span<const float> positive, negative;  // as reset takes them
  std::vector<PastCommit> commits;            // from the episode's first, in order
  std::span<const std::uint8_t> encoder;      // as encoder_state gave it
  std::string tag;                            // as encoder_state got it
  ProgressCallback progress;
};

// What the cache holds, and a hash of it (docs/ENGINE.md).
struct CacheState {
  KvCounts counts{0, 0, 0, 0};
  std::uint64_t checksum = 0;
};

struct SessionInfo {
  std::string backend;
  std::int64_t weight_bytes = 0, cache_bytes = 0, parameters = 0;
  std::vector<std::string> unused_tensors;
  std::int64_t latent_shape[4] = {0, 0, 0, 0};  // C, K, h, w
  std::int64_t action_shape[3] = {0, 0, 0};     // used, K, H
  std::int64_t text_dim = 0;
  std::string plan_checkpoint;  // the supervisor's hash of the checkpoint that the plan was made of; empty without one
};

class Session {
 public:
  // Errors: those of the checkpoint reader, of PlanFile::open_for and of WeightReader, JOB_INVALID, OUT_OF_MEMORY.
  static Status open(const SessionOptions& options, std::unique_ptr<Session>* out);
  ~Session();

  [[nodiscard]] SessionInfo info() const;
  [[nodiscard]] std::int64_t cameras() const { return job_.cameras; }
  [[nodiscard]] std::int64_t action_dim() const { return geometry_.action_dim; }
  [[nodiscard]] KvCounts cache_counts() const { return cache_->counts(); }
  [[nodiscard]] CacheState cache_state() const;
  [[nodiscard]] KvCache& cache() { return *cache_; }  // for tests

  // Starts an episode. positive, negative: [count, text_dim] of the real tokens; negative is needed when the job is
  // guided. Errors: TEXT_INVALID, ABORTED (no episode runs then).
  Status reset(std::span<const float> positive, std::span<const float> negative);

  // Errors: NO_EPISODE, OBS_REQUIRED, FRAME_INVALID, ABORTED, CACHE_TOO_SMALL. After an error the cache is as before
  // the call.
  Status predict(const PredictArgs& args, ChunkResult* out);

  // Errors: NO_EPISODE, FRAME_INVALID, ACTIONS_INVALID, CACHE_TOO_SMALL. Not cancellable: a half commit would lose the
  // episode.
  Status commit(const CommitArgs& args, CommitResult* out);

  // Grounded asynchronous step (docs/MODEL.md section 7): commits what was seen and executed (`seen` null: nothing);
  // then, on a marked cache, appends the frames that the actions being executed now will cause and these actions,
  // predicts the chunk after them and rolls back. Errors: those of commit and predict; after an error the cache is as
  // the commit left it.
  Status predict_next(const CommitArgs* seen, const ExecutingArgs& executing, const PredictArgs& args,
                      ChunkResult* out);

  // What the video encoder remembers, as bytes that only an engine with the same tag takes. Errors: NO_EPISODE,
  // OBS_REQUIRED.
  Status encoder_state(const std::string& tag, std::vector<std::uint8_t>* out) const;

  // Starts an episode that has a past: writes each commit as commit() did. Errors: those of reset, CACHE_TOO_SMALL,
  // RESTORE_STATE, ABORTED. No episode runs after an error.
  Status restore(const RestoreArgs& args);

  // For measuring: commits chunks of arbitrary entries, without computing them, until the cache evicts. The episode's
  // predictions mean nothing afterwards. Errors: NO_EPISODE.
  Status occupy();

  // Every call that computes also fails with PLAN_DAMAGED, once the check of its bytes in the background has found
  // some.

  // latents [C, frames, h, w] normalised -> pictures [n, height, width, 3] in [0, 1]; shape: n, height, width, 3.
  Status decode(std::span<const float> latents, std::int64_t frames, std::vector<float>* pictures,
                std::int64_t shape[4]);

  void cancel() { cancel_.store(true); }
  void clear_cancel() { cancel_.store(false); }

 private:
  // The last action pass of a closed-loop chunk only writes cache entries that the next commit drops; it runs when
  // something reads them.
  struct PendingPass {
    bool is_waiting = false;
    std::vector<float> tokens;  // [action_dim, frames * H]
    std::vector<float> frame_timesteps;
    std::int64_t frame_start = 0;
    std::vector<std::int32_t> write_rows;
    std::vector<std::uint32_t> attended;
    std::vector<ops::MovedSlot> moved;
  };
  struct PassInput {
    std::vector<float> tokens;  // [tokens, features]
    RopeTable rope;             // of the frames from rope_start on
    std::int64_t rope_start = -1, rope_frames = 0;
    std::vector<std::int32_t> write_rows, write_slots;  // of the cache
    std::vector<std::uint32_t> attended;
    std::vector<ops::MovedSlot> moved;
  };
  enum class LastAction : std::uint8_t { run, defer, skip };
  // One chunk's denoising.
  struct ChunkPlan {  // plan_chunk sets all of it: a plan is filled again and again
    std::int64_t frame_start = 0, frames = 0;
    const float* condition = nullptr;  // [C, h, w] latent of frame 0 of the episode, or null
    Schedule video, action;
    std::vector<float> video_loop, action_loop;
    bool video_full = true;    // video_exec_step -1: the last pass does not step
    bool video_writes = true;  // the last pass writes the cache
    bool guided = true;
    const InpaintArgs* inpaint = nullptr;
    LastAction last_action = LastAction::run;
    Trace* trace = nullptr;
    const ProgressCallback* progress = nullptr;
    const char* video_stage = "video";
  };
  // What a call works in. Kept, so that calls which follow one another take no memory.
  struct Buffers {
    std::vector<float> video, action;                  // of the chunk being denoised, [C, K, h, w], [action_dim, K, H]
    std::vector<float> out, guided, velocity, wanted;  // of one step
    std::vector<float> timesteps;                      // of one pass' frames
    std::vector<float> latents, committed_action;      // of a commit
    std::vector<float> executing_video, executing_action;
    std::vector<std::vector<float>> pixels, moments;  // of each camera of a group
    std::vector<float> normal;                        // one camera's latents, channels last
  };

  explicit Session(const SessionOptions& options);
  Status open_parts();
  Status open_models();
  // What every call asks first: whether the plan's bytes are found to be damaged. Error: PLAN_DAMAGED.
  [[nodiscard]] Status check_plan() const { return plan_file_ == nullptr ? Status::good() : plan_file_->damage(); }
  Status encode(const std::vector<Moment>& moments, Trace* trace, bool trace_vae, const ProgressCallback& progress,
                std::vector<float>* latents, std::int64_t* frames);
  Status encode_camera(const std::vector<Moment>& moments, const CameraGroup& group, std::int64_t camera,
                       const FramesDone& on_done, std::vector<float>* pixels, std::vector<float>* moments_out,
                       std::int64_t* frames);
  void place_latent(const std::vector<float>& mu, std::int64_t frames, const CameraGroup& group, std::int64_t camera,
                    std::vector<float>* latents);
  void trace_vae(Trace* trace, const CameraGroup& group, std::int64_t count, std::int64_t frames) const;
  Status predict_checked(const PredictArgs& args, ChunkResult* out);
  Status run_pending();
  void plan_chunk(const PredictArgs& args, std::int64_t frame_start, ChunkPlan* plan) const;
  Status denoise_video(const ChunkPlan& plan, std::vector<float>* x, Timing* timing);
  Status denoise_action(const ChunkPlan& plan, std::vector<float>* x, Timing* timing);
  Status last_action_pass(const ChunkPlan& plan, const std::vector<float>& x, std::size_t step, float timestep,
                          Timing* timing);
  Status video_pass(const float* x, std::int64_t frames, std::int64_t frame_start,
                    const std::vector<float>& frame_timesteps, WriteKind kind, std::int64_t guidance_rows, float* out);
  Status action_pass(const float* x, std::int64_t frames, std::int64_t frame_start,
                     const std::vector<float>& frame_timesteps, WriteKind kind, std::int64_t guidance_rows, float* out);
  Pass video_part(const float* x, std::int64_t frames, std::int64_t frame_start,
                  const std::vector<float>& frame_timesteps, std::int64_t guidance_rows, float* out);
  Pass action_part(const float* x, std::int64_t frames, std::int64_t frame_start,
                   const std::vector<float>& frame_timesteps, std::int64_t guidance_rows, float* out);
  Pass part(Modality modality, std::int64_t frames, std::int64_t tokens_per_frame,
            const std::vector<float>& frame_timesteps, std::int64_t guidance_rows, float* out) const;
  Status run_passes(std::span<Pass> parts, WriteKind kind);
  void guide(const std::vector<float>& out, float scale, std::int64_t per_row, std::vector<float>* guided) const;
  void draw_towards(const InpaintArgs& inpaint, const std::vector<float>& wanted, const std::vector<float>& x,
                    float sigma, float step_size, std::int64_t first, std::vector<float>* velocity) const;
  void step(std::vector<float>* x, const std::vector<float>& velocity, float size) const;
  void make_noise(const PredictArgs& args, std::int64_t frame_start, std::vector<float>* video,
                  std::vector<float>* action) const;
  const std::vector<float>& frame_timesteps(std::int64_t frames, float timestep, bool first_is_clean);
  void finish_chunk(Trace* trace, ChunkResult* out);
  Status trace_cache(Trace* trace);
  void trace_schedules(const ChunkPlan& plan) const;
  Status check_commit(const CommitArgs& args, std::int64_t* frames) const;
  Status check_frames(std::int64_t frames) const;
  Status evict_as_prediction();
  Status stream_layout(std::vector<VaeStreamState>* layout) const;
  Status write_clean(const float* video, const float* action, std::int64_t frames, std::int64_t frame_start,
                     WriteKind kind, const ProgressCallback& progress);
  Status check_executing(const ExecutingArgs& executing) const;
  Status append_executing(const ExecutingArgs& executing, const PredictArgs& args, ChunkResult* out);
  Status imagine(const std::vector<float>& action, std::int64_t frames, const PredictArgs& args,
                 std::vector<float>* video, Timing* timing);
  Status predict_after(const ExecutingArgs& executing, const PredictArgs& args, ChunkResult* out);
  // Who computes passes.
  [[nodiscard]] PassEngine& passes() const {
    return on_device_ == nullptr ? static_cast<PassEngine&>(*transformer_) : *on_device_;
  }
  [[nodiscard]] bool rounds() const { return job_.deployed_bf16; }
  [[nodiscard]] ops::Rounding rounding() const { return rounds() ? ops::Rounding::bf16 : ops::Rounding::none; }
  [[nodiscard]] std::int64_t latent_plane() const { return latent_.height * latent_.width; }
  [[nodiscard]] std::int64_t video_tokens_per_frame() const;

  SessionOptions options_;
  JobConfig job_;
  JobGeometry geometry_;
  LatentSize latent_{};
  std::unique_ptr<PlanFile> plan_file_;  // outlives what uses its bytes
  std::unique_ptr<ops::Ops> ops_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<DeviceTransformer> on_device_;  // null without a device
  std::unique_ptr<Vae> vae_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<ActionScaler> scaler_;
  std::vector<CameraGroup> groups_;
  std::atomic<bool> cancel_{false};

  // The episode.
  bool episode_ = false;
  std::int64_t frame_index_ = 0;
  std::vector<float> init_latent_;       // [C, h, w], empty before the first observation
  std::vector<VaeStreamState> streams_;  // one per camera
  std::vector<TextKeysValues> text_;     // one per guidance row
  PendingPass pending_;
  ChunkPlan plan_, imagine_plan_;
  Buffers buffers_;
  PassInput inputs_[2];                                         // of the passes that run, by modality
  std::vector<std::pair<std::int32_t, std::int32_t>> written_;  // (slot, row) of this call's lasting writes, for traces
};

}  // namespace premotor::engine
