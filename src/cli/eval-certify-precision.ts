/**
 * `premotor eval certify-precision`: runs a checkpoint at a precision on the same scenes as in float32 and says whether it is as good, within a
 * margin; with --write it stores that beside the checkpoint, where loadPolicy looks for it. Owned by the command line; src/evaluation compares.
 */
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { certifyPrecision } from '../evaluation/certify-precision.js';
import type { Configuration } from '../evaluation/configuration.js';
import { type Evaluation, formatEvaluation } from '../evaluation/evaluation.js';
import { WorkerPool } from '../evaluation/workers.js';
import { certificateFile, type PrecisionCertificate, problemOf } from '../policy/certificate.js';
import { type CpuPrecision, PRECISIONS } from '../policy/precision.js';
import { TASK_NAMES, type TaskName } from '../sim/tasks/task.js';
import { checkpointHash } from '../text/checkpoint-hash.js';
import { type CliContext, formatTable, printResult } from './context.js';
import { keptEvaluation, writeText } from './eval-kept.js';
import { points, SHIPPED_CHECKPOINT, steps, subjectOf, WORKERS_MAX, workersFor } from './eval-options.js';
import { evaluateShown } from './eval-run.js';
import { SEED_MAX, whole } from './numbers.js';
import { ProgressBar } from './progress.js';

export interface CertifyPrecisionOptions {
  readonly precision: Exclude<CpuPrecision, 'f32'>;
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

function configurationOf(precision: CpuPrecision, { steps: given }: CertifyPrecisionOptions): Configuration {
  return {
    precision,
    ...(given === undefined ? {} : { videoSteps: given.video }),
    ...(given?.action === undefined ? {} : { actionSteps: given.action }),
    memory: 'episode',
    disturbances: {},
    pace: 'virtual',
  };
}

/** The result as a table for people. */
export function precisionTable(certificate: PrecisionCertificate, problem: string | undefined): string {
  const { precision, pairs, success, base_success, only_this, only_base, difference_points, interval_points, mcnemar_p } = certificate;
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  const [low, high] = interval_points;
  const row = [precision, percent(success), percent(base_success), String(difference_points), `${low} .. ${high}`, `${only_this}/${only_base}`];
  return [
    formatTable(['precision', 'success', 'in f32', 'points', '95 % interval', 'only this/f32', 'McNemar p'], [[...row, mcnemar_p.toFixed(3)]]),
    '',
    `${pairs} paired episodes, ${certificate.video_steps} video and ${certificate.action_steps} action steps; ` +
      (problem === undefined ? 'certified.' : `not certified: found ${problem}.`),
  ].join('\n');
}

/** Runs what is not kept; `pool` is the caller's. Errors: those of readJob and evaluate, FILE_WRITE. */
export async function runCertifyPrecision(
  options: CertifyPrecisionOptions,
  pool: WorkerPool,
  context: Pick<CliContext, 'out' | 'err'>,
  signal: AbortSignal,
): Promise<PrecisionCertificate> {
  const subject = await subjectOf(options);
  const hash = await checkpointHash(subject.checkpoint);
  const tasks = options.task === 'all' ? TASK_NAMES : [options.task];
  const { seed, episodes, workers, precision } = options;
  const bar = new ProgressBar(context.err);
  const evaluationAt = async (which: CpuPrecision): Promise<Evaluation> => {
    const configuration = configurationOf(which, options);
    const path = options.out === undefined ? undefined : join(resolve(options.out), `${which}.json`);
    const kept = path === undefined ? undefined : await keptEvaluation(path, { configuration, tasks }, subject, hash, options);
    if (kept) {
      bar.line(`${which}: kept`);
      return kept;
    }
    bar.prefix(which);
    const { evaluation } = await evaluateShown({ pool, subject, seed, episodes, workers, signal, bar, configuration, tasks });
    if (path !== undefined) await writeText(path, formatEvaluation(evaluation));
    return evaluation;
  };
  try {
    const base = await evaluationAt('f32');
    const certificate = certifyPrecision({ precision, marginPoints: options.margin, base, evaluation: await evaluationAt(precision) });
    const problem = problemOf(certificate, precision, hash);
    bar.clear();
    const file = certificateFile(subject.checkpoint, precision);
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
  premotor eval certify-precision --precision int4 --steps 1/5 --episodes 100 --out out/precision --write

Exit code 0 also when the precision is refused: what was found is the result. A refused certificate that was written does not open it.`;

/** Adds `certify-precision` to `premotor eval`. */
export function registerCertifyPrecision(command: Command, context: CliContext): void {
  const others = PRECISIONS.filter((name) => name !== 'f32');
  command
    .command('certify-precision')
    .description('compare a checkpoint at a precision with itself in float32 and certify it when it is as good')
    .addOption(new Option('--precision <p>', 'the precision to certify').choices(others).makeOptionMandatory())
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
