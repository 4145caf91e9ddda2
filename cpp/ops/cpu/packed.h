// Matrix products over weights that were packed once: y = act(round(x w^T + bias)) as Ops::linear, with the weights in
// panels that the register tiles of packed_kernels.cpp read front to back.
//
// Layout (kPackedLayout = 2; another number, too, whenever the same weights give other quantised values, because
// certificates of precisions speak of these), the same for every instruction set, position independent, 64-byte
// aligned, little endian:
//   unit     4 bytes that hold consecutive values along k of one output: 1 f32, 2 bf16 or 4 int8, the first in the
//            lowest bytes
//   panel    [unit of k][32 outputs] units; unit u of output c lies 128 u + 4 c bytes behind the panel's begin
//   matrix   panels of outputs 0 .. 31, 32 .. 63, ...; int8 then has per output, padded to whole panels, the scales
//            [n'] f32 and the sums of the quantised values along k [n'] s32
//   int4     a unit is 8 values, and a panel is cut along k into groups of 32, 64 or 128 values, the last of which may
//            be shorter: per group [32] bf16 scales, then its units, so that a product reads front to back. Value 2i of
//            a unit lies in its bits 4i .. 4i + 3 and value 2i + 1 in bits 16 + 4i .. 19 + 4i, two's complement: one
//            shift and one table of 16 bits make a bf16 pair of two neighbouring values.
// n is padded to whole panels and k to whole units with zeros; a padded output has scale 0.
//
// Every output is computed by the same sequence of operations wherever its tile lies: sums run along k in blocks of
// kPackedBlock units, each from zero in one accumulator, and the blocks are added in order. So results depend on the
// instruction set, but not on m, on the number of threads or on how work is cut.
#pragma once

#include <cstdint>
#include <string_view>

#include "ops/ops.h"

namespace premotor::ops {

constexpr std::uint32_t kPackedLayout = 2;
constexpr std::int64_t kPanelColumns = 32;
constexpr std::int64_t kPackedBlock = 256;         // units of k summed in registers at a time
constexpr std::int64_t kPackedDepthMax = 1 << 16;  // largest k of an int8 product: its sums stay within 32 bits

// int4: q times the scale of its group, q in -8 .. 7. Symmetric: a minimum for each group costs 16 bits more, and as
// much is won with them by halving the group. A scale may be negative, so that the larger end of a group gets the -8.
enum class PackedPrecision : std::uint8_t { f32, bf16, int8, int4 };
constexpr std::int64_t kInt4Unit = 8;
constexpr std::int64_t kInt4Group = 32;  // values along k that share a scale, unless another size is asked for

// What is multiplied: weights of one precision by activations that were
//   f32       taken as they are, f32 weights
//   bf16      taken as they are, bf16 weights widened: the only loss is the weights' own rounding
//   bf16_dot  rounded to bf16 in pairs, bf16 weights; products exact, f32 sums (in the order of the processor's
//             bf16 dot product where it has one, which also takes denormals as zero)
//   int8      quantised per row to round(x / s), s = max|x| / 127, int8 weights; 32-bit integer sums, exact. A row that
//             is not finite gives a row that is not finite.
//   int4      as bf16_dot: a weight is q times its group's scale, rounded to bf16 when a block of weights is widened
//   for
//             all rows of a task. That is at most 2^-9, far below what 4 bits leave; taking q alone and scaling the
//             sums of groups took longer (docs/SPEED.md).
enum class Product : std::uint8_t { f32, bf16, bf16_dot, int8, int4 };
constexpr int kProducts = 4;
// Their names in files: once given, a name stays.
constexpr std::string_view kProductNames[kProducts + 1] = {"f32", "bf16", "bf16_dot", "int8", "int4"};

struct PackedMatrix {
  const void* data = nullptr;  // packed_bytes(precision, n, k) bytes in the layout above, 64-byte aligned
  PackedPrecision precision = PackedPrecision::f32;
  std::int64_t n = 0;               // outputs
  std::int64_t k = 0;               // inputs
  std::int64_t group = kInt4Group;  // int4 only
};

// Values along k in one unit.
[[nodiscard]] constexpr std::int64_t packed_unit(PackedPrecision precision) {
  if (precision == PackedPrecision::int4) return kInt4Unit;
  return precision == PackedPrecision::f32 ? 1 : (precision == PackedPrecision::bf16 ? 2 : 4);
}
[[nodiscard]] constexpr std::int64_t packed_units(PackedPrecision precision, std::int64_t k) {
  return (k + packed_unit(precision) - 1) / packed_unit(precision);
}
[[nodiscard]] constexpr std::int64_t packed_panels(std::int64_t n) { return (n + kPanelColumns - 1) / kPanelColumns; }

// Size of a packed matrix, a multiple of 64.
[[nodiscard]] constexpr std::int64_t packed_bytes(PackedPrecision precision, std::int64_t n, std::int64_t k,
                                                  std::int64_t group = kInt4Group) {
  if (precision == PackedPrecision::int4)
    return packed_panels(n) * kPanelColumns * (4 * packed_units(precision, k) + 2 * ((k + group - 1) / group));
  const std::int64_t per_column = 4 * packed_units(precision, k) + (precision == PackedPrecision::int8 ? 8 : 0);
  return packed_panels(n) * kPanelColumns * per_column;
}
[[nodiscard]] constexpr PackedPrecision packed_precision(Product product) {
  if (product == Product::f32) return PackedPrecision::f32;
  if (product == Product::int4) return PackedPrecision::int4;
  return product == Product::int8 ? PackedPrecision::int8 : PackedPrecision::bf16;
}

// Writes all packed_bytes(precision, w.rows, w.cols) bytes at `to` (64-byte aligned). w: f32 or bf16, rows and cols
// >= 1, finite. bf16 from f32 rounds to nearest even; int8 is round(w / s) with s = max|w| / 127 of each output; int4
// is rounded as int4_rounding.h says, in groups of `group` values.
void pack(const Matrix& w, PackedPrecision precision, void* to, std::int64_t group = kInt4Group);
// The same with all threads of a pool: every one fills panels of its own.
void pack(ThreadPool& pool, const Matrix& w, PackedPrecision precision, void* to, std::int64_t group = kInt4Group);

// The values that the packed matrix stands for: w [n, k] f32, row-major (int8 times its scales).
void unpack(const PackedMatrix& packed, float* w);

// The outputs' scales [n'] and sums [n'] of an int8 matrix.
[[nodiscard]] const float* packed_scales(const PackedMatrix& w);
[[nodiscard]] const std::int32_t* packed_sums(const PackedMatrix& w);

}  // namespace premotor::ops
