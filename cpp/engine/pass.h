// One forward pass of the transformer over the KV cache, and who computes it: the CPU's Transformer, or a device's
// DeviceTransformer.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/kv_cache.h"
#include "engine/rope.h"
#include "ops/ops.h"

namespace premotor::engine {

enum class Modality : std::uint8_t { video = 0, action = 1 };

// Text keys and values of one guidance row, all layers; computed once per prompt.
struct TextKeysValues {
  std::int64_t rows = 0;     // real tokens, plus one that stands for all padded rows
  float last_weight = 1.0f;  // how many rows the last one stands for
  ops::Dtype dtype = ops::Dtype::f32;
  std::vector<std::byte> data;  // [stream][layer][keys, values] in the layout of layout()
  std::int64_t streams = 1;
  ops::KvLayout layout;
  std::shared_ptr<void> on_device;  // instead of data: a device's own

  [[nodiscard]] std::int64_t plane_bytes() const { return layout.key_bytes() + layout.value_bytes(); }
};

// One forward pass of one modality for all guidance rows.
struct Pass {
  Modality modality = Modality::video;
  const float* x = nullptr;  // [tokens, features], the same for every guidance row
  std::int64_t frames = 0;
  std::int64_t tokens_per_frame = 0;
  const float* frame_timesteps = nullptr;             // [frames]
  const RopeTable* rope = nullptr;                    // [tokens]
  std::int64_t guidance_rows = 1;                     // how many of the cache's rows to run: 1 or all
  const std::vector<TextKeysValues>* text = nullptr;  // [guidance rows]
  KvCache* cache = nullptr;
  const std::vector<std::int32_t>* write_rows =
      nullptr;                                           // [tokens] cache rows that receive this pass's keys and values
  const std::vector<std::uint32_t>* attended = nullptr;  // cache slots to attend, those written included (KvCache)
  const std::vector<ops::MovedSlot>* moved = nullptr;
  float* out = nullptr;  // [guidance rows, tokens, out features]; null: only the cache is wanted
  const std::atomic<bool>* cancel = nullptr;
};

class PassEngine {
 public:
  virtual ~PassEngine() = default;

  // Projects one prompt: embeddings [count, text_dim] of the real tokens; `padded_rows` further rows are zero in the
  // reference.
  virtual Status project_text(const float* embeddings, std::int64_t count, std::int64_t padded_rows, ops::Dtype dtype,
                              const std::atomic<bool>* cancel, TextKeysValues* out) = 0;

  // Errors: ABORTED (cancel was set; the cache's written rows are then undefined); of a device: DEVICE_*.
  Status forward(const Pass& pass) { return forward(std::span(&pass, 1)); }
  // The same for passes that follow one another, in one go: the weights are read once for all. A later part attends to
  // what an earlier one wrote, never the other way round. Several parts have the same guidance rows, the same blocks
  // (Transformer::can_pack) and no output.
  virtual Status forward(std::span<const Pass> parts) = 0;
};

}  // namespace premotor::engine
