/**
 * `premotor eval certify-precision`: runs a checkpoint at a precision and KV cache on the same scenes as in float32 and says whether it is as good,
 * within a margin; with --write it stores that beside the checkpoint, where loadPolicy looks for it. Owned by the command line; src/evaluation
 * compares.
 */
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { certifyPrecision } from '../evaluation/certify-precision.js';
import type { Configuration } from '../evaluation/configuration.js';
import { type Evaluation, formatEvaluation } from '../evaluation/evaluation.js';
import { WorkerPool } from '../evaluation/workers.js';
import { certificateFile, type PrecisionCertificate, problemOf } from '../policy/certificate.js';
import { type CpuPrecision, hasDefaultKvCache, type KvCache, type PrecisionPair, pairName, precisionPair } from '../policy/precision.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import { checkpointHash } from '../text/checkpoint-hash.js';
import { type CliContext, formatTable, printResult, UsageError } from './context.js';
import { keptEvaluation, writeText } from './eval-kept.js';
import { points, SHIPPED_CHECKPOINT, steps, subjectOf, WORKERS_MAX, workersFor } from './eval-options.js';
import { evaluateShown } from './eval-run.js';
import { SEED_MAX, whole } from './numbers.js';
import { kvCacheOption, precisionOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

export interface CertifyPrecisionOptions {
  readonly precision: CpuPrecision;
  /** Default: the precision's. */
  readonly kvCache?: KvCache;
  readonly task: TaskName | 'all';
  readonly episodes: number;
  readonly seed: number;
  readonly margin: number;
  readonly steps?: { readonly video: number; readonly action?: number };
  readonly checkpoint: string;
  readonly job?: string;
  readonly workers?: number;
  /** Finished evaluations are kept here. */
  readonly out?: string;
  readonly write: boolean;
  readonly json: boolean;
}

/** What everything is compared with. */
const BASE = precisionPair('f32');

/** Errors: USAGE for the base itself. */
function pairOf({ precision, kvCache }: CertifyPrecisionOptions): PrecisionPair {
  const pair = precisionPair(precision, kvCache);
  if (pairName(pair) !== pairName(BASE)) return pair;
  const expected = 'another precision than f32, or f32 with --kv-cache bf16 or int8';
  const message = `Expected ${expected}, found f32 with its own KV cache, which is what certificates compare with. Choose one of these.`;
  throw new UsageError(message, { expected, found: pairName(pair) });
}

function configurationOf(pair: PrecisionPair, { steps: given }: CertifyPrecisionOptions): Configuration {
  return {
    precision: pair.precision,
    ...(hasDefaultKvCache(pair) ? {} : { kvCache: pair.kvCache }),
    ...(given === undefined ? {} : { videoSteps: given.video }),
    ...(given?.action === undefined ? {} : { actionSteps: given.action }),
    memory: 'episode',
    disturbances: {},
    pace: 'virtual',
  };
}

/** The result as a table for people. */
export function precisionTable(certificate: PrecisionCertificate, problem: string | undefined): string {
  const { precision, kv_cache, pairs, success, base_success, only_this, only_base, difference_points, interval_points, mcnemar_p } = certificate;
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  const [low, high] = interval_points;
  const name = pairName(precisionPair(precision, kv_cache));
  const row = [name, percent(success), percent(base_success), String(difference_points), `${low} .. ${high}`, `${only_this}/${only_base}`];
  return [
    formatTable(['precision', 'success', 'in f32', 'points', '95 % interval', 'only this/f32', 'McNemar p'], [[...row, mcnemar_p.toFixed(3)]]),
    '',
    `${pairs} paired episodes, ${certificate.video_steps} video and ${certificate.action_steps} action steps; ` +
      (problem === undefined ? 'certified.' : `not certified: found ${problem}.`),
  ].join('\n');
}

/** Runs what is not kept; `pool` is the caller's. Errors: USAGE, those of readJob and evaluate, FILE_WRITE. */
export async function runCertifyPrecision(
  options: CertifyPrecisionOptions,
  pool: WorkerPool,
  context: Pick<CliContext, 'out' | 'err'>,
  signal: AbortSignal,
): Promise<PrecisionCertificate> {
  const pair = pairOf(options);
  const subject = await subjectOf(options);
  const hash = await checkpointHash(subject.checkpoint);
  const tasks = options.task === 'all' ? TASK_NAMES : [options.task];
  const { seed, episodes, workers } = options;
  const bar = new ProgressBar(context.err);
  const evaluationAt = async (which: PrecisionPair): Promise<Evaluation> => {
    const [configuration, name] = [configurationOf(which, options), pairName(which)];
    const path = options.out === undefined ? undefined : join(resolve(options.out), `${name}.json`);
    const kept = path === undefined ? undefined : await keptEvaluation(path, { configuration, tasks }, subject, hash, options);
    if (kept) {
      bar.line(`${name}: kept`);
      return kept;
    }
    bar.prefix(name);
    const { evaluation } = await evaluateShown({ pool, subject, seed, episodes, workers, signal, bar, configuration, tasks });
    if (path !== undefined) await writeText(path, formatEvaluation(evaluation));
    return evaluation;
  };
  try {
    const base = await evaluationAt(BASE);
    const certificate = certifyPrecision({ pair, marginPoints: options.margin, base, evaluation: await evaluationAt(pair) });
    const problem = problemOf(certificate, pair, hash);
    bar.clear();
    const file = certificateFile(subject.checkpoint, pair);
    if (options.write) {
      await writeText(file, `${JSON.stringify(certificate, null, 2)}\n`);
      bar.line(`Written: ${file}`);
    }
    const document = { isCertified: problem === undefined, problem: problem ?? null, isWritten: options.write, certificate };
    printResult(context, options.json, document, () => precisionTable(certificate, problem));
    return certificate;
  } finally {
    bar.clear();
  }
}

const examples = `
Examples:
  premotor eval certify-precision --precision int8 --checkpoint ckpt --write
  premotor eval certify-precision --precision int8 --kv-cache int8 --checkpoint ckpt --write
  premotor eval certify-precision --precision int4 --steps 1/5 --episodes 100 --out out/precision --write

Exit code 0 also when the precision is refused: what was found is the result. A refused certificate that was written does not open it.`;

/** Adds `certify-precision` to `premotor eval`. */
export function registerCertifyPrecision(command: Command, context: CliContext): void {
  command
    .command('certify-precision')
    .description('compare a checkpoint at a precision and KV cache with itself in float32 and certify it when it is as good')
    .addOption(precisionOption('the precision to certify; f32 only with another KV cache').makeOptionMandatory())
    .addOption(kvCacheOption('the KV cache to certify it with (default: f32 with precision f32, else bf16)'))
    .addOption(new Option('--task <name>', 'the task').choices([...TASK_NAMES, 'all']).default('all'))
    .option('--episodes <n>', 'episodes per task and precision', whole(1, 100_000), 50)
    .option('--seed <n>', 'seed of the first episode; the next ones count up', whole(0, SEED_MAX), 30_000)
    .option('--margin <points>', 'points of percent that the precision may be worse', points, 5)
    .option('--steps <v/a>', "video and action denoising steps (default: the job's)", steps)
    .option('--checkpoint <dir>', 'checkpoint folder', SHIPPED_CHECKPOINT)
    .option('--job <file>', "job file (default: the checkpoint's job.json, else the job of the simulated arm)")
    .option('--workers <n>', 'processes that run episodes (default: one per core)', whole(1, WORKERS_MAX))
    .option('--out <dir>', 'folder that keeps finished evaluations: an interrupted certification goes on, and precisions share the float32 one')
    .option('--write', 'store the certificate in the checkpoint folder', false)
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action(async (options: CertifyPrecisionOptions) => {
      const pool = new WorkerPool(workersFor(options.workers, false));
      try {
        await runCertifyPrecision(options, pool, context, context.signal);
      } finally {
        pool.close();
      }
    });
}
