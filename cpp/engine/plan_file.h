// Plan files: the memory map that weights are used from, and the writer. The format is in plan_format.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/mapped_file.h"
#include "base/output_file.h"
#include "base/status.h"
#include "engine/plan_format.h"
#include "ops/ops.h"

namespace premotor::engine {

// What a plan must be for.
struct PlanNeed {
  std::string device, precision, rounding;
  std::uint32_t layout = 0;
  std::string checkpoint;  // folder
  // Tactics of another processor or number of threads are left.
  std::string processor;
  std::int64_t threads = 0;
};

class PlanFile {
 public:
  // Payloads up to this size are checked before open_for returns, larger ones in the background.
  static constexpr std::uint64_t kCheckedAtOpenMax = std::uint64_t{64} << 20;
  using Progress = std::function<void(std::int64_t bytes_done, std::int64_t bytes_total)>;

  // Maps the file and checks all but its payload. Errors: PLAN_MISSING and those of parse_plan.
  static Status open(const std::string& path, std::unique_ptr<PlanFile>* out);
  // The same, and that it is for this use; begins to check the payload. Errors, too: PLAN_DEVICE, PLAN_VERSION,
  // PLAN_PRECISION, PLAN_CHECKPOINT.
  static Status open_for(const std::string& path, const PlanNeed& need, std::unique_ptr<PlanFile>* out,
                         std::uint64_t checked_at_open_max = kCheckedAtOpenMax);
  ~PlanFile();

  [[nodiscard]] const PlanContents& contents() const { return contents_; }
  [[nodiscard]] const std::string& path() const { return file_.path(); }
  [[nodiscard]] std::uint64_t size_bytes() const { return file_.bytes().size(); }
  // How to cut the products of a weight; empty where the plan was opened for another use than it was tuned for.
  [[nodiscard]] std::span<const ops::Tactic> tactics_for(const PlanTensor& tensor) const {
    return is_tuned_ ? contents_.tuning.find(tensor) : std::span<const ops::Tactic>();
  }

  // What the check in the background has found so far. Error: PLAN_DAMAGED.
  [[nodiscard]] Status damage() const;
  // Whether every byte has been checked.
  [[nodiscard]] bool is_checked() const { return checked_.load(std::memory_order_acquire); }
  // Reads and checks the whole payload. Errors: PLAN_DAMAGED, ABORTED.
  Status verify(const Progress& progress, const std::atomic<bool>* cancel) const;

 private:
  PlanFile() = default;
  Status check_for(const PlanNeed& need) const;
  [[nodiscard]] Status damaged_block(std::uint64_t block) const;
  void check_in_background();

  MappedFile file_;
  PlanContents contents_;
  bool is_tuned_ = false;  // for what it was opened for
  std::thread checker_;
  std::atomic<bool> stop_{false}, checked_{false};
  std::atomic<std::int64_t> damaged_{-1};  // the first block that is not what was written
};

// Writes a plan piece by piece; no weight is held longer than it takes to write it.
class PlanWriter {
 public:
  // Errors of all: FILE_WRITE, OUT_OF_MEMORY.
  Status create(const std::string& path);
  // A key that is there already is left: a model reads some tensors twice.
  // A matrix in the form that `ops` prepares, or as it is when there is none or `ops` is null.
  Status add_matrix(const std::string& key, const ops::Matrix& matrix, ops::Ops* ops, ops::Rounding rounding,
                    ops::WeightFormat format = ops::WeightFormat::stored);
  Status add_floats(const std::string& key, std::span<const float> values);
  Status add_conditioning(std::int64_t modality, float timestep, std::span<const float> temb,
                          std::span<const float> projection);
  // Makes the bytes so far a whole plan at partial_path(). More may be added afterwards.
  Status seal();
  // Gives it its name; seal comes before.
  Status commit() { return file_.commit(); }

  // Facts, sources, parts and arena are for the caller to fill before seal.
  [[nodiscard]] PlanContents& contents() { return contents_; }
  [[nodiscard]] const std::string& partial_path() const { return file_.partial_path(); }
  [[nodiscard]] std::uint64_t size_bytes() const { return file_.size(); }
  // Called with the elements of every weight that was added; its error ends the adding.
  std::function<Status(std::int64_t elements)> on_added;

 private:
  Status put(std::span<const std::byte> bytes, std::uint64_t* at);
  Status append(std::span<const std::byte> bytes);
  [[nodiscard]] Status added(std::int64_t elements) const;

  OutputFile file_;
  PlanContents contents_;
  std::set<std::string, std::less<>> keys_;
  std::uint64_t payload_bytes_ = 0;
  std::vector<std::uint64_t> sums_;  // of the whole blocks
  std::vector<std::byte> block_;     // the one that is being filled
};

}  // namespace premotor::engine
