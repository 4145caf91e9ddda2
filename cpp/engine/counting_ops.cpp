// How much arithmetic and how many bytes every operation takes. See counting_ops.h.
#include "engine/counting_ops.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace premotor::engine {

namespace {

constexpr double kFloatBytes = 4;
constexpr double kNormFlops = 8, kRmsFlops = 4, kRopeFlops = 3;  // for each value

double product(std::int64_t a, std::int64_t b, std::int64_t c = 1) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
}

// "blocks.12.attn1" -> "blocks.*.attn1". The autoencoder's blocks differ and keep their numbers.
std::string without_layer(std::string name) {
  const std::size_t at = name.find("blocks.");
  if (at != 0 && !name.starts_with("action_blocks.")) return name;
  const std::size_t first = at + 7, last = name.find('.', first);
  return last == std::string::npos ? name : name.replace(first, last - first, "*");
}

// What a plan's key is called: without its part and layer; of stacked matrices "attn1.to_q+to_k+to_v.weight".
std::string name_of_key(const std::string& key) {
  const std::string names = key.substr(key.find('/') + 1);
  std::size_t at = names.find('+');
  const std::string first = without_layer(names.substr(0, at));
  const std::size_t end = first.rfind('.');
  if (at == std::string::npos || end == std::string::npos) return first;
  std::string shown = first.substr(0, end);
  while (at != std::string::npos) {
    const std::size_t next = names.find('+', at + 1);
    std::string other = names.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    other.resize(std::min(other.rfind('.'), other.size()));
    shown += "+" + other.substr(other.rfind('.') + 1);
    at = next;
  }
  return shown + first.substr(end);
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

// Keys and values of so many tokens in a cache.
double cached_bytes(ops::Dtype dtype, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim) {
  const double scales = dtype == ops::Dtype::int8 ? kFloatBytes * product(tokens, heads) : 0;
  return 2 * (product(tokens, heads, head_dim) * static_cast<double>(ops::bytes_of(dtype)) + scales);
}

// Scores and sums of values, two operations each per entry and value; about five more for every weight of the softmax.
PassStep attending(std::int64_t rows, std::int64_t entries, std::int64_t heads, std::int64_t head_dim,
                   ops::Dtype dtype) {
  PassStep step;
  step.op = "attention";
  step.rows = rows;
  step.outputs = entries;
  step.inputs = heads * head_dim;
  step.flops = product(rows, entries) * (4 * product(heads, head_dim) + 5 * static_cast<double>(heads));
  step.cache_bytes = cached_bytes(dtype, entries, heads, head_dim);
  step.activation_bytes = 2 * kFloatBytes * product(rows, heads, head_dim);
  return step;
}

void append(std::string* list, ops::Activation act) {
  if (act != ops::Activation::none) append(list, act == ops::Activation::silu ? "silu" : "gelu_tanh");
}

void append(std::string* list, const ops::Ops::Norm& norm) {
  if (norm.weight != nullptr) append(list, "affine");
  if (norm.scale != nullptr) append(list, "modulation");
}

}  // namespace

void CountingOps::learn(const PlanContents& plan) {
  for (const PlanTensor& tensor : plan.tensors)
    if (tensor.kind != PlanKind::floats) tensors_.emplace(tensor.data, &tensor);
}

// Everything that it counts comes from a plan.
std::int64_t CountingOps::prepare(ops::Matrix*, ops::Rounding, ops::WeightFormat) { return 0; }
bool CountingOps::prepared_form(const ops::Matrix&, ops::Rounding, ops::WeightFormat, PreparedForm*) const {
  return false;
}
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
  step.weight = name_of_key(tensor.key);
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
  append(&step.fused, act);
  steps_.push_back(std::move(step));
}

