/** Jobs, frames and fake-backed policies for the tests of the policy. Used by test/policy only. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PremotorError } from '../../src/errors.js';
import type { Frame } from '../../src/policy/contract.js';
import { openLocal } from '../../src/policy/load.js';
import type { LocalPolicy } from '../../src/policy/local.js';
import { type FakeEngine, FakeNative, FakeText } from './fake-native.js';

const folder = dirname(fileURLToPath(import.meta.url));
export const goldens = process.env['PREMOTOR_GOLDENS'] ?? join(folder, '..', 'goldens');
export const checkpoint = join(goldens, 'nocfg_partial', 'checkpoint');
export const fakeEngineProcess = join(folder, 'fake-engine-process.ts');

/** A job's JSON as a plain object that a test may change. */
export function jobOf(name: string, changes: Record<string, unknown> = {}): Record<string, unknown> {
  const job = JSON.parse(readFileSync(join(goldens, name, 'job.json'), 'utf8')) as Record<string, unknown>;
  return { ...job, ...changes };
}

/** A small job: 2 cameras, K = 2, 3 channels, 4 actions per latent frame, latents [48, 2, 2, 4]. */
export function smallJob(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    obs_cam_keys: ['observation.images.cam_high', 'observation.images.cam_wrist'],
    guidance_scale: 1,
    action_guidance_scale: 1,
    num_inference_steps: 5,
    action_num_inference_steps: 10,
    snr_shift: 5,
    action_snr_shift: 1,
    used_action_channel_ids: [2, 0, 5],
    action_dim: 6,
    norm_stat: { q01: [0, 0, 0, 0, 0, 0], q99: [1, 1, 1, 1, 1, 1] },
    attn_window: 8,
    height: 32,
    width: 32,
    frame_chunk_size: 2,
    action_per_frame: 4,
    ...changes,
  };
}

export const ACTIONS_PER_FRAME = 3 * 4;

export function frame(camera: string, width = 6, height = 4): Frame {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, index) => index % 256);
  return { camera, width, height, data, capturedAtNs: 123_456_789_012_345_678n };
}

export const observation = (): Frame[] => [frame('cam_high'), frame('cam_wrist')];
export const moments = (count: number): Frame[][] => Array.from({ length: count }, observation);
export const actionsOf = (frames: number): Float32Array => new Float32Array(frames * ACTIONS_PER_FRAME).fill(0.5);

export interface Rig {
  readonly policy: LocalPolicy;
  readonly engine: FakeEngine;
  readonly native: FakeNative;
  readonly text: FakeText;
}

/** A local policy over the fake engine. */
export async function openRig(changes: Record<string, unknown> = {}): Promise<Rig> {
  const native = new FakeNative();
  const text = new FakeText();
  const policy = await openLocal({ checkpoint, job: smallJob(changes), threads: 1 }, { native, text });
  const engine = native.engines[0];
  if (engine === undefined) throw new Error('the fake opened no engine');
  return { policy, engine, native, text };
}

/** The PremotorError that a promise rejects with; an Error that no test expects when it resolves or rejects with something else. */
export async function errorOf(promise: Promise<unknown>): Promise<PremotorError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof PremotorError) return error;
    throw new Error(`rejected with ${String(error)}, which is no PremotorError`, { cause: error });
  }
  throw new Error('resolved, but an error was expected');
}

/** The PremotorError that a function throws. */
export function thrownBy(call: () => unknown): PremotorError {
  try {
    call();
  } catch (error) {
    if (error instanceof PremotorError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** A promise that a test settles. */
export function deferred(): { promise: Promise<void>; release: () => void } {
  let release: () => void = () => undefined;
  const promise = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { promise, release };
}
