// Runs every recorded call of one golden case through the native session and compares each traced tensor, and the KV
// cache slot by slot. The prompt embeddings come from the trace; the text encoder has its own test.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/session.h"
#include "golden.h"
#include "tap.h"

namespace golden {

using namespace premotor;
using namespace premotor::engine;

struct Case {
  std::string name;   // folder
  std::string trace;  // trace or trace_nocast
  bool input_cast = true;
  WeightPrecision precision = WeightPrecision::f32;
  bool is_told = true;  // prints the worst error of every kind
  double limit = 1e-4;  // relative RMS; the noise floor is near 1e-6, deliberate mistakes start at 7e-3
  std::optional<ops::Dtype> cache = std::nullopt;  // none: the precision's default
  std::shared_ptr<device::Device> device;          // null: the processor
};

class Runner {
 public:
  explicit Runner(const Case& info) : info_(info), root_(golden::folder() + "/" + info.name) {
    job_json_ = golden::read_json(root_ + "/job.json");
    json_ = golden::read_json(root_ + "/" + info.trace + ".json");
    golden::need(TensorStore::open_file(root_ + "/" + info.trace + ".safetensors", &store_));
    SessionOptions options;
    options.checkpoint = root_ + "/checkpoint";
    options.job = golden::read_job(job_json_);
    options.job.input_cast = info.input_cast;
    options.precision = info.precision;
    options.cache = info.cache;
    options.device = info.device;
    options.threads = 2;
    golden::need(Session::open(options, &session_));
    guided_ = options.job.guided();
    text_dim_ = session_->info().text_dim;
  }

  void run() {
    for (const JsonValue& call : json_.find("calls")->items()) {
      const std::string kind = call.find("kind")->string(), prefix = call.find("prefix")->string() + ".";
      const std::string where = info_.name + "/" + info_.trace + " " + prefix + kind;
      Trace trace;
      Status status = Status::good();
      if (kind == "reset") status = reset(call, prefix);
      if (kind == "infer") status = infer(call, prefix, &trace);
      if (kind == "kv") status = commit(call, prefix, &trace);
      if (kind == "decode") status = decode(prefix, &trace);
      if (!tap::ok(status.ok(), where + " succeeds")) {
        tap::note(status.message);
        return;
      }
      if (kind != "reset") compare(call, prefix, trace, where);
      if (kind == "infer" || kind == "kv") compare_counts(call, where);
    }
    for (const auto& [kind, worst] : worst_)
      if (info_.is_told)
        tap::note(info_.name + " worst relative RMS of " + kind + ": " + std::to_string(worst * 1e6) + "e-6");
  }

  // The worst relative root mean square of every kind of tensor so far: "video.out", "cache.k", ...
  [[nodiscard]] const std::map<std::string, double>& worst() const { return worst_; }

 private:
  Status reset(const JsonValue& call, const std::string& prefix) {
    const auto rows = [&](const char* which) {
      std::vector<float> all = golden::floats(store_, prefix + "prompt_embeds_" + which);
      all.resize(static_cast<std::size_t>(call.find(std::string("n_tokens_") + which)->integer() * text_dim_));
      return all;
    };
    const std::vector<float> positive = rows("pos");
    return session_->reset(positive, guided_ ? rows("neg") : std::vector<float>{});
  }

  // The call's pictures, moment by moment.
  std::vector<Moment> moments(const std::string& prefix) {
    std::vector<Moment> result;
    for (std::size_t camera = 0;; ++camera) {
      const StoredTensor* images = store_.find(prefix + "img" + std::to_string(camera));
      if (images == nullptr) return result;
      const std::int64_t frames = images->shape[0], height = images->shape[1], width = images->shape[2];
      result.resize(static_cast<std::size_t>(frames));
      for (std::int64_t t = 0; t < frames; ++t)
        result[static_cast<std::size_t>(t)].push_back(
            {reinterpret_cast<const std::uint8_t*>(images->data) + t * height * width * 3, width, height});
    }
  }

  Status infer(const JsonValue& call, const std::string& prefix, Trace* trace) {
    const std::vector<Moment> seen = moments(prefix);
    const std::vector<float> video = golden::floats(store_, prefix + "noise.video"),
                             action = golden::floats(store_, prefix + "noise.action");
    PredictArgs args;
    args.observation = seen.empty() ? nullptr : &seen[0];
    args.noise_video = video.data();
    args.noise_action = action.data();
    args.trace = trace;
    ChunkResult chunk;
    PREMOTOR_TRY(session_->predict(args, &chunk));
    tap::equal(chunk.frame_index, call.find("frame_st_id")->integer(), prefix + "frame index");
    latents_.insert(latents_.end(), 1, chunk.latents);
    return Status::good();
  }

