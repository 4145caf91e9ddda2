// Times y = x w^T through ggml, on request: lines `TYPE M N K REPEATS` (TYPE as f32, bf16, q8_0, q4_0, q4_K) are
// answered with a line of JSON. Weights lie in the buffer that ggml itself would choose for them (repacked where it has
// a form of its own for this processor) and rotate over so many copies that each is cold when its turn comes, as in
// bench/kernels.cpp. Usage: ggml_products THREADS
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr std::int64_t kColdBytes = std::int64_t{256} << 20;

struct Free {
  void operator()(ggml_context* context) const { ggml_free(context); }
  void operator()(ggml_backend_buffer* buffer) const { ggml_backend_buffer_free(buffer); }
  void operator()(ggml_backend* backend) const { ggml_backend_free(backend); }
};
using Context = std::unique_ptr<ggml_context, Free>;
using Buffer = std::unique_ptr<ggml_backend_buffer, Free>;
using Backend = std::unique_ptr<ggml_backend, Free>;

Context new_context() { return Context(ggml_init({std::size_t{64} << 20, nullptr, true})); }

// The kind of buffer that ggml multiplies this weight from fastest.
ggml_backend_buffer_type_t best_buffer(ggml_backend_dev_t device, ggml_type type, std::int64_t m, std::int64_t n,
                                       std::int64_t k) {
  using GetExtra = ggml_backend_buffer_type_t* (*)(ggml_backend_dev_t);
  const auto get = reinterpret_cast<GetExtra>(
      ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
  for (ggml_backend_buffer_type_t* extra = get != nullptr ? get(device) : nullptr;
       extra != nullptr && *extra != nullptr; ++extra) {
    const Context context = new_context();
    ggml_tensor* w = ggml_new_tensor_2d(context.get(), type, k, n);
    ggml_tensor* y = ggml_mul_mat(context.get(), w, ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, k, m));
    const Buffer empty(ggml_backend_buft_alloc_buffer(*extra, 0));
    w->buffer = empty.get();
    if (ggml_backend_dev_supports_op(device, y)) return *extra;
  }
  return ggml_backend_dev_buffer_type(device);
}

std::vector<float> random_values(std::int64_t count, unsigned seed) {
  std::minstd_rand generator(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(generator() >> 7) * 0x1p-23f - 1.0f;
  return values;
}

// Relative RMS of some outputs, y [m, n].
double error_of(const std::vector<float>& x, const std::vector<float>& w, const std::vector<float>& y, std::int64_t m,
                std::int64_t n, std::int64_t k) {
  double wrong = 0, all = 0;
  for (std::int64_t i = 0; i < 64; ++i) {
    const std::int64_t row = i * 7919 % m, column = (i * 104729 + 5) % n;
    double sum = 0;
    for (std::int64_t p = 0; p < k; ++p)
      sum += double(x[static_cast<std::size_t>(row * k + p)]) * w[static_cast<std::size_t>(column * k + p)];
    const double difference = y[static_cast<std::size_t>(row * n + column)] - sum;
    wrong += difference * difference;
    all += sum * sum;
  }
  return std::sqrt(wrong / all);
}

struct Request {
  ggml_type type;
  std::int64_t m, n, k;
  int repeats;
};

void answer(ggml_backend_t backend, const Request& r) {
  ggml_backend_dev_t device = ggml_backend_get_device(backend);
  const auto each = static_cast<std::int64_t>(ggml_row_size(r.type, r.k)) * r.n;
  const std::int64_t copies = std::max<std::int64_t>(1, (kColdBytes + each - 1) / each);
  const Context weights = new_context(), values = new_context();
  std::vector<ggml_tensor*> w, y;
  std::vector<ggml_cgraph*> graphs;
  ggml_tensor* x = ggml_new_tensor_2d(values.get(), GGML_TYPE_F32, r.k, r.m);
  for (std::int64_t i = 0; i < copies; ++i) {
    w.push_back(ggml_new_tensor_2d(weights.get(), r.type, r.k, r.n));
    y.push_back(ggml_mul_mat(values.get(), w.back(), x));
    graphs.push_back(ggml_new_graph_custom(values.get(), 8, false));
    ggml_build_forward_expand(graphs.back(), y.back());
  }
  ggml_backend_buffer_type_t kind = best_buffer(device, r.type, r.m, r.n, r.k);
  const Buffer weight_memory(ggml_backend_alloc_ctx_tensors_from_buft(weights.get(), kind));
  const Buffer value_memory(ggml_backend_alloc_ctx_tensors(values.get(), backend));
  const std::vector<float> xs = random_values(r.m * r.k, 2), ws = random_values(r.n * r.k, 1);
  std::vector<char> stored(static_cast<std::size_t>(each));
  ggml_quantize_chunk(r.type, ws.data(), stored.data(), 0, r.n, r.k, nullptr);
  for (ggml_tensor* one : w) ggml_backend_tensor_set(one, stored.data(), 0, stored.size());
  ggml_backend_tensor_set(x, xs.data(), 0, xs.size() * 4);
  std::vector<double> times_ms;
  for (int i = -2; i < r.repeats; ++i) {
    const auto began = std::chrono::steady_clock::now();
    ggml_backend_graph_compute(backend, graphs[static_cast<std::size_t>((i + 2) % copies)]);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
    if (i >= 0) times_ms.push_back(took.count());
  }
  std::vector<float> found(static_cast<std::size_t>(r.m * r.n));
  ggml_backend_tensor_get(y[0], found.data(), 0, found.size() * 4);
  std::nth_element(times_ms.begin(), times_ms.begin() + std::ssize(times_ms) / 2, times_ms.end());
  std::printf("{\"ms\": %.5f, \"error\": %.3g, \"buffer\": \"%s\", \"copies\": %lld}\n", times_ms[times_ms.size() / 2],
              error_of(xs, ws, found, r.m, r.n, r.k), ggml_backend_buft_name(kind), static_cast<long long>(copies));
  std::fflush(stdout);
}

bool read(const std::string& line, Request* out) {
  std::istringstream words(line);
  std::string name;
  words >> name >> out->m >> out->n >> out->k >> out->repeats;
  for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
    if (name != ggml_type_name(static_cast<ggml_type>(type))) continue;
    out->type = static_cast<ggml_type>(type);
    return !words.fail() && out->m > 0 && out->n > 0 && out->k > 0 && out->repeats > 0;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc == 2 ? std::atoi(argv[1]) : 0;
  if (threads < 1) {
    std::fputs("usage: ggml_products THREADS\n", stderr);
    return 2;
  }
  const Backend backend(ggml_backend_cpu_init());
  ggml_backend_cpu_set_n_threads(backend.get(), threads);
  std::puts("{\"ready\": true}");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    Request request{};
    if (!read(line, &request)) {
      std::fprintf(stderr, "not understood: %s\n", line.c_str());
      return 2;
    }
    answer(backend.get(), request);
  }
  return 0;
}
