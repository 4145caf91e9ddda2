/**
 * An exported policy behind the contract: it predicts every chunk from the newest observation and remembers nothing else. Owned by open.ts or by the
 * engine process. It imagines no pictures, denoises nothing and commits to no memory; what has no meaning for it is refused with a code.
 */
import { PremotorError } from '../../errors.js';
import type { NativeFrame } from '../../native.js';
import type {
  CacheState,
  Chunk,
  CommitOptions,
  CommitResult,
  DecodedVideo,
  EncoderState,
  Job,
  Policy,
  PolicyInfo,
  PredictNextOptions,
  PredictOptions,
  ResetOptions,
  ResetResult,
  RestoreOptions,
  Tensor,
  Timing,
  Trace,
  TraceTensor,
} from '../contract.js';
import { aborted, Gate } from '../gate.js';
import { toTensor } from '../tensor.js';
import * as check from '../validate.js';
import { fill, noState, tokensFor } from './feeds.js';
import type { CameraInput, OnnxJob } from './job.js';
import { type Feed, matchResult } from './match.js';
import { type Memory, memoryChecksum, packMemory, unpackMemory } from './memory.js';
import { type Actions, actionsOf } from './output.js';
import { fitted, type Picture } from './picture.js';
import type { OnnxSession, Value } from './runtime.js';

export interface OnnxPolicyParts {
  readonly session: OnnxSession;
  readonly mapping: OnnxJob;
  readonly feeds: readonly Feed[];
  readonly job: Job;
  readonly info: PolicyInfo;
  /** Actions that a run gives. */
  readonly horizon: number;
  /** The model's file, for errors. */
  readonly file: string;
}

interface Episode {
  readonly tokens: ReadonlyMap<string, readonly number[]>;
  readonly cleanedPrompt: string;
  /** Undefined until the first observation. */
  memory: Memory | undefined;
  committed: boolean;
}

interface Ran {
  readonly actions: Actions;
  readonly timing: Timing;
  readonly trace?: Trace;
}

const EMPTY: Memory = { frameIndex: 0, pictures: new Map() };

export class OnnxPolicy implements Policy {
  readonly job: Job;
  readonly info: PolicyInfo;
  readonly #parts: OnnxPolicyParts;
  readonly #cameras: check.Cameras;
  readonly #gate = new Gate();
  #generation = 0;
  #episode: Episode | undefined;

  constructor(parts: OnnxPolicyParts) {
    this.#parts = parts;
    this.job = parts.job;
    this.info = parts.info;
    this.#cameras = new check.Cameras(parts.job.obs_cam_keys);
  }

  /** There is none; the checksum tells whether two policies would predict from the same. */
  get cache(): CacheState {
    const memory = this.#episode?.memory ?? EMPTY;
    return { capacity: 0, valid: 0, committed: 0, predicted: 0, checksum: memoryChecksum(memory) };
  }

  reset(options: ResetOptions): Promise<ResetResult> {
    let episode: Episode | undefined;
    return this.#begin(
      'reset',
      options,
      () => void (episode = this.#newEpisode(options.prompt)),
      () => this.#enter(episode as Episode),
    );
  }

  restore(options: RestoreOptions): Promise<ResetResult> {
    let episode: Episode | undefined;
    const prepare = (): void => {
      const { encoder, checksum } = options;
      const data: unknown = encoder?.data;
      if (!(data instanceof Uint8Array)) throw wrongArgument('encoder.data', 'a Uint8Array', typeof data);
      const memory = unpackMemory(data, this.info.checkpointHash, this.#parts.feeds);
      const found = memoryChecksum(memory);
      if (checksum !== undefined && checksum !== found) throw restoredAnother(checksum, found);
      episode = { ...this.#newEpisode(options.prompt), memory, committed: true };
    };
    return this.#begin('restore', options, prepare, () => this.#enter(episode as Episode));
  }

  predict(options: PredictOptions = {}): Promise<Chunk> {
    return this.#call('predict', options, options?.signal, async (signal) => {
      const episode = this.#need('predict');
      refuseUnsupported(options);
      const given = Array.isArray(options.obs) && options.obs.length === 0 ? undefined : options.obs;
      if (episode.memory === undefined && given === undefined) throw observationRequired('predict');
      // As with every policy, pictures count until something was committed; later they come with the commits.
      const pictures = given !== undefined && !episode.committed ? this.#fit(check.checkObservation(given, this.#cameras, 'obs')) : undefined;
      const memory = pictures === undefined ? (episode.memory as Memory) : { frameIndex: 0, pictures };
      const ran = await this.#run(episode, memory, options, signal);
      episode.memory = memory;
      return this.#chunk(ran, memory.frameIndex, 0);
    });
  }

