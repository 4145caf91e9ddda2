/**
 * `premotor inspect`: what a checkpoint folder holds, what is wrong with it, and what it needs and costs for a job. Reads headers only, unless
 * --measure asks for a real prediction. Owned by the command line; the engine's own checks (NativeEngineModule.inspect) are what it reports.
 */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { type OddTensor, scanValues } from '../checkpoint/values.js';
import { callNative, type NativeInspection } from '../native.js';
import type { Job } from '../policy/contract.js';
import { type ParsedJob, readJob } from '../policy/job.js';
import { type CpuPrecision, KV_CACHES, type KvCache, pairName } from '../policy/precision.js';
import { type CliContext, FoundProblems, formatBytes, formatCount, formatMs, formatTable, printResult, UsageError } from './context.js';
import {
  type CycleCost,
  cycleCost,
  type Dimensions,
  dimensionsOf,
  geometryOf,
  type JobGeometry,
  type MemoryNeed,
  memoryNeeds,
  wholeCacheBytes,
} from './cost.js';
import { type Measurement, measure } from './measure.js';
import { whole } from './numbers.js';
import { kvCacheOption, precisionOption, uncertifiedOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

export interface InspectOptions {
  readonly job?: string;
  readonly tensors: boolean;
  readonly values: boolean;
  readonly measure: boolean;
  readonly precision: CpuPrecision;
  readonly kvCache?: KvCache;
  readonly allowUncertified: boolean;
  readonly threads?: number;
  readonly json: boolean;
}

type Component = NativeInspection['components'][number];

interface Problem {
  readonly component: string;
  readonly code: string;
  readonly message: string;
}

interface Report {
  readonly folder: string;
  readonly inspection: NativeInspection;
  readonly parsed: ParsedJob | undefined;
  readonly dims: Dimensions | undefined;
  readonly geometry: JobGeometry | undefined;
  readonly memory: readonly MemoryNeed[];
  readonly cost: CycleCost | undefined;
  readonly measured: Measurement | undefined;
  readonly problems: readonly Problem[];
}

/** Runs the command; rejects with FoundProblems after printing when there are problems. Errors: USAGE, NATIVE_*, CHECKPOINT_MISSING_FILE, JOB_*. */
export async function runInspect(folder: string, options: InspectOptions, context: CliContext): Promise<void> {
  const path = resolve(folder);
  if (options.measure && options.job === undefined) throw new UsageError('--measure needs a job: add --job FILE.');
  const parsed = options.job === undefined ? undefined : await readJob(options.job);
  const inspection = await callNative(() => context.loadNative().inspect(path));
  const dims = dimensionsOf(configOf(inspection, 'transformer'));
  const geometry = parsed === undefined ? undefined : geometryOf(parsed.job);
  const odd = options.values ? await scanComponents(inspection, context) : [];
  const problems = [...listedProblems(inspection), ...fitProblems(inspection, parsed?.job), ...valueProblems(odd)];
  const cost = dims === undefined || parsed === undefined ? undefined : cycleCost(dims, parsed.job);
  const measurable = options.measure && parsed !== undefined && dims !== undefined && problems.length === 0;
  const measured = measurable ? await measure(path, parsed.job, dims, options, context) : undefined;
  const report: Report = {
    folder: path,
    inspection,
    parsed,
    dims,
    geometry,
    memory: memoryNeeds(inspection, dims, geometry, options.kvCache),
    cost,
    measured,
    problems,
  };
  printResult(context, options.json, documentOf(report, options.tensors), () => textOf(report, options));
  if (problems.length > 0) throw new FoundProblems();
}

const configOf = (inspection: NativeInspection, name: string): Record<string, unknown> | null =>
  inspection.components.find((component) => component.name === name)?.config ?? null;

function listedProblems(inspection: NativeInspection): Problem[] {
  return inspection.components.flatMap(({ name, problems }) => problems.map(({ code, message }) => ({ component: name, code, message })));
}

/** Whether the components fit each other and the job; each is checked alone by the engine's inspection. */
function fitProblems(inspection: NativeInspection, job: Job | undefined): Problem[] {
  const transformer = configOf(inspection, 'transformer');
  const checks: [string, unknown, string, unknown][] = [
    ['transformer in_channels', transformer?.['in_channels'], 'vae z_dim', configOf(inspection, 'vae')?.['z_dim']],
    ['transformer text_dim', transformer?.['text_dim'], 'text_encoder d_model', configOf(inspection, 'text_encoder')?.['d_model']],
    ['transformer action_dim', transformer?.['action_dim'], "the job's action_dim", job?.action_dim],
    ['transformer patch_size', transformer?.['patch_size'], "the job's patch_size", job?.patch_size],
  ];
  return checks
    .filter(([, have, , want]) => have !== undefined && want !== undefined && JSON.stringify(have) !== JSON.stringify(want))
    .map(([what, have, other, want]) => {
      const code = other.startsWith('the job') ? 'JOB_INVALID' : 'CHECKPOINT_CONFIG';
      const message = `${what} is ${JSON.stringify(have)} but ${other} is ${JSON.stringify(want)}: expected the same in both.`;
      return { component: 'transformer', code, message };
    });
}

interface OddWeights extends OddTensor {
  readonly component: string;
}

/** Reads all weights of components whose headers are sound; the others are problems already. */
async function scanComponents({ components }: NativeInspection, { err, signal }: CliContext): Promise<OddWeights[]> {
  const sound = components.filter(({ problems }) => problems.length === 0);
  const files = sound.flatMap(({ name, files }) => files.map((file) => ({ component: name, ...file })));
  const totalBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const bar = new ProgressBar(err, { show: formatBytes });
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    bar.update('reading weights', done, totalBytes);
  };
  try {
    const odd: OddWeights[] = [];
    for (const { component, path } of files) odd.push(...(await scanValues(path, { signal, onBytes })).map((tensor) => ({ component, ...tensor })));
    return odd;
  } finally {
    bar.clear();
  }
}

