/**
 * `premotor eval certify`: runs every rung of a job's ladder on the same seeds as the first one and says which of them are as good, within a margin;
 * with --write it stores that in the job file. Owned by the command line; src/evaluation runs and compares.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { rungsOf } from '../control/budget/ladder.js';
import { MODE_NAMES, type ModeName } from '../control/modes/mode.js';
import { PremotorError } from '../errors.js';
import { certifyRungs, type RungResult, rungConfiguration } from '../evaluation/certify.js';
import type { Configuration, Subject } from '../evaluation/configuration.js';
import { type Evaluation, formatEvaluation } from '../evaluation/evaluation.js';
import { WorkerPool } from '../evaluation/workers.js';
import type { KvCache, LadderRung } from '../policy/contract.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import { checkpointHash } from '../text/checkpoint-hash.js';
import { type CliContext, formatTable, printResult, UsageError } from './context.js';
import { keptEvaluation, writeText } from './eval-kept.js';
import { delay, points, SHIPPED_CHECKPOINT, subjectOf, WORKERS_MAX, workersFor } from './eval-options.js';
import { evaluateShown } from './eval-run.js';
import { replaceMember } from './json-member.js';
import { SEED_MAX, whole } from './numbers.js';
import { kvCacheOption, precisionOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

export interface CertifyOptions {
  readonly task: TaskName | 'all';
  readonly episodes: number;
  readonly seed: number;
  readonly margin: number;
  readonly checkpoint: string;
  readonly job?: string;
  readonly mode: ModeName;
  /** Robot time of every prediction, in chunks. Default: the mode's own (docs/EVAL.md). */
  readonly delay?: number;
  readonly precision: Configuration['precision'];
  readonly kvCache?: KvCache;
  readonly workers?: number;
  /** Finished evaluations are kept here. */
  readonly out?: string;
  readonly write: boolean;
  readonly json: boolean;
}

/** The file that certificates are written to. Errors: USAGE when the job has none. */
function jobFileOf({ checkpoint, job }: CertifyOptions): string {
  const file = resolve(job ?? join(checkpoint, 'job.json'));
  if (existsSync(file)) return file;
  throw new UsageError(`Expected a job file with a ladder, found none at ${file}: give one with --job.`, { expected: 'a job file', found: 'none' });
}

