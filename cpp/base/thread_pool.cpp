#include "base/thread_pool.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <climits>
#include <string>

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace premotor {
namespace {

// Twice what the serial stretches between two loops of a small model's layer take.
constexpr std::chrono::microseconds kSpinMost{50};
constexpr int kChecksPerRound = 32;  // of the awaited word between two looks at the clock
constexpr std::int64_t kPiecesPerThread = 4;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns true as soon as `is_due`, false after kSpinMost. Gives nobody the core in between: on a busy machine it would
// come back milliseconds later, with the loop long begun.
template <typename Condition>
bool spin(Condition is_due) {
  std::chrono::steady_clock::time_point end;
  for (int round = 0;; ++round) {
    for (int i = 0; i < kChecksPerRound; ++i) {
      if (is_due()) return true;
      relax();
    }
    const auto now = std::chrono::steady_clock::now();
    if (round == 0) end = now + kSpinMost;
    if (now >= end) return false;
  }
}

// Sleeps while `word` is `value`. May return for no reason.
void sleep_on(std::atomic<std::uint32_t>& word, std::uint32_t value) {
  static_assert(sizeof word == sizeof value);
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake(std::atomic<std::uint32_t>& word) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

std::vector<int> allowed_cores() {
  std::vector<int> cores;
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(static_cast<std::size_t>(core), &allowed)) cores.push_back(core);
  return cores;
}

constexpr std::uint64_t stretch_of(std::uint32_t loop, std::int64_t first, std::int64_t end) {
  return static_cast<std::uint64_t>(loop) << 32 | static_cast<std::uint64_t>(first) << 16 |
         static_cast<std::uint64_t>(end);
}

}  // namespace

int ThreadPool::usable_cores() { return std::max(static_cast<int>(allowed_cores().size()), 1); }

ThreadPool::ThreadPool(int threads, Cores cores) {
  CPU_ZERO(&caller_cores_);
  const std::vector<int> usable = allowed_cores();
  stretches_ = std::make_unique<Stretch[]>(static_cast<std::size_t>(threads));
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(static_cast<std::size_t>(i)); });
  if (threads > 1) place(usable, cores);
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  loop_.fetch_add(1);
  wake(loop_);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::place(const std::vector<int>& usable, Cores cores) {
  const std::size_t threads = workers_.size() + 1, spare = usable.size() > threads ? 1 : 0;
  if (usable.size() < threads || (cores == Cores::shared && spare == 0)) return;
  // The highest cores are the workers' own, the caller has what is left between these and the spare one.
  const std::size_t shared = cores == Cores::own ? usable.size() - workers_.size() : usable.size();
  for (std::size_t i = spare; i < shared; ++i) CPU_SET(static_cast<std::size_t>(usable[i]), &caller_cores_);
  is_placed_ = true;
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    cpu_set_t of_worker = caller_cores_;
    if (cores == Cores::own) {
      CPU_ZERO(&of_worker);
      CPU_SET(static_cast<std::size_t>(usable[shared + i]), &of_worker);
    }
    ::pthread_setaffinity_np(workers_[i].native_handle(), sizeof of_worker, &of_worker);
  }
}

