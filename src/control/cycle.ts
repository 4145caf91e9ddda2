/**
 * The synchronous control cycle: observe, predict a chunk, execute it knot by knot, commit what was executed and seen, again. It owns the order of
 * these steps and the robot's safety in them: whatever ends an episode, the arm is brought to rest and held. It computes no actions and reaches
 * policy, robot and cameras only through their interfaces, so simulation and hardware run the same code.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type FrameSource, observe } from '../cameras/source.js';
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { Chunk, Policy, PredictOptions } from '../policy/contract.js';
import type { Robot } from '../robot/robot.js';
import { type ChunkReport, type CycleListener, type CycleReport, Listeners, type Observation, type Outcome } from './events.js';
import { type LimitedChunk, limitChunk } from './limits.js';
import { KnotPath, StopRamp } from './path.js';

/** Pictures per latent frame: the temporal factor of the released VAE. */
const MOMENTS_PER_LATENT = 4;
const ACTION_RATE_HZ = 50;
const RATE_HZ_MIN = 1;

export interface CycleOptions {
  readonly policy: Policy;
  readonly robot: Robot;
  readonly cameras: FrameSource;
  /** Actions per second. Default: 50. */
  readonly actionRateHz?: number;
  /** A frame older than this when it is observed ends the episode. Default: 100. */
  readonly frameAgeMaxMs?: number;
  /** Denoising steps of every prediction. Default: the job's. */
  readonly videoSteps?: number;
  readonly actionSteps?: number;
  /**
   * What the policy remembers. 'chunk' is an ablation: before every chunk the policy is reset with the prompt, the present picture is the first frame
   * of a new episode, and nothing is committed. Such a chunk executes (K - 1) x H actions, as a first chunk does. Default: 'episode'.
   */
  readonly memory?: 'episode' | 'chunk';
  /** How long the last setpoint is held at the end of an episode, on the robot's clock. Default: 200. */
  readonly holdMs?: number;
}

export interface EpisodeOptions {
  readonly prompt: string;
  /** The episode ends after so many chunks. */
  readonly chunks: number;
  /** Seed of the policy's noise. Default: 0. */
  readonly seed?: number;
  /** Asked after every commit; true ends the episode as 'reached'. */
  readonly until?: () => boolean;
}

/** What changes while an episode runs. */
interface Episode {
  readonly options: EpisodeOptions;
  readonly stop: AbortController;
  readonly reports: ChunkReport[];
  knots: number;
  clampedKnots: number;
  /** The motion under way and where in it the last setpoint that the robot took was; undefined at rest. */
  motion: { readonly path: KnotPath; segment: number; fraction: number } | undefined;
  startNs: bigint | undefined;
}

/** Thrown inside the cycle to leave it when a stop was requested. */
class StopRequested extends Error {}

export class ControlCycle {
  readonly #policy: Policy;
  readonly #robot: Robot;
  readonly #cameras: FrameSource;
  readonly #listeners = new Listeners();
  readonly #knotNs: bigint;
  readonly #ticksPerKnot: number;
  readonly #knotsPerMoment: number;
  readonly #frameAgeMaxNs: bigint;
  readonly #steps: Pick<PredictOptions, 'videoSteps' | 'actionSteps'>;
  readonly #forgets: boolean;
  readonly #holdMs: number;
  readonly #setpoint: Float64Array; // [joints], the last one given
  #episode: Episode | undefined;

  /** Errors: CONTROL_JOINTS, CONTROL_RATE, CONTROL_MOMENTS, CONTROL_MEMORY, CAMERA_MISSING. */
  constructor(options: CycleOptions) {
    const { policy, robot, cameras } = options;
    const rateHz = options.actionRateHz ?? ACTION_RATE_HZ;
    this.#policy = policy;
    this.#robot = robot;
    this.#cameras = cameras;
    this.#knotNs = rateHz >= RATE_HZ_MIN ? BigInt(Math.round(1e9 / rateHz)) : 0n;
    this.#ticksPerKnot = Number(this.#knotNs / robot.periodNs);
    this.#knotsPerMoment = policy.job.action_per_frame / MOMENTS_PER_LATENT;
    this.#frameAgeMaxNs = BigInt(Math.round((options.frameAgeMaxMs ?? 100) * 1e6));
    const { videoSteps, actionSteps } = options;
    this.#steps = { ...(videoSteps === undefined ? {} : { videoSteps }), ...(actionSteps === undefined ? {} : { actionSteps }) };
    this.#forgets = options.memory === 'chunk';
    this.#holdMs = options.holdMs ?? 200;
    this.#setpoint = new Float64Array(robot.joints.length);
    this.#check(rateHz);
  }

