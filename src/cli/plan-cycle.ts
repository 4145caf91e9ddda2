/**
 * `premotor plan-cycle`: before a robot moves, whether this machine keeps up. Loads the policy, fills its cache, measures passes, and says which
 * rungs of the job land in time; refuses when none does. Owned by the command line; src/control/budget measures and counts.
 */
import { existsSync, statSync } from 'node:fs';
import { totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { budgetOf } from '../control/budget/budget.js';
import { CostModel, type PassCosts, rungOf, type StageMs } from '../control/budget/cost.js';
import { asLadderRung, certificateProblems, rungsOf } from '../control/budget/ladder.js';
import { needMs } from '../control/budget/margin.js';
import { measureCosts } from '../control/budget/preflight.js';
import type { Rung } from '../control/budget/types.js';
import { LEASE_MS } from '../control/run.js';
import { PremotorError } from '../errors.js';
import type { Job, LoadPolicyOptions, Policy } from '../policy/contract.js';
import { readJob } from '../policy/job.js';
import { stepsText } from '../policy/ladder.js';
import { type CpuPrecision, type KvCache, pairName } from '../policy/precision.js';
import { type CliContext, CommandExit, EXIT_FAILURE, formatBytes, formatMs, formatTable, printResult, reportOf, UsageError } from './context.js';
import { whole } from './numbers.js';
import { kvCacheOption, precisionOption, uncertifiedOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

const RATE_HZ = 50;
const RATE_HZ_MAX = 1000;
const REPEATS = 3;

export interface PlanCycleOptions {
  readonly checkpoint?: string;
  readonly device: 'auto' | 'cpu' | 'cuda';
  readonly precision: CpuPrecision;
  readonly kvCache?: KvCache;
  readonly allowUncertified: boolean;
  readonly threads?: number;
  readonly plan?: string;
  /** Actions per second. */
  readonly rate: number;
  readonly mode: 'async' | 'sync';
  readonly repeats: number;
  readonly json: boolean;
}

interface Paths {
  readonly job: string;
  readonly checkpoint: string;
}

const isFolder = (path: string): boolean => existsSync(path) && statSync(path).isDirectory();

/** The job file and the checkpoint's folder. Errors: USAGE. */
function pathsOf(given: string, checkpoint: string | undefined): Paths {
  const path = resolve(given);
  if (isFolder(path)) return { job: join(path, 'job.json'), checkpoint: resolve(checkpoint ?? path) };
  const beside = dirname(path);
  if (checkpoint !== undefined) return { job: path, checkpoint: resolve(checkpoint) };
  if (isFolder(join(beside, 'transformer'))) return { job: path, checkpoint: beside };
  throw new UsageError(`Expected a checkpoint, found none beside ${path}: give one with --checkpoint.`);
}

export interface RungPlan {
  readonly index: number;
  readonly steps: string;
  /** With a whole chunk executing meanwhile. */
  readonly async: StageMs;
  readonly sync: StageMs;
  /** Expected time of the asynchronous prediction with its margin. */
  readonly asyncNeedMs: number;
  readonly fitsAsync: boolean;
  /** Fewest latent frames that may be left to execute when the prediction begins; null when it never fits. */
  readonly beginsAtFrames: number | null;
  /** Share of the chunk's motion that is left, without margin; negative when it is too slow. */
  readonly leftShare: number;
  /** Longest time without a sign of life while the arm rests. */
  readonly silenceMs: number;
  readonly fitsSync: boolean;
  /** Share of the time that a synchronous robot moves. */
  readonly movesShare: number;
  /** What keeps the rung out of a ladder; null when nothing does. */
  readonly uncertified: string | null;
}

export interface CyclePlan {
  readonly motionMs: number;
  readonly rungs: readonly RungPlan[];
}

/** What the measured costs mean for every rung. */
export function planRungs(job: Job, rungs: readonly Rung[], costs: PassCosts, rateHz: number, problems: readonly (string | null)[]): CyclePlan {
  const model = new CostModel({ job, costs });
  const frames = job.frame_chunk_size;
  const frameMs = (1000 * job.action_per_frame) / rateHz;
  const motionMs = frames * frameMs;
  const plans = rungs.map((rung, index): RungPlan => {
    const next = (executingFrames: number): StageMs => model.stages({ commitFrames: frames, executingFrames, imagines: executingFrames > 0 }, rung);
    const [async, sync] = [next(frames), next(0)];
    const beginsAt = Array.from({ length: frames }, (_, left) => left + 1).find((left) => needMs(next(left).totalMs) <= left * frameMs);
    const passMs = Math.max(...costs.video.map((cost) => cost.passMs), ...costs.action.map((cost) => cost.passMs));
    const silenceMs = Math.max(sync.encodeMs + sync.commitMs, passMs);
    return {
      index,
      steps: stepsText(asLadderRung(rung)),
      async,
      sync,
      asyncNeedMs: needMs(async.totalMs),
      fitsAsync: beginsAt !== undefined,
      beginsAtFrames: beginsAt ?? null,
      leftShare: 1 - async.totalMs / motionMs,
      silenceMs,
      fitsSync: silenceMs < LEASE_MS,
      movesShare: motionMs / (motionMs + sync.totalMs),
      uncertified: problems[index] ?? null,
    };
  });
  return { motionMs, rungs: plans };
}

export interface CycleDocument extends CyclePlan {
  readonly checkpoint: string;
  readonly backend: string;
  readonly precision: string;
  readonly kvCache: KvCache;
  readonly threads: number;
  readonly rateHz: number;
  readonly mode: PlanCycleOptions['mode'];
  readonly repeats: number;
  /** The rung that the budget begins with when a whole chunk is executing, certified or not; null when none fits. */
  readonly chosen: number | null;
  readonly cacheEntries: { readonly valid: number; readonly capacity: number };
  readonly costs: PassCosts;
  readonly memory: {
    readonly weightBytes: number;
    readonly cacheBytes: number;
    readonly processBytes: number;
    readonly processPeakBytes: number;
    readonly machineBytes: number;
  };
}

/** What the machine, or the container that this runs in, has. */
function machineBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

async function measured(policy: Policy, job: Job, options: PlanCycleOptions, bar: ProgressBar, signal: AbortSignal): Promise<CycleDocument> {
  const ladder = rungsOf(job);
  const rungs = ladder.length > 0 ? ladder : [rungOf(job)];
  const { repeats, rate: rateHz, mode } = options;
  const { costs, cache } = await measureCosts({
    policy,
    rungs,
    repeats,
    signal,
    onProgress: (done, total) => bar.update('measuring predictions with a full cache', done, total),
  });
  const { info } = policy;
  const problems = new Map(certificateProblems(job, info.checkpointHash).map(({ field, found }) => [field, found]));
  const plan = planRungs(
    job,
    rungs,
    costs,
    rateHz,
    rungs.map((_, index) => problems.get(`ladder[${index}]`) ?? null),
  );
  const whole = { commitFrames: job.frame_chunk_size, executingFrames: job.frame_chunk_size, imagines: true };
  const choice = budgetOf({ job, info }, { actionRateHz: rateHz, costs, force: true }).choose(whole, plan.motionMs);
  const chosen = choice.fits ? choice.index : null;
  const { checkpointHash: checkpoint, backend, precision, kvCache, threads, weightBytes, cacheBytes } = info;
  const [processBytes, processPeakBytes] = [process.memoryUsage.rss(), process.resourceUsage().maxRSS * 1024];
  const memory = { weightBytes, cacheBytes, processBytes, processPeakBytes, machineBytes: machineBytes() };
  const cacheEntries = { valid: cache.valid, capacity: cache.capacity };
  return { checkpoint, backend, precision, kvCache, threads, rateHz, mode, repeats, chosen, cacheEntries, costs, memory, ...plan };
}

const percent = (share: number): string => `${Math.round(100 * share) + 0} %`;

/** The plan as text for people. */
export function cycleText(document: CycleDocument, job: Job): string {
  const { motionMs, rungs, costs, memory, cacheEntries } = document;
  const rows = rungs.map((rung) => {
    const { async, sync } = rung;
    const stages = [async.encodeMs + async.commitMs, async.imagineMs, async.videoMs, async.actionMs, async.totalMs, rung.asyncNeedMs].map(formatMs);
    const asyncVerdict = rung.beginsAtFrames === null ? 'too slow' : `fits from ${rung.beginsAtFrames} of ${job.frame_chunk_size}`;
    const syncVerdict = rung.fitsSync ? `moves ${percent(rung.movesShare)}` : 'too slow';
    return [String(rung.index), rung.steps, ...stages, percent(rung.leftShare), asyncVerdict, formatMs(sync.totalMs), syncVerdict];
  });
  const header = ['rung', 'steps', 'commit', 'imagine', 'video', 'action', 'total', 'needs', 'left', 'async', 'sync total', 'sync'];
  const each = (kind: 'video' | 'action'): string =>
    costs[kind]
      .map(({ frames, guided, passMs }) => `${formatMs(passMs)} ms (${frames} ${frames === 1 ? 'frame' : 'frames'}${guided ? ', guided' : ''})`)
      .join(', ');
  const uncertified = rungs.filter((rung) => rung.uncertified !== null);
  return [
    `engine   ${document.backend}, ${pairName(document)}, ${document.threads} threads`,
    `motion   a chunk moves for ${formatMs(motionMs)} ms: ${job.frame_chunk_size} frames of ${job.action_per_frame} actions at ${document.rateHz} Hz`,
    `passes   video ${each('video')}; action ${each('action')};`,
    `         encode ${formatMs(costs.encodeMsPerMoment)} ms a moment, commit ${formatMs(costs.commitMsPerFrame)} ms a frame`,
    `         medians of ${document.repeats} predictions each, ${cacheEntries.valid} of ${cacheEntries.capacity} cache entries filled`,
    `memory   weights ${formatBytes(memory.weightBytes)}, KV cache ${formatBytes(memory.cacheBytes)}, process ${formatBytes(memory.processBytes)} ` +
      `(peak ${formatBytes(memory.processPeakBytes)}) of ${formatBytes(memory.machineBytes)}`,
    '',
    formatTable(header, rows, ['left', 'left']),
    '',
    'Milliseconds. commit: encoding and committing a chunk. needs: total with 20 % and 10 ms of margin. left: of the motion, without margin.',
    'async: lands before the frames left to execute are over, from so many of them on. sync: the robot waits, and moves for that share of the time.',
    document.chosen === null
      ? 'The budget finds no rung for an asynchronous robot.'
      : `The budget of an asynchronous robot begins at rung ${document.chosen}.`,
    ...uncertified.map(({ index, uncertified: found }) => `Rung ${index} is not certified (${found}): premotor eval certify.`),
  ].join('\n');
}

/** Errors: CYCLE_TOO_SLOW when no rung fits the mode. */
function refusalOf({ rungs, motionMs, mode }: CycleDocument, job: Job): PremotorError | undefined {
  if (rungs.some(({ fitsAsync, fitsSync }) => (mode === 'async' ? fitsAsync : fitsSync))) return undefined;
  const best = rungs.reduce((least, one) => (one.async.totalMs < least.async.totalMs ? one : least));
  const expected =
    mode === 'async'
      ? `a prediction that takes, with its margin, at most the ${formatMs(motionMs)} ms of a chunk's motion`
      : `a sign of life every ${LEASE_MS} ms while the robot waits`;
  const found =
    mode === 'async'
      ? `${formatMs(best.asyncNeedMs)} ms (${formatMs(best.async.totalMs)} ms and margin) at the cheapest rung, "${best.steps}"`
      : `${formatMs(best.silenceMs)} ms for one step`;
  const remedies = [
    `a cheaper rung in the job's ladder (fewer steps, an earlier stop, no guidance)`,
    '--precision bf16',
    `a smaller attn_window than ${job.attn_window}`,
    `a longer chunk than ${job.frame_chunk_size} frames or a lower action rate`,
    ...(mode === 'async' ? ['a synchronous robot (--mode sync)'] : []),
  ];
  const message = `This machine is too slow for the job: expected ${expected}, found ${found}. Try ${remedies.join('; ')}.`;
  return new PremotorError('CYCLE_TOO_SLOW', message, { expected, found });
}

/** Runs the command. Errors: USAGE, JOB_*, those of loadPolicy and Policy, CYCLE_TOO_SLOW. */
export async function runPlanCycle(given: string, options: PlanCycleOptions, context: CliContext): Promise<void> {
  const paths = pathsOf(given, options.checkpoint);
  const { job } = await readJob(paths.job);
  rungsOf(job);
  const bar = new ProgressBar(context.err);
  const load: LoadPolicyOptions = {
    checkpoint: paths.checkpoint,
    job,
    device: options.device,
    precision: options.precision,
    allowUncertified: options.allowUncertified,
    ...(options.kvCache === undefined ? {} : { kvCache: options.kvCache }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.plan === undefined ? {} : { plan: options.plan }),
  };
  bar.update('loading the checkpoint', 0, 1);
  let document: CycleDocument;
  try {
    const policy = await context.loadPolicy(load);
    try {
      for (const warning of policy.info.warnings) bar.line(`warning: ${warning}`);
      document = await measured(policy, job, options, bar, context.signal);
    } finally {
      await policy.close();
    }
  } finally {
    bar.clear();
  }
  const refusal = refusalOf(document, job);
  // With --json one document says both: the figures, and the error in its usual form.
  const result = refusal ? { error: reportOf(refusal), ...document } : document;
  printResult(context, options.json, result, () => cycleText(document, job));
  if (!refusal) return;
  if (!options.json) throw refusal;
  context.err.write(`error ${refusal.code}: ${refusal.message}\n`);
  throw new CommandExit(EXIT_FAILURE);
}

function rate(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && value <= RATE_HZ_MAX) return value;
  throw new InvalidArgumentError(`Expected actions per second above 0 and up to ${RATE_HZ_MAX}.`);
}

const examples = `
Examples:
  premotor plan-cycle ckpt
  premotor plan-cycle job.json --checkpoint ckpt --precision bf16 --rate 25 --json

Run it on the robot's own computer, with nothing else running. Exit code 1 and error CYCLE_TOO_SLOW when no rung lands in time.`;

/** Adds `premotor plan-cycle` to the program. */
export function registerPlanCycle(program: Command, context: CliContext): void {
  program
    .command('plan-cycle')
    .description('whether this machine keeps up: the time of a control cycle at every rung of a job')
    .argument('<job>', 'job file, or a checkpoint folder with a job.json')
    .option('--checkpoint <dir>', "checkpoint folder (default: the job's own folder)")
    .addOption(new Option('--device <name>', 'where to compute').choices(['auto', 'cpu', 'cuda']).default('auto'))
    .addOption(precisionOption('arithmetic', 'f32'))
    .addOption(kvCacheOption())
    .addOption(uncertifiedOption())
    .option('--threads <n>', 'CPU threads (default: all cores but one)', whole(1, 1024))
    .option('--plan <file>', 'plan of the checkpoint (premotor build)')
    .option('--rate <hz>', 'actions per second', rate, RATE_HZ)
    .addOption(
      new Option('--mode <mode>', 'what must fit: predicting while the robot moves, or while it waits').choices(['async', 'sync']).default('async'),
    )
    .option('--repeats <n>', 'predictions of each kind that are measured', whole(1, 1000), REPEATS)
    .option('--json', 'print the plan as JSON', false)
    .addHelpText('after', examples)
    .action((job: string, options: PlanCycleOptions) => runPlanCycle(job, options, context));
}
