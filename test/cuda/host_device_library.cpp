// The host's machine as the shared library that the engine loads for a device: what cuda/backend/ is with a GPU.
#include "cuda/host/host_device.h"

extern "C" __attribute__((visibility("default"))) void premotor_open_device(std::uint32_t contract, int ordinal,
                                                                            premotor::device::Device** out,
                                                                            premotor::Status* status) {
  if (contract != premotor::device::kDeviceContract || ordinal != 0)
    *status = premotor::Status::error("DEVICE_LIBRARY", "another contract or device");
  else
    *out = premotor::cuda::host::make_host_device(16).release();
}
