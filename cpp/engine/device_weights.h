// The transformer's weights in a device's memory: matrices as bfloat16 rows on boundaries of sixteen bytes, or, of the
// linear layers of blocks under int8, as int8 rows with a scale per output; vectors as float32. They are uploaded once,
// when the model is opened, and never change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/transformer.h"
#include "ops/device.h"

namespace premotor::engine {

// How memory goes back to its device.
struct ReleaseOnDevice {
  device::Device* device = nullptr;
  void operator()(void* memory) const { device->release(memory); }
};
struct ReleaseStaging {
  device::Device* device = nullptr;
  void operator()(void* memory) const { device->release_staging(memory); }
};

// A piece of memory that goes back at the end.
template <typename Release, Status (device::Device::*kAllocate)(std::int64_t, void**)>
class OwnedMemory {
 public:
  // Errors: DEVICE_MEMORY.
  static Status allocate(device::Device& device, std::int64_t bytes, OwnedMemory* out) {
    void* memory = nullptr;
    PREMOTOR_TRY((device.*kAllocate)(bytes, &memory));
    out->memory_ = {memory, Release{&device}};
    out->bytes_ = bytes;
    return Status::good();
  }
  template <typename T>
  [[nodiscard]] T* at(std::int64_t offset_bytes = 0) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(memory_.get()) + offset_bytes);
  }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<void, Release> memory_;
  std::int64_t bytes_ = 0;
};

// Memory of a device, and memory of the host for copies to and from it.
using DeviceMemory = OwnedMemory<ReleaseOnDevice, &device::Device::allocate>;
using Staging = OwnedMemory<ReleaseStaging, &device::Device::allocate_staging>;

// Strides of bfloat16 rows are multiples of this.
constexpr std::int64_t kRowStep = 8;
[[nodiscard]] constexpr std::int64_t padded(std::int64_t columns) {
  return (columns + kRowStep - 1) / kRowStep * kRowStep;
}

// How kernels take the heads of attention: `of` values each, filled up with zeros to `to`. Neither scores nor sums
// change by it.
struct Heads {
  std::int64_t count = 0, of = 0, to = 0;
  [[nodiscard]] std::int64_t width() const { return count * of; }
  [[nodiscard]] std::int64_t filled() const { return count * to; }
  // Where a value of a row of heads goes; rows may lie behind one another.
  [[nodiscard]] std::int64_t place(std::int64_t i) const { return i / of * to + i % of; }
};

// Strides of int8 rows are multiples of this.
constexpr std::int64_t kByteRowStep = 16;
[[nodiscard]] constexpr std::int64_t padded_bytes(std::int64_t columns) {
  return (columns + kByteRowStep - 1) / kByteRowStep * kByteRowStep;
}

struct DeviceLinear {
  const std::uint16_t* w = nullptr;  // [n, k] bf16, stride ldw; null when quantised
  const std::int8_t* q = nullptr;    // [n, k] s8, stride ldw: round(w / s), s = max|w| / 127 of each output; or null
  const float* scales = nullptr;     // [n], with q
  const float* bias = nullptr;       // [n]
  std::int64_t n = 0, k = 0, ldw = 0;
};

struct DeviceBlock {
  DeviceLinear qkv, out, cross_q, cross_kv, cross_out, up, down;
  const float *norm_q = nullptr, *norm_k = nullptr, *cross_norm_q = nullptr, *cross_norm_k = nullptr;  // [inner]
  const float *norm2_weight = nullptr, *norm2_bias = nullptr;  // [width]; null without cross_attn_norm
};

struct DeviceStream {
  DeviceLinear embed, head;
  std::vector<DeviceBlock> own_blocks;
  const std::vector<DeviceBlock>* blocks = nullptr;
};

class DeviceWeights {
 public:
  // Blocks' linear layers as they are stored, or in int8. Errors: DEVICE_MEMORY, DEVICE_FAULT.
  static Status upload(const Transformer& from, ops::WeightFormat format, const Heads& heads, device::Device& device,
                       DeviceWeights* out);

  [[nodiscard]] const DeviceStream& stream(Modality modality) const { return streams_[static_cast<int>(modality)]; }
  [[nodiscard]] const DeviceLinear& text_layer(int number) const { return number == 1 ? text_1_ : text_2_; }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

  // Vectors that come later, such as modulation. The copy is done when this returns.
  Status vector(std::span<const float> values, const float** out);

 private:
  // What of a layer are heads: its outputs, its inputs, or neither.
  enum class Side : std::uint8_t { none, outputs, inputs };
  Status linear(const Linear& from, Side heads, ops::WeightFormat format, DeviceLinear* out);
  Status stacked(const StackedLinear& from, DeviceLinear* out);  // of a block's heads
  Status matrix(std::span<const ops::Matrix* const> parts, Side heads, ops::WeightFormat format, DeviceLinear* out);
  Status head_vector(std::span<const float> values, const float** out);
  Status block(const BlockWeights& from, DeviceBlock* out);
  Status send(void* to, const void* from, std::int64_t bytes);
  Status take(std::int64_t bytes, void** out);

  device::Device* device_ = nullptr;
  ops::WeightFormat format_ = ops::WeightFormat::stored;  // of blocks
  Heads heads_;
  Staging staging_;
  std::vector<DeviceMemory> memory_;
  DeviceStream streams_[2];
  DeviceLinear text_1_, text_2_;
  std::int64_t bytes_ = 0;
};

}  // namespace premotor::engine
