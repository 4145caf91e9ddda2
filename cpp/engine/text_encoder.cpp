// The UMT5 encoder (docs/TEXT.md): RMS norm, attention with a relative position bias in every layer and no scale, gated
// GELU in its tanh form, no biases. Weights come from the map one matrix at a time and their pages go back right after
// use, so that what is resident is one matrix and the activations, never the encoder.
//
// With Rounding::bf16 every value that the reference's bfloat16 modules would store is rounded where they would store
// it; sums inside an operation stay float32.
#include "engine/text_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <utility>

#include "base/half.h"
#include "base/thread_pool.h"
#include "engine/expected.h"
#include "engine/safetensors.h"

namespace premotor::engine {

namespace {

// Rows of a sequence handed to a thread at once.
constexpr std::int64_t row_grain = 4;

std::string layer_prefix(std::int64_t layer) { return "encoder.block." + std::to_string(layer) + ".layer."; }

float rounded(float value, bool to_bf16) { return to_bf16 ? round_to_bf16(value) : value; }

// y = x / sqrt(mean(x^2) + eps) * weight for one row; y may be x. The reference rounds before the weight and after it.
void norm_row(const float* x, const float* weight, std::int64_t dim, float eps, bool bf16, float* y) {
  double squares = 0;
  for (std::int64_t c = 0; c < dim; ++c) squares += static_cast<double>(x[c]) * x[c];
  const float inverse = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(dim)) + eps);
  for (std::int64_t c = 0; c < dim; ++c) y[c] = rounded(rounded(x[c] * inverse, bf16) * weight[c], bf16);
}

// The tanh form of GELU, rounded after each of the elementwise operations that the reference's formula consists of.
float gelu_new_bf16(float x) {
  const float cube = round_to_bf16(round_to_bf16(x * x) * x);
  const float inner = round_to_bf16(x + round_to_bf16(0.044715f * cube));
  const float tanh = round_to_bf16(std::tanh(round_to_bf16(0.7978845608f * inner)));
  return round_to_bf16(round_to_bf16(0.5f * x) * round_to_bf16(1.0f + tanh));
}

// In place: s [count] -> exp(s - max(s)), rounded; returns the sum before rounding.
float exponentials(float* s, std::int64_t count, bool bf16) {
  const float max = *std::max_element(s, s + count);
  float sum = 0;
  for (std::int64_t j = 0; j < count; ++j) {
    const float e = std::exp(s[j] - max);
    sum += e;
    s[j] = rounded(e, bf16);
  }
  return sum;
}

// One head of self-attention over `count` rows of width ld. `bias` [2 * count - 1] belongs to the distances -(count -
// 1) .. count - 1; `scratch` holds (head_dim + 1) * count floats.
void attend_head(const float* q, const float* k, const float* v, std::int64_t count, std::int64_t head_dim,
                 std::int64_t ld, const float* bias, bool bf16, float* scratch, float* y) {
  float* transposed = scratch;                 // [head_dim, count]: the inner loops below run along memory
  float* scores = scratch + head_dim * count;  // [count]
  for (std::int64_t d = 0; d < head_dim; ++d) {
    for (std::int64_t j = 0; j < count; ++j) transposed[d * count + j] = k[j * ld + d];
  }
  for (std::int64_t i = 0; i < count; ++i) {
    std::fill_n(scores, count, 0.0f);
    for (std::int64_t d = 0; d < head_dim; ++d) {
      const float factor = q[i * ld + d];
      const float* row = transposed + d * count;
      for (std::int64_t j = 0; j < count; ++j) scores[j] += factor * row[j];
    }
    const float* row_bias = bias + (count - 1 - i);
    for (std::int64_t j = 0; j < count; ++j) scores[j] += row_bias[j];
    const float inverse = 1.0f / exponentials(scores, count, bf16);
    float* out = y + i * ld;
    std::fill_n(out, head_dim, 0.0f);
    for (std::int64_t j = 0; j < count; ++j) {
      const float weight = scores[j];
      const float* row = v + j * ld;
      for (std::int64_t d = 0; d < head_dim; ++d) out[d] += weight * row[d];
    }
    for (std::int64_t d = 0; d < head_dim; ++d) out[d] = rounded(out[d] * inverse, bf16);
  }
}

