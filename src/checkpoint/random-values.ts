/**
 * Reproducible normal values for untrained weights: element i of a tensor depends on the seed, the tensor's name and i alone, so pieces may be
 * filled in any order. Made for speed (one hash gives two values by table look-up), not for statistics beyond a good-looking normal distribution.
 * The engine's noise is another generator (docs/NOISE.md).
 */
import { bfloat16Bits } from './dtypes.js';
import type { InitialTensor } from './layout.js';

const ENTRIES = 1 << 16;

/** Standard normal quantiles at (i + 0.5) / 65536, built on first use. */
let quantiles: Float32Array | undefined;

function normalQuantiles(): Float32Array {
  quantiles ??= Float32Array.from({ length: ENTRIES }, (_, index) => normalQuantile((index + 0.5) / ENTRIES));
  return quantiles;
}

/** The inverse of the normal distribution function by bisection; called 65536 times at most. */
function normalQuantile(probability: number): number {
  let low = -6;
  let high = 6;
  for (let step = 0; step < 40; step++) {
    const middle = (low + high) / 2;
    if (normalDistribution(middle) < probability) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Normal distribution function by a rational approximation of erfc (Abramowitz and Stegun 7.1.26); error below 1.5e-7. */
function normalDistribution(x: number): number {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * z);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = 0.5 * series * Math.exp(-z * z);
  return x < 0 ? tail : 1 - tail;
}

/** 32 bits of a text (FNV-1a) mixed with a number. */
function hashText(text: string, start: number): number {
  let hash = 0x811c9dc5 ^ Math.imul(start, 0x9e3779b1);
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  return hash ^ (hash >>> 13);
}

/** Fills pieces of tensors. One instance serves one checkpoint. */
export class RandomValues {
  readonly #seed: number;
  readonly #rounded = new Map<string, Uint16Array>();

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Fills `target` with values of `tensor` from element `first` (even) on. The tensor is F32 or BF16. */
  fill(tensor: InitialTensor, first: number, target: Uint8Array): void {
    const keys: Keys = [hashText(tensor.name, this.#seed), hashText(tensor.name, ~this.#seed)];
    const { buffer, byteOffset, byteLength } = target;
    if (tensor.dtype === 'BF16') fillFromTable(new Uint16Array(buffer, byteOffset, byteLength / 2), this.#roundedTable(tensor), first / 2, keys);
    else fillScaled(new Float32Array(buffer, byteOffset, byteLength / 4), tensor, first / 2, keys);
  }

  #roundedTable({ mean, std }: InitialTensor): Uint16Array {
    const key = `${mean} ${std}`;
    let table = this.#rounded.get(key);
    if (table === undefined) {
      table = Uint16Array.from(normalQuantiles(), (value) => bfloat16Bits(mean + std * value));
      this.#rounded.set(key, table);
    }
    return table;
  }
}

type Keys = readonly [number, number];

/** Two values per hash of (key, pair index). */
function fillFromTable(out: Uint16Array, table: Uint16Array, firstPair: number, [key0, key1]: Keys): void {
  for (let index = 0; index < out.length; index += 2) {
    const hash = hashOf(firstPair + index / 2, key0, key1);
    out[index] = table[hash & 0xffff] as number;
    if (index + 1 < out.length) out[index + 1] = table[hash >>> 16] as number;
  }
}

function fillScaled(out: Float32Array, { mean, std }: InitialTensor, firstPair: number, [key0, key1]: Keys): void {
  const table = normalQuantiles();
  for (let index = 0; index < out.length; index += 2) {
    const hash = hashOf(firstPair + index / 2, key0, key1);
    out[index] = mean + std * (table[hash & 0xffff] as number);
    if (index + 1 < out.length) out[index + 1] = mean + std * (table[hash >>> 16] as number);
  }
}

/** 32 bits of (pair, keys): three rounds of multiply and shift. */
function hashOf(pair: number, key0: number, key1: number): number {
  let hash = Math.imul(pair ^ key0, 0x7feb352d);
  hash = Math.imul(hash ^ (hash >>> 15) ^ key1, 0x846ca68b);
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x9e3779b1);
  return hash ^ (hash >>> 15);
}
