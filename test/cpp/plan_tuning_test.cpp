// How products are cut: the same bits with every tactic, on every instruction set and number of threads; what is
// adopted is what is used; and what tuning a plan leaves behind.
#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/plan_tuning.h"
#include "op_values.h"
#include "ops/cpu/row_tiles.h"
#include "plan_files.h"
#include "tap.h"

using namespace premotor;
using namespace premotor::engine;

namespace {

using enum ops::Split;

std::vector<ops::Tactic> every_tactic(std::int64_t rows) {
  std::vector<ops::Tactic> tactics;
  for (const ops::Split split : {rule, alone, shared})
    for (const std::int64_t tiles : ops::kTaskTileChoices) tactics.push_back({rows, split, tiles});
  return tactics;
}

// A weight's packed bytes, adopted as often as there are tactics.
struct Packed {
  ops::Matrix stored;
  ops::Ops::PreparedForm form;
  op_values::Aligned bytes;

  Packed(ops::CpuOps& ops, const std::vector<float>& values, std::int64_t rows, ops::WeightFormat format)
      : stored{values.data(), ops::Dtype::f32, rows, std::ssize(values) / rows}, bytes(form_of(ops, format)) {
    ops.write_prepared(stored, form, bytes.data());
  }
  std::int64_t form_of(const ops::CpuOps& ops, ops::WeightFormat format) {
    if (!ops.prepared_form(stored, ops::Rounding::none, format, &form)) std::abort();
    return form.bytes;
  }
  ops::Matrix adopted(ops::CpuOps& ops, std::span<const ops::Tactic> tactics) {
    ops::Matrix w{nullptr, stored.dtype, stored.rows, stored.cols};
    form.tactics = tactics;
    if (!ops.adopt(&w, form, bytes.data())) std::abort();
    form.tactics = {};
    return w;
  }
};

std::vector<float> product(ops::CpuOps& ops, const ops::Matrix& w, const std::vector<float>& x, std::int64_t rows,
                           bool is_residual) {
  std::vector<float> y(static_cast<std::size_t>(rows * w.rows), 0.25f);
  ops::Ops::FusedLinear args;
  args.x = x.data();
  args.m = rows;
  args.ldx = w.cols;
  args.w = &w;
  args.act = ops::Activation::silu;
  args.is_residual = is_residual;
  args.y = y.data();
  args.ldy = w.rows;
  ops.fused_linear(args);
  return y;
}

// Deep enough that sums wait in memory between stretches of k, with more tiles of rows than a task has.
void test_bits(ops::WeightFormat format, const ops::PackedKernels& kernels) {
  constexpr std::int64_t kOutputs = 72, kInputs = 1400;
  std::mt19937 random(7);
  const std::vector<float> values = op_values::normal_values(random, kOutputs * kInputs, 1);
  const std::string what = std::string(kernels.name) + ", format " + std::to_string(static_cast<int>(format)) + ": ";
  for (const std::int64_t rows : {1, 15, 130, 301}) {
    const std::vector<float> x = op_values::normal_values(random, rows * kInputs, 1);
    std::vector<float> expected[2];
    int same = 0, count = 0;
    for (const int threads : {1, 3}) {
      ops::CpuOps ops(threads, ops::cpu_kernels(), kernels);
      Packed packed(ops, values, kOutputs, format);
      for (const ops::Tactic& tactic : every_tactic(rows)) {
        const ops::Matrix w = packed.adopted(ops, {&tactic, 1});
        for (const bool is_residual : {false, true}) {
          const std::vector<float> y = product(ops, w, x, rows, is_residual);
          std::vector<float>& first = expected[is_residual ? 1 : 0];
          if (first.empty()) first = y;
          same += op_values::same_bits(y, first) ? 1 : 0;
          ++count;
        }
      }
    }
    tap::equal(same, count, what + "every tactic gives the same bits, " + std::to_string(rows) + " rows");
  }
}

void test_lookup() {
  ops::CpuOps ops(2);
  const std::vector<float> values(96 * 50, 1.0f);
  Packed packed(ops, values, 96, ops::WeightFormat::stored);
  const ops::Tactic given[] = {{3, alone, 5}, {8, shared, 20}, {40, rule, 10}};
  const ops::Matrix w = packed.adopted(ops, given), bare = packed.adopted(ops, {});
  for (const ops::Tactic& tactic : given)
    tap::ok(ops.tactic_for(w, tactic.rows) == tactic, "adopted for " + std::to_string(tactic.rows) + " rows");
  for (const std::int64_t rows : {1, 4, 39, 41}) {
    tap::ok(ops.tactic_for(w, rows).is_rule() && ops.tactic_for(bare, rows).is_rule(),
            "the rule for " + std::to_string(rows) + " rows");
  }
  const std::vector<ops::Tactic> few = ops.tactics_to_try(w, 1), many = ops.tactics_to_try(w, 4000);
  tap::ok(few.size() == 2 && few[0].is_rule() && few[1].split == shared, "a row may be shared");
  tap::ok(many.size() == 4 && many[0].is_rule() && many[1].task_tiles == 10 && many[2].task_tiles == 5 &&
              many[3].split == alone,
          "many rows may be cut smaller, or be left to one thread");
  ops::CpuOps single(1);
  const ops::Matrix lonely = packed.adopted(single, {});
  tap::ok(single.tactics_to_try(lonely, 1).size() == 1 && single.tactics_to_try(lonely, 4000).size() == 3,
          "one thread shares with nobody");
  tap::ok(ops.processor() == single.processor() &&
              ops.processor().ends_with(std::string(", ") + ops::cpu_packed_kernels().name),
          "the processor: " + ops.processor());
}

// Tasks of a number of tiles: each tile of each panel once.
void test_tasks() {
  const ops::RowTiles tiles(500, 12);
  constexpr std::int64_t kPanels = 3;
  for (const std::int64_t most : ops::kTaskTileChoices) {
    std::vector<int> visits(static_cast<std::size_t>(tiles.count * kPanels));
    std::int64_t tallest = 0;
    ops::run_tasks(tiles, most, kPanels, 0, kPanels * ops::ceil_div(tiles.count, most),
                   [&](std::int64_t begin, std::int64_t end, std::int64_t panel, std::int64_t panel_end) {
                     tallest = std::max(tallest, end - begin);
                     for (; panel < panel_end; ++panel)
                       for (std::int64_t tile = begin; tile < end; ++tile)
                         ++visits[static_cast<std::size_t>(panel * tiles.count + tile)];
                   });
    tap::ok(tallest == most && std::all_of(visits.begin(), visits.end(), [](int times) { return times == 1; }),
            "tasks of " + std::to_string(most) + " tiles");
  }
}

// Rows that the passes have for each size of product.
std::set<std::vector<std::int64_t>> wanted_of(const std::vector<PassOutline>& passes, const PlanContents& contents) {
  std::set<std::vector<std::int64_t>> wanted;
  for (const PassOutline& pass : passes)
    for (const StepGroup& group : pass.groups)
      for (const PassStep& step : group.steps)
        for (const PlanTensor& w : contents.tensors)
          if (step.op == "linear" && w.kind == PlanKind::prepared && w.product == step.product &&
              w.rows == step.outputs && w.cols == step.inputs)
            wanted.insert({w.rows, w.cols, step.rows});
  return wanted;
}

std::set<std::vector<std::int64_t>> tuned_of(const PlanTuning& tuning) {
  std::set<std::vector<std::int64_t>> tuned;
  for (const PlanTactics& one : tuning.products)
    for (const ops::Tactic& tactic : one.tactics) tuned.insert({one.outputs, one.inputs, tactic.rows});
  return tuned;
}

void test_tuning() {
  checkpoint_files::TempFolder folder;
  const SessionOptions options = plan_files::options_of("robotwin_tiny");
  plan_files::build(options, folder / "a.plan", true);
  std::unique_ptr<PlanFile> plan;
  golden::need(PlanFile::open(folder / "a.plan", &plan));
  const PlanTuning& tuning = plan->contents().tuning;
  const int threads = std::min(options.threads, ThreadPool::usable_cores());
  ops::CpuOps ops(threads);
  tap::ok(tuning.processor == ops.processor() && tuning.threads == threads, "it says what it was tuned for");
  std::vector<PassOutline> passes;
  golden::need(outline_passes(*plan, options, &passes));
  golden::need(outline_encoding(*plan, options, &passes));
  tap::ok(tuned_of(tuning) == wanted_of(passes, plan->contents()) && tuned_of(tuning).size() > 20,
          "every product of the passes, for every number of rows: " + std::to_string(tuned_of(tuning).size()));
  plan_files::build(options, folder / "b.plan", true, {tuning});
  const std::string first = checkpoint_files::read_text(folder / "a.plan");
  tap::ok(first == checkpoint_files::read_text(folder / "b.plan"), "built again with what was found: the same bytes");
  plan_files::build(options, folder / "c.plan", false, {tuning});
  tap::ok(first == checkpoint_files::read_text(folder / "c.plan"), "without measuring, too");
  PlanTuning elsewhere = tuning;
  elsewhere.threads += 1;
  plan_files::build(options, folder / "d.plan", false, {elsewhere});
  golden::need(PlanFile::open(folder / "d.plan", &plan));
  tap::ok(plan->contents().tuning.processor.empty() && plan->contents().tuning.products.empty(),
          "what was found with other threads says nothing here");
}

// Without time nothing is measured, and everything keeps the rule, so that the same is found again.
void test_no_time() {
  checkpoint_files::TempFolder folder;
  const SessionOptions options = plan_files::options_of("franka_tiny");
  plan_files::build(options, folder / "a.plan");
  std::unique_ptr<PlanFile> plan;
  golden::need(PlanFile::open(folder / "a.plan", &plan));
  tap::ok(plan->contents().tuning.products.empty(), "not asked to tune: no tactics");
  std::vector<PassOutline> passes;
  golden::need(outline_passes(*plan, options, &passes));
  ops::CpuOps ops(2);
  PlanTuningOptions tuning;
  tuning.seconds = 0;
  std::int64_t calls = 0, last = 0;
  tuning.progress = [&](std::int64_t done, std::int64_t total) {
    ++calls;
    last = total - done;
    return Status::good();
  };
  PlanTuning found;
  golden::need(tune_products(*plan, passes, ops, tuning, &found));
  bool is_rule = !found.products.empty();
  for (const PlanTactics& one : found.products)
    for (const ops::Tactic& tactic : one.tactics) is_rule = is_rule && tactic.is_rule();
  tap::ok(is_rule && calls > 1 && last == 0, "no time: the rule everywhere, and progress all the same");
  tuning.progress = [](std::int64_t, std::int64_t) { return Status::error("ABORTED", "Stopped."); };
  PlanTuning none;
  tap::equal(std::string(tune_products(*plan, passes, ops, tuning, &none).code), std::string("ABORTED"), "stopped");
  tap::ok(none.products.empty(), "and nothing is found");
}

}  // namespace

int main() {
  using enum ops::WeightFormat;
  const ops::PackedKernels* tables[ops::kPackedTables];
  const int count = ops::cpu_packed_tables(tables);
  for (int i = 0; i < count; ++i)
    for (const ops::WeightFormat format : {stored, int8, int4_32, int4_128}) test_bits(format, *tables[i]);
  test_lookup();
  test_tasks();
  test_tuning();
  test_no_time();
  return tap::finish();
}
