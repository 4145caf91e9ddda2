// Single passes and whole guided chunks of the transformer at three sizes in every precision, each with its work
// counted from shapes and its share of the roofline that this machine's ceilings, measured in the same run, leave it.
// Every precision is verified against float32 on the baseline kernels before it is timed. With --serve it runs passes
// on request, for bench/peers.ts. Usage: see below and bench/README.md.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "bench/bench_values.h"
#include "bench/passes_rig.h"
#include "ops/cpu/processor.h"

using namespace passes;

namespace {

constexpr const char* kUsage =
    "usage: passes [--tiny] [--json] [--threads N] [--sizes tiny,mid,block5b] [--precision f32,bf16] [--seconds S]\n"
    "              [--only TEXT] [--models DIR] [--cache DIR]\n"
    "       passes --serve SIZE PRECISION [--threads N] ...   reads lines: video ROWS | action ROWS | commit | chunk\n"
    "              VIDEO-STEPS ACTION-STEPS, each with an optional file for the result in float32\n"
    "       passes --list   precisions and sizes\n";

struct Options {
  bool is_tiny = false, is_json = false, is_list = false;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  double seconds = 2;  // for the repetitions of one case, of which there are 3 at least, 2 of a chunk
  std::string only;    // cases whose name contains this, as "mid bf16 action"
  std::string sizes = "tiny,mid,block5b", precisions;
  std::string models = "models/tabletop", cache = "build/bench-cache";  // from the working directory
  std::string serve_size, serve_precision;
};

struct Ceilings {
  ops::ceilings::Bandwidth bandwidth;
  ops::ceilings::Peaks peak;

  [[nodiscard]] double of(Peak kind) const {
    if (kind == Peak::bf16 && peak.bf16_dot > 0) return peak.bf16_dot;
    return kind == Peak::int8 && peak.int8_dot > 0 ? peak.int8_dot : peak.f32;
  }
  // Seconds that the work takes at least: matrix products on the dot product of their precision; attention over a
  // cache that is not f32 multiplies in bf16.
  [[nodiscard]] double least_s(const Work& work, const Precision& precision) const {
    const Peak attention = precision.cache == ops::Dtype::f32 ? Peak::f32 : Peak::bf16;
    const double products_s = work.linear_flops / (of(precision.peak) * 1e9);
    return std::max(products_s + work.attention_flops / (of(attention) * 1e9), work.bytes() / (bandwidth.best() * 1e9));
  }
};

// A pass or a chunk.
struct Case {
  enum Kind : std::uint8_t { video, action, commit, chunk } kind;
  std::int64_t rows;                       // guidance rows
  std::int64_t video_steps, action_steps;  // of a chunk

