// WeightReader: shape and dtype checks, and the conversions between stored and computed element types. See weights.h.
#include "engine/weights.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>

#include "base/half.h"
#include "engine/checkpoint_error.h"
#include "engine/plan_file.h"
#include "engine/plan_sketch.h"

namespace premotor::engine {

namespace {

// Largest model, in parameters, that is kept a second time in the backend's form.
constexpr std::int64_t kPreparedElementsMax = 500'000'000;

constexpr std::size_t alignment_bytes = 64;  // a cache line, and the widest vector register

bool is_float(StoredDtype dtype) {
  return dtype == StoredDtype::f32 || dtype == StoredDtype::f16 || dtype == StoredDtype::bf16;
}

bool is_aligned(const void* pointer, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % static_cast<std::uintptr_t>(bytes) == 0;
}

// Element `index` of a stored float tensor, exact. memcpy, because the map promises no alignment.
float load(const std::byte* data, StoredDtype dtype, std::int64_t index) {
  if (dtype == StoredDtype::f32) {
    float value = 0;
    std::memcpy(&value, data + index * 4, 4);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, data + index * 2, 2);
  return dtype == StoredDtype::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

// Writes element `index` of a buffer of `dtype` (f32 or bf16).
void store(std::byte* data, ops::Dtype dtype, std::int64_t index, float value) {
  if (dtype == ops::Dtype::f32) {
    std::memcpy(data + index * 4, &value, 4);
    return;
  }
  const std::uint16_t bits = f32_to_bf16(value);
  std::memcpy(data + index * 2, &bits, 2);
}

bool same_type(StoredDtype stored, ops::Dtype wanted) {
  return (stored == StoredDtype::f32 && wanted == ops::Dtype::f32) ||
         (stored == StoredDtype::bf16 && wanted == ops::Dtype::bf16);
}

// What a plan calls a stacked matrix: "a+b+c".
std::string joined(std::span<const std::string> names) {
  std::string key;
  for (const std::string& name : names) key += (key.empty() ? "" : "+") + name;
  return key;
}

}  // namespace

ops::WeightFormat format_of(WeightPrecision precision) {
  switch (precision) {
    case WeightPrecision::int8:
      return ops::WeightFormat::int8;
    case WeightPrecision::int4_32:
      return ops::WeightFormat::int4_32;
    case WeightPrecision::int4_64:
      return ops::WeightFormat::int4_64;
    case WeightPrecision::int4_128:
      return ops::WeightFormat::int4_128;
    case WeightPrecision::f32:
    case WeightPrecision::bf16:
      break;
  }
  return ops::WeightFormat::stored;
}

Status WeightReader::fetch(const std::string& name, const std::vector<std::int64_t>& shape, const StoredTensor** out) {
  const StoredTensor* tensor = store_->find(name);
  if (tensor == nullptr) {
    const std::string file = store_->files().empty() ? "(no file)" : store_->files()[0].path();
    return checkpoint_error("CHECKPOINT_MISSING_TENSOR", file, name, "a float tensor of shape " + shown_shape(shape),
                            "none", "The weights do not fit config.json; take both from the same checkpoint.");
  }
  if (tensor->shape != shape) {
    return checkpoint_error("CHECKPOINT_SHAPE", store_->file_of(*tensor), name, "shape " + shown_shape(shape),
                            shown_shape(tensor->shape),
                            "The weights do not fit config.json; take both from the same checkpoint.");
  }
  if (!is_float(tensor->dtype)) {
    return checkpoint_error("CHECKPOINT_DTYPE", store_->file_of(*tensor), name, "F32, F16 or BF16",
                            name_of(tensor->dtype), "Convert the tensor to one of these.");
  }
  read_.push_back(name);
  *out = tensor;
  return Status::good();
}

ops::Dtype WeightReader::target(const StoredTensor& tensor) const {
  // bfloat16 values are exact in float32 as well, so they stay as they are under either precision.
  return precision_ == WeightPrecision::bf16 || tensor.dtype == StoredDtype::bf16 ? ops::Dtype::bf16 : ops::Dtype::f32;
}

Status WeightReader::allocate(const StoredTensor& tensor, std::int64_t elements, ops::Dtype dtype, std::byte** out) {
  const std::size_t size_bytes = static_cast<std::size_t>(elements * ops::bytes_of(dtype));
  std::unique_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[size_bytes + alignment_bytes]);
  if (buffer == nullptr) {
    return checkpoint_error("OUT_OF_MEMORY", store_->file_of(tensor), tensor.name,
                            std::to_string(size_bytes) + " bytes of memory for a converted copy",
                            "too little free memory",
                            "Free memory, or convert the checkpoint to the precision that it runs in.");
  }
  const std::size_t past = reinterpret_cast<std::uintptr_t>(buffer.get()) % alignment_bytes;
  *out = buffer.get() + (past == 0 ? 0 : alignment_bytes - past);
  buffers_.push_back(std::move(buffer));
  converted_bytes_ += static_cast<std::int64_t>(size_bytes);
  weight_bytes_ += static_cast<std::int64_t>(size_bytes);
  return Status::good();
}

const char* name_of(WeightPrecision precision) {
  switch (precision) {
    case WeightPrecision::f32:
      return "f32";
    case WeightPrecision::bf16:
      return "bf16";
    case WeightPrecision::int8:
      return "int8";
    case WeightPrecision::int4_32:
      return "int4";
    case WeightPrecision::int4_64:
      return "int4_64";
    case WeightPrecision::int4_128:
      return "int4_128";
  }
  return "";
}

ops::Dtype default_cache(WeightPrecision precision) {
  return precision == WeightPrecision::f32 ? ops::Dtype::f32 : ops::Dtype::bf16;
}

void WeightReader::record_to(PlanWriter& writer, std::string part, ops::Ops& ops, ops::Rounding rounding) {
  recorder_ = &writer;
  part_ = std::move(part);
  preparer_ = &ops;
  quantiser_ = &ops;
  rounding_ = rounding;
}

void WeightReader::prepare_with(ops::Ops& ops, ops::Rounding rounding) {
  std::int64_t elements = 0;
  for (const StoredTensor& tensor : store_->tensors()) elements += tensor.elements();
  rounding_ = rounding;
  quantiser_ = &ops;
  if (elements <= kPreparedElementsMax) preparer_ = &ops;
}

Status WeightReader::matrix(const std::string& name, std::int64_t rows, std::int64_t cols, ops::Matrix* out,
                            const std::vector<std::int64_t>& stored_shape) {
  if (plan_ != nullptr) return adopt(name, rows, cols, out);
  if (sketch_ != nullptr) {
    list(name, rows, cols, ops::WeightFormat::stored, out);
    return Status::good();
  }
  const std::vector<std::int64_t> plain{rows, cols};
  PREMOTOR_TRY(read_matrix(name, rows, cols, stored_shape.empty() ? plain : stored_shape, out));
  PREMOTOR_TRY(deliver(name, ops::WeightFormat::stored, out));
  let_go({&name, 1});
  return Status::good();
}

void WeightReader::list(const std::string& key, std::int64_t rows, std::int64_t cols, ops::WeightFormat format,
                        ops::Matrix* out) {
  sketch_->matrix(part_ + "/" + key, rows, cols, format, out);
}

Status WeightReader::deliver(const std::string& key, ops::WeightFormat format, ops::Matrix* out, std::int64_t* kept) {
  ops::Ops* const backend = format == ops::WeightFormat::stored ? preparer_ : quantiser_;
  std::int64_t bytes = 0;
  if (recorder_ == nullptr) {
    if (backend != nullptr) bytes = backend->prepare(out, rounding_, format);
  } else {
    ops::Ops::PreparedForm form;
    if (backend->prepared_form(*out, rounding_, format, &form)) bytes = form.bytes;
    PREMOTOR_TRY(recorder_->add_matrix(part_ + "/" + key, *out, backend, rounding_, format));
    out->data = nullptr;
  }
  if (kept != nullptr) *kept = bytes;
  return Status::good();
}

void WeightReader::let_go(std::span<const std::string> names) {
  if (recorder_ == nullptr) return;
  buffers_.clear();
  for (const std::string& name : names) store_->release_pages(*store_->find(name));
}

Status WeightReader::adopt(const std::string& key, std::int64_t rows, std::int64_t cols, ops::Matrix* out) {
  const PlanTensor* tensor = plan_->contents().find(part_ + "/" + key);
  const std::string shape = shown_shape({rows, cols});
  const auto refuse = [&](const std::string& found) {
    Status status = plan_error("PLAN_TENSOR", plan_->path(), "a matrix " + part_ + "/" + key + " of shape " + shape,
                               found, "Build the plan again with this version of premotor.");
    status.tensor = key;
    return status;
  };
  if (tensor == nullptr) return refuse("none");
  if (tensor->kind == PlanKind::floats) return refuse("a vector");
  if (tensor->rows != rows || tensor->cols != cols) return refuse(shown_shape({tensor->rows, tensor->cols}));
  *out = {nullptr, tensor->dtype, rows, cols};
  if (tensor->kind == PlanKind::plain) {
    out->data = tensor->data;
    return Status::good();
  }
  const ops::Ops::PreparedForm form{tensor->product, plan_->contents().facts.layout,
                                    static_cast<std::int64_t>(tensor->bytes), tensor->group,
                                    plan_->tactics_for(*tensor)};
  if (preparer_->adopt(out, form, tensor->data)) return Status::good();
  return refuse("product \"" + tensor->product + "\", layout " + std::to_string(form.layout) + ", group " +
                std::to_string(form.group) + ", " + std::to_string(form.bytes) + " bytes");
}

// Stacked unless the tensors' element types differed.
Status WeightReader::adopt_stacked(std::span<const std::string> names, std::int64_t rows_each, std::int64_t cols,
                                   StackedMatrix* out) {
  const std::string key = joined(names);
  if (plan_->contents().find(part_ + "/" + key) != nullptr)
    return adopt(key, rows_each * std::ssize(names), cols, &out->whole);
  out->parts.resize(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) PREMOTOR_TRY(adopt(names[i], rows_each, cols, &out->parts[i]));
  return Status::good();
}

Status WeightReader::quantised_matrix(const std::string& name, std::int64_t rows, std::int64_t cols, ops::Matrix* out) {
  const ops::WeightFormat format = format_of(precision_);
  if (format == ops::WeightFormat::stored) return matrix(name, rows, cols, out);
  if (sketch_ != nullptr) {
    list(name, rows, cols, format, out);
    return Status::good();
  }
  assert(quantiser_ != nullptr);
  const std::size_t copies = buffers_.size();
  const std::int64_t converted_before = converted_bytes_, bytes_before = weight_bytes_;
  PREMOTOR_TRY(read_matrix(name, rows, cols, {rows, cols}, out));
  std::int64_t kept = 0;
  PREMOTOR_TRY(deliver(name, format, out, &kept));
  if (kept == 0) return no_memory_for_quantised(name);
  // Nobody reads the stored values again, nor a copy that was made of them.
  buffers_.resize(copies);
  store_->release_pages(*store_->find(name));
  out->data = nullptr;
  converted_bytes_ = converted_before;
  weight_bytes_ = bytes_before + kept;
  return Status::good();
}

Status WeightReader::read_matrix(const std::string& name, std::int64_t rows, std::int64_t cols,
                                 const std::vector<std::int64_t>& stored_shape, ops::Matrix* out) {
  const StoredTensor* tensor = nullptr;
  PREMOTOR_TRY(fetch(name, stored_shape, &tensor));
  assert(tensor->elements() == rows * cols);
  const ops::Dtype dtype = target(*tensor);
  *out = {tensor->data, dtype, rows, cols};
  const bool same = same_type(tensor->dtype, dtype);
  if (same && is_aligned(tensor->data, ops::bytes_of(dtype))) {
    weight_bytes_ += static_cast<std::int64_t>(tensor->size_bytes);
    return Status::good();
  }
  std::byte* copy = nullptr;
  PREMOTOR_TRY(allocate(*tensor, rows * cols, dtype, &copy));
  if (same) {
    if (tensor->size_bytes != 0) std::memcpy(copy, tensor->data, tensor->size_bytes);
  } else {
    for (std::int64_t i = 0; i < rows * cols; ++i) store(copy, dtype, i, load(tensor->data, tensor->dtype, i));
  }
  store_->release_pages(*tensor);
  out->data = copy;
  return Status::good();
}

Status WeightReader::floats(const std::string& name, const std::vector<std::int64_t>& shape, std::vector<float>* out) {
  if (plan_ != nullptr) return floats_of_plan(name, shape, out);
  if (sketch_ != nullptr) {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    out->assign(static_cast<std::size_t>(count), 0.0f);
    return Status::good();
  }
  const StoredTensor* tensor = nullptr;
  PREMOTOR_TRY(fetch(name, shape, &tensor));
  const std::int64_t count = tensor->elements();
  try {
    out->resize(static_cast<std::size_t>(count));
  } catch (const std::bad_alloc&) {
    return checkpoint_error("OUT_OF_MEMORY", store_->file_of(*tensor), name,
                            std::to_string(count * 4) + " bytes of memory", "too little free memory", "Free memory.");
  }
  converted_bytes_ += count * 4;
  weight_bytes_ += count * 4;
  const bool rounded = target(*tensor) == ops::Dtype::bf16;
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = load(tensor->data, tensor->dtype, i);
    (*out)[static_cast<std::size_t>(i)] = rounded ? round_to_bf16(value) : value;
  }
  store_->release_pages(*tensor);
  return recorder_ == nullptr ? Status::good() : recorder_->add_floats(part_ + "/" + name, *out);
}

