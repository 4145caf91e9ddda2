/**
 * The only file that loads the native addon, and the types of what it exports (cpp/addon). Every native call that computes runs on a thread of its
 * own and resolves a promise; arguments were validated by src/policy before they come here. Errors arrive as plain Error objects with `code`, `file`,
 * `tensor`, `expected`, `found` and are turned into PremotorError by `callNative`.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PremotorError } from './errors.js';
import type { NativeCameraModule } from './native-camera.js';
import type { NativeCanModule } from './native-can.js';
import type { NativeKinematics } from './native-kinematics.js';
import type { NativeMotionModule, NativeStreamModule } from './native-motion.js';
import type { NativePlanModule } from './native-plan.js';

export type * from './native-camera.js';
export type * from './native-can.js';
export type * from './native-kinematics.js';
export type * from './native-motion.js';
export type * from './native-plan.js';

export interface NativeTensor {
  readonly dtype: 'float32' | 'int32' | 'uint8';
  readonly shape: number[];
  readonly data: Float32Array | Int32Array | Uint8Array;
}

/** One picture: RGB, [height, width, 3]. */
export interface NativeFrame {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

export interface NativeTiming {
  readonly encodeMs: number;
  readonly videoMs: number;
  readonly actionMs: number;
  readonly commitMs: number;
  readonly imagineMs: number;
  readonly totalMs: number;
  readonly videoPasses: number;
  readonly actionPasses: number;
}

/** The parsed job, every field present (see Job in policy/contract.ts). */
export interface NativeJob {
  readonly deployedBf16: boolean; // round activations to bfloat16 as the deployed reference does
  readonly inputCast: boolean; // also round timesteps and action positions
  readonly i2va: boolean; // the episode's frame index advances with each prediction
  readonly tshape: boolean;
  readonly cameras: number;
  readonly guidanceScale: number;
  readonly actionGuidanceScale: number;
  readonly videoSteps: number;
  readonly videoExecStep: number;
  readonly actionSteps: number;
  readonly snrShift: number;
  readonly actionSnrShift: number;
  readonly usedActionChannelIds: number[];
  readonly q01: number[];
  readonly q99: number[];
  readonly attnWindow: number;
  readonly height: number;
  readonly width: number;
  readonly frameChunkSize: number;
  readonly actionPerFrame: number;
  readonly imagineSteps: number;
  readonly textRows: number; // text rows the network attends, padding included
}

export interface NativeChunk {
  readonly actions: Float32Array; // [used, K, H]
  readonly latents: Float32Array; // [1, C, K, h, w]
  readonly frameIndex: number;
  readonly timing: NativeTiming;
  readonly imagined?: Float32Array; // [1, C, E, h, w]
  readonly committed?: NativeCommit;
  readonly trace?: Record<string, NativeTensor>;
}

export interface NativeCommit {
  readonly frameIndex: number;
  readonly frames: number;
  readonly latents: Float32Array; // [1, C, frames, h, w]
  readonly timing: NativeTiming;
  readonly trace?: Record<string, NativeTensor>;
}

export type NativeProgress = (stage: string, done: number, total: number) => void;

export interface NativePredict {
  readonly frames?: NativeFrame[]; // one per camera in obs_cam_keys order
  readonly seed: bigint;
  readonly noiseVideo?: Float32Array;
  readonly noiseAction?: Float32Array;
  readonly videoSteps?: number;
  readonly actionSteps?: number;
  readonly videoExecStep?: number;
  readonly guidance?: boolean;
  readonly inpaint?: { readonly actions: Float32Array; readonly weights: Float32Array; readonly betaMax: number }; // [used, K, H], [K * H]
  readonly trace: boolean;
  readonly onProgress?: NativeProgress;
}

/** moments and executed come together or not at all. */
export interface NativePredictNext extends Omit<NativePredict, 'frames'> {
  readonly moments?: NativeFrame[][];
  readonly executed?: Float32Array;
  readonly executing: Float32Array; // [used, E, H]
  readonly forecast?: Float32Array; // [1, C, E, h, w]
  readonly noiseImagined?: Float32Array; // [1, C, E, h, w]
  readonly imagineSteps?: number;
}

/** An episode's past. `tag` names checkpoint, precision and KV cache: an encoder state of another one is refused. */
export interface NativeRestore {
  readonly positive: NativeEmbedding;
  readonly negative: NativeEmbedding | null;
  readonly commits: readonly {
    readonly latents: Float32Array;
    readonly actions: Float32Array;
    readonly frames: number;
    readonly predicted: boolean;
  }[];
  readonly encoder: Uint8Array;
  readonly tag: string;
  readonly onProgress?: NativeProgress;
}

/** Entries of the KV cache and a hash of the committed ones, 16 hexadecimal digits. */
export interface NativeCache {
  readonly capacity: number;
  readonly valid: number;
  readonly committed: number;
  readonly predicted: number;
  readonly checksum: string;
}

export interface NativeEngineInfo {
  readonly backend: string;
  readonly weightBytes: number;
  readonly cacheBytes: number;
  readonly parameters: number;
  readonly unusedTensors: string[];
  readonly latentShape: [number, number, number, number];
  readonly actionShape: [number, number, number];
  readonly textDim: number;
  readonly planCheckpoint?: string; // through a plan: the checkpoint's hash as the plan's builder gave it
}

/** Embeddings of the real tokens of one prompt: [count, text_dim]. */
export interface NativeEmbedding {
  readonly rows: Float32Array;
  readonly count: number;
}

export interface NativeEngine {
  readonly info: NativeEngineInfo;
  reset(positive: NativeEmbedding, negative: NativeEmbedding | null): Promise<void>;
  predict(options: NativePredict): Promise<NativeChunk>;
  commit(options: { moments: NativeFrame[][]; actions: Float32Array; trace: boolean; onProgress?: NativeProgress }): Promise<NativeCommit>;
  predictNext(options: NativePredictNext): Promise<NativeChunk>;
  encoderState(tag: string): Promise<Uint8Array>;
  restore(options: NativeRestore): Promise<void>;
  /** For measuring: fills the cache with committed entries of no meaning. */
  occupy(): Promise<void>;
  /** latents [1, C, frames, h, w] normalised -> float32 [pictures, H, W, 3] in [0, 1]. */
  decode(
    latents: Float32Array,
    frames: number,
    onProgress?: NativeProgress,
  ): Promise<{ data: Float32Array; shape: [number, number, number, number] }>;
  cache(): NativeCache;
  /** Asks the running call to stop; it then rejects with ABORTED. Does nothing when idle. */
  cancel(): void;
  /** Frees weights and cache. Waits for a running call. Idempotent. */
  close(): Promise<void>;
}

export interface NativeInspection {
  readonly components: {
    readonly name: string; // transformer, vae, text_encoder
    readonly present: boolean;
    readonly config: Record<string, unknown> | null;
    readonly files: { readonly path: string; readonly bytes: number }[];
    readonly tensors: { readonly name: string; readonly dtype: string; readonly shape: number[]; readonly bytes: number; readonly used: boolean }[];
    readonly parameters: number;
    readonly bytes: number;
    readonly problems: { readonly code: string; readonly message: string }[];
  }[];
}

/** What policies need. */
export interface NativeEngineModule {
  openEngine(options: {
    checkpoint: string;
    job: NativeJob;
    precision: 'f32' | 'bf16' | 'int8' | 'int4';
    kvCache: 'f32' | 'bf16' | 'int8';
    threads: number;
    plan?: string; // file
    deviceLibrary?: string; // file: the transformer's passes run on the first device that it opens
  }): Promise<NativeEngine>;
  /** Runs the text encoder of `folder` over token ids; [count, d_model] float32. */
  encodeText(options: {
    folder: string;
    ids: Int32Array;
    precision: 'f32' | 'bf16';
    deployedBf16: boolean;
    threads: number;
  }): Promise<NativeEmbedding>;
  /** Checks a checkpoint folder without reading weights; problems are listed, not thrown. */
  inspect(checkpoint: string): Promise<NativeInspection>;
  /** Standard normal float32 noise of the engine's counter-based generator; docs/NOISE.md. */
  noise(seed: bigint, stream: number, frameIndex: number, count: number): Float32Array;
  /** The backend that would run here: {"name": "cpu-avx512", "features": [...]}. */
  cpu(): { name: string; features: string[] };
}

/** What a service needs. */
export interface NativeSystemModule {
  /** One datagram to the service manager's socket: a path, or a name of the abstract namespace as "@name". Throws NOTIFY_FAILED; never waits. */
  notify(address: string, text: string): void;
}

export type NativeModule = NativeEngineModule &
  NativeSystemModule &
  NativeMotionModule &
  NativeKinematics &
  NativeCanModule &
  NativeStreamModule &
  NativePlanModule &
  NativeCameraModule;

const folder = dirname(fileURLToPath(import.meta.url));
let loaded: NativeModule | undefined;

/** Loads the addon once. Errors: NATIVE_MISSING (not built), NATIVE_LOAD (built for another system). */
export function loadNative(): NativeModule {
  if (loaded) return loaded;
  const candidates = [join(folder, '..', 'build', 'Release', 'premotor.node'), join(folder, '..', '..', 'build', 'Release', 'premotor.node')];
  const path = process.env['PREMOTOR_ADDON'] ?? candidates.find((candidate) => existsSync(candidate));
  if (path === undefined || !existsSync(path)) {
    throw new PremotorError(
      'NATIVE_MISSING',
      `The native addon is not built: expected ${candidates[0]}. Run "npm run build:native" in premotor's folder.`,
      {
        expected: candidates[0] ?? '',
        found: 'no such file',
      },
    );
  }
  try {
    loaded = createRequire(import.meta.url)(path) as NativeModule;
  } catch (cause) {
    throw new PremotorError(
      'NATIVE_LOAD',
      `The native addon ${path} does not load on this system (${(cause as Error).message}). Run "npm run build:native" in premotor's folder.`,
      { file: path, cause },
    );
  }
  return loaded;
}

/** The GPU backend's place beside the addon, whether it was built or not. */
export function cudaLibrary(): string {
  const addon = process.env['PREMOTOR_ADDON'];
  if (addon !== undefined) return join(dirname(addon), 'premotor-cuda.so');
  const candidates = [join(folder, '..', 'build', 'Release', 'premotor-cuda.so'), join(folder, '..', '..', 'build', 'Release', 'premotor-cuda.so')];
  return candidates.find((candidate) => existsSync(candidate)) ?? (candidates[0] as string);
}

/** The executable premotor-stream, built beside the addon. Errors: NATIVE_MISSING. */
export function streamProgram(): string {
  const candidates = [join(folder, '..', 'build', 'Release', 'premotor-stream'), join(folder, '..', '..', 'build', 'Release', 'premotor-stream')];
  const addon = process.env['PREMOTOR_ADDON'];
  if (addon !== undefined) candidates.unshift(join(dirname(addon), 'premotor-stream'));
  const path = candidates.find((candidate) => existsSync(candidate));
  if (path !== undefined) return path;
  const expected = candidates[0] ?? '';
  throw new PremotorError(
    'NATIVE_MISSING',
    `The stream process is not built: expected ${expected}. Run "npm run build:native" in premotor's folder.`,
    { expected, found: 'no such file' },
  );
}

/** The addon's kinematics, which need no engine. Errors: those of loadNative. */
export function loadKinematics(): NativeKinematics {
  return loadNative();
}

/** A native call that computes at once, with its error turned into a PremotorError. */
export function callNativeNow<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw toPremotorError(error);
  }
}

/** Awaits a native call and turns its error into a PremotorError. */
export async function callNative<T>(call: () => Promise<T> | T): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw toPremotorError(error);
  }
}

/** Turns an error that came from the addon, or from another process, into a PremotorError. */
export function toPremotorError(error: unknown): PremotorError {
  if (error instanceof PremotorError) return error;
  const e = error as Error & { code?: unknown; field?: string; file?: string; tensor?: string; expected?: string; found?: string };
  const code = typeof e?.code === 'string' && /^[A-Z0-9_]+$/.test(e.code) ? e.code : 'INTERNAL';
  const details: Record<string, unknown> = { cause: error };
  for (const key of ['field', 'file', 'tensor', 'expected', 'found'] as const) if (e?.[key]) details[key] = e[key];
  return new PremotorError(code, e?.message ?? String(error), details);
}
