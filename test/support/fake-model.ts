/**
 * A policy whose answers follow from everything that it was ever told: whoever loses, repeats or reorders a commit, a prompt, a picture or a seed
 * gets other actions. It stands in for the engine where rebuilding and replaying is tested; a fact about the model must never be tested with it.
 */
import { createHash } from 'node:crypto';
import { PremotorError } from '../../src/errors.js';
import type {
  CacheState,
  Chunk,
  CommitOptions,
  CommitResult,
  DecodedVideo,
  EncoderState,
  Frame,
  Job,
  Policy,
  PredictNextOptions,
  PredictOptions,
  ResetOptions,
  ResetResult,
  RestoreOptions,
  Timing,
} from '../../src/policy/contract.js';
import { toTensor, toVideo } from '../../src/policy/tensor.js';
import { SIM_JOB } from '../../src/sim/job.js';

const TIMING: Timing = { encodeMs: 1, videoMs: 2, actionMs: 3, commitMs: 4, imagineMs: 5, totalMs: 15, videoPasses: 6, actionPasses: 7 };
export const PROGRESS = { stage: 'video', done: 1, total: 2 } as const;

const hash = (...parts: (string | Uint8Array)[]): string => {
  const digest = createHash('sha256');
  for (const part of parts) digest.update(part).update('|');
  return digest.digest('hex').slice(0, 16);
};
const bytes = (array: Float32Array): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const values = (count: number, seed: string): Float32Array => {
  let state = Number.parseInt(seed.slice(0, 8), 16);
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.fround(state / 2 ** 32 - 0.5);
  });
};

/** What happens around a call; may throw, wait or note. */
export type Hook = (call: string, when: 'before' | 'after') => Promise<void> | void;

export class FakeModel implements Policy {
  readonly job: Job;
  readonly info: Policy['info'];
  readonly calls: string[] = [];
  pid: number | undefined;
  hook: Hook = () => undefined;
  isClosed = false;
  /** What every call costs, so that there is a time to be killed in. */
  delayMs = 0;
  #prompt: string | undefined;
  #generation = 0;
  #history = '';
  #encoder = '';
  #first: string | undefined;
  #frameIndex = 0;
  #commits = 0;

  constructor(changes: Partial<Policy['info']> = {}, job: Job = SIM_JOB) {
    this.job = job;
    const { frame_chunk_size: K, action_per_frame: H, used_action_channel_ids: used } = job;
    const shapes = { latentShape: [48, K, 2, 2], actionShape: [used.length, K, H] } as const;
    const sizes = { threads: 1, weightBytes: 0, cacheBytes: 0, parameters: 0, unusedTensors: [], warnings: [] };
    this.info = { checkpointHash: 'fake', device: 'cpu', backend: 'fake', precision: 'f32', kvCache: 'f32', ...sizes, ...shapes, ...changes };
  }