  [[nodiscard]] std::string name() const {
    if (kind == chunk) return "chunk " + std::to_string(video_steps) + "V/" + std::to_string(action_steps) + "A";
    if (kind == commit) return "commit";
    return std::string(kind == video ? "video" : "action") + (rows == 1 ? ", 1 row" : ", 2 rows");
  }
  // Runs it and returns its result; of a commit that is empty unless it is wanted, since reading it takes time.
  [[nodiscard]] std::vector<float> run(Rig* rig, bool wants_entries) const {
    std::vector<float> entries;
    if (kind == chunk) return rig->chunk(video_steps, action_steps);
    if (kind == commit)
      rig->commit(wants_entries ? &entries : nullptr);
    else
      return rig->denoise(kind == video ? Modality::video : Modality::action, rows);
    return entries;
  }
};

// What verification compares: one row of each modality, and what a commit leaves. Then what is timed besides.
constexpr Case kVerified[] = {{Case::video, 1, 0, 0}, {Case::action, 1, 0, 0}, {Case::commit, 2, 0, 0}};
constexpr Case kCases[] = {{Case::video, 1, 0, 0},  {Case::video, 2, 0, 0},  {Case::action, 1, 0, 0},
                           {Case::commit, 2, 0, 0}, {Case::chunk, 2, 5, 10}, {Case::chunk, 2, 2, 4}};

struct Row {
  std::string size, precision, name;
  std::int64_t repeats;
  double min_ms, p50_ms, p99_ms, max_ms, roofline_ms;
  Work work;
  double error;  // of the verification that the case is closest to
  std::uint32_t hash;
};

bool contains(const std::string& list, const std::string& name) {
  return ("," + list + ",").find("," + name + ",") != std::string::npos;
}

std::string transformer_of(const Options& options, const Size& size) {
  if (size.is_shipped) return options.models + "/transformer";
  return (folder_of(options.cache, size) / "transformer").string();
}

// Results of kVerified in float32 on the kernels that every processor has.
std::vector<std::vector<float>> oracle(const Options& options, const Size& size) {
  ops::CpuOps ops(options.threads, ops::baseline::kernels(), ops::baseline::packed_kernels());
  Rig rig(size, kPrecisions[0], transformer_of(options, size), ops);
  std::vector<std::vector<float>> results;
  for (const Case& one : kVerified) results.push_back(one.run(&rig, true));
  return results;
}

// The first run of a pass warms up and gives the result; a chunk is long enough to be timed at once. The peaks are the
// larger of those before and after: a processor's clock moves in the minutes that all cases take.
Row measure(Rig* rig, const Size& size, const Case& one, const Options& options, const Ceilings& ceiling) {
  std::vector<double> times_s;
  std::vector<float> result;
  const std::size_t least = options.is_tiny || one.kind == Case::chunk ? 2 : 3;
  Ceilings around{ceiling.bandwidth, find_peaks(options.threads, options.is_tiny)};
  const double began = ops::ceilings::now_s();
  while (times_s.size() < least || (ops::ceilings::now_s() - began < options.seconds && times_s.size() < 2000)) {
    const bool is_first = result.empty();
    rig->take_work();
    const double start = ops::ceilings::now_s();
    std::vector<float> found = one.run(rig, is_first);
    const double took_s = ops::ceilings::now_s() - start;
    if (!is_first || one.kind == Case::chunk) times_s.push_back(took_s);
    if (is_first) result = std::move(found);
  }
  std::sort(times_s.begin(), times_s.end());
  const auto at = [&](double part) {
    return 1e3 * times_s[static_cast<std::size_t>(part * double(times_s.size() - 1))];
  };
  Row row{size.name, rig->precision().name, one.name(), std::ssize(times_s), at(0), at(0.5), at(0.99), at(1), 0, {},
          0,         hash_of(result)};
  row.work = rig->take_work();
  around.peak = larger(around.peak, find_peaks(options.threads, options.is_tiny));
  row.roofline_ms = 1e3 * around.least_s(row.work, rig->precision());
  return row;
}

// All cases of one size and precision; false when a result is wrong.
bool bench(const Options& options, const Size& size, const Precision& precision,
           const std::vector<std::vector<float>>& wanted, const Ceilings& ceiling, std::vector<Row>* rows) {
  ops::CpuOps ops(options.threads);
  Rig rig(size, precision, transformer_of(options, size), ops);
  double errors[3] = {};
  for (std::size_t i = 0; i < std::size(kVerified); ++i) {
    errors[i] = relative_rms(kVerified[i].run(&rig, true), wanted[i]);
    if (errors[i] <= precision.error_max) continue;
    std::fprintf(stderr, "FAILED: %s %s %s is off by %.3g, more than %.3g\n", size.name, precision.name,
                 kVerified[i].name().c_str(), errors[i], precision.error_max);
    return false;
  }
  for (const Case& one : kCases) {
    const std::string name = std::string(size.name) + " " + precision.name + " " + one.name();
    if (name.find(options.only) == std::string::npos) continue;
    rows->push_back(measure(&rig, size, one, options, ceiling));
    rows->back().error = one.kind == Case::chunk ? *std::max_element(errors, errors + 3) : errors[one.kind];
    if (!options.is_json) std::fprintf(stderr, "%s: %.1f ms\n", name.c_str(), rows->back().p50_ms);
  }
  return true;
}

Ceilings find_ceilings(const Options& options) {
  const int tries = options.is_tiny ? 1 : 5;
  return {ops::ceilings::bandwidth(options.threads, options.is_tiny ? 1 << 20 : 256 << 20, tries),
          find_peaks(options.threads, options.is_tiny)};
}

void print_json(const Options& options, const Ceilings& c, const std::vector<Row>& rows) {
  std::printf("{\"processor\": \"%s\", \"kernels\": \"%s\", \"packed\": \"%s\", \"threads\": %d,\n",
              ops::processor_name().c_str(), ops::cpu_kernels().name, ops::cpu_packed_kernels().name, options.threads);
  std::printf(" \"ceilings\": {\"triad_GBps\": %.2f, \"read_GBps\": %.2f, \"f32_GFLOPs\": %.1f, ", c.bandwidth.triad,
              c.bandwidth.read, c.peak.f32);
  std::printf("\"bf16_dot_GFLOPs\": %.1f, \"int8_dot_GOPs\": %.1f},\n \"rows\": [", c.peak.bf16_dot, c.peak.int8_dot);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& r = rows[i];
    std::printf("%s\n  {\"size\": \"%s\", \"precision\": \"%s\", \"pass\": \"%s\", \"repeats\": %lld, ",
                i == 0 ? "" : ",", r.size.c_str(), r.precision.c_str(), r.name.c_str(),
                static_cast<long long>(r.repeats));
    std::printf("\"min_ms\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, ", r.min_ms, r.p50_ms,
                r.p99_ms, r.max_ms);
    std::printf("\"linear_GFLOP\": %.5g, \"attention_GFLOP\": %.5g, \"weight_MB\": %.5g, \"cache_MB\": %.5g, ",
                r.work.linear_flops / 1e9, r.work.attention_flops / 1e9, r.work.weight_bytes / 1e6,
                r.work.cache_bytes / 1e6);
    std::printf("\"roofline_ms\": %.5g, \"roofline_share\": %.4f, \"error\": %.3g, \"hash\": \"%08x\"}", r.roofline_ms,
                r.roofline_ms / r.p50_ms, r.error, r.hash);
  }
  std::printf("\n ]}\n");
}

