// WeightReader: which tensors stay in the map, which are converted and to what, the convolution's layout, and every
// refusal. Expected values are computed here from the definitions of the formats, not by the code under test.
#include "engine/weights.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/half.h"
#include "checkpoint_files.h"
#include "ops/cpu/cpu_ops.h"
#include "tap.h"

using namespace checkpoint_files;
using premotor::Status;
using premotor::engine::StackedMatrix;
using premotor::engine::TensorStore;
using premotor::engine::WeightPrecision;
using premotor::engine::WeightReader;
using premotor::ops::Dtype;
using premotor::ops::Matrix;

namespace {

// 1/3 is inexact everywhere; 65536 and 1e-30 are past float16; 3.0078125 lies halfway between two bfloat16 numbers.
const std::vector<float> values = {1.0f / 3, -2.5f, 65536.0f, 1e-30f, 3.0078125f, 0.0f};
// float16 bits: 1, -2, the largest, the smallest subnormal, 1/3, and 1 + 2^-10.
const std::vector<std::uint16_t> halves = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x3555, 0x3c01};
const std::vector<float> halves_as_float = {1.0f,         -2.0f, 65504.0f, 5.9604644775390625e-8f, 0.333251953125f,
                                            1.0009765625f};
const std::vector<std::uint16_t> brains = {0x3f80, 0xc000, 0x3eab, 0x0001, 0x7f7f, 0x8000};

struct Files {
  // `pad` moves the data in the file; 0 to 7 covers every alignment.
  explicit Files(std::size_t pad) {
    Writer writer;
    writer.add("f32", "F32", {2, 3}, values).add("f16", "F16", {2, 3}, halves).add("bf16", "BF16", {3, 2}, brains);
    writer.add<std::int32_t>("i32", "I32", {2, 3}, {1, 2, 3, 4, 5, 6}).add("conv", "F32", {2, 3, 1, 1, 1}, values);
    write_text(folder / "w.safetensors", writer.file(pad));
    const Status status = TensorStore::open_file(folder / "w.safetensors", &store);
    if (!status.ok()) tap::ok(false, status.message);
  }
  TempFolder folder;
  TensorStore store;
};

bool in_map(const TensorStore& store, const void* pointer) {
  const auto bytes = store.files()[0].bytes();
  return pointer >= bytes.data() && pointer < bytes.data() + bytes.size();
}

float element(const Matrix& matrix, std::size_t index) {
  if (matrix.dtype == Dtype::f32) return static_cast<const float*>(matrix.data)[index];
  return premotor::bf16_to_f32(static_cast<const std::uint16_t*>(matrix.data)[index]);
}

bool holds(const Matrix& matrix, const std::vector<float>& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (element(matrix, i) != expected[i]) return false;
  }
  return true;
}

std::vector<float> rounded(std::vector<float> list) {
  for (float& value : list) value = premotor::round_to_bf16(value);
  return list;
}