  get cache(): CacheState {
    return { capacity: 100, valid: this.#commits, committed: this.#commits, predicted: 0, checksum: hash(this.#history, String(this.#frameIndex)) };
  }

  async reset({ prompt }: ResetOptions): Promise<ResetResult> {
    return this.#call('reset', undefined, () => this.#begin(prompt));
  }

  async predict(options: PredictOptions = {}): Promise<Chunk> {
    return this.#call('predict', options, () => {
      if (this.#commits === 0 && options.obs) this.#first = seen([options.obs]);
      if (this.#first === undefined) throw new PremotorError('OBS_REQUIRED', 'predict: expected the first observation, found none. Pass obs.');
      return this.#chunk(options, '');
    });
  }

  async commit(options: CommitOptions): Promise<CommitResult> {
    return this.#call('commit', options, () => this.#commit(options));
  }

  async predictNext(options: PredictNextOptions): Promise<Chunk> {
    return this.#call('predictNext', options, () => {
      const { obs, executed } = options;
      const done = obs && executed ? this.#commit({ obs, actions: executed }) : undefined;
      const chunk = this.#chunk(options, hash(bytes(options.executing)));
      return done ? { ...chunk, committed: { frameIndex: done.frameIndex, latents: done.latents } } : chunk;
    });
  }

  async encoderState(): Promise<EncoderState> {
    return this.#call('encoderState', undefined, () => ({ data: Uint8Array.from(Buffer.from(this.#encoder)) }));
  }

  async restore({ prompt, commits, encoder, checksum, onProgress }: RestoreOptions): Promise<ResetResult> {
    return this.#call('restore', undefined, () => {
      const result = this.#begin(prompt);
      for (const [index, { latents, actions }] of commits.entries()) {
        this.#keep(latents, actions);
        onProgress?.({ stage: 'recover', done: index + 1, total: commits.length });
      }
      this.#encoder = Buffer.from(encoder.data).toString();
      this.#first = 'known';
      const found = this.cache.checksum;
      if (checksum === undefined || checksum === found) return result;
      throw new PremotorError('RESTORE_MISMATCH', `restore: expected checksum ${checksum}, found ${found}. Begin anew.`, {
        expected: checksum,
        found,
      });
    });
  }

  async occupy(): Promise<CacheState> {
    return this.#call('occupy', undefined, () => this.cache);
  }

  async decode(): Promise<DecodedVideo> {
    return this.#call('decode', undefined, () => toVideo(toTensor(new Float32Array(12), [1, 2, 2, 3])));
  }

  async close(): Promise<void> {
    this.isClosed = true;
  }

  async #call<T>(name: string, options: PredictOptions | CommitOptions | PredictNextOptions | undefined, body: () => T): Promise<T> {
    this.calls.push(name);
    if (this.#prompt === undefined && !['reset', 'restore', 'decode'].includes(name)) throw new PremotorError('NO_EPISODE', `${name}: no episode.`);
    await this.hook(name, 'before');
    options?.onProgress?.(PROGRESS);
    await this.#wait((options as PredictOptions | undefined)?.signal);
    const result = body();
    await this.hook(name, 'after');
    return result;
  }

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    if (signal?.aborted) throw new PremotorError('ABORTED', 'The call was stopped. Nothing changed.');
  }

  #begin(prompt: string): ResetResult {
    this.#prompt = prompt;
    this.#history = hash(prompt);
    this.#encoder = 'new';
    this.#first = undefined;
    this.#frameIndex = this.#commits = 0;
    return { source: 'encoder', cleanedPrompt: prompt, tokens: 1, warnings: [], generation: ++this.#generation };
  }

  #commit({ obs, actions }: CommitOptions): CommitResult {
    if (this.#first === undefined) throw new PremotorError('OBS_REQUIRED', 'commit: expected the first observation, found none. Predict first.');
    const start = this.#commits === 0 ? this.#first : '';
    this.#encoder = hash(this.#encoder, start, seen(obs));
    const frames = actions.length / (this.info.actionShape[0] * this.info.actionShape[2]);
    const latents = values(48 * frames * 4, hash(this.#encoder));
    this.#keep(latents, actions);
    const { frameIndex } = { frameIndex: this.#frameIndex };
    return { frameIndex, generation: this.#generation, latents: toTensor(latents, [1, 48, frames, 2, 2]), timing: TIMING };
  }

  #keep(latents: Float32Array, actions: Float32Array): void {
    this.#history = hash(this.#history, bytes(latents), bytes(actions));
    this.#commits++;
    this.#frameIndex += actions.length / (this.info.actionShape[0] * this.info.actionShape[2]);
  }

  #chunk({ seed = 0, videoSteps = 0 }: Pick<PredictOptions, 'seed' | 'videoSteps'>, more: string): Chunk {
    const from = hash(this.#history, this.#encoder, String(seed), String(videoSteps), more, this.#commits === 0 ? (this.#first ?? '') : '');
    const [used, K, H] = this.info.actionShape;
    const latents = toTensor(values(48 * K * 4, hash(from, 'latents')), [1, ...this.info.latentShape]);
    const about = { shape: this.info.actionShape, timing: TIMING, frameIndex: this.#frameIndex, generation: this.#generation };
    return { actions: values(used * K * H, from), latents, ...about };
  }
}

const seen = (obs: readonly (readonly Frame[])[]): string => hash(...obs.flat().flatMap(({ camera, data }) => [camera, data]));

/** A moment of the fake's cameras; moments of different numbers differ. */
export const fakeMoment = (number: number, job: Job = SIM_JOB): Frame[] =>
  job.obs_cam_keys.map((camera, index) => ({
    camera,
    width: 2,
    height: 2,
    data: new Uint8Array(12).fill(number * 3 + index),
    capturedAtNs: BigInt(number) * 80_000_000n,
  }));

/** Plays an episode as the synchronous cycle does and gives its chunks' actions. */
export async function playEpisode(policy: Policy, chunks: number, seed = 5): Promise<Float32Array[]> {
  const { frame_chunk_size: K } = policy.job;
  const actions: Float32Array[] = [];
  let moment = 0;
  await policy.reset({ prompt: 'press the red button two times' });
  for (let chunk = 0; chunk < chunks; chunk++) {
    const made = await policy.predict({ ...(chunk === 0 ? { obs: fakeMoment(moment++, policy.job) } : {}), seed, onProgress: () => undefined });
    actions.push(made.actions);
    const obs = Array.from({ length: 4 * (chunk === 0 ? K - 1 : K) }, () => fakeMoment(moment++, policy.job));
    await policy.commit({ obs, actions: made.actions.map((value) => value / 2), onProgress: () => undefined });
  }
  return actions;
}
