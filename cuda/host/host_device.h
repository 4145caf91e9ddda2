// A Device (ops/device.h) whose launches run on the host's machine and whose memory is the host's: what the engine's
// device code is tested with where there is no GPU. It is far too slow for anything else.
#pragma once

#include <memory>

#include "ops/device.h"

namespace premotor::cuda::host {

// multiprocessors: what plans are made for, so that small sizes are split as large ones are.
[[nodiscard]] std::unique_ptr<device::Device> make_host_device(int multiprocessors);

}  // namespace premotor::cuda::host
