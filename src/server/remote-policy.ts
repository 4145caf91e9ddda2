/**
 * The policy behind a websocket: the policy contract, spoken to a policy server, so that the control cycle and its safety are the same wherever the
 * actions are computed. Owned by whoever runs the episode. Every call is checked as a local policy checks it, every answer before anything is
 * executed. What the protocol has no request for is refused by name.
 */
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { isLoopback } from '../local-access.js';
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
  PolicyInfo,
  PredictOptions,
  Progress,
  ResetOptions,
  ResetResult,
  Tensor,
  Timing,
} from '../policy/contract.js';
import { Gate } from '../policy/gate.js';
import { latentSizeOf } from '../policy/job.js';
import { countOf, toTensor } from '../policy/tensor.js';
import * as check from '../policy/validate.js';
import { KV_CACHES, PRECISIONS } from '../precision-names.js';
import type { Encodable, WireMap, WireValue } from './msgpack.js';
import { arrayOf, floatsOf, NdArray } from './ndarray.js';
import { type AskOptions, badReply, type LinkOptions, RemoteLink } from './remote-link.js';

const size = z
  .int()
  .min(0)
  .max(1 << 24);

/** What another premotor says of itself when a client connects. */
const metadataSchema = z.object({
  server: z.literal('premotor'),
  version: z.string(),
  cameras: z.array(z.string()),
  action_shape: z.tuple([size, size, size]),
  latent_shape: z.tuple([size, size, size, size]),
  checkpoint: z.string(),
  untrained: z.boolean(),
  precision: z.enum(PRECISIONS),
  kv_cache: z.enum(KV_CACHES),
  backend: z.string(),
  threads: size,
  parameters: z.number(),
});
type Metadata = z.output<typeof metadataSchema>;

const cacheSchema = z.object({ capacity: z.int(), valid: z.int(), committed: z.int(), predicted: z.int(), checksum: z.string() });
const timingNames = ['encodeMs', 'videoMs', 'actionMs', 'commitMs', 'imagineMs', 'totalMs', 'videoPasses', 'actionPasses'] as const;
const milliseconds = z.number().min(0);
const timingSchema = z.object(Object.fromEntries(timingNames.map((name) => [name, milliseconds])) as Record<keyof Timing, typeof milliseconds>);
const resetSchema = z.object({
  source: z.enum(['encoder', 'cache', 'checkpoint']),
  cleaned_prompt: z.string(),
  tokens: z.int().min(0),
  warnings: z.array(z.string()),
});

const NO_CACHE: CacheState = { capacity: 0, valid: 0, committed: 0, predicted: 0, checksum: '' };

export interface RemoteOptions extends LinkOptions {
  readonly job: Job;
  /** Found while the job was read. */
  readonly warnings: readonly string[];
  /** For one answer. */
  readonly reply_timeout_ms: number;
}

/** What is known of the episode on the server. */
interface Episode {
  /** The first pictures, which are sent again until something is committed. */
  first: Readonly<Record<string, Encodable>> | undefined;
  frameIndex: number;
  isCommitted: boolean;
}

export class RemotePolicy implements Policy {
  readonly job: Job;
  readonly info: PolicyInfo;
  readonly #options: RemoteOptions;
  readonly #isPremotor: boolean;
  readonly #cameras: check.Cameras;
  readonly #gate = new Gate();
  #link: RemoteLink;
  #cache = NO_CACHE;
  #generation = 0;
  #episode: Episode | undefined;

  private constructor(options: RemoteOptions, link: RemoteLink, metadata: Metadata | undefined) {
    this.#options = options;
    this.#link = link;
    this.#isPremotor = metadata !== undefined;
    this.job = options.job;
    this.#cameras = new check.Cameras(options.job.obs_cam_keys);
    this.info = infoOf(options, metadata);
  }

  /** Errors: REMOTE_UNREACHABLE, REMOTE_REFUSED, REMOTE_LOST, REMOTE_TIMEOUT, REMOTE_REPLY, REMOTE_MISMATCH. */
  static async open(options: RemoteOptions): Promise<RemotePolicy> {
    const { link, metadata } = await connect(options);
    return new RemotePolicy(options, link, metadata);
  }

  /** Whether the server is another premotor, which takes seeds and steps and tells more. */
  get isPremotor(): boolean {
    return this.#isPremotor;
  }

  get cache(): CacheState {
    return this.#cache;
  }