  commit(options: CommitOptions): Promise<CommitResult> {
    return this.#call('commit', options, undefined, async () => {
      const episode = this.#needObserved('commit');
      const frames = this.#commit(episode, options.obs, options.actions, 'actions');
      const { frameIndex } = episode.memory as Memory;
      return { frameIndex, generation: this.#generation, latents: this.#noLatents(frames), timing: timingOf(0, 0) };
    });
  }

  predictNext(options: PredictNextOptions): Promise<Chunk> {
    return this.#call('predictNext', options, options?.signal, async (signal) => {
      const episode = this.#needObserved('predictNext');
      refuseUnsupported(options);
      const commits = check.checkPair(options.obs, options.executed);
      if (!commits && !episode.committed) throw commitRequired('predictNext');
      const { frames: executing } = check.checkExecuting(options.executing, this.job);
      this.#needHorizon(executing);
      const frames = commits ? this.#commit(episode, options.obs, options.executed, 'executed') : 0;
      const memory = episode.memory as Memory;
      const ran = await this.#run(episode, memory, options, signal);
      const committed = commits ? { committed: { frameIndex: memory.frameIndex, latents: this.#noLatents(frames) } } : {};
      return { ...this.#chunk(ran, memory.frameIndex, executing), ...committed };
    });
  }

  encoderState(): Promise<EncoderState> {
    return this.#call('encoderState', {}, undefined, async () => {
      const { memory, committed } = this.#needObserved('encoderState');
      if (!committed) throw commitRequired('encoderState');
      return { data: packMemory(memory as Memory, this.info.checkpointHash) };
    });
  }

  occupy(): Promise<CacheState> {
    return this.#call('occupy', {}, undefined, async () => {
      this.#need('occupy');
      return this.cache;
    });
  }

  decode(): Promise<DecodedVideo> {
    return this.#call('decode', {}, undefined, async () => {
      throw unsupported('decode', 'a policy that imagines pictures', 'an exported one, which gives actions only', 'Show what the cameras see.');
    });
  }

  close(): Promise<void> {
    return this.#gate.close(async () => {
      this.#episode = undefined;
      await this.#parts.session.close();
    });
  }

  #call<T>(name: string, options: unknown, signal: unknown, body: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#gate.run(name, signal instanceof AbortSignal ? signal : undefined, async (inner) => {
      check.checkOptions(options, name);
      return body(inner);
    });
  }

  /** A call that begins an episode; `prepare` fails before the old one is touched. */
  #begin(name: string, options: ResetOptions, prepare: () => void, enter: () => ResetResult): Promise<ResetResult> {
    const signal: unknown = options?.signal;
    return this.#gate.begin(
      name,
      signal instanceof AbortSignal ? signal : undefined,
      async () => enter(),
      () => {
        check.checkOptions(options, name);
        check.checkPrompt(options.prompt);
        prepare();
      },
    );
  }

  #newEpisode(prompt: string): Episode {
    const cleanedPrompt = prompt.trim().replace(/\s+/g, ' ');
    return { tokens: tokensFor(cleanedPrompt, this.#parts.feeds), cleanedPrompt, memory: undefined, committed: false };
  }

  #enter(episode: Episode): ResetResult {
    this.#episode = episode;
    const tokens = [...episode.tokens.values()][0]?.length ?? 0;
    return { source: 'checkpoint', cleanedPrompt: episode.cleanedPrompt, tokens, generation: ++this.#generation, warnings: [] };
  }

  #need(method: string): Episode {
    if (this.#episode) return this.#episode;
    const message = `${method}: expected an episode, found none. Call reset({ prompt }) first.`;
    throw new PremotorError('NO_EPISODE', message, { expected: 'an episode', found: 'none' });
  }

  #needObserved(method: string): Episode {
    const episode = this.#need(method);
    if (episode.memory) return episode;
    throw observationRequired(method);
  }

  /** The chunk after the executing actions is the later part of what the model gives. */
  #needHorizon(executing: number): void {
    const { frame_chunk_size, action_per_frame } = this.job;
    const { horizon } = this.#parts;
    const needed = (executing + frame_chunk_size) * action_per_frame;
    if (needed <= horizon) return;
    const found = `${needed}, ${executing * action_per_frame} of them executing`;
    throw unsupported('predictNext', `a chunk within the ${horizon} actions that the model gives`, found, 'Use mode sync or ensemble.');
  }

  #fit(frames: readonly NativeFrame[]): Map<string, Picture> {
    const pictures = new Map<string, Picture>();
    for (const { name, input } of this.#parts.feeds) {
      if (input.from !== 'camera') continue;
      const frame = frames[this.job.obs_cam_keys.indexOf(input.camera)] as NativeFrame;
      const picture = fitted(frame, input);
      if (!picture) throw wrongSize(input, frame);
      pictures.set(name, picture);
    }
    return pictures;
  }

  /** Takes what was seen since the last commit: the newest moment is what the next prediction is made from. Gives the number of latent frames. */
  #commit(episode: Episode, obs: unknown, actions: unknown, field: string): number {
    const { moments, frames, reason } = check.checkMoments(obs, this.#cameras, this.job, !episode.committed);
    check.checkActions(actions, this.job, frames, field, reason);
    const before = episode.memory as Memory;
    const newest = moments.at(-1);
    episode.memory = { frameIndex: before.frameIndex + frames, pictures: newest ? this.#fit(newest) : before.pictures };
    episode.committed = true;
    return frames;
  }

  async #run({ tokens }: Episode, { pictures }: Memory, options: PredictOptions | PredictNextOptions, signal: AbortSignal): Promise<Ran> {
    const { session, feeds, mapping, file } = this.#parts;
    const pose = this.#pose(options.state);
    const begun = performance.now();
    const values = fill(feeds, { pictures, pose, tokens });
    const filled = performance.now();
    if (signal.aborted) throw aborted('predict', signal.reason);
    const result = await session.run(values, mapping.output.name);
    if (signal.aborted) throw aborted('predict', signal.reason);
    const sizes = matchResult(mapping, result.shape, file);
    const raw = result.data as Float32Array | Float64Array;
    const actions = actionsOf(raw, sizes, mapping.output, pose);
    const timing = timingOf(filled - begun, performance.now() - filled);
    return { actions, timing, ...(options.trace === true ? { trace: traceOf(values, mapping.output.name, raw, result.shape) } : {}) };
  }

  /** The measured joints, where the model or its output's meaning needs them. Errors: ONNX_STATE. */
  #pose(state: unknown): Float64Array | undefined {
    if (this.info.usesState !== true) return undefined;
    const joints = this.#parts.mapping.output.channels.length;
    const expected = `a Float64Array of ${joints} finite angles`;
    if (!(state instanceof Float64Array) || state.length !== joints)
      throw noState('state', expected, state instanceof Float64Array ? `${state.length}` : state === undefined ? 'nothing' : typeof state);
    const bad = state.findIndex((angle) => !Number.isFinite(angle));
    if (bad >= 0) throw noState(`state[${bad}]`, expected, `${state[bad]}`);
    return state;
  }

  /**
   * The chunk that begins `skipped` latent frames from now. An episode's first latent frame is the observation itself, so in its first chunk group 0
   * is padding and the model's first action comes after it.
   */
  #chunk({ actions, timing, trace }: Ran, committedFrames: number, skipped: number): Chunk {
    const { frame_chunk_size: frames, action_per_frame: perFrame } = this.job;
    const { joints, values } = actions;
    const count = frames * perFrame;
    const padding = committedFrames === 0 && skipped === 0 ? perFrame : 0;
    const chunk = new Float32Array(joints * count);
    for (let joint = 0; joint < joints; joint++) {
      for (let action = 0; action < count; action++) {
        const source = Math.max(0, skipped * perFrame + action - padding);
        chunk[joint * count + action] = values[source * joints + joint] ?? Number.NaN;
      }
    }
    return {
      actions: chunk,
      shape: [joints, frames, perFrame],
      latents: this.#noLatents(frames),
      timing,
      frameIndex: committedFrames + skipped,
      generation: this.#generation,
      ...(trace === undefined ? {} : { trace }),
    };
  }

  #noLatents(frames: number): Tensor {
    return toTensor(new Float32Array(0), [1, 0, frames, 0, 0]);
  }
}

