// The thread pool: every index once, whatever the cut; loops that follow each other at once, after the workers'
// spinning has ended, and while processors are taken away. Run once by hand with -fsanitize=thread (docs/SPEED.md).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/thread_pool.h"
#include "tap.h"

using namespace premotor;

namespace {

// Every index is visited once, ranges are whole multiples of the grain but the last, and results are there on return:
// the marks are plain memory.
bool covers(ThreadPool& pool, std::int64_t count, std::int64_t grain) {
  std::vector<std::uint8_t> marks(static_cast<std::size_t>(count), 0);
  std::atomic<bool> is_whole{true};
  pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
    if (begin >= end || begin % grain != 0 || (end != count && (end - begin) % grain != 0)) is_whole = false;
    for (std::int64_t i = begin; i < end; ++i) ++marks[static_cast<std::size_t>(i)];
  });
  return is_whole && std::all_of(marks.begin(), marks.end(), [](std::uint8_t mark) { return mark == 1; });
}

void test_cover(int threads) {
  ThreadPool pool(threads);
  bool all = pool.threads() == threads;
  for (const std::int64_t count : {0, 1, 2, 3, 7, 8, 31, 64, 65, 1000, 100000})
    for (const std::int64_t grain : {1, 2, 8, 100}) all = covers(pool, count, grain) && all;
  tap::ok(all, std::to_string(threads) + " threads cover every loop");
}

// Thousands of short loops of random sizes over one array that each loop changes: a loop that began before the one
// before it was over, or a piece that was taken twice or from another loop, would leave another sum.
void test_stress(int threads, bool has_pauses) {
  constexpr std::int64_t kMost = 600;
  const int loops = has_pauses ? 400 : 20000;
  ThreadPool pool(threads);
  std::mt19937 random(static_cast<unsigned>(threads));
  std::vector<std::int64_t> values(kMost, 0), expected(kMost, 0);
  bool is_right = true;
  for (int loop = 1; loop <= loops; ++loop) {
    const auto count = static_cast<std::int64_t>(random() % kMost) + 1,
               grain = static_cast<std::int64_t>(random() % 9) + 1;
    if (has_pauses && loop % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
    pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        values[static_cast<std::size_t>(i)] = values[static_cast<std::size_t>(i)] * 3 + loop + i;
    });
    for (std::int64_t i = 0; i < count; ++i)
      expected[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(
          static_cast<std::uint64_t>(expected[static_cast<std::size_t>(i)]) * 3 + static_cast<std::uint64_t>(loop + i));
    if (loop % 97 == 0 || loop == loops) is_right = is_right && values == expected;
    for (std::vector<std::int64_t>* both : {&values, &expected})
      for (std::int64_t& value : *both) value &= 0xffffffff;
  }
  tap::ok(is_right, std::to_string(loops) + " loops on " + std::to_string(threads) + " threads" +
                        (has_pauses ? ", with pauses" : ", one after another"));
}

// While one piece takes long, the others' pieces are done by who is free.
void test_stall() {
  ThreadPool pool(2);
  std::atomic<int> pieces{0};
  std::atomic<bool> has_stalled{false};
  pool.parallel_for(8, 1, [&](std::int64_t begin, std::int64_t end) {
    // The first piece of whoever comes first waits until all others are done: without stealing it would wait for ever.
    if (!has_stalled.exchange(true)) {
      const auto end_of_patience = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (pieces.load() < 7 && std::chrono::steady_clock::now() < end_of_patience) ::sched_yield();
    }
    pieces += static_cast<int>(end - begin);
  });
  tap::equal(pieces.load(), 8, "a stalled thread keeps none of its pieces but the one it is in");
}

double processor_seconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

// Workers that wait for work sleep: half a second costs four of them next to nothing.
void test_rest() {
  ThreadPool pool(5);
  covers(pool, 1000, 1);
  const double before = processor_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  tap::ok(processor_seconds() - before < 0.1, "a pool at rest uses no processor time");
}

std::vector<std::string> worker_names() {
  std::vector<std::string> names;
  for (int thread = ::getpid(); thread < ::getpid() + 2000; ++thread) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/comm");
    std::string name;
    if (std::getline(file, name) && name.starts_with("premotor-op-")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

cpu_set_t cores_of_caller() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  ::sched_getaffinity(0, sizeof cores, &cores);
  return cores;
}

// Runs loops while the caller keeps to its cores; true when every piece ran where it should.
template <typename IsRight>
bool runs_where(ThreadPool& pool, IsRight is_right) {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> all{true};
  for (int loop = 0; loop < 200; ++loop)
    pool.parallel_for(pool.threads() * 4, 1, [&](std::int64_t, std::int64_t) {
      if (!is_right(std::this_thread::get_id() == caller, ::sched_getcpu())) all = false;
    });
  return all;
}

int count_of(const cpu_set_t& cores) { return CPU_COUNT(&cores); }

// Each worker runs on a core of its own, the caller on the others while it computes.
void test_own_cores(int usable) {
  const int threads = std::min(usable, 4);
  ThreadPool pool(threads, ThreadPool::Cores::own);
  const ThreadPool::CallerCores keep(pool);
  const cpu_set_t during = cores_of_caller();
  tap::equal(count_of(during), usable > threads ? usable - threads : 1, "the caller keeps off the workers' cores");
  tap::ok(runs_where(pool,
                     [&](bool is_caller, int core) {
                       return is_caller == (CPU_ISSET(static_cast<std::size_t>(core), &during) != 0);
                     }),
          "workers run on their own cores alone");
  const std::vector<std::string> names = worker_names();
  tap::ok(std::ssize(names) == threads - 1 && names.front() == "premotor-op-1", "workers have names");
}

// With a core to spare, nobody runs on the lowest; without one, everybody runs anywhere.
void test_shared_cores(int usable) {
  const cpu_set_t all = cores_of_caller();
  int lowest = 0;
  while (!CPU_ISSET(static_cast<std::size_t>(lowest), &all)) ++lowest;
  {
    ThreadPool pool(usable);
    const ThreadPool::CallerCores keep(pool);
    tap::equal(count_of(cores_of_caller()), usable, "as many threads as cores use all of them");
  }
  if (usable < 3) {
    tap::skip("with a core to spare the lowest is left alone", "fewer than three cores");
    return;
  }
  ThreadPool pool(2);
  const ThreadPool::CallerCores keep(pool);
  tap::equal(count_of(cores_of_caller()), usable - 1, "with a core to spare the caller has all but one");
  tap::ok(runs_where(pool, [&](bool, int core) { return core != lowest; }),
          "with a core to spare the lowest is left alone");
}

void test_cores() {
  const int usable = ThreadPool::usable_cores();
  if (usable < 2) {
    tap::skip("where threads run", "one core");
    return;
  }
  const cpu_set_t before = cores_of_caller();
  test_own_cores(usable);
  test_shared_cores(usable);
  const cpu_set_t after = cores_of_caller();
  tap::ok(CPU_EQUAL(&before, &after), "the caller's cores are what they were");
}

}  // namespace

int main() {
  for (const int threads : {1, 2, 3, 8}) test_cover(threads);
  for (const int threads : {2, 3, 5}) test_stress(threads, false);
  for (const int threads : {2, 4}) test_stress(threads, true);
  test_stall();
  test_rest();
  test_cores();
  return tap::finish();
}
