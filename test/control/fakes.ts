/**
 * Stand-ins behind the cycle's three interfaces: a policy that plays given actions and records every call, a robot that is wherever it was told to
 * be, and cameras that stamp one-pixel pictures. They check nothing; the tests do.
 */
import type { CameraInfo, FrameSource } from '../../src/cameras/source.js';
import type { Chunk, CommitOptions, Frame, Job, Policy, PredictOptions, ResetOptions, Tensor, Timing } from '../../src/policy/contract.js';
import type { Joint, Robot, RobotState } from '../../src/robot/robot.js';
import { SIM_JOB } from '../../src/sim/job.js';

const TIMING: Timing = { encodeMs: 0, videoMs: 0, actionMs: 0, commitMs: 0, imagineMs: 0, totalMs: 0, videoPasses: 6, actionPasses: 11 };

export function tensor(shape: readonly number[]): Tensor {
  const data = new Float32Array(shape.reduce((count, size) => count * size, 1));
  return Object.assign(data, { shape, dtype: 'float32' as const, data }) as Tensor;
}

/** Action of a channel at a knot of the whole episode; knot 0 is the first one after the padding. */
export type ActionAt = (channel: number, knot: number) => number;

export class FakePolicy implements Policy {
  readonly job: Job;
  readonly cache = { capacity: 100, valid: 0, committed: 0, predicted: 0 };
  readonly calls: string[] = [];
  readonly resets: ResetOptions[] = [];
  readonly predictions: PredictOptions[] = [];
  readonly chunks: Chunk[] = [];
  readonly commits: CommitOptions[] = [];
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
    return { source: 'encoder', cleanedPrompt: options.prompt, tokens: 1, warnings: [] };
  }

  async predict(options: PredictOptions = {}): Promise<Chunk> {
    this.calls.push('predict');
    this.predictions.push(options);
    await this.before('predict', options.signal);
    const { frame_chunk_size: K, action_per_frame: H, used_action_channel_ids: used } = this.job;
    const index = this.chunks.length;
    const actions = new Float32Array(used.length * K * H);
    for (let channel = 0; channel < used.length; channel++) {
      for (let action = 0; action < K * H; action++) actions[channel * K * H + action] = this.#actionAt(channel, index * K * H + action - H);
    }
    options.onProgress?.({ stage: 'video', done: 6, total: 6 });
    const chunk: Chunk = { actions, shape: [used.length, K, H], latents: tensor([1, 48, K, 6, 12]), timing: TIMING, frameIndex: index * K };
    this.chunks.push(chunk);
    return chunk;
  }

  async commit(options: CommitOptions): ReturnType<Policy['commit']> {
    this.calls.push('commit');
    this.commits.push(options);
    await this.before('commit', undefined);
    return { frameIndex: this.chunks.length * this.job.frame_chunk_size, timing: TIMING };
  }

  async predictNext(): Promise<Chunk> {
    throw new Error('the synchronous cycle never calls predictNext');
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
}));

export class FakeRobot implements Robot {
  readonly joints: readonly Joint[];
  readonly periodNs = 2_000_000n;
  readonly setpoints: Float64Array[] = [];
  timeNs = 0n;
  /** Runs before a setpoint is taken; may throw. */
  before: (setpoint: Float64Array) => void = () => undefined;
  readonly start: Float64Array;

  constructor(start: readonly number[] = [0, 0, 0, 0], joints = FAKE_JOINTS) {
    this.start = Float64Array.from(start);
    this.joints = joints;
  }

  async getState(): Promise<RobotState> {
    const positionsRad = (this.setpoints.at(-1) ?? this.start).slice();
    return { timeNs: this.timeNs, positionsRad, velocitiesRadPerS: new Float64Array(positionsRad.length) };
  }

  async step(setpointRad: Float64Array): Promise<void> {
    this.before(setpointRad);
    this.setpoints.push(setpointRad.slice());
    this.timeNs += this.periodNs;
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
      return { camera, width, height, data: new Uint8Array(this.bytes), capturedAtNs };
    });
  }

  async close(): Promise<void> {}
}
