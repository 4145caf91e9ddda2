/** What the tests of camera sources share: a clock that a test moves, pictures, and a sampler that asks as the control cycle does. */
import { CameraSampler, type Sample } from '../../src/cameras/sampler.js';
import type { FrameSource } from '../../src/cameras/source.js';
import { PremotorError } from '../../src/errors.js';

export const MS = 1_000_000n;

/** A robot's clock that stands still until it is moved; the machine's clock is `offsetNs` ahead of it. */
export class TestClock {
  timeNs: bigint;
  offsetNs: bigint;
  readonly isReal: boolean;

  constructor({ timeNs = 0n, offsetNs = 0n, isReal = true }: { timeNs?: bigint; offsetNs?: bigint; isReal?: boolean } = {}) {
    this.timeNs = timeNs;
    this.offsetNs = offsetNs;
    this.isReal = isReal;
  }

  nowNs(): bigint {
    return this.timeNs;
  }

  fromMonotonicNs(monotonicNs: bigint): bigint {
    return monotonicNs - this.offsetNs;
  }

  /** From now on it shows the time that the machine's clock shows, in robot time. */
  follow(): void {
    this.timeNs = process.hrtime.bigint() - this.offsetNs;
  }
}

export function picture(width: number, height: number, value: number): { width: number; height: number; data: Uint8Array } {
  return { width, height, data: new Uint8Array(width * height * 3).fill(value) };
}

/** Asks for the present, with the limits of the default configuration. */
export function samplerOf(source: FrameSource, keys: readonly string[]): (timeNs: bigint) => Promise<Sample> {
  const sampler = new CameraSampler({ source, keys, ageMaxNs: 100n * MS, skewMaxNs: 50n * MS });
  return (timeNs) => sampler.sampleAt(timeNs, async () => timeNs);
}

/** The code and the rest of what an action fails with; undefined: it does not. */
export async function failureOf(action: () => Promise<unknown>): Promise<PremotorError | undefined> {
  try {
    await action();
    return undefined;
  } catch (error) {
    if (error instanceof PremotorError) return error;
    throw error;
  }
}