function valueProblems(odd: readonly OddWeights[]): Problem[] {
  return odd.map(({ component, file, name, notFinite, allZero }) => {
    const what = allZero ? 'is a matrix of zeros only' : `has ${notFinite} values that are infinite or NaN`;
    const message = `${file}, tensor ${name} ${what}: expected finite numbers, not all zero. Copy the file again.`;
    return { component, code: 'CHECKPOINT_VALUE', message };
  });
}

function documentOf(report: Report, tensors: boolean): Record<string, unknown> {
  const { folder, inspection, geometry, memory, cost, measured, problems, parsed } = report;
  return {
    checkpoint: folder,
    components: inspection.components.map((component) => ({
      name: component.name,
      present: component.present,
      config: component.config,
      files: component.files,
      tensorCount: component.tensors.length,
      dtypes: dtypeCounts(component),
      parameters: component.parameters,
      bytes: component.bytes,
      unused: component.tensors.filter((tensor) => !tensor.used).map((tensor) => tensor.name),
      ...(tensors ? { tensors: component.tensors } : {}),
    })),
    geometry: geometry ?? null,
    memoryBytes: memory,
    cost: cost ?? null,
    measured: measured ?? null,
    warnings: parsed?.warnings ?? [],
    problems,
  };
}

function dtypeCounts(component: Component): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { dtype } of component.tensors) counts[dtype] = (counts[dtype] ?? 0) + 1;
  return counts;
}

function textOf(report: Report, options: InspectOptions): string {
  const sections = [
    `checkpoint ${report.folder}`,
    ...report.inspection.components.map((component) => componentText(component, options.tensors)),
    memoryText(report),
    ...(report.cost === undefined || report.geometry === undefined ? [] : [costText(report.cost, report.geometry)]),
    ...(report.measured === undefined ? [] : [measuredText(report.measured)]),
    ...(report.parsed?.warnings ?? []).map((warning) => `warning: ${warning}`),
    problemsText(report, options),
  ];
  return sections.join('\n\n');
}

