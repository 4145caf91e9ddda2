#include "engine/device_transformer.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/half.h"

namespace premotor::engine {
namespace {

// Kept conditionings, a few per schedule; at the released size one takes 2.2 MB for each distinct timestep of a pass.
constexpr std::size_t kModulationsMax = 192;

std::int64_t tokens_of(const Pass& pass) { return pass.frames * pass.tokens_per_frame; }
std::int64_t rows_of(const Pass& pass) { return pass.guidance_rows * tokens_of(pass); }

}  // namespace

// A layer's and guidance row's keys, and behind them its values: the rows of all heads, then the scales of int8.
std::int64_t DeviceTransformer::plane_bytes() const {
  return cache_.heads * cache_rows_ * (kHeadDim * ops::bytes_of(cache_.dtype) + (is_cache_int8() ? 4 : 0));
}

device::CachePlanes DeviceTransformer::planes(std::int64_t layer, std::int64_t guidance_row) const {
  const std::int64_t k = 2 * (layer * cache_.guidance_rows + guidance_row) * plane_bytes(), v = k + plane_bytes();
  if (!is_cache_int8()) return {pool_.at<std::uint16_t>(k), pool_.at<std::uint16_t>(v)};
  const std::int64_t scales = cache_.heads * cache_rows_ * kHeadDim;
  return {nullptr,
          nullptr,
          pool_.at<std::int8_t>(k),
          pool_.at<std::int8_t>(v),
          pool_.at<float>(k + scales),
          pool_.at<float>(v + scales)};
}

void DeviceTransformer::note(device::Outcome outcome, const char* what) {
  if (outcome_ != device::Outcome::launched || outcome == device::Outcome::launched) return;
  outcome_ = outcome;
  refused_ = what;
}

Status DeviceTransformer::launched() {
  if (outcome_ == device::Outcome::launched) return Status::good();
  static constexpr const char* kWhys[] = {"", "of a size that it does not take", "of operands off their boundaries",
                                          "and the driver refused it"};
  const std::string why = kWhys[static_cast<int>(outcome_)];
  outcome_ = device::Outcome::launched;
  return Status::error("DEVICE_LAUNCH", std::string("The device's operation ") + refused_ +
                                            " was not started: it was " + why +
                                            ". This is a fault of premotor or of the driver; use device \"cpu\" "
                                            "and report it with the job.");
}

Status DeviceTransformer::settle() {
  is_busy_ = false;
  return device_.wait();
}

// Computed by the host once per schedule, uploaded once; later passes find it.
Status DeviceTransformer::modulation(const std::vector<Condition>& conditions, const Modulation** out) {
  for (const auto& known : modulations_)
    if (known->conditions == conditions) {
      *out = known.get();
      return Status::good();
    }
  if (modulations_.size() >= kModulationsMax) {
    PREMOTOR_TRY(settle());
    modulations_.clear();
  }
  const StreamWeights& stream = from_.stream(conditions.front().first);
  const std::int64_t width = stream.width, count = std::ssize(conditions), of_block = count * 6 * width;
  std::vector<float> values(static_cast<std::size_t>(config_.num_layers * of_block + count * 2 * width));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto [modality, timestep] = conditions[static_cast<std::size_t>(i)];
    const Transformer::Conditioning& condition = from_.condition(modality, timestep);
    for (std::int64_t layer = 0; layer < config_.num_layers; ++layer)
      Transformer::modulate((*stream.blocks)[static_cast<std::size_t>(layer)], condition,
                            values.data() + layer * of_block + i * 6 * width);
    from_.modulate_last(from_.stream(modality), condition,
                        values.data() + config_.num_layers * of_block + i * 2 * width);
  }
  auto made = std::make_unique<Modulation>();
  made->conditions = conditions;
  PREMOTOR_TRY(DeviceMemory::allocate(device_, std::ssize(values) * 4, &made->memory));
  made->blocks = made->memory.at<float>();
  made->last = made->blocks + config_.num_layers * of_block;
  note(device_.upload(made->memory.at<float>(), values.data(), std::ssize(values) * 4), "upload");
  PREMOTOR_TRY(launched());
  PREMOTOR_TRY(settle());
  *out = made.get();
  modulations_.push_back(std::move(made));
  return Status::good();
}