void full_precision(std::size_t pad) {
  const std::string at = ", header padded by " + std::to_string(pad);
  const Files files(pad);
  WeightReader reader(files.store, WeightPrecision::f32);
  Matrix f32, f16, bf16;
  const bool good = reader.matrix("f32", 2, 3, &f32).ok() && reader.matrix("f16", 2, 3, &f16).ok() &&
                    reader.matrix("bf16", 3, 2, &bf16).ok();
  if (!tap::ok(good, "three dtypes are read under f32" + at)) return;
  tap::ok(f32.dtype == Dtype::f32 && f32.rows == 2 && f32.cols == 3 && holds(f32, values), "F32 stays F32" + at);
  tap::ok(f16.dtype == Dtype::f32 && holds(f16, halves_as_float), "F16 is widened to F32" + at);
  bool same = bf16.dtype == Dtype::bf16 && bf16.rows == 3;
  for (std::size_t i = 0; i < 6; ++i) same = same && static_cast<const std::uint16_t*>(bf16.data)[i] == brains[i];
  tap::ok(same, "BF16 keeps its bits" + at);
  const auto aligned = [](const Matrix& m, std::uintptr_t bytes) {
    return reinterpret_cast<std::uintptr_t>(m.data) % bytes == 0;
  };
  tap::ok(aligned(f32, 4) && aligned(f16, 64) && aligned(bf16, 2), "results are aligned, copies to 64 bytes" + at);
  // In the file F32 data lies at an alignment of 4 only when the padding keeps it.
  const bool f32_fits = reinterpret_cast<std::uintptr_t>(files.store.find("f32")->data) % 4 == 0;
  const bool bf16_fits = reinterpret_cast<std::uintptr_t>(files.store.find("bf16")->data) % 2 == 0;
  tap::ok(in_map(files.store, f32.data) == f32_fits && in_map(files.store, bf16.data) == bf16_fits &&
              !in_map(files.store, f16.data),
          "in place exactly when aligned" + at);
  tap::ok(reader.converted_bytes() == 24 + (f32_fits ? 0 : 24) + (bf16_fits ? 0 : 12) && reader.weight_bytes() == 60,
          "bytes are counted" + at);
  tap::ok(reader.take_buffers().size() == 1u + (f32_fits ? 0 : 1) + (bf16_fits ? 0 : 1), "copies are handed over" + at);
}

void half_precision() {
  const Files files(0);
  WeightReader reader(files.store, WeightPrecision::bf16);
  Matrix f32, f16, bf16;
  const bool good = reader.matrix("f32", 2, 3, &f32).ok() && reader.matrix("f16", 2, 3, &f16).ok() &&
                    reader.matrix("bf16", 3, 2, &bf16).ok();
  if (!tap::ok(good, "three dtypes are read under bf16")) return;
  tap::ok(f32.dtype == Dtype::bf16 && holds(f32, rounded(values)), "F32 is rounded to BF16");
  tap::ok(element(f32, 4) == 3.0f && element(f32, 2) == 65536.0f, "a tie goes to even, a large value survives");
  tap::ok(f16.dtype == Dtype::bf16 && holds(f16, rounded(halves_as_float)), "F16 is rounded to BF16");
  tap::ok(bf16.dtype == Dtype::bf16 && in_map(files.store, bf16.data), "BF16 stays in the map");
}

void vectors() {
  const Files files(0);
  std::vector<float> f32, f16, bf16, again;
  WeightReader exact(files.store, WeightPrecision::f32);
  WeightReader short_reader(files.store, WeightPrecision::bf16);
  tap::ok(exact.floats("f32", {2, 3}, &f32).ok() && f32 == values, "floats: F32");
  tap::ok(exact.floats("f16", {2, 3}, &f16).ok() && f16 == halves_as_float, "floats: F16");
  bool same = exact.floats("bf16", {3, 2}, &bf16).ok() && bf16.size() == 6;
  for (std::size_t i = 0; i < 6; ++i) same = same && premotor::f32_to_bf16(bf16[i]) == brains[i];
  tap::ok(same, "floats: BF16");
  tap::ok(short_reader.floats("f32", {2, 3}, &again).ok() && again == rounded(values), "floats: rounded under bf16");
}