/** The config fields worth a line each component. */
const summaryFields: Readonly<Record<string, readonly string[]>> = {
  transformer: [
    'architecture',
    'num_layers',
    'num_attention_heads',
    'attention_head_dim',
    'ffn_dim',
    'in_channels',
    'action_dim',
    'text_dim',
    'patch_size',
  ],
  vae: ['base_dim', 'decoder_base_dim', 'z_dim', 'dim_mult', 'num_res_blocks', 'patch_size'],
  text_encoder: ['num_layers', 'd_model', 'd_kv', 'num_heads', 'd_ff', 'vocab_size'],
};

const UNUSED_SHOWN = 8;

function componentText(component: Component, tensors: boolean): string {
  const { name, present, config, files, parameters, bytes } = component;
  if (!present) return `${name}: not there`;
  const dtypes = Object.entries(dtypeCounts(component)).map(([dtype, count]) => `${count} ${dtype}`);
  const fields = (summaryFields[name] ?? []).filter((field) => config?.[field] !== undefined);
  const lines = [
    `${name}: ${component.tensors.length} tensors (${dtypes.join(', ')}), ${formatCount(parameters)} parameters, ${formatBytes(bytes)}`,
    `  config   ${fields.map((field) => `${field} ${JSON.stringify(config?.[field])}`).join(', ')}`,
    ...files.map((file) => `  file     ${file.path} (${formatBytes(file.bytes)})`),
  ];
  const unused = component.tensors.filter((tensor) => !tensor.used);
  if (unused.length > 0) {
    const bytesUnused = unused.reduce((sum, tensor) => sum + tensor.bytes, 0);
    lines.push(`  unused   ${unused.length} tensors, ${formatBytes(bytesUnused)}: accepted and never read`);
    lines.push(...unused.slice(0, tensors ? 0 : UNUSED_SHOWN).map((tensor) => `           ${tensor.name} [${tensor.shape.join(', ')}]`));
    if (!tensors && unused.length > UNUSED_SHOWN) lines.push(`           and ${unused.length - UNUSED_SHOWN} more (--tensors lists all)`);
  }
  if (tensors) {
    const rows = component.tensors.map((tensor) => [
      tensor.name,
      tensor.dtype,
      `[${tensor.shape.join(', ')}]`,
      formatBytes(tensor.bytes),
      tensor.used ? '' : 'unused',
    ]);
    lines.push(formatTable(['tensor', 'dtype', 'shape', 'size', ''], rows, ['left', 'left', 'left', 'right', 'left']));
  }
  return lines.join('\n');
}

/** "f32 1.0 GiB, bf16 ...": the whole cache in each number type. */
const cachesText = (dims: Dimensions, geometry: JobGeometry): string =>
  KV_CACHES.map((name) => `${name} ${formatBytes(wholeCacheBytes(dims, geometry, name))}`).join(', ');

function memoryText({ memory, dims, geometry, parsed }: Report): string {
  const rows = memory.map((need) => [
    pairName(need),
    formatBytes(need.transformer),
    formatBytes(need.vae),
    need.cache === undefined ? '-' : formatBytes(need.cache),
    formatBytes(need.total),
    formatBytes(need.textEncoderPeak),
  ]);
  const lines = [
    'memory needed, activations not counted',
    formatTable(['precision', 'transformer', 'vae', 'KV cache', 'total', 'text encoder (streamed)'], rows),
  ];
  if (geometry === undefined) lines.push(parsed === undefined ? '(give --job FILE for the KV cache and the cost of a chunk)' : '');
  else {
    const entries = `${geometry.capacity} + ${geometry.headroom} (for asynchronous predictions)`;
    lines.push(`KV cache: ${entries} entries a layer, ${geometry.rows} guidance ${geometry.rows === 1 ? 'row' : 'rows'}`);
    if (dims !== undefined) lines.push(`          ${cachesText(dims, geometry)}`);
  }
  return lines.filter((line) => line !== '').join('\n');
}

