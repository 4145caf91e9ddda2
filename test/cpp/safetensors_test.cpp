// The checkpoint reader: golden files read right, and the same files, damaged in every way that the reader claims to
// notice, refused with the right code and with file, tensor, expected and found named.
#include "engine/safetensors.h"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint_files.h"
#include "tap.h"

using namespace checkpoint_files;
using premotor::Status;
using premotor::engine::diffusers_stems;
using premotor::engine::parse_safetensors;
using premotor::engine::scan_safetensors;
using premotor::engine::StoredDtype;
using premotor::engine::StoredTensor;
using premotor::engine::TensorStore;
using premotor::engine::transformers_stems;

namespace {

Status parse(const std::string& file, std::vector<StoredTensor>* out) {
  return parse_safetensors(as_bytes(file), "some/file.safetensors", out);
}

void refuses(const std::string& file, const std::string& code, const std::string& tensor, const std::string& name) {
  std::vector<StoredTensor> tensors;
  const Status status = parse(file, &tensors);
  const bool good = status.code == code && status.tensor == tensor && status.file == "some/file.safetensors" &&
                    !status.expected.empty() && !status.found.empty() && tensors.empty() &&
                    status.message.find(status.found) != std::string::npos;
  if (!tap::ok(good, "refuses " + name + ": " + code)) tap::note(std::string(status.code) + " " + status.message);
}

// A file of one tensor entry written by hand.
std::string one(const std::string& entry, std::size_t data_bytes = 8) {
  return with_header("{\"w\":" + entry + "}", std::string(data_bytes, '\1'));
}

void golden_files() {
  TensorStore store;
  const std::string path = golden_checkpoint("franka_tiny") + "/transformer/diffusion_pytorch_model.safetensors";
  const Status status = TensorStore::open_file(path, &store);
  if (!tap::ok(status.ok(), "a golden file opens")) return tap::note(status.message);
  tap::ok(store.tensors().size() == 110, "all 110 tensors");
  const StoredTensor* weight = store.find("blocks.1.ffn.net.0.proj.weight");
  tap::ok(weight != nullptr && weight->dtype == StoredDtype::f32 &&
              weight->shape == std::vector<std::int64_t>{96, 48} && weight->elements() == 96 * 48 &&
              weight->size_bytes == 96 * 48 * 4 && store.file_of(*weight) == path,
          "a tensor's dtype, shape, size and file");
  tap::ok(store.find("blocks.1.ffn.net.0.proj.weigh") == nullptr && store.find("") == nullptr &&
              store.find("zzz") == nullptr,
          "absent names are not found");
  bool all_found = true;
  for (const StoredTensor& tensor : store.tensors()) all_found = all_found && store.find(tensor.name) == &tensor;
  tap::ok(all_found, "every tensor is found by its name");
  // The header says where the first tensor lies; compare its bytes with the file's own.
  const auto [header, data] = split(read_text(path));
  const StoredTensor* first = store.find("action_embedder.bias");
  const std::string entry = "\"action_embedder.bias\":{\"dtype\":\"F32\",\"shape\":[48],\"data_offsets\":[";
  const std::size_t at = header.find(entry);
  if (!tap::ok(first != nullptr && at != std::string::npos, "the header names action_embedder.bias")) return;
  const std::size_t begin = std::stoull(header.substr(at + entry.size()));
  tap::ok(std::memcmp(first->data, data.data() + begin, first->size_bytes) == 0, "a tensor's bytes are the file's");
  const float before = *reinterpret_cast<const float*>(weight->data);
  store.release_pages(*weight);
  tap::ok(*reinterpret_cast<const float*>(weight->data) == before, "released pages read the same");
}

void golden_folders() {
  for (const std::string& name : golden_checkpoints()) {
    TensorStore transformer, vae, text;
    const std::string folder = golden_checkpoint(name);
    const bool opened = TensorStore::open_folder(folder + "/transformer", diffusers_stems, &transformer).ok() &&
                        TensorStore::open_folder(folder + "/vae", diffusers_stems, &vae).ok() &&
                        TensorStore::open_folder(folder + "/text_encoder", transformers_stems, &text).ok();
    tap::ok(opened && vae.tensors().size() == 196 && text.tensors().size() == 22, name + ": every component opens");
    const std::size_t files = name == "nocfg_partial" ? 2 : 1;
    tap::ok(transformer.files().size() == files, name + ": " + std::to_string(files) + " transformer file(s)");
  }
}

void valid_corners() {
  std::vector<StoredTensor> tensors;
  tap::ok(parse(with_header("{}"), &tensors).ok() && tensors.empty(), "a file without tensors");
  tap::ok(parse(with_header(R"({"__metadata__":{"format":"pt"}}   )"), &tensors).ok(), "metadata only, padded header");
  Writer writer;
  writer.add<float>("scalar", "F32", {}, {1.5f})
      .add<float>("none", "F32", {0, 7}, {})
      .add<std::int8_t>("last", "I8", {3}, {1, 2, 3});
  tap::ok(parse(writer.file(1), &tensors).ok() && tensors.size() == 3 && tensors[0].elements() == 1 &&
              tensors[1].elements() == 0 && tensors[2].elements() == 3,
          "a scalar, an empty tensor, unaligned data");
  const std::string order =
      R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})";
  tensors.clear();
  tap::ok(parse(with_header(order, "wxyz"), &tensors).ok() && tensors[0].name == "b" &&
              static_cast<char>(tensors[0].data[0]) == 'y' && static_cast<char>(tensors[1].data[0]) == 'w',
          "tensors in any order of data");
  const char* names[] = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"};
  const std::int64_t sizes[] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 1};
  bool all = true;
  for (std::size_t i = 0; i < 10; ++i) {
    tensors.clear();
    const std::string entry = std::string(R"({"dtype":")") + names[i] + R"(","shape":[8],"data_offsets":[0,)" +
                              std::to_string(8 * sizes[i]) + "]}";
    all = all && parse(one(entry, static_cast<std::size_t>(8 * sizes[i])), &tensors).ok() &&
          std::string(name_of(tensors[0].dtype)) == names[i] && bytes_of(tensors[0].dtype) == sizes[i];
  }
  tap::ok(all, "all ten dtypes");
}

