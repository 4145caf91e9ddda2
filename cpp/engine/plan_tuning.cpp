// Timing the ways to cut each product. Candidates take turns, so that a machine that slows down slows all of them, and
// the best turn of each counts. See plan_tuning.h.
#include "engine/plan_tuning.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace premotor::engine {

namespace {

// A turn lasts this long at least: far more than the clock's and the threads' unrest.
constexpr double kTurnSeconds = 2e-4;
constexpr int kTurnsLeast = 4, kTurnsMost = 100;
// Weights of one size that take turns, as layers do: small ones stay in a cache then as they do in a pass.
constexpr std::size_t kWeightsMost = 8;

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Product, outputs, inputs.
using Size = std::tuple<std::string, std::int64_t, std::int64_t>;

// One product of the plan: its weights and the rows that passes have.
struct Case {
  std::vector<const PlanTensor*> weights;
  std::int64_t rows = 0;

  [[nodiscard]] double work() const {
    const PlanTensor& w = *weights.front();
    return static_cast<double>(rows) * static_cast<double>(w.rows) * static_cast<double>(w.cols);
  }
};

std::map<Size, std::set<std::int64_t>> rows_of(const std::vector<PassOutline>& passes) {
  std::map<Size, std::set<std::int64_t>> rows;
  for (const PassOutline& pass : passes)
    for (const StepGroup& group : pass.groups)
      for (const PassStep& step : group.steps)
        if (step.op == "linear") rows[{step.product, step.outputs, step.inputs}].insert(step.rows);
  return rows;
}

// Least work first: what small ones leave of their share of the time goes to the large ones.
std::vector<Case> cases_of(const PlanFile& plan, const std::vector<PassOutline>& passes) {
  const std::map<Size, std::set<std::int64_t>> rows = rows_of(passes);
  std::map<std::pair<Size, std::int64_t>, std::vector<const PlanTensor*>> weights;
  for (const PlanTensor& tensor : plan.contents().tensors) {
    const Size size{tensor.product, tensor.rows, tensor.cols};
    if (tensor.kind != PlanKind::prepared || !rows.contains(size)) continue;
    std::vector<const PlanTensor*>& own = weights[{size, tensor.group}];
    if (own.size() < kWeightsMost) own.push_back(&tensor);
  }
  std::vector<Case> cases;
  for (const auto& [key, own] : weights)
    for (const std::int64_t count : rows.at(key.first)) cases.push_back({own, count});
  std::stable_sort(cases.begin(), cases.end(), [](const Case& a, const Case& b) { return a.work() < b.work(); });
  return cases;
}

// Keeps tactics in the order of the format.
class Found {
 public:
  explicit Found(PlanTuning* tuning) : tuning_(*tuning) {}

  void add(const PlanTensor& w, const ops::Tactic& tactic) {
    tactics_[{w.product, w.rows, w.cols, w.group}].insert_or_assign(tactic.rows, tactic);
  }
  void finish() {
    for (const auto& [key, by_rows] : tactics_) {
      const auto& [product, outputs, inputs, group] = key;
      PlanTactics& one = tuning_.products.emplace_back(PlanTactics{product, outputs, inputs, group, {}});
      for (const auto& [rows, tactic] : by_rows) one.tactics.push_back(tactic);
    }
  }

 private:
  PlanTuning& tuning_;
  std::map<std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t>, std::map<std::int64_t, ops::Tactic>>
      tactics_;
};

// One product with a fixed number of rows, cut in several ways.
class Race {
 public:
  Race(const Case& one, std::uint32_t layout, ops::CpuOps& ops) : ops_(ops), rows_(one.rows) {
    const PlanTensor& first = *one.weights.front();
    x_.assign(static_cast<std::size_t>(rows_ * first.cols), 0.5f);
    y_.resize(static_cast<std::size_t>(rows_ * first.rows));
    enter(one, layout, {rows_});
    if (entries_.front().weights.empty()) return;
    for (const ops::Tactic& tactic : ops_.tactics_to_try(entries_.front().weights.front(), rows_))
      if (!tactic.is_rule()) enter(one, layout, tactic);
  }

