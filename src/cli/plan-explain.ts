/**
 * `premotor plan explain`: the passes of a plan step by step, with arithmetic, bytes and the least time they can take under a device's ceilings.
 * Owned by the command line; the figures are the engine's own count (cpp/engine/pass_outline.h).
 */
import { existsSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { callNative } from '../native.js';
import type { NativePlanModule } from '../native-plan.js';
import { type Ceilings, chunkTotal, measuredCeilings, type PassTotal, parseCeilings, passTotal, stepTime } from '../plan/ceilings.js';
import { ASSUMPTIONS, DEVICE_NAMES, type DeviceName, deviceCeilings } from '../plan/devices.js';
import { type PlanDirectory, type PlanPass, type PlanStep, readPlan } from '../plan/directory.js';
import { sketchPasses } from '../plan/sketch.js';
import { otherTactics, tacticWords } from '../plan/tactics.js';
import type { Job } from '../policy/contract.js';
import { readJob } from '../policy/job.js';
import { defaultThreads } from '../policy/load.js';
import { type CpuPrecision, type KvCache, PRECISIONS } from '../policy/precision.js';
import { jobFileOf } from './build.js';
import { type CliContext, formatBytes, formatCount, formatMs, formatTable, printResult, UsageError } from './context.js';
import { whole } from './numbers.js';
import { kvCacheOption } from './precision-option.js';
import { parseSteps, type StepsOption } from './run.js';

/** Arrays far larger than any cache, and loops long enough for the clock. */
const MEASURE_BYTES = 256 << 20;
const MEASURE_SECONDS = 0.05;

export interface ExplainOptions {
  readonly measure: boolean;
  readonly ceilings?: Ceilings;
  readonly threads?: number;
  readonly device?: DeviceName;
  /** Of a checkpoint that has no plan. */
  readonly job?: string;
  readonly precision?: CpuPrecision;
  readonly kvCache?: KvCache;
  readonly steps?: StepsOption;
  readonly guidance?: boolean;
  readonly json: boolean;
  /** Of each array that --measure reads; tests take less. */
  readonly measureBytes?: number;
}

async function ceilingsOf(options: ExplainOptions, native: NativePlanModule): Promise<Ceilings | undefined> {
  if (options.device !== undefined) return deviceCeilings(options.device);
  if (!options.measure) return options.ceilings;
  const threads = options.threads ?? availableParallelism();
  const bytes = options.measureBytes ?? MEASURE_BYTES;
  const measured = measuredCeilings(await callNative(() => native.ceilings({ threads, seconds: MEASURE_SECONDS, bytes })));
  return { ...measured, name: `${measured.name}, ${threads} threads` };
}

/** Runs the command. Errors: PLAN_*; of a folder those of readJob and sketchPasses. */
export async function runExplain(path: string, options: ExplainOptions, context: CliContext): Promise<void> {
  const native = context.loadNative();
  if (existsSync(path) && statSync(path).isDirectory()) return explainFolder(path, options, context, native);
  const given = FOLDER_OPTIONS.filter((name) => options[name] !== undefined && (name !== 'guidance' || options.guidance === false));
  if (given.length > 0) {
    const expected = 'a folder with config.json files';
    throw new UsageError(`--${given.join(', --')}: a plan was built for them already. They are for ${expected}.`, { expected, found: path });
  }
  const plan = await readPlan(resolve(path), native);
  const ceilings = await ceilingsOf(options, native);
  const here = native.tunedFor(options.threads ?? defaultThreads());
  printResult(context, options.json, documentOf(plan, ceilings, here), () => explainText(plan, ceilings, here));
}

const FOLDER_OPTIONS = ['job', 'precision', 'kvCache', 'steps', 'guidance'] as const;

/** A job with other steps, as the budget's rungs have them. */
function asked(job: Job, { steps, guidance }: ExplainOptions): Job {
  return {
    ...job,
    ...(steps === undefined ? {} : { num_inference_steps: steps.video, action_num_inference_steps: steps.action }),
    ...(guidance === false ? { guidance_scale: 1, action_guidance_scale: 1 } : {}),
  };
}

async function explainFolder(folder: string, options: ExplainOptions, context: CliContext, native: NativePlanModule): Promise<void> {
  const { job: read } = await readJob(jobFileOf(resolve(folder), options.job));
  const { precision = 'bf16' } = options;
  const kvCache = options.kvCache === undefined ? {} : { kvCache: options.kvCache };
  const passes = await sketchPasses({ checkpoint: folder, job: asked(read, options), precision, ...kvCache }, native);
  const ceilings = await ceilingsOf(options, native);
  const assumptions = options.device === undefined ? [] : ASSUMPTIONS;
  const document = {
    checkpoint: resolve(folder),
    precision,
    ceilings: ceilings ?? null,
    assumptions,
    passes: passes.map((pass) => ({ ...pass, groups: timedGroups(pass, ceilings), total: passTotal(pass, ceilings) })),
    chunk: chunkTotal({ passes: [...passes] }, ceilings),
  };
  printResult(context, options.json, document, () =>
    [
      `checkpoint ${resolve(folder)}, as config.json describes it, ${precision}`,
      ...ceilingsText(ceilings),
      '',
      ...cycleText([...passes], ceilings),
      ...(assumptions.length > 0 ? ['', 'Assumed:', ...assumptions.map((line) => `- ${line}`)] : []),
    ].join('\n'),
  );
}

const timedGroups = ({ groups }: PlanPass, ceilings: Ceilings | undefined): object[] =>
  groups.map(({ times, steps }) => ({ times, steps: steps.map((step) => timed(step, ceilings)) }));

const timed = (step: PlanStep, ceilings: Ceilings | undefined): object => ({ ...step, ...(ceilings ? { predicted: stepTime(step, ceilings) } : {}) });

/** What tactics are for: a processor, and the threads of a policy. */
type Tuned = ReturnType<NativePlanModule['tunedFor']>;

const isFor = ({ tuning }: PlanDirectory, here: Tuned): boolean => tuning.processor === here.processor && tuning.threads === here.threads;

function documentOf(plan: PlanDirectory, ceilings: Ceilings | undefined, here: Tuned): object {
  const { file, fileBytes, tool, device, backend, precision, rounding, layout, checkpoint, arena, parts, tuning } = plan;
  return {
    file,
    bytes: fileBytes,
    tool,
    device,
    backend,
    precision,
    rounding,
    layout,
    checkpoint,
    parts: parts.map(({ name, parameters, weight_bytes: weightBytes }) => ({ name, parameters, weightBytes })),
    tables: plan.conditioning.length,
    arena,
    tuning: { ...tuning, here, used: isFor(plan, here) },
    ceilings: ceilings ?? null,
    passes: plan.passes.map((pass) => ({
      ...pass,
      groups: timedGroups(pass, ceilings),
      total: passTotal(pass, ceilings),
    })),
    chunk: chunkTotal(plan, ceilings),
  };
}

function stepRow(step: PlanStep, times: number, ceilings: Ceilings | undefined): string[] {
  const { op, weight, fused, product, rows, outputs, inputs } = step;
  const size = [rows, outputs, inputs].filter((value) => value > 0).join(' x ');
  const what = [op, weight ?? '', fused === undefined ? '' : `+ ${fused}`].filter((word) => word !== '').join(' ');
  const cells = [
    what,
    times > 1 ? `${times} x` : '',
    size,
    product,
    formatCount(step.flops),
    formatBytes(step.weightBytes),
    formatBytes(step.cacheBytes),
  ];
  if (!ceilings) return cells;
  const time = stepTime(step, ceilings);
  return [...cells, formatMs(times * time.ms), time.arithmeticMs >= time.memoryMs ? 'arithmetic' : 'memory'];
}

function totalRow(name: string, total: PassTotal): string[] {
  const cells = [name, '', '', '', formatCount(total.flops), formatBytes(total.weightBytes), formatBytes(total.cacheBytes)];
  return total.ms === undefined ? cells : [...cells, formatMs(total.ms), ''];
}

/** For a known device, with launches and activations counted. */
const isPrediction = ({ launchMs }: Ceilings): boolean => launchMs !== undefined;

function headerOf(ceilings: Ceilings | undefined): string[] {
  return [
    'step',
    'times',
    'size',
    'product',
    'FLOP',
    'weights',
    'KV cache',
    ...(ceilings ? [isPrediction(ceilings) ? 'ms predicted' : 'ms at least', 'bound by'] : []),
  ];
}

function passText(pass: PlanPass, ceilings: Ceilings | undefined): string {
  const rows = pass.groups.flatMap(({ times, steps }) => steps.map((step) => stepRow(step, times, ceilings)));
  const { videoTokens, actionTokens, guidanceRows, entries, kvCache, perChunk, pictures, height, width } = pass;
  const tokens = [videoTokens > 0 ? `${videoTokens} video` : '', actionTokens > 0 ? `${actionTokens} action` : ''].filter((text) => text !== '');
  const held = kvCache === undefined ? '' : ` in ${kvCache}`;
  const rowsText = guidanceRows > 1 ? `, ${guidanceRows} guidance rows` : '';
  const attended = `${tokens.join(' and ')} tokens${rowsText}, over ${entries} cache entries${held}`;
  return [
    `${pass.name}: ${perChunk} a chunk, ${pictures > 0 ? `${pictures} pictures of ${width} x ${height}` : attended}`,
    formatTable(headerOf(ceilings), [...rows, totalRow('one pass', passTotal(pass, ceilings))], ['left', 'right', 'left', 'left']),
  ].join('\n');
}

/** Tactics that are not the rule, and whether a policy would use them here. */
function tuningText(plan: PlanDirectory, here: Tuned): string[] {
  const { processor, threads, products } = plan.tuning;
  if (products.length === 0) return ['tactics    none: every product is cut by the built-in rule'];
  const others = otherTactics(plan.tuning);
  const count = products.reduce((sum, { tactics }) => sum + tactics.length, 0);
  const found = `here: ${here.processor} with ${here.threads} threads`;
  return [
    `tactics    tuned for ${processor} with ${threads} threads: ${count}, of which ${others.length} differ from the built-in rule`,
    ...(isFor(plan, here) ? [] : [`           ignored ${found}; build the plan again for it`]),
    ...others.map(({ product, tactic }) => {
      const size = `${tactic.rows} x ${product.outputs} x ${product.inputs} ${product.product}`;
      return `           ${size}: ${tacticWords(tactic)}`;
    }),
  ];
}

function explainText(plan: PlanDirectory, ceilings: Ceilings | undefined, here: Tuned): string {
  const kinds = (['prepared', 'plain', 'floats'] as const).map((kind) => {
    const own = plan.tensors.filter((tensor) => tensor.kind === kind);
    return `${own.length} ${kind} (${formatBytes(own.reduce((sum, { bytes }) => sum + bytes, 0))})`;
  });
  return [
    `plan       ${plan.file}, ${formatBytes(plan.fileBytes)}, by premotor ${plan.tool} for ${plan.device}, layout ${plan.layout}`,
    `precision  ${plan.precision}, activations rounded to ${plan.rounding}`,
    `models     ${plan.parts.map(({ name, parameters }) => `${name} ${formatCount(parameters)} parameters`).join(', ')}`,
    `checkpoint ${plan.checkpoint}`,
    `tensors    ${kinds.join(', ')}`,
    `tables     ${plan.conditioning.length} timesteps, used where arithmetic is that of ${plan.backend}`,
    ...(plan.arena.bytes > 0
      ? [`arena      ${formatBytes(plan.arena.bytes)} for ${plan.arena.rows} rows (${formatBytes(plan.arena.unshared)} if no buffer shared memory)`]
      : []),
    ...tuningText(plan, here),
    ...ceilingsText(ceilings),
    '',
    ...cycleText(plan.passes, ceilings),
  ].join('\n');
}

function ceilingsText(ceilings: Ceilings | undefined): string[] {
  if (!ceilings) return [];
  const peaks = Object.entries(ceilings.gigaflops).map(([name, value]) => `${name} ${value?.toFixed(0)} GFLOP/s`);
  const launch = ceilings.launchMs === undefined ? '' : `, ${(1000 * ceilings.launchMs).toFixed(0)} us a step`;
  return [`ceilings   ${ceilings.name}: ${ceilings.gigabytesPerSecond.toFixed(1)} GB/s, ${peaks.join(', ')}${launch}`];
}

/** Every pass, and what a control cycle takes of them. */
function cycleText(passes: PlanPass[], ceilings: Ceilings | undefined): string[] {
  const totals = passes.map((pass) => totalRow(`${pass.perChunk} x ${pass.name}`, scaled(passTotal(pass, ceilings), pass.perChunk)));
  const chunk = chunkTotal({ passes }, ceilings);
  return [
    ...passes.flatMap((pass) => [passText(pass, ceilings), '']),
    `One control cycle, with a full cache: ${chunk.steps} steps`,
    formatTable(headerOf(ceilings), [...totals, totalRow('chunk', chunk)], ['left', 'right', 'left', 'left']),
    ...remark(ceilings),
  ];
}

function remark(ceilings: Ceilings | undefined): string[] {
  if (!ceilings) return ['', 'Add --measure for the least times on this machine, --ceilings for those of another, --device for a known one.'];
  if (isPrediction(ceilings)) return [];
  return ['', 'At least: the larger of arithmetic and of reading weights and cache from memory. What stays in a cache between passes can be faster.'];
}

const scaled = ({ flops, weightBytes, cacheBytes, steps, ms }: PassTotal, times: number): PassTotal => ({
  flops: times * flops,
  weightBytes: times * weightBytes,
  cacheBytes: times * cacheBytes,
  steps: times * steps,
  ms: ms === undefined ? undefined : times * ms,
});

function ceilings(text: string): Ceilings {
  try {
    return parseCeilings(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

const examples = `
Examples:
  premotor plan explain checkpoint.plan
  premotor plan explain checkpoint.plan --measure --threads 2
  premotor plan explain checkpoint.plan --ceilings bandwidth=20,f32=120,bf16_dot=230 --json
  premotor plan explain checkpoint/ --device thor --precision bf16 --steps 2/4    before there is a plan, or even a download

Every line is one step in the order in which the engine runs it; a step that repeats in every layer is shown once. "ms at least" is a floor, the
larger of arithmetic and memory traffic under the ceilings: how far a machine is from it, bench/kernels measures, and whether it keeps up with a
robot, premotor plan-cycle.`;

/** Adds `premotor plan explain` to the group. */
export function registerExplain(plan: Command, context: CliContext): void {
  plan
    .command('explain')
    .description('the steps of every pass, with arithmetic, bytes and floors of their time')
    .argument('<file>', 'plan file, or the folder of a checkpoint, whose config.json files are enough')
    .addOption(new Option('--device <name>', 'predict for a device').choices([...DEVICE_NAMES]).conflicts(['measure', 'ceilings']))
    .option('--job <file>', "of a folder: the job (default: the checkpoint's job.json)")
    .addOption(new Option('--precision <name>', 'of a folder: how weights are held (default: bf16)').choices([...PRECISIONS]))
    .addOption(kvCacheOption('of a folder: how cached keys and values are held'))
    .option('--steps <video/action>', "of a folder: denoising steps (default: the job's)", parseSteps)
    .option('--no-guidance', 'of a folder: without guidance')
    .option('--measure', "measure this machine's ceilings first (a few seconds, 768 MiB)", false)
    .addOption(new Option('--ceilings <list>', 'bandwidth in GB/s and 1e9 operations a second by product').argParser(ceilings).conflicts('measure'))
    .option('--threads <n>', 'threads for --measure (default: all cores), and of the policy whose tactics are shown', whole(1, 1024))
    .option('--json', 'print it as JSON', false)
    .addHelpText('after', examples)
    .action((file: string, options: ExplainOptions) => runExplain(file, options, context));
}