void damaged_headers() {
  refuses("", "CHECKPOINT_TRUNCATED", "", "an empty file");
  refuses("1234567", "CHECKPOINT_TRUNCATED", "", "seven bytes");
  refuses(std::string("\x10\0\0\0\0\0\0\0{}", 10), "CHECKPOINT_TRUNCATED", "", "a header longer than the file");
  refuses(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "CHECKPOINT_HEADER", "", "a header of 2^64 - 1 bytes");
  refuses(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10), "CHECKPOINT_HEADER", "", "a header of 100 000 001 bytes");
  refuses("version https://git-lfs.github.com/spec/v1\n", "CHECKPOINT_HEADER", "", "a Git LFS pointer");
  refuses(with_header(""), "CHECKPOINT_HEADER", "", "an empty header");
  refuses(with_header("[]"), "CHECKPOINT_HEADER", "", "a header that is an array");
  refuses(with_header(" {}"), "CHECKPOINT_HEADER", "", "a header that begins with white space");
  refuses(with_header("{\"a\":"), "CHECKPOINT_HEADER", "", "a header that is cut JSON");
  refuses(with_header(R"({"__metadata__":[]})"), "CHECKPOINT_HEADER", "", "metadata that is no object");
  refuses(with_header(R"({"__metadata__":{"a":1}})"), "CHECKPOINT_HEADER", "", "metadata that is no string");
  const std::string entry = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  refuses(with_header("{\"w\":" + entry + ",\"w\":" + entry + "}", "12345678"), "CHECKPOINT_HEADER", "",
          "a tensor listed twice");
  refuses(one("7"), "CHECKPOINT_HEADER", "w", "an entry that is no object");
  refuses(one(R"({"shape":[2],"data_offsets":[0,8]})"), "CHECKPOINT_HEADER", "w", "no dtype");
  refuses(one(R"({"dtype":"F32","data_offsets":[0,8]})"), "CHECKPOINT_HEADER", "w", "no shape");
  refuses(one(R"({"dtype":"F32","shape":[2]})"), "CHECKPOINT_HEADER", "w", "no offsets");
  refuses(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4,8]})"), "CHECKPOINT_HEADER", "w", "three offsets");
  refuses(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8.0]})"), "CHECKPOINT_HEADER", "w",
          "a fractional offset");
  refuses(one(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"), "CHECKPOINT_HEADER", "w", "a negative offset");
  refuses(one(R"({"dtype":"F32","shape":[0],"data_offsets":[8,0]})"), "CHECKPOINT_HEADER", "w",
          "offsets back to front");
  refuses(one(R"({"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]})"), "CHECKPOINT_DTYPE", "w", "an unknown dtype");
  refuses(one(R"({"dtype":"f32","shape":[2],"data_offsets":[0,8]})"), "CHECKPOINT_DTYPE", "w",
          "a dtype in small letters");
}

