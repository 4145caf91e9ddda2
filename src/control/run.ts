/**
 * One episode under way: what every execution mode needs of policy, robot and cameras, with the checks that keep the robot safe, and the counts that
 * the report is made of. Created by the control cycle for one episode and used by one mode. It decides no order, and computes no setpoint.
 */
import { type CameraHealth, checkBrightness } from '../cameras/health.js';
import type { CameraSampler } from '../cameras/sampler.js';
import { PremotorError } from '../errors.js';
import type { Chunk, Policy, PredictOptions, Progress } from '../policy/contract.js';
import type { Robot } from '../robot/robot.js';
import type { ActionMap } from './action-map.js';
import type { Budget } from './budget/types.js';
import type { ChunkReport, EpisodeOptions, Listeners, Observation } from './events.js';
import type { Tolerance } from './limits.js';

/**
 * How long one sign of life of the policy is good for, while the arm rests and waits for it. The robot latches a fault when the next one is later;
 * the firmware waits for 1 s at most.
 */
export const LEASE_MS = 900;
/** While time that is injected passes there are no signs of life of the policy; this often the cycle gives its own. */
const BEAT_NS = 400_000_000n;

/** What is committed as executed: docs/EVAL.md, "What is committed". Only 'executed' is for robots; the others are for measuring. */
export const COMMITS = ['executed', 'predicted', 'measured'] as const;
export type Commits = (typeof COMMITS)[number];

/** What of the cycle's options an episode needs. */
export interface Settings {
  readonly policy: Policy;
  readonly robot: Robot;
  readonly sampler: CameraSampler;
  readonly listeners: Listeners;
  readonly knotNs: bigint;
  readonly knotsPerMoment: number;
  readonly steps: Pick<PredictOptions, 'videoSteps' | 'actionSteps'>;
  readonly forgets: boolean;
  readonly tolerance: Tolerance;
  readonly actions: ActionMap | undefined;
  readonly health: CameraHealth;
  readonly startPose: Float64Array | undefined;
  readonly commits: Commits;
  readonly budget: Budget | undefined;
  /** Robot time that a prediction is made to take; undefined: what it takes. */
  readonly thinkingNs: bigint | undefined;
}

/** Thrown inside the cycle to leave it when a stop was requested. */
export class StopRequested extends Error {}

export class EpisodeRun {
  readonly settings: Settings;
  readonly options: EpisodeOptions;
  readonly stop = new AbortController();
  readonly reports: ChunkReport[] = [];
  knots = 0;
  clampedKnots = 0;
  /** Time at which the episode began; undefined before. */
  startNs: bigint | undefined;
  #generation = 0;
  /** Moments are a whole number of their period after this: the time of the first observation's newest frame. */
  #gridNs = 0n;
  /** Over the observations since the last report. */
  #frameAgeNsMax = 0n;
  #frameSkewNsMax = 0n;

  constructor(settings: Settings, options: EpisodeOptions) {
    this.settings = settings;
    this.options = options;
  }

  get stopped(): boolean {
    return this.stop.signal.aborted;
  }

  throwIfStopped(): void {
    if (this.stopped) throw new StopRequested();
  }

  /** Starts the policy's episode, moves to the start pose and looks around. A resumed episode has both behind it. */
  async begin(): Promise<Observation> {
    const { robot, startPose, actions, listeners } = this.settings;
    const { prompt, chunks, resume } = this.options;
    const state = await robot.getState();
    this.startNs = state.timeNs;
    if (resume) this.#generation = resume.generation;
    else await this.resetPolicy();
    if (startPose && !resume) await robot.moveTo(startPose);
    this.throwIfStopped();
    robot.executed();
    const first = await this.observe();
    const { positionsRad } = await robot.getState();
    actions?.begin(resume?.beganAtRad ? Float64Array.from(resume.beganAtRad) : positionsRad);
    this.#gridNs = first.reduce((newest, { capturedAtNs }) => (capturedAtNs > newest ? capturedAtNs : newest), 0n);
    listeners.emit({ type: 'started', prompt, chunks, observation: first, positionsRad });
    return first;
  }

  async resetPolicy(): Promise<void> {
    const { generation } = await this.settings.policy.reset({ prompt: this.options.prompt, signal: this.stop.signal });
    this.#generation = generation;
  }

  /** A chunk of another episode is never executed. Errors: CONTROL_STALE. */
  checkGeneration({ generation }: Pick<Chunk, 'generation'>): void {
    if (generation === this.#generation) return;
    const message = 'The policy answered with a chunk of another episode. It is not executed; give every robot a policy of its own.';
    throw new PremotorError('CONTROL_STALE', message, { expected: `generation ${this.#generation}`, found: `${generation}` });
  }

  /** What every prediction is asked with. */
  async asked(chunk: number): Promise<Pick<PredictOptions, 'videoSteps' | 'actionSteps' | 'seed' | 'signal' | 'state' | 'onProgress'>> {
    const { policy, robot, steps } = this.settings;
    const state = policy.info.usesState === true ? { state: Float64Array.from((await robot.getState()).positionsRad) } : {};
    const { seed = 0 } = this.options;
    return { ...steps, seed, signal: this.stop.signal, ...state, onProgress: (one) => this.noteProgress(chunk, one) };
  }

  /** The policy has got somewhere: a sign of life, which the robot is given too. */
  noteProgress(chunk: number, progress: Progress): void {
    this.beat();
    this.settings.listeners.emit({ type: 'progress', chunk, progress });
  }

  beat(): void {
    this.settings.robot.beat(LEASE_MS);
  }

  async now(): Promise<bigint> {
    return (await this.settings.robot.getState()).timeNs;
  }

  /** Lets injected time pass while the arm has nothing to do. */
  async idleUntil(timeNs: bigint): Promise<void> {
    const { robot } = this.settings;
    for (let nowNs = await this.now(); nowNs < timeNs; nowNs = await this.now()) {
      this.throwIfStopped();
      this.beat();
      await robot.waitUntil(nowNs + BEAT_NS < timeNs ? nowNs + BEAT_NS : timeNs);
    }
  }

  /** What the cameras saw at this moment. */
  async observe(): Promise<Observation> {
    const { sampler, health } = this.settings;
    const { frames, ageNsMax, skewNs } = await sampler.sampleAt(await this.now(), () => this.now());
    checkBrightness(frames, health);
    if (ageNsMax > this.#frameAgeNsMax) this.#frameAgeNsMax = ageNsMax;
    if (skewNs > this.#frameSkewNsMax) this.#frameSkewNsMax = skewNs;
    return frames;
  }

  /** The first time, not before `nowNs`, that is a whole number of moments after the first observation. */
  nextMoment(nowNs: bigint): bigint {
    const momentNs = this.settings.knotNs * BigInt(this.settings.knotsPerMoment);
    const passed = (nowNs - this.#gridNs + momentNs - 1n) / momentNs;
    return this.#gridNs + passed * momentNs;
  }

  /** Adds a chunk to the report, with the frames' ages since the last one. */
  report(about: Omit<ChunkReport, 'frameAgeMsMax' | 'frameSkewMsMax'>): ChunkReport {
    const report: ChunkReport = {
      ...about,
      frameAgeMsMax: Number(this.#frameAgeNsMax) / 1e6,
      frameSkewMsMax: Number(this.#frameSkewNsMax) / 1e6,
    };
    this.#frameAgeNsMax = 0n;
    this.#frameSkewNsMax = 0n;
    this.reports.push(report);
    this.settings.listeners.emit({ type: 'committed', chunk: about.chunk, report });
    return report;
  }
}
