/**
 * `premotor eval report`: runs the grid of configurations of the committed report and writes REPORT.md, REPORT.json and the pictures. Evaluations are
 * kept, and one that was made with the same checkpoint, job and seeds is not made again. Owned by the command line.
 */
import { basename, join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { drawChart } from '../evaluation/chart.js';
import type { Subject } from '../evaluation/configuration.js';
import { composeSheet, sheetRows } from '../evaluation/contact-sheet.js';
import { formatEvaluation } from '../evaluation/evaluation.js';
import { BASE_NAME, baselineEntry, type GridEntry, reportGrid } from '../evaluation/grid.js';
import { buildReport, type Report, type ReportEntry, reportMarkdown } from '../evaluation/report.js';
import { WorkerPool } from '../evaluation/workers.js';
import { onnxHash } from '../policy/onnx/open.js';
import { writePng } from '../recording/animation.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import { checkpointHash } from '../text/checkpoint-hash.js';
import { type CliContext, printResult } from './context.js';
import { keptEvaluation, writeText } from './eval-kept.js';
import { SHIPPED_CHECKPOINT, subjectOf, WORKERS_MAX, workersFor } from './eval-options.js';
import { evaluateShown } from './eval-run.js';
import { SEED_MAX, whole } from './numbers.js';
import { ProgressBar } from './progress.js';

export interface ReportOptions {
  readonly out: string;
  readonly checkpoint: string;
  readonly job?: string;
  readonly episodes: number;
  readonly seed: number;
  readonly workers?: number;
  /** Configurations to run, by name; the report has those and what was kept. Absent: all. */
  readonly only?: readonly string[];
  /** Folder of an exported policy that is compared, and the tasks that it was made for. */
  readonly baseline?: string;
  readonly baselineTask?: readonly TaskName[];
  readonly force: boolean;
  readonly json: boolean;
}

const CHART = 'evaluation/success.png';

/** Runs what is not kept. Errors: those of evaluate, FILE_WRITE. */
async function runGrid(options: ReportOptions, pool: WorkerPool, bar: ProgressBar, signal: AbortSignal): Promise<ReportEntry[]> {
  const subject = await subjectOf(options);
  const hash = await checkpointHash(subject.checkpoint);
  const folder = join(resolve(options.out), 'evaluation');
  const grid = reportGrid(subject.job).filter(({ name }) => name === BASE_NAME || options.only === undefined || options.only.includes(name));
  const { seed, episodes, workers } = options;
  const shared = { pool, seed, episodes, workers, signal, bar };
  const entries: ReportEntry[] = [];
  const wanted = [...grid.map((entry) => ({ entry, subject, hash })), ...(await baselineOf(options))];
  for (const [index, { entry, subject, hash }] of wanted.entries()) {
    const path = join(folder, `${entry.name}.json`);
    const found = options.force ? undefined : await keptEvaluation(path, entry, subject, hash, options);
    const name = `${index + 1}/${wanted.length} ${entry.title}`;
    if (found) {
      bar.line(`${name}: kept`);
      entries.push({ ...entry, evaluation: found });
      continue;
    }
    bar.prefix(name);
    const { configuration, tasks } = entry;
    const { evaluation, failures } = await evaluateShown({ ...shared, subject, configuration, tasks });
    await writeText(path, formatEvaluation(evaluation));
    if (entry.name === BASE_NAME) {
      const sheet = await composeSheet(sheetRows(evaluation.episodes, failures));
      if (sheet) await writePng(join(folder, 'failures.png'), sheet);
    }
    entries.push({ ...entry, evaluation });
  }
  return entries;
}

/** The policy to compare with, if any. Errors: those of subjectOf. */
async function baselineOf({ baseline, baselineTask = ['touch'] }: ReportOptions): Promise<{ entry: GridEntry; subject: Subject; hash: string }[]> {
  if (baseline === undefined) return [];
  const subject = await subjectOf({ checkpoint: baseline, backend: 'onnx' });
  const entry = baselineEntry(basename(subject.checkpoint), baselineTask);
  return [{ entry, subject, hash: await onnxHash(subject.checkpoint, subject.onnxJob) }];
}

/** Runs the grid and writes the report. `pool` is the caller's. */
export async function runReport(
  options: ReportOptions,
  pool: WorkerPool,
  context: Pick<CliContext, 'out' | 'err'>,
  signal: AbortSignal,
): Promise<Report> {
  const bar = new ProgressBar(context.err);
  try {
    const report = buildReport(await runGrid(options, pool, bar, signal));
    const out = resolve(options.out);
    await writePng(join(out, CHART), await drawChart(report));
    await writeText(join(out, 'REPORT.json'), `${JSON.stringify(report, null, 2)}\n`);
    await writeText(join(out, 'REPORT.md'), reportMarkdown(report, CHART));
    printResult(context, options.json, report, () => `Written: ${join(out, 'REPORT.md')}`);
    return report;
  } finally {
    bar.clear();
  }
}

/** Adds `report` to `premotor eval`. */
export function registerReport(command: Command, context: CliContext): void {
  command
    .command('report')
    .description('run the whole grid of configurations and write REPORT.md, REPORT.json and pictures')
    .requiredOption('--out <dir>', 'folder of the report; finished evaluations are kept in its evaluation folder')
    .option('--checkpoint <dir>', 'checkpoint folder', SHIPPED_CHECKPOINT)
    .option('--job <file>', "job file (default: the checkpoint's job.json, else the job of the simulated arm)")
    .option('--episodes <n>', 'episodes per task and configuration', whole(1, 100_000), 100)
    .option('--seed <n>', 'seed of the first episode', whole(0, SEED_MAX), 0)
    .option('--workers <n>', 'processes that run episodes (default: one per core)', whole(1, WORKERS_MAX))
    .addOption(new Option('--only <names...>', `configurations to run beside ${BASE_NAME} (default: all)`))
    .option('--baseline <dir>', 'folder of an exported policy to compare on the same seeds (docs/ONNX.md)')
    .addOption(new Option('--baseline-task <names...>', 'tasks that it was made for (default: touch)').choices([...TASK_NAMES]))
    .option('--force', 'run again what is kept', false)
    .option('--json', 'print the report as JSON', false)
    .action(async (options: ReportOptions) => {
      const pool = new WorkerPool(workersFor(options.workers, false));
      try {
        await runReport(options, pool, context, context.signal);
      } finally {
        pool.close();
      }
    });
}