// A row of a stored float tensor as float32. memcpy, because the map promises no alignment.
void load_row(const StoredTensor& tensor, std::int64_t row, std::int64_t width, bool bf16, float* out) {
  const std::int64_t item = bytes_of(tensor.dtype);
  const std::byte* data = tensor.data + row * width * item;
  for (std::int64_t c = 0; c < width; ++c) {
    float value = 0;
    if (tensor.dtype == StoredDtype::f32) {
      std::memcpy(&value, data + c * item, 4);
    } else {
      std::uint16_t bits = 0;
      std::memcpy(&bits, data + c * item, 2);
      value = tensor.dtype == StoredDtype::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
    }
    out[c] = rounded(value, bf16);
  }
}

// What one call of encode works on; all [count, ...] float32.
struct Activations {
  explicit Activations(const TextEncoderConfig& c, std::int64_t rows) : count(rows) {
    const auto n = static_cast<std::size_t>(rows);
    const auto inner = static_cast<std::size_t>(c.num_heads * c.d_kv);
    hidden.resize(n * static_cast<std::size_t>(c.d_model));
    normed.resize(hidden.size());
    q.resize(n * inner);
    k.resize(n * inner);
    v.resize(n * inner);
    context.resize(n * inner);
    gate.resize(n * static_cast<std::size_t>(c.d_ff));
    linear.resize(gate.size());
    bias.resize(static_cast<std::size_t>(c.num_heads) * (2 * n - 1));
    scratch.resize(static_cast<std::size_t>(c.num_heads * (c.d_kv + 1)) * n);
  }

  std::int64_t count;
  std::vector<float> hidden, normed;    // [count, d_model]
  std::vector<float> q, k, v, context;  // [count, head, d_kv]
  std::vector<float> gate, linear;      // [count, d_ff]
  std::vector<float> bias;              // [head, 2 * count - 1]
  std::vector<float> scratch;           // [head, (d_kv + 1) * count]
};

Status invalid_ids(const std::string& expected, const std::string& found) {
  Status status = Status::error("TEXT_INVALID", "The text encoder takes " + expected + ", found " + found +
                                                    ". Use the tokenizer that belongs to this text encoder.");
  status.expected = expected;
  status.found = found;
  return status;
}

}  // namespace

std::int64_t relative_position_bucket(std::int64_t distance, std::int64_t buckets, std::int64_t max_distance) {
  const std::int64_t half = buckets / 2;
  const std::int64_t exact = half / 2;
  const std::int64_t ahead = distance > 0 ? half : 0;
  const std::int64_t length = std::abs(distance);
  if (length < exact) return ahead + length;
  // float32 and this order of operations, because the reference's rounding decides at the edges of the buckets.
  const float ratio = std::log(static_cast<float>(length) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  const auto steps = static_cast<std::int64_t>(ratio * static_cast<float>(half - exact));
  return ahead + std::min(exact + steps, half - 1);
}

struct TextEncoder::Impl {
  Impl(WeightPrecision weight_precision, ops::Rounding act_rounding, ops::Ops& backend)
      : precision(weight_precision), rounding(act_rounding), ops(backend) {}

  Status check_tensors();
  void embed(const std::vector<std::int32_t>& ids, Activations* a) const;
  Status norm(const std::string& name, const std::vector<float>& x, std::int64_t rows, std::vector<float>* y) const;
  Status linear(const std::string& name, const std::vector<float>& x, std::int64_t rows, std::int64_t inputs,
                std::int64_t outputs, std::vector<float>* y) const;
  Status position_bias(const std::string& name, std::int64_t count, std::vector<float>* bias) const;
  void attend(Activations* a) const;
  void add(const std::vector<float>& x, std::vector<float>* y) const;
  Status attention_layer(const std::string& prefix, Activations* a) const;
  Status feed_forward_layer(const std::string& prefix, Activations* a) const;
  Status run(const std::vector<std::int32_t>& ids, std::vector<float>* out, const std::atomic<bool>* cancel,
             std::vector<std::vector<float>>* layers) const;

  [[nodiscard]] bool rounds() const { return rounding == ops::Rounding::bf16; }

  TextEncoderConfig config;
  WeightPrecision precision;
  ops::Rounding rounding;
  ops::Ops& ops;
  TensorStore store;
  const StoredTensor* embedding = nullptr;  // [vocab, d_model], in the map
  std::vector<std::string> unread;
};

Status TextEncoder::Impl::check_tensors() {
  // Both names exist in the wild: transformers writes the tied table under the first and accepts the second.
  const std::string tied = "shared.weight";
  const std::string own = "encoder.embed_tokens.weight";
  const std::string& table = store.find(tied) == nullptr && store.find(own) != nullptr ? own : tied;
  WeightReader reader(store, precision);
  for (const ExpectedTensor& tensor : expected_text_encoder(config)) {
    if (!tensor.vestigial) PREMOTOR_TRY(reader.check(tensor.name == tied ? table : tensor.name, tensor.shape));
  }
  embedding = store.find(table);
  unread = reader.unread();
  return Status::good();
}

void TextEncoder::Impl::embed(const std::vector<std::int32_t>& ids, Activations* a) const {
  const bool bf16 = precision == WeightPrecision::bf16 || rounds();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    load_row(*embedding, ids[i], config.d_model, bf16,
             a->hidden.data() + static_cast<std::int64_t>(i) * config.d_model);
  }
  store.release_pages(*embedding);
}