void damaged_layouts() {
  refuses(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), "CHECKPOINT_SHAPE", "w",
          "fewer bytes than the shape");
  refuses(one(R"({"dtype":"F16","shape":[2],"data_offsets":[0,8]})"), "CHECKPOINT_SHAPE", "w",
          "more bytes than the shape");
  refuses(one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "CHECKPOINT_SHAPE", "w", "a negative size");
  refuses(one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "CHECKPOINT_SHAPE", "w", "a fractional size");
  refuses(one(R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})"), "CHECKPOINT_SHAPE", "w",
          "a size that is a string");
  refuses(one(R"({"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]})"), "CHECKPOINT_SHAPE", "w",
          "a product past 2^63");
  refuses(one(R"({"dtype":"F64","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})"), "CHECKPOINT_SHAPE", "w",
          "a product past 2^63 that a zero hides");
  refuses(one(R"({"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,8]})"), "CHECKPOINT_SHAPE", "w",
          "a size past int64");
  refuses(one(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,8],"data_offsets":[0,8]})"), "CHECKPOINT_SHAPE",
          "w", "17 dimensions");
  refuses(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 7), "CHECKPOINT_TRUNCATED", "w",
          "data cut by a byte");
  refuses(one(R"({"dtype":"F32","shape":[2],"data_offsets":[9223372036854775799,9223372036854775807]})"),
          "CHECKPOINT_OVERSIZED", "w", "offsets at the end of int64");
  refuses(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 9), "CHECKPOINT_OVERSIZED", "", "a trailing byte");
  refuses(one(R"({"dtype":"F32","shape":[2],"data_offsets":[1,9]})", 9), "CHECKPOINT_OVERSIZED", "w",
          "a hole at the front");
  const std::string a = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)";
  refuses(with_header(a + R"("b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}})", std::string(9, 'x')),
          "CHECKPOINT_OVERSIZED", "b", "a hole between tensors");
  refuses(with_header(a + R"("b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})", std::string(7, 'x')),
          "CHECKPOINT_OVERLAP", "b", "an overlap");
  refuses(with_header(a + R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", std::string(4, 'x')),
          "CHECKPOINT_OVERLAP", "b", "a shared range");
  refuses(with_header(a + R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", std::string(4, 'x')),
          "CHECKPOINT_OVERLAP", "b", "a range within another");
}

// A golden file cut at many places is always noticed: valid becoming invalid.
void truncations() {
  const std::string file = read_text(golden_checkpoint("franka_tiny") + "/text_encoder/model.safetensors");
  int refused = 0, tried = 0;
  for (std::size_t cut = 0; cut < file.size(); cut += cut < 3000 ? 1 : 997) {
    std::vector<StoredTensor> tensors;
    const Status status = parse(file.substr(0, cut), &tensors);
    ++tried;
    refused += std::string(status.code) == "CHECKPOINT_TRUNCATED" && tensors.empty() ? 1 : 0;
  }
  tap::ok(tried > 3000 && refused == tried, "a golden file cut anywhere is CHECKPOINT_TRUNCATED");
}

void scanning_goes_on() {
  const std::string header =
      R"({"a":{"dtype":"F8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[5],"data_offsets":[4,8]},)"
      R"("c":{"dtype":"U8","shape":[2],"data_offsets":[8,10]},"d":{"dtype":"U8","shape":[2],"data_offsets":[9,11]},)"
      R"("e":{"dtype":"U8","shape":[2],"data_offsets":[11,13]},"f":{"dtype":"U8","shape":[2],"data_offsets":[13,15]}})";
  std::vector<StoredTensor> tensors;
  std::vector<Status> problems;
  const std::string file = with_header(header, std::string(12, 'x'));
  scan_safetensors(as_bytes(file), "f", &tensors, &problems);
  std::string found;
  for (const Status& status : problems) found += std::string(status.code) + ":" + status.tensor + " ";
  tap::ok(found == "CHECKPOINT_DTYPE:a CHECKPOINT_SHAPE:b CHECKPOINT_OVERLAP:d CHECKPOINT_TRUNCATED:e ",
          "a scan lists every problem once");
  tap::note(found);
  tap::ok(tensors.size() == 5 && tensors[0].name == "b" && tensors[0].data == nullptr && tensors[1].data != nullptr &&
              tensors[3].data == nullptr,
          "and keeps the readable tensors, without data where it is missing");
}

// --- folders ---

class Shards {
 public:
  Shards() {
    std::filesystem::copy(golden_checkpoint("nocfg_partial") + "/transformer", folder.path(),
                          std::filesystem::copy_options::recursive);
  }
  void index(const std::string& from, const std::string& to) const {
    write_text(index_path(), replaced(read_text(index_path()), from, to));
  }
  [[nodiscard]] std::string index_path() const { return folder / "diffusion_pytorch_model.safetensors.index.json"; }
  [[nodiscard]] std::string shard(int number) const {
    return folder / ("diffusion_pytorch_model-0000" + std::to_string(number) + "-of-00002.safetensors");
  }
  // Opening must fail with this code and name this file and tensor.
  void refuses(const std::string& code, const std::string& file, const std::string& tensor,
               const std::string& name) const {
    TensorStore store;
    const Status status = TensorStore::open_folder(folder.path(), diffusers_stems, &store);
    const bool good = status.code == code && status.file == file && status.tensor == tensor &&
                      !status.expected.empty() && !status.found.empty() && store.tensors().empty();
    if (!tap::ok(good, "refuses " + name + ": " + code)) tap::note(std::string(status.code) + " " + status.message);
  }
  TempFolder folder;
};

