// The matrix products of the CPU backend, unpacked and packed in every precision, and attention over a full cache,
// against what this machine can do at most, side by side in one run. Every case is verified on a sample of its outputs
// before it is timed, and rotates over copies of its weights, so that they come from memory as they do in a pass over a
// whole model (--warm: one copy). Usage: kernels [--tiny] [--json] [--threads N] [--seconds S] [--only TEXT] [--warm];
// see bench/README.md.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/half.h"
#include "bench/attention_case.h"
#include "bench/bench_values.h"
#include "ops/cpu/ceilings.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/packed_linear.h"
#include "ops/cpu/processor.h"

using namespace premotor;
using namespace premotor::ops;
using ceilings::Buffer;

namespace {

struct Options {
  bool is_tiny = false, is_json = false;
  bool is_warm = false;  // one copy of the weights instead of so many that each is cold when its turn comes
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  double seconds = 0.3;  // for the repetitions of one case, of which there are 5 at least
  std::string only;      // cases whose name contains this, as "packed int8 m 9 n 192 k 192"
};

struct Shape {
  std::int64_t n, k;
};

enum class Kind { unpacked_f32, unpacked_bf16, packed_f32, packed_bf16, packed_bf16_dot, packed_int8, packed_int4 };
constexpr int kKinds = 7;
constexpr const char* kKindNames[kKinds] = {"row-major f32",   "row-major bf16", "packed f32", "packed bf16",
                                            "packed bf16_dot", "packed int8",    "packed int4"};
// What a sample of outputs may differ from the exact product of the unrounded operands, root mean square, relative:
// f32 sums; one factor rounded by 2^-9; both rounded so; both rounded to 1/254 of about four standard deviations; one
// to a sixteenth of the range of 32 values.
constexpr double kErrorMax[kKinds] = {1e-5, 4e-3, 1e-5, 4e-3, 6e-3, 3e-2, 1.2e-1};

// Copies of the weights fill this much, several times a last-level cache.
constexpr std::int64_t kColdBytes = std::int64_t{256} << 20;

constexpr const char* kDtypeNames[4] = {"f32", "f16", "bf16", "int8"};  // of a cache, by ops::Dtype

bool is_packed(Kind kind) { return kind >= Kind::packed_f32; }
Product product_of(Kind kind) { return static_cast<Product>(static_cast<int>(kind) - 2); }

struct Ceilings {
  ceilings::Bandwidth one, all;
  ceilings::Peaks peak;
};

double peak_of_pairs(const ceilings::Peaks& peaks) { return peaks.bf16_dot > 0 ? peaks.bf16_dot : peaks.f32; }
double peak_of(Kind kind, const ceilings::Peaks& peaks) {
  if (kind == Kind::packed_bf16_dot || kind == Kind::packed_int4) return peak_of_pairs(peaks);
  return kind == Kind::packed_int8 && peaks.int8_dot > 0 ? peaks.int8_dot : peaks.f32;
}

struct Row {
  std::string kernel;
  std::int64_t m, n, k, copies, repeats;
  double min_ms, p50_ms, p99_ms, max_ms, gflops, gbytes, peak, error;
  std::uint32_t hash;

  [[nodiscard]] double share(const Ceilings& ceiling) const {
    return std::max(gflops / peak, gbytes / ceiling.all.best());
  }
};

std::vector<float> random_values(std::int64_t count, unsigned seed) {
  // A sum of uniform draws is normal enough, and quick for the largest matrices.
  std::minstd_rand generator(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) {
    float sum = 0;
    for (int i = 0; i < 3; ++i) sum += static_cast<float>(generator() >> 7) * 0x1p-23f - 1.0f;
    value = sum;
  }
  return values;
}

// One matrix in the form that a kind wants, as often as it takes to be cold each time.
struct Copies {
  Copies(Kind kind, const Shape& shape, const std::vector<float>& w, std::int64_t cold_bytes)
      : each(bytes_of_one(kind, shape)),
        count(std::max<std::int64_t>(1, (cold_bytes + each - 1) / each)),
        memory(each * count) {
    if (is_packed(kind)) {
      pack({w.data(), Dtype::f32, shape.n, shape.k}, packed_precision(product_of(kind)), memory.as<char>());
    } else if (kind == Kind::unpacked_f32) {
      std::memcpy(memory.as<char>(), w.data(), w.size() * 4);
    } else {
      for (std::size_t i = 0; i < w.size(); ++i) memory.as<std::uint16_t>()[i] = f32_to_bf16(w[i]);
    }
    for (std::int64_t i = 1; i < count; ++i)
      std::memcpy(memory.as<char>() + i * each, memory.as<char>(), static_cast<std::size_t>(each));
  }
  static std::int64_t bytes_of_one(Kind kind, const Shape& shape) {
    if (is_packed(kind)) return packed_bytes(packed_precision(product_of(kind)), shape.n, shape.k);
    return (shape.n * shape.k * (kind == Kind::unpacked_f32 ? 4 : 2) + 63) / 64 * 64;
  }
  std::int64_t each, count;
  Buffer memory;
};

// One product of one kind, on the copy of the weights whose turn it is.
struct Case {
  CpuOps& ops;
  Kind kind;
  Shape shape;
  const Copies& weights;
  std::int64_t m;
  const std::vector<float>& x;
  Buffer scratch, y;
  std::int64_t turn = 0;

