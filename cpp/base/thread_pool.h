// A fixed pool of worker threads for data-parallel loops. One owner; the calling thread takes part in the work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace premotor {

class ThreadPool {
 public:
  // threads >= 1 counts the calling thread, so ThreadPool(1) starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) for disjoint ranges that cover [0, count), each at least `grain` long (but the last).
  // Returns when all are done. Results must not depend on how the ranges are cut. Not re-entrant: body must not call
  // parallel_for.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t)>& body);

 private:
  void work();
  void run_ranges();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  const std::function<void(std::int64_t, std::int64_t)>* body_ = nullptr;  // valid while a loop runs
  std::int64_t count_ = 0;
  std::int64_t step_ = 1;
  std::atomic<std::int64_t> next_{0};
  std::uint64_t generation_ = 0;
  int running_ = 0;
  bool stop_ = false;
};

}  // namespace premotor
