// How much memory the text encoder needs: writes a random UMT5 encoder (by default layers of the released XXL size,
// bfloat16, and a sparse embedding table of its full size) to a temporary folder, encodes a prompt from it with a cold
// page cache, and reports peak resident memory and time. Fails when the peak passes --limit-MiB or the result is not
// reproducible. Usage:
//   text_encoder_memory [--tiny] [--layers N] [--tokens N] [--threads N] [--precision f32|bf16] [--stored bf16|f32]
//   [--limit-MiB N]
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/text_encoder.h"
#include "ops/cpu/cpu_ops.h"

namespace fs = std::filesystem;
using namespace premotor;
using namespace premotor::engine;

namespace {

struct Options {
  std::int64_t d_model = 4096, d_kv = 64, d_ff = 10240, heads = 64, vocab = 256384;
  std::int64_t layers = 4, tokens = 64, limit_MiB = 1024;
  int threads = 2;
  bool bf16 = false;        // compute as deployed in bfloat16
  bool stored_f32 = false;  // element type of the files
};

struct Tensor {
  std::string name;
  std::vector<std::int64_t> shape;
  enum { random, ones, hole } fill = random;

  [[nodiscard]] std::int64_t elements() const {
    std::int64_t product = 1;
    for (const std::int64_t extent : shape) product *= extent;
    return product;
  }
};

std::vector<Tensor> tensors_of(const Options& o) {
  const std::int64_t inner = o.heads * o.d_kv;
  std::vector<Tensor> list;
  for (std::int64_t layer = 0; layer < o.layers; ++layer) {
    const std::string block = "encoder.block." + std::to_string(layer) + ".layer.";
    for (const char* name : {"q", "k", "v"})
      list.push_back({block + "0.SelfAttention." + name + ".weight", {inner, o.d_model}});
    list.push_back({block + "0.SelfAttention.o.weight", {o.d_model, inner}});
    list.push_back({block + "0.SelfAttention.relative_attention_bias.weight", {32, o.heads}});
    list.push_back({block + "0.layer_norm.weight", {o.d_model}, Tensor::ones});
    list.push_back({block + "1.DenseReluDense.wi_0.weight", {o.d_ff, o.d_model}});
    list.push_back({block + "1.DenseReluDense.wi_1.weight", {o.d_ff, o.d_model}});
    list.push_back({block + "1.DenseReluDense.wo.weight", {o.d_model, o.d_ff}});
    list.push_back({block + "1.layer_norm.weight", {o.d_model}, Tensor::ones});
  }
  list.push_back({"encoder.final_layer_norm.weight", {o.d_model}, Tensor::ones});
  list.push_back({"shared.weight", {o.vocab, o.d_model}, Tensor::hole});
  return list;
}

std::string header_of(const std::vector<Tensor>& list, std::int64_t item_bytes) {
  std::string json = "{";
  std::int64_t offset = 0;
  for (const Tensor& tensor : list) {
    json += json.size() > 1 ? ",\"" : "\"";
    json += tensor.name + "\":{\"dtype\":\"" + (item_bytes == 4 ? "F32" : "BF16") + "\",\"shape\":[";
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) json += (i == 0 ? "" : ",") + std::to_string(tensor.shape[i]);
    const std::int64_t end = offset + tensor.elements() * item_bytes;
    json += "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  json += "}";
  json.resize((json.size() + 8 + 63) / 64 * 64 - 8, ' ');  // data starts on a multiple of 64 bytes
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  return length + json;
}

// xorshift64*: random signs and mantissas of values between 2^-7 and 2^-6, about the spread of trained weights of this
// width.
struct Random {
  std::uint64_t state = 0x9e3779b97f4a7c15u;
  std::uint16_t bf16() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return static_cast<std::uint16_t>((state * 0x2545f4914f6cdd1du >> 48 & 0x807fu) | 0x3c00u);
  }
};

// Streams the file through a small buffer, so that writing it does not show in this process's peak.
bool write_weights(const std::string& path, const Options& o) {
  const std::vector<Tensor> list = tensors_of(o);
  const std::int64_t item = o.stored_f32 ? 4 : 2;
  std::ofstream out(path, std::ios::binary);
  out << header_of(list, item);
  Random random;
  std::vector<char> buffer(std::size_t{1} << 20);
  for (const Tensor& tensor : list) {
    std::int64_t left = tensor.elements();
    if (tensor.fill == Tensor::hole) {
      out.seekp((left - 1) * item, std::ios::cur);
      left = 1;
    }
    while (left > 0) {
      const std::int64_t count = std::min<std::int64_t>(left, static_cast<std::int64_t>(buffer.size()) / item);
      for (std::int64_t i = 0; i < count; ++i) {
        const std::uint16_t bits = tensor.fill == Tensor::random ? random.bf16() : 0x3f80u;
        const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
        std::memcpy(buffer.data() + i * item, o.stored_f32 ? static_cast<const void*>(&wide) : &bits,
                    static_cast<std::size_t>(item));
      }
      out.write(buffer.data(), count * item);
      left -= count;
    }
  }
  return static_cast<bool>(out.flush());
}

