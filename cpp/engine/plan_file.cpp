// Opening and checking plan files. The writer is in plan_writer.cpp. See plan_file.h.
#include "engine/plan_file.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>

#include "engine/plan_identity.h"

namespace premotor::engine {

namespace {

// A background check yields to everything that computes.
void run_when_idle() {
#if defined(SCHED_IDLE)
  const sched_param none{};
  // Only a wish: when it is refused the check competes like any thread.
  (void)::pthread_setschedparam(::pthread_self(), SCHED_IDLE, &none);
#endif
}

}  // namespace

PlanFile::~PlanFile() {
  stop_.store(true);
  if (checker_.joinable()) checker_.join();
}

Status PlanFile::open(const std::string& path, std::unique_ptr<PlanFile>* out) {
  std::unique_ptr<PlanFile> plan(new PlanFile);
  const Status mapped = MappedFile::open(path, &plan->file_);
  if (!mapped.ok()) {
    const bool empty = mapped.found == "0 bytes";
    return plan_error(empty ? "PLAN_TRUNCATED" : "PLAN_MISSING", path, "a readable file", mapped.found,
                      "Check the path; premotor build writes plans.");
  }
  plan->file_.prefer_large_pages();
  PREMOTOR_TRY(parse_plan(plan->file_.bytes(), path, &plan->contents_));
  *out = std::move(plan);
  return Status::good();
}

Status PlanFile::check_for(const PlanNeed& need) const {
  const PlanFacts& facts = contents_.facts;
  const auto compare = [&](const char* code, const std::string& what, const std::string& needed,
                           const std::string& found, const std::string& advice) {
    if (needed == found) return Status::good();
    return plan_error(code, path(), what + " " + needed, found, advice);
  };
  PREMOTOR_TRY(compare("PLAN_DEVICE", "device", need.device, facts.device, "Build one for this device."));
  PREMOTOR_TRY(compare("PLAN_VERSION", "weights in layout", std::to_string(need.layout), std::to_string(facts.layout),
                       "It was written by premotor " + facts.tool + ": build it again with this version."));
  PREMOTOR_TRY(compare("PLAN_PRECISION", "precision", need.precision, facts.precision,
                       "Build one for this precision, or choose the plan's."));
  PREMOTOR_TRY(compare("PLAN_PRECISION", "activations rounded to", need.rounding, facts.rounding,
                       "The job's param_dtype decides it: build the plan with --job."));
  return check_sources(need.checkpoint, contents_.sources, path());
}

Status PlanFile::open_for(const std::string& path, const PlanNeed& need, std::unique_ptr<PlanFile>* out,
                          std::uint64_t checked_at_open_max) {
  std::unique_ptr<PlanFile> plan;
  PREMOTOR_TRY(open(path, &plan));
  PREMOTOR_TRY(plan->check_for(need));
  const PlanTuning& tuning = plan->contents_.tuning;
  plan->is_tuned_ = tuning.processor == need.processor && tuning.threads == need.threads;
  if (plan->contents_.payload.size() > checked_at_open_max) {
    plan->checker_ = std::thread([raw = plan.get()] { raw->check_in_background(); });
  } else {
    plan->file_.populate();
    PREMOTOR_TRY(plan->verify({}, nullptr));
    plan->checked_.store(true);
  }
  *out = std::move(plan);
  return Status::good();
}

Status PlanFile::damaged_block(std::uint64_t block) const {
  const std::uint64_t begin = kPlanHeaderBytes + block * contents_.block_bytes;
  return plan_error("PLAN_DAMAGED", path(), "bytes with their checksum from offset " + std::to_string(begin) + " on",
                    "other bytes", "Copy it again, or build it again with premotor build.");
}

Status PlanFile::damage() const {
  const std::int64_t block = damaged_.load(std::memory_order_acquire);
  return block < 0 ? Status::good() : damaged_block(static_cast<std::uint64_t>(block));
}

Status PlanFile::verify(const Progress& progress, const std::atomic<bool>* cancel) const {
  const auto total = static_cast<std::int64_t>(contents_.payload.size());
  for (std::uint64_t block = 0; block < contents_.block_count(); ++block) {
    if (cancel != nullptr && cancel->load()) return Status::error("ABORTED", "The check was stopped on request.");
    if (!contents_.block_is_whole(block)) return damaged_block(block);
    if (progress) progress(std::min(static_cast<std::int64_t>((block + 1) * contents_.block_bytes), total), total);
  }
  return Status::good();
}

void PlanFile::check_in_background() {
  run_when_idle();
  for (std::uint64_t block = 0; block < contents_.block_count(); ++block) {
    if (stop_.load()) return;
    if (contents_.block_is_whole(block)) continue;
    damaged_.store(static_cast<std::int64_t>(block), std::memory_order_release);
    return;
  }
  checked_.store(true, std::memory_order_release);
}

}  // namespace premotor::engine
