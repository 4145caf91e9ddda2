// Compares a checkpoint folder with what its config.json files imply. See inspect.h.
#include "engine/inspect.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/mapped_file.h"
#include "engine/checkpoint_error.h"
#include "engine/config.h"
#include "engine/expected.h"
#include "engine/safetensors.h"

namespace premotor::engine {

namespace {

constexpr std::size_t problems_max = 1000;
constexpr const char* mismatch_advice = "The weights do not fit config.json; take both from the same checkpoint.";

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

// Shapes of damaged files can be absurd, so sums stop at the largest value instead of overflowing.
void add_saturating(std::int64_t value, std::int64_t* sum) {
  if (__builtin_add_overflow(*sum, value, sum)) *sum = std::numeric_limits<std::int64_t>::max();
}

bool is_float(StoredDtype dtype) {
  return dtype == StoredDtype::f32 || dtype == StoredDtype::f16 || dtype == StoredDtype::bf16;
}

// config.json as written, when it is a JSON object. What is wrong with it is said by the reader of the config.
std::string raw_config(const std::string& folder) {
  MappedFile file;
  if (!MappedFile::open(folder + "/config.json", &file).ok()) return "";
  const auto bytes = file.bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  JsonValue root;
  if (!parse_json(text, &root, {.bytes_max = 16'000'000, .values_max = 1'000'000}).ok() || !root.is_object()) return "";
  return std::string(text);
}

void check_tensor(const TensorStore& store, const StoredTensor& tensor, const ExpectedTensor& expected,
                  std::vector<Status>* problems) {
  if (expected.vestigial) return;
  if (tensor.shape != expected.shape) {
    problems->push_back(checkpoint_error("CHECKPOINT_SHAPE", store.file_of(tensor), tensor.name,
                                         "shape " + shown_shape(expected.shape), shown_shape(tensor.shape),
                                         mismatch_advice));
  }
  if (!is_float(tensor.dtype)) {
    problems->push_back(checkpoint_error("CHECKPOINT_DTYPE", store.file_of(tensor), tensor.name, "F32, F16 or BF16",
                                         name_of(tensor.dtype), "Convert the tensor to one of these."));
  }
}

// Compares the store with the expected list; fills what the component says about tensors.
void check_tensors(const TensorStore& store, std::vector<ExpectedTensor> expected, const std::string& folder,
                   ComponentInspection* out) {
  const auto by_name = [](const ExpectedTensor& a, const ExpectedTensor& b) { return a.name < b.name; };
  std::sort(expected.begin(), expected.end(), by_name);
  // The text encoder's embedding table goes by either of two names; the one that is there is the one that is read.
  if (store.find("shared.weight") == nullptr && store.find("encoder.embed_tokens.weight") != nullptr) {
    for (ExpectedTensor& entry : expected) {
      if (entry.name == "shared.weight") entry.vestigial = true;
      if (entry.name == "encoder.embed_tokens.weight") entry.vestigial = false;
    }
  }
  std::set<std::string> blamed;  // tensors that some problem names already
  for (const Status& status : out->problems) blamed.insert(status.tensor);
  for (const ExpectedTensor& entry : expected) {
    const StoredTensor* tensor = store.find(entry.name);
    if (blamed.contains(entry.name)) continue;
    if (tensor != nullptr) {
      check_tensor(store, *tensor, entry, &out->problems);
    } else if (!entry.vestigial) {
      out->problems.push_back(checkpoint_error("CHECKPOINT_MISSING_TENSOR", folder, entry.name,
                                               "a float tensor of shape " + shown_shape(entry.shape), "none",
                                               mismatch_advice));
    }
  }
  for (TensorInspection& tensor : out->tensors) {
    const auto it = std::lower_bound(expected.begin(), expected.end(), ExpectedTensor{tensor.name, {}}, by_name);
    const bool known = it != expected.end() && it->name == tensor.name;
    tensor.used = known && !it->vestigial;
    if (known || (out->name == "text_encoder" && is_decoder_tensor(tensor.name))) continue;
    out->problems.push_back(checkpoint_error("CHECKPOINT_UNKNOWN_TENSOR", store.file_of(*store.find(tensor.name)),
                                             tensor.name, "only tensors that config.json has a place for", "this one",
                                             "It would be ignored; check that config.json and the weights are of the "
                                             "same checkpoint."));
  }
}

// Everything about one component but the config's own type.
template <typename Config>
void inspect_component(const std::string& folder, std::span<const std::string_view> stems,
                       Status (*read_config)(const std::string&, Config*),
                       std::vector<ExpectedTensor> (*expected)(const Config&), Config* config, bool* config_is_good,
                       ComponentInspection* out) {
  out->present = is_folder(folder);
  if (!out->present) return;
  out->config_json = raw_config(folder);
  Status status = read_config(folder, config);
  *config_is_good = status.ok();
  if (!status.ok()) out->problems.push_back(std::move(status));
  TensorStore store;
  TensorStore::scan_folder(folder, stems, &store, &out->problems);
  for (const MappedFile& file : store.files()) {
    out->files.push_back({file.path(), static_cast<std::int64_t>(file.bytes().size())});
  }
  for (const StoredTensor& tensor : store.tensors()) {
    const auto bytes = static_cast<std::int64_t>(tensor.size_bytes);
    out->tensors.push_back({tensor.name, name_of(tensor.dtype), tensor.shape, bytes, false});
    if (tensor.data == nullptr) continue;
    add_saturating(tensor.elements(), &out->parameters);
    add_saturating(bytes, &out->size_bytes);
  }
  // Without any readable file, a list of every tensor as missing would only hide the reason.
  if (*config_is_good && !store.files().empty()) check_tensors(store, expected(*config), folder, out);
}

void require_folder(const std::string& folder, ComponentInspection* component) {
  if (component->present) return;
  component->problems.push_back(checkpoint_error("CHECKPOINT_MISSING_FILE", folder, "", "a folder", "none",
                                                 "Point at a folder in the released layout (docs/CHECKPOINT.md)."));
}

void check_fit(const std::string& file, const std::string& what, std::int64_t expected, std::int64_t found,
               ComponentInspection* component) {
  if (expected == found) return;
  component->problems.push_back(checkpoint_error("CHECKPOINT_CONFIG", file, "", what + " " + std::to_string(expected),
                                                 std::to_string(found),
                                                 "The components are of different checkpoints."));
}

void cut_list(ComponentInspection* component) {
  std::vector<Status>& problems = component->problems;
  if (problems.size() <= problems_max) return;
  const std::size_t more = problems.size() - problems_max;
  problems.resize(problems_max);
  problems.push_back(Status::error(problems.back().code, "and " + std::to_string(more) + " more problems."));
}

}  // namespace

Status inspect_checkpoint(const std::string& folder, Inspection* out) {
  if (!is_folder(folder)) {
    return checkpoint_error("CHECKPOINT_MISSING_FILE", folder, "", "a checkpoint folder", "no such folder",
                            "Point at a folder in the released layout (docs/CHECKPOINT.md).");
  }
  Inspection inspection;
  inspection.components.resize(3);
  ComponentInspection& transformer = inspection.components[0];
  ComponentInspection& vae = inspection.components[1];
  ComponentInspection& text = inspection.components[2];
  transformer.name = "transformer";
  vae.name = "vae";
  text.name = "text_encoder";
  TransformerConfig transformer_config;
  VaeConfig vae_config;
  TextEncoderConfig text_config;
  bool transformer_good = false, vae_good = false, text_good = false;
  inspect_component(folder + "/transformer", diffusers_stems, read_transformer_config, expected_transformer,
                    &transformer_config, &transformer_good, &transformer);
  inspect_component(folder + "/vae", diffusers_stems, read_vae_config, expected_vae, &vae_config, &vae_good, &vae);
  inspect_component(folder + "/text_encoder", transformers_stems, read_text_encoder_config, expected_text_encoder,
                    &text_config, &text_good, &text);
  require_folder(folder + "/transformer", &transformer);
  require_folder(folder + "/vae", &vae);
  if (transformer_good && vae_good) {
    check_fit(folder + "/vae/config.json", "z_dim equal to the transformer's in_channels,",
              transformer_config.in_channels, vae_config.z_dim, &vae);
  }
  if (transformer_good && text_good) {
    check_fit(folder + "/text_encoder/config.json", "d_model equal to the transformer's text_dim,",
              transformer_config.text_dim, text_config.d_model, &text);
  }
  for (ComponentInspection& component : inspection.components) cut_list(&component);
  *out = std::move(inspection);
  return Status::good();
}

}  // namespace premotor::engine
