/**
 * `premotor infer`: pictures and an instruction in; action chunks, imagined video and timing out, through the public policy contract. Owned by the
 * command line; it predicts open loop and never moves anything.
 */
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { PremotorError } from '../errors.js';
import type { Chunk, DecodedVideo, Job, LoadPolicyOptions, Policy, PredictOptions, ResetResult } from '../policy/contract.js';
import { readJob } from '../policy/job.js';
import { type CpuPrecision, type KvCache, pairName } from '../policy/precision.js';
import { joinLatents } from '../policy/tensor.js';
import { actionRows, actionsCsv, channelName } from './actions.js';
import { type CliContext, formatMs, formatTable, printResult, UsageError } from './context.js';
import { whole } from './numbers.js';
import { kvCacheOption, precisionOption, uncertifiedOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

export interface InferOptions {
  readonly checkpoint: string;
  readonly job: string;
  readonly image: readonly string[];
  readonly prompt?: string;
  readonly chunks: number;
  readonly out: string;
  readonly precision: CpuPrecision;
  readonly kvCache?: KvCache;
  readonly allowUncertified: boolean;
  readonly device: 'auto' | 'cpu' | 'cuda';
  readonly seed: bigint;
  readonly threads?: number;
  readonly plan?: string;
  readonly isolate: boolean;
  readonly videoSteps?: number;
  readonly actionSteps?: number;
  readonly format: 'gif' | 'webp' | 'png';
  readonly fps: number;
  readonly force: boolean;
  readonly json: boolean;
}

const CHUNKS_MAX = 10_000;
/** Pictures a second of released models: docs/MODEL.md section 1. */
const FPS_DEFAULT = 12.5;
const OWN_FILES = ['actions.csv', 'actions.json', 'timing.json', 'imagined.gif', 'imagined.webp', 'imagined.png'];

/** What one run produced, before it is written. */
interface Result {
  readonly job: Job;
  readonly info: Policy['info'];
  readonly reset: ResetResult;
  readonly chunks: readonly Chunk[];
  readonly video: DecodedVideo;
  readonly wallMs: { readonly load: number; readonly reset: number; readonly decode: number; readonly chunks: readonly number[] };
  readonly notes: readonly string[];
}

/** Runs the command. Errors: USAGE, JOB_*, IMAGE_UNREADABLE, OUT_NOT_EMPTY, FILE_WRITE, those of loadPolicy and Policy. */
export async function runInfer(options: InferOptions, context: CliContext): Promise<void> {
  const { assignPictures, loadPicture } = await import('./pictures.js');
  const out = resolve(options.out);
  await checkOut(out, options.force);
  const { job } = await readJob(options.job);
  const prompt = options.prompt ?? job.prompt;
  if (prompt === undefined) throw new UsageError('Expected an instruction, found none: add --prompt "..." (the job has no prompt either).');
  const files = assignPictures(options.image, job.obs_cam_keys);
  const obs = await Promise.all([...files].map(([camera, file]) => loadPicture(camera, file)));
  const bar = new ProgressBar(context.err);
  try {
    const result = await predictAll(options, context, bar, { prompt, obs, job });
    bar.clear();
    const written = await writeResults(out, options, result, context.err, files);
    const document = documentOf(result, prompt, out, written);
    printResult(context, options.json, document, () => summary(result, out, written, options.format));
  } finally {
    bar.clear();
  }
}

interface Inputs {
  readonly prompt: string;
  readonly obs: NonNullable<PredictOptions['obs']>;
  readonly job: Job;
}

async function predictAll(options: InferOptions, context: CliContext, bar: ProgressBar, inputs: Inputs): Promise<Result> {
  const { prompt, obs } = inputs;
  const notes: string[] = [];
  // Server jobs expect real frames between chunks. There are none here, so the model's own predictions become its history, as in i2va mode.
  const openLoop = options.chunks > 1 && inputs.job.infer_mode === 'server';
  if (openLoop) notes.push(`infer_mode "server" was run as "i2va": chunks after the first follow the imagined frames, not real ones (open loop).`);
  const job: Job = openLoop ? { ...inputs.job, infer_mode: 'i2va' } : inputs.job;
  const load: LoadPolicyOptions = {
    checkpoint: options.checkpoint,
    job,
    device: options.device,
    precision: options.precision,
    allowUncertified: options.allowUncertified,
    isolate: options.isolate,
    ...(options.kvCache === undefined ? {} : { kvCache: options.kvCache }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.plan === undefined ? {} : { plan: options.plan }),
  };
  if (context.err.isTTY === true) context.err.write('loading the checkpoint ...');
  const loading = performance.now();
  const policy = await context.loadPolicy(load).finally(() => (context.err.isTTY === true ? context.err.write('\r\u001b[K') : undefined));
  try {
    const loadMs = performance.now() - loading;
    for (const warning of policy.info.warnings) bar.line(`warning: ${warning}`);
    const resetting = performance.now();
    const reset = await policy.reset({ prompt, signal: context.signal });
    const resetMs = performance.now() - resetting;
    for (const warning of reset.warnings) bar.line(`warning: ${warning}`);
    const { chunks, chunkMs } = await predictChunks(policy, options, context.signal, bar, obs);
    bar.prefix('');
    const decoding = performance.now();
    const video = await policy.decode(joinLatents(chunks.map((chunk) => chunk.latents)), { signal: context.signal, onProgress: bar.report });
    const wallMs = { load: loadMs, reset: resetMs, decode: performance.now() - decoding, chunks: chunkMs };
    return { job, info: policy.info, reset, chunks, video, wallMs, notes };
  } finally {
    await policy.close();
  }
}

async function predictChunks(
  policy: Policy,
  options: InferOptions,
  signal: AbortSignal,
  bar: ProgressBar,
  obs: NonNullable<PredictOptions['obs']>,
): Promise<{ chunks: Chunk[]; chunkMs: number[] }> {
  const chunks: Chunk[] = [];
  const chunkMs: number[] = [];
  const steps = {
    ...(options.videoSteps === undefined ? {} : { videoSteps: options.videoSteps }),
    ...(options.actionSteps === undefined ? {} : { actionSteps: options.actionSteps }),
  };
  for (let index = 0; index < options.chunks; index++) {
    bar.prefix(options.chunks > 1 ? `chunk ${index + 1}/${options.chunks}` : '');
    const started = performance.now();
    const first = index === 0 ? { obs } : {};
    chunks.push(await policy.predict({ ...first, ...steps, seed: options.seed, signal, onProgress: bar.report }));
    chunkMs.push(performance.now() - started);
  }
  return { chunks, chunkMs };
}

/** A folder with anything in it is refused unless --force. Errors: OUT_NOT_EMPTY. */
async function checkOut(out: string, force: boolean): Promise<void> {
  const kind = await stat(out).catch(() => undefined);
  if (kind === undefined) return;
  if (!kind.isDirectory()) {
    throw new PremotorError('OUT_NOT_EMPTY', `--out ${out} is a file: expected a folder that is empty or does not exist.`, {
      file: out,
      found: 'a file',
    });
  }
  const names = await readdir(out);
  if (names.length === 0 || force) return;
  const found = `${names.length} ${names.length === 1 ? 'entry' : 'entries'} (${names.slice(0, 3).join(', ')}${names.length > 3 ? ', ...' : ''})`;
  throw new PremotorError('OUT_NOT_EMPTY', `--out ${out}: expected an empty folder, found ${found}. Nothing was overwritten.`, {
    file: out,
    expected: 'an empty folder',
    found,
  });
}

/** Removes what an earlier run left, and nothing else. */
async function clearOut(out: string): Promise<void> {
  for (const name of OWN_FILES) await rm(join(out, name), { force: true });
  const frames = join(out, 'frames');
  for (const name of await readdir(frames).catch(() => [])) if (/^\d{4,}\.png$/.test(name)) await rm(join(frames, name), { force: true });
}

interface Written {
  readonly actionsCsv: string;
  readonly actionsJson: string;
  readonly timingJson: string;
  readonly animation: string;
  readonly frames: string;
}

async function writeResults(
  out: string,
  options: InferOptions,
  result: Result,
  err: CliContext['err'],
  images: ReadonlyMap<string, string>,
): Promise<Written> {
  const { writeAnimation, writePng } = await import('../recording/animation.js');
  const { job, chunks, video } = result;
  const columns = job.used_action_channel_ids.map((id) => channelName(id, job.action_dim));
  const rows = actionRows(chunks);
  const paths: Written = {
    actionsCsv: join(out, 'actions.csv'),
    actionsJson: join(out, 'actions.json'),
    timingJson: join(out, 'timing.json'),
    animation: join(out, `imagined.${options.format}`),
    frames: join(out, 'frames'),
  };
  const actions = {
    prompt: result.reset.cleanedPrompt,
    seed: String(options.seed),
    images: Object.fromEntries(images),
    columns,
    channels: job.used_action_channel_ids,
    shape: chunks[0]?.shape,
    // The first latent frame of an episode is the observation itself: its actions are padding and are not executed.
    paddingSteps: chunks[0]?.frameIndex === 0 ? job.action_per_frame : 0,
    chunks: chunks.map(({ frameIndex }, chunk) => ({ frameIndex, actions: rows.filter((row) => row.chunk === chunk).map((row) => row.values) })),
    notes: result.notes,
  };
  try {
    await mkdir(paths.frames, { recursive: true });
    if (options.force) await clearOut(out);
    await writeFile(paths.actionsCsv, actionsCsv(columns, rows));
    await writeFile(paths.actionsJson, `${JSON.stringify(actions, null, 1)}\n`);
    await writeFile(paths.timingJson, `${JSON.stringify(timingOf(result), null, 2)}\n`);
  } catch (cause) {
    const message = `The results cannot be written to ${out}: ${(cause as Error).message}. Check the disk and the folder's rights.`;
    throw new PremotorError('FILE_WRITE', message, { file: out, cause });
  }
  const bar = new ProgressBar(err);
  for (const [index, frame] of video.entries()) {
    await writePng(join(paths.frames, `${String(index).padStart(4, '0')}.png`), frame);
    bar.update('writing frames', index + 1, video.length);
  }
  bar.clear();
  await writeAnimation(paths.animation, video, { fps: options.fps });
  return paths;
}

function timingOf({ info, chunks, wallMs }: Result): Record<string, unknown> {
  return {
    unit: 'milliseconds',
    backend: info.backend,
    precision: info.precision,
    kvCache: info.kvCache,
    threads: info.threads,
    wall: wallMs,
    chunks: chunks.map(({ timing }) => timing),
  };
}

function documentOf(result: Result, prompt: string, out: string, files: Written): Record<string, unknown> {
  const { reset, info, chunks, video, notes } = result;
  const first = video[0];
  return {
    prompt,
    cleanedPrompt: reset.cleanedPrompt,
    tokens: reset.tokens,
    embeddings: reset.source,
    checkpointHash: info.checkpointHash,
    parameters: info.parameters,
    timing: timingOf(result),
    chunks: chunks.map(({ frameIndex, shape }) => ({ frameIndex, shape })),
    video: { frames: video.length, width: first?.width ?? 0, height: first?.height ?? 0 },
    out,
    files,
    notes,
  };
}

function summary(result: Result, out: string, files: Written, format: string): string {
  const { chunks, wallMs, reset, info, video, notes } = result;
  const header = ['chunk', 'encode ms', 'video ms', 'passes', 'actions ms', 'passes', 'total ms', 'wall ms'];
  const row = ({ timing }: Chunk, index: number): string[] => [
    String(index),
    formatMs(timing.encodeMs),
    formatMs(timing.videoMs),
    String(timing.videoPasses),
    formatMs(timing.actionMs),
    String(timing.actionPasses),
    formatMs(timing.totalMs),
    formatMs(wallMs.chunks[index] ?? 0),
  ];
  const lines = [
    `instruction  ${JSON.stringify(reset.cleanedPrompt)} (${reset.tokens} tokens, embeddings from the ${reset.source}, ${formatMs(wallMs.reset)} ms)`,
    `engine       ${info.backend}, ${pairName(info)}, ${info.threads} threads; loaded in ${formatMs(wallMs.load)} ms`,
    '',
    formatTable(header, chunks.map(row), ['right']),
    `decoding ${video.length} pictures: ${formatMs(wallMs.decode)} ms`,
    '',
    `actions      ${files.actionsCsv}`,
    `             ${files.actionsJson}`,
    `video        ${files.animation} (${format}), single pictures in ${files.frames}`,
    `timing       ${files.timingJson}`,
    ...notes.map((note) => `note         ${note}`),
  ];
  if (chunks[0]?.frameIndex === 0) {
    const steps = chunks[0].shape[2];
    lines.push(`note         the first ${steps} actions are padding (the observed frame); a robot does not execute them.`);
  }
  return [...lines.slice(0, 2), `results      ${out}`, ...lines.slice(2)].join('\n');
}

function parseSeed(text: string): bigint {
  if (/^\d{1,20}$/.test(text) && BigInt(text) < 1n << 64n) return BigInt(text);
  throw new InvalidArgumentError('Expected a whole number of 0 .. 2^64 - 1.');
}

function parseFps(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0 && value <= 1000) return value;
  throw new InvalidArgumentError('Expected a number above 0 and up to 1000.');
}