// Rows of the cache in the order of their slots. to: room for cache_rows_.
void DeviceTransformer::list_attended(const Pass& pass, std::int32_t* to, std::int64_t* count) const {
  std::int64_t found = 0;
  auto moved = pass.moved->begin();
  for (std::size_t word = 0; word < pass.attended->size(); ++word) {
    for (std::uint32_t bits = (*pass.attended)[word]; bits != 0; bits &= bits - 1) {
      const auto slot = static_cast<std::int32_t>(word * 32 + static_cast<unsigned>(__builtin_ctz(bits)));
      while (moved != pass.moved->end() && moved->slot < slot) ++moved;
      to[found++] = moved != pass.moved->end() && moved->slot == slot ? moved->row : slot;
    }
  }
  *count = found;
}

// Puts one part's inputs into the staging memory from byte `at` on; returns where it ends.
std::int64_t DeviceTransformer::stage_part(const Pass& pass, std::int64_t at, PartInput* input) {
  const std::int64_t tokens = tokens_of(pass), features = from_.stream(pass.modality).embed.weight.cols;
  const auto place = [&](std::int64_t bytes) {
    const std::int64_t offset = at;
    at = round_up(at + bytes, kPart);
    assert(at <= staging_.bytes());
    return offset;
  };
  const auto copy = [&](const void* from, std::int64_t bytes) {
    const std::int64_t offset = place(bytes);
    std::memcpy(staging_.at<std::byte>(offset), from, static_cast<std::size_t>(bytes));
    return offset;
  };
  input->ldx = padded(features);
  const std::int64_t x = place(tokens * input->ldx * 2);
  auto* narrow = staging_.at<std::uint16_t>(x);
  for (std::int64_t token = 0; token < tokens; ++token, narrow += input->ldx) {
    for (std::int64_t c = 0; c < features; ++c) narrow[c] = f32_to_bf16(pass.x[token * features + c]);
    std::fill(narrow + features, narrow + input->ldx, std::uint16_t{0});
  }
  input->x = inputs_.at<std::uint16_t>(x);
  // What fills heads up is not turned.
  const auto copy_angles = [&](const std::vector<float>& from, float filling) {
    const std::int64_t offset = place(tokens * (kHeadDim / 2) * 4), half = heads_.of / 2;
    float* to = staging_.at<float>(offset);
    for (std::int64_t token = 0; token < tokens; ++token, to += kHeadDim / 2) {
      std::copy_n(from.data() + token * half, half, to);
      std::fill(to + half, to + kHeadDim / 2, filling);
    }
    return offset;
  };
  input->cos = inputs_.at<float>(copy_angles(pass.rope->cos, 1));
  input->sin = inputs_.at<float>(copy_angles(pass.rope->sin, 0));
  input->write_rows = inputs_.at<std::int32_t>(copy(pass.write_rows->data(), tokens * 4));
  const std::int64_t list = place(cache_rows_ * 4);
  list_attended(pass, staging_.at<std::int32_t>(list), &input->attended_count);
  input->attended = inputs_.at<std::int32_t>(list);
  at = round_up(list + input->attended_count * 4, kPart);
  return at;
}

// One upload for all that changes from pass to pass.
Status DeviceTransformer::stage(Call* call) {
  std::vector<Condition> conditions;
  std::vector<std::int32_t> row_map;
  for (const Pass& pass : call->parts) {
    const auto first = conditions.size();
    for (std::int64_t row = 0; row < pass.guidance_rows; ++row)
      for (std::int64_t f = 0; f < pass.frames; ++f) {
        const Condition condition{pass.modality, pass.frame_timesteps[f]};
        auto at = std::find(conditions.begin() + static_cast<std::ptrdiff_t>(first), conditions.end(), condition);
        if (at == conditions.end()) at = conditions.insert(at, condition);
        row_map.insert(row_map.end(), static_cast<std::size_t>(pass.tokens_per_frame),
                       static_cast<std::int32_t>(at - conditions.begin()));
      }
  }
  PREMOTOR_TRY(modulation(conditions, &call->modulation));
  // The pass before may still be reading.
  if (is_busy_) PREMOTOR_TRY(settle());
  std::memcpy(staging_.at<std::byte>(), row_map.data(), row_map.size() * 4);
  call->row_map = inputs_.at<std::int32_t>();
  std::int64_t at = round_up(std::ssize(row_map) * 4, kPart);
  for (const Pass& pass : call->parts) at = stage_part(pass, at, &call->inputs.emplace_back());
  is_busy_ = true;
  note(device_.upload(inputs_.at<std::byte>(), staging_.at<std::byte>(), at), "upload");
  return Status::good();
}