Status WeightReader::floats_of_plan(const std::string& name, const std::vector<std::int64_t>& shape,
                                    std::vector<float>* out) {
  const PlanTensor* tensor = plan_->contents().find(part_ + "/" + name);
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  if (tensor == nullptr || tensor->kind != PlanKind::floats || tensor->rows != count) {
    Status status = plan_error("PLAN_TENSOR", plan_->path(), std::to_string(count) + " values of " + part_ + "/" + name,
                               tensor == nullptr ? "none" : std::to_string(tensor->rows) + " or a matrix",
                               "Build the plan again with this version of premotor.");
    status.tensor = name;
    return status;
  }
  out->resize(static_cast<std::size_t>(count));
  if (count > 0) std::memcpy(out->data(), tensor->data, tensor->bytes);
  return Status::good();
}

Status WeightReader::stacked(std::span<const std::string> names, std::int64_t rows_each, std::int64_t cols,
                             StackedMatrix* out) {
  if (plan_ != nullptr) return adopt_stacked(names, rows_each, cols, out);
  const ops::WeightFormat format = format_of(precision_);
  if (sketch_ != nullptr) {
    list(joined(names), rows_each * std::ssize(names), cols, format, &out->whole);
    return Status::good();
  }
  const bool is_quantised = format != ops::WeightFormat::stored;
  const std::size_t first_buffer = buffers_.size();
  const std::int64_t converted_bytes = converted_bytes_, weight_bytes = weight_bytes_;
  out->parts.resize(names.size());
  for (std::size_t i = 0; i < names.size(); ++i)
    PREMOTOR_TRY(read_matrix(names[i], rows_each, cols, {rows_each, cols}, &out->parts[i]));
  // Without a backend's form, and for a mixture of element types, they stay apart: stacking alone is no reason for a
  // copy of what a map holds.
  const ops::Dtype dtype = out->parts.front().dtype;
  const bool alike =
      std::all_of(out->parts.begin(), out->parts.end(), [&](const ops::Matrix& part) { return part.dtype == dtype; });
  if ((preparer_ == nullptr && !is_quantised) || !alike) {
    for (std::size_t i = 0; i < names.size(); ++i) PREMOTOR_TRY(deliver(names[i], format, &out->parts[i]));
    let_go(names);
    return Status::good();
  }
  const std::int64_t rows = rows_each * std::ssize(names), part_bytes = rows_each * cols * ops::bytes_of(dtype);
  std::byte* copy = nullptr;
  PREMOTOR_TRY(allocate(*store_->find(names.front()), rows * cols, dtype, &copy));
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::memcpy(copy + static_cast<std::int64_t>(i) * part_bytes, out->parts[i].data,
                static_cast<std::size_t>(part_bytes));
    store_->release_pages(*store_->find(names[i]));
  }
  out->parts.clear();
  out->whole = {copy, dtype, rows, cols};
  std::int64_t kept = 0;
  PREMOTOR_TRY(deliver(joined(names), format, &out->whole, &kept));
  if (!is_quantised) {
    // In place of the parts and of what they were converted into.
    buffers_.erase(buffers_.begin() + static_cast<std::ptrdiff_t>(first_buffer), buffers_.end() - 1);
    converted_bytes_ = converted_bytes + rows * cols * ops::bytes_of(dtype);
    weight_bytes_ = weight_bytes + rows * cols * ops::bytes_of(dtype);
    let_go(names);
    return Status::good();
  }
  if (kept == 0) return no_memory_for_quantised(names.front());
  buffers_.resize(first_buffer);
  out->whole.data = nullptr;
  converted_bytes_ = converted_bytes;
  weight_bytes_ = weight_bytes + kept;
  return Status::good();
}

