/**
 * `premotor eval`: a checkpoint's success on seeded scenes of the simulation, with intervals, times, latencies and a contact sheet of what failed.
 * Owned by the command line; src/evaluation runs and measures.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { MODE_NAMES, type ModeName } from '../control/modes/mode.js';
import { COMMITS, type Commits } from '../control/run.js';
import { PremotorError } from '../errors.js';
import type { Configuration, EpisodePictures } from '../evaluation/configuration.js';
import { describeConfiguration } from '../evaluation/configuration.js';
import { composeSheet, SHEET_ROWS_MAX, sheetRows } from '../evaluation/contact-sheet.js';
import { type Evaluation, formatEvaluation, type TaskSummary } from '../evaluation/evaluation.js';
import { WorkerPool } from '../evaluation/workers.js';
import type { CpuPrecision, KvCache } from '../policy/precision.js';
import { writePng } from '../recording/animation.js';
import { type Disturbances, parseDisturbances } from '../sim/disturbances.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import { type CliContext, formatMs, formatTable, printResult, UsageError } from './context.js';
import { registerAsyncReport } from './eval-async.js';
import { registerCertify } from './eval-certify.js';
import { registerCertifyPrecision } from './eval-certify-precision.js';
import { delay, SHIPPED_CHECKPOINT, steps, subjectOf, WORKERS_MAX, workersFor } from './eval-options.js';
import { registerReport } from './eval-report.js';
import { evaluateShown } from './eval-run.js';
import { SEED_MAX, whole } from './numbers.js';
import { kvCacheOption, precisionOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

export interface EvalOptions {
  readonly task: TaskName | 'all';
  readonly episodes: number;
  readonly checkpoint: string;
  readonly backend?: 'engine' | 'onnx';
  readonly job?: string;
  readonly plan?: string;
  readonly steps?: { readonly video: number; readonly action?: number };
  readonly videoExecStep?: number;
  readonly precision: CpuPrecision;
  readonly kvCache?: KvCache;
  readonly memory: 'on' | 'off';
  readonly mode: ModeName;
  /** In chunks. */
  readonly delay?: number;
  readonly commits: Commits;
  readonly speedShare?: number;
  readonly seed: number;
  readonly workers?: number;
  readonly realTime: boolean;
  readonly disturb: Disturbances;
  readonly out?: string;
  readonly json: boolean;
}

