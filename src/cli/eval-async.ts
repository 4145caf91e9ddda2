/**
 * `premotor eval async`: runs every mode at every delay on the same seeds and writes ASYNC.md, ASYNC.json and the pictures. Cells that are kept are
 * not run again. Owned by the command line; src/evaluation runs, compares and draws.
 */
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { ControlCycle } from '../control/cycle.js';
import { drawAsyncChart } from '../evaluation/async-chart.js';
import { type AsyncEntry, type AsyncGridOptions, asyncGrid, inRunningOrder } from '../evaluation/async-grid.js';
import { type AsyncReport, type AsyncResult, asyncMarkdown, buildAsyncReport } from '../evaluation/async-report.js';
import { type CompactEvaluation, compacted, formatCompact } from '../evaluation/compact.js';
import { type Subject, thinkingMsOf } from '../evaluation/configuration.js';
import { composeSheet } from '../evaluation/contact-sheet.js';
import { jobHash } from '../evaluation/evaluation.js';
import { AssumedFilm } from '../evaluation/imagined.js';
import { WorkerPool } from '../evaluation/workers.js';
import { loadPolicy } from '../policy/load.js';
import { pairName, precisionPair } from '../policy/precision.js';
import { writePng } from '../recording/animation.js';
import { ACTION_RATE_HZ } from '../sim/job.js';
import { Simulation } from '../sim/simulation.js';
import { TASKS } from '../sim/tasks/index.js';
import { checkpointHash } from '../text/checkpoint-hash.js';
import { type CliContext, printResult } from './context.js';
import { writeText } from './eval-kept.js';
import { SHIPPED_CHECKPOINT, subjectOf, WORKERS_MAX, workersFor } from './eval-options.js';
import { evaluateShown } from './eval-run.js';
import { SEED_MAX, whole } from './numbers.js';
import { kvCacheOption, precisionOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

export interface AsyncReportOptions extends Partial<AsyncGridOptions> {
  readonly precision: AsyncGridOptions['precision'];
  readonly out: string;
  readonly checkpoint: string;
  readonly job?: string;
  readonly episodes: number;
  readonly seed: number;
  readonly workers?: number;
  readonly only?: readonly string[];
  readonly json: boolean;
}

const FOLDER = 'async';
const CHART = `${FOLDER}/delay.png`;
const IMAGINED = `${FOLDER}/imagined.png`;
/** The episode whose frames are shown, and how many of them. */
const SHOWN_TASK = 'press-n';
const SHOWN_MOMENTS = 7;

/** A kept cell that a new run would repeat; undefined when there is none. */
async function keptCell(path: string, entry: AsyncEntry, subject: Subject, hash: string, seeds: { first: number; count: number }) {
  try {
    const found = JSON.parse(await readFile(path, 'utf8')) as CompactEvaluation;
    const isSame =
      found.checkpoint.hash === hash &&
      found.job.hash === jobHash(subject.job) &&
      JSON.stringify(found.configuration) === JSON.stringify(entry.configuration) &&
      entry.tasks.every((task) => found.rows[task]?.length === seeds.count && found.rows[task]?.[0]?.[0] === seeds.first);
    return isSame ? found : undefined;
  } catch {
    return undefined; // absent or cut off: it is made again
  }
}

/** Runs what is not kept; gives the cells there are, in the grid's order. Errors: those of evaluate, FILE_WRITE. */
async function runCells(
  options: AsyncReportOptions & AsyncGridOptions,
  subject: Subject,
  pool: WorkerPool,
  bar: ProgressBar,
  signal: AbortSignal,
): Promise<AsyncResult[]> {
  const hash = await checkpointHash(subject.checkpoint);
  const { seed, workers } = options;
  const shared = { pool, subject, seed, workers, signal, bar };
  const grid = asyncGrid(options);
  const wanted = inRunningOrder(grid);
  const found = new Map<string, CompactEvaluation>();
  for (const [index, entry] of wanted.entries()) {
    const path = join(resolve(options.out), FOLDER, `${entry.name}.json`);
    const count = Math.max(1, Math.round(options.episodes * entry.share));
    const name = `${index + 1}/${wanted.length} ${entry.title}`;
    const kept = await keptCell(path, entry, subject, hash, { first: options.seed, count });
    if (kept) {
      bar.line(`${name}: kept`);
      found.set(entry.name, kept);
      continue;
    }
    if (options.only !== undefined && !options.only.some((one) => entry.name.startsWith(one))) continue;
    bar.prefix(name);
    const { evaluation } = await evaluateShown({ ...shared, configuration: entry.configuration, tasks: entry.tasks, episodes: count });
    const cell = compacted(evaluation);
    await writeText(path, formatCompact(cell));
    found.set(entry.name, cell);
  }
  return grid.flatMap((entry) => {
    const evaluation = found.get(entry.name);
    return evaluation ? [{ entry, evaluation }] : [];
  });
}

/** Runs one grounded episode at a delay of one chunk and draws what it assumed. */
async function drawImagined(options: AsyncReportOptions & AsyncGridOptions, subject: Subject): Promise<boolean> {
  const task = TASKS[SHOWN_TASK];
  const scene = task.scene(options.seed);
  const job = { ...subject.job, imagine_steps: options.imagineSteps };
  const { precision, kvCache } = options;
  const policy = await loadPolicy({ checkpoint: subject.checkpoint, job, precision, ...(kvCache === undefined ? {} : { kvCache }) });
  const simulation = await Simulation.open({ kind: task.kind });
  try {
    simulation.reset(scene.layout, options.seed);
    const thinkingMs = thinkingMsOf({ precision, memory: 'episode', disturbances: {}, pace: 'virtual', mode: 'async-grounded', delayChunks: 1 }, job);
    const { robot, cameras } = simulation;
    const { videoSteps, actionSteps } = options;
    const cycle = new ControlCycle({
      policy,
      robot,
      cameras,
      mode: 'async-grounded',
      videoSteps,
      actionSteps,
      ...(thinkingMs === undefined ? {} : { thinkingMs }),
    });
    const film = new AssumedFilm();
    cycle.on(film.listen);
    await cycle.arm();
    const until = (): boolean => task.verdict(simulation.world, scene) !== 'open';
    await cycle.run({ prompt: scene.instruction, chunks: task.chunksMax, seed: options.seed, until });
    const sheet = await composeSheet(await film.rows(policy, SHOWN_MOMENTS, job.action_per_frame / ACTION_RATE_HZ));
    if (sheet) await writePng(join(resolve(options.out), IMAGINED), sheet);
    return sheet !== undefined;
  } finally {
    simulation.close();
    await policy.close();
  }
}

/** Runs the grid and writes the report. `pool` is the caller's. */
export async function runAsyncReport(
  given: AsyncReportOptions,
  pool: WorkerPool,
  context: Pick<CliContext, 'out' | 'err'>,
  signal: AbortSignal,
): Promise<AsyncReport> {
  const bar = new ProgressBar(context.err);
  try {
    const subject = await subjectOf(given);
    const { job } = subject;
    const options = {
      ...given,
      videoSteps: given.videoSteps ?? job.num_inference_steps,
      actionSteps: given.actionSteps ?? job.action_num_inference_steps,
      imagineSteps: given.imagineSteps ?? job.imagine_steps ?? job.num_inference_steps,
    };
    const results = await runCells(options, subject, pool, bar, signal);
    const { precision, kvCache, videoSteps, actionSteps, imagineSteps } = options;
    const held = pairName(precisionPair(precision, kvCache));
    const steps = `${videoSteps} video, ${actionSteps} action and ${imagineSteps} imagining steps, ${held}`;
    const report = buildAsyncReport(results, options.seed, options.episodes, steps);
    const out = resolve(options.out);
    await writePng(join(out, CHART), await drawAsyncChart(report));
    const imagined = (await drawImagined(options, subject)) ? IMAGINED : undefined;
    await writeText(join(out, 'ASYNC.json'), `${JSON.stringify(report, null, 1)}\n`);
    await writeText(join(out, 'ASYNC.md'), asyncMarkdown(report, { chart: CHART, imagined }));
    printResult(context, options.json, report, () => `Written: ${join(out, 'ASYNC.md')}`);
    return report;
  } finally {
    bar.clear();
  }
}

/** Adds `async` to `premotor eval`. */
export function registerAsyncReport(command: Command, context: CliContext): void {
  command
    .command('async')
    .description('run every mode at every delay and write ASYNC.md, ASYNC.json and pictures')
    .requiredOption('--out <dir>', `folder of the report; finished cells are kept in its folder ${FOLDER}`)
    .option('--checkpoint <dir>', 'checkpoint folder', SHIPPED_CHECKPOINT)
    .option('--job <file>', "job file (default: the checkpoint's job.json, else the job of the simulated arm)")
    .option('--episodes <n>', 'episodes per task and cell; cells beside the main ones run a part of it', whole(1, 100_000), 200)
    .option('--seed <n>', 'seed of the first episode', whole(0, SEED_MAX), 20_000)
    .option('--video-steps <n>', "video denoising steps (default: the job's)", whole(1, 1000))
    .option('--action-steps <n>', "action denoising steps (default: the job's)", whole(1, 1000))
    .option('--imagine-steps <n>', "denoising steps that imagine frames (default: the job's)", whole(1, 1000))
    .addOption(precisionOption('arithmetic', 'f32'))
    .addOption(kvCacheOption())
    .option('--workers <n>', 'processes that run episodes (default: one per core)', whole(1, WORKERS_MAX))
    .option('--only <names...>', 'run only cells whose names begin so; the report has those and what was kept (default: all)')
    .option('--json', 'print the report as JSON', false)
    .action(async (options: AsyncReportOptions) => {
      const pool = new WorkerPool(workersFor(options.workers, false));
      try {
        await runAsyncReport(options, pool, context, context.signal);
      } finally {
        pool.close();
      }
    });
}