void print_markdown(const Options& options, const Ceilings& c, const std::vector<Row>& rows) {
  std::printf("%s; %s and %s, %d threads\n\n", ops::processor_name().c_str(), ops::cpu_kernels().name,
              ops::cpu_packed_kernels().name, options.threads);
  std::printf("| ceiling | |\n|---|---|\n| triad, GB/s | %.1f |\n| read, GB/s | %.1f |\n| f32, GFLOP/s | %.0f |\n",
              c.bandwidth.triad, c.bandwidth.read, c.peak.f32);
  if (c.peak.bf16_dot > 0) std::printf("| bf16 dot product, GFLOP/s | %.0f |\n", c.peak.bf16_dot);
  if (c.peak.int8_dot > 0) std::printf("| int8 dot product, GOP/s | %.0f |\n", c.peak.int8_dot);
  std::printf(
      "\n| size | precision | pass | p50 ms | p99 ms | GFLOP | MB | GFLOP/s | roofline ms | of its roofline | error | "
      "hash |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|\n");
  for (const Row& r : rows)
    std::printf("| %s | %s | %s | %.3f | %.3f | %.4g | %.4g | %.1f | %.3f | %.0f %% | %.1e | %08x |\n", r.size.c_str(),
                r.precision.c_str(), r.name.c_str(), r.p50_ms, r.p99_ms, r.work.flops() / 1e9, r.work.bytes() / 1e6,
                r.work.flops() / r.p50_ms / 1e6, r.roofline_ms, 100 * r.roofline_ms / r.p50_ms, r.error, r.hash);
}

void print_list() {
  std::printf("{\"precisions\": [");
  for (const Precision& one : kPrecisions) std::printf("%s\"%s\"", &one == kPrecisions ? "" : ", ", one.name);
  std::printf("], \"sizes\": [");
  for (const Size& one : kSizes) std::printf("%s\"%s\"", &one == kSizes ? "" : ", ", one.name);
  std::printf("]}\n");
}

