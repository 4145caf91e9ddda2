/**
 * The passes of a checkpoint that has no plan, and perhaps no weights yet: config.json and a job say what they consist of. Owned by the command line;
 * the engine counts (cpp/engine/plan_sketch.h).
 */
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { SafetensorsFile } from '../checkpoint/safetensors.js';
import { callNative } from '../native.js';
import type { NativePlanModule } from '../native-plan.js';
import type { Job, KvCache } from '../policy/contract.js';
import { kvCacheFor } from '../policy/kv-cache.js';
import { nativeJobOf } from '../policy/load.js';
import type { CpuPrecision } from '../policy/precision.js';
import { type PlanPass, parsePasses } from './directory.js';

export interface SketchOptions {
  /** Folder with transformer/config.json and vae/config.json. */
  readonly checkpoint: string;
  readonly job: Job;
  readonly precision: CpuPrecision;
  readonly kvCache?: KvCache;
}

/** What the transformer's first tensor is stored as; the released checkpoints are bf16. */
function storedType(checkpoint: string): 'f32' | 'bf16' {
  const folder = join(checkpoint, 'transformer');
  const name = existsSync(folder) ? readdirSync(folder).find((one) => one.endsWith('.safetensors')) : undefined;
  if (name === undefined) return 'bf16';
  const file = SafetensorsFile.open(join(folder, name));
  try {
    return [...file.tensors.values()][0]?.dtype === 'F32' ? 'f32' : 'bf16';
  } finally {
    file.close();
  }
}

/** Errors: CHECKPOINT_*, JOB_INVALID, KV_CACHE_UNSUPPORTED. */
export async function sketchPasses(options: SketchOptions, native: Pick<NativePlanModule, 'outlineCheckpoint'>): Promise<readonly PlanPass[]> {
  const checkpoint = resolve(options.checkpoint);
  const { job, precision } = options;
  const kvCache = kvCacheFor(precision, job, options.kvCache);
  const stored = storedType(checkpoint);
  const json = await callNative(() => native.outlineCheckpoint({ checkpoint, job: nativeJobOf(job, precision), precision, kvCache, stored }));
  return parsePasses(json);
}