function disturbances(text: string): Disturbances {
  try {
    return parseDisturbances(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

export function configurationOf(options: EvalOptions): Configuration {
  const { steps: given, videoExecStep } = options;
  if (options.commits !== 'executed' && options.mode !== 'sync')
    throw new UsageError('--commits is for measuring in mode sync. Leave it out, or choose --mode sync.');
  if (options.realTime && options.delay !== undefined)
    throw new UsageError('--delay is for virtual time: with --real-time a prediction takes what it takes. Leave one of them out.');
  return {
    precision: options.precision,
    ...(options.kvCache === undefined ? {} : { kvCache: options.kvCache }),
    ...(given === undefined ? {} : { videoSteps: given.video }),
    ...(given?.action === undefined ? {} : { actionSteps: given.action }),
    ...(videoExecStep === undefined ? {} : { videoExecStep }),
    memory: options.memory === 'off' ? 'chunk' : 'episode',
    disturbances: options.disturb,
    pace: options.realTime ? 'real' : 'virtual',
    ...(options.mode === 'sync' ? {} : { mode: options.mode }),
    ...(options.delay === undefined ? {} : { delayChunks: options.delay }),
    ...(options.commits === 'executed' ? {} : { commits: options.commits }),
    ...(options.speedShare === undefined ? {} : { speedShare: options.speedShare }),
  };
}

function share(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 1)) throw new InvalidArgumentError('Expected a share above 0 and up to 1, such as 0.5.');
  return value;
}

const orDash = (value: number | null, show: (value: number) => string): string => (value === null ? '-' : show(value));
const percent = (share: number): string => (100 * share).toFixed(0);

function summaryRow(summary: TaskSummary): string[] {
  const { task, succeeded, episodes, success, interval, completionS, chunkMs, peakJerkRadPerS3, clampedShare } = summary;
  return [
    task,
    `${succeeded}/${episodes}`,
    `${percent(success)} %`,
    `${percent(interval.low)} .. ${percent(interval.high)} %`,
    orDash(completionS.p50, (value) => `${value.toFixed(2)} s`),
    orDash(chunkMs.p50, (value) => `${formatMs(value)} ms`),
    orDash(chunkMs.p99, (value) => `${formatMs(value)} ms`),
    orDash(peakJerkRadPerS3.max, (value) => value.toExponential(1)),
    `${percent(clampedShare)} %`,
  ];
}

/** The evaluation as a table for people. */
export function evaluationTable(evaluation: Evaluation): string {
  const header = ['task', 'done', 'success', '95 % interval', 'time p50', 'chunk p50', 'chunk p99', 'peak jerk', 'clamped'];
  const errors = evaluation.tasks.reduce((sum, { errors }) => sum + errors, 0);
  const firstError = evaluation.episodes.find(({ verdict }) => verdict === 'error');
  return [
    `${describeConfiguration(evaluation.configuration)}; ${evaluation.workers} workers, ${evaluation.wallS.toFixed(1)} s`,
    '',
    formatTable(header, evaluation.tasks.map(summaryRow)),
    '',
    'time: robot seconds until done; chunk: predict and commit, wall clock; jerk: rad/s^3',
    ...(firstError ? [`${errors} episodes ended by an error, the first: ${firstError.why}`] : []),
  ].join('\n');
}

/** Writes the document and the contact sheet; gives the files. Errors: FILE_WRITE. */
async function writeOutputs(dir: string, evaluation: Evaluation, failures: readonly EpisodePictures[]): Promise<string[]> {
  const file = join(dir, 'evaluation.json');
  try {
    await mkdir(dir, { recursive: true });
    await writeFile(file, formatEvaluation(evaluation));
  } catch (cause) {
    const message = `${file} cannot be written: ${(cause as Error).message}. Check the disk and the folder's rights.`;
    throw new PremotorError('FILE_WRITE', message, { file, cause });
  }
  const sheet = await composeSheet(sheetRows(evaluation.episodes, failures));
  if (!sheet) return [file];
  const picture = join(dir, 'failures.png');
  await writePng(picture, sheet);
  return [file, picture];
}

/** Runs the evaluation; `pool` is the caller's. Errors: those of readJob and evaluate. */
export async function runEval(
  options: EvalOptions,
  pool: WorkerPool,
  context: Pick<CliContext, 'out' | 'err'>,
  signal: AbortSignal,
): Promise<Evaluation> {
  const tasks = options.task === 'all' ? TASK_NAMES : [options.task];
  const subject = await subjectOf(options);
  const configuration = configurationOf(options);
  if (subject.onnxJob !== undefined && (options.steps ?? options.videoExecStep) !== undefined)
    throw new UsageError('--steps and --video-exec-step are for policies that denoise: expected neither with an exported one. Leave them out.');
  const { seed, episodes, workers } = options;
  const bar = new ProgressBar(context.err);
  try {
    const { evaluation, failures } = await evaluateShown({ pool, subject, configuration, tasks, seed, episodes, workers, signal, bar });
    bar.clear();
    const files = options.out === undefined ? [] : await writeOutputs(resolve(options.out), evaluation, failures);
    for (const file of files) bar.line(`Written: ${file}`);
    if (files.length > 1 && failures.length > SHEET_ROWS_MAX)
      bar.line(`The contact sheet shows the first ${SHEET_ROWS_MAX} of ${failures.length} failures.`);
    printResult(context, options.json, evaluation, () => evaluationTable(evaluation));
    return evaluation;
  } finally {
    bar.clear();
  }
}

const examples = `
Examples:
  premotor eval --task touch --episodes 100
  premotor eval --task all --episodes 100 --steps 3/10 --precision bf16 --json
  premotor eval --task push --episodes 50 --disturb camera-delay=80ms,nudge=0.25m/s --out out/push
  premotor eval report --out models/tabletop
  premotor eval certify --episodes 200 --write
`;

/** Adds `premotor eval` and its report to the program. */
export function registerEval(program: Command, context: CliContext): void {
  // `eval` and `eval report` share option names: what stands behind `report` is the report's.
  program.enablePositionalOptions();
  const command = program
    .command('eval')
    .description('success of a checkpoint on seeded scenes of the simulation')
    .enablePositionalOptions()
    .addOption(new Option('--task <name>', 'the task').choices([...TASK_NAMES, 'all']))
    .option('--episodes <n>', 'episodes per task', whole(1, 100_000), 100)
    .addOption(new Option('--mode <mode>', 'how predicting and moving are interleaved').choices([...MODE_NAMES]).default('sync'))
    .option(
      '--delay <percent>',
      "robot time of every prediction in virtual time, in percent of a chunk's motion (default: 0% for sync, else 50%)",
      delay,
    )
    .addOption(new Option('--commits <what>', 'what is committed as executed, in mode sync').choices(COMMITS).default('executed'))
    .option('--speed-share <share>', "the joints' speed limits as a share of the arm's (default: 1)", share)
    .option('--checkpoint <dir>', 'checkpoint folder', SHIPPED_CHECKPOINT)
    .addOption(new Option('--backend <name>', 'what computes (default: onnx for a folder with model.onnx, else engine)').choices(['engine', 'onnx']))
    .option('--job <file>', "job file (default: the checkpoint's job.json, else the job of the simulated arm)")
    .option('--steps <v/a>', "video and action denoising steps (default: the job's)", steps)
    .option('--video-exec-step <n>', "denoising passes of the video that run; -1: all (default: the job's)", whole(-1, 1001))
    .addOption(precisionOption('arithmetic', 'f32'))
    .addOption(kvCacheOption())
    .option('--plan <file>', 'plan of the checkpoint (premotor build)')
    .addOption(new Option('--memory <which>', 'off: clear the memory before every chunk').choices(['on', 'off']).default('on'))
    .option('--seed <n>', 'seed of the first episode; the next ones count up', whole(0, SEED_MAX), 0)
    .option('--workers <n>', 'processes that run episodes (default: one per core; in real time one)', whole(1, WORKERS_MAX))
    .option('--real-time', 'the world follows the wall clock instead of waiting for the policy', false)
    .option('--disturb <list>', 'camera-delay=80ms,actuator-lag=60ms,nudge=0.25m/s,shift=0.05m', disturbances, {})
    .option('--out <dir>', 'folder for evaluation.json and failures.png, a contact sheet')
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action(async (options: EvalOptions & { task?: EvalOptions['task'] }) => {
      // Not a mandatory option for the parser: it would ask for it before `report` too.
      if (options.task === undefined) throw new UsageError(`--task is needed: expected ${[...TASK_NAMES, 'all'].join(', ')}, found none.`);
      const pool = new WorkerPool(workersFor(options.workers, options.realTime));
      try {
        await runEval(options, pool, context, context.signal);
      } finally {
        pool.close();
      }
    });
  registerReport(command, context);
  registerAsyncReport(command, context);
  registerCertify(command, context);
  registerCertifyPrecision(command, context);
}