  #check(rateHz: number): void {
    const { job } = this.#policy;
    const [joints, channels] = [this.#robot.joints.length, job.used_action_channel_ids.length];
    if (joints !== channels) {
      throw new PremotorError('CONTROL_JOINTS', 'The job does not fit the robot: it needs one used action channel per joint.', {
        expected: `${joints} used_action_channel_ids`,
        found: `${channels}`,
      });
    }
    if (this.#ticksPerKnot < 1 || this.#knotNs % this.#robot.periodNs !== 0n) {
      throw new PremotorError('CONTROL_RATE', "The time between two actions must be a whole number of the robot's setpoint periods.", {
        expected: `at least ${RATE_HZ_MIN} actions per second, a multiple of ${this.#robot.periodNs} ns apart`,
        found: `${rateHz} actions per second`,
      });
    }
    if (!Number.isInteger(this.#knotsPerMoment)) {
      throw new PremotorError('CONTROL_MOMENTS', 'The cameras are read 4 times per latent frame, so action_per_frame must be a multiple of 4.', {
        expected: 'a multiple of 4',
        found: `${job.action_per_frame}`,
      });
    }
    if (this.#forgets && job.frame_chunk_size < 2) {
      const message = "Without memory a chunk's first latent frame is the observation itself: frame_chunk_size 1 leaves no actions to execute.";
      throw new PremotorError('CONTROL_MEMORY', message, { field: 'frame_chunk_size', expected: 'at least 2', found: `${job.frame_chunk_size}` });
    }
    const keys = this.#cameras.cameras.map(({ camera }) => camera);
    const missing = job.obs_cam_keys.filter((key) => !keys.includes(key));
    if (missing.length > 0) {
      throw new PremotorError('CAMERA_MISSING', `No camera is called ${missing.join(', ')}. Change obs_cam_keys of the job or the camera's name.`, {
        expected: job.obs_cam_keys.join(', '),
        found: keys.join(', ') || 'no cameras',
      });
    }
  }

  /** Returns what removes the listener again. */
  on(listener: CycleListener): () => void {
    return this.#listeners.add(listener);
  }

  /**
   * Ends the running episode as 'stopped': within one action period the arm begins to decelerate, then holds. Idempotent, safe in a signal handler.
   */
  requestStop(reason: string): void {
    this.#episode?.stop.abort(reason);
  }

  /** Runs one episode. Errors of policy, robot and cameras end it and are in the report; only a second run while one is running is thrown. */
  async run(options: EpisodeOptions): Promise<CycleReport> {
    if (this.#episode) {
      const message = 'An episode is already running. Await its report, or request a stop, before the next one.';
      throw new PremotorError('CONTROL_BUSY', message, { expected: 'no episode', found: 'a running one' });
    }
    const episode: Episode = {
      options,
      stop: new AbortController(),
      reports: [],
      knots: 0,
      clampedKnots: 0,
      motion: undefined,
      startNs: undefined,
    };
    this.#episode = episode;
    this.#listeners.errors.length = 0;
    try {
      let outcome: Outcome;
      let error: PremotorError | undefined;
      try {
        outcome = await this.#runChunks(episode);
      } catch (thrown) {
        // An aborted prediction is the stop that was asked for, not a failure.
        const isStop = thrown instanceof StopRequested || (episode.stop.signal.aborted && toPremotorError(thrown).code === 'ABORTED');
        outcome = isStop ? 'stopped' : 'failed';
        if (!isStop) error = toPremotorError(thrown);
      }
      return await this.#end(episode, outcome, error);
    } finally {
      this.#episode = undefined;
    }
  }

  async #runChunks(episode: Episode): Promise<Outcome> {
    const { options, stop } = episode;
    const state = await this.#robot.getState();
    episode.startNs = state.timeNs;
    // The first setpoint equals the measured pose, so nothing jumps when control begins.
    this.#setpoint.set(state.positionsRad);
    await this.#policy.reset({ prompt: options.prompt, signal: stop.signal });
    const first = await this.#observe();
    this.#listeners.emit({ type: 'started', prompt: options.prompt, chunks: options.chunks, observation: first });
    for (let chunk = 0; chunk < options.chunks; chunk++) {
      await this.#runChunk(episode, chunk, first);
      if (options.until?.()) return 'reached';
      if (stop.signal.aborted) throw new StopRequested();
    }
    return 'finished';
  }