// What goes with a product hides behind its weights: it is named, and not counted.
void CountingOps::fused_linear(const FusedLinear& args) {
  const std::int64_t n = args.w->rows, k = args.w->cols;
  PassStep step = about("linear", *args.w);
  step.rows = args.m;
  step.flops = 2 * product(args.m, n, k);
  step.activation_bytes = kFloatBytes * (product(args.m, n) + product(args.m, k));
  if (args.norm != nullptr) {
    append(&step.fused, "layer_norm");
    append(&step.fused, *args.norm);
  }
  if (args.bias != nullptr) append(&step.fused, "bias");
  append(&step.fused, args.act);
  if (args.is_residual) {
    if (args.gate != nullptr) append(&step.fused, "gate");
    append(&step.fused, "residual");
    step.activation_bytes += kFloatBytes * product(args.m, n);
  }
  steps_.push_back(std::move(step));
}

void CountingOps::layer_norm(const LayerNorm& args) {
  PassStep step = elementwise("layer_norm", args.rows, args.dim, kNormFlops, 2);
  append(&step.fused, args.norm);
  steps_.push_back(std::move(step));
}

void CountingOps::rms_norm(float*, std::int64_t rows, std::int64_t dim, std::int64_t, float, const float*,
                           ops::Rounding) {
  steps_.push_back(elementwise("rms_norm", rows, dim, kRmsFlops, 2));
}

void CountingOps::rope(float*, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t, const float*,
                       const float*, ops::Rounding) {
  steps_.push_back(elementwise("rope", rows, heads * head_dim, kRopeFlops, 2));
}

void CountingOps::cache_heads(const HeadRows& args) {
  const std::int64_t width = args.heads * args.head_dim;
  const double turned = kRmsFlops + (args.cos == nullptr ? 0 : kRopeFlops), vectors = args.q == nullptr ? 1 : 2;
  // q is read and written, k and v are read.
  PassStep step = elementwise("cache_heads", args.rows, width, vectors * turned, args.q == nullptr ? 2 : 4);
  step.cache_bytes = cached_bytes(args.dtype, args.rows, args.heads, args.head_dim);
  append(&step.fused, "rms_norm");
  if (args.cos != nullptr) append(&step.fused, "rope");
  append(&step.fused, "store_kv");
  steps_.push_back(std::move(step));
}

void CountingOps::store_kv(const StoreKv& args) {
  PassStep step = elementwise("store_kv", args.count, args.heads * args.head_dim, 0, 2);
  step.cache_bytes = cached_bytes(args.dtype, args.count, args.heads, args.head_dim);
  steps_.push_back(std::move(step));
}

void CountingOps::cached_attention(const CachedAttention& args) {
  std::int64_t entries = args.kv.count;
  if (args.kv.attended != nullptr) {
    entries = 0;
    for (std::int64_t word = 0; word < args.kv.rows / 32; ++word) entries += std::popcount(args.kv.attended[word]);
  }
  PassStep step = attending(args.rows, entries, args.heads, args.head_dim, args.kv.dtype);
  // A backend may round queries and weights over such a cache.
  step.product = args.kv.dtype == ops::Dtype::f32 ? "f32" : "bf16_dot";
  steps_.push_back(std::move(step));
}

void CountingOps::attention(const float*, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, std::int64_t,
                            const ops::KeyValueView& kv, float, ops::Rounding, float*, std::int64_t) {
  PassStep step = attending(rows, kv.count, heads, head_dim, kv.dtype);
  step.product = "f32";
  // Dense keys and values are activations.
  step.activation_bytes += std::exchange(step.cache_bytes, 0);
  steps_.push_back(std::move(step));
}

void CountingOps::add_gated(float*, const float*, std::int64_t rows, std::int64_t dim, const float* gate, std::int64_t,
                            const std::int32_t*, ops::Rounding) {
  PassStep step = elementwise("add_gated", rows, dim, gate == nullptr ? 1 : 2, 3);
  if (gate != nullptr) append(&step.fused, "gate");
  steps_.push_back(std::move(step));
}

void CountingOps::normalise_channels(const float*, std::int64_t rows, std::int64_t channels, const float*, bool is_silu,
                                     ops::Rounding, float*) {
  PassStep step = elementwise("normalise_channels", rows, channels, is_silu ? 8 : kRmsFlops, 2);
  if (is_silu) append(&step.fused, "silu");
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