void damaged_shards() {
  const std::string first = "diffusion_pytorch_model-00001-of-00002.safetensors";
  {
    const Shards shards;
    TensorStore store;
    tap::ok(
        TensorStore::open_folder(shards.folder.path(), diffusers_stems, &store).ok() && store.tensors().size() == 83,
        "a copy opens");
    std::filesystem::remove(shards.shard(2));
    shards.refuses("CHECKPOINT_MISSING_FILE", shards.shard(2), "", "a missing shard");
  }
  {
    const Shards shards;
    shards.index("\"action_embedder.bias\"", "\"action_embedder.wrong\"");
    shards.refuses("CHECKPOINT_INDEX", shards.shard(1), "action_embedder.bias",
                   "a tensor that the index does not list");
  }
  {
    const Shards shards;
    shards.index("\"weight_map\": {", "\"weight_map\": {\n\"extra.weight\": \"" + first + "\",");
    shards.refuses("CHECKPOINT_MISSING_TENSOR", shards.shard(1), "extra.weight", "a tensor that its shard lacks");
  }
  {
    const Shards shards;
    shards.index("\"action_embedder.bias\": \"diffusion_pytorch_model-00001",
                 "\"action_embedder.bias\": \"diffusion_pytorch_model-00002");
    shards.refuses("CHECKPOINT_INDEX", shards.shard(1), "action_embedder.bias",
                   "a tensor in another shard than the index says");
  }
  for (const std::string& name :
       {"../" + first, "/etc/" + first, std::string(".."), std::string("a\\\\b"), std::string()}) {
    const Shards shards;
    shards.index("\"action_embedder.bias\": \"" + first, "\"action_embedder.bias\": \"" + name);
    shards.refuses("CHECKPOINT_INDEX", shards.index_path(), "action_embedder.bias", "the shard name '" + name + "'");
  }
  {
    const Shards shards;
    write_text(shards.index_path(), "{\"metadata\": {}}");
    shards.refuses("CHECKPOINT_INDEX", shards.index_path(), "", "an index without weight_map");
    write_text(shards.index_path(), "{");
    shards.refuses("CHECKPOINT_INDEX", shards.index_path(), "", "an index that is no JSON");
    write_text(shards.index_path(), "");
    shards.refuses("CHECKPOINT_TRUNCATED", shards.index_path(), "", "an empty index");
  }
  {
    const Shards shards;
    const std::string file = read_text(shards.shard(2));
    write_text(shards.shard(2), file.substr(0, file.size() - 1));
    TensorStore store;
    const Status status = TensorStore::open_folder(shards.folder.path(), diffusers_stems, &store);
    tap::ok(
        std::string(status.code) == "CHECKPOINT_TRUNCATED" && status.file == shards.shard(2) && !status.tensor.empty(),
        "refuses a shard cut by one byte: CHECKPOINT_TRUNCATED");
  }
}

void missing_files() {
  const TempFolder folder;
  TensorStore store;
  Status status = TensorStore::open_folder(folder.path(), diffusers_stems, &store);
  tap::ok(std::string(status.code) == "CHECKPOINT_MISSING_FILE" && status.file == folder.path(), "an empty folder");
  status = TensorStore::open_folder(folder / "none", diffusers_stems, &store);
  tap::ok(std::string(status.code) == "CHECKPOINT_MISSING_FILE" && status.found == "no such folder",
          "a missing folder");
  status = TensorStore::open_file(folder / "none.safetensors", &store);
  tap::ok(
      std::string(status.code) == "CHECKPOINT_MISSING_FILE" && status.message.find("No such file") != std::string::npos,
      "a missing file");
  std::filesystem::create_directory(folder / "model.safetensors");
  status = TensorStore::open_folder(folder.path(), transformers_stems, &store);
  tap::ok(std::string(status.code) == "CHECKPOINT_MISSING_FILE" && status.found == "it is a folder",
          "a folder in place of a file");
  write_text(folder / "diffusion_pytorch_model.safetensors", "");
  status = TensorStore::open_folder(folder.path(), diffusers_stems, &store);
  tap::ok(std::string(status.code) == "CHECKPOINT_TRUNCATED", "an empty file");
}

}  // namespace

int main() {
  golden_files();
  golden_folders();
  valid_corners();
  damaged_headers();
  damaged_layouts();
  truncations();
  scanning_goes_on();
  damaged_shards();
  missing_files();
  return tap::finish();
}