  async #runChunk(episode: Episode, chunk: number, first: Observation): Promise<void> {
    const forgets = this.#forgets && chunk > 0;
    const obs = forgets ? await this.#observe() : first;
    const begun = performance.now();
    if (forgets) await this.#policy.reset({ prompt: episode.options.prompt, signal: episode.stop.signal });
    const prediction = await this.#policy.predict({
      ...(chunk === 0 || forgets ? { obs } : {}),
      ...this.#steps,
      seed: episode.options.seed ?? 0,
      signal: episode.stop.signal,
      onProgress: (progress) => this.#listeners.emit({ type: 'progress', chunk, progress }),
    });
    const predicted = performance.now();
    const { frameIndex, latents, timing } = prediction;
    this.#listeners.emit({ type: 'predicted', chunk, frameIndex, latents, timing });
    const limited = this.#limit(prediction, chunk);
    const moments = await this.#execute(episode, limited);
    const executed = performance.now();
    const clampedKnots = limited.clamped.filter(Boolean).length;
    this.#listeners.emit({ type: 'executed', chunk, actions: limited.executed, moments, clampedKnots });
    if (!this.#forgets) {
      await this.#policy.commit({
        obs: moments,
        actions: limited.executed,
        onProgress: (progress) => this.#listeners.emit({ type: 'progress', chunk, progress }),
      });
    }
    const report: ChunkReport = {
      chunk,
      frameIndex,
      knots: limited.knots.length,
      clampedKnots,
      predictMs: predicted - begun,
      executeMs: executed - predicted,
      commitMs: performance.now() - executed,
      timing,
    };
    episode.reports.push(report);
    this.#listeners.emit({ type: 'committed', chunk, report });
  }

  #limit(prediction: Chunk, chunk: number): LimitedChunk {
    return limitChunk({
      actions: prediction.actions,
      shape: prediction.shape,
      // An episode's first latent frame is the observation itself: no actions lead to it.
      padding: chunk === 0 || this.#forgets ? this.#policy.job.action_per_frame : 0,
      from: this.#setpoint,
      joints: this.#robot.joints,
      knotS: Number(this.#knotNs) / 1e9,
    });
  }

  /** Drives through the knots and gives what the cameras saw at every (H/4)-th. */
  async #execute(episode: Episode, { knots, clamped }: LimitedChunk): Promise<Observation[]> {
    const path = new KnotPath(this.#setpoint, knots);
    const motion = { path, segment: 0, fraction: 0 };
    if (path.segments > 0) episode.motion = motion;
    const moments: Observation[] = [];
    for (let segment = 0; segment < path.segments; segment++) {
      if (episode.stop.signal.aborted) throw new StopRequested();
      for (let tick = 1; tick <= this.#ticksPerKnot; tick++) {
        const fraction = tick / this.#ticksPerKnot;
        path.sample(segment, fraction, this.#setpoint);
        await this.#robot.step(this.#setpoint);
        // Only what the robot took counts as its motion.
        Object.assign(motion, { segment, fraction });
      }
      episode.knots++;
      if (clamped[segment]) episode.clampedKnots++;
      if ((segment + 1) % this.#knotsPerMoment !== 0) continue;
      moments.push(await this.#observe());
      // In virtual time nothing waits, so signals and timers get their turn here.
      await nextTurn();
    }
    episode.motion = undefined;
    return moments;
  }

  async #observe(): Promise<Observation> {
    const { timeNs } = await this.#robot.getState();
    return observe(this.#cameras, { keys: this.#policy.job.obs_cam_keys, nowNs: timeNs, ageMaxNs: this.#frameAgeMaxNs });
  }

  /** Brings the arm to rest, holds it, and reports. Never throws. */
  async #end(episode: Episode, outcome: Outcome, error: PremotorError | undefined): Promise<CycleReport> {
    this.#listeners.emit({ type: 'holding', why: outcome });
    let holdError: PremotorError | undefined;
    let robotMs = 0;
    try {
      if (episode.startNs !== undefined) {
        await this.#comeToRest(episode);
        await this.#hold();
        robotMs = Number((await this.#robot.getState()).timeNs - episode.startNs) / 1e6;
      }
    } catch (thrown) {
      holdError = toPremotorError(thrown);
    }
    const report: CycleReport = {
      outcome,
      ...(outcome === 'stopped' ? { stopReason: String(episode.stop.signal.reason) } : {}),
      ...(error ? { error } : {}),
      ...(holdError ? { holdError } : {}),
      chunks: episode.reports,
      knots: episode.knots,
      clampedKnots: episode.clampedKnots,
      robotMs,
      listenerErrors: [...this.#listeners.errors],
    };
    this.#listeners.emit({ type: 'ended', report });
    return report;
  }

  /** Decelerates a motion that was cut short. Finished ones end at rest. */
  async #comeToRest({ motion }: Episode): Promise<void> {
    if (!motion) return;
    const ramp = new StopRamp(motion.path.stateAt(motion.segment, motion.fraction), this.#robot.joints);
    ramp.sample(0, this.#setpoint);
    for (let tick = 1; tick <= ramp.knots * this.#ticksPerKnot; tick++) {
      ramp.sample(tick / this.#ticksPerKnot, this.#setpoint);
      await this.#robot.step(this.#setpoint);
    }
  }

  /** Repeats the last setpoint, so that the arm settles before anybody looks. */
  async #hold(): Promise<void> {
    const ticks = Math.round((this.#holdMs * 1e6) / Number(this.#robot.periodNs));
    for (let tick = 0; tick < ticks; tick++) await this.#robot.step(this.#setpoint);
  }
}