const timingOf = (encodeMs: number, actionMs: number): Timing => ({
  encodeMs,
  videoMs: 0,
  actionMs,
  commitMs: 0,
  imagineMs: 0,
  totalMs: encodeMs + actionMs,
  videoPasses: 0,
  actionPasses: actionMs === 0 ? 0 : 1,
});

function traceOf(values: ReadonlyMap<string, Value>, output: string, raw: Float32Array | Float64Array, shape: readonly number[]): Trace {
  const tensor = (data: Value['data'], axes: readonly number[]): TraceTensor => {
    if (data instanceof Uint8Array) return { dtype: 'uint8', shape: axes, data };
    if (data instanceof BigInt64Array) return { dtype: 'int32', shape: axes, data: Int32Array.from(data, Number) };
    if (data instanceof Int32Array) return { dtype: 'int32', shape: axes, data };
    return { dtype: 'float32', shape: axes, data: Float32Array.from(data) };
  };
  const inputs = [...values].map(([name, value]) => [`input.${name}`, tensor(value.data, value.shape)] as const);
  return new Map([...inputs, [`output.${output}`, tensor(raw, shape)]]);
}

/** What only a policy that denoises can do. */
function refuseUnsupported({ inpaint, noise }: Pick<PredictOptions, 'inpaint' | 'noise'>): void {
  const given = inpaint !== undefined ? 'inpaint' : noise !== undefined ? 'noise' : undefined;
  if (given === undefined) return;
  throw unsupported(given, 'a policy that denoises its actions', 'an exported one, which gives them in one pass', 'Leave it out; mode rtc needs it.');
}

