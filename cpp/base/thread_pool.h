// A fixed pool of worker threads for data-parallel loops of a few microseconds and more. One owner; the calling thread
// takes part in the work.
//
// A loop is cut into pieces, which are dealt to the threads as stretches of neighbours. A thread takes its own pieces
// from the front and, when it has none left, those of others from the back: a processor that stalls holds up no more
// than the piece it is in, and the caller never waits for a worker that has taken nothing.
//
// Workers that have nothing to do spin for some tens of microseconds, which is what lies between two loops of one
// forward pass, and then sleep: an engine at rest uses no processor time. A loop allocates nothing.
//
// Where the process may use more cores than there are threads, workers keep off its lowest core, and CallerCores keeps
// the caller off it while it computes: that core is left to the setpoint stream. Cores::own pins each worker to a core
// of its own besides, from the highest downwards. That is for machines whose cores nobody else uses: a pinned thread
// cannot go elsewhere when another process takes its core, and the others wait for the piece it is in (docs/SPEED.md).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include <sched.h>

namespace premotor {

class ThreadPool {
 public:
  enum class Cores : std::uint8_t { shared, own };

  // threads >= 1 counts the calling thread, so ThreadPool(1) starts none. With more threads than usable_cores() the
  // spinning ones take time from the working ones: tests do that, an engine does not.
  explicit ThreadPool(int threads, Cores cores = Cores::shared);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // Cores that the calling thread may run on, at least 1.
  [[nodiscard]] static int usable_cores();

  // Calls body(begin, end) for disjoint ranges that cover [0, count), each at least `grain` long (but the last).
  // Returns when all are done. Results must not depend on how the ranges are cut. Not re-entrant: body must not call
  // parallel_for, and must not throw.
  template <typename Body>
  void parallel_for(std::int64_t count, std::int64_t grain, const Body& body) {
    if (count <= 0) return;
    if (workers_.empty() || count <= grain) {
      body(std::int64_t{0}, count);
      return;
    }
    run(
        count, grain,
        [](const void* context, std::int64_t begin, std::int64_t end) {
          (*static_cast<const Body*>(context))(begin, end);
        },
        &body);
  }

  // While it lives, the calling thread keeps to the cores that are meant for it; then it may use again what it might.
  class CallerCores {
   public:
    explicit CallerCores(const ThreadPool& pool);
    ~CallerCores();
    CallerCores(const CallerCores&) = delete;
    CallerCores& operator=(const CallerCores&) = delete;

   private:
    bool is_changed_ = false;
    cpu_set_t before_;
  };

 private:
  using Call = void (*)(const void* context, std::int64_t begin, std::int64_t end);
  // The pieces that one thread was dealt and nobody has taken: loop number (32 bits), first (16), end (16). The loop's
  // number keeps a latecomer from taking a piece of another loop than the one it looked at.
  struct alignas(64) Stretch {
    std::atomic<std::uint64_t> pieces{0};
  };

  void run(std::int64_t count, std::int64_t grain, Call call, const void* context);
  void work(std::size_t self);
  void take_pieces(std::size_t self);
  [[nodiscard]] bool take(std::size_t from, bool is_own, std::int64_t* piece);
  [[nodiscard]] std::uint32_t wait_for_loop(std::uint32_t seen);
  void wait_for_pieces();
  void place(const std::vector<int>& usable, Cores cores);

  std::vector<std::thread> workers_;
  std::unique_ptr<Stretch[]> stretches_;  // [threads]
  // Of the running loop; written before its stretches are published, read by who has taken a piece of it.
  Call call_ = nullptr;
  const void* context_ = nullptr;
  std::int64_t count_ = 0;
  std::int64_t step_ = 1;
  alignas(64) std::atomic<std::uint32_t> loop_{0};  // its number; workers sleep on it
  std::atomic<std::uint32_t> sleepers_{0};          // workers that sleep or are about to
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<std::uint32_t> unfinished_{0};  // pieces; the caller sleeps on it
  std::atomic<bool> is_caller_asleep_{false};
  bool is_placed_ = false;
  cpu_set_t caller_cores_;
};

}  // namespace premotor