void convolutions() {
  // Stored [out 2, in 3, kt 2, kh 1, kw 2]; value = out * 1000 + in * 100 + kt * 10 + kw.
  std::vector<float> stored, expected;
  for (int o = 0; o < 2; ++o)
    for (int i = 0; i < 3; ++i)
      for (int t = 0; t < 2; ++t)
        for (int x = 0; x < 2; ++x) stored.push_back(static_cast<float>(o * 1000 + i * 100 + t * 10 + x));
  for (int o = 0; o < 2; ++o)
    for (int t = 0; t < 2; ++t)
      for (int x = 0; x < 2; ++x)
        for (int i = 0; i < 3; ++i) expected.push_back(static_cast<float>(o * 1000 + i * 100 + t * 10 + x));
  std::vector<std::uint16_t> bits;
  for (const float value : stored) bits.push_back(premotor::f32_to_bf16(value));
  Writer writer;
  writer.add("c3", "F32", {2, 3, 2, 1, 2}, stored)
      .add("c2", "F32", {2, 3, 2, 2}, stored)
      .add("c16", "BF16", {2, 3, 2, 1, 2}, bits);
  const TempFolder folder;
  write_text(folder / "c.safetensors", writer.file());
  TensorStore store;
  tap::ok(TensorStore::open_file(folder / "c.safetensors", &store).ok(), "a file of convolutions opens");
  WeightReader reader(store, WeightPrecision::f32);
  WeightReader short_reader(store, WeightPrecision::bf16);
  Matrix c3, c2, c16, c3_short;
  tap::ok(reader.convolution("c3", {2, 3, 2, 1, 2}, &c3).ok() && c3.dtype == Dtype::f32 && c3.rows == 2 &&
              c3.cols == 12 && holds(c3, expected),
          "a 3-D convolution is re-laid, input channel fastest");
  tap::ok(reader.convolution("c2", {2, 3, 2, 2}, &c2).ok() && c2.cols == 12 && holds(c2, expected),
          "a 2-D convolution too");
  tap::ok(reader.convolution("c16", {2, 3, 2, 1, 2}, &c16).ok() && c16.dtype == Dtype::bf16 &&
              holds(c16, rounded(expected)),
          "BF16 stays BF16");
  tap::ok(short_reader.convolution("c3", {2, 3, 2, 1, 2}, &c3_short).ok() && c3_short.dtype == Dtype::bf16 &&
              holds(c3_short, rounded(expected)),
          "F32 is rounded under bf16");
  const Files files(0);
  WeightReader plain(files.store, WeightPrecision::f32);
  Matrix one_tap, matrix;
  tap::ok(plain.convolution("conv", {2, 3, 1, 1, 1}, &one_tap).ok() && one_tap.cols == 3 && holds(one_tap, values) &&
              in_map(files.store, one_tap.data),
          "a convolution of one tap stays in the map");
  tap::ok(plain.matrix("conv", 2, 3, &matrix, {2, 3, 1, 1, 1}).ok() && matrix.data == one_tap.data,
          "a matrix stored with trailing ones");
}

// Stacked matrices are one where the backend packs weights, and stay in the map where it does not, or where their
// element types differ. A convolution cut by output channels is its parts.
void stacks() {
  const Files files(0);
  const std::vector<std::string> same = {"f32", "f16"};
  std::vector<float> both = values;
  both.insert(both.end(), halves_as_float.begin(), halves_as_float.end());
  WeightReader plain(files.store, WeightPrecision::f32);
  StackedMatrix apart, stacked, mixed;
  tap::ok(plain.stacked(same, 2, 3, &apart).ok() && apart.whole.rows == 0 && apart.parts.size() == 2 &&
              holds(apart.parts[0], values) && holds(apart.parts[1], halves_as_float) &&
              in_map(files.store, apart.parts[0].data),
          "stacked matrices stay apart without packing");
  premotor::ops::CpuOps ops(1);
  WeightReader packing(files.store, WeightPrecision::f32);
  packing.prepare_with(ops, premotor::ops::Rounding::none);
  tap::ok(packing.stacked(same, 2, 3, &stacked).ok() && stacked.parts.empty() && stacked.whole.rows == 4 &&
              stacked.whole.cols == 3 && stacked.whole.prepared != nullptr && holds(stacked.whole, both),
          "they are one matrix, packed");
  tap::ok(packing.converted_bytes() == 48 && packing.weight_bytes() == 48 && packing.take_buffers().size() == 1,
          "one copy, and none of what it was made from");
  Writer writer;
  writer.add("f32", "F32", {2, 3}, values).add("bf16", "BF16", {2, 3}, brains);
  write_text(files.folder / "mixed.safetensors", writer.file());
  TensorStore store;
  tap::ok(TensorStore::open_file(files.folder / "mixed.safetensors", &store).ok(), "a file of two types opens");
  WeightReader mixing(store, WeightPrecision::f32);
  mixing.prepare_with(ops, premotor::ops::Rounding::none);
  const std::vector<std::string> different = {"f32", "bf16"};
  tap::ok(mixing.stacked(different, 2, 3, &mixed).ok() && mixed.whole.rows == 0 && mixed.parts.size() == 2 &&
              mixed.parts[0].prepared != nullptr && mixed.parts[1].dtype == Dtype::bf16,
          "matrices of different element types stay apart, packed each for itself");
  Matrix halves_of[2];
  tap::ok(packing.convolution("conv", {2, 3, 1, 1, 1}, halves_of, 2).ok() && halves_of[0].rows == 1 &&
              halves_of[1].rows == 1 && halves_of[0].prepared != nullptr && halves_of[1].prepared != nullptr &&
              holds(halves_of[0], {values.begin(), values.begin() + 3}) &&
              holds(halves_of[1], {values.begin() + 3, values.end()}),
          "a convolution in two parts");
}

