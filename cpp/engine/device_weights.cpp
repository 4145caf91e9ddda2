#include "engine/device_weights.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"

namespace premotor::engine {
namespace {

// Of the host, while a model is opened: large copies are fast, and a Jetson has no memory to spare.
constexpr std::int64_t kStagingBytes = 16 << 20;

float value_at(const ops::Matrix& from, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * from.cols + col;
  if (from.dtype == ops::Dtype::bf16) return bf16_to_f32(static_cast<const std::uint16_t*>(from.data)[at]);
  return static_cast<const float*>(from.data)[at];
}

// Values of a row of a matrix as bfloat16, each at its place.
template <typename Place>
void narrow_row(const ops::Matrix& from, std::int64_t row, Place place, std::uint16_t* to) {
  if (from.dtype == ops::Dtype::bf16) {
    const std::uint16_t* bits = static_cast<const std::uint16_t*>(from.data) + row * from.cols;
    for (std::int64_t c = 0; c < from.cols; ++c) to[place(c)] = bits[c];
    return;
  }
  for (std::int64_t c = 0; c < from.cols; ++c) to[place(c)] = f32_to_bf16(value_at(from, row, c));
}

// The same as int8; returns the row's scale. As the processor's backend has it (ops/cpu/packed.h).
template <typename Place>
float quantise_row(const ops::Matrix& from, std::int64_t row, Place place, std::int8_t* to) {
  float most = 0;
  for (std::int64_t c = 0; c < from.cols; ++c) most = std::max(most, std::abs(value_at(from, row, c)));
  const float scale = std::max(most / 127.0f, std::numeric_limits<float>::min());
  for (std::int64_t c = 0; c < from.cols; ++c)
    to[place(c)] = static_cast<std::int8_t>(std::nearbyint(value_at(from, row, c) / scale));
  return scale;
}

}  // namespace

Status DeviceWeights::take(std::int64_t bytes, void** out) {
  DeviceMemory memory;
  PREMOTOR_TRY(DeviceMemory::allocate(*device_, bytes, &memory));
  *out = memory.at<std::byte>();
  bytes_ += bytes;
  memory_.push_back(std::move(memory));
  return Status::good();
}

// Copies what lies in the staging memory, or elsewhere, and waits for it.
Status DeviceWeights::send(void* to, const void* from, std::int64_t bytes) {
  if (device_->upload(to, from, bytes) != device::Outcome::launched)
    return Status::error("DEVICE_FAULT", "The device took no copy of " + std::to_string(bytes) +
                                             " bytes. Look into the kernel's log for its driver.");
  return device_->wait();
}

Status DeviceWeights::vector(std::span<const float> values, const float** out) {
  void* to = nullptr;
  PREMOTOR_TRY(take(static_cast<std::int64_t>(values.size_bytes()), &to));
  *out = static_cast<const float*>(to);
  return send(to, values.data(), static_cast<std::int64_t>(values.size_bytes()));
}

// Norm weights and biases of heads; what fills them up is zero.
Status DeviceWeights::head_vector(std::span<const float> values, const float** out) {
  std::vector<float> filled(static_cast<std::size_t>(heads_.place(std::ssize(values))));
  for (std::size_t i = 0; i < values.size(); ++i)
    filled[static_cast<std::size_t>(heads_.place(static_cast<std::int64_t>(i)))] = values[i];
  return vector(filled, out);
}

// Parts one below the other, as many rows at a time as the staging memory takes.
Status DeviceWeights::matrix(std::span<const ops::Matrix* const> parts, Side heads, ops::WeightFormat format,
                             DeviceLinear* out) {
  const bool is_quantised = format == ops::WeightFormat::int8;
  std::int64_t rows = 0;
  for (const ops::Matrix* part : parts) rows += part->rows;
  const std::int64_t cols = parts.front()->cols;
  out->k = heads == Side::inputs ? heads_.place(cols) : cols;
  out->n = heads == Side::outputs ? heads_.place(rows) : rows;
  out->ldw = is_quantised ? padded_bytes(out->k) : padded(out->k);
  const std::int64_t row_bytes = is_quantised ? out->ldw : out->ldw * 2,
                     most = std::max<std::int64_t>(1, staging_.bytes() / row_bytes);
  assert(row_bytes <= staging_.bytes());
  void* memory = nullptr;
  PREMOTOR_TRY(take(out->n * row_bytes, &memory));
  auto* to = static_cast<std::byte*>(memory);
  const auto place = [&](std::int64_t c) { return heads == Side::inputs ? heads_.place(c) : c; };
  // Outputs that only fill up heads have no weights and a scale of 1.
  std::vector<float> scales(static_cast<std::size_t>(is_quantised ? out->n : 0), 1.0f);
  const ops::Matrix* const* part = parts.data();
  std::int64_t row = 0, next = 0;  // of the part; the row of the result that it goes to comes from its number
  for (std::int64_t first = 0; first < out->n; first += most) {
    const std::int64_t count = std::min(most, out->n - first);
    std::memset(staging_.at<std::byte>(), 0, static_cast<std::size_t>(count * row_bytes));
    for (; next < rows; ++next, ++row) {
      const std::int64_t at = heads == Side::outputs ? heads_.place(next) : next;
      if (at >= first + count) break;
      if (row == (*part)->rows) ++part, row = 0;
      const std::int64_t offset = (at - first) * row_bytes;
      if (is_quantised)
        scales[static_cast<std::size_t>(at)] = quantise_row(**part, row, place, staging_.at<std::int8_t>(offset));
      else
        narrow_row(**part, row, place, staging_.at<std::uint16_t>(offset));
    }
    PREMOTOR_TRY(send(to, staging_.at<std::byte>(), count * row_bytes));
    to += count * row_bytes;
  }
  if (!is_quantised) {
    out->w = static_cast<const std::uint16_t*>(memory);
    return Status::good();
  }
  out->q = static_cast<const std::int8_t*>(memory);
  return vector(scales, &out->scales);
}

Status DeviceWeights::linear(const Linear& from, Side heads, ops::WeightFormat format, DeviceLinear* out) {
  const ops::Matrix* const parts[] = {&from.weight};
  PREMOTOR_TRY(matrix(parts, heads, format, out));
  return heads == Side::outputs ? head_vector(from.bias, &out->bias) : vector(from.bias, &out->bias);
}

Status DeviceWeights::stacked(const StackedLinear& from, DeviceLinear* out) {
  std::vector<const ops::Matrix*> parts;
  if (from.weight.parts.empty()) parts.push_back(&from.weight.whole);
  for (const ops::Matrix& part : from.weight.parts) parts.push_back(&part);
  PREMOTOR_TRY(matrix(parts, Side::outputs, format_, out));
  return head_vector(from.bias, &out->bias);
}

Status DeviceWeights::block(const BlockWeights& from, DeviceBlock* out) {
  PREMOTOR_TRY(stacked(from.self.qkv, &out->qkv));
  PREMOTOR_TRY(linear(from.self.out, Side::inputs, format_, &out->out));
  PREMOTOR_TRY(head_vector(from.self.norm_q, &out->norm_q));
  PREMOTOR_TRY(head_vector(from.self.norm_k, &out->norm_k));
  PREMOTOR_TRY(linear(from.cross.q, Side::outputs, format_, &out->cross_q));
  PREMOTOR_TRY(stacked(from.cross.kv, &out->cross_kv));
  PREMOTOR_TRY(linear(from.cross.out, Side::inputs, format_, &out->cross_out));
  PREMOTOR_TRY(head_vector(from.cross.norm_q, &out->cross_norm_q));
  PREMOTOR_TRY(head_vector(from.cross.norm_k, &out->cross_norm_k));
  PREMOTOR_TRY(linear(from.ffn_up, Side::none, format_, &out->up));
  PREMOTOR_TRY(linear(from.ffn_down, Side::none, format_, &out->down));
  if (from.norm2_weight.empty()) return Status::good();
  PREMOTOR_TRY(vector(from.norm2_weight, &out->norm2_weight));
  return vector(from.norm2_bias, &out->norm2_bias);
}

Status DeviceWeights::upload(const Transformer& from, ops::WeightFormat format, const Heads& heads,
                             device::Device& device, DeviceWeights* out) {
  constexpr ops::WeightFormat stored = ops::WeightFormat::stored;
  out->device_ = &device;
  out->format_ = format;
  out->heads_ = heads;
  PREMOTOR_TRY(Staging::allocate(device, kStagingBytes, &out->staging_));
  for (const Modality modality : {Modality::video, Modality::action}) {
    const StreamWeights& stream = from.stream(modality);
    DeviceStream& to = out->streams_[static_cast<int>(modality)];
    PREMOTOR_TRY(out->linear(stream.embed, Side::none, stored, &to.embed));
    PREMOTOR_TRY(out->linear(stream.head, Side::none, stored, &to.head));
    to.own_blocks.resize(stream.own_blocks.size());
    for (std::size_t layer = 0; layer < stream.own_blocks.size(); ++layer)
      PREMOTOR_TRY(out->block(stream.own_blocks[layer], &to.own_blocks[layer]));
  }
  for (const Modality modality : {Modality::video, Modality::action}) {
    DeviceStream& to = out->streams_[static_cast<int>(modality)];
    to.blocks = to.own_blocks.empty() ? &out->streams_[0].own_blocks : &to.own_blocks;
  }
  PREMOTOR_TRY(out->linear(from.text_layer(1), Side::none, stored, &out->text_1_));
  return out->linear(from.text_layer(2), Side::none, stored, &out->text_2_);
}

}  // namespace premotor::engine