Status WeightReader::no_memory_for_quantised(const std::string& name) const {
  return checkpoint_error("OUT_OF_MEMORY", store_->file_of(*store_->find(name)), name,
                          "memory for the quantised weight", "too little free memory",
                          "Free memory, or run a smaller checkpoint.");
}

Status WeightReader::convolution(const std::string& name, const std::vector<std::int64_t>& shape, ops::Matrix* out,
                                 std::int64_t parts) {
  assert(parts >= 1 && shape[0] % parts == 0);
  const std::int64_t rows = shape[0] / parts;
  const auto key = [&](std::int64_t part) { return parts == 1 ? name : name + "[" + std::to_string(part) + "]"; };
  if (plan_ != nullptr || sketch_ != nullptr) {
    std::int64_t cols = 1;
    for (std::size_t i = 1; i < shape.size(); ++i) cols *= shape[i];
    for (std::int64_t i = 0; i < parts; ++i) {
      if (sketch_ != nullptr)
        list(key(i), rows, cols, ops::WeightFormat::stored, &out[i]);
      else
        PREMOTOR_TRY(adopt(key(i), rows, cols, &out[i]));
    }
    return Status::good();
  }
  ops::Matrix whole;
  PREMOTOR_TRY(read_convolution(name, shape, &whole));
  for (std::int64_t i = 0; i < parts; ++i) {
    out[i] = {static_cast<const std::byte*>(whole.data) + i * rows * whole.cols * ops::bytes_of(whole.dtype),
              whole.dtype, rows, whole.cols};
    PREMOTOR_TRY(deliver(key(i), ops::WeightFormat::stored, &out[i]));
  }
  let_go({&name, 1});
  return Status::good();
}

