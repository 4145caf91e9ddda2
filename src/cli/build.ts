/**
 * `premotor build`: makes a plan of a checkpoint, so that opening it converts, packs and computes nothing. Owned by the command line; src/plan and
 * the engine do the work.
 */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { type BuiltPlan, buildPlan } from '../plan/build.js';
import { readPlan } from '../plan/directory.js';
import { checkCertificate } from '../policy/certificate.js';
import { readJob } from '../policy/job.js';
import { defaultThreads } from '../policy/load.js';
import { type CpuPrecision, type KvCache, precisionPair } from '../policy/precision.js';
import { version } from '../version.js';
import { type CliContext, formatBytes, formatCount, printResult, UsageError } from './context.js';
import { whole } from './numbers.js';
import { kvCacheOption, precisionOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

export interface BuildOptions {
  readonly output: string;
  readonly job?: string;
  readonly precision: CpuPrecision;
  readonly kvCache?: KvCache;
  readonly device: 'cpu';
  readonly threads?: number;
  readonly tune: boolean;
  readonly tactics?: string;
  readonly json: boolean;
}

const stages: Readonly<Record<string, string>> = { pack: 'packing weights', tune: 'tuning products', tables: 'computing tables' };

/** The job of a checkpoint: the given file, else the one beside it. Errors: USAGE. */
export function jobFileOf(checkpoint: string, given: string | undefined): string {
  const beside = join(checkpoint, 'job.json');
  if (given !== undefined) return given;
  if (existsSync(beside)) return beside;
  throw new UsageError(`Expected a job, found none in ${checkpoint}: add --job FILE. Its sizes and schedules decide what the plan holds.`);
}

/** Runs the command. Errors: USAGE, JOB_*, KV_CACHE_UNSUPPORTED, CHECKPOINT_*, TACTICS_INVALID, FILE_WRITE, ABORTED. */
export async function runBuild(folder: string, options: BuildOptions, context: CliContext): Promise<void> {
  const checkpoint = resolve(folder);
  const { job, warnings } = await readJob(jobFileOf(checkpoint, options.job));
  const native = context.loadNative();
  const bar = new ProgressBar(context.err, { show: formatCount });
  for (const warning of warnings) bar.line(`warning: ${warning}`);
  const started = performance.now();
  try {
    const built = await buildPlan(
      {
        checkpoint,
        job,
        precision: options.precision,
        ...(options.kvCache === undefined ? {} : { kvCache: options.kvCache }),
        threads: options.threads ?? defaultThreads(),
        tune: options.tune,
        ...(options.tactics === undefined ? {} : { tactics: options.tactics }),
        file: options.output,
        tool: version(),
        signal: context.signal,
        onProgress: (stage, done, total) => bar.update(stages[stage] ?? stage, done, total),
      },
      native,
    );
    bar.clear();
    // Anyone may build; whether it may run is asked when it is opened.
    const uncertified = await checkCertificate(checkpoint, precisionPair(options.precision, built.kvCache), built.checkpointHash, true);
    if (uncertified !== undefined) bar.line(`warning: ${uncertified} Opening the plan will need one, or --allow-uncertified.`);
    const seconds = (performance.now() - started) / 1000;
    const { backend, rounding, tuning } = await readPlan(built.file, native);
    const tuned = { processor: tuning.processor, threads: tuning.threads, products: tuning.products.length };
    const document = { ...built, checkpoint, device: options.device, precision: options.precision, rounding, backend, tuned, seconds };
    printResult(context, options.json, document, () => summary(built, options, seconds));
  } finally {
    bar.clear();
  }
}

function summary({ file, bytes, tensors, tables }: BuiltPlan, { precision }: BuildOptions, seconds: number): string {
  return [
    `${file}: ${formatBytes(bytes)}, ${precision}, ${tensors} tensors, tables of ${tables} timesteps, in ${seconds.toFixed(1)} s`,
    'Open it with --plan (premotor infer, run, eval, plan-cycle) or loadPolicy({ plan }); premotor plan explain shows what is in it.',
  ].join('\n');
}

const examples = `
Examples:
  premotor build checkpoint/ -o checkpoint.plan
  premotor build checkpoint/ -o robot.plan --precision bf16 --job robot/job.json --threads 4 --tactics tactics.json
  premotor infer --checkpoint checkpoint/ --plan checkpoint.plan ...

A plan holds every weight in the order in which the processor's kernels read it. Opening one maps the file: nothing is converted, packed or read
through, and a model too large to be packed in memory runs packed all the same. It is for one checkpoint, one precision and one kind of device;
the layout is the same on every x86-64 and arm64 processor. The checkpoint's folder stays where it is: configurations, tokenizer and text encoder
are read from it. The job decides which timesteps get tables and how the passes are cut (premotor plan explain); other jobs run through the plan
too, if they round activations alike (param_dtype). Some seconds go into measuring how the products of the passes are best cut among so many threads
of this processor; elsewhere that is ignored, and results never depend on it.`;

/** Adds `premotor build` to the program. */
export function registerBuild(program: Command, context: CliContext): void {
  program
    .command('build')
    .description('make a plan of a checkpoint: weights packed for the device, ready to be mapped')
    .argument('<checkpoint>', 'checkpoint folder')
    .requiredOption('-o, --output <file>', 'the plan to write; one that is there is replaced')
    .option('--job <file>', "job whose schedules get tables (default: the checkpoint's job.json)")
    .addOption(precisionOption('how weights are held', 'f32'))
    .addOption(kvCacheOption('the KV cache that premotor plan explain counts with (default: f32 with precision f32, else bf16); any can be run'))
    .addOption(new Option('--device <name>', 'what the plan is for').choices(['cpu']).default('cpu'))
    .option('--threads <n>', 'CPU threads, those that the policy will have (default: all cores but one)', whole(1, 1024))
    .option('--no-tune', 'do not measure how products are best cut')
    .option('--tactics <file>', 'how earlier builds found products best cut: read, and extended by what is measured')
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((checkpoint: string, options: BuildOptions) => runBuild(checkpoint, options, context));
}
