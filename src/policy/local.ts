/**
 * The policy in this process: checks arguments, keeps the episode's state (open, episode, closed) and drives one native engine. Owned by loadPolicy
 * or by the engine process; it computes nothing itself and never blocks the event loop.
 */
import { PremotorError } from '../errors.js';
import { callNative, type NativeChunk, type NativeEmbedding, type NativeEngine, type NativeTensor } from '../native.js';
import type { PromptEmbedding } from '../text/embeddings.js';
import { TEXT_TOKENS_MAX } from '../text/tokenizer.js';
import type {
  CacheState,
  Chunk,
  CommitOptions,
  CommitResult,
  DecodedVideo,
  DecodeOptions,
  Job,
  Policy,
  PolicyInfo,
  PredictNextOptions,
  PredictOptions,
  Progress,
  ResetOptions,
  ResetResult,
  ShapedArray,
  Tensor,
  Trace,
} from './contract.js';
import { aborted, Gate } from './gate.js';
import { toTensor, toVideo } from './tensor.js';
import * as check from './validate.js';

/** Where embeddings come from: the text encoder, a cache, or files that came with the checkpoint. */
export interface TextProvider {
  embedPrompt(prompt: string, signal?: AbortSignal): Promise<PromptEmbedding>;
}

export interface LocalPolicyParts {
  readonly engine: NativeEngine;
  readonly text: TextProvider;
  readonly job: Job;
  readonly info: PolicyInfo;
}

interface Episode {
  /** A prediction succeeded: the engine has the first observation. */
  observed: boolean;
  /** A commit succeeded: later ones bring 4 F moments. */
  committed: boolean;
  /** The prompt's tokens and embeddings; the first traced prediction shows them. */
  readonly text: readonly [PromptEmbedding, PromptEmbedding | null];
}

export class LocalPolicy implements Policy {
  readonly job: Job;
  readonly info: PolicyInfo;
  readonly #engine: NativeEngine;
  readonly #text: TextProvider;
  readonly #cameras: check.Cameras;
  readonly #noiseSizes: check.NoiseSizes;
  readonly #gate = new Gate();
  #cache: CacheState;
  #episode: Episode | undefined;
  #negative: PromptEmbedding | undefined;

  constructor({ engine, text, job, info }: LocalPolicyParts) {
    this.#engine = engine;
    this.#text = text;
    this.job = job;
    this.info = info;
    this.#cameras = new check.Cameras(job.obs_cam_keys);
    const [, frames, perFrame] = info.actionShape;
    this.#noiseSizes = { video: [1, ...info.latentShape], action: [1, job.action_dim, frames, perFrame, 1] };
    this.#cache = engine.cache();
  }

  /** The cache as the last finished call left it. */
  get cache(): CacheState {
    return this.#cache;
  }