void refuses(const Status& status, const std::string& code, const std::string& tensor, const std::string& name) {
  const bool good = status.code == code && status.tensor == tensor && !status.file.empty() &&
                    !status.expected.empty() && !status.found.empty();
  if (!tap::ok(good, "refuses " + name + ": " + code)) tap::note(std::string(status.code) + " " + status.message);
}

void refusals() {
  const Files files(0);
  WeightReader reader(files.store, WeightPrecision::f32);
  Matrix matrix;
  std::vector<float> list;
  refuses(reader.matrix("none", 2, 3, &matrix), "CHECKPOINT_MISSING_TENSOR", "none", "an absent matrix");
  refuses(reader.matrix("f32", 3, 2, &matrix), "CHECKPOINT_SHAPE", "f32", "a transposed matrix");
  refuses(reader.matrix("conv", 2, 3, &matrix), "CHECKPOINT_SHAPE", "conv", "another rank");
  refuses(reader.matrix("i32", 2, 3, &matrix), "CHECKPOINT_DTYPE", "i32", "integers");
  refuses(reader.floats("f32", {6}, &list), "CHECKPOINT_SHAPE", "f32", "a flat vector");
  refuses(reader.floats("i32", {2, 3}, &list), "CHECKPOINT_DTYPE", "i32", "integers as floats");
  refuses(reader.convolution("conv", {3, 2, 1, 1, 1}, &matrix), "CHECKPOINT_SHAPE", "conv", "a misshapen convolution");
  tap::ok(matrix.data == nullptr && list.empty() && reader.take_buffers().empty(), "a refusal leaves nothing behind");
  const Status status = reader.matrix("f32", 2, 4, &matrix);
  tap::ok(status.expected == "shape [2, 4]" && status.found == "[2, 3]", "a shape error names both shapes");
}

void unread_names() {
  const Files files(0);
  WeightReader reader(files.store, WeightPrecision::f32);
  Matrix matrix;
  std::vector<float> list;
  tap::ok(reader.unread() == std::vector<std::string>{"bf16", "conv", "f16", "f32", "i32"}, "nothing read yet");
  const bool read = reader.matrix("f32", 2, 3, &matrix).ok() && reader.floats("f16", {2, 3}, &list).ok() &&
                    reader.matrix("f32", 2, 3, &matrix).ok();
  const bool failed = !reader.matrix("bf16", 1, 1, &matrix).ok();
  tap::ok(read && failed && reader.unread() == std::vector<std::string>{"bf16", "conv", "i32"},
          "names that nobody read, sorted");
}