// A plan for sizes between those that the workspace was taken for may want a little more.
device::GemmPlan DeviceTransformer::plan(const DeviceLinear& layer, std::int64_t rows, int element_bytes) const {
  device::GemmPlan plan = device_.plan_gemm(rows, layer.n, layer.k, element_bytes);
  if (plan.workspace_bytes > workspace_bytes_) plan.splits = 1, plan.workspace_bytes = 0;
  return plan;
}

void DeviceTransformer::quantise(const Input& from, std::int64_t columns, std::int64_t rows) {
  device::QuantiseRows a;
  a.x = from.x;
  a.rows = rows;
  a.dim = columns;
  a.ldx = from.ld;
  a.quantised = from.quantised.rows;
  a.ldq = padded_bytes(columns);
  a.scales = from.quantised.scales;
  note(device_.quantise_rows(a), "quantise_rows");
}

void DeviceTransformer::product_int8(const DeviceLinear& layer, const Quantised& x, std::int64_t rows,
                                     const device::GemmEnd& end) {
  device::GemmInt8 a;
  a.x = x.rows;
  a.x_scales = x.scales;
  a.w = layer.q;
  a.w_scales = layer.scales;
  a.m = rows;
  a.n = layer.n;
  a.k = layer.k;
  a.ldx = padded_bytes(layer.k);
  a.ldw = layer.ldw;
  a.end = end;
  a.plan = plan(layer, rows, 1);
  a.workspace = workspace_;
  note(device_.gemm_int8(a), "gemm_int8");
}

void DeviceTransformer::product(const DeviceLinear& layer, const Input& from, std::int64_t rows, device::GemmEnd end,
                                std::uint16_t* y, std::int64_t ldy) {
  end.bias = layer.bias;
  end.y = y;
  end.ldy = ldy;
  if (layer.q != nullptr) {
    if (from.x != nullptr) quantise(from, layer.k, rows);
    product_int8(layer, from.quantised, rows, end);
    return;
  }
  device::GemmBf16 a;
  a.x = from.x;
  a.w = layer.w;
  a.m = rows;
  a.n = layer.n;
  a.k = layer.k;
  a.ldx = from.ld;
  a.ldw = layer.ldw;
  a.end = end;
  a.plan = plan(layer, rows, 2);
  a.workspace = workspace_;
  note(device_.gemm_bf16(a), "gemm_bf16");
}

DeviceTransformer::Input DeviceTransformer::norm(const Call& call, const device::NormTerms& terms,
                                                 const DeviceLinear& layer) {
  const bool is_quantised = layer.q != nullptr;
  device::LayerNormModulate a;
  a.x = hidden_;
  a.rows = call.rows;
  a.dim = call.width;
  a.ldx = call.ld;
  a.norm = terms;
  if (is_quantised) {
    a.quantised = quantised_.rows;
    a.ldq = padded_bytes(call.width);
    a.scales = quantised_.scales;
  } else {
    a.y = normed_;
    a.ldy = call.ld;
  }
  note(device_.layer_norm_modulate(a), "layer_norm_modulate");
  return input(is_quantised ? nullptr : normed_, call.ld);
}

// shift, then scale behind it.
device::NormTerms DeviceTransformer::modulated(const Call& call, const float* shift, std::int64_t stride) const {
  device::NormTerms terms;
  terms.eps = config_.eps;
  terms.scale = shift + call.width;
  terms.shift = shift;
  terms.mod_stride = stride;
  terms.row_map = call.row_map;
  return terms;
}

// Every guidance row begins with the same tokens.
void DeviceTransformer::embed(const Call& call) {
  std::int64_t first = 0;
  for (std::size_t part = 0; part < call.parts.size(); ++part) {
    const Pass& pass = call.parts[part];
    const PartInput& staged = call.inputs[part];
    for (std::int64_t row = 0; row < pass.guidance_rows; ++row, first += tokens_of(pass))
      product(weights_.stream(pass.modality).embed, {staged.x, staged.ldx, {}}, tokens_of(pass), {},
              hidden_ + first * call.ld, call.ld);
  }
}

