/**
 * What a device can do at most, and the least time that a plan's steps then take: the larger of arithmetic and memory traffic, step by step. Tables
 * of devices stand here; pure functions, nothing here measures.
 */
import { PremotorError } from '../errors.js';
import type { NativeCeilings } from '../native-plan.js';
import type { PlanDirectory, PlanPass, PlanStep } from './directory.js';

/** Arithmetic is in 1e9 operations a second, a multiplication and an addition being two. */
export interface Ceilings {
  readonly name: string;
  readonly gigabytesPerSecond: number;
  /** By product; one that is missing runs as f32 does. */
  readonly gigaflops: Readonly<{ f32: number } & Partial<Record<string, number>>>;
  /** What a step costs whatever its size. Default: 0. */
  readonly launchMs?: number;
  /** How much of the activations' bytes, counted as float32, goes through memory. Default: 0, they stay in caches. */
  readonly activationShare?: number;
}

/** Of this machine, from what the engine measured. */
export function measuredCeilings({ gigabytesPerSecond, f32, bf16Dot, int8Dot }: NativeCeilings): Ceilings {
  return {
    name: 'this machine, measured',
    gigabytesPerSecond,
    gigaflops: { f32, ...(bf16Dot > 0 ? { bf16_dot: bf16Dot } : {}), ...(int8Dot > 0 ? { int8: int8Dot } : {}) },
  };
}

/** "bandwidth=20,f32=120,bf16_dot=230": GB/s and 1e9 operations a second. Errors: ARGUMENT_INVALID. */
export function parseCeilings(text: string): Ceilings {
  const gigaflops: Record<string, number> = {};
  for (const part of text.split(',')) {
    const [name = '', value = ''] = part.split('=').map((piece) => piece.trim());
    const number = Number(value);
    if (!/^[a-z0-9_]+$/.test(name) || value === '' || !(number > 0) || !Number.isFinite(number)) throw invalid(part);
    gigaflops[name] = number;
  }
  const { bandwidth, f32, ...others } = gigaflops;
  if (bandwidth === undefined || f32 === undefined) throw invalid(text);
  return { name: 'given', gigabytesPerSecond: bandwidth, gigaflops: { f32, ...others } };
}

function invalid(found: string): PremotorError {
  const expected = 'bandwidth=GB/s,f32=GFLOP/s and more products, such as bandwidth=20,f32=120,bf16_dot=230';
  return new PremotorError('ARGUMENT_INVALID', `--ceilings: expected ${expected}, found "${found}".`, { field: 'ceilings', expected, found });
}

export interface StepTime {
  readonly arithmeticMs: number;
  /** Weights and KV cache from memory, once; of activations the ceilings' share. */
  readonly memoryMs: number;
  readonly ms: number;
}

export function stepTime(step: PlanStep, { gigabytesPerSecond, gigaflops, launchMs = 0, activationShare = 0 }: Ceilings): StepTime {
  const arithmeticMs = step.flops / ((gigaflops[step.product] ?? gigaflops.f32) * 1e6);
  const memoryMs = (step.weightBytes + step.cacheBytes + activationShare * step.activationBytes) / (gigabytesPerSecond * 1e6);
  return { arithmeticMs, memoryMs, ms: Math.max(arithmeticMs, memoryMs) + launchMs };
}

export interface PassTotal {
  readonly flops: number;
  readonly weightBytes: number;
  readonly cacheBytes: number;
  /** Steps, one after another. */
  readonly steps: number;
  /** Undefined without ceilings. */
  readonly ms: number | undefined;
}

const zero: PassTotal = { flops: 0, weightBytes: 0, cacheBytes: 0, steps: 0, ms: 0 };

const plus = (a: PassTotal, b: PassTotal, times: number): PassTotal => ({
  flops: a.flops + times * b.flops,
  weightBytes: a.weightBytes + times * b.weightBytes,
  cacheBytes: a.cacheBytes + times * b.cacheBytes,
  steps: a.steps + times * b.steps,
  ms: a.ms === undefined || b.ms === undefined ? undefined : a.ms + times * b.ms,
});

/** One pass: its groups as often as they repeat. */
export function passTotal({ groups }: PlanPass, ceilings: Ceilings | undefined): PassTotal {
  return groups.reduce(
    (total, { times, steps }) =>
      steps.reduce((sum, step) => plus(sum, { ...step, steps: 1, ms: ceilings && stepTime(step, ceilings).ms }, times), total),
    zero,
  );
}

/** One control cycle: every pass as often as a chunk takes it. */
export function chunkTotal({ passes }: Pick<PlanDirectory, 'passes'>, ceilings: Ceilings | undefined): PassTotal {
  return passes.reduce((total, pass) => plus(total, passTotal(pass, ceilings), pass.perChunk), zero);
}
