/**
 * Which KV cache a precision may have. Asked wherever an engine or a plan is described; whether a checkpoint may be run with it, certificate.ts says.
 */
import { PremotorError } from '../errors.js';
import { textMode } from '../text/prompt-cache.js';
import type { Job } from './contract.js';
import { type CpuPrecision, defaultKvCache, KV_CACHES, type KvCache } from './precision.js';

/** The KV cache of a precision: the one given, else the default. Errors: KV_CACHE_UNSUPPORTED where it is wider than what is computed. */
export function kvCacheFor(precision: CpuPrecision, { param_dtype }: Pick<Job, 'param_dtype'>, given?: KvCache): KvCache {
  const kvCache = given ?? defaultKvCache(precision);
  if (kvCache !== 'f32' || !textMode(precision, param_dtype).deployedBf16) return kvCache;
  const expected = KV_CACHES.filter((name) => name !== 'f32').join(' or ');
  const message =
    `kvCache: expected ${expected} with precision "${precision}" and param_dtype "${param_dtype}", which round keys and values to bfloat16, ` +
    `found "${kvCache}", which would hold the same values in twice the bytes. Leave kvCache out, or use precision "f32".`;
  throw new PremotorError('KV_CACHE_UNSUPPORTED', message, { field: 'kvCache', expected, found: kvCache });
}