ThreadPool::CallerCores::CallerCores(const ThreadPool& pool) {
  if (!pool.is_placed_ || ::sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  cpu_set_t during;
  CPU_AND(&during, &before_, &pool.caller_cores_);
  if (CPU_COUNT(&during) == 0 || CPU_EQUAL(&during, &before_)) return;
  is_changed_ = ::sched_setaffinity(0, sizeof during, &during) == 0;
}

ThreadPool::CallerCores::~CallerCores() {
  if (is_changed_) ::sched_setaffinity(0, sizeof before_, &before_);
}

// Takes a piece of one thread's stretch, whichever loop it is of: own ones from the front, others' from the back.
bool ThreadPool::take(std::size_t from, bool is_own, std::int64_t* piece) {
  std::atomic<std::uint64_t>& pieces = stretches_[from].pieces;
  std::uint64_t seen = pieces.load(std::memory_order_acquire);
  for (;;) {
    const auto first = static_cast<std::int64_t>(seen >> 16 & 0xffff), end = static_cast<std::int64_t>(seen & 0xffff);
    if (first >= end) return false;
    const std::uint64_t left = is_own ? seen + (std::uint64_t{1} << 16) : seen - 1;
    // Acquire: who takes a piece sees the loop that it is of.
    if (pieces.compare_exchange_weak(seen, left, std::memory_order_acq_rel, std::memory_order_acquire)) {
      *piece = is_own ? first : end - 1;
      return true;
    }
  }
}

void ThreadPool::take_pieces(std::size_t self) {
  const std::size_t threads = workers_.size() + 1;
  for (std::size_t i = 0; i < threads; ++i) {
    const std::size_t from = (self + i) % threads;
    std::int64_t piece = 0;
    while (take(from, i == 0, &piece)) {
      // The loop cannot end before this piece has: its fields stay what they are.
      const std::int64_t begin = piece * step_;
      call_(context_, begin, std::min(begin + step_, count_));
      const std::uint32_t before = unfinished_.fetch_sub(1, std::memory_order_seq_cst);
      if (before == 1 && is_caller_asleep_.load(std::memory_order_seq_cst)) wake(unfinished_);
    }
  }
}

// The number of the next loop, which is not `seen`.
std::uint32_t ThreadPool::wait_for_loop(std::uint32_t seen) {
  const auto is_due = [&] { return loop_.load(std::memory_order_acquire) != seen; };
  while (!spin(is_due)) {
    // Either the caller sees the sleeper, or the sleeper sees the loop: both orders are sequentially consistent.
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (loop_.load(std::memory_order_seq_cst) == seen) sleep_on(loop_, seen);
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }
  return loop_.load(std::memory_order_acquire);
}

void ThreadPool::work(std::size_t self) {
  ::pthread_setname_np(::pthread_self(), ("premotor-op-" + std::to_string(self)).c_str());
  std::uint32_t seen = 0;
  for (;;) {
    seen = wait_for_loop(seen);
    if (stop_.load()) return;
    take_pieces(self);
  }
}

// The caller has taken what there was to take; others finish theirs.
void ThreadPool::wait_for_pieces() {
  const auto is_due = [&] { return unfinished_.load(std::memory_order_acquire) == 0; };
  while (!spin(is_due)) {
    is_caller_asleep_.store(true, std::memory_order_seq_cst);
    for (std::uint32_t left; (left = unfinished_.load(std::memory_order_seq_cst)) != 0;) sleep_on(unfinished_, left);
    is_caller_asleep_.store(false, std::memory_order_relaxed);
  }
}

void ThreadPool::run(std::int64_t count, std::int64_t grain, Call call, const void* context) {
  // Some pieces a thread balance uneven progress; a multiple of the grain keeps tiles whole.
  grain = std::max<std::int64_t>(grain, 1);
  const std::int64_t threads = this->threads();
  const std::int64_t even = (count + threads * kPiecesPerThread - 1) / (threads * kPiecesPerThread);
  call_ = call;
  context_ = context;
  count_ = count;
  step_ = (even + grain - 1) / grain * grain;
  const std::int64_t pieces = (count + step_ - 1) / step_;
  assert(pieces <= 0xffff);
  unfinished_.store(static_cast<std::uint32_t>(pieces), std::memory_order_relaxed);
  const std::uint32_t loop = loop_.load(std::memory_order_relaxed) + 1;
  for (std::int64_t i = 0; i < threads; ++i)
    stretches_[static_cast<std::size_t>(i)].pieces.store(
        stretch_of(loop, pieces * i / threads, pieces * (i + 1) / threads), std::memory_order_release);
  loop_.store(loop, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) wake(loop_);
  take_pieces(0);
  wait_for_pieces();
}

}  // namespace premotor
