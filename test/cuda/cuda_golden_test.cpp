// The engine with its passes on a device, against the reference: recorded calls through a session whose transformer
// runs on the host's machine, kernel by kernel. Heads of 20 values are filled up to 128, caches evict, marks roll back.
// With
// `--library FILE` the device is the one that this backend opens (bench/gpu.sh).
#include <cstring>
#include <memory>

#include "cuda/host/host_device.h"
#include "engine/device_library.h"
#include "golden_runner.h"

using premotor::engine::WeightPrecision;

int main(int count, char** arguments) {
  // As small as the cases are, plans for few multiprocessors split products and attention as large ones are split.
  std::shared_ptr<premotor::device::Device> device = premotor::cuda::host::make_host_device(16);
  if (count == 3 && std::strcmp(arguments[1], "--library") == 0) {
    std::unique_ptr<premotor::device::Device> opened;
    golden::need(premotor::engine::open_device(arguments[2], 0, &opened));
    device = std::move(opened);
  }
  tap::note(device->name());
  // As golden_test.cpp: the reference's bfloat16 numerics. What the other trace of this case differs in is the host's.
  golden::Case bf16{"bf16", "trace", true, WeightPrecision::bf16, true, 2e-2};
  bf16.device = device;
  golden::Runner(bf16).run();
  // As precision_test.cpp: the float32 trace, with the limit of the processor's int8.
  golden::Case int8{"franka_tiny", "trace", true, WeightPrecision::int8, true, 5e-2};
  int8.device = device;
  golden::Runner(int8).run();
  golden::Case int8_cache{"nocfg_partial",           "trace", true, WeightPrecision::int8, true, 5e-2,
                          premotor::ops::Dtype::int8};
  int8_cache.device = device;
  golden::Runner(int8_cache).run();
  return tap::finish();
}
