// What a session writes into a trace: the golden traces' names and layouts (test/goldens/README.md).
#include <algorithm>
#include <cstring>

#include "engine/session.h"

namespace premotor::engine {
namespace {

// Channels-last [count, height, width, channels] -> [channels, count, height, width], appended to `out`.
void append_channels_first(const float* from, std::int64_t count, std::int64_t plane, std::int64_t channels,
                           std::vector<float>* out) {
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t i = 0; i < count * plane; ++i) out->push_back(from[i * channels + c]);
}

}  // namespace

void Session::trace_vae(Trace* trace, const CameraGroup& group, std::int64_t count, std::int64_t frames) const {
  const std::int64_t height = group.height / geometry_.spatial_factor, width = group.width / geometry_.spatial_factor;
  const std::int64_t channels = 2 * vae_->config().z_dim;
  std::vector<float> seen, encoded;
  for (std::int64_t i = 0; i < group.count; ++i) {
    const auto camera = static_cast<std::size_t>(i);
    append_channels_first(buffers_.pixels[camera].data(), count, group.height * group.width, 3, &seen);
    append_channels_first(buffers_.moments[camera].data(), frames, height * width, channels, &encoded);
  }
  trace->add(group.trace_name + ".pixels", {group.count, 3, count, group.height, group.width}, std::move(seen));
  trace->add(group.trace_name + ".moments", {group.count, channels, frames, height, width}, std::move(encoded));
}

void Session::trace_schedules(const ChunkPlan& plan) const {
  const auto add = [&](const std::string& name, const Schedule& schedule, const std::vector<float>& loop) {
    const auto count = std::ssize(schedule.sigmas);
    plan.trace->add("sched." + name + ".sigmas", {count}, std::vector<float>(schedule.sigmas));
    plan.trace->add("sched." + name + ".timesteps", {count}, std::vector<float>(schedule.timesteps));
    plan.trace->add("sched." + name + ".loop_timesteps", {std::ssize(loop)}, std::vector<float>(loop));
  };
  add("video", plan.video, plan.video_loop);
  add("action", plan.action, plan.action_loop);
}

// State of the cache over all slots, and the keys and values of this call's writes that are still valid; first and last
// layer.
Status Session::trace_cache(Trace* trace) {
  const KvCacheShape& shape = cache_->shape();
  const KvCache::SlotState& slots = cache_->slots();
  std::vector<std::pair<std::int32_t, std::int32_t>> kept;  // (slot, row), ascending slots
  for (const auto& [slot, row] : written_)
    if (slots.id[static_cast<std::size_t>(slot)] >= 0 && slots.row[static_cast<std::size_t>(slot)] == row)
      kept.emplace_back(slot, row);
  std::sort(kept.begin(), kept.end());
  const std::vector<std::int64_t> all{shape.capacity};
  for (const std::int64_t layer : {std::int64_t{0}, shape.layers - 1}) {
    const std::string prefix = "kv.L" + std::to_string(layer) + ".";
    if (layer == 0 || shape.layers > 1) {
      std::vector<std::uint8_t> mask;
      std::vector<std::int32_t> kept_slots;
      for (const std::int32_t id : slots.id) mask.push_back(id >= 0 ? 1 : 0);
      for (const auto& [slot, row] : kept) kept_slots.push_back(slot);
      trace->add(prefix + "mask", all, std::move(mask));
      trace->add(prefix + "id", all, std::vector<std::int32_t>(slots.id));
      trace->add(prefix + "is_pred", all, std::vector<std::uint8_t>(slots.predicted));
      trace->add(prefix + "slots", {std::ssize(kept)}, std::move(kept_slots));
    }
    for (const bool key : {true, false}) {
      std::vector<float> values;  // [guidance row, kept, head, head_dim]
      for (std::int64_t guidance_row = 0; guidance_row < shape.guidance_rows; ++guidance_row)
        for (const auto& [slot, row] : kept)
          for (std::int64_t head = 0; head < shape.heads; ++head)
            if (on_device_ == nullptr)
              cache_->read_entry(key, layer, guidance_row, head, row, &values);
            else
              PREMOTOR_TRY(on_device_->read_entry(key, layer, guidance_row, head, row, &values));
      trace->add(prefix + (key ? "k" : "v"), {shape.guidance_rows, std::ssize(kept), shape.heads, shape.head_dim},
                 std::move(values));
    }
    if (shape.layers == 1) break;
  }
  return Status::good();
}

}  // namespace premotor::engine
