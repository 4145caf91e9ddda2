/**
 * loadPolicy: checks the options, reads the job, opens the native engine and puts a policy around it, in this process or in a child. Owned by callers
 * of the package; it holds no state of its own.
 */
import { existsSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { PremotorError } from '../errors.js';
import { callNative, cudaLibrary, loadNative, type NativeEngine, type NativeEngineModule, type NativeJob } from '../native.js';
import { checkpointHash } from '../text/checkpoint-hash.js';
import { embedPrompt } from '../text/embeddings.js';
import { textMode } from '../text/prompt-cache.js';
import { TEXT_TOKENS_MAX } from '../text/tokenizer.js';
import { describe } from '../wording.js';
import { checkCertificate } from './certificate.js';
import type { Job, LoadPolicyOptions, Policy, PolicyInfo } from './contract.js';
import { IsolatedPolicy } from './isolated.js';
import { type ParsedJob, readJob } from './job.js';
import { kvCacheFor } from './kv-cache.js';
import { LocalPolicy, type TextProvider } from './local.js';
import { isOnnxFolder, loadOnnx } from './onnx/open.js';
import { type CpuPrecision, KV_CACHES, type KvCache, PRECISIONS, type PrecisionPair } from './precision.js';

const THREADS_MAX = 1024;

/** The options of loadPolicy, checked, with their defaults. */
export interface Settings extends PrecisionPair {
  readonly checkpoint: string;
  readonly parsed: ParsedJob;
  readonly allowUncertified: boolean;
  readonly threads: number;
  readonly isolate: boolean;
  readonly promptCache: string | false | undefined;
  /** A plan file. */
  readonly plan: string | undefined;
  readonly device: 'cpu' | 'cuda';
}

/** What opening needs from outside; tests bring their own. */
export interface Parts {
  readonly native?: NativeEngineModule;
  readonly text?: TextProvider;
}

/** Loads a checkpoint for one robot's job. Errors: docs/ERRORS.md, "Loading". */
export async function loadPolicy(options: LoadPolicyOptions): Promise<Policy> {
  if (options?.backend === 'onnx') return loadOnnx(options);
  const settings = await checkLoadOptions(options);
  if (!settings.isolate) return openWith(settings);
  const { checkpoint, precision, kvCache, threads, promptCache, parsed, allowUncertified, plan, device } = settings;
  const optional = { ...(promptCache === undefined ? {} : { promptCache }), ...(plan === undefined ? {} : { plan }) };
  const inner: LoadPolicyOptions = { checkpoint, device, precision, kvCache, threads, job: parsed.job, allowUncertified, ...optional };
  return IsolatedPolicy.open(inner, { warnings: parsed.warnings });
}

/** Loads a policy into this process, whatever `isolate` says. */
export async function openLocal(options: LoadPolicyOptions, parts: Parts = {}): Promise<LocalPolicy> {
  return openWith(await checkLoadOptions(options), parts);
}

async function openWith(settings: Settings, parts: Parts = {}): Promise<LocalPolicy> {
  const { parsed, precision, kvCache, threads, device } = settings;
  const native = parts.native ?? loadNative();
  const { engine, hash, uncertified } = await openCertified(settings, native);
  const { backend, weightBytes, cacheBytes, unusedTensors, latentShape, actionShape, parameters } = engine.info;
  const info: PolicyInfo = {
    checkpointHash: hash,
    device,
    backend,
    precision,
    kvCache,
    threads,
    weightBytes,
    cacheBytes,
    unusedTensors,
    latentShape,
    actionShape,
    parameters,
    warnings: uncertified === undefined ? parsed.warnings : [...parsed.warnings, uncertified],
  };
  return new LocalPolicy({ engine, job: parsed.job, info, text: parts.text ?? textOf(settings, native, hash) });
}

interface Opened {
  readonly engine: NativeEngine;
  /** Of the checkpoint. */
  readonly hash: string;
  /** The warning of a precision without its certificate. */
  readonly uncertified: string | undefined;
}

/** Opens the engine, and asks for the precision's certificate of the very checkpoint whose weights run. */
async function openCertified(settings: Settings, native: NativeEngineModule): Promise<Opened> {
  const { checkpoint, parsed, precision, kvCache, threads, plan, allowUncertified, device } = settings;
  const open = {
    checkpoint,
    job: nativeJobOf(parsed.job, precision),
    precision,
    kvCache,
    threads,
    ...(device === 'cuda' ? { deviceLibrary: cudaLibrary() } : {}),
  };
  if (plan === undefined) {
    const hash = await checkpointHash(checkpoint);
    const uncertified = await checkCertificate(checkpoint, settings, hash, allowUncertified);
    return { engine: await callNative(() => native.openEngine(open)), hash, uncertified };
  }
  // A plan knows the hash of its checkpoint, and the engine refuses another checkpoint: its tensors need not be touched.
  const engine = await callNative(() => native.openEngine({ ...open, plan }));
  const hash = engine.info.planCheckpoint ?? '';
  try {
    return { engine, hash, uncertified: await checkCertificate(checkpoint, settings, hash, allowUncertified) };
  } catch (error) {
    await engine.close();
    throw error;
  }
}

/** The text provider of a checkpoint folder. */
function textOf({ checkpoint, parsed, precision, threads, promptCache }: Settings, native: NativeEngineModule, hash: string): TextProvider {
  const mode = textMode(precision, parsed.job.param_dtype);
  const cacheDir = promptCache === undefined ? {} : { cacheDir: promptCache };
  return { embedPrompt: (prompt) => embedPrompt({ checkpoint, prompt, mode, threads, native, checkpointHash: hash, ...cacheDir }) };
}

/** All cores but one, which is left to the rest of the robot. */
export const defaultThreads = (): number => Math.max(1, availableParallelism() - 1);

/** Checks what loadPolicy is given and fills in the defaults. */
export async function checkLoadOptions(options: LoadPolicyOptions): Promise<Settings> {
  if (typeof options !== 'object' || options === null) throw badOption('options', 'an object', options);
  const { checkpoint, backend = 'engine', isolate = false, allowUncertified = false, promptCache } = options;
  if (backend !== 'engine') throw badOption('backend', '"engine" or "onnx"', backend);
  if (typeof checkpoint !== 'string' || checkpoint === '') throw badOption('checkpoint', 'the path of a checkpoint folder', checkpoint);
  if (typeof isolate !== 'boolean') throw badOption('isolate', 'true or false', isolate);
  if (typeof allowUncertified !== 'boolean') throw badOption('allowUncertified', 'true or false', allowUncertified);
  if (promptCache !== undefined && promptCache !== false && (typeof promptCache !== 'string' || promptCache === '')) {
    throw badOption('promptCache', 'a folder or false', promptCache);
  }
  const { threads = defaultThreads() } = options;
  if (!Number.isInteger(threads) || threads < 1 || threads > THREADS_MAX)
    throw badOption('threads', `a whole number of 1 .. ${THREADS_MAX}`, threads);
  const precision = checkPrecision(options.precision);
  const given = checkKvCache(options.kvCache);
  const device = checkDevice(options.device);
  const { plan } = options;
  if (plan !== undefined && (typeof plan !== 'string' || plan === '')) throw badOption('plan', 'the path of a plan file', plan);
  const parsed = await readJob(options.job);
  const kvCache = kvCacheFor(precision, parsed.job, given);
  if (device === 'cuda') checkOnDevice(precision, kvCache, plan);
  const folder = resolve(checkpoint);
  checkFolder(folder);
  const found = plan === undefined ? undefined : resolve(plan);
  return { checkpoint: folder, parsed, precision, kvCache, allowUncertified, threads, isolate, promptCache, plan: found, device };
}

function checkPrecision(precision: unknown = 'f32'): CpuPrecision {
  const known = PRECISIONS.find((name) => name === precision);
  if (known !== undefined) return known;
  if (precision !== 'fp8') throw badOption('precision', '"f32", "bf16", "int8", "int4" or "fp8"', precision);
  const expected = PRECISIONS.join(', ');
  const message = `precision: expected one of ${expected}, found "${precision}", which no backend of this version computes. Use "int8".`;
  throw new PremotorError('PRECISION_UNSUPPORTED', message, { field: 'precision', expected, found: precision });
}

function checkKvCache(kvCache: unknown): KvCache | undefined {
  if (kvCache === undefined) return undefined;
  const known = KV_CACHES.find((name) => name === kvCache);
  if (known === undefined) throw badOption('kvCache', '"f32", "bf16" or "int8"', kvCache);
  return known;
}

/** `auto` is the processor until the GPU backend has been seen to work on GPUs (docs/CUDA.md). */
function checkDevice(device: unknown = 'auto'): 'cpu' | 'cuda' {
  if (device === 'auto' || device === 'cpu') return 'cpu';
  if (device !== 'cuda') throw badOption('device', '"cpu", "cuda" or "auto"', device);
  return device;
}

/** What the GPU's kernels compute. */
function checkOnDevice(precision: CpuPrecision, kvCache: KvCache, plan: string | undefined): void {
  const refuse = (field: string, expected: string, found: string): PremotorError => {
    const message = `${field}: device "cuda" expects ${expected}, found ${found}. Change it, or use device "cpu".`;
    return new PremotorError('DEVICE_PRECISION', message, { field, expected, found });
  };
  if (precision !== 'bf16' && precision !== 'int8') throw refuse('precision', '"bf16" or "int8"', `"${precision}"`);
  if (kvCache === 'f32') throw refuse('kvCache', '"bf16" or "int8"', `"${kvCache}"`);
  if (plan !== undefined) throw refuse('plan', 'no plan: its weights are packed for the processor', `"${plan}"`);
}

/** The parts without which nothing runs; the engine checks everything else. */
function checkFolder(folder: string): void {
  const remedy = 'Expected a folder in the released layout: transformer/, vae/, and text_encoder/ and tokenizer/ unless prompts are precomputed.';
  const isFolder = existsSync(folder) && statSync(folder).isDirectory();
  const absent = isFolder ? ['transformer', 'vae'].map((part) => join(folder, part, 'config.json')).find((file) => !existsSync(file)) : folder;
  if (absent === undefined) return;
  const found = isFolder || !existsSync(folder) ? 'nothing there' : 'not a folder';
  const advice = isOnnxFolder(folder) ? "It holds an exported policy: use the backend 'onnx'." : 'Check the path.';
  const message = `The checkpoint ${folder} cannot be used: ${absent}: ${found}. ${remedy} ${advice}`;
  throw new PremotorError('CHECKPOINT_MISSING_FILE', message, { field: 'checkpoint', file: absent, expected: 'a checkpoint folder', found });
}

function badOption(field: string, expected: string, value: unknown): PremotorError {
  const found = describe(value);
  const message = `loadPolicy: ${field}: expected ${expected}, found ${found}. Correct the option; docs/CONTRACT.md lists them.`;
  return new PremotorError('ARGUMENT_INVALID', message, { field, expected, found });
}

/** The job in the form that the native engine takes. */
export function nativeJobOf(job: Job, precision: CpuPrecision): NativeJob {
  return {
    deployedBf16: textMode(precision, job.param_dtype).deployedBf16,
    inputCast: job.bf16_input_cast,
    i2va: job.infer_mode === 'i2va',
    tshape: job.env_type === 'robotwin_tshape',
    cameras: job.obs_cam_keys.length,
    guidanceScale: job.guidance_scale,
    actionGuidanceScale: job.action_guidance_scale,
    videoSteps: job.num_inference_steps,
    videoExecStep: job.video_exec_step,
    actionSteps: job.action_num_inference_steps,
    snrShift: job.snr_shift,
    actionSnrShift: job.action_snr_shift,
    usedActionChannelIds: [...job.used_action_channel_ids],
    q01: [...job.norm_stat.q01],
    q99: [...job.norm_stat.q99],
    attnWindow: job.attn_window,
    height: job.height,
    width: job.width,
    frameChunkSize: job.frame_chunk_size,
    actionPerFrame: job.action_per_frame,
    imagineSteps: job.imagine_steps ?? job.num_inference_steps,
    textRows: job.max_sequence_length ?? TEXT_TOKENS_MAX,
  };
}