function costText(cost: CycleCost, geometry: JobGeometry): string {
  const passes = cost.passes.map((pass) => [
    pass.name,
    String(pass.count),
    String(pass.rows),
    `${formatCount(pass.flopsPerRow)}FLOP`,
    `${formatCount(pass.count * pass.rows * pass.flopsPerRow)}FLOP`,
  ]);
  passes.push(['one cycle', '', '', '', `${formatCount(cost.flops)}FLOP`]);
  const devices = cost.devices.map(({ name, rates, videoPassMs, actionPassMs, cycleMs }) => [
    name,
    `${rates.teraflops} TFLOP/s`,
    `${rates.gigabytesPerSecond} GB/s`,
    formatMs(videoPassMs),
    formatMs(actionPassMs),
    formatMs(cycleMs),
  ]);
  return [
    `cost of one control cycle (${geometry.videoTokens} video and ${geometry.actionTokens} action tokens, cache full; transformer only, counted)`,
    formatTable(['pass', 'count', 'rows', 'per row', 'together'], passes),
    '',
    'least time at bf16, milliseconds (calculated from assumed achievable rates, not measured)',
    formatTable(['device', 'arithmetic', 'memory', 'video pass', 'action pass', 'cycle'], devices),
  ].join('\n');
}

function measuredText(measured: Measurement): string {
  const { backend, threads } = measured;
  return [
    `measured here (${backend}, ${pairName(measured)}, ${threads} threads; one short prediction on grey pictures, cache nearly empty)`,
    `  video pass ${formatMs(measured.videoPassMs)} ms (${formatCount(measured.flopsPerSecond)}FLOP/s)`,
    `  action pass ${formatMs(measured.actionPassMs)} ms, pictures ${formatMs(measured.encodeMs)} ms`,
    `  scaled by FLOPs to a full cache and the job's steps: about ${formatMs(measured.cycleMs)} ms a cycle`,
  ].join('\n');
}

function problemsText({ problems, parsed, measured }: Report, options: InspectOptions): string {
  const note = options.measure && measured === undefined && parsed !== undefined ? '\n(not measured: mend the problems first)' : '';
  if (problems.length === 0) return `no problems found${note}`;
  const count = `${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}`;
  return `${count}\n${problems.map(({ component, code, message }) => `  ${code} (${component}): ${message}`).join('\n')}${note}`;
}

const examples = `
Examples:
  premotor inspect ckpt                            config, tensors, sizes, memory, problems
  premotor inspect ckpt --job job.json             also the KV cache and the cost of a control cycle
  premotor inspect ckpt --job job.json --measure   also one short real prediction, timed
  premotor inspect ckpt --values                   also reads all weights: NaN, infinities, zeroed matrices
  premotor inspect ckpt --json --tensors           everything, for programs

Exit code 1 when there are problems.`;

/** Adds `premotor inspect` to the program. */
export function registerInspect(program: Command, context: CliContext): void {
  program
    .command('inspect')
    .description('show what a checkpoint holds, needs and costs, and what is wrong with it')
    .argument('<dir>', 'checkpoint folder in the released layout')
    .option('--job <file>', 'job file, for the KV cache and the cost of a control cycle')
    .option('--tensors', 'list every tensor', false)
    .option('--values', 'read every weight and look for values that are no numbers', false)
    .option('--measure', 'run and time one short prediction', false)
    .addOption(precisionOption('for --measure', 'f32'))
    .addOption(kvCacheOption("for --measure and the memory needed (default: each precision's own)"))
    .addOption(uncertifiedOption())
    .option('--threads <n>', 'for --measure: CPU threads (default: all cores but one)', whole(1, 1024))
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((folder: string, options: InspectOptions) => runInspect(folder, options, context));
}
