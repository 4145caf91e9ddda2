/**
 * Stand-ins behind the cycle's three interfaces: a policy that plays given actions and records every call, a robot that is wherever it was told to
 * be, and cameras that stamp one-pixel pictures. They check nothing; the tests do.
 */
import type { CameraInfo, FrameSource } from '../../src/cameras/source.js';
import { loadNative, type NativeVirtualRobot } from '../../src/native.js';
import type {
  Chunk,
  CommitOptions,
  EncoderState,
  Frame,
  Job,
  Policy,
  PredictNextOptions,
  PredictOptions,
  ResetOptions,
  RestoreOptions,
  Tensor,
  Timing,
} from '../../src/policy/contract.js';
import { MotionRobot } from '../../src/robot/motion-robot.js';
import type { ExecutedKnot, Joint, Plan, Robot, RobotState, StopCategory } from '../../src/robot/robot.js';
import { HOME_TIP, inverseKinematics } from '../../src/sim/arm.js';
import { SIM_JOB } from '../../src/sim/job.js';

const TIMING: Timing = { encodeMs: 0, videoMs: 0, actionMs: 0, commitMs: 0, imagineMs: 0, totalMs: 0, videoPasses: 6, actionPasses: 11 };

export function tensor(shape: readonly number[]): Tensor {
  const data = new Float32Array(shape.reduce((count, size) => count * size, 1));
  return Object.assign(data, { shape, dtype: 'float32' as const, data }) as Tensor;
}

/** Action of a channel at a knot of the whole episode; knot 0 is the first one after the padding. */
export type ActionAt = (channel: number, knot: number) => number;

const HOME = inverseKinematics(HOME_TIP);
/** Keeps the simulated arm where it is at the start of an episode. */
export const atHome: ActionAt = (channel) => HOME[channel] ?? 0;
/** Turns it aside faster than it may. */
export const hasty: ActionAt = (channel, knot) => (HOME[channel] ?? 0) + (channel === 0 ? Math.min(1.5, 0.3 * Math.max(0, knot + 1)) : 0);

export class FakePolicy implements Policy {
  readonly job: Job;
  readonly cache = { capacity: 100, valid: 0, committed: 0, predicted: 0, checksum: '0000000000000000' };
  readonly calls: string[] = [];
  readonly resets: ResetOptions[] = [];
  readonly predictions: PredictOptions[] = [];
  readonly chunks: Chunk[] = [];
  readonly commits: CommitOptions[] = [];
  readonly nexts: PredictNextOptions[] = [];
  /** Latent frames that were committed. */
  frameIndex = 0;
  generation = 0;
  isClosed = false;
  /** Runs before a call answers; may throw or wait. */
  before: (call: string, signal: AbortSignal | undefined) => Promise<void> | void = () => undefined;
  readonly #actionAt: ActionAt;

  constructor(actionAt: ActionAt, job: Partial<Job> = {}) {
    this.job = { ...SIM_JOB, ...job };
    this.#actionAt = actionAt;
  }

  get info(): Policy['info'] {
    const { frame_chunk_size: K, action_per_frame: H, used_action_channel_ids: used } = this.job;
    return {
      checkpointHash: 'fake',
      device: 'cpu',
      backend: 'fake',
      precision: 'f32',
      kvCache: 'f32',
      threads: 1,
      weightBytes: 0,
      cacheBytes: 0,
      unusedTensors: [],
      latentShape: [48, K, 6, 12],
      actionShape: [used.length, K, H],
      parameters: 0,
      warnings: [],
    };
  }

  async reset(options: ResetOptions): ReturnType<Policy['reset']> {
    this.calls.push('reset');
    this.resets.push(options);
    await this.before('reset', options.signal);
    this.frameIndex = 0;
    this.generation++;
    return { source: 'encoder', cleanedPrompt: options.prompt, tokens: 1, warnings: [], generation: this.generation };
  }