  // The rule, unless another is clearly faster; also when `seconds` are not enough to tell.
  ops::Tactic winner(double seconds) {
    const ops::Tactic rule{rows_};
    if (entries_.size() < 2) return rule;
    const double began = now_s();
    run(entries_.front());
    const double once = now_s() - began;
    const auto repeats = static_cast<int>(std::clamp(kTurnSeconds / std::max(once, 1e-9), 1.0, 1000.0));
    const double turn_s = once * static_cast<double>(repeats + 1) * static_cast<double>(entries_.size());
    if (kTurnsLeast * turn_s > seconds) return rule;
    int turns = 0;
    for (; turns < kTurnsMost && (turns < kTurnsLeast || now_s() - began < seconds); ++turns)
      for (Entry& entry : entries_) take_turn(repeats, &entry);
    const auto best = std::min_element(entries_.begin() + 1, entries_.end(),
                                       [](const Entry& a, const Entry& b) { return a.best_s < b.best_s; });
    return best->best_s <= kTacticGain * entries_.front().best_s ? best->tactic : rule;
  }

 private:
  struct Entry {
    ops::Tactic tactic;
    std::vector<ops::Matrix> weights;
    std::size_t next = 0;
    double best_s = std::numeric_limits<double>::infinity();
  };

  void enter(const Case& one, std::uint32_t layout, const ops::Tactic& tactic) {
    Entry& entry = entries_.emplace_back();
    entry.tactic = tactic;
    for (const PlanTensor* w : one.weights) {
      ops::Matrix matrix{nullptr, w->dtype, w->rows, w->cols};
      const ops::Ops::PreparedForm form{
          w->product, layout, static_cast<std::int64_t>(w->bytes), w->group, {&tactic, 1}};
      if (ops_.adopt(&matrix, form, w->data)) entry.weights.push_back(matrix);
    }
  }
  void run(Entry& entry) {
    const ops::Matrix& w = entry.weights[entry.next++ % entry.weights.size()];
    ops_.linear(x_.data(), rows_, w.cols, w, nullptr, ops::Activation::none, ops::Rounding::none, y_.data(), w.rows);
  }
  void take_turn(int repeats, Entry* entry) {
    // The threads are awake after the first one, as they are in a pass.
    run(*entry);
    const double began = now_s();
    for (int i = 0; i < repeats; ++i) run(*entry);
    entry->best_s = std::min(entry->best_s, now_s() - began);
  }

  ops::CpuOps& ops_;
  std::int64_t rows_;
  std::vector<float> x_, y_;
  std::vector<Entry> entries_;
};

// What was found before; null: nothing.
const ops::Tactic* known(const std::vector<PlanTuning>& tunings, const PlanTuning& here, const Case& one) {
  for (const PlanTuning& tuning : tunings) {
    if (tuning.processor != here.processor || tuning.threads != here.threads) continue;
    for (const ops::Tactic& tactic : tuning.find(*one.weights.front()))
      if (tactic.rows == one.rows) return &tactic;
  }
  return nullptr;
}

}  // namespace

Status tune_products(const PlanFile& plan, const std::vector<PassOutline>& passes, ops::CpuOps& ops,
                     const PlanTuningOptions& options, PlanTuning* out) {
  PlanTuning tuning{ops.processor(), ops.pool().threads(), {}};
  const std::vector<Case> cases = cases_of(plan, passes);
  Found found(&tuning);
  const double end = now_s() + options.seconds;
  std::int64_t done = 0;
  for (const Case& one : cases) {
    const PlanTensor& w = *one.weights.front();
    if (const ops::Tactic* before = known(options.tunings, tuning, one)) {
      found.add(w, *before);
    } else if (options.measures) {
      const auto left = static_cast<double>(std::ssize(cases) - done);
      found.add(w, Race(one, plan.contents().facts.layout, ops).winner((end - now_s()) / left));
    }
    ++done;
    if (options.progress) PREMOTOR_TRY(options.progress(done, std::ssize(cases)));
  }
  found.finish();
  *out = tuning.products.empty() ? PlanTuning{} : std::move(tuning);
  return Status::good();
}

}  // namespace premotor::engine