Status TextEncoder::Impl::norm(const std::string& name, const std::vector<float>& x, std::int64_t rows,
                               std::vector<float>* y) const {
  std::vector<float> weight;
  PREMOTOR_TRY(WeightReader(store, precision).floats(name, {config.d_model}, &weight));
  const std::int64_t dim = config.d_model;
  ops.pool().parallel_for(rows, row_grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      norm_row(x.data() + r * dim, weight.data(), dim, config.layer_norm_epsilon, rounds(), y->data() + r * dim);
    }
  });
  return Status::good();
}

Status TextEncoder::Impl::linear(const std::string& name, const std::vector<float>& x, std::int64_t rows,
                                 std::int64_t inputs, std::int64_t outputs, std::vector<float>* y) const {
  // The reader owns a converted copy, if one is needed, until the end of this function.
  WeightReader reader(store, precision);
  ops::Matrix weight;
  PREMOTOR_TRY(reader.matrix(name, outputs, inputs, &weight));
  ops.linear(x.data(), rows, inputs, weight, nullptr, ops::Activation::none, rounding, y->data(), outputs);
  store.release_pages(*store.find(name));
  return Status::good();
}

Status TextEncoder::Impl::position_bias(const std::string& name, std::int64_t count, std::vector<float>* bias) const {
  const std::int64_t buckets = config.relative_attention_num_buckets;
  std::vector<float> table;  // [bucket, head]
  PREMOTOR_TRY(WeightReader(store, precision).floats(name, {buckets, config.num_heads}, &table));
  for (std::int64_t distance = 1 - count; distance < count; ++distance) {
    const std::int64_t bucket = relative_position_bucket(distance, buckets, config.relative_attention_max_distance);
    for (std::int64_t head = 0; head < config.num_heads; ++head) {
      (*bias)[static_cast<std::size_t>(head * (2 * count - 1) + distance + count - 1)] =
          table[static_cast<std::size_t>(bucket * config.num_heads + head)];
    }
  }
  return Status::good();
}

void TextEncoder::Impl::attend(Activations* a) const {
  const std::int64_t head_dim = config.d_kv;
  const std::int64_t ld = config.num_heads * head_dim;
  ops.pool().parallel_for(config.num_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t head = begin; head < end; ++head) {
      const std::int64_t column = head * head_dim;
      attend_head(a->q.data() + column, a->k.data() + column, a->v.data() + column, a->count, head_dim, ld,
                  a->bias.data() + head * (2 * a->count - 1), rounds(),
                  a->scratch.data() + head * (head_dim + 1) * a->count, a->context.data() + column);
    }
  });
}

// y += x, rounded: the residual.
void TextEncoder::Impl::add(const std::vector<float>& x, std::vector<float>* y) const {
  for (std::size_t i = 0; i < x.size(); ++i) (*y)[i] = rounded((*y)[i] + x[i], rounds());
}

Status TextEncoder::Impl::attention_layer(const std::string& prefix, Activations* a) const {
  const std::int64_t inner = config.num_heads * config.d_kv;
  const std::string self = prefix + "SelfAttention.";
  PREMOTOR_TRY(norm(prefix + "layer_norm.weight", a->hidden, a->count, &a->normed));
  PREMOTOR_TRY(linear(self + "q.weight", a->normed, a->count, config.d_model, inner, &a->q));
  PREMOTOR_TRY(linear(self + "k.weight", a->normed, a->count, config.d_model, inner, &a->k));
  PREMOTOR_TRY(linear(self + "v.weight", a->normed, a->count, config.d_model, inner, &a->v));
  PREMOTOR_TRY(position_bias(self + "relative_attention_bias.weight", a->count, &a->bias));
  attend(a);
  PREMOTOR_TRY(linear(self + "o.weight", a->context, a->count, inner, config.d_model, &a->normed));
  add(a->normed, &a->hidden);
  return Status::good();
}