  Case(CpuOps& backend, Kind what, const Shape& size, const Copies& copies, std::int64_t rows,
       const std::vector<float>& input)
      : ops(backend),
        kind(what),
        shape(size),
        weights(copies),
        m(rows),
        x(input),
        scratch(is_packed(kind) ? packed_scratch_bytes(cpu_packed_kernels(), product_of(kind), m, shape.k) : 64),
        y(m * shape.n * 4) {}

  void run() {
    const char* w = weights.memory.as<char>() + turn * weights.each;
    turn = (turn + 1) % weights.count;
    if (!is_packed(kind)) {
      const Dtype dtype = kind == Kind::unpacked_f32 ? Dtype::f32 : Dtype::bf16;
      ops.linear(x.data(), m, shape.k, {w, dtype, shape.n, shape.k}, nullptr, Activation::none, Rounding::none,
                 y.as<float>(), shape.n);
      return;
    }
    PackedProduct args;
    args.product = product_of(kind);
    args.m = m;
    args.w = {w, packed_precision(args.product), shape.n, shape.k};
    args.y = y.as<float>();
    args.ldy = shape.n;
    packed_linear(ops.pool(), cpu_packed_kernels(), x.data(), shape.k, scratch.as<char>(), args);
  }

  // Relative root mean square of the errors of a sample of the outputs.
  [[nodiscard]] double error(const std::vector<float>& w) const {
    double wrong = 0, size = 0;
    for (int i = 0; i < 64; ++i) {
      const std::int64_t row = i * 7919 % m, column = (i * 104729 + 5) % shape.n;
      double sum = 0;
      for (std::int64_t p = 0; p < shape.k; ++p)
        sum += static_cast<double>(x[static_cast<std::size_t>(row * shape.k + p)]) *
               w[static_cast<std::size_t>(column * shape.k + p)];
      const double difference = y.as<float>()[row * shape.n + column] - sum;
      wrong += difference * difference;
      size += sum * sum;
    }
    return std::sqrt(wrong / size);
  }

