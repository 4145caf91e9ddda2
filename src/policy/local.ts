/**
 * The policy in this process: checks arguments, keeps the episode's state (open, episode, closed) and drives one native engine. Owned by loadPolicy
 * or by the engine process; it computes nothing itself and never blocks the event loop.
 */
import { PremotorError } from '../errors.js';
import { callNative, type NativeChunk, type NativeCommit, type NativeEmbedding, type NativeEngine, type NativeTensor } from '../native.js';
import type { PromptEmbedding } from '../text/embeddings.js';
import { TEXT_TOKENS_MAX } from '../text/tokenizer.js';
import type {
  CacheState,
  Chunk,
  CommitOptions,
  CommitResult,
  DecodedVideo,
  DecodeOptions,
  EncoderState,
  Job,
  Policy,
  PolicyInfo,
  PredictNextOptions,
  PredictOptions,
  Progress,
  ResetOptions,
  ResetResult,
  RestoreOptions,
  ShapedArray,
  Tensor,
  Trace,
} from './contract.js';
import { aborted, Gate } from './gate.js';
import { pairName } from './precision.js';
import { toTensor, toVideo } from './tensor.js';
import * as check from './validate.js';

const FIRST_COMMIT = "Pass obs: [] and, as executed, the padding group of the first chunk: they commit the episode's first frame.";

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
  /** Resets so far: which episode a result belongs to. One that failed in the engine counts, because it ended an episode. */
  #generation = 0;
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

  /** What an encoder state belongs to. */
  get #tag(): string {
    return `${this.info.checkpointHash} ${pairName(this.info)} ${this.job.param_dtype}`;
  }

  /** The cache as the last finished call left it. */
  get cache(): CacheState {
    return this.#cache;
  }

  reset(options: ResetOptions): Promise<ResetResult> {
    const body = async (signal: AbortSignal): Promise<ResetResult> => {
      const [positive, negative] = await this.#prompts(options.prompt, signal);
      this.#episode = undefined;
      const generation = ++this.#generation;
      await this.#compute('reset', signal, () => this.#engine.reset(rowsOf(positive), negative === null ? null : rowsOf(negative)));
      this.#episode = { observed: false, committed: false, text: [positive, negative] };
      const trace = options.trace === true ? this.#textTrace(positive, negative) : undefined;
      return { ...resetResult(positive, generation), ...(trace === undefined ? {} : { trace }) };
    };
    return this.#begin('reset', options, body);
  }

  predict(options: PredictOptions = {}): Promise<Chunk> {
    return this.#call('predict', options, options?.signal, async (signal) => {
      const episode = this.#need('predict');
      const frames = this.#firstObservation(options, episode);
      const sampling = this.#sampling(options, this.#noiseSizes);
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
      return { ...this.#committed(result), generation: this.#generation, timing: result.timing, ...traceOf(result.trace) };
    });
  }

  predictNext(options: PredictNextOptions): Promise<Chunk> {
    return this.#call('predictNext', options, options?.signal, async (signal) => {
      const episode = this.#needObserved('predictNext');
      const commits = check.checkPair(options.obs, options.executed);
      if (!commits && !episode.committed) throw commitRequired('predictNext', FIRST_COMMIT);
      const call = { ...this.#grounding(options), ...(commits ? this.#seen(options, episode) : {}) };
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

  encoderState(): Promise<EncoderState> {
    return this.#call('encoderState', {}, undefined, async (signal) => {
      const episode = this.#needObserved('encoderState');
      if (!episode.committed) throw commitRequired('encoderState', 'Commit first: what the encoder saw before belongs to the prediction.');
      return { data: await this.#compute('encoderState', signal, () => this.#engine.encoderState(this.#tag)) };
    });
  }

  restore(options: RestoreOptions): Promise<ResetResult> {
    let past: check.Past | undefined;
    const body = async (signal: AbortSignal): Promise<ResetResult> => {
      const [positive, negative] = await this.#prompts(options.prompt, signal);
      this.#episode = undefined;
      const generation = ++this.#generation;
      const rows = { positive: rowsOf(positive), negative: negative === null ? null : rowsOf(negative) };
      const call = { ...(past as check.Past), ...rows, tag: this.#tag, ...progressOf(options) };
      await this.#compute('restore', signal, () => this.#engine.restore(call));
      const { checksum } = this.#cache;
      if (options.checksum !== undefined && options.checksum !== checksum) throw restoreMismatch(options.checksum, checksum);
      this.#episode = { observed: true, committed: true, text: [positive, negative] };
      return resetResult(positive, generation);
    };
    return this.#begin('restore', options, body, () => {
      this.#needServer('restore');
      past = check.checkPast(options, this.job, this.info.latentShape);
    });
  }

  /** For measuring: nothing that follows in this episode means anything. */
  occupy(): Promise<CacheState> {
    return this.#call('occupy', {}, undefined, async (signal) => {
      const episode = this.#need('occupy');
      await this.#committing(episode, () => this.#compute('occupy', signal, () => this.#engine.occupy()));
      episode.observed = true;
      return this.#cache;
    });
  }

  #call<T>(name: string, options: unknown, signal: unknown, body: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const caller = signal instanceof AbortSignal ? signal : undefined;
    return this.#gate.run(name, caller, async (inner) => {
      check.checkOptions(options, name);
      return body(inner);
    });
  }

  /** A call that begins an episode: what runs for the old one is stopped, once the arguments are known to be good. */
  #begin<T>(
    name: string,
    options: { readonly prompt: string; readonly signal?: AbortSignal },
    body: (signal: AbortSignal) => Promise<T>,
    more: () => void = () => undefined,
  ): Promise<T> {
    const signal: unknown = options?.signal;
    return this.#gate.begin(name, signal instanceof AbortSignal ? signal : undefined, body, () => {
      check.checkOptions(options, name);
      check.checkPrompt(options.prompt);
      more();
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

  /** The prompt's embedding and, for a guided job, the negative one, which is computed once. */
  async #prompts(prompt: string, signal: AbortSignal): Promise<[PromptEmbedding, PromptEmbedding | null]> {
    const positive = await this.#embed(prompt, signal);
    if (this.job.guidance_scale > 1) this.#negative ??= await this.#embed('', signal);
    return [positive, this.#negative ?? null];
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

  #needServer(method: string): void {
    if (this.job.infer_mode === 'server') return;
    const message = `${method}: expected infer_mode "server", found "i2va", where predictions are the history. Call predict, or change the job.`;
    throw new PremotorError('MODE_UNSUPPORTED', message, { field: 'infer_mode', expected: 'server', found: 'i2va' });
  }

  #needObserved(method: string): Episode {
    this.#needServer(method);
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

  /** What predictNext commits. */
  #seen(options: PredictNextOptions, episode: Episode) {
    const { moments, frames, reason } = check.checkMoments(options.obs, this.#cameras, this.job, !episode.committed);
    return { moments, executed: check.checkActions(options.executed, this.job, frames, 'executed', reason) };
  }

  /** What predictNext appends on the marked cache, and how it samples. */
  #grounding(options: PredictNextOptions) {
    const { actions: executing, frames } = check.checkExecuting(options.executing, this.job);
    const [channels, , height, width] = this.info.latentShape;
    const forecast = check.checkForecast(options.forecast, this.info.latentShape, frames);
    const imagineSteps = check.checkSteps(options.imagineSteps, 'imagineSteps');
    return {
      ...this.#sampling(options, { ...this.#noiseSizes, imagined: [1, channels, frames, height, width] }),
      executing,
      ...(forecast === undefined ? {} : { forecast }),
      ...(imagineSteps === undefined ? {} : { imagineSteps }),
    };
  }

  #sampling(options: Omit<PredictOptions, 'obs'>, sizes: check.NoiseSizes) {
    const noise = check.checkNoise(options.noise, sizes);
    const video = check.checkVideoSteps(options.videoSteps, options.videoExecStep, this.job);
    const actionSteps = check.checkSteps(options.actionSteps, 'actionSteps');
    const inpaint = check.checkInpaint(options.inpaint, this.job);
    return {
      seed: check.checkSeed(options.seed),
      trace: options.trace === true,
      ...(noise.video === undefined ? {} : { noiseVideo: noise.video }),
      ...(noise.action === undefined ? {} : { noiseAction: noise.action }),
      ...(noise.imagined === undefined ? {} : { noiseImagined: noise.imagined }),
      ...video,
      ...(check.checkGuidance(options.guidance) ? {} : { guidance: false }),
      ...(inpaint === undefined ? {} : { inpaint }),
      ...(actionSteps === undefined ? {} : { actionSteps }),
      ...progressOf(options),
    };
  }

  #committed({ frameIndex, frames, latents }: NativeCommit): { frameIndex: number; latents: Tensor } {
    return { frameIndex, latents: this.#frames(latents, frames) };
  }

  /** Latents of so many frames, as a tensor. */
  #frames(latents: Float32Array, frames: number): Tensor {
    const [channels, , height, width] = this.info.latentShape;
    return toTensor(latents, [1, channels, frames, height, width]);
  }

  #chunk(chunk: NativeChunk, text: Trace = new Map()): Chunk {
    const { trace } = traceOf(chunk.trace);
    const { committed, imagined } = chunk;
    const [channels, , height, width] = this.info.latentShape;
    return {
      actions: chunk.actions,
      shape: this.info.actionShape,
      latents: toTensor(chunk.latents, [1, ...this.info.latentShape]),
      timing: chunk.timing,
      frameIndex: chunk.frameIndex,
      generation: this.#generation,
      ...(imagined === undefined ? {} : { imagined: this.#frames(imagined, imagined.length / (channels * height * width)) }),
      ...(committed === undefined ? {} : { committed: this.#committed(committed) }),
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

function commitRequired(method: string, remedy: string): PremotorError {
  const expected = "the episode's first commit";
  const message = `${method}: expected ${expected}, found none. ${remedy}`;
  return new PremotorError('OBS_REQUIRED', message, { field: 'obs', expected, found: 'none' });
}

function restoreMismatch(expected: string, found: string): PremotorError {
  const message =
    `restore: expected a cache with checksum ${expected}, found ${found}. ` +
    'Pass all commits of the episode, whose predictions came from predictNext, or leave checksum out; then call reset or restore.';
  return new PremotorError('RESTORE_MISMATCH', message, { field: 'checksum', expected, found });
}

function resetResult({ source, cleaned: cleanedPrompt, count: tokens, warnings }: PromptEmbedding, generation: number): ResetResult {
  return { source, cleanedPrompt, tokens, generation, warnings };
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
