// Deterministic weights and inputs for bench/passes.cpp, and the files that carry them to other programs: the
// transformer of a synthetic size as the released layout has it, and the inputs of a chunk. Every value is a function
// of a name and an index alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/half.h"
#include "bench/passes_sizes.h"

namespace passes {

// Part of a folder's name: another generation of values, another folder.
constexpr const char* kGeneration = "1";

// mean + spread * u, u uniform in [-1, 1): a counter-based hash, the same everywhere.
inline void fill(const std::string& name, float mean, float spread, std::int64_t count, float* to) {
  std::uint32_t seed = 2166136261u;
  for (const char c : name) seed = (seed ^ static_cast<std::uint8_t>(c)) * 16777619u;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t bits = static_cast<std::uint32_t>(i) * 2654435761u + seed;
    bits = (bits ^ (bits >> 16)) * 0x7feb352du;
    bits = (bits ^ (bits >> 15)) * 0x846ca68bu;
    bits ^= bits >> 16;
    to[i] = mean + spread * (static_cast<float>(bits >> 8) * 0x1p-23f - 1.0f);
  }
}

// A tensor to be written: how its values are made.
struct Tensor {
  std::string name;
  std::vector<std::int64_t> shape;
  bool is_bf16;
  std::function<void(std::vector<float>*)> make;  // [elements], sized by the caller

  [[nodiscard]] std::int64_t elements() const {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    return count;
  }
};

// Writes a safetensors file, tensors in the given order. False when the disk does not take it.
inline bool write_safetensors(const std::filesystem::path& path, const std::vector<Tensor>& tensors) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  std::int64_t at = 0;
  for (const Tensor& tensor : tensors) {
    const std::int64_t bytes = tensor.elements() * (tensor.is_bf16 ? 2 : 4);
    header += ",\"" + tensor.name + "\":{\"dtype\":\"" + (tensor.is_bf16 ? "BF16" : "F32") + "\",\"shape\":[";
    for (std::size_t i = 0; i < tensor.shape.size(); ++i)
      header += (i == 0 ? "" : ",") + std::to_string(tensor.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + bytes) + "]}";
    at += bytes;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::ofstream file(path, std::ios::binary);
  const std::uint64_t size = header.size();
  file.write(reinterpret_cast<const char*>(&size), 8);  // little endian, as every machine that this runs on
  file.write(header.data(), static_cast<std::streamsize>(size));
  std::vector<float> values;
  std::vector<std::uint16_t> halves;
  for (const Tensor& tensor : tensors) {
    values.resize(static_cast<std::size_t>(tensor.elements()));
    tensor.make(&values);
    if (!tensor.is_bf16) {
      file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * 4));
      continue;
    }
    halves.resize(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) halves[i] = premotor::f32_to_bf16(values[i]);
    file.write(reinterpret_cast<const char*>(halves.data()), static_cast<std::streamsize>(halves.size() * 2));
  }
  file.close();
  return file.good();
}

// Names and shapes of the shared form (docs/MODEL.md section 2). Spreads keep activations and outputs near one.
class TransformerTensors {
 public:
  explicit TransformerTensors(const Size& size) {
    const std::int64_t width = size.heads * size.head_dim, features = size.channels * 4;
    linear("patch_embedding_mlp", width, features);
    linear("action_embedder", width, kActionDim);
    for (const std::string& side : {std::string("condition_embedder."), std::string("condition_embedder_action.")}) {
      linear(side + "time_embedder.linear_1", width, kFreqDim);
      linear(side + "time_embedder.linear_2", width, width);
      linear(side + "time_proj", 6 * width, width, 0.5f);
    }
    linear("condition_embedder.text_embedder.linear_1", width, size.text_dim);
    linear("condition_embedder.text_embedder.linear_2", width, width);
    for (std::int64_t layer = 0; layer < size.layers; ++layer)
      block("blocks." + std::to_string(layer) + ".", width, size.ffn_dim);
    linear("proj_out", features, width);
    linear("action_proj_out", kActionDim, width);
    add("scale_shift_table", {1, 2, width}, 0, 0.3f);
  }
  static constexpr std::int64_t kActionDim = 30, kFreqDim = 256;
  std::vector<Tensor> tensors;

 private:
  void add(const std::string& name, const std::vector<std::int64_t>& shape, float mean, float spread) {
    tensors.push_back({name, shape, false, [=](std::vector<float>* values) {
                         fill(name, mean, spread, std::ssize(*values), values->data());
                       }});
  }
  // Outputs of the inputs' variance times gain^2.
  void linear(const std::string& name, std::int64_t rows, std::int64_t cols, float gain = 1.0f) {
    add(name + ".weight", {rows, cols}, 0, gain * std::sqrt(3.0f / static_cast<float>(cols)));
    add(name + ".bias", {rows}, 0, 0.05f);
  }
  void attention(const std::string& prefix, std::int64_t width) {
    for (const char* name : {"to_q", "to_k", "to_v", "to_out.0"}) linear(prefix + name, width, width);
    // Logits of a standard deviation of about two: neither flat nor a choice of one.
    add(prefix + "norm_q.weight", {width}, 1.4f, 0.2f);
    add(prefix + "norm_k.weight", {width}, 1.4f, 0.2f);
  }
  void block(const std::string& prefix, std::int64_t width, std::int64_t ffn) {
    attention(prefix + "attn1.", width);
    attention(prefix + "attn2.", width);
    add(prefix + "norm2.weight", {width}, 1, 0.2f);
    add(prefix + "norm2.bias", {width}, 0, 0.1f);
    linear(prefix + "ffn.net.0.proj", ffn, width);
    linear(prefix + "ffn.net.2", width, ffn);
    add(prefix + "scale_shift_table", {1, 6, width}, 0, 0.3f);
  }
};