  [[nodiscard]] std::uint32_t hash() const { return hash_of({y.as<float>(), static_cast<std::size_t>(m * shape.n)}); }
};

std::string name_of(Kind kind, std::int64_t m, const Shape& shape) {
  return std::string(kKindNames[static_cast<int>(kind)]) + " m " + std::to_string(m) + " n " + std::to_string(shape.n) +
         " k " + std::to_string(shape.k);
}

Ceilings find_ceilings(const Options& options) {
  const std::int64_t bytes = options.is_tiny ? 1 << 20 : 256 << 20;
  const int tries = options.is_tiny ? 1 : 5;
  Ceilings found;
  found.one = ceilings::bandwidth(1, bytes, tries);
  found.all = options.threads == 1 ? found.one : ceilings::bandwidth(options.threads, bytes, tries);
  found.peak = find_peaks(options.threads, options.is_tiny);
  return found;
}

// Times `one`. Its peak is the larger of those measured before and after it: a processor's clock moves in the minutes
// that all cases take.
template <typename Timed, typename Peak>
Row measure(Timed* one, const Options& options, double operations, double bytes, const Peak& peak_of) {
  const ceilings::Peaks before = find_peaks(options.threads, options.is_tiny);
  for (int i = 0; i < 2; ++i) one->run();
  std::vector<double> times_s;
  const double began = ceilings::now_s();
  while (times_s.size() < (options.is_tiny ? 2u : 5u) ||
         (ceilings::now_s() - began < options.seconds && times_s.size() < 20000)) {
    const double start = ceilings::now_s();
    one->run();
    times_s.push_back(ceilings::now_s() - start);
  }
  std::sort(times_s.begin(), times_s.end());
  const auto at = [&](double part) { return times_s[static_cast<std::size_t>(part * double(times_s.size() - 1))]; };
  const double peak = peak_of(larger(before, find_peaks(options.threads, options.is_tiny)));
  Row row{};
  row.repeats = std::ssize(times_s);
  row.min_ms = at(0) * 1e3;
  row.p50_ms = at(0.5) * 1e3;
  row.p99_ms = at(0.99) * 1e3;
  row.max_ms = at(1) * 1e3;
  row.gflops = operations / at(0.5) / 1e9;
  row.gbytes = bytes / at(0.5) / 1e9;
  row.peak = peak;
  row.hash = one->hash();
  return row;
}

Row measure_product(Case* one, const Options& options, double error) {
  const double m = double(one->m), n = double(one->shape.n), k = double(one->shape.k);
  const double bytes = double(one->weights.each) + 4.0 * m * (n + k);
  Row row = measure(one, options, 2 * m * n * k, bytes,
                    [&](const ceilings::Peaks& peaks) { return peak_of(one->kind, peaks); });
  row.kernel = kKindNames[static_cast<int>(one->kind)];
  row.m = one->m;
  row.n = one->shape.n;
  row.k = one->shape.k;
  row.copies = one->weights.count;
  row.error = error;
  if (!options.is_json) std::fprintf(stderr, "%s\n", name_of(one->kind, one->m, one->shape).c_str());
  return row;
}

// Every kind and every m of one shape; false when a product is wrong.
bool bench_shape(CpuOps* ops, const Shape& shape, const std::vector<std::int64_t>& ms, const Options& options,
                 std::vector<Row>* rows) {
  const auto wanted = [&](Kind kind, std::int64_t m) {
    return name_of(kind, m, shape).find(options.only) != std::string::npos;
  };
  std::vector<float> w;
  for (int i = 0; i < kKinds; ++i) {
    const auto kind = static_cast<Kind>(i);
    if (std::none_of(ms.begin(), ms.end(), [&](std::int64_t m) { return wanted(kind, m); })) continue;
    if (w.empty()) w = random_values(shape.n * shape.k, 1);
    const Copies copies(kind, shape, w, options.is_warm ? 1 : kColdBytes);
    for (const std::int64_t m : ms) {
      if (!wanted(kind, m)) continue;
      const std::vector<float> x = random_values(m * shape.k, 2);
      Case one(*ops, kind, shape, copies, m, x);
      one.run();
      const double error = one.error(w);
      if (!(error <= kErrorMax[i])) {
        std::fprintf(stderr, "FAILED: %s is off by %.3g, more than %.3g\n", name_of(kind, m, shape).c_str(), error,
                     kErrorMax[i]);
        return false;
      }
      rows->push_back(measure_product(&one, options, error));
    }
  }
  return true;
}

// Attention of m queries over n cached entries, k = heads x 128; false when it is wrong.
bool bench_attention(CpuOps* ops, Dtype dtype, std::int64_t m, const Options& options, std::vector<Row>* rows) {
  const std::int64_t heads = options.is_tiny ? 2 : 24, entries = options.is_tiny ? 100 : 9792;
  const std::string kernel = std::string("attention ") + kDtypeNames[static_cast<int>(dtype)];
  if ((kernel + " m " + std::to_string(m)).find(options.only) == std::string::npos) return true;
  AttentionCase one(*ops, dtype, m, heads, entries);
  one.run();
  const double error = one.error();
  // Half a step of bf16 in queries, entries and weights; and of 127 steps of a vector's range.
  const double error_max = dtype == Dtype::f32 ? 1e-5 : (dtype == Dtype::bf16 ? 1e-2 : 3e-2);
  if (!(error <= error_max)) {
    std::fprintf(stderr, "FAILED: %s m %lld is off by %.3g, more than %.3g\n", kernel.c_str(),
                 static_cast<long long>(m), error, error_max);
    return false;
  }
  const double k = double(heads * kAttentionHeadDim);
  Row row = measure(&one, options, 4 * double(m) * double(entries) * k, one.bytes(), [&](const ceilings::Peaks& peaks) {
    return dtype == Dtype::f32 ? peaks.f32 : peak_of_pairs(peaks);
  });
  row.kernel = kernel;
  row.m = m;
  row.n = entries;
  row.k = heads * kAttentionHeadDim;
  row.copies = 1;
  row.error = error;
  rows->push_back(row);
  if (!options.is_json) std::fprintf(stderr, "%s m %lld\n", kernel.c_str(), static_cast<long long>(m));
  return true;
}

void print_json(const Options& options, const Ceilings& c, const std::vector<Row>& rows) {
  std::printf(
      "{\"processor\": \"%s\", \"kernels\": \"%s\", \"packed\": \"%s\", \"threads\": %d, \"weights\": \"%s\",\n",
      processor_name().c_str(), cpu_kernels().name, cpu_packed_kernels().name, options.threads,
      options.is_warm ? "warm" : "cold");
  std::printf(
      " \"ceilings\": {\"triad_1_GBps\": %.2f, \"read_1_GBps\": %.2f, \"triad_GBps\": %.2f, \"read_GBps\": %.2f, ",
      c.one.triad, c.one.read, c.all.triad, c.all.read);
  std::printf("\"f32_GFLOPs\": %.1f, \"bf16_dot_GFLOPs\": %.1f, \"int8_dot_GOPs\": %.1f},\n \"rows\": [", c.peak.f32,
              c.peak.bf16_dot, c.peak.int8_dot);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& r = rows[i];
    std::printf(
        "%s\n  {\"kernel\": \"%s\", \"m\": %lld, \"n\": %lld, \"k\": %lld, \"copies\": %lld, \"repeats\": %lld, ",
        i == 0 ? "" : ",", r.kernel.c_str(), static_cast<long long>(r.m), static_cast<long long>(r.n),
        static_cast<long long>(r.k), static_cast<long long>(r.copies), static_cast<long long>(r.repeats));
    std::printf(
        "\"min_ms\": %.6f, \"p50_ms\": %.6f, \"p99_ms\": %.6f, \"max_ms\": %.6f, \"GFLOPs\": %.3f, \"GBps\": %.3f, ",
        r.min_ms, r.p50_ms, r.p99_ms, r.max_ms, r.gflops, r.gbytes);
    std::printf("\"peak_GFLOPs\": %.1f, \"roofline_share\": %.4f, \"error\": %.3g, \"hash\": \"%08x\"}", r.peak,
                r.share(c), r.error, r.hash);
  }
  std::printf("\n ]}\n");
}

