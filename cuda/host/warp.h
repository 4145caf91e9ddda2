// What the lanes of a warp do together, on the host: shuffles, votes, matrix loads and tensor-core products as loops
// over the fragment layouts that PTX documents. Kernels reach them through device.h; tests call them too.
//
// Products of 16-bit floats are exact here and are summed in float32, the 16 of one instruction first. A tensor core
// sums in another order and may cut bits off: results agree within accumulation error, not bit by bit.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "cuda/host/machine.h"
#include "cuda/host/shared.h"

namespace premotor::cuda::host {

// Every lane of `mask` gets `value` of lane from(lane); a lane beyond the mask gives it a fault.
std::uint32_t shuffle(const char* what, std::uint32_t mask, std::uint32_t value, std::uint32_t from, const Site& at);
std::uint32_t ballot(std::uint32_t mask, bool vote, const Site& at);
// ldmatrix.x4: lane i gives the row i % 8 of matrix i / 8, 16 bytes; r[m] is the lane's part of matrix m.
void load_matrices(std::uint32_t* r, const SharedArray& array, std::uint32_t at, bool is_transposed, const Site& site);
// mma.sync m16n8k16 (bf16, f16, f32 sums) and m16n8k32 (s8, s32 sums): d += a b.
void multiply_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, const Site& at);
void multiply_f16(float* d, const std::uint32_t* a, const std::uint32_t* b, const Site& at);
void multiply_s8(std::int32_t* d, const std::uint32_t* a, const std::uint32_t* b, const Site& at);

}  // namespace premotor::cuda::host