  Status commit(const JsonValue& call, const std::string& prefix, Trace* trace) {
    const std::vector<Moment> seen = moments(prefix);
    const std::vector<float> state = golden::floats(store_, prefix + "state");
    const std::vector<std::int64_t>& shape = store_.find(prefix + "state")->shape;
    CommitArgs args;
    args.moments = &seen;
    args.actions = state.data();
    args.action_count = shape[1] * shape[2];
    args.trace = trace;
    CommitResult result;
    PREMOTOR_TRY(session_->commit(args, &result));
    tap::equal(result.frame_index, call.find("frame_st_id_after")->integer(), prefix + "frame index after");
    return Status::good();
  }

  Status decode(const std::string& prefix, Trace* trace) {
    const StoredTensor* all = store_.find(prefix + "latents_all");
    const std::int64_t channels = all->shape[1], frames = all->shape[2], plane = all->shape[3] * all->shape[4];
    std::vector<float> joined(static_cast<std::size_t>(all->elements()));
    const std::int64_t chunk_frames = frames / std::ssize(latents_);
    for (std::int64_t i = 0; i < std::ssize(latents_); ++i)
      for (std::int64_t c = 0; c < channels; ++c)
        std::copy_n(latents_[static_cast<std::size_t>(i)].data() + c * chunk_frames * plane, chunk_frames * plane,
                    joined.data() + (c * frames + i * chunk_frames) * plane);
    std::vector<float> pictures;
    std::int64_t shape[4];
    PREMOTOR_TRY(session_->decode(joined, frames, &pictures, shape));
    trace->add("latents_all", all->shape, std::move(joined));
    trace->add("video", {shape[0], shape[1], shape[2], shape[3]}, std::move(pictures));
    return Status::good();
  }

  void compare(const JsonValue& call, const std::string& prefix, const Trace& trace, const std::string& where) {
    for (const JsonValue& item : call.find("tensors")->items()) {
      const std::string name = item.string().substr(prefix.size());
      if (name.starts_with("img")) continue;
      const TraceTensor* found = trace.find(name);
      if (!tap::ok(found != nullptr, where + " traces " + name)) continue;
      tap::ok(found->shape == store_.find(item.string())->shape, where + " " + name + " has the recorded shape");
      if (const auto* values = std::get_if<std::vector<float>>(&found->data)) {
        const double error = golden::relative_rms(*values, golden::floats(store_, item.string()));
        if (!tap::ok(error <= info_.limit, where + " " + name)) tap::note("relative RMS " + std::to_string(error));
        double& worst = worst_[kind_of(name)];
        worst = std::max(worst, error);
      } else {
        compare_integers(*found, prefix, name, where);
      }
    }
    for (const JsonValue& item : json_.find("sched_tensors")->items()) {
      const TraceTensor* found = trace.find(item.string());
      if (found != nullptr)
        tap::ok(golden::relative_rms(std::get<std::vector<float>>(found->data), golden::floats(store_, item.string())) <
                    1e-6,
                where + " " + item.string());
    }
  }

  // Slot tables are compared where the reference's mask is set; elsewhere they mean nothing.
  void compare_integers(const TraceTensor& found, const std::string& prefix, const std::string& name,
                        const std::string& where) {
    if (name.ends_with(".slots")) {
      tap::ok(std::get<std::vector<std::int32_t>>(found.data) == golden::integers<std::int32_t>(store_, prefix + name),
              where + " " + name);
      return;
    }
    const std::string layer = name.substr(0, name.rfind('.') + 1);
    const auto mask = golden::integers<std::uint8_t>(store_, prefix + layer + "mask");
    bool same = true;
    if (const auto* bytes = std::get_if<std::vector<std::uint8_t>>(&found.data)) {
      const auto expected = golden::integers<std::uint8_t>(store_, prefix + name);
      for (std::size_t i = 0; i < mask.size(); ++i)
        same = same && (!(mask[i] || name.ends_with("mask")) || (*bytes)[i] == expected[i]);
    } else {
      const auto& ids = std::get<std::vector<std::int32_t>>(found.data);
      const auto expected = golden::integers<std::int32_t>(store_, prefix + name);
      for (std::size_t i = 0; i < mask.size(); ++i) same = same && (!mask[i] || ids[i] == expected[i]);
    }
    tap::ok(same, where + " " + name);
  }

  void compare_counts(const JsonValue& call, const std::string& where) {
    const KvCounts counts = session_->cache_counts();
    tap::equal(counts.valid, call.find("kv_valid")->integer(), where + " valid tokens");
    tap::equal(counts.predicted, call.find("kv_pred_valid")->integer(), where + " predicted tokens");
    tap::equal(counts.capacity, call.find("kv_capacity")->integer(), where + " capacity");
  }

  // "video.s3.out" -> "video.out"
  static std::string kind_of(const std::string& name) {
    const std::size_t first = name.find('.'), last = name.rfind('.');
    return first == last || first == std::string::npos ? name : name.substr(0, first) + name.substr(last);
  }

  Case info_;
  std::string root_;
  JsonValue job_json_, json_;
  TensorStore store_;
  std::unique_ptr<Session> session_;
  bool guided_ = false;
  std::int64_t text_dim_ = 0;
  std::vector<std::vector<float>> latents_;
  std::map<std::string, double> worst_;
};

}  // namespace golden
