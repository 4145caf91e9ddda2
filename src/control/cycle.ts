/**
 * The control cycle: observe, predict a chunk, place it on the robot's timeline, watch it being executed, commit what was executed and seen, again.
 * The mode (src/control/modes) owns the order of these steps; this owns the lifecycle around them and the robot's safety: nothing moves before it was
 * armed, and whatever ends an episode, the arm is brought to rest and held. It computes no setpoints and reaches policy, robot and cameras only
 * through their interfaces, so simulation and hardware run the same code.
 */
import { type CameraHealth, checkBrightness, HEALTH } from '../cameras/health.js';
import { CameraSampler } from '../cameras/sampler.js';
import type { FrameSource } from '../cameras/source.js';
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { Policy } from '../policy/contract.js';
import type { Robot } from '../robot/robot.js';
import type { ActionMap } from './action-map.js';
import { FixedBudget } from './budget/fixed.js';
import type { Budget } from './budget/types.js';
import { checkConfiguration, checkForgetting, checkMode, checkPolicy, checkPose, MOMENTS_PER_LATENT } from './checks.js';
import { type CycleListener, type CycleReport, type EpisodeOptions, Listeners, type Outcome } from './events.js';
import { Lifecycle, type State } from './lifecycle.js';
import { TOLERANCE, type Tolerance } from './limits.js';
import { MODES } from './modes/index.js';
import type { Mode, ModeName } from './modes/mode.js';
import { type Commits, EpisodeRun, type Settings, StopRequested } from './run.js';

const ACTION_RATE_HZ = 50;
const FRAME_AGE_MAX_MS = 100;
const FRAME_SKEW_MAX_MS = 50;
const HOLD_MS = 200;
/** How policy and stream refuse to go on after a stop. */
const STOP_CODES: readonly string[] = ['ABORTED', 'STREAM_CHUNK_STATE'];
const MS_NS = 1_000_000n;

export interface CycleOptions {
  readonly policy: Policy;
  readonly robot: Robot;
  readonly cameras: FrameSource;
  /** Actions per second. Default: 50. */
  readonly actionRateHz?: number;
  /** A frame older than this when it is observed ends the episode. Default: 100. */
  readonly frameAgeMaxMs?: number;
  /** Frames of one observation that were captured further apart end the episode. Default: 50. */
  readonly frameSkewMaxMs?: number;
  /** Where an episode begins, [joints]: the robot moves there first. Default: where it is. */
  readonly startPoseRad?: Float64Array;
  /** When a camera counts as dark or frozen. */
  readonly cameraHealth?: CameraHealth;
  /** Denoising steps of every prediction. Default: the job's. */
  readonly videoSteps?: number;
  readonly actionSteps?: number;
  /**
   * What the policy remembers. 'chunk' is an ablation: before every chunk the policy is reset with the prompt, the present picture is the first frame
   * of a new episode, and nothing is committed. Such a chunk executes (K - 1) x H actions, as a first chunk does. Default: 'episode'.
   */
  readonly memory?: 'episode' | 'chunk';
  /** For policies whose channels are not the robot's joints. Default: channel i is joint i. */
  readonly actions?: ActionMap;
  /** How far from sense actions may be and still be clamped. Default: 1 rad outside a range, 1.2 rad between neighbours. */
  readonly tolerance?: Tolerance;
  /** How long the last setpoint is held at the end of an episode, on the robot's clock. Default: 200. */
  readonly holdMs?: number;
  /** How predicting and moving are interleaved. Default: 'sync'. */
  readonly mode?: ModeName;
  /** Picks the denoising of every prediction in asynchronous modes, and knows how long one takes. Default: measured, with the job's steps. */
  readonly budget?: Budget;
  /**
   * For robots on virtual time, whose clock stands still while the policy thinks: robot time that every prediction is made to take, its commit
   * included. Default: what it takes on the robot's clock.
   */
  readonly thinkingMs?: number;
  /** For measuring, in mode 'sync': what is committed as executed (docs/EVAL.md). Default: 'executed'. */
  readonly commits?: Commits;
}

