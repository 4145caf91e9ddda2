// Inspection: golden checkpoints have no problems, the released model's sizes come out exactly, and a checkpoint with
// several faults has all of them listed.
#include "engine/inspect.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "checkpoint_files.h"
#include "engine/expected.h"
#include "tap.h"

using namespace checkpoint_files;
using premotor::Status;
using premotor::engine::ComponentInspection;
using premotor::engine::ExpectedTensor;
using premotor::engine::FileInspection;
using premotor::engine::inspect_checkpoint;
using premotor::engine::Inspection;
using premotor::engine::TensorInspection;

namespace {

std::int64_t parameters(const std::vector<ExpectedTensor>& tensors) {
  std::int64_t sum = 0;
  for (const ExpectedTensor& tensor : tensors) {
    std::int64_t product = 1;
    for (const std::int64_t size : tensor.shape) product *= size;
    sum += product;
  }
  return sum;
}

bool all_distinct(const std::vector<ExpectedTensor>& tensors) {
  std::set<std::string> names;
  for (const ExpectedTensor& tensor : tensors) names.insert(tensor.name);
  return names.size() == tensors.size();
}

void released_sizes() {
  premotor::engine::TransformerConfig config;
  config.num_attention_heads = 24;
  config.attention_head_dim = 128;
  config.in_channels = config.out_channels = 48;
  config.action_dim = 30;
  config.text_dim = 4096;
  config.freq_dim = 256;
  config.ffn_dim = 14336;
  config.num_layers = 30;
  const std::vector<ExpectedTensor> tensors = expected_transformer(config);
  tap::ok(tensors.size() == 841 && all_distinct(tensors), "the released transformer has 841 tensors");
  tap::ok(parameters(tensors) == 5'089'465'566, "and 5 089 465 566 parameters");
  const auto vestigial =
      std::count_if(tensors.begin(), tensors.end(), [](const ExpectedTensor& t) { return t.vestigial; });
  tap::ok(vestigial == 6, "six of its tensors are vestigial");
  config.cross_attn_norm = false;
  tap::ok(expected_transformer(config).size() == 841 - 60, "without cross_attn_norm no block has a norm2");
  config.cross_attn_norm = true;
  config.mot = true;
  config.action_inner_dim = 768;
  config.action_ffn_dim = 3584;
  const std::vector<ExpectedTensor> mot = expected_transformer(config);
  tap::ok(mot.size() == 841 + 30 * 27 + 1 && all_distinct(mot), "the MoT form has a second set of blocks");
}

void golden_checkpoints_are_whole() {
  for (const std::string& name : golden_checkpoints()) {
    Inspection inspection;
    const Status status = inspect_checkpoint(golden_checkpoint(name), &inspection);
    if (!tap::ok(status.ok() && inspection.components.size() == 3, name + ": inspected")) continue;
    for (const ComponentInspection& component : inspection.components) {
      const std::string label = name + "/" + component.name;
      tap::ok(component.present && component.problems.empty() && !component.config_json.empty(),
              label + ": no problems");
      for (const Status& problem : component.problems) tap::note(problem.message);
      std::int64_t elements = 0, bytes = 0, unused = 0;
      for (const TensorInspection& tensor : component.tensors) {
        std::int64_t product = 1;
        for (const std::int64_t size : tensor.shape) product *= size;
        elements += product;
        bytes += tensor.size_bytes;
        unused += tensor.used ? 0 : 1;
      }
      tap::ok(component.parameters == elements && component.size_bytes == bytes && elements > 0, label + ": sizes");
      tap::ok(unused == (component.name == "transformer" ? 4 : 0), label + ": unused tensors");
      std::int64_t file_bytes = 0;
      for (const FileInspection& file : component.files) file_bytes += file.size_bytes;
      tap::ok(file_bytes > bytes, label + ": the files hold the tensors and their headers");
    }
    const bool sharded = name == "nocfg_partial";
    tap::ok(inspection.components[0].files.size() == (sharded ? 2u : 1u), name + ": transformer files");
  }
}

// A copy of a golden checkpoint to damage.
struct Copy {
  explicit Copy(const std::string& name) {
    std::filesystem::copy(golden_checkpoint(name), folder.path(), std::filesystem::copy_options::recursive);
  }
  // Rewrites the header of a file in place: `from` becomes `to`; the data stays.
  void edit(const std::string& file, const std::string& from, const std::string& to) const {
    const auto [header, data] = split(read_text(folder / file));
    write_text(folder / file, with_header(replaced(header, from, to), data));
  }
  void edit_text(const std::string& file, const std::string& from, const std::string& to) const {
    write_text(folder / file, replaced(read_text(folder / file), from, to));
  }
  [[nodiscard]] Inspection inspect() const {
    Inspection inspection;
    const Status status = inspect_checkpoint(folder.path(), &inspection);
    if (!status.ok()) tap::ok(false, status.message);
    return inspection;
  }
  TempFolder folder;
};

const std::string transformer_file = "transformer/diffusion_pytorch_model.safetensors";
const std::string vae_file = "vae/diffusion_pytorch_model.safetensors";
const std::string text_file = "text_encoder/model.safetensors";

// "CODE:tensor CODE:tensor ", sorted.
std::string listed(const ComponentInspection& component) {
  std::vector<std::string> names;
  for (const Status& problem : component.problems)
    names.push_back(std::string(problem.code) + ":" + problem.tensor + " ");
  std::sort(names.begin(), names.end());
  std::string text;
  for (const std::string& name : names) text += name;
  return text;
}

void lists(const ComponentInspection& component, const std::string& expected, const std::string& name) {
  if (!tap::ok(listed(component) == expected, name)) tap::note(listed(component));
}

void every_problem_is_listed() {
  const Copy copy("franka_tiny");
  copy.edit(transformer_file, "\"blocks.0.attn1.to_q.weight\"", "\"blocks.9.attn1.to_q.weight\"");
  copy.edit(transformer_file, "\"proj_out.weight\":{\"dtype\":\"F32\",\"shape\":[192,48]",
            "\"proj_out.weight\":{\"dtype\":\"F32\",\"shape\":[48,192]");
  copy.edit(transformer_file, "\"proj_out.bias\":{\"dtype\":\"F32\"", "\"proj_out.bias\":{\"dtype\":\"I32\"");
  copy.edit(vae_file, "\"quant_conv.bias\":{\"dtype\":\"F32\",\"shape\":[96]",
            "\"quant_conv.bias\":{\"dtype\":\"F32\",\"shape\":[95]");
  copy.edit(vae_file, "\"encoder.conv_in.bias\":{\"dtype\":\"F32\"", "\"encoder.conv_in.bias\":{\"dtype\":\"F7\"");
  const std::string text = read_text(copy.folder / text_file);
  write_text(copy.folder / text_file, text.substr(0, text.size() - 4));
  const Inspection inspection = copy.inspect();
  lists(inspection.components[0],
        "CHECKPOINT_DTYPE:proj_out.bias CHECKPOINT_MISSING_TENSOR:blocks.0.attn1.to_q.weight "
        "CHECKPOINT_SHAPE:proj_out.weight "
        "CHECKPOINT_UNKNOWN_TENSOR:blocks.9.attn1.to_q.weight ",
        "four faults in the transformer");
  lists(inspection.components[1], "CHECKPOINT_DTYPE:encoder.conv_in.bias CHECKPOINT_SHAPE:quant_conv.bias ",
        "two faults in the header of the vae");
  const ComponentInspection& cut = inspection.components[2];
  lists(cut, "CHECKPOINT_TRUNCATED:shared.weight ", "a file cut by four bytes is one problem");
  std::int64_t elements = 0;
  for (const TensorInspection& tensor : cut.tensors) elements += tensor.size_bytes / 4;
  tap::ok(cut.tensors.size() == 22 && cut.parameters == elements - 272 * 32,
          "its tensors are listed, the one without data is not counted");
  for (const ComponentInspection& component : inspection.components) {
    bool told = !component.config_json.empty();
    for (const Status& problem : component.problems)
      told = told && !problem.message.empty() && !problem.found.empty() && !problem.file.empty();
    tap::ok(told, component.name + ": every problem says file, expected and found");
  }
}

void configs_and_folders() {
  const Copy copy("franka_tiny");
  copy.edit_text("transformer/config.json", "\"num_layers\": 3", "\"num_layers\": 2");
  copy.edit_text("vae/config.json", "\"is_residual\": true", "\"is_residual\": false");
  std::filesystem::remove_all(copy.folder / "text_encoder");
  Inspection inspection = copy.inspect();
  const ComponentInspection& transformer = inspection.components[0];
  const bool all_unknown = std::all_of(transformer.problems.begin(), transformer.problems.end(), [](const Status& s) {
    return std::string(s.code) == "CHECKPOINT_UNKNOWN_TENSOR" && s.tensor.starts_with("blocks.2.");
  });
  tap::ok(transformer.problems.size() == 27 && all_unknown,
          "one layer more than config.json says: its 27 tensors are listed");
  lists(inspection.components[1], "CHECKPOINT_CONFIG: ", "an autoencoder of another form");
  tap::ok(inspection.components[1].tensors.size() == 196, "its tensors are listed all the same");
  tap::ok(!inspection.components[2].present && inspection.components[2].problems.empty(),
          "no text encoder is no problem");
  std::filesystem::remove_all(copy.folder / "vae");
  std::filesystem::remove(copy.folder / transformer_file);
  write_text(copy.folder / "transformer/config.json", "{]");
  inspection = copy.inspect();
  lists(inspection.components[0],
        "CHECKPOINT_CONFIG: CHECKPOINT_MISSING_FILE: ", "no weights and a broken config.json");
  tap::ok(inspection.components[0].config_json.empty(), "a config that is no JSON is not passed on");
  lists(inspection.components[1], "CHECKPOINT_MISSING_FILE: ", "no autoencoder");
  Inspection untouched;
  const Status status = inspect_checkpoint(copy.folder / "nothing", &untouched);
  tap::ok(std::string(status.code) == "CHECKPOINT_MISSING_FILE" && untouched.components.empty(),
          "no checkpoint at all");
}

void components_that_do_not_fit() {
  const Copy copy("franka_tiny");
  const std::string other = golden_checkpoint("robotwin_tiny");
  copy.edit_text("transformer/config.json", "\"text_dim\": 32", "\"text_dim\": 40");
  const Inspection inspection = copy.inspect();
  lists(inspection.components[2], "CHECKPOINT_CONFIG: ", "a text encoder of another width");
  lists(inspection.components[0], "CHECKPOINT_SHAPE:condition_embedder.text_embedder.linear_1.weight ",
        "the used text embedder is checked, the vestigial one is not");
}

// transformers writes the tied embedding table under either name.
void embedding_table_by_its_other_name() {
  const Copy copy("franka_tiny");
  const std::string path = copy.folder / "text_encoder/model.safetensors";
  const auto [header, data] = split(read_text(path));
  write_text(path, with_header(replaced(header, "\"shared.weight\"", "\"encoder.embed_tokens.weight\""), data));
  const Inspection inspection = copy.inspect();
  const ComponentInspection& encoder = inspection.components[2];
  tap::ok(encoder.problems.empty(), "the embedding table may have its other name");
  tap::ok(std::all_of(encoder.tensors.begin(), encoder.tensors.end(), [](const auto& tensor) { return tensor.used; }),
          "and is used under it");
}

void shards() {
  const Copy copy("nocfg_partial");
  const std::string second = copy.folder / "transformer/diffusion_pytorch_model-00002-of-00002.safetensors";
  std::filesystem::remove(second);
  Inspection inspection = copy.inspect();
  const ComponentInspection& transformer = inspection.components[0];
  std::map<std::string, int> codes;
  for (const Status& problem : transformer.problems) ++codes[problem.code];
  tap::ok(codes["CHECKPOINT_MISSING_FILE"] == 1 && transformer.problems[0].file == second &&
              transformer.files.size() == 1 && transformer.tensors.size() == 32,
          "a missing shard is named, the other one is listed");
  const Copy whole("nocfg_partial");
  const std::string index = "transformer/diffusion_pytorch_model.safetensors.index.json";
  whole.edit_text(index, "\"action_embedder.bias\"", "\"patch_embedding.bias\"");
  inspection = whole.inspect();
  lists(inspection.components[0],
        "CHECKPOINT_INDEX:action_embedder.bias CHECKPOINT_MISSING_TENSOR:patch_embedding.bias ",
        "an index that does not fit its shards");
}

void many_problems() {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "transformer");
  Writer writer;
  for (int i = 0; i < 1500; ++i) writer.add<float>("extra." + std::to_string(i), "F32", {}, {0});
  write_text(folder / transformer_file, writer.file());
  std::filesystem::copy(golden_checkpoint("franka_tiny") + "/transformer/config.json",
                        folder / "transformer/config.json");
  Inspection inspection;
  const bool good = inspect_checkpoint(folder.path(), &inspection).ok();
  tap::ok(good && inspection.components[0].problems.size() == 1001 &&
              inspection.components[0].problems.back().message == "and 606 more problems.",
          "a list of problems is cut at 1000 and counted");
}

}  // namespace

int main() {
  released_sizes();
  golden_checkpoints_are_whole();
  every_problem_is_listed();
  configs_and_folders();
  components_that_do_not_fit();
  embedding_table_by_its_other_name();
  shards();
  many_problems();
  return tap::finish();
}
