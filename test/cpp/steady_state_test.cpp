// The hot path takes no memory: once an engine has run each of its calls, predict, commit and predict_next allocate
// nothing. Every allocation of the process goes through the counters below, whichever thread makes it.
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/plan_file.h"
#include "engine/session.h"
#include "golden.h"
#include "plan_files.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define PREMOTOR_COUNTS_ALLOCATIONS 0
#else
#define PREMOTOR_COUNTS_ALLOCATIONS 1
#endif

namespace {
std::atomic<std::int64_t> allocations{0};
}

#if PREMOTOR_COUNTS_ALLOCATIONS
// glibc's own functions behind the names that it lets a program replace; operator new ends there too.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(memory, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) { return memalign(alignment, size); }
}
#endif

namespace {

// An episode with pictures of noise. Results go into the same objects again and again, as a caller on the hot path
// would have it.
class Episode {
 public:
  Episode(const std::string& checkpoint, const JobConfig& job, WeightPrecision precision, ops::Dtype cache,
          const std::string& plan)
      : job_(job) {
    SessionOptions options;
    options.checkpoint = checkpoint;
    options.job = job;
    options.precision = precision;
    options.cache = cache;
    options.threads = 2;
    options.plan = plan;
    golden::need(Session::open(options, &session_));
    const SessionInfo info = session_->info();
    executed_.resize(static_cast<std::size_t>(info.action_shape[0] * info.action_shape[1] * info.action_shape[2]));
    pictures_.resize(static_cast<std::size_t>(job.height * job.width * 3));
    std::mt19937 generator(5);
    for (std::uint8_t& value : pictures_) value = static_cast<std::uint8_t>(generator());
    const Moment moment(static_cast<std::size_t>(job.cameras), Picture{pictures_.data(), job.width, job.height});
    first_ = moment;
    seen_.assign(static_cast<std::size_t>(job.frame_chunk_size * 4), moment);
    std::vector<float> prompt(static_cast<std::size_t>(3 * info.text_dim));
    std::normal_distribution<float> normal;
    for (float& value : prompt) value = normal(generator);
    golden::need(session_->reset(prompt, prompt));
    begin();
  }

  void predict() {
    PredictArgs args;
    args.observation = &first_;
    args.seed = ++seed_;
    golden::need(session_->predict(args, &chunk_));
  }
  void commit() { golden::need(session_->commit(seen(), &committed_)); }
  void predict_next() {
    PredictArgs args;
    args.seed = ++seed_;
    const CommitArgs past = seen();
    golden::need(session_->predict_next(&past, {executed_.data(), job_.frame_chunk_size, nullptr}, args, &chunk_));
  }
  void fill_cache() { golden::need(session_->occupy()); }

 private:
  // The first chunk with its one frame, which later ones do not repeat.
  void begin() {
    predict();
    std::vector<Moment> none;
    std::vector<float> padding(executed_.size() / static_cast<std::size_t>(job_.frame_chunk_size), 0.0f);
    CommitArgs args;
    args.moments = &none;
    args.actions = padding.data();
    args.action_count = job_.action_per_frame;
    golden::need(session_->commit(args, &committed_));
  }
  [[nodiscard]] CommitArgs seen() const {
    CommitArgs args;
    args.moments = &seen_;
    args.actions = executed_.data();
    args.action_count = job_.frame_chunk_size * job_.action_per_frame;
    return args;
  }

  JobConfig job_;
  std::unique_ptr<Session> session_;
  std::vector<std::uint8_t> pictures_;
  Moment first_;
  std::vector<Moment> seen_;
  std::vector<float> executed_;
  std::uint64_t seed_ = 0;
  ChunkResult chunk_;
  CommitResult committed_;
};

template <typename Call>
std::int64_t allocations_of(Call call) {
  const std::int64_t before = allocations.load();
  call();
  return allocations.load() - before;
}

void test_case(const std::string& name, const std::string& checkpoint, const std::string& job_file,
               WeightPrecision precision, ops::Dtype cache, const std::string& plan = {}) {
  Episode episode(checkpoint, golden::read_job(golden::read_json(job_file)), precision, cache, plan);
  for (int round = 0; round < 2; ++round) {
    if (round == 1) episode.fill_cache();
    episode.predict();
    episode.commit();
    episode.predict();
    episode.predict_next();
  }
  const std::int64_t of_predict = allocations_of([&] { episode.predict(); });
  const std::int64_t of_commit = allocations_of([&] { episode.commit(); });
  const std::int64_t of_next = allocations_of([&] { episode.predict_next(); });
  tap::equal(of_predict, 0, name + ": predict allocates nothing, found " + std::to_string(of_predict));
  tap::equal(of_commit, 0, name + ": commit allocates nothing, found " + std::to_string(of_commit));
  tap::equal(of_next, 0, name + ": predict_next allocates nothing, found " + std::to_string(of_next));
}

// Through a plan, with a tactic for every product.
void test_plan() {
  checkpoint_files::TempFolder folder;
  const SessionOptions options = plan_files::options_of("robotwin_tiny");
  plan_files::build(options, folder / "a.plan", true);
  std::unique_ptr<PlanFile> plan;
  golden::need(PlanFile::open(folder / "a.plan", &plan));
  tap::ok(!plan->contents().tuning.products.empty(), "a tuned plan");
  test_case("a tuned plan", options.checkpoint, golden::folder() + "/robotwin_tiny/job.json", options.precision,
            ops::Dtype::f32, folder / "a.plan");
}

}  // namespace

int main() {
  if (PREMOTOR_COUNTS_ALLOCATIONS == 0) {
    tap::skip("the hot path takes no memory", "a sanitizer or another C library owns the allocator");
    return tap::finish();
  }
  const std::int64_t counted = allocations_of([] { std::thread([] { const std::vector<int> some(100); }).join(); });
  tap::ok(counted >= 2, "allocations of other threads are counted");
  const std::string shipped = golden::folder() + "/../../models/tabletop";
  const std::string job = shipped + "/job.json";
  test_case("shipped model, f32", shipped, job, WeightPrecision::f32, ops::Dtype::f32);
  test_case("shipped model, int8 and so its cache", shipped, job, WeightPrecision::int8, ops::Dtype::int8);
  for (const char* name : {"robotwin_tiny", "franka_tiny"}) {
    const std::string folder = golden::folder() + "/" + name;
    test_case(std::string(name) + ", f32", folder + "/checkpoint", folder + "/job.json", WeightPrecision::f32,
              ops::Dtype::f32);
  }
  test_plan();
  const std::string rounded = golden::folder() + "/bf16";
  test_case("bf16", rounded + "/checkpoint", rounded + "/job.json", WeightPrecision::bf16, ops::Dtype::bf16);
  return tap::finish();
}