  reset(options: ResetOptions): Promise<ResetResult> {
    const begin = async (signal: AbortSignal): Promise<ResetResult> => {
      this.#episode = undefined;
      this.#generation++;
      const { prompt } = options;
      if (this.#link.lost) this.#link = (await connect(this.#options)).link;
      const told = await this.#ask({ reset: true, prompt }, signal, undefined, (answer) => {
        const more = this.#moreOf(answer);
        return more && parsed(resetSchema, more, 'reset');
      });
      this.#episode = { first: undefined, frameIndex: 0, isCommitted: false };
      const { source = 'encoder', cleaned_prompt: cleanedPrompt = prompt, tokens = 0, warnings = [] } = told ?? {};
      return { source, cleanedPrompt, tokens, warnings, generation: this.#generation };
    };
    return this.#gate.begin('reset', options?.signal, begin, () => {
      check.checkOptions(options, 'reset');
      check.checkPrompt(options.prompt);
      if (options.trace === true) throw unsupported('trace', 'Trace with the engine on this machine.');
    });
  }

  predict(options: PredictOptions = {}): Promise<Chunk> {
    return this.#gate.run('predict', options?.signal, async (signal) => {
      check.checkOptions(options, 'predict');
      const episode = this.#need('predict');
      const sampling = this.#sampling(options);
      const isGiven = options.obs !== undefined && options.obs.length > 0;
      if (isGiven && !episode.isCommitted) {
        check.checkObservation(options.obs, this.#cameras, 'obs');
        episode.first = pictures(options.obs, this.#cameras);
      }
      if (episode.first === undefined) {
        const message = 'predict: expected the first observation of the episode, found none. Pass obs: one frame per camera.';
        throw new PremotorError('OBS_REQUIRED', message, { field: 'obs', expected: 'one frame per camera', found: 'none' });
      }
      // Other servers may look at the pictures although they do not use them.
      const obs = episode.isCommitted && this.#isPremotor ? {} : episode.first;
      const begunMs = performance.now();
      const { frameIndex } = episode;
      return this.#ask({ obs, ...sampling }, signal, options.onProgress, (answer) => {
        const more = this.#moreOf(answer);
        const { actionShape: shape } = this.info;
        const actions = floatsAt(answer.get('action'), shape, 'action');
        const about = { shape, latents: this.#latents(more, shape[1]), frameIndex, generation: this.#generation };
        return { actions, ...about, timing: timingOf(more, answer, performance.now() - begunMs) };
      });
    });
  }

  commit(options: CommitOptions): Promise<CommitResult> {
    return this.#gate.run('commit', undefined, async (signal) => {
      check.checkOptions(options, 'commit');
      const episode = this.#need('commit');
      if (episode.first === undefined) {
        const message = 'commit: expected the first observation of the episode, found none. Call predict({ obs }) first.';
        throw new PremotorError('OBS_REQUIRED', message, { field: 'obs', expected: 'one frame per camera', found: 'none' });
      }
      const { frames, reason } = check.checkMoments(options.obs, this.#cameras, this.job, !episode.isCommitted);
      const actions = check.checkActions(options.actions, this.job, frames, 'actions', reason);
      const state = arrayOf(actions, [this.job.used_action_channel_ids.length, frames, this.job.action_per_frame]);
      const obs = options.obs.map((moment) => pictures(moment, this.#cameras));
      const begunMs = performance.now();
      const request = { obs, compute_kv_cache: true, imagine: false, state };
      const done = await this.#ask(request, signal, options.onProgress, (answer) => {
        const more = this.#moreOf(answer);
        return { latents: this.#latents(more, frames), timing: timingOf(more, answer, performance.now() - begunMs) };
      });
      episode.isCommitted = true;
      episode.frameIndex += frames;
      return { ...done, frameIndex: episode.frameIndex, generation: this.#generation };
    });
  }

  predictNext(): Promise<Chunk> {
    return this.#refuse('predictNext', 'Use control.mode sync, or the engine on this machine.');
  }

  encoderState(): Promise<EncoderState> {
    return this.#refuse('encoderState', 'Episodes of a policy server cannot be resumed.');
  }

  restore(): Promise<ResetResult> {
    return this.#refuse('restore', 'Episodes of a policy server cannot be resumed.');
  }

  occupy(): Promise<CacheState> {
    return this.#refuse('occupy', 'Measure on the machine of the server.');
  }

  decode(): Promise<DecodedVideo> {
    return this.#refuse('decode', 'Decode with the engine on this machine.');
  }

  close(): Promise<void> {
    return this.#gate.close(async () => this.#link.close());
  }

  #refuse(method: string, remedy: string): Promise<never> {
    return this.#gate.run(method, undefined, async () => {
      throw unsupported(method, remedy);
    });
  }

  #need(method: string): Episode {
    if (this.#episode) return this.#episode;
    const message = `${method}: expected an episode, found none. Call reset({ prompt }) first.`;
    throw new PremotorError('NO_EPISODE', message, { expected: 'an episode', found: 'none' });
  }

  /** Asks, and reads the answer. After any error the episode is over: it was the connection's, and a server that answers nonsense is left. */
  async #ask<T>(
    request: { readonly [key: string]: Encodable },
    signal: AbortSignal,
    report: ((progress: Progress) => void) | undefined,
    read: (answer: WireMap) => T,
  ): Promise<T> {
    const onLife: AskOptions['onLife'] = report && (() => report({ stage: 'remote', done: 0, total: 1 }));
    const own = this.#isPremotor ? { premotor: true } : {};
    const life = this.#isPremotor ? 'pong' : 'open';
    try {
      return read(await this.#link.ask({ ...request, ...own }, { signal, timeout_ms: this.#options.reply_timeout_ms, life, onLife }));
    } catch (error) {
      this.#episode = undefined;
      this.#link.close();
      throw error;
    }
  }

  /** How the prediction is asked for. Errors: REMOTE_UNSUPPORTED, those of the checks. */
  #sampling({ seed, noise, videoSteps, actionSteps, videoExecStep, guidance, inpaint, trace }: PredictOptions): Record<string, Encodable> {
    const steps = {
      videoSteps: check.checkVideoSteps(videoSteps, undefined, this.job).videoSteps,
      actionSteps: check.checkSteps(actionSteps, 'actionSteps'),
    };
    const given = {
      noise,
      videoExecStep,
      guidance: check.checkGuidance(guidance) ? undefined : false,
      inpaint,
      trace: trace === true ? trace : undefined,
    };
    const foreign = this.#isPremotor ? {} : steps;
    for (const [name, value] of Object.entries({ ...given, ...foreign }))
      if (value !== undefined) throw unsupported(name, `Leave ${name} out, or use the engine on this machine.`);
    const checked = check.checkSeed(seed);
    if (!this.#isPremotor) return {};
    return {
      seed: checked <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(checked) : fail('a seed below 2^53', `${checked}`),
      ...(steps.videoSteps === undefined ? {} : { video_steps: steps.videoSteps }),
      ...(steps.actionSteps === undefined ? {} : { action_steps: steps.actionSteps }),
    };
  }

  /** What another premotor tells beside the answer; the cache is noted. Errors: REMOTE_REPLY. */
  #moreOf(answer: WireMap): WireMap | undefined {
    if (!this.#isPremotor) return undefined;
    const more = answer.get('premotor');
    if (!(more instanceof Map)) throw badReply('a field premotor', 'none');
    this.#cache = parsed(cacheSchema, more.get('cache'), 'cache');
    return more;
  }

  #latents(more: WireMap | undefined, frames: number): Tensor {
    const [channels, , height, width] = this.info.latentShape;
    const shape = [1, channels, frames, height, width];
    if (more === undefined) return toTensor(new Float32Array(countOf(shape)), shape);
    const latents = more.get('latents');
    return toTensor(floatsAt(latents, shape, 'latents'), shape);
  }
}

