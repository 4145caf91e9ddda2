#include "motion/real_time.h"

#include <cassert>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

namespace premotor::motion {

namespace {

constexpr std::int64_t kNsPerS = 1000000000;

// Pages of the stack that the loop may use, before it does.
void touch_stack() {
  constexpr std::size_t used_bytes = 64 * 1024;
  volatile unsigned char pages[used_bytes];
  for (std::size_t i = 0; i < used_bytes; i += 1024) pages[i] = 0;
  static_cast<void>(pages[0]);
}

Status warning(const char* code, const std::string& what, int error, const std::string& remedy) {
  return Status::error(code, what + " was refused (" + std::strerror(error) + "): " + remedy);
}

// The loop's own state between two cycles.
class Loop {
 public:
  Loop(const LoopOptions& options, Motion* motion, SharedStream* shared, EventRingDropNewest* events)
      : options_(options), ending_(options.stop_category), motion_(motion), shared_(shared), events_(events) {}

  LoopEnd run(const std::atomic<bool>& is_ending);

 private:
  void obey(std::int64_t now_ns);
  void cycle(std::int64_t now_ns, std::int64_t grid_ns);
  void note_changes();
  [[nodiscard]] bool is_over() const;

  LoopOptions options_;
  StopCategory ending_;
  Motion* motion_;
  SharedStream* shared_;
  EventRingDropNewest* events_;
  LoopCounts counts_;
  LoopEvent last_;
};

void Loop::obey(std::int64_t now_ns) {
  Command command;
  // A full ring at most, so that a fast supervisor cannot hold the cycle up.
  for (int i = 0; i < kCommandsMax && shared_->take(&command); ++i) {
    switch (command.kind) {
      case CommandKind::arm:
        motion_->arm(now_ns, command.liveness);
        break;
      case CommandKind::stop:
        motion_->stop(command.category);
        break;
      case CommandKind::estop:
        motion_->estop(now_ns);
        break;
      case CommandKind::beat:
        motion_->beat(command.until_ns);
        break;
      case CommandKind::indicate:
        motion_->indicate(static_cast<pm_indication>(command.indication));
        break;
    }
  }
}

void Loop::note_changes() {
  const MotionStatus& now = motion_->status();
  const Attachment attachment = shared_->attachment();
  const bool is_same = last_.stream == now.stream && last_.link == now.link && last_.bridge == now.bridge &&
                       last_.fault_code == now.fault_code && last_.link_fault.code == now.link_fault.code &&
                       last_.attachment.pid == attachment.pid && last_.attachment.generation == attachment.generation;
  if (is_same) return;
  last_ = {now.time_ns, now.stream, now.link, now.bridge, now.fault_code, now.link_fault, attachment};
  events_->push(last_);
}

void Loop::cycle(std::int64_t now_ns, std::int64_t grid_ns) {
  obey(now_ns);
  motion_->step(now_ns, grid_ns);
  const MotionStatus& status = motion_->status();
  const std::int64_t sent_ns = monotonic_ns();
  if (status.setpoints.is_valid && status.link == LinkState::armed)
    shared_->record(Measure::frame_age, sent_ns - (status.setpoints.time_ns - motion_->lead_ns()));
  stream::Executed one;
  while (motion_->executed(&one)) shared_->publish_executed(one);
  ++counts_.cycles;
  shared_->publish(*motion_, counts_);
  note_changes();
  shared_->record(Measure::cycle, monotonic_ns() - now_ns);
}

bool Loop::is_over() const {
  const MotionStatus& status = motion_->status();
  if (!status.is_at_rest || status.stream == stream::State::stopping) return false;
  if (ending_ == StopCategory::two) return true;
  return status.link != LinkState::armed && status.link != LinkState::arming && status.link != LinkState::disarming;
}

LoopEnd Loop::run(const std::atomic<bool>& is_ending) {
  const std::int64_t period_ns = options_.period_ns;
  std::int64_t due_ns = monotonic_ns() + period_ns;
  std::int64_t ending_ns = -1;
  for (;;) {
    sleep_until(due_ns);
    const std::int64_t now_ns = monotonic_ns();
    const std::int64_t late_ns = now_ns - due_ns;
    shared_->record(Measure::wake_up, late_ns);
    const std::int64_t skipped = late_ns / period_ns;
    counts_.skipped += static_cast<std::uint64_t>(skipped);
    const std::int64_t grid_ns = due_ns + skipped * period_ns;
    if (ending_ns < 0 && is_ending.load(std::memory_order_relaxed)) {
      ending_ns = now_ns;
      // Power that is just being asked for is not kept.
      if (motion_->status().link != LinkState::armed) ending_ = StopCategory::one;
      motion_->stop(ending_);
    }
    cycle(now_ns, grid_ns);
    // The cycle that asked for the stop has not shown its effect yet.
    if (ending_ns >= 0 && now_ns > ending_ns) {
      if (is_over()) return LoopEnd::at_rest;
      if (now_ns - ending_ns > options_.shutdown_ns_max) return LoopEnd::too_late;
    }
    due_ns = grid_ns + period_ns;
  }
}

}  // namespace

std::int64_t monotonic_ns() {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerS + now.tv_nsec;
}

void sleep_until(std::int64_t time_ns) {
  const timespec until = {time_ns / kNsPerS, time_ns % kNsPerS};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

RealTime::~RealTime() {
  if (awake_fd_ >= 0) ::close(awake_fd_);
}

std::vector<Status> RealTime::enter(const RealTimeOptions& options) {
  std::vector<Status> warnings;
  touch_stack();
  // What is mapped now is all that the loop will touch. Later mappings are left out: with a limit on locked memory they
  // would fail instead of being slow.
  if (options.wants_lock && ::mlockall(MCL_CURRENT) != 0)
    warnings.push_back(warning("STREAM_REALTIME_MEMORY", "locking memory", errno,
                               "raise the limit (LimitMEMLOCK=infinity, or memlock in limits.conf); a page fault may "
                               "delay a cycle until then."));
  if (options.core >= 0) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (options.core < CPU_SETSIZE) CPU_SET(static_cast<std::size_t>(options.core), &cores);
    const int error = ::pthread_setaffinity_np(::pthread_self(), sizeof cores, &cores);
    if (error != 0)
      warnings.push_back(warning("STREAM_REALTIME_CORE", "core " + std::to_string(options.core), error,
                                 "name a core that this process may run on; it runs on any until then."));
  }
  if (options.priority > 0) {
    sched_param parameters = {};
    parameters.sched_priority = options.priority;
    const int error = ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameters);
    if (error != 0)
      warnings.push_back(warning("STREAM_REALTIME_PRIORITY", "SCHED_FIFO priority " + std::to_string(options.priority),
                                 error,
                                 "raise the limit (LimitRTPRIO=99, or rtprio in limits.conf); other processes delay "
                                 "the setpoints until then."));
  }
  if (options.wants_awake) {
    awake_fd_ = ::open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
    const std::int32_t latency_us = 0;
    if (awake_fd_ < 0 || ::write(awake_fd_, &latency_us, sizeof latency_us) != sizeof latency_us)
      warnings.push_back(warning("STREAM_REALTIME_SLEEP", "/dev/cpu_dma_latency", errno,
                                 "give this user the right to write it; waking from deep sleep may delay a cycle."));
  }
  return warnings;
}

void EventRingDropNewest::push(const LoopEvent& event) {
  const std::uint64_t written = written_.load(std::memory_order_relaxed);
  if (written - read_.load(std::memory_order_acquire) == ring_.size()) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  ring_[written % ring_.size()] = event;
  written_.store(written + 1, std::memory_order_release);
}

bool EventRingDropNewest::pop(LoopEvent* out) {
  const std::uint64_t read = read_.load(std::memory_order_relaxed);
  if (read == written_.load(std::memory_order_acquire)) return false;
  *out = ring_[read % ring_.size()];
  read_.store(read + 1, std::memory_order_release);
  return true;
}

LoopEnd run_loop(const LoopOptions& options, Motion* motion, SharedStream* shared, EventRingDropNewest* events,
                 const std::atomic<bool>& is_ending) {
  assert(options.period_ns > 0 && motion != nullptr && shared != nullptr && events != nullptr);
  return Loop(options, motion, shared, events).run(is_ending);
}

}  // namespace premotor::motion