/** Runs what is not kept. Errors: those of evaluate, FILE_WRITE. */
async function runRungs(
  options: CertifyOptions,
  subject: Subject,
  hash: string,
  pool: WorkerPool,
  bar: ProgressBar,
  signal: AbortSignal,
): Promise<Evaluation[]> {
  const tasks = options.task === 'all' ? TASK_NAMES : [options.task];
  const ladder = subject.job.ladder ?? [];
  const { seed, episodes, workers } = options;
  const shared = { pool, subject, seed, episodes, workers, signal, bar };
  const evaluations: Evaluation[] = [];
  for (const [index, rung] of ladder.entries()) {
    const configuration: Configuration = {
      ...rungConfiguration(rung, options),
      ...(options.mode === 'sync' ? {} : { mode: options.mode }),
      ...(options.delay === undefined ? {} : { delayChunks: options.delay }),
    };
    const path = options.out === undefined ? undefined : join(resolve(options.out), `rung-${index}.json`);
    const name = `rung ${index} of 0 .. ${ladder.length - 1}`;
    const kept = path === undefined ? undefined : await keptEvaluation(path, { configuration, tasks }, subject, hash, options);
    if (kept) {
      bar.line(`${name}: kept`);
      evaluations.push(kept);
      continue;
    }
    bar.prefix(name);
    const { evaluation } = await evaluateShown({ ...shared, configuration, tasks });
    if (path !== undefined) await writeText(path, formatEvaluation(evaluation));
    evaluations.push(evaluation);
  }
  return evaluations;
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const signed = (points: number, digits = 1): string => `${points > 0 ? '+' : ''}${points.toFixed(digits)}`;

/** The result as a table for people. */
export function certifyTable(results: readonly RungResult[], margin: number): string {
  const [base] = results;
  const tasks = base?.successByTask.map(({ task }) => task) ?? [];
  const rows = results.map(({ index, steps, success, successByTask, paired, certificate, isNonInferior }) => {
    const [low, high] = certificate.interval_points;
    const verdict = index === 0 ? 'base' : isNonInferior ? 'certified' : 'refused';
    const compared = index === 0 ? ['-', '-', '-'] : [signed(certificate.difference_points), `${signed(low, 2)} .. ${signed(high, 2)}`];
    if (index > 0) compared.push(`${paired.onlySecond}/${paired.onlyFirst}`);
    const byTask = successByTask.map((one) => (index === 0 ? percent(one.success) : signed(one.differencePoints)));
    return [String(index), steps, percent(success), ...compared, ...byTask, verdict];
  });
  const header = ['rung', 'steps', 'success', 'points', '95 % interval', 'only this/base', ...tasks, ''];
  const pairs = base?.paired.pairs ?? 0;
  return [
    formatTable(header, rows, ['left', 'left', ...Array<'right'>(header.length - 3).fill('right'), 'left']),
    '',
    `${pairs} paired episodes per rung; certified: the interval of the difference begins at ${signed(-margin)} points or above.`,
    'By task: success of the base, then differences from it in points; the verdict counts all tasks together.',
  ].join('\n');
}

/** Stores certificates in the job file; the first rung has nothing to be compared with. Errors: FILE_WRITE. */
async function writeCertificates(file: string, results: readonly RungResult[]): Promise<void> {
  const text = await readFile(file, 'utf8');
  const { ladder } = JSON.parse(text) as { ladder: LadderRung[] };
  const certified = ladder.map((rung, index) => (index === 0 ? rung : { ...rung, certificate: results[index]?.certificate }));
  await writeText(file, replaceMember(text, 'ladder', certified));
}

/** Runs the certification; `pool` is the caller's. Errors: those of readJob, rungsOf and evaluate, USAGE, JOB_INVALID, FILE_WRITE. */
export async function runCertify(
  options: CertifyOptions,
  pool: WorkerPool,
  context: Pick<CliContext, 'out' | 'err'>,
  signal: AbortSignal,
): Promise<readonly RungResult[]> {
  const file = jobFileOf(options);
  const subject = await subjectOf({ checkpoint: options.checkpoint, job: file });
  if (rungsOf(subject.job).length < 2) {
    const found = subject.job.ladder === undefined ? 'none' : 'one rung';
    const details = { field: 'ladder', file, expected: 'a ladder of at least two rungs', found };
    const message = `The job file ${file} has nothing to certify: expected ${details.expected}, found ${found}. docs/BUDGET.md shows a ladder.`;
    throw new PremotorError('JOB_INVALID', message, details);
  }
  const hash = await checkpointHash(subject.checkpoint);
  const bar = new ProgressBar(context.err);
  try {
    const evaluations = await runRungs(options, subject, hash, pool, bar, signal);
    const results = certifyRungs({ job: subject.job, checkpointHash: hash, marginPoints: options.margin, evaluations });
    bar.clear();
    if (options.write) {
      await writeCertificates(file, results);
      bar.line(`Written: ${file}`);
    }
    const document = { checkpoint: hash, mode: options.mode, marginPoints: options.margin, isWritten: options.write, rungs: results };
    printResult(context, options.json, document, () => certifyTable(results, options.margin));
    return results;
  } finally {
    bar.clear();
  }
}

const examples = `
Examples:
  premotor eval certify --checkpoint ckpt --episodes 200 --seed 30000
  premotor eval certify --checkpoint ckpt --job job.json --margin 3 --out out/certify --write

Exit code 0 also when rungs are refused: what was found is the result.`;

/** Adds `certify` to `premotor eval`. */
export function registerCertify(command: Command, context: CliContext): void {
  command
    .command('certify')
    .description("compare the rungs of a job's ladder with the first one and certify those that are as good")
    .addOption(new Option('--task <name>', 'the task').choices([...TASK_NAMES, 'all']).default('all'))
    .option('--episodes <n>', 'episodes per task and rung', whole(1, 100_000), 200)
    .option('--seed <n>', 'seed of the first episode; the next ones count up', whole(0, SEED_MAX), 30_000)
    .option('--margin <points>', 'points of percent that a rung may be worse', points, 5)
    .option('--checkpoint <dir>', 'checkpoint folder', SHIPPED_CHECKPOINT)
    .option('--job <file>', "job file (default: the checkpoint's job.json)")
    .addOption(new Option('--mode <mode>', 'how predicting and moving are interleaved').choices([...MODE_NAMES]).default('sync'))
    .option('--delay <percent>', "robot time of every prediction, in percent of a chunk's motion (default: 0% for sync, else 50%)", delay)
    .addOption(precisionOption('arithmetic', 'f32'))
    .addOption(kvCacheOption())
    .option('--workers <n>', 'processes that run episodes (default: one per core)', whole(1, WORKERS_MAX))
    .option('--out <dir>', 'folder that keeps finished evaluations, so that an interrupted certification goes on where it stopped')
    .option('--write', 'store the certificates in the job file', false)
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action(async (options: CertifyOptions) => {
      const pool = new WorkerPool(workersFor(options.workers, false));
      try {
        await runCertify(options, pool, context, context.signal);
      } finally {
        pool.close();
      }
    });
}