bool write_config(const std::string& path, const Options& o) {
  std::ofstream out(path);
  out << "{\"model_type\": \"umt5\", \"feed_forward_proj\": \"gated-gelu\", \"vocab_size\": " << o.vocab
      << ", \"d_model\": " << o.d_model << ", \"d_kv\": " << o.d_kv << ", \"d_ff\": " << o.d_ff
      << ", \"num_layers\": " << o.layers << ", \"num_heads\": " << o.heads
      << ", \"relative_attention_num_buckets\": 32, \"relative_attention_max_distance\": 128, \"layer_norm_epsilon\": "
         "1e-6}";
  return static_cast<bool>(out.flush());
}

void drop_page_cache(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  (void)::fdatasync(file);
  (void)::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

// A field of /proc/self/status in MiB; -1 where the system has none.
double status_MiB(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::atof(line.c_str() + field.size() + 1) / 1024;
  }
  return -1;
}

// FNV-1a over the bits of the result.
std::uint64_t hash_of(const std::vector<float>& values) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const float value : values) hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001b3u;
  return hash;
}

bool parse(int count, char** arguments, Options* o) {
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--tiny") {
      o->d_model = 1024;
      o->d_ff = 2816;
      o->heads = 16;
      o->vocab = 4096;
      o->layers = 6;
      o->limit_MiB = 64;
      continue;
    }
    if (++i >= count) return false;
    const std::string value = arguments[i];
    if (name == "--layers")
      o->layers = std::atoll(value.c_str());
    else if (name == "--tokens")
      o->tokens = std::atoll(value.c_str());
    else if (name == "--threads")
      o->threads = std::atoi(value.c_str());
    else if (name == "--limit-MiB")
      o->limit_MiB = std::atoll(value.c_str());
    else if (name == "--precision")
      o->bf16 = value == "bf16";
    else if (name == "--stored")
      o->stored_f32 = value == "f32";
    else
      return false;
  }
  return o->layers > 0 && o->tokens > 0 && o->tokens <= text_tokens_max && o->threads > 0;
}

int measure(const std::string& folder, const Options& o) {
  const std::string weights = folder + "/model.safetensors";
  if (!write_config(folder + "/config.json", o) || !write_weights(weights, o)) {
    std::fprintf(stderr, "cannot write %s: is there space?\n", folder.c_str());
    return 1;
  }
  ops::CpuOps backend(o.threads);
  std::unique_ptr<TextEncoder> encoder;
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < o.tokens; ++i) ids.push_back(static_cast<std::int32_t>(i * 7919 % o.vocab));
  std::vector<float> hidden[2];
  double seconds[2] = {};
  for (int run = 0; run < 2; ++run) {
    if (run == 0) drop_page_cache(weights);
    const auto start = std::chrono::steady_clock::now();
    Status status = TextEncoder::open(folder, o.bf16 ? WeightPrecision::bf16 : WeightPrecision::f32,
                                      o.bf16 ? ops::Rounding::bf16 : ops::Rounding::none, backend, &encoder);
    if (status.ok()) status = encoder->encode(ids, &hidden[run]);
    seconds[run] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!status.ok()) {
      std::fprintf(stderr, "%s: %s\n", status.code, status.message.c_str());
      return 1;
    }
  }
  const bool finite = std::all_of(hidden[0].begin(), hidden[0].end(), [](float v) { return std::isfinite(v); });
  const double peak_MiB = status_MiB("VmHWM"), file_MiB = static_cast<double>(fs::file_size(weights)) / 1048576;
  const bool reproducible = hidden[0] == hidden[1];
  std::printf("%lld layers, d_model %lld, d_ff %lld, %lld tokens, stored %s, precision %s, %s, %d threads\n",
              static_cast<long long>(o.layers), static_cast<long long>(o.d_model), static_cast<long long>(o.d_ff),
              static_cast<long long>(o.tokens), o.stored_f32 ? "f32" : "bf16", o.bf16 ? "bf16" : "f32", backend.name(),
              o.threads);
  std::printf("file %.0f MiB; peak resident (VmHWM) %.0f MiB, limit %lld MiB\n", file_MiB, peak_MiB,
              static_cast<long long>(o.limit_MiB));
  std::printf("cold %.2f s, warm %.2f s (%.3f s a layer); result %016llx, %s\n", seconds[0], seconds[1],
              seconds[1] / static_cast<double>(o.layers), static_cast<unsigned long long>(hash_of(hidden[0])),
              finite && reproducible ? "finite and reproducible" : "WRONG");
  return finite && reproducible && peak_MiB <= static_cast<double>(o.limit_MiB) ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  if (!parse(count, arguments, &options)) {
    std::fprintf(
        stderr,
        "usage: text_encoder_memory [--tiny] [--layers N] [--tokens 1..512] [--threads N] [--precision f32|bf16] "
        "[--stored bf16|f32] [--limit-MiB N]\n");
    return 2;
  }
  std::string folder = (fs::temp_directory_path() / "premotor-text-memory-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) {
    std::fprintf(stderr, "cannot make a temporary folder %s\n", folder.c_str());
    return 1;
  }
  const int result = measure(folder, options);
  fs::remove_all(folder);
  return result;
}