// What a chunk starts from. Keys and values of the history are bfloat16 values, so that every precision has the same.
struct Inputs {
  explicit Inputs(const Size& size, const TransformerConfig& config) {
    make("video.x", size.video_tokens() * config.in_channels * config.patch_volume(), &video);
    make("action.x", size.action_tokens() * config.action_dim, &action);
    make("text.positive", size.prompt_rows * config.text_dim, &text[0]);
    make("text.negative", config.text_dim, &text[1]);
  }
  std::vector<float> video, action;     // [tokens, features]: noise
  std::vector<float> text[2];           // [real rows, text_dim] of the prompt and of the negative prompt
  static constexpr float kNorm = 1.7f;  // of a uniform distribution with a variance near one

  // Keys or values of one layer and guidance row: [history, heads, head_dim].
  static void history(std::int64_t layer, std::int64_t row, bool is_value, std::vector<float>* to) {
    const std::string name = "history." + std::to_string(layer) + "." + std::to_string(row) + (is_value ? ".v" : ".k");
    fill(name, 0, is_value ? kNorm : 1.4f * kNorm, std::ssize(*to), to->data());
    for (float& value : *to) value = premotor::round_to_bf16(value);
  }

 private:
  static void make(const std::string& name, std::int64_t count, std::vector<float>* to) {
    to->resize(static_cast<std::size_t>(count));
    fill(name, 0, kNorm, count, to->data());
  }
};

inline std::filesystem::path folder_of(const std::filesystem::path& cache, const Size& size) {
  return cache / (std::string(size.name) + "-" + kGeneration);
}

inline bool write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  return file.good();
}

inline std::string config_json(const Size& size) {
  const auto number = [](const char* name, std::int64_t value) {
    return std::string(", \"") + name + "\": " + std::to_string(value);
  };
  return "{\"_class_name\": \"WanTransformer3DModel\", \"patch_size\": [1, 2, 2], \"cross_attn_norm\": true, "
         "\"eps\": 1e-06" +
         number("num_attention_heads", size.heads) + number("attention_head_dim", size.head_dim) +
         number("in_channels", size.channels) + number("out_channels", size.channels) +
         number("action_dim", TransformerTensors::kActionDim) + number("text_dim", size.text_dim) +
         number("freq_dim", TransformerTensors::kFreqDim) + number("ffn_dim", size.ffn_dim) +
         number("num_layers", size.layers) + "}\n";
}

inline std::string size_json(const Size& size) {
  const auto number = [](const char* name, std::int64_t value) {
    return std::string("\"") + name + "\": " + std::to_string(value);
  };
  return "{" + number("frames", size.frames) + ", " + number("grid_h", size.grid_h) + ", " +
         number("grid_w", size.grid_w) + ", " + number("action_per_frame", size.action_per_frame) + ", " +
         number("text_rows", size.text_rows) + ", " + number("capacity", size.capacity) + ", " +
         number("history", size.history()) + ", \"guidance_scale\": 5}\n";
}

// Writes the transformer of a synthetic size to folder/transformer unless it is there; the config comes last.
inline bool ensure_transformer(const std::filesystem::path& folder, const Size& size) {
  const std::filesystem::path transformer = folder / "transformer";
  if (size.is_shipped || std::filesystem::exists(transformer / "config.json")) return true;
  std::filesystem::create_directories(transformer);
  return write_safetensors(transformer / "diffusion_pytorch_model.safetensors", TransformerTensors(size).tensors) &&
         write_text(transformer / "config.json", config_json(size));
}

// Writes inputs.safetensors and size.json for the programs beside this one, unless they are there.
inline bool ensure_inputs(const std::filesystem::path& folder, const Size& size, const TransformerConfig& config) {
  if (std::filesystem::exists(folder / "size.json")) return true;
  std::filesystem::create_directories(folder);
  const Inputs inputs(size, config);
  std::vector<Tensor> tensors;
  const auto add = [&](const char* name, const std::vector<float>& values, std::int64_t columns) {
    tensors.push_back(
        {name, {std::ssize(values) / columns, columns}, false, [&values](std::vector<float>* to) { *to = values; }});
  };
  add("video.x", inputs.video, config.in_channels * config.patch_volume());
  add("action.x", inputs.action, config.action_dim);
  add("text.positive", inputs.text[0], config.text_dim);
  add("text.negative", inputs.text[1], config.text_dim);
  for (std::int64_t layer = 0; layer < size.layers; ++layer)
    for (std::int64_t row = 0; row < kGuidanceRows; ++row)
      for (const bool is_value : {false, true})
        tensors.push_back({"history." + std::to_string(layer) + "." + std::to_string(row) + (is_value ? ".v" : ".k"),
                           {size.history(), size.heads, size.head_dim},
                           true,
                           [=](std::vector<float>* to) { Inputs::history(layer, row, is_value, to); }});
  return write_safetensors(folder / "inputs.safetensors", tensors) && write_text(folder / "size.json", size_json(size));
}

}  // namespace passes