export class ControlCycle {
  readonly #settings: Settings;
  readonly #mode: Mode;
  readonly #listeners = new Listeners();
  readonly #lifecycle = new Lifecycle((transition) => this.#listeners.emit({ type: 'state', transition }));
  readonly #holdMs: number;
  #run: EpisodeRun | undefined;
  /** Requests so far, so that one which comes while the robot is being armed is not lost. */
  #stopRequests = 0;

  /** Errors: CONTROL_JOINTS, CONTROL_RATE, CONTROL_MOMENTS, CONTROL_MODE, CONTROL_MEMORY, CAMERA_MISSING. */
  constructor(options: CycleOptions) {
    const { policy, robot, cameras, videoSteps, actionSteps, mode = 'sync' } = options;
    const rateHz = options.actionRateHz ?? ACTION_RATE_HZ;
    checkConfiguration(policy.job, robot, rateHz, options.actions);
    checkMode(policy.info, mode);
    const forgets = options.memory === 'chunk';
    if (forgets) checkForgetting(policy.job, mode);
    const nanoseconds = (milliseconds: number): bigint => BigInt(Math.round(milliseconds * 1e6));
    this.#settings = {
      policy,
      robot,
      sampler: new CameraSampler({
        source: cameras,
        keys: policy.job.obs_cam_keys,
        ageMaxNs: nanoseconds(options.frameAgeMaxMs ?? FRAME_AGE_MAX_MS),
        skewMaxNs: nanoseconds(options.frameSkewMaxMs ?? FRAME_SKEW_MAX_MS),
      }),
      listeners: this.#listeners,
      knotNs: BigInt(Math.round(1e9 / rateHz)),
      knotsPerMoment: policy.job.action_per_frame / MOMENTS_PER_LATENT,
      steps: { ...(videoSteps === undefined ? {} : { videoSteps }), ...(actionSteps === undefined ? {} : { actionSteps }) },
      forgets,
      tolerance: options.tolerance ?? TOLERANCE,
      actions: options.actions,
      health: options.cameraHealth ?? HEALTH,
      startPose: options.startPoseRad,
      commits: options.commits ?? 'executed',
      budget: options.budget ?? (mode === 'sync' ? undefined : new FixedBudget({ job: policy.job })),
      thinkingNs: options.thinkingMs === undefined ? undefined : nanoseconds(options.thinkingMs),
    };
    this.#mode = MODES[mode];
    this.#holdMs = options.holdMs ?? HOLD_MS;
  }

  /** Returns what removes the listener again. */
  on(listener: CycleListener): () => void {
    return this.#listeners.add(listener);
  }

  get state(): State {
    return this.#lifecycle.state;
  }

  /** Why the robot is in the state `fault`. */
  get fault(): PremotorError | undefined {
    return this.#lifecycle.fault;
  }

  /**
   * Powers the robot and allows one episode, after looking whether it could run: the policy fits the robot, the robot's pose can be read and lies
   * inside the joint limits, every camera of the job delivers a fresh frame of its size. What it finds wrong is thrown and changes no state. Errors:
   * CONTROL_TRANSITION, CONTROL_JOINTS, CONTROL_POSE, CAMERA_*, ABORTED when a stop was requested meanwhile, those of the robot.
   */
  async arm(): Promise<void> {
    this.#lifecycle.check('arm');
    const requests = this.#stopRequests;
    const { policy, robot, sampler, actions, health } = this.#settings;
    checkPolicy(policy, actions?.channels ?? robot.joints.length);
    const state = await robot.getState();
    checkPose(state, robot.joints);
    sampler.clear();
    const { frames } = await sampler.sampleAt(state.timeNs, () => this.#now());
    checkBrightness(frames, health);
    if (this.#stopRequests === requests) await robot.arm();
    if (this.#stopRequests !== requests) {
      await robot.disarm();
      throw new PremotorError('ABORTED', 'A stop was requested while the robot was being armed. Arm it again.');
    }
    this.#lifecycle.dispatch('arm', 'robot, cameras and policy are ready');
  }

  /** Takes the permission to move back, and the power. Errors: CONTROL_TRANSITION while an episode runs, and after a fault; those of the robot. */
  async disarm(): Promise<void> {
    this.#lifecycle.dispatch('disarm', 'disarmed');
    await this.#settings.robot.disarm();
  }

  /** Leaves a fault; the robot has to be armed again before it moves. Errors: CONTROL_TRANSITION when there is none. */
  reset(): void {
    this.#lifecycle.dispatch('reset', 'the fault was acknowledged');
  }

  /**
   * Ends the running episode as 'stopped': the arm begins to decelerate with the next setpoint, then holds. An armed robot is disarmed and loses its
   * power. Idempotent, possible in every state, safe in a signal handler.
   */
  requestStop(reason: string): void {
    this.#stopRequests++;
    const { state } = this.#lifecycle;
    this.#lifecycle.dispatch('stop', reason);
    if (state === 'armed') this.#settings.robot.stop(1);
    if (state === 'running') this.#settings.robot.stop();
    this.#run?.stop.abort(reason);
  }

  /**
   * Runs one episode of an armed robot. Errors of policy, robot and cameras end it and are in the report; thrown are only CONTROL_BUSY and, for a
   * robot that is not armed, CONTROL_TRANSITION.
   */
  async run(options: EpisodeOptions): Promise<CycleReport> {
    if (this.#run) {
      const message = 'An episode is already running. Await its report, or request a stop, before the next one.';
      throw new PremotorError('CONTROL_BUSY', message, { expected: 'no episode', found: 'a running one' });
    }
    this.#lifecycle.check('start');
    const run = new EpisodeRun(this.#settings, options);
    this.#run = run;
    this.#listeners.errors.length = 0;
    this.#lifecycle.dispatch('start', `episode "${options.prompt}"`);
    try {
      let outcome: Outcome;
      let error: PremotorError | undefined;
      try {
        outcome = await this.#mode.runChunks(run);
      } catch (thrown) {
        // An aborted prediction, or a plan that a stopping robot takes no more, is the stop that was asked for, not a failure.
        const isStop = thrown instanceof StopRequested || (run.stopped && STOP_CODES.includes(toPremotorError(thrown).code));
        outcome = isStop ? 'stopped' : 'failed';
        if (!isStop) error = toPremotorError(thrown);
      }
      return await this.#end(run, outcome, error);
    } finally {
      this.#run = undefined;
    }
  }

  async #now(): Promise<bigint> {
    return (await this.#settings.robot.getState()).timeNs;
  }

  /** Brings the arm to rest, holds it, and reports. Never throws. */
  async #end(run: EpisodeRun, outcome: Outcome, error: PremotorError | undefined): Promise<CycleReport> {
    if (error) this.#lifecycle.fail(error);
    this.#listeners.emit({ type: 'holding', why: outcome });
    let holdError: PremotorError | undefined;
    let [activeMs, robotMs] = [0, 0];
    const { startNs } = run;
    const { robot } = this.#settings;
    try {
      if (startNs !== undefined) {
        const elapsedMs = async (): Promise<number> => Number((await this.#now()) - startNs) / 1e6;
        activeMs = await elapsedMs();
        robot.stop();
        await robot.rest();
        if (!error) this.#lifecycle.dispatch('rest', outcome === 'stopped' ? 'the arm came to rest' : `episode ${outcome}`);
        await this.#hold(error);
        robotMs = await elapsedMs();
      } else if (!error) this.#lifecycle.dispatch('rest', 'nothing had moved');
    } catch (thrown) {
      holdError = toPremotorError(thrown);
      this.#lifecycle.fail(holdError);
    }
    const report: CycleReport = {
      outcome,
      ...(outcome === 'stopped' ? { stopReason: String(run.stop.signal.reason) } : {}),
      ...(error ? { error } : {}),
      ...(holdError ? { holdError } : {}),
      chunks: run.reports,
      knots: run.knots,
      clampedKnots: run.clampedKnots,
      activeMs,
      robotMs,
      listenerErrors: [...this.#listeners.errors],
    };
    this.#listeners.emit({ type: 'ended', report });
    return report;
  }

  /** Keeps the power on for a while, so that the arm settles before anybody looks. The stop is a decision to hold: it needs no planner. */
  async #hold(known: PremotorError | undefined): Promise<void> {
    try {
      await this.#settings.robot.waitUntil((await this.#now()) + BigInt(Math.round(this.#holdMs)) * MS_NS);
    } catch (thrown) {
      // A robot that has latched a fault says so again; it stands all the same.
      if (toPremotorError(thrown).code !== known?.code) throw thrown;
    }
  }
}
