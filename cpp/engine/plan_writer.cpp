// Writing plan files: pieces of payload as they come, with a checksum per block; then tables, directory and header. See
// plan_file.h.
#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <new>
#include <utility>

#include "base/checksum.h"
#include "engine/plan_file.h"

namespace premotor::engine {

namespace {

// Pieces of at least this size begin a page, so that reading one touches no other's pages.
constexpr std::uint64_t kPageBytes = 4096, kLargeBytes = 16 * kPageBytes;

struct Return {
  void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{kPlanAlignment}); }
};
using Memory = std::unique_ptr<std::byte[], Return>;

void put_u64(std::byte* header, std::size_t at, std::uint64_t value) { std::memcpy(header + at, &value, 8); }

}  // namespace

Status PlanWriter::create(const std::string& path) {
  PREMOTOR_TRY(file_.create(path));
  const std::vector<std::byte> header(kPlanHeaderBytes);
  return file_.append(header);
}

Status PlanWriter::append(std::span<const std::byte> bytes) {
  PREMOTOR_TRY(file_.append(bytes));
  payload_bytes_ += bytes.size();
  while (!bytes.empty()) {
    const std::size_t room = kPlanBlockBytes - block_.size(), taken = std::min(room, bytes.size());
    block_.insert(block_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
    bytes = bytes.subspan(taken);
    if (block_.size() < kPlanBlockBytes) continue;
    sums_.push_back(checksum64(block_));
    block_.clear();
  }
  return Status::good();
}

// Aligned bytes of the payload, at `at`.
Status PlanWriter::put(std::span<const std::byte> bytes, std::uint64_t* at) {
  // What an earlier seal wrote behind the payload makes room.
  if (file_.size() != kPlanHeaderBytes + payload_bytes_)
    PREMOTOR_TRY(file_.truncate(kPlanHeaderBytes + payload_bytes_));
  const std::uint64_t alignment = bytes.size() >= kLargeBytes ? kPageBytes : kPlanAlignment;
  const std::uint64_t gap = (alignment - payload_bytes_ % alignment) % alignment;
  const std::vector<std::byte> padding(gap);
  PREMOTOR_TRY(append(padding));
  *at = payload_bytes_;
  return append(bytes);
}

Status PlanWriter::added(std::int64_t elements) const { return on_added ? on_added(elements) : Status::good(); }

Status PlanWriter::add_matrix(const std::string& key, const ops::Matrix& matrix, ops::Ops* ops, ops::Rounding rounding,
                              ops::WeightFormat format) {
  if (!keys_.insert(key).second) return Status::good();
  PlanTensor tensor;
  tensor.key = key;
  tensor.dtype = matrix.dtype;
  tensor.rows = matrix.rows;
  tensor.cols = matrix.cols;
  ops::Ops::PreparedForm form;
  if (ops == nullptr || !ops->prepared_form(matrix, rounding, format, &form)) {
    tensor.kind = PlanKind::plain;
    tensor.bytes = static_cast<std::uint64_t>(matrix.rows * matrix.cols * ops::bytes_of(matrix.dtype));
    PREMOTOR_TRY(put({static_cast<const std::byte*>(matrix.data), tensor.bytes}, &tensor.at));
  } else {
    tensor.kind = PlanKind::prepared;
    tensor.product = form.product;
    tensor.group = form.group;
    tensor.bytes = static_cast<std::uint64_t>(form.bytes);
    const Memory bytes(
        static_cast<std::byte*>(::operator new[](tensor.bytes, std::align_val_t{kPlanAlignment}, std::nothrow)));
    if (bytes == nullptr) {
      return Status::error("OUT_OF_MEMORY", "Building a plan needs " + std::to_string(tensor.bytes) +
                                                " bytes of memory for the weight " + key + ". Free memory.");
    }
    ops->write_prepared(matrix, form, bytes.get());
    PREMOTOR_TRY(put({bytes.get(), tensor.bytes}, &tensor.at));
  }
  contents_.tensors.push_back(std::move(tensor));
  return added(matrix.rows * matrix.cols);
}

Status PlanWriter::add_floats(const std::string& key, std::span<const float> values) {
  if (!keys_.insert(key).second) return Status::good();
  PlanTensor tensor;
  tensor.key = key;
  tensor.kind = PlanKind::floats;
  tensor.rows = std::ssize(values);
  tensor.cols = 1;
  tensor.bytes = values.size_bytes();
  PREMOTOR_TRY(put(std::as_bytes(values), &tensor.at));
  contents_.tensors.push_back(std::move(tensor));
  return added(std::ssize(values));
}

Status PlanWriter::add_conditioning(std::int64_t modality, float timestep, std::span<const float> temb,
                                    std::span<const float> projection) {
  assert(projection.size() == 6 * temb.size());
  std::vector<float> values(temb.begin(), temb.end());
  values.insert(values.end(), projection.begin(), projection.end());
  PlanConditioning one;
  one.modality = modality;
  one.timestep_bits = std::bit_cast<std::uint32_t>(timestep);
  one.width = std::ssize(temb);
  one.bytes = values.size() * sizeof(float);
  PREMOTOR_TRY(put(std::as_bytes(std::span(values)), &one.at));
  contents_.conditioning.push_back(one);
  return Status::good();
}

Status PlanWriter::seal() {
  if (file_.size() != kPlanHeaderBytes + payload_bytes_)
    PREMOTOR_TRY(file_.truncate(kPlanHeaderBytes + payload_bytes_));
  std::vector<std::uint64_t> sums = sums_;
  if (!block_.empty()) sums.push_back(checksum64(block_));
  const std::string directory = plan_directory(contents_);
  const auto blocks = std::as_bytes(std::span(sums)), text = std::as_bytes(std::span(directory));
  const std::uint64_t blocks_at = file_.size();
  PREMOTOR_TRY(file_.append(blocks));
  PREMOTOR_TRY(file_.append(text));
  std::vector<std::byte> header(kPlanHeaderBytes);
  std::memcpy(header.data(), kPlanMagic.data(), kPlanMagic.size());
  put_u64(header.data(), 8, kPlanVersion | kPlanHeaderBytes << 32);
  put_u64(header.data(), 16, file_.size());
  put_u64(header.data(), 24, blocks_at + blocks.size());
  put_u64(header.data(), 32, text.size());
  put_u64(header.data(), 40, checksum64(text));
  put_u64(header.data(), 48, kPlanHeaderBytes);
  put_u64(header.data(), 56, payload_bytes_);
  put_u64(header.data(), 64, kPlanBlockBytes);
  put_u64(header.data(), 72, blocks_at);
  put_u64(header.data(), 80, blocks.size());
  put_u64(header.data(), 88, checksum64(blocks));
  put_u64(header.data(), kPlanHeaderBytes - 8, checksum64(std::span(header).first(kPlanHeaderBytes - 8)));
  return file_.write_at(0, header);
}

}  // namespace premotor::engine