std::optional<Case> read_case(std::istream& line) {
  std::string what;
  Case one{Case::video, 1, 0, 0};
  line >> what;
  if (what == "video" || what == "action") {
    line >> one.rows;
    one.kind = what == "video" ? Case::video : Case::action;
  } else if (what == "commit") {
    one = {Case::commit, 2, 0, 0};
  } else if (what == "chunk") {
    one = {Case::chunk, 2, 0, 0};
    line >> one.video_steps >> one.action_steps;
    if (one.video_steps < 1 || one.action_steps < 1) return std::nullopt;
  } else {
    return std::nullopt;
  }
  if (line.fail() || one.rows < 1 || one.rows > kGuidanceRows) return std::nullopt;
  return one;
}

int serve(const Options& options, const Size& size, const Precision& precision) {
  ops::CpuOps ops(options.threads);
  Rig rig(size, precision, transformer_of(options, size), ops);
  std::printf("{\"ready\": true, \"kernels\": \"%s\"}\n", ops::cpu_packed_kernels().name);
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    const std::optional<Case> one = read_case(words);
    if (!one) {
      std::fprintf(stderr, "not understood: %s\n%s", line.c_str(), kUsage);
      return 2;
    }
    std::string path;
    words >> path;
    rig.take_work();
    const double start = ops::ceilings::now_s();
    const std::vector<float> result = one->run(&rig, !path.empty());
    const double ms = 1e3 * (ops::ceilings::now_s() - start);
    const Work work = rig.take_work();
    if (!path.empty())
      std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(result.data()), std::ssize(result) * 4);
    std::printf("{\"ms\": %.4f, \"gflop\": %.6g}\n", ms, work.flops() / 1e9);
    std::fflush(stdout);
  }
  return 0;
}

// Files of one size for this program and its peers.
bool ensure_files(const Options& options, const Size& size) {
  const std::filesystem::path folder = folder_of(options.cache, size);
  if (!size.is_shipped && !std::filesystem::exists(folder / "transformer" / "config.json"))
    std::fprintf(stderr, "writing %s\n", folder.c_str());
  TransformerConfig config;
  if (ensure_transformer(folder, size)) {
    need(engine::read_transformer_config(transformer_of(options, size), &config));
    if (options.serve_size.empty() || ensure_inputs(folder, size, config)) return true;
  }
  std::fprintf(stderr, "%s cannot be written: is the disk full?\n", folder.c_str());
  return false;
}

bool parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    std::string* text = name == "--only"        ? &options->only
                        : name == "--sizes"     ? &options->sizes
                        : name == "--precision" ? &options->precisions
                        : name == "--models"    ? &options->models
                        : name == "--cache"     ? &options->cache
                                                : nullptr;
    if (name == "--tiny" || name == "--json" || name == "--list") {
      (name == "--tiny" ? options->is_tiny : name == "--json" ? options->is_json : options->is_list) = true;
      continue;
    }
    if (value == nullptr) return false;
    ++i;
    if (text != nullptr) {
      *text = value;
    } else if (name == "--threads") {
      options->threads = std::atoi(value);
    } else if (name == "--seconds") {
      options->seconds = std::atof(value);
    } else if (name == "--serve" && i + 1 < argc) {
      options->serve_size = value;
      options->serve_precision = argv[++i];
    } else {
      return false;
    }
  }
  if (options->is_tiny) options->sizes = "micro", options->seconds = 0;
  return options->threads >= 1 && options->threads <= 1024;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, &options)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  if (options.is_list) return print_list(), 0;
  const bool serves = !options.serve_size.empty();
  std::optional<Ceilings> ceiling;
  std::vector<Row> rows;
  for (const Size& size : kSizes) {
    if (!(serves ? options.serve_size == size.name : contains(options.sizes, size.name))) continue;
    if (!ensure_files(options, size)) return 1;
    std::vector<std::vector<float>> wanted;
    for (const Precision& precision : kPrecisions) {
      if (serves && options.serve_precision == precision.name) return serve(options, size, precision);
      if (serves || !(options.precisions.empty() || contains(options.precisions, precision.name))) continue;
      if (!ceiling) ceiling = find_ceilings(options);
      if (wanted.empty()) wanted = oracle(options, size);
      if (!bench(options, size, precision, wanted, *ceiling, &rows)) return 1;
    }
  }
  if (!ceiling) {
    std::fputs("no such size or precision; passes --list names them\n", stderr);
    return 2;
  }
  (options.is_json ? print_json : print_markdown)(options, *ceiling, rows);
  return 0;
}