void DeviceTransformer::self_attention(const Call& call, bool wanted) {
  const std::int64_t inner = heads_.filled();
  const DeviceLinear& qkv = call.block->qkv;
  product(qkv, norm(call, modulated(call, call.shifts, 6 * call.width), qkv), call.rows, {}, qkv_, 3 * inner);
  std::int64_t first = 0;
  for (std::size_t part = 0; part < call.parts.size(); ++part) {
    attend_cache(call, part, first, wanted);
    first += rows_of(call.parts[part]);
  }
  if (!wanted) return;
  device::GemmEnd end;
  end.is_residual = true;
  end.gate = call.shifts + 2 * call.width;
  end.gate_stride = 6 * call.width;
  end.row_map = call.row_map;
  product(call.block->out, input(attended_, inner), call.rows, end, hidden_, call.ld);
}

// One part's keys and values into the cache, then its queries over it.
void DeviceTransformer::attend_cache(const Call& call, std::size_t part, std::int64_t first, bool wanted) {
  const Pass& pass = call.parts[part];
  const PartInput& input = call.inputs[part];
  const std::int64_t inner = heads_.filled(), tokens = tokens_of(pass);
  std::uint16_t* q = qkv_ + first * 3 * inner;
  device::CacheHeads a;
  a.q = wanted ? q : nullptr;
  a.k = q + inner;
  a.v = q + 2 * inner;
  a.rows = tokens;
  a.batch = static_cast<int>(pass.guidance_rows);
  a.heads = cache_.heads;
  a.ld = 3 * inner;
  a.eps = config_.eps;
  a.norm_width = heads_.width();
  a.norm_q = call.block->norm_q;
  a.norm_k = call.block->norm_k;
  a.cos = input.cos;
  a.sin = input.sin;
  a.plane_rows = cache_rows_;
  a.slots = input.write_rows;
  device::FlashAttention f;
  f.q = q;
  f.rows = tokens;
  f.heads = cache_.heads;
  f.ldq = 3 * inner;
  f.batch = a.batch;
  f.scale = scale_;
  f.y = attended_ + first * inner;
  f.ldy = inner;
  for (std::int64_t row = 0; row < pass.guidance_rows; ++row) {
    const device::CachePlanes& to = a.cache[row] = planes(call.layer, row);
    f.attended[row] = {to.k, to.v, input.attended, input.attended_count, 1.0f, to.k8, to.v8, to.k_scales, to.v_scales};
    f.plane_rows[row] = cache_rows_;
  }
  note(device_.cache_heads(a), "cache_heads");
  if (!wanted) return;
  f.splits = device_.plan_attention_splits(tokens, cache_.heads, f.batch, input.attended_count);
  if (device_.attention_workspace_bytes(tokens, cache_.heads, f.batch, f.splits) > workspace_bytes_) f.splits = 1;
  f.workspace = f.splits > 1 ? workspace_ : nullptr;
  note(device_.flash_attention(f), "flash_attention");
}

