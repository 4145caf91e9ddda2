// A GPU as a Device (ops/device.h): memory, copies and launches on one stream, and what the driver says in words. Built
// into premotor-cuda.so by `node setup/cuda.mjs --library`; the engine loads that while it runs
// (engine/device_library.h). Has never run on a GPU: here it is compiled, linked, loaded and asked without one.
#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <string>

#include "cuda/ops.h"

namespace premotor::cuda {
namespace {

// Compute capabilities that setup/cuda.mjs compiles for.
constexpr int kCapabilities[] = {87, 89, 90, 110};

std::string words(cudaError_t error) { return std::string(cudaGetErrorName(error)) + ", " + cudaGetErrorString(error); }

Status no_memory(std::int64_t bytes, cudaError_t error) {
  std::size_t free = 0, total = 0;
  std::string found = words(error);
  if (error == cudaErrorMemoryAllocation && cudaMemGetInfo(&free, &total) == cudaSuccess)
    found = std::to_string(free >> 20) + " of " + std::to_string(total >> 20) + " MiB free";
  Status status = Status::error("DEVICE_MEMORY", "The GPU gives no " + std::to_string(bytes >> 20) + " MiB (" + found +
                                                     "). End what else uses it, take a job with a smaller attn_window, "
                                                     "or device \"cpu\".");
  status.expected = std::to_string(bytes) + " bytes";
  status.found = found;
  return status;
}

class CudaDevice final : public device::Device {
 public:
  CudaDevice(const cudaDeviceProp& properties, cudaStream_t stream)
      : name_(std::string(properties.name) + ", sm_" + std::to_string(properties.major * 10 + properties.minor)),
        multiprocessors_(properties.multiProcessorCount),
        memory_bytes_(static_cast<std::int64_t>(properties.totalGlobalMem)),
        stream_(stream) {}
  ~CudaDevice() override { cudaStreamDestroy(stream_); }

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] int multiprocessors() const override { return multiprocessors_; }
  [[nodiscard]] std::int64_t memory_bytes() const override { return memory_bytes_; }

  Status allocate(std::int64_t bytes, void** out) override {
    const cudaError_t error = cudaMalloc(out, static_cast<std::size_t>(bytes));
    return error == cudaSuccess ? Status::good() : no_memory(bytes, error);
  }
  void release(void* memory) override { cudaFree(memory); }
  Status allocate_staging(std::int64_t bytes, void** out) override {
    const cudaError_t error = cudaMallocHost(out, static_cast<std::size_t>(bytes));
    return error == cudaSuccess ? Status::good() : no_memory(bytes, error);
  }
  void release_staging(void* memory) override { cudaFreeHost(memory); }
  Outcome upload(void* to, const void* from, std::int64_t bytes) override {
    return copy(to, from, bytes, cudaMemcpyHostToDevice);
  }
  Outcome download(void* to, const void* from, std::int64_t bytes) override {
    return copy(to, from, bytes, cudaMemcpyDeviceToHost);
  }
  // An error of a kernel stays with the context: nothing helps but another process.
  Status wait() override {
    const cudaError_t error = cudaStreamSynchronize(stream_);
    if (error == cudaSuccess) return Status::good();
    return Status::error("DEVICE_FAULT", "The GPU stopped working for this process (" + words(error) +
                                             "). The engine process has to be started again; with policy.isolate and "
                                             "policy.recover that happens by itself.");
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
  Outcome layer_norm_modulate(const LayerNormModulate& a) override { return cuda::layer_norm_modulate(a, stream_); }
  Outcome quantise_rows(const QuantiseRows& a) override { return cuda::quantise_rows(a, stream_); }
  Outcome gemm_bf16(const GemmBf16& a) override { return cuda::gemm_bf16(a, stream_); }
  Outcome gemm_int8(const GemmInt8& a) override { return cuda::gemm_int8(a, stream_); }
  Outcome cache_heads(const CacheHeads& a) override { return cuda::cache_heads(a, stream_); }
  Outcome flash_attention(const FlashAttention& a) override { return cuda::flash_attention(a, stream_); }
  Outcome head_guidance_euler(const HeadGuidanceEuler& a) override { return cuda::head_guidance_euler(a, stream_); }

 private:
  Outcome copy(void* to, const void* from, std::int64_t bytes, cudaMemcpyKind kind) {
    const cudaError_t error = cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream_);
    return error == cudaSuccess ? Outcome::launched : Outcome::refused;
  }

  std::string name_;
  int multiprocessors_;
  std::int64_t memory_bytes_;
  cudaStream_t stream_;
};

Status unavailable(const std::string& expected, const std::string& found, const std::string& remedy) {
  Status status =
      Status::error("DEVICE_UNAVAILABLE", "device \"cuda\": expected " + expected + ", found " + found + ". " + remedy);
  status.expected = expected;
  status.found = found;
  return status;
}

Status open(int ordinal, device::Device** out) {
  const std::string cpu = " Or use device \"cpu\".";
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver != 0)
      return unavailable("a driver for CUDA " + std::to_string(CUDART_VERSION / 1000),
                         "one for CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10),
                         "Update the driver (on a Jetson: JetPack)." + cpu);
    return unavailable("an NVIDIA driver", "none", "Install it (on a Jetson it comes with JetPack)." + cpu);
  }
  if (error != cudaSuccess || ordinal >= count)
    return unavailable("a GPU with the number " + std::to_string(ordinal),
                       error == cudaSuccess ? std::to_string(count) + " GPUs" : words(error),
                       "Look at nvidia-smi, and at the permissions of /dev/nvidia*." + cpu);
  cudaDeviceProp properties;
  cudaStream_t stream = nullptr;
  if (cudaGetDeviceProperties(&properties, ordinal) != cudaSuccess || cudaSetDevice(ordinal) != cudaSuccess)
    return unavailable("a GPU that works", words(cudaGetLastError()), "Look into the kernel's log." + cpu);
  const int capability = properties.major * 10 + properties.minor;
  bool is_known = false;
  for (const int known : kCapabilities) is_known = is_known || known == capability;
  if (!is_known)
    return unavailable("a GPU of sm_87, sm_89, sm_90 or sm_110", "sm_" + std::to_string(capability),
                       "Add it to the targets of setup/cuda.mjs and build again." + cpu);
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
    return unavailable("a GPU that takes work", words(cudaGetLastError()), "Look into the kernel's log." + cpu);
  *out = std::make_unique<CudaDevice>(properties, stream).release();
  return Status::good();
}

}  // namespace
}  // namespace premotor::cuda

// See OpenDevice. The caller deletes what it gets.
extern "C" __attribute__((visibility("default"))) void premotor_open_device(std::uint32_t contract, int ordinal,
                                                                            premotor::device::Device** out,
                                                                            premotor::Status* status) {
  if (contract != premotor::device::kDeviceContract)
    *status = premotor::Status::error("DEVICE_LIBRARY",
                                      "premotor-cuda.so was built for another version of premotor. "
                                      "Build both again (npm run build:cuda).");
  else
    *status = premotor::cuda::open(ordinal, out);
}