Status TextEncoder::Impl::feed_forward_layer(const std::string& prefix, Activations* a) const {
  const std::string dense = prefix + "DenseReluDense.";
  PREMOTOR_TRY(norm(prefix + "layer_norm.weight", a->hidden, a->count, &a->normed));
  PREMOTOR_TRY(linear(dense + "wi_0.weight", a->normed, a->count, config.d_model, config.d_ff, &a->gate));
  PREMOTOR_TRY(linear(dense + "wi_1.weight", a->normed, a->count, config.d_model, config.d_ff, &a->linear));
  const bool bf16 = rounds();
  ops.pool().parallel_for(a->count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * config.d_ff; i < end * config.d_ff; ++i) {
      const float x = a->gate[static_cast<std::size_t>(i)];
      const float gelu =
          bf16 ? gelu_new_bf16(x) : 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
      a->gate[static_cast<std::size_t>(i)] = rounded(gelu * a->linear[static_cast<std::size_t>(i)], bf16);
    }
  });
  PREMOTOR_TRY(linear(dense + "wo.weight", a->gate, a->count, config.d_ff, config.d_model, &a->normed));
  add(a->normed, &a->hidden);
  return Status::good();
}

Status TextEncoder::Impl::run(const std::vector<std::int32_t>& ids, std::vector<float>* out,
                              const std::atomic<bool>* cancel, std::vector<std::vector<float>>* layers) const {
  Activations a(config, static_cast<std::int64_t>(ids.size()));
  embed(ids, &a);
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (cancel != nullptr && cancel->load()) return Status::error("ABORTED", "The text encoder was asked to stop.");
    if (layers != nullptr) layers->push_back(a.hidden);
    PREMOTOR_TRY(attention_layer(layer_prefix(layer) + "0.", &a));
    PREMOTOR_TRY(feed_forward_layer(layer_prefix(layer) + "1.", &a));
  }
  PREMOTOR_TRY(norm("encoder.final_layer_norm.weight", a.hidden, a.count, &a.hidden));
  if (layers != nullptr) layers->push_back(a.hidden);
  *out = std::move(a.hidden);
  return Status::good();
}

TextEncoder::TextEncoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TextEncoder::~TextEncoder() = default;

const TextEncoderConfig& TextEncoder::config() const { return impl_->config; }
const std::vector<std::string>& TextEncoder::unread() const { return impl_->unread; }

Status TextEncoder::open(const std::string& folder, WeightPrecision precision, ops::Rounding rounding, ops::Ops& ops,
                         std::unique_ptr<TextEncoder>* out) {
  auto impl = std::make_unique<Impl>(precision, rounding, ops);
  PREMOTOR_TRY(read_text_encoder_config(folder, &impl->config));
  PREMOTOR_TRY(TensorStore::open_folder(folder, transformers_stems, &impl->store));
  PREMOTOR_TRY(impl->check_tensors());
  out->reset(new TextEncoder(std::move(impl)));
  return Status::good();
}

Status TextEncoder::encode(const std::vector<std::int32_t>& ids, std::vector<float>* hidden,
                           const std::atomic<bool>* cancel, std::vector<std::vector<float>>* layers) const {
  const auto count = static_cast<std::int64_t>(ids.size());
  if (count < 1 || count > text_tokens_max) {
    return invalid_ids("1 to " + std::to_string(text_tokens_max) + " token ids", std::to_string(count));
  }
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= impl_->config.vocab_size) {
      return invalid_ids("token ids below " + std::to_string(impl_->config.vocab_size), std::to_string(id));
    }
  }
  try {
    return impl_->run(ids, hidden, cancel, layers);
  } catch (const std::bad_alloc&) {
    return Status::error("OUT_OF_MEMORY", "The text encoder needs more memory for " + std::to_string(count) +
                                              " tokens than there is. Free memory, or precompute the prompt with " +
                                              "\"premotor prompt\" on a workstation.");
  }
}

}  // namespace premotor::engine
