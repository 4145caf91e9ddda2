// Switching stacks: a dozen instructions of our own on x86-64, ucontext elsewhere (and with PREMOTOR_UCONTEXT_FIBRES,
// so that this machine tests it too). Under AddressSanitizer each switch is announced, or it would take the other stack
// for a broken one.
#include "cuda/host/fibre.h"

#include <cstdint>

#if defined(__x86_64__) && !defined(PREMOTOR_UCONTEXT_FIBRES)
#define PREMOTOR_OWN_SWITCH 1
#else
#define PREMOTOR_OWN_SWITCH 0
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define PREMOTOR_ASAN 1
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, std::size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_bottom, std::size_t* old_size);
void __asan_unpoison_memory_region(const volatile void* address, std::size_t size);
}
#else
#define PREMOTOR_ASAN 0
#endif

namespace premotor::cuda::host {
namespace {

constexpr std::size_t kStackBytes = PREMOTOR_ASAN ? 256 * 1024 : 96 * 1024;

// The fibre that resume enters: fibres start without arguments.
Fibre* entering = nullptr;

}  // namespace

#if PREMOTOR_OWN_SWITCH
// Keeps the registers that a call preserves on the old stack, and takes those of the new one from it.
asm(R"(
.text
.p2align 4
.type premotor_switch_stack, @function
premotor_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size premotor_switch_stack, .-premotor_switch_stack
)");
extern "C" void premotor_switch_stack(void** from, void* to);
struct Fibre::Contexts {};
#else
struct Fibre::Contexts {
  ucontext_t own, scheduler;
};
#endif

void Fibre::enter() {
  Fibre* self = entering;
#if PREMOTOR_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &self->scheduler_bottom_, &self->scheduler_size_);
#endif
  self->body_(self->argument_);
  __builtin_unreachable();
}

void Fibre::start(Body body, void* argument) {
  if (stack_ == nullptr) stack_.reset(new std::byte[kStackBytes]);
  body_ = body;
  argument_ = argument;
  own_fake_ = nullptr;
#if PREMOTOR_ASAN
  // A fibre that was given up left its frames' red zones behind.
  __asan_unpoison_memory_region(stack_.get(), kStackBytes);
#endif
#if PREMOTOR_OWN_SWITCH
  const std::uintptr_t top = (reinterpret_cast<std::uintptr_t>(stack_.get()) + kStackBytes) & ~std::uintptr_t{15};
  void** at = reinterpret_cast<void**>(top);
  *--at = nullptr;  // where enter would return to; the stack is then as a call leaves it
  *--at = reinterpret_cast<void*>(&Fibre::enter);
  for (int i = 0; i < 6; ++i) *--at = nullptr;
  own_ = at;
#else
  if (contexts_ == nullptr) contexts_ = std::make_shared<Contexts>();
  getcontext(&contexts_->own);
  contexts_->own.uc_stack.ss_sp = stack_.get();
  contexts_->own.uc_stack.ss_size = kStackBytes;
  contexts_->own.uc_link = nullptr;
  makecontext(&contexts_->own, &Fibre::enter, 0);
#endif
}

void Fibre::resume() {
  entering = this;
#if PREMOTOR_ASAN
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stack_.get(), kStackBytes);
#endif
#if PREMOTOR_OWN_SWITCH
  premotor_switch_stack(&scheduler_, own_);
#else
  swapcontext(&contexts_->scheduler, &contexts_->own);
#endif
#if PREMOTOR_ASAN
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Fibre::switch_to_scheduler([[maybe_unused]] bool is_last) {
#if PREMOTOR_ASAN
  __sanitizer_start_switch_fiber(is_last ? nullptr : &own_fake_, scheduler_bottom_, scheduler_size_);
#endif
#if PREMOTOR_OWN_SWITCH
  premotor_switch_stack(&own_, scheduler_);
#else
  swapcontext(&contexts_->own, &contexts_->scheduler);
#endif
#if PREMOTOR_ASAN
  __sanitizer_finish_switch_fiber(own_fake_, &scheduler_bottom_, &scheduler_size_);
#endif
}

void Fibre::give_way() { switch_to_scheduler(false); }

void Fibre::finish() {
  switch_to_scheduler(true);
  __builtin_unreachable();
}

}  // namespace premotor::cuda::host