function unsupported(field: string, expected: string, found: string, remedy: string): PremotorError {
  return new PremotorError('ONNX_UNSUPPORTED', `${field}: expected ${expected}, found ${found}. ${remedy}`, { field, expected, found });
}

function wrongSize({ camera, width, height }: CameraInput, frame: Picture): PremotorError {
  const [expected, found] = [`${width} x ${height} pixels`, `${frame.width} x ${frame.height}`];
  const message = `Camera ${camera}: expected ${expected}, found ${found}. Set resize of this input in job.json to "area" or "bilinear".`;
  return new PremotorError('FRAME_INVALID', message, { field: camera, expected, found });
}

function wrongArgument(field: string, expected: string, found: string): PremotorError {
  return new PremotorError('ARGUMENT_INVALID', `${field}: expected ${expected}, found ${found}. Pass what encoderState() gave.`, {
    field,
    expected,
    found,
  });
}

function restoredAnother(expected: string, found: string): PremotorError {
  const message = `The restored episode is another one: expected checksum ${expected}, found ${found}. Begin the episode anew.`;
  return new PremotorError('RESTORE_MISMATCH', message, { field: 'checksum', expected, found });
}

function observationRequired(method: string): PremotorError {
  const remedy = method === 'predict' ? 'Pass obs: one frame per camera.' : 'Call predict({ obs }) first.';
  const message = `${method}: expected the first observation of the episode, found none. ${remedy}`;
  return new PremotorError('OBS_REQUIRED', message, { field: 'obs', expected: 'one frame per camera', found: 'none' });
}

function commitRequired(method: string): PremotorError {
  const expected = "the episode's first commit";
  const message = `${method}: expected ${expected}, found none. Commit what was seen and executed since the first prediction.`;
  return new PremotorError('OBS_REQUIRED', message, { field: 'obs', expected, found: 'none' });
}