  reset(options: ResetOptions): Promise<ResetResult> {
    return this.#call('reset', options, options?.signal, async (signal) => {
      const positive = await this.#embed(check.checkPrompt(options.prompt), signal);
      if (this.job.guidance_scale > 1) this.#negative ??= await this.#embed('', signal);
      const negative = this.#negative ?? null;
      this.#episode = undefined;
      await this.#compute('reset', signal, () => this.#engine.reset(rowsOf(positive), negative === null ? null : rowsOf(negative)));
      this.#episode = { observed: false, committed: false, text: [positive, negative] };
      const trace = options.trace === true ? this.#textTrace(positive, negative) : undefined;
      const { source, cleaned: cleanedPrompt, count: tokens, warnings } = positive;
      return { source, cleanedPrompt, tokens, warnings, ...(trace === undefined ? {} : { trace }) };
    });
  }

  predict(options: PredictOptions = {}): Promise<Chunk> {
    return this.#call('predict', options, options?.signal, async (signal) => {
      const episode = this.#need('predict');
      const frames = this.#firstObservation(options, episode);
      const sampling = this.#sampling(options, false);
      const chunk = await this.#compute('predict', signal, () => this.#engine.predict({ ...sampling, ...(frames === undefined ? {} : { frames }) }));
      const text = chunk.trace !== undefined && !episode.observed ? this.#textTrace(...episode.text) : new Map();
      episode.observed = true;
      return this.#chunk(chunk, text);
    });
  }

  commit(options: CommitOptions): Promise<CommitResult> {
    return this.#call('commit', options, undefined, async (signal) => {
      const episode = this.#needObserved('commit');
      const { moments, frames, reason } = check.checkMoments(options.obs, this.#cameras, this.job, !episode.committed);
      const actions = check.checkActions(options.actions, this.job, frames, 'actions', reason);
      const trace = options.trace === true;
      const call = { moments, actions, trace, ...progressOf(options) };
      const result = await this.#committing(episode, () => this.#compute('commit', signal, () => this.#engine.commit(call)));
      return { frameIndex: result.frameIndex, timing: result.timing, ...traceOf(result.trace) };
    });
  }

  predictNext(options: PredictNextOptions): Promise<Chunk> {
    return this.#call('predictNext', options, options?.signal, async (signal) => {
      const episode = this.#needObserved('predictNext');
      const { moments, frames, reason } = check.checkMoments(options.obs, this.#cameras, this.job, !episode.committed);
      const executed = check.checkActions(options.executed, this.job, frames, 'executed', reason);
      const chunkFrames = this.job.frame_chunk_size;
      const executing = check.checkActions(options.executing, this.job, chunkFrames, 'executing', 'one whole chunk is executing');
      const call = { ...this.#sampling(options, true), moments, executed, executing };
      const chunk = await this.#committing(episode, () => this.#compute('predictNext', signal, () => this.#engine.predictNext(call)));
      return this.#chunk(chunk);
    });
  }

  decode(latents: Float32Array | Tensor | ShapedArray, options: DecodeOptions = {}): Promise<DecodedVideo> {
    return this.#call('decode', options, options?.signal, async (signal) => {
      const { data, frames } = check.checkLatents(latents, this.info.latentShape);
      const { onProgress } = progressOf(options);
      const film = await this.#compute('decode', signal, () => this.#engine.decode(data, frames, onProgress));
      return toVideo(toTensor(film.data, film.shape));
    });
  }

  close(): Promise<void> {
    return this.#gate.close(async () => {
      this.#episode = undefined;
      await callNative(() => this.#engine.close());
    });
  }

  #call<T>(name: string, options: unknown, signal: unknown, body: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const caller = signal instanceof AbortSignal ? signal : undefined;
    return this.#gate.run(name, caller, async (inner) => {
      check.checkOptions(options, name);
      return body(inner);
    });
  }

  /** Runs one native call; an abort becomes the engine's cancel. The cache is read afterwards, also when the call failed. */
  async #compute<T>(name: string, signal: AbortSignal, call: () => Promise<T>): Promise<T> {
    if (signal.aborted) throw aborted(name, signal.reason);
    const cancel = (): void => this.#engine.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      return await callNative(call);
    } finally {
      signal.removeEventListener('abort', cancel);
      this.#cache = this.#engine.cache();
    }
  }

  /** Notes that a commit happened, also when what followed it in the same call failed: then the cache already holds committed entries. */
  async #committing<T>(episode: Episode, call: () => Promise<T>): Promise<T> {
    try {
      const result = await call();
      episode.committed = true;
      return result;
    } catch (error) {
      if (!episode.committed) episode.committed = this.#cache.committed > 0;
      throw error;
    }
  }

  async #embed(prompt: string, signal: AbortSignal): Promise<PromptEmbedding> {
    const embedding = await this.#text.embedPrompt(prompt, signal);
    if (signal.aborted) throw aborted('reset', signal.reason);
    return embedding;
  }

  #need(method: string): Episode {
    if (this.#episode !== undefined) return this.#episode;
    const message = `${method}: expected an episode, found none. Call reset({ prompt }) first.`;
    throw new PremotorError('NO_EPISODE', message, { expected: 'an episode', found: 'none' });
  }

  #needObserved(method: string): Episode {
    if (this.job.infer_mode === 'i2va') {
      const message = `${method}: expected infer_mode "server", found "i2va", where predictions are the history. Call predict, or change the job.`;
      throw new PremotorError('MODE_UNSUPPORTED', message, { field: 'infer_mode', expected: 'server', found: 'i2va' });
    }
    const episode = this.#need(method);
    if (episode.observed) return episode;
    throw observationRequired(method);
  }

  /** The pictures of a prediction at the start of an episode; later ones are ignored, as in the reference. */
  #firstObservation(options: PredictOptions, episode: Episode): ReturnType<typeof check.checkObservation> | undefined {
    const given = options.obs !== undefined && !(Array.isArray(options.obs) && options.obs.length === 0);
    if (!episode.observed && !given) throw observationRequired('predict');
    const started = episode.committed || (episode.observed && this.job.infer_mode === 'i2va');
    return given && !started ? check.checkObservation(options.obs, this.#cameras, 'obs') : undefined;
  }

  #sampling(options: Omit<PredictOptions, 'obs'>, imagined: boolean) {
    const noise = check.checkNoise(options.noise, this.#noiseSizes, imagined);
    const videoSteps = check.checkSteps(options.videoSteps, 'videoSteps', this.job);
    const actionSteps = check.checkSteps(options.actionSteps, 'actionSteps', this.job);
    return {
      seed: check.checkSeed(options.seed),
      trace: options.trace === true,
      ...(noise.video === undefined ? {} : { noiseVideo: noise.video }),
      ...(noise.action === undefined ? {} : { noiseAction: noise.action }),
      ...(noise.imagined === undefined ? {} : { noiseImagined: noise.imagined }),
      ...(videoSteps === undefined ? {} : { videoSteps }),
      ...(actionSteps === undefined ? {} : { actionSteps }),
      ...progressOf(options),
    };
  }

  #chunk(chunk: NativeChunk, text: Trace = new Map()): Chunk {
    const { trace } = traceOf(chunk.trace);
    return {
      actions: chunk.actions,
      shape: this.info.actionShape,
      latents: toTensor(chunk.latents, [1, ...this.info.latentShape]),
      timing: chunk.timing,
      frameIndex: chunk.frameIndex,
      ...(trace === undefined ? {} : { trace: new Map([...text, ...trace]) }),
    };
  }

  #textTrace(positive: PromptEmbedding, negative: PromptEmbedding | null): Trace {
    const trace: Trace = new Map();
    for (const [suffix, text] of [
      ['pos', positive],
      ['neg', negative],
    ] as const) {
      if (text === null) continue;
      const width = text.rows.length / text.count;
      trace.set(`token_ids_${suffix}`, { dtype: 'int32', shape: [1, TEXT_TOKENS_MAX], data: padded(new Int32Array(TEXT_TOKENS_MAX), text.ids) });
      trace.set(`token_mask_${suffix}`, { dtype: 'uint8', shape: [1, TEXT_TOKENS_MAX], data: padded(new Uint8Array(TEXT_TOKENS_MAX), text.mask) });
      const embeds = padded(new Float32Array(TEXT_TOKENS_MAX * width), text.rows);
      trace.set(`prompt_embeds_${suffix}`, { dtype: 'float32', shape: [1, TEXT_TOKENS_MAX, width], data: embeds });
    }
    return trace;
  }
}

function observationRequired(method: string): PremotorError {
  const remedy = method === 'predict' ? 'Pass obs: one frame per camera.' : 'Call predict({ obs }) first: it brings the first latent frame.';
  const message = `${method}: expected the first observation of the episode, found none. ${remedy}`;
  return new PremotorError('OBS_REQUIRED', message, { field: 'obs', expected: 'one frame per camera', found: 'none' });
}

const rowsOf = ({ rows, count }: PromptEmbedding): NativeEmbedding => ({ rows, count });

function padded<T extends Int32Array | Uint8Array | Float32Array>(zeros: T, values: ArrayLike<number>): T {
  zeros.set(values);
  return zeros;
}

function traceOf(trace: Record<string, NativeTensor> | undefined): { trace?: Trace } {
  return trace === undefined ? {} : { trace: new Map(Object.entries(trace)) };
}

function progressOf(options: { readonly onProgress?: (progress: Progress) => void }) {
  const report = options.onProgress;
  if (report === undefined) return {};
  return { onProgress: (stage: string, done: number, total: number): void => report({ stage: stage as Progress['stage'], done, total }) };
}
