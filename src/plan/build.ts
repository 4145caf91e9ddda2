/**
 * Building and checking plans: from options to the native task and back, with an AbortSignal. Owned by callers of the package and the command line;
 * the engine does the work.
 */
import { resolve } from 'node:path';
import { PremotorError } from '../errors.js';
import { callNative, loadNative, type NativeProgress } from '../native.js';
import type { NativePlanModule, NativeStoppable } from '../native-plan.js';
import type { Job } from '../policy/contract.js';
import { kvCacheFor } from '../policy/kv-cache.js';
import { nativeJobOf } from '../policy/load.js';
import type { CpuPrecision, KvCache } from '../policy/precision.js';
import { checkpointHash } from '../text/checkpoint-hash.js';
import { readPlan } from './directory.js';
import { extendTactics, readTactics } from './tactics.js';

export interface BuildPlanOptions {
  readonly checkpoint: string;
  readonly job: Job;
  readonly precision: CpuPrecision;
  /** As in loadPolicy. The plan serves every KV cache; what it says about its passes is said of this one. */
  readonly kvCache?: KvCache;
  /** That pack, and that tactics are tuned for. */
  readonly threads: number;
  /** Measure how products are best cut; what is in `tactics` is not measured again. Default: true. */
  readonly tune?: boolean;
  /** A file with tactics of earlier builds, read and extended. Default: none. */
  readonly tactics?: string;
  /** To write; a plan that is there is replaced by a whole one only. */
  readonly file: string;
  /** The version of premotor. */
  readonly tool: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: NativeProgress;
}

export interface BuiltPlan {
  readonly file: string;
  readonly kvCache: KvCache;
  readonly checkpointHash: string;
  readonly bytes: number;
  readonly tensors: number;
  readonly tables: number;
}

async function stoppable<T>(start: () => NativeStoppable<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal?.aborted === true) throw new PremotorError('ABORTED', 'Stopped before it began.');
  const task = start();
  const cancel = (): void => task.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await callNative(() => task.done);
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

const distinct = (values: readonly number[]): number[] => [...new Set(values)].sort((a, b) => a - b);

/** Errors: CHECKPOINT_*, JOB_INVALID, KV_CACHE_UNSUPPORTED, TACTICS_INVALID, FILE_WRITE, OUT_OF_MEMORY, ABORTED. */
export async function buildPlan(
  options: BuildPlanOptions,
  native: Pick<NativePlanModule, 'buildPlan' | 'planDirectory'> = loadNative(),
): Promise<BuiltPlan> {
  const { job, precision, threads, tool, signal, onProgress, tune = true } = options;
  const kvCache = kvCacheFor(precision, job, options.kvCache);
  const checkpoint = resolve(options.checkpoint);
  const file = resolve(options.file);
  const hash = await checkpointHash(checkpoint);
  const tacticsFile = options.tactics === undefined ? '' : resolve(options.tactics);
  const tactics = tacticsFile === '' ? '' : await readTactics(tacticsFile);
  const ladder = job.ladder ?? [];
  const built = await stoppable(
    () =>
      native.buildPlan({
        checkpoint,
        job: nativeJobOf(job, precision),
        precision,
        kvCache,
        threads,
        file,
        tool,
        checkpointHash: hash,
        videoSteps: distinct(ladder.flatMap(({ video_steps, imagine_steps }) => [video_steps, imagine_steps])),
        actionSteps: distinct(ladder.map(({ action_steps }) => action_steps)),
        tune,
        tactics,
        tacticsFile,
        ...(onProgress === undefined ? {} : { onProgress }),
      }),
    signal,
  );
  if (tacticsFile !== '') await extendTactics(tacticsFile, tactics, (await readPlan(file, native)).tuning);
  return { file, kvCache, checkpointHash: hash, ...built };
}

/** Reads and checks every byte. Errors: PLAN_*, ABORTED. */
export async function verifyPlan(
  file: string,
  { signal, onProgress }: { readonly signal?: AbortSignal; readonly onProgress?: NativeProgress } = {},
  native: Pick<NativePlanModule, 'verifyPlan'> = loadNative(),
): Promise<void> {
  await stoppable(() => native.verifyPlan(resolve(file), onProgress), signal);
}
