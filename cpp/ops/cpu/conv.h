// The CPU backend's causal 3-D convolution: tiles of image patches (im2col) times the re-laid weight.
#pragma once

#include "ops/ops.h"

namespace premotor::ops {

// See Ops::conv3d. Uses self.linear and self.pool().
void cpu_conv3d(Ops& self, const Conv3d& args, Rounding rounding);

}  // namespace premotor::ops