/** Finite floats of a shape: nothing else becomes a motion. Errors: REMOTE_REPLY. */
function floatsAt(value: WireValue | undefined, shape: readonly number[], name: string): Float32Array {
  const expected = `${name}: floats [${shape.join(', ')}]`;
  if (!(value instanceof NdArray)) throw badReply(expected, value === undefined ? 'nothing' : typeof value);
  const isShape = value.shape.length === shape.length && shape.every((length, axis) => value.shape[axis] === length);
  const floats = isShape ? floatsOf(value) : undefined;
  if (floats === undefined) throw badReply(expected, value.toString());
  const bad = floats.findIndex((one) => !Number.isFinite(one));
  if (bad >= 0) throw badReply(`${name}: finite numbers`, `${floats[bad]} at ${bad}`);
  return floats;
}

async function connect(options: RemoteOptions): Promise<{ link: RemoteLink; metadata: Metadata | undefined }> {
  const { link, metadata } = await RemoteLink.open(options);
  try {
    if (metadata.get('server') !== 'premotor') return { link, metadata: undefined };
    const known = parsed(metadataSchema, metadata, 'metadata');
    fits(options.job, known);
    return { link, metadata: known };
  } catch (error) {
    link.close();
    throw error;
  }
}

/** Errors: REMOTE_MISMATCH. */
function fits(job: Job, { cameras, action_shape }: Metadata): void {
  const shape = [job.used_action_channel_ids.length, job.frame_chunk_size, job.action_per_frame];
  const differs = (name: string, ours: string, theirs: string): void => {
    if (ours === theirs) return;
    const message = `The policy server does not fit the job: expected ${name} ${ours}, found ${theirs}. Give both the same job.`;
    throw new PremotorError('REMOTE_MISMATCH', message, { field: `job.${name}`, expected: ours, found: theirs });
  };
  differs('obs_cam_keys', job.obs_cam_keys.join(', '), cameras.join(', '));
  differs('used_action_channel_ids x frame_chunk_size x action_per_frame', shape.join(' x '), action_shape.join(' x '));
}