Status WeightReader::read_convolution(const std::string& name, const std::vector<std::int64_t>& shape,
                                      ops::Matrix* out) {
  assert(shape.size() == 4 || shape.size() == 5);
  const std::int64_t rows = shape[0];
  const std::int64_t inputs = shape[1];
  std::int64_t taps = 1;  // kt * kh * kw
  for (std::size_t i = 2; i < shape.size(); ++i) taps *= shape[i];
  // With one tap per channel both layouts are the same matrix.
  if (taps == 1) return read_matrix(name, rows, inputs, shape, out);
  const StoredTensor* tensor = nullptr;
  PREMOTOR_TRY(fetch(name, shape, &tensor));
  const ops::Dtype dtype = target(*tensor);
  std::byte* copy = nullptr;
  PREMOTOR_TRY(allocate(*tensor, tensor->elements(), dtype, &copy));
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t input = 0; input < inputs; ++input) {
      const std::int64_t from = (row * inputs + input) * taps;
      const std::int64_t to = row * taps * inputs + input;
      for (std::int64_t tap = 0; tap < taps; ++tap)
        store(copy, dtype, to + tap * inputs, load(tensor->data, tensor->dtype, from + tap));
    }
  }
  store_->release_pages(*tensor);
  *out = {copy, dtype, rows, taps * inputs};
  return Status::good();
}

std::vector<std::string> WeightReader::unread() const {
  std::vector<std::string> asked = read_;
  std::sort(asked.begin(), asked.end());
  std::vector<std::string> names;
  for (const StoredTensor& tensor : store_->tensors()) {
    if (!std::binary_search(asked.begin(), asked.end(), tensor.name)) names.push_back(tensor.name);
  }
  return names;
}

}  // namespace premotor::engine
