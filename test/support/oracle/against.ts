/**
 * Runs an untrained checkpoint of any size through the public contract and through the oracle, call by call, and compares everything both trace.
 * The oracle gets the engine's prompt embeddings, encoded observations and noise, and nothing else. Used by the tests of shapes and of the mixture
 * of transformers.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type UntrainedOptions, writeUntrainedCheckpoint } from '../../../src/checkpoint/untrained.js';
import { type Frame, loadPolicy, type Policy, PremotorError, type Trace } from '../../../src/index.js';
import { loadNative } from '../../../src/native.js';
import { type Comparison, compareCache } from '../golden.js';
import { OracleEpisode } from './episode.js';
import { OracleTransformer } from './transformer.js';
import { readWeights } from './weights.js';

/** Why the engine cannot run here, or false. */
export function skipReason(): string | false {
  try {
    loadNative();
    return false;
  } catch (error) {
    if (error instanceof PremotorError && error.code === 'NATIVE_MISSING') return `THE ENGINE IS NOT TESTED: ${error.message}`;
    throw error;
  }
}

/** Uniform numbers of [0, 1) from a seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A job for an untrained checkpoint of `actionDim` channels, of which three are used, in no particular order. */
export function jobFor(actionDim: number, changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    obs_cam_keys: ['front', 'wrist'],
    guidance_scale: 5,
    action_guidance_scale: 1,
    num_inference_steps: 3,
    action_num_inference_steps: 3,
    snr_shift: 5,
    action_snr_shift: 1,
    used_action_channel_ids: [actionDim - 1, 0, 1],
    action_dim: actionDim,
    norm_stat: { q01: Array.from({ length: actionDim }, (_, i) => -1 - i / 10), q99: Array.from({ length: actionDim }, (_, i) => 1 + i / 7) },
    attn_window: 8,
    height: 32,
    width: 32,
    frame_chunk_size: 2,
    action_per_frame: 3,
    ...changes,
  };
}

/** Runs `use` on an untrained checkpoint in a folder that is removed afterwards. */
export async function withCheckpoint<T>(options: UntrainedOptions, use: (checkpoint: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'premotor-oracle-'));
  try {
    await writeUntrainedCheckpoint(folder, options);
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export interface AgainstOptions {
  readonly checkpoint: string;
  readonly job: Record<string, unknown>;
  readonly precision?: 'f32' | 'bf16';
  readonly seed: number;
  /** Predict and commit so many times. */
  readonly rounds: number;
  readonly comparison: Comparison;
}

/** What a run did, for a test to see that it was what it meant to test. */
export interface AgainstResult {
  readonly compared: number;
  /** Cache entries that the reference's semantics evicted. */
  readonly evicted: boolean;
}

/** Runs rounds of predict and commit through engine and oracle. */
export async function runAgainst({ checkpoint, job, precision = 'f32', seed, rounds, comparison }: AgainstOptions): Promise<AgainstResult> {
  const policy = await loadPolicy({ checkpoint, job, precision, threads: 2, promptCache: false });
  try {
    const random = randomOf(seed);
    const { trace: text } = await policy.reset({ prompt: 'Press the red button.', trace: true });
    const prompts = ['prompt_embeds_pos', 'prompt_embeds_neg'].flatMap((name) => text?.get(name)?.data ?? []);
    const [, , rows, columns] = policy.info.latentShape;
    const oracle = new OracleEpisode(new OracleTransformer(readWeights(checkpoint)), policy.job, [rows, columns], prompts);
    let evicted = false;
    for (let round = 0; round < rounds; round++) {
      const chunk = await policy.predict({ ...(round === 0 ? { obs: observation(policy, random) } : {}), seed: seed + round, trace: true });
      const trace = chunk.trace as Trace;
      const values = (name: string): ArrayLike<number> => trace.get(name)?.data ?? [];
      const observed = round === 0 ? { obsLatent: values('obs_latent') } : {};
      const expected = oracle.predict({ ...observed, noiseVideo: values('noise.video'), noiseAction: values('noise.action') });
      compareCall(comparison, `c${2 * round}`, trace, expected);
      comparison.floats(`c${2 * round}.chunk.actions`, chunk.actions, expected.get('action')?.data ?? []);
      comparison.floats(`c${2 * round}.chunk.latents`, chunk.latents, expected.get('latents')?.data ?? []);
      const frames = policy.job.frame_chunk_size;
      const obs = Array.from({ length: 4 * (round === 0 ? frames - 1 : frames) }, () => observation(policy, random));
      // What is executed is not what was predicted: a limit may have cut it.
      const state = chunk.actions.map((value) => value + 0.2 * (random() - 0.5));
      const { trace: committed = new Map() } = await policy.commit({ obs, actions: state, trace: true });
      compareCall(comparison, `c${2 * round + 1}`, committed, oracle.commit({ obsLatent: committed.get('obs_latent')?.data ?? [], state }));
      evicted ||= !oracle.cache.valid.some((entry) => entry.call === 2);
    }
    return { compared: comparison.compared, evicted };
  } finally {
    await policy.close();
  }
}

function observation(policy: Policy, random: () => number): Frame[] {
  const [width, height] = [40, 24];
  return policy.job.obs_cam_keys.map((camera) => {
    const tint = 256 * random();
    const data = Uint8Array.from({ length: width * height * 3 }, () => (tint + 90 * random()) % 256);
    return { camera, width, height, data, capturedAtNs: 0n };
  });
}

/** Everything the oracle traces must be in the engine's trace and agree. */
function compareCall(comparison: Comparison, prefix: string, found: Trace, expected: Trace): void {
  const layers = new Set<string>();
  for (const [name, tensor] of expected) {
    const layer = /^kv\.(L\d+)\./.exec(name)?.[1];
    if (layer !== undefined) layers.add(layer);
    else comparison.tensor(`${prefix}.${name}`, found.get(name), tensor);
  }
  for (const layer of layers) compareCache(comparison, prefix, layer, found, expected);
}