void DeviceTransformer::cross_attention(const Call& call) {
  const std::int64_t inner = heads_.filled();
  const DeviceBlock& block = *call.block;
  Input from = input(hidden_, call.ld);
  if (block.norm2_weight != nullptr) {
    device::NormTerms terms;
    terms.eps = config_.eps;
    terms.weight = block.norm2_weight;
    terms.bias = block.norm2_bias;
    from = norm(call, terms, block.cross_q);
  }
  product(block.cross_q, from, call.rows, {}, qkv_, inner);
  device::CacheHeads a;
  a.q = qkv_;
  a.rows = call.rows;
  a.heads = cache_.heads;
  a.ld = inner;
  a.eps = config_.eps;
  a.norm_width = heads_.width();
  a.norm_q = block.cross_norm_q;
  note(device_.cache_heads(a), "cache_heads");
  std::int64_t first = 0;
  for (const Pass& pass : call.parts) {
    device::FlashAttention f;
    f.q = qkv_ + first * inner;
    f.rows = tokens_of(pass);
    f.heads = cache_.heads;
    f.ldq = inner;
    f.batch = static_cast<int>(pass.guidance_rows);
    f.scale = scale_;
    f.y = attended_ + first * inner;
    f.ldy = inner;
    for (std::int64_t row = 0; row < pass.guidance_rows; ++row) {
      const TextKeysValues& text = (*pass.text)[static_cast<std::size_t>(row)];
      const auto& on_device = *static_cast<const Text*>(text.on_device.get());
      const std::int64_t stream = text.streams == 2 ? static_cast<std::int64_t>(pass.modality) : 0;
      const std::int64_t plane = cache_.heads * on_device.plane_rows * kHeadDim * 2;
      const std::int64_t at = 2 * (stream * config_.num_layers + call.layer) * plane;
      f.attended[row] = {on_device.memory.at<std::uint16_t>(at), on_device.memory.at<std::uint16_t>(at + plane),
                         nullptr, text.rows, text.last_weight};
      f.plane_rows[row] = on_device.plane_rows;
    }
    note(device_.flash_attention(f), "flash_attention");
    first += rows_of(pass);
  }
  device::GemmEnd end;
  end.is_residual = true;
  product(block.cross_out, input(attended_, inner), call.rows, end, hidden_, call.ld);
}

void DeviceTransformer::feed_forward(const Call& call) {
  const float* shift = call.shifts + 3 * call.width;
  const DeviceBlock& block = *call.block;
  const Input normed = norm(call, modulated(call, shift, 6 * call.width), block.up);
  const std::int64_t ld = padded(block.up.n);
  device::GemmEnd up, down;
  up.act = device::Act::gelu_tanh;
  product(block.up, normed, call.rows, up, up_, ld);
  down.is_residual = true;
  down.gate = shift + 2 * call.width;
  down.gate_stride = 6 * call.width;
  down.row_map = call.row_map;
  product(block.down, input(up_, ld), call.rows, down, hidden_, call.ld);
}

// The last norm, the head, and the way back.
Status DeviceTransformer::finish(const Call& call) {
  const Pass& pass = call.parts.front();
  const DeviceLinear& head = weights_.stream(pass.modality).head;
  const Input normed = norm(call, modulated(call, call.modulation->last, 2 * call.width), head);
  const std::int64_t ld = padded(head.n);
  product(head, normed, call.rows, {}, head_, ld);
  note(device_.download(result_staging_.at<std::byte>(), head_, ((call.rows - 1) * ld + head.n) * 2), "download");
  PREMOTOR_TRY(launched());
  PREMOTOR_TRY(settle());
  for (std::int64_t row = 0; row < call.rows; ++row) {
    const std::uint16_t* from = result_staging_.at<std::uint16_t>() + row * ld;
    for (std::int64_t c = 0; c < head.n; ++c) pass.out[row * head.n + c] = bf16_to_f32(from[c]);
  }
  return Status::good();
}

Status DeviceTransformer::forward(std::span<const Pass> parts) {
  const Pass& lead = parts.front();
  Call call;
  call.parts = parts;
  for (const Pass& pass : parts) call.rows += rows_of(pass);
  if (call.rows > rows_max_) {
    if (is_busy_) PREMOTOR_TRY(settle());
    PREMOTOR_TRY(take_buffers(call.rows));
  }
  call.width = from_.stream(lead.modality).width;
  call.ld = padded(call.width);
  PREMOTOR_TRY(stage(&call));
  embed(call);
  const DeviceStream& stream = weights_.stream(lead.modality);
  for (call.layer = 0; call.layer < config_.num_layers; ++call.layer) {
    if (lead.cancel != nullptr && lead.cancel->load(std::memory_order_relaxed))
      return Status::error("ABORTED", "The computation was stopped on request.");
    call.block = &(*stream.blocks)[static_cast<std::size_t>(call.layer)];
    call.shifts = call.modulation->blocks + call.layer * std::ssize(call.modulation->conditions) * 6 * call.width;
    const bool wanted = lead.out != nullptr || call.layer + 1 < config_.num_layers;
    self_attention(call, wanted);
    if (!wanted) break;
    cross_attention(call);
    feed_forward(call);
  }
  if (lead.out != nullptr) return finish(call);
  return launched();
}

}  // namespace premotor::engine