function infoOf({ url, job, warnings, token }: RemoteOptions, metadata: Metadata | undefined): PolicyInfo {
  const { frame_chunk_size: K, action_per_frame: H, used_action_channel_ids: used } = job;
  const { protocol, hostname } = new URL(url);
  const plain = protocol === 'ws:' && token !== undefined && !isLoopback(hostname);
  const told = [
    ...warnings,
    ...(metadata === undefined ? ['the policy server is no premotor: it draws its own noise, so episodes with equal seeds differ'] : []),
    ...(metadata?.untrained === true ? ["the policy server's checkpoint is untrained: its weights are random numbers"] : []),
    ...(plain ? [`the token is sent unencrypted to ${hostname}: use wss://`] : []),
  ];
  return {
    checkpointHash: metadata?.checkpoint ?? '',
    device: 'cpu',
    backend: metadata === undefined ? `server ${url}` : `server ${url}: ${metadata.backend}`,
    precision: metadata?.precision ?? 'f32',
    kvCache: metadata?.kv_cache ?? 'f32',
    threads: metadata?.threads ?? 0,
    weightBytes: 0,
    cacheBytes: 0,
    unusedTensors: [],
    // Nothing is known of another server's latents: they have no channels here.
    latentShape: metadata?.latent_shape ?? [0, K, ...latentSizeOf(job)],
    actionShape: [used.length, K, H],
    parameters: metadata?.parameters ?? 0,
    // The protocol has no request for a chunk that follows an executing one.
    modes: ['sync'],
    warnings: told,
  };
}

/** Frames under their full keys, as the protocol wants them; not a copy. */
function pictures(frames: readonly Frame[] | undefined, cameras: check.Cameras): Record<string, Encodable> {
  const entries = (frames ?? []).map(({ camera, width, height, data }, index): [string, Encodable] => [
    cameras.keys[cameras.indexOf(camera, `obs[${index}]`)] as string,
    new NdArray('|u1', [height, width, 3], data),
  ]);
  return Object.fromEntries(entries);
}

function timingOf(more: WireMap | undefined, answer: WireMap, roundTripMs: number): Timing {
  if (more !== undefined) return parsed(timingSchema, more.get('timing'), 'timing');
  const told = answer.get('server_timing');
  const inferMs = told instanceof Map ? told.get('infer_ms') : undefined;
  const totalMs = typeof inferMs === 'number' && inferMs >= 0 ? inferMs : roundTripMs;
  return { encodeMs: 0, videoMs: 0, actionMs: 0, commitMs: 0, imagineMs: 0, totalMs, videoPasses: 0, actionPasses: 0 };
}

/** A part of an answer, read once. Errors: REMOTE_REPLY. */
function parsed<T>(schema: z.ZodType<T>, value: WireValue | undefined, name: string): T {
  const result = schema.safeParse(value instanceof Map ? Object.fromEntries(value) : value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw badReply(
    `${name} of this version of premotor`,
    `${[name, ...(issue?.path ?? [])].map(String).join('.')}: ${issue?.message ?? 'something else'}`,
  );
}

function unsupported(what: string, remedy: string): PremotorError {
  const [expected, found] = ['reset, predict or commit with what the protocol can say', what];
  const message = `A policy server cannot do this: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('REMOTE_UNSUPPORTED', message, { field: what, expected, found });
}

function fail(expected: string, found: string): never {
  throw new PremotorError('ARGUMENT_INVALID', `seed: expected ${expected}, found ${found}. A policy server takes smaller seeds only.`, {
    field: 'seed',
    expected,
    found,
  });
}
