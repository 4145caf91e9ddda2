/**
 * Seeded pictures and actions of a made-up episode, and how to walk a policy through it: what the tests of grounded steps, inpainting and restoring
 * share. Used by test/policy; it checks only that chunks have equal bits.
 */
import type { Test } from 'tap';
import type { Chunk, Frame, Policy } from '../../src/index.js';

const PROMPT = 'push the cube';
export const SEED = 5;

/** Pictures and actions of one job. */
export class Scene {
  readonly #policy: Policy;
  #state = 1;

  constructor(policy: Policy) {
    this.#policy = policy;
  }

  #next(): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return this.#state / 2 ** 32;
  }

  moment(): Frame[] {
    return this.#policy.job.obs_cam_keys.map((camera) => {
      const data = Uint8Array.from({ length: 20 * 24 * 3 }, () => Math.floor(256 * this.#next()));
      return { camera, width: 24, height: 20, data, capturedAtNs: 0n };
    });
  }

  moments(count: number): Frame[][] {
    return Array.from({ length: count }, () => this.moment());
  }

  actions(frames: number): Float32Array {
    const [used, , perFrame] = this.#policy.info.actionShape;
    return Float32Array.from({ length: used * frames * perFrame }, () => 0.4 * this.#next() - 0.2);
  }
}

/** The first `frames` of the axis that has `total`; `inner` values a frame. */
export function leading(data: Float32Array, total: number, frames: number, inner: number): Float32Array {
  const outer = data.length / (total * inner);
  const parts = Array.from({ length: outer }, (_, i) => [...data.subarray(i * total * inner, (i * total + frames) * inner)]);
  return Float32Array.from(parts.flat());
}

export interface Past {
  readonly first: Frame[];
  readonly commits: readonly { readonly obs: Frame[][]; readonly actions: Float32Array }[];
}

/** An episode of so many commits, K latent frames each. */
export function pastOf(policy: Policy, count: number): Past {
  const scene = new Scene(policy);
  const K = policy.job.frame_chunk_size;
  const commits = Array.from({ length: count }, (_, at) => {
    return { obs: scene.moments(4 * (at === 0 ? K - 1 : K)), actions: scene.actions(K) };
  });
  return { first: scene.moment(), commits };
}

export async function begin(policy: Policy, past: Past, commits = past.commits.length): Promise<void> {
  await policy.reset({ prompt: PROMPT });
  await policy.predict({ obs: past.first, seed: SEED });
  for (const commit of past.commits.slice(0, commits)) await policy.commit(commit);
}

export function same(t: Test, found: Chunk, expected: Chunk, what: string): void {
  t.same([...found.actions], [...expected.actions], `${what}: actions`);
  t.same([...found.latents], [...expected.latents], `${what}: latents`);
  t.equal(found.frameIndex, expected.frameIndex, `${what}: frame index`);
}
