#include "cuda/host/host_device.h"

#include <cstring>
#include <new>

#include "cuda/host/machine.h"
#include "cuda/ops.h"

namespace premotor::cuda::host {
namespace {

constexpr std::align_val_t kBoundary{256};

class HostDevice final : public device::Device {
 public:
  explicit HostDevice(int multiprocessors) : multiprocessors_(multiprocessors) {}

  [[nodiscard]] std::string name() const override { return "host machine"; }
  [[nodiscard]] int multiprocessors() const override { return multiprocessors_; }
  [[nodiscard]] std::int64_t memory_bytes() const override { return std::int64_t{1} << 40; }

  // What is not written first reads as not-a-number.
  Status allocate(std::int64_t bytes, void** out) override {
    *out = ::operator new(static_cast<std::size_t>(bytes), kBoundary, std::nothrow);
    if (*out == nullptr)
      return Status::error("DEVICE_MEMORY", "The host's machine has no " + std::to_string(bytes) + " bytes left.");
    std::memset(*out, 0xff, static_cast<std::size_t>(bytes));
    return Status::good();
  }
  void release(void* memory) override { ::operator delete(memory, kBoundary); }
  Status allocate_staging(std::int64_t bytes, void** out) override { return allocate(bytes, out); }
  void release_staging(void* memory) override { release(memory); }
  Outcome upload(void* to, const void* from, std::int64_t bytes) override {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return Outcome::launched;
  }
  Outcome download(void* to, const void* from, std::int64_t bytes) override { return upload(to, from, bytes); }
  Status wait() override {
    const Fault fault = take_fault();
    return fault.message.empty() ? Status::good() : Status::error("DEVICE_FAULT", fault.message);
  }

  [[nodiscard]] GemmPlan plan_gemm(std::int64_t m, std::int64_t n, std::int64_t k, int element_bytes) const override {
    return cuda::plan_gemm(m, n, k, element_bytes, multiprocessors_);
  }
  [[nodiscard]] std::int64_t attention_workspace_bytes(std::int64_t rows, std::int64_t heads, int batch,
                                                       int splits) const override {
    return cuda::attention_workspace_bytes(rows, heads, batch, splits);
  }
  [[nodiscard]] int plan_attention_splits(std::int64_t rows, std::int64_t heads, int batch,
                                          std::int64_t attended) const override {
    return cuda::plan_attention_splits(rows, heads, batch, attended, multiprocessors_);
  }
  Outcome layer_norm_modulate(const LayerNormModulate& a) override { return cuda::layer_norm_modulate(a, nullptr); }
  Outcome quantise_rows(const QuantiseRows& a) override { return cuda::quantise_rows(a, nullptr); }
  Outcome gemm_bf16(const GemmBf16& a) override { return cuda::gemm_bf16(a, nullptr); }
  Outcome gemm_int8(const GemmInt8& a) override { return cuda::gemm_int8(a, nullptr); }
  Outcome cache_heads(const CacheHeads& a) override { return cuda::cache_heads(a, nullptr); }
  Outcome flash_attention(const FlashAttention& a) override { return cuda::flash_attention(a, nullptr); }
  Outcome head_guidance_euler(const HeadGuidanceEuler& a) override { return cuda::head_guidance_euler(a, nullptr); }

 private:
  int multiprocessors_;
};

}  // namespace

std::unique_ptr<device::Device> make_host_device(int multiprocessors) {
  return std::make_unique<HostDevice>(multiprocessors);
}

}  // namespace premotor::cuda::host