const examples = `
Examples:
  premotor infer --checkpoint ckpt --job ckpt/job.json --prompt "pick up the red cube" \\
    --image cam_high=high.png cam_left_wrist=left.jpg cam_right_wrist=right.jpg
  premotor infer --checkpoint ckpt --job one-camera.json --image view.png --chunks 4 --out results --json

A camera is named by its key in the job's obs_cam_keys or by the key's last part. Written to --out: actions.csv, actions.json, timing.json,
frames/0000.png ..., and the animation imagined.gif. With --chunks above 1 the model follows its own imagination (open loop).`;

/** Adds `premotor infer` to the program. */
export function registerInfer(program: Command, context: CliContext): void {
  program
    .command('infer')
    .description('predict actions and imagined video from camera pictures and an instruction')
    .requiredOption('--checkpoint <dir>', 'checkpoint folder in the released layout')
    .requiredOption('--job <file>', "job file: how the robot uses the checkpoint (the reference's job configuration as JSON)")
    .requiredOption('--image <camera=file...>', 'one picture per camera of the job; any size, any common format')
    .option('--prompt <text>', "the instruction (default: the job's prompt)")
    .option('--chunks <n>', 'chunks to predict', whole(1, CHUNKS_MAX), 1)
    .option('--out <dir>', 'folder for the results; must be empty or new', 'premotor-infer')
    .option('--force', 'replace the results of an earlier run in --out', false)
    .addOption(precisionOption('how weights are held', 'f32'))
    .addOption(kvCacheOption())
    .addOption(uncertifiedOption())
    .addOption(new Option('--device <name>', 'where to compute').choices(['auto', 'cpu', 'cuda']).default('auto'))
    .addOption(new Option('--seed <n>', 'seed of the noise').argParser(parseSeed).default(0n, '0'))
    .option('--threads <n>', 'CPU threads (default: all cores but one)', whole(1, 1024))
    .option('--plan <file>', 'plan of the checkpoint (premotor build)')
    .option('--isolate', 'run the engine in a child process', false)
    .option('--video-steps <n>', "denoising steps for video (default: the job's)", whole(1, 1000))
    .option('--action-steps <n>', "denoising steps for actions (default: the job's)", whole(1, 1000))
    .addOption(new Option('--format <name>', 'the animation: GIF, WebP, or animated PNG (no loss)').choices(['gif', 'webp', 'png']).default('gif'))
    .option('--fps <n>', 'pictures per second of the animation', parseFps, FPS_DEFAULT)
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((options: InferOptions) => runInfer(options, context));
}
