#include "base/thread_pool.h"

#include <algorithm>

namespace premotor {

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_ranges() {
  for (;;) {
    const std::int64_t begin = next_.fetch_add(step_);
    if (begin >= count_) return;
    (*body_)(begin, std::min(begin + step_, count_));
  }
}

void ThreadPool::work() {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    lock.unlock();
    run_ranges();
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain,
                              const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<std::int64_t>(grain, 1);
  if (workers_.empty() || count <= grain) {
    body(0, count);
    return;
  }
  // Four ranges a thread balance uneven progress; a multiple of the grain keeps tiles whole.
  const std::int64_t pieces = static_cast<std::int64_t>(threads()) * 4;
  const std::int64_t even = (count + pieces - 1) / pieces;
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    count_ = count;
    step_ = (even + grain - 1) / grain * grain;
    next_ = 0;
    running_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  wake_.notify_all();
  run_ranges();
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return running_ == 0; });
  body_ = nullptr;
}

}  // namespace premotor
