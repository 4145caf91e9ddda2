// One thread of a kernel on the host: a stack of its own that runs until it gives way. Owned by the machine
// (machine.h), which resumes fibres one at a time on one operating-system thread; fibres know nothing of kernels.
#pragma once

#include <cstddef>
#include <memory>

namespace premotor::cuda::host {

class Fibre {
 public:
  using Body = void (*)(void* argument);

  Fibre() = default;
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // Prepares `body`, which starts at the first resume and must not return to it: it ends in finish. Takes the stack at
  // the first call and keeps it.
  void start(Body body, void* argument);
  // From the scheduler: runs the fibre until it gives way or finishes.
  void resume();
  // From the fibre: back to the scheduler.
  void give_way();
  // From the fibre: back to the scheduler for good.
  [[noreturn]] void finish();

 private:
  static void enter();
  void switch_to_scheduler(bool is_last);

  std::unique_ptr<std::byte[]> stack_;
  Body body_ = nullptr;
  void* argument_ = nullptr;
  // What a switch keeps: the stack pointer (or a ucontext_t) of either side.
  void* own_ = nullptr;
  void* scheduler_ = nullptr;
  struct Contexts;
  std::shared_ptr<Contexts> contexts_;
  // AddressSanitizer's view of the two stacks.
  void* own_fake_ = nullptr;
  const void* scheduler_bottom_ = nullptr;
  std::size_t scheduler_size_ = 0;
};

}  // namespace premotor::cuda::host
