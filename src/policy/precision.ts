/**
 * What each precision does to the weights, in words: the arithmetic is in cpp/engine/weights.h, whether a checkpoint may be run so in certificate.ts.
 */
import { type CpuPrecision, hasDefaultKvCache, type KvCache, type PrecisionPair } from '../precision-names.js';

export * from '../precision-names.js';

/** Those whose weights are quantised: a checkpoint was not trained so, and is run so only with a certificate. */
export type QuantisedPrecision = 'int8' | 'int4';
export const isQuantised = (precision: string): precision is QuantisedPrecision => precision === 'int8' || precision === 'int4';

/**
 * How the weights are held. A certificate repeats it: one that was made with another way of quantising says nothing about this one. Change the text
 * whenever the packed values or the products change, and with the values kPackedLayout (cpp/ops/cpu/packed.h): plans hold those of the build.
 */
export const WEIGHT_FORMS: Readonly<Record<CpuPrecision, string>> = {
  f32: 'as stored',
  bf16: 'bfloat16',
  int8: 'blocks in int8 per output, activations in int8 per row by the inverse of their scale',
  int4: 'blocks in int4 per 32 inputs with searched scales, both as bfloat16 when multiplied',
};

/** The same for the cached keys and values (cpp/ops/kv_layout.h). */
const KV_FORMS: Readonly<Record<KvCache, string>> = {
  f32: 'keys and values in float32',
  bf16: 'keys and values in bfloat16',
  int8: 'keys and values in int8 per head and token',
};

/** How a pair holds what it computes from. Where the cache is the precision's default, it goes without saying. */
export const formOf = (pair: PrecisionPair): string =>
  hasDefaultKvCache(pair) ? WEIGHT_FORMS[pair.precision] : `${WEIGHT_FORMS[pair.precision]}; ${KV_FORMS[pair.kvCache]}`;

/** Whether a checkpoint is run so only with a certificate: it was neither trained nor deployed so. */
export const needsCertificate = (pair: PrecisionPair): boolean => isQuantised(pair.precision) || !hasDefaultKvCache(pair);
