/**
 * The precisions that the CPU backend computes, and what it holds cached keys and values in. What each does to the weights is in
 * src/policy/precision.ts. Every layer may know these names; the file imports nothing.
 */
export const PRECISIONS = ['f32', 'bf16', 'int8', 'int4'] as const;
export type CpuPrecision = (typeof PRECISIONS)[number];

/** Number types of the KV cache; int8 has a scale per head and token. */
export const KV_CACHES = ['f32', 'bf16', 'int8'] as const;
export type KvCache = (typeof KV_CACHES)[number];

/** A precision with its KV cache: what a policy computes with, and what is certified. */
export interface PrecisionPair<P extends string = CpuPrecision> {
  readonly precision: P;
  readonly kvCache: KvCache;
}

/** The KV cache of a precision that is asked for without one. */
export const defaultKvCache = (precision: string): KvCache => (precision === 'f32' ? 'f32' : 'bf16');

export const hasDefaultKvCache = ({ precision, kvCache }: PrecisionPair<string>): boolean => kvCache === defaultKvCache(precision);

/** The pair of a precision and, unless it is the default, a KV cache. */
export function precisionPair<P extends string>(precision: P, kvCache: KvCache = defaultKvCache(precision)): PrecisionPair<P> {
  return { precision, kvCache };
}

/** The pair in one word, for files, tables and identities: "int8" with the precision's default, else "int8-kv-int8". */
export const pairName = (pair: PrecisionPair<string>): string => (hasDefaultKvCache(pair) ? pair.precision : `${pair.precision}-kv-${pair.kvCache}`);
