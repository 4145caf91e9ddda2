// Convolutions over packed f32 weights whose windows are read where they lie: nothing is gathered.
#pragma once

#include "base/thread_pool.h"
#include "ops/cpu/packed_kernels.h"
#include "ops/ops.h"

namespace premotor::ops {

// Floats of scratch that window_conv needs: the input with its zero border, 0 when no window leaves the picture.
[[nodiscard]] std::int64_t window_scratch_floats(const Conv3d& args);

// args as Ops::conv3d takes them, with `w` the f32 panels of args.weight. scratch: window_scratch_floats(args).
void window_conv(ThreadPool& pool, const PackedKernels& kernels, const PackedMatrix& w, const Conv3d& args,
                 Rounding rounding, float* scratch);

}  // namespace premotor::ops
