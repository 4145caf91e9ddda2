// A prompt's keys and values on a device, and single entries of the cache there.
#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "engine/device_transformer.h"

namespace premotor::engine {

void DeviceTransformer::project_text_block(const DeviceBlock& block, const Input& rows, std::int64_t count,
                                           const std::int32_t* slots, std::uint16_t* projected, std::uint16_t* planes,
                                           std::int64_t plane_rows) {
  const std::int64_t inner = heads_.filled();
  product(block.cross_kv, rows, count, {}, projected, 2 * inner);
  device::CacheHeads a;
  a.k = projected;
  a.v = projected + inner;
  a.rows = count;
  a.heads = cache_.heads;
  a.ld = 2 * inner;
  a.eps = config_.eps;
  a.norm_width = heads_.width();
  a.norm_k = block.cross_norm_k;
  a.cache[0] = {planes, planes + cache_.heads * plane_rows * kHeadDim};
  a.plane_rows = plane_rows;
  a.slots = slots;
  note(device_.cache_heads(a), "cache_heads");
}

Status DeviceTransformer::project_text(const float* embeddings, std::int64_t count, std::int64_t padded_rows,
                                       ops::Dtype dtype, const std::atomic<bool>* cancel, TextKeysValues* out) {
  // Rows of the text are as wide as the model; as keys and values they are heads, filled up.
  const std::int64_t inner = padded(config_.inner_dim()), dim = config_.text_dim, ld = padded(dim);
  out->rows = count + (padded_rows > 0 ? 1 : 0);
  out->last_weight = static_cast<float>(std::max<std::int64_t>(padded_rows, 1));
  out->dtype = dtype;
  out->streams = config_.mot ? 2 : 1;
  out->data.clear();
  out->on_device = nullptr;
  auto text = std::make_shared<Text>();
  text->plane_rows = round_up(out->rows, 32);
  const std::int64_t plane = cache_.heads * text->plane_rows * kHeadDim * 2;
  PREMOTOR_TRY(DeviceMemory::allocate(device_, 2 * out->streams * config_.num_layers * plane, &text->memory));
  // Once per prompt: buffers of its own.
  DeviceMemory memory;
  const std::int64_t x_bytes = round_up(out->rows * ld * 2, kPart), slot_bytes = round_up(out->rows * 4, kPart),
                     row_bytes = round_up(out->rows * inner * 2, kPart),
                     projected_bytes = round_up(out->rows * 2 * heads_.filled() * 2, kPart),
                     quantised_bytes = round_up(out->rows * padded_bytes(config_.inner_dim()), kPart);
  const std::int64_t quantised_at = x_bytes + slot_bytes + 2 * row_bytes + projected_bytes;
  PREMOTOR_TRY(DeviceMemory::allocate(device_, quantised_at + quantised_bytes + out->rows * 4, &memory));
  std::vector<std::byte> staged(static_cast<std::size_t>(x_bytes + slot_bytes), std::byte{0});
  auto* narrow = reinterpret_cast<std::uint16_t*>(staged.data());
  for (std::int64_t row = 0; row < count; ++row)
    for (std::int64_t c = 0; c < dim; ++c) narrow[row * ld + c] = f32_to_bf16(embeddings[row * dim + c]);
  auto* slots = reinterpret_cast<std::int32_t*>(staged.data() + x_bytes);
  for (std::int64_t row = 0; row < out->rows; ++row) slots[row] = static_cast<std::int32_t>(row);
  note(device_.upload(memory.at<std::byte>(), staged.data(), std::ssize(staged)), "upload");
  is_busy_ = true;
  auto* middle = memory.at<std::uint16_t>(x_bytes + slot_bytes);
  auto* rows = memory.at<std::uint16_t>(x_bytes + slot_bytes + row_bytes);
  auto* projected = memory.at<std::uint16_t>(x_bytes + slot_bytes + 2 * row_bytes);
  device::GemmEnd gelu;
  gelu.act = device::Act::gelu_tanh;
  product(weights_.text_layer(1), {memory.at<std::uint16_t>(), ld, {}}, out->rows, gelu, middle, inner);
  product(weights_.text_layer(2), {middle, inner, {}}, out->rows, {}, rows, inner);
  // The same rows for all blocks: quantised once, if at all.
  Input text_rows{
      rows, inner, {memory.at<std::int8_t>(quantised_at), memory.at<float>(quantised_at + quantised_bytes)}};
  if (format_ == ops::WeightFormat::int8) {
    quantise(text_rows, config_.inner_dim(), out->rows);
    text_rows.x = nullptr;
  }
  Status status = Status::good();
  for (std::int64_t stream = 0; stream < out->streams && status.ok(); ++stream) {
    const std::vector<DeviceBlock>& blocks = *weights_.stream(static_cast<Modality>(stream)).blocks;
    for (std::int64_t layer = 0; layer < config_.num_layers && status.ok(); ++layer) {
      if (cancel != nullptr && cancel->load(std::memory_order_relaxed))
        status = Status::error("ABORTED", "The computation was stopped on request.");
      project_text_block(
          blocks[static_cast<std::size_t>(layer)], text_rows, out->rows, memory.at<std::int32_t>(x_bytes), projected,
          text->memory.at<std::uint16_t>(2 * (stream * config_.num_layers + layer) * plane), text->plane_rows);
    }
  }
  // What was launched reads `memory` until here, whatever became of it.
  const Status launches = launched(), done = settle();
  PREMOTOR_TRY(status);
  PREMOTOR_TRY(launches);
  PREMOTOR_TRY(done);
  out->on_device = std::move(text);
  return Status::good();
}

Status DeviceTransformer::read_entry(bool is_key, std::int64_t layer, std::int64_t guidance_row, std::int64_t head,
                                     std::int64_t row, std::vector<float>* out) {
  const device::CachePlanes at = planes(layer, guidance_row);
  const std::int64_t entry = head * cache_rows_ + row;
  std::uint16_t bits[kHeadDim];
  std::int8_t integers[kHeadDim];
  float scale = 0;
  if (is_cache_int8()) {
    note(device_.download(integers, (is_key ? at.k8 : at.v8) + entry * kHeadDim, sizeof integers), "download");
    note(device_.download(&scale, (is_key ? at.k_scales : at.v_scales) + entry, sizeof scale), "download");
  } else {
    note(device_.download(bits, (is_key ? at.k : at.v) + entry * kHeadDim, sizeof bits), "download");
  }
  PREMOTOR_TRY(launched());
  PREMOTOR_TRY(settle());
  for (std::int64_t c = 0; c < heads_.of; ++c)
    out->push_back(is_cache_int8() ? static_cast<float>(integers[c]) * scale : bf16_to_f32(bits[c]));
  return Status::good();
}

// Small values of no meaning, for measuring: the same in every head, rows that follow one another at once.
Status DeviceTransformer::fill_rows(std::span<const std::int32_t> rows, std::uint64_t seed) {
  const std::size_t count = rows.size() * static_cast<std::size_t>(kHeadDim);
  std::vector<std::uint16_t> values(count);
  std::vector<std::int8_t> integers(count);
  const std::vector<float> scales(rows.size(), 0.5f / 127.0f);
  std::uint64_t random = seed * 2 + 1;
  for (std::size_t i = 0; i < count; ++i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const float value = static_cast<float>(static_cast<std::int64_t>(random >> 40) - (1 << 23)) * 0x1p-25f;
    values[i] = f32_to_bf16(value);
    integers[i] = static_cast<std::int8_t>(value * 254.0f);
  }
  is_busy_ = true;
  const auto send = [&](void* to, const void* from, std::int64_t bytes) {
    note(device_.upload(to, from, bytes), "upload");
  };
  for (std::size_t first = 0, run = 0; first < rows.size(); first += run) {
    for (run = 1; first + run < rows.size() && rows[first + run] == rows[first] + static_cast<std::int32_t>(run);)
      ++run;
    const auto length = static_cast<std::int64_t>(run);
    for (std::int64_t plane = 0; plane < cache_.layers * cache_.guidance_rows; ++plane) {
      const device::CachePlanes at = planes(plane / cache_.guidance_rows, plane % cache_.guidance_rows);
      for (std::int64_t head = 0; head < cache_.heads; ++head) {
        const std::int64_t entry = head * cache_rows_ + rows[first];
        for (std::uint16_t* to : {at.k, at.v})
          if (to != nullptr) send(to + entry * kHeadDim, values.data(), length * kHeadDim * 2);
        for (std::int8_t* to : {at.k8, at.v8})
          if (to != nullptr) send(to + entry * kHeadDim, integers.data(), length * kHeadDim);
        for (float* to : {at.k_scales, at.v_scales})
          if (to != nullptr) send(to + entry, scales.data(), length * 4);
      }
    }
  }
  const Status launches = launched(), done = settle();
  PREMOTOR_TRY(launches);
  return done;
}

}  // namespace premotor::engine
