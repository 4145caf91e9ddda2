// How much arithmetic and how many bytes every operation takes. See counting_ops.h.
#include "engine/counting_ops.h"

#include <utility>

namespace premotor::engine {

namespace {

constexpr double kFloatBytes = 4;

double product(std::int64_t a, std::int64_t b, std::int64_t c = 1) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
}

// "blocks.12.attn1" -> "blocks.*.attn1", without the plan's part.
std::string without_layer(const std::string& key) {
  std::string name = key.substr(key.find('/') + 1);
  const std::size_t at = name.find("blocks.");
  if (at == std::string::npos) return name;
  const std::size_t first = at + 7, last = name.find('.', first);
  return last == std::string::npos ? name : name.replace(first, last - first, "*");
}

void append(std::string* list, const char* word) { *list += (list->empty() ? "" : ", ") + std::string(word); }

// A step over values in memory: so many operations each, read and written so many times.
PassStep elementwise(const char* op, std::int64_t rows, std::int64_t dim, double flops_each, double passes) {
  PassStep step;
  step.op = op;
  step.product = "f32";
  step.rows = rows;
  step.outputs = dim;
  step.flops = flops_each * product(rows, dim);
  step.activation_bytes = passes * kFloatBytes * product(rows, dim);
  return step;
}

}  // namespace

CountingOps::CountingOps(const PlanContents& plan) {
  for (const PlanTensor& tensor : plan.tensors)
    if (tensor.kind != PlanKind::floats) tensors_.emplace(tensor.data, &tensor);
}

// Everything that it counts comes from a plan.
void CountingOps::prepare(ops::Matrix*, ops::Rounding) {}
bool CountingOps::prepared_form(const ops::Matrix&, ops::Rounding, PreparedForm*) const { return false; }
void CountingOps::write_prepared(const ops::Matrix&, const PreparedForm&, void*) {}

bool CountingOps::adopt(ops::Matrix* w, const PreparedForm&, const void* bytes) {
  w->prepared = bytes;
  return true;
}

PassStep CountingOps::about(const char* op, const ops::Matrix& w) const {
  PassStep step;
  step.op = op;
  step.product = "f32";
  step.outputs = w.rows;
  step.inputs = w.cols;
  step.weight_bytes = product(w.rows, w.cols) * static_cast<double>(ops::bytes_of(w.dtype));
  const auto found = tensors_.find(w.prepared != nullptr ? w.prepared : w.data);
  if (found == tensors_.end()) return step;
  const PlanTensor& tensor = *found->second;
  step.weight = without_layer(tensor.key);
  if (tensor.kind != PlanKind::prepared) return step;
  step.product = tensor.product;
  step.weight_bytes = static_cast<double>(tensor.bytes);
  return step;
}

void CountingOps::linear(const float*, std::int64_t m, std::int64_t, const ops::Matrix& w, const float* bias,
                         ops::Activation act, ops::Rounding, float*, std::int64_t) {
  PassStep step = about("linear", w);
  step.rows = m;
  step.flops = 2 * product(m, w.rows, w.cols);
  step.activation_bytes = kFloatBytes * (product(m, w.rows) + product(m, w.cols));
  if (bias != nullptr) append(&step.fused, "bias");
  if (act != ops::Activation::none) append(&step.fused, act == ops::Activation::silu ? "silu" : "gelu_tanh");
  steps_.push_back(std::move(step));
}

void CountingOps::layer_norm(const LayerNorm& args) {
  PassStep step = elementwise("layer_norm", args.rows, args.dim, 8, 2);
  if (args.weight != nullptr) append(&step.fused, "affine");
  if (args.scale != nullptr) append(&step.fused, "modulation");
  steps_.push_back(std::move(step));
}

void CountingOps::rms_norm(float*, std::int64_t rows, std::int64_t dim, std::int64_t, float, const float*,
                           ops::Rounding) {
  steps_.push_back(elementwise("rms_norm", rows, dim, 4, 2));
}

void CountingOps::rope(float*, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t, const float*,
                       const float*, ops::Rounding) {
  steps_.push_back(elementwise("rope", rows, heads * head_dim, 3, 2));
}

void CountingOps::store_kv(const float*, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t,
                           void*, ops::Dtype dtype, std::int64_t, const std::int32_t*) {
  PassStep step = elementwise("store_kv", rows, heads * head_dim, 0, 1);
  step.cache_bytes = product(rows, heads, head_dim) * static_cast<double>(ops::bytes_of(dtype));
  steps_.push_back(std::move(step));
}

// Scores and sums of values, two operations each per entry and value; about five more for every weight of the softmax.
void CountingOps::attention(const float*, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t,
                            const ops::KeyValueView& kv, float, ops::Rounding, float*, std::int64_t) {
  PassStep step;
  step.op = "attention";
  step.product = "f32";
  step.rows = rows;
  step.outputs = kv.count;
  step.inputs = heads * head_dim;
  step.flops = product(rows, kv.count) * (4 * product(heads, head_dim) + 5 * static_cast<double>(heads));
  step.cache_bytes = 2 * product(kv.count, heads, head_dim) * static_cast<double>(ops::bytes_of(kv.dtype));
  step.activation_bytes = 2 * kFloatBytes * product(rows, heads, head_dim);
  steps_.push_back(std::move(step));
}

void CountingOps::add_gated(float*, const float*, std::int64_t rows, std::int64_t dim, const float* gate, std::int64_t,
                            const std::int32_t*, ops::Rounding) {
  PassStep step = elementwise("add_gated", rows, dim, gate == nullptr ? 1 : 2, 3);
  if (gate != nullptr) append(&step.fused, "gate");
  steps_.push_back(std::move(step));
}

void CountingOps::conv3d(const ops::Conv3d& args, ops::Rounding) {
  PassStep step = about("conv3d", args.weight);
  step.rows = args.frames_out * args.height_out * args.width_out;
  step.flops = 2 * product(step.rows, args.weight.rows, args.weight.cols);
  step.activation_bytes =
      kFloatBytes * (product(args.frames_in, args.height_in, args.width_in) * static_cast<double>(args.channels_in) +
                     product(step.rows, args.weight.rows));
  if (args.bias != nullptr) append(&step.fused, "bias");
  steps_.push_back(std::move(step));
}

}  // namespace premotor::engine
