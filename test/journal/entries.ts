/** Journal entries for tests, each different from the next. Not a test itself. */
import type { JournalCommit } from '../../src/journal/format.js';
import type { JournalEntry } from '../../src/journal/journal.js';

export const about = {
  prompt: 'press the red button two times',
  seed: 7,
  job: 'a'.repeat(64),
  checkpoint: 'b'.repeat(64),
  precision: 'f32',
  configuration: 'c',
  hasSupervisor: true,
} as const;

/** The n-th commit, from 1. A NaN with a payload shows that bits are kept, not values. */
export function commitNumber(n: number): JournalCommit {
  const latents = Float32Array.from({ length: 48 * 2 }, (_, index) => Math.fround(Math.sin(1000 * n + index)));
  new Uint32Array(latents.buffer)[0] = 0x7fc01234 + n;
  const actions = Float32Array.from({ length: 4 * 2 * 8 }, (_, index) => Math.fround(n + index / 7));
  return { latents, actions, frameIndex: 2 * n, checksum: n.toString(16).padStart(16, '0') };
}

export const entryNumber = (n: number): JournalEntry => ({
  commit: commitNumber(n),
  encoder: new Uint8Array(300).fill(n),
  supervisor: Uint8Array.of(n, 255 - n),
});

/** Equal to the last bit; NaN included. */
export function isSameCommit(a: JournalCommit, b: JournalCommit): boolean {
  const bits = (array: Float32Array): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  const { latents: x, actions: u, ...restA } = a;
  const { latents: y, actions: v, ...restB } = b;
  return bits(x).equals(bits(y)) && bits(u).equals(bits(v)) && JSON.stringify(restA) === JSON.stringify(restB);
}