  /** What is predicted from a latent frame on. */
  #chunk(frameIndex: number): Chunk {
    const { frame_chunk_size: K, action_per_frame: H, used_action_channel_ids: used } = this.job;
    const actions = new Float32Array(used.length * K * H);
    for (let channel = 0; channel < used.length; channel++) {
      for (let action = 0; action < K * H; action++) actions[channel * K * H + action] = this.#actionAt(channel, (frameIndex - 1) * H + action);
    }
    const latents = tensor([1, 48, K, 6, 12]);
    // A frame's values tell which frame it is.
    latents.forEach((_, index) => {
      latents[index] = frameIndex + (Math.floor(index / 72) % K);
    });
    const { generation } = this;
    const chunk: Chunk = { actions, shape: [used.length, K, H], latents, timing: TIMING, frameIndex, generation };
    this.chunks.push(chunk);
    return chunk;
  }

  async predict(options: PredictOptions = {}): Promise<Chunk> {
    this.calls.push('predict');
    this.predictions.push(options);
    await this.before('predict', options.signal);
    options.onProgress?.({ stage: 'video', done: 6, total: 6 });
    return this.#chunk(this.frameIndex);
  }

  async commit(options: CommitOptions): ReturnType<Policy['commit']> {
    this.calls.push('commit');
    this.commits.push(options);
    await this.before('commit', undefined);
    return this.#remember(options);
  }

  #remember({ obs, actions }: CommitOptions): Awaited<ReturnType<Policy['commit']>> {
    const { action_per_frame: H, used_action_channel_ids: used } = this.job;
    const frames = obs.length / 4 + (this.frameIndex === 0 ? 1 : 0);
    if (actions.length !== used.length * frames * H) throw new Error(`${obs.length} moments do not fit ${actions.length} values`);
    this.frameIndex += frames;
    return { frameIndex: this.frameIndex, generation: this.generation, latents: tensor([1, 48, frames, 6, 12]), timing: TIMING };
  }

  async predictNext(options: PredictNextOptions): Promise<Chunk> {
    this.calls.push('predictNext');
    this.nexts.push(options);
    await this.before('predictNext', options.signal);
    const { action_per_frame: H, used_action_channel_ids: used } = this.job;
    const committed = options.obs && options.executed ? this.#remember({ obs: options.obs, actions: options.executed }) : undefined;
    const frames = options.executing.length / (used.length * H);
    if (!Number.isInteger(frames)) throw new Error(`${options.executing.length} values are no whole frames`);
    options.onProgress?.({ stage: 'video', done: 6, total: 6 });
    const imagined = frames > 0 && options.forecast === undefined ? { imagined: tensor([1, 48, frames, 6, 12]) } : {};
    return { ...this.#chunk(this.frameIndex + frames), ...imagined, ...(committed ? { committed } : {}) };
  }

  async encoderState(): Promise<EncoderState> {
    return { data: new Uint8Array(0) };
  }

  async restore({ prompt, commits }: RestoreOptions): ReturnType<Policy['restore']> {
    const result = await this.reset({ prompt });
    const { action_per_frame: H, used_action_channel_ids: used } = this.job;
    for (const { actions } of commits) this.frameIndex += actions.length / (used.length * H);
    return result;
  }

  async occupy(): ReturnType<Policy['occupy']> {
    return this.cache;
  }

  async decode(latents: Float32Array | { readonly data: Float32Array; readonly shape: readonly number[] }): ReturnType<Policy['decode']> {
    this.calls.push('decode');
    const frames = ('shape' in latents ? latents.shape[2] : undefined) ?? 1;
    const pictures = 1 + 4 * (frames - 1);
    const width = this.job.width * this.job.obs_cam_keys.length;
    const video = Array.from(
      { length: pictures },
      (_, index): Frame => ({
        camera: 'imagined',
        width,
        height: this.job.height,
        data: new Uint8Array(width * this.job.height * 3).fill(index),
        capturedAtNs: 0n,
      }),
    );
    return Object.assign(video, { video: tensor([0]) });
  }

  async close(): Promise<void> {
    this.calls.push('close');
    this.isClosed = true;
  }
}

export const FAKE_JOINTS: readonly Joint[] = [0, 1, 2, 3].map((index) => ({
  name: `joint ${index}`,
  lowerRad: -1,
  upperRad: 1.5,
  velocityMaxRadPerS: 3,
  accelerationMaxRadPerS2: 100,
  jerkMaxRadPerS3: 20000,
}));

/** Ticks of the fake's clock: two cycles of the stream. */
const TICK_NS = 2_000_000n;

/**
 * A robot whose joints are wherever their motors are told to be, behind the real stream, protocol and firmware, in virtual time: time passes while
 * somebody waits for it.
 */
export class FakeRobot implements Robot {
  readonly joints: readonly Joint[];
  readonly periodNs = TICK_NS;
  /** What the stream told the joints, one per tick, since power was there. */
  readonly setpoints: Float64Array[] = [];
  /** Every plan that was pushed, and when. */
  readonly plans: { readonly plan: Plan; readonly atNs: bigint }[] = [];
  /** Runs before every tick; may throw. */
  before: () => void = () => undefined;
  readonly start: Float64Array;
  timeNs = 0n;
  readonly native: NativeVirtualRobot;
  readonly #robot: MotionRobot;
  readonly #measured: Float64Array;
  readonly #demand: Float64Array;