void print_markdown(const Options& options, const Ceilings& c, const std::vector<Row>& rows) {
  std::printf("%s; %s and %s, %d threads; %s weights\n\n", processor_name().c_str(), cpu_kernels().name,
              cpu_packed_kernels().name, options.threads, options.is_warm ? "warm" : "cold");
  std::printf("| ceiling | 1 thread | %d threads |\n|---|---|---|\n", options.threads);
  std::printf("| triad, GB/s | %.1f | %.1f |\n", c.one.triad, c.all.triad);
  std::printf("| read, GB/s | %.1f | %.1f |\n", c.one.read, c.all.read);
  std::printf("| f32, GFLOP/s | | %.0f |\n", c.peak.f32);
  if (c.peak.bf16_dot > 0) std::printf("| bf16 dot product, GFLOP/s | | %.0f |\n", c.peak.bf16_dot);
  if (c.peak.int8_dot > 0) std::printf("| int8 dot product, GOP/s | | %.0f |\n", c.peak.int8_dot);
  std::printf(
      "\n| kernel | m | n | k | p50 ms | p99 ms | max ms | GFLOP/s | GB/s | peak beside it | of its "
      "roofline | hash |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Row& r : rows)
    std::printf("| %s | %lld | %lld | %lld | %.4f | %.4f | %.4f | %.1f | %.1f | %.0f | %.0f %% | %08x |\n",
                r.kernel.c_str(), static_cast<long long>(r.m), static_cast<long long>(r.n), static_cast<long long>(r.k),
                r.p50_ms, r.p99_ms, r.max_ms, r.gflops, r.gbytes, r.peak, 100 * r.share(c), r.hash);
}

bool parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (name == "--tiny") {
      options->is_tiny = true;
    } else if (name == "--warm") {
      options->is_warm = true;
    } else if (name == "--json") {
      options->is_json = true;
    } else if (value != nullptr && (name == "--threads" || name == "--seconds" || name == "--only")) {
      if (name == "--threads") options->threads = std::atoi(value);
      if (name == "--seconds") options->seconds = std::atof(value);
      if (name == "--only") options->only = value;
      ++i;
    } else {
      return false;
    }
  }
  return options->threads >= 1 && options->threads <= 1024;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, &options)) {
    std::fprintf(stderr, "usage: kernels [--tiny] [--json] [--threads N] [--seconds S] [--only TEXT] [--warm]\n");
    return 2;
  }
  std::vector<Shape> shapes = {{192, 192}, {768, 192}, {1536, 1536}, {6144, 1536}, {3072, 3072}, {14336, 3072}};
  std::vector<std::int64_t> ms = {1, 9, 32, 240};
  if (options.is_tiny) {
    options.seconds = 0;
    options.is_warm = true;
    shapes = {{70, 48}, {40, 300}};
    ms = {1, 9};
  }
  Ceilings ceiling = find_ceilings(options);
  CpuOps ops(options.threads);
  std::vector<Row> rows;
  for (const Shape& shape : shapes)
    if (!bench_shape(&ops, shape, ms, options, &rows)) return 1;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::int8})
    for (const std::int64_t m : {32, 240})
      if (!bench_attention(&ops, dtype, m, options, &rows)) return 1;
  const Ceilings after = find_ceilings(options);
  ceiling = {larger(ceiling.one, after.one), larger(ceiling.all, after.all), larger(ceiling.peak, after.peak)};
  (options.is_json ? print_json : print_markdown)(options, ceiling, rows);
  return 0;
}