// A quantised weight lives in the backend's form alone; other tensors of the same reader stay as they are.
void quantised() {
  const Files files(0);
  premotor::ops::CpuOps ops(1);
  const float x[3] = {0, 0, 1};
  float y[2] = {};
  for (const WeightPrecision precision : {WeightPrecision::int8, WeightPrecision::int4_32}) {
    const std::string name = precision == WeightPrecision::int8 ? "int8" : "int4";
    WeightReader reader(files.store, precision);
    reader.prepare_with(ops, premotor::ops::Rounding::none);
    Matrix matrix, other;
    tap::ok(reader.quantised_matrix("f16", 2, 3, &matrix).ok() && matrix.prepared != nullptr && matrix.data == nullptr,
            name + " keeps the backend's form alone");
    tap::ok(reader.weight_bytes() == (precision == WeightPrecision::int8 ? 32 * (4 + 8) : 32 * (4 + 2)) &&
                reader.converted_bytes() == 0 && reader.take_buffers().empty(),
            name + " counts what is kept, and not the copy that was made on the way");
    ops.linear(x, 1, 3, matrix, nullptr, premotor::ops::Activation::none, premotor::ops::Rounding::none, y, 2);
    // The largest of each row: in int8 exact to the scale's rounding, in int4 to the bf16 scale's.
    tap::ok(std::abs(y[0] / halves_as_float[2] - 1) < 4e-3 && std::abs(y[1] / halves_as_float[5] - 1) < 4e-3,
            name + " multiplies by the stored values");
    tap::ok(reader.matrix("f32", 2, 3, &other).ok() && other.dtype == Dtype::f32 && holds(other, values),
            name + " leaves other matrices as stored");
    refuses(reader.quantised_matrix("f32", 3, 2, &other), "CHECKPOINT_SHAPE", "f32", name + " of another shape");
  }
  WeightReader plain(files.store, WeightPrecision::f32);
  Matrix matrix;
  tap::ok(plain.quantised_matrix("f32", 2, 3, &matrix).ok() && holds(matrix, values), "f32 quantises nothing");
}

// In a child process with a bounded address space, a widened copy that does not fit is an error, not a crash.
void out_of_memory() {
#if defined(__SANITIZE_ADDRESS__)
  tap::skip("a copy that does not fit is OUT_OF_MEMORY", "AddressSanitizer owns the address space");
#else
  const TempFolder folder;
  const std::string path = folder / "big.safetensors";
  const std::int64_t elements = std::int64_t{1} << 28;  // 512 MiB of F16, a hole in the file: takes no disk
  const std::string bytes = std::to_string(elements * 2);
  const std::string head = with_header(R"({"big":{"dtype":"F16","shape":[)" + std::to_string(elements) +
                                       R"(],"data_offsets":[0,)" + bytes + "]}}");
  write_text(path, head);
  std::filesystem::resize_file(path, head.size() + static_cast<std::size_t>(elements) * 2);
  const pid_t child = ::fork();
  if (child == 0) {
    TensorStore store;
    if (!TensorStore::open_file(path, &store).ok()) ::_exit(2);
    const rlimit limit = {std::size_t{768} << 20, std::size_t{768} << 20};
    rlimit now = {};
    ::setrlimit(RLIMIT_AS, &limit);
    ::getrlimit(RLIMIT_AS, &now);
    if (now.rlim_cur != limit.rlim_cur) ::_exit(4);
    WeightReader reader(store, WeightPrecision::f32);
    Matrix matrix;
    std::vector<float> list;
    const Status as_matrix = reader.matrix("big", 1, elements, &matrix, {elements});
    const Status as_list = reader.floats("big", {elements}, &list);
    const std::string code = "OUT_OF_MEMORY";
    ::_exit(as_matrix.code == code && as_matrix.tensor == "big" && as_list.code == code ? 0 : 3);
  }
  int result = -1;
  ::waitpid(child, &result, 0);
  if (WIFEXITED(result) && WEXITSTATUS(result) == 4)
    tap::skip("a copy that does not fit is OUT_OF_MEMORY", "an emulator of user programs ignores the bound");
  else
    tap::ok(WIFEXITED(result) && WEXITSTATUS(result) == 0, "a copy that does not fit is OUT_OF_MEMORY");
#endif
}

}  // namespace

int main() {
  for (std::size_t pad = 0; pad < 8; ++pad) full_precision(pad);
  half_precision();
  vectors();
  convolutions();
  stacks();
  refusals();
  unread_names();
  quantised();
  out_of_memory();
  return tap::finish();
}