  constructor(start: readonly number[] = [0, 0, 0, 0], joints = FAKE_JOINTS) {
    this.start = Float64Array.from(start);
    this.joints = joints;
    this.#measured = new Float64Array(3 * joints.length);
    this.#demand = new Float64Array(8 * joints.length);
    this.native = new (loadNative().VirtualRobot)(
      {
        motion: {
          joints: joints.map((joint) => ({ ...joint, torqueMaxNm: 100 })),
          periodNs: 1_000_000,
          leadNs: 4_000_000,
          plannerGraceNs: 50_000_000,
          wantsFd: true,
          nonceSeed: 1,
        },
        drives: joints.map((_, index) => ({
          motorId: 1 + index,
          masterId: 0x11 + index,
          timeoutMs: 50,
          positionMaxRad: 12.5,
          velocityMaxRadPerS: 30,
          torqueMaxNm: 10,
          stiffnessNmPerRad: 100,
          dampingNmSPerRad: 1,
          ratio: 1,
          zeroRad: 0,
          velocityShare: 0,
        })),
        positionRad: this.start,
        boot: 1,
        trackingMaxRad: 0.5,
      },
      0n,
    );
    this.#robot = new MotionRobot({
      native: this.native,
      clock: { nowNs: () => this.timeNs, waitUntil: async (timeNs) => this.#advance(timeNs) },
      joints,
      periodNs: TICK_NS,
      measure: () => this.#state(),
    });
  }

  #state(): RobotState {
    const positionsRad = this.start.slice();
    return { timeNs: this.timeNs, positionsRad, velocitiesRadPerS: new Float64Array(positionsRad.length) };
  }

  #advance(timeNs: bigint): void {
    const joints = this.joints.length;
    while (this.timeNs < timeNs) {
      this.before();
      for (let joint = 0; joint < joints; joint++) this.#measured[3 * joint] = this.start[joint] ?? 0;
      this.timeNs += TICK_NS;
      this.native.advance(this.timeNs, this.#measured, this.#demand);
      for (let joint = 0; joint < joints; joint++) if (this.#demand[8 * joint] === 1) this.start[joint] = this.#demand[8 * joint + 1] ?? 0;
      const setpoint = Float64Array.from({ length: joints }, (_, joint) => this.#demand[8 * joint + 7] ?? Number.NaN);
      if (!setpoint.some(Number.isNaN)) this.setpoints.push(setpoint);
    }
  }

  /** Milliseconds since the n-th plan's first knot was one period away; negative before there was such a plan. */
  sincePlanMs(index: number): number {
    const plan = this.plans[index]?.plan;
    return plan ? Number(this.timeNs - (plan.startNs - plan.knotNs)) / 1e6 : Number.NEGATIVE_INFINITY;
  }

  /** Every setpoint of the whole episode kept the limits of its joint. */
  get peaks(): { velocity: number; acceleration: number } {
    let [velocity, acceleration] = [0, 0];
    this.setpoints.forEach((now, index) => {
      const [one, two] = [this.setpoints[index - 1], this.setpoints[index - 2]];
      now.forEach((angle, joint) => {
        if (one) velocity = Math.max(velocity, Math.abs(angle - (one[joint] ?? 0)) / 0.002);
        if (one && two) acceleration = Math.max(acceleration, Math.abs(angle - 2 * (one[joint] ?? 0) + (two[joint] ?? 0)) / 0.002 ** 2);
      });
    });
    return { velocity, acceleration };
  }

  getState(): Promise<RobotState> {
    return this.#robot.getState();
  }
  arm(): Promise<void> {
    return this.#robot.arm();
  }
  disarm(): Promise<void> {
    return this.#robot.disarm();
  }
  stop(category?: StopCategory): void {
    this.#robot.stop(category);
  }
  rest(): Promise<void> {
    return this.#robot.rest();
  }
  beat(forMs: number): void {
    this.#robot.beat(forMs);
  }
  push(plan: Plan): Promise<bigint> {
    this.plans.push({ plan, atNs: this.timeNs });
    return this.#robot.push(plan);
  }
  moveTo(positionsRad: Float64Array): Promise<void> {
    return this.#robot.moveTo(positionsRad);
  }
  executed(): readonly ExecutedKnot[] {
    return this.#robot.executed();
  }
  waitUntil(timeNs: bigint): Promise<void> {
    return this.#robot.waitUntil(timeNs);
  }
}

export class FakeCameras implements FrameSource {
  readonly cameras: readonly CameraInfo[];
  captures = 0;
  /** Age that is put on every frame. */
  ageNs = 0n;
  /** How much older the frames of the last camera are. */
  skewNs = 0n;
  /** Bytes of every picture; 3 is right. */
  bytes = 3;
  isDark = false;
  /** The same picture again and again, with new stamps. */
  isFrozen = false;
  before: () => void = () => undefined;
  readonly #robot: FakeRobot;

  /** In another order than the job's, and with one camera that the policy does not use. */
  constructor(robot: FakeRobot, keys: readonly string[] = ['spare', ...[...SIM_JOB.obs_cam_keys].reverse()]) {
    this.#robot = robot;
    this.cameras = keys.map((camera) => ({ camera, width: 1, height: 1 }));
  }

  async capture(): Promise<readonly Frame[]> {
    this.before();
    this.captures++;
    const newest = this.#robot.timeNs - this.ageNs;
    return this.cameras.map(({ camera, width, height }, index) => {
      const capturedAtNs = index === this.cameras.length - 1 ? newest - this.skewNs : newest;
      return {
        camera,
        width,
        height,
        data: new Uint8Array(this.bytes).fill(this.isFrozen ? 99 : this.isDark ? 3 : 20 + (this.captures % 200)),
        capturedAtNs,
      };
    });
  }

  async close(): Promise<void> {}
}
