/** A run as the flight recorder sees one, without a robot: what it is told, and what it asks. Not a test itself. */
import { readdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setInterval } from 'node:timers/promises';
import type { RobotConfig } from '../../src/config/schema.js';
import type { CycleReport } from '../../src/control/events.js';
import type { PremotorError } from '../../src/errors.js';
import type { Frame } from '../../src/policy/contract.js';
import { type McapMessage, McapReader, type McapState } from '../../src/recording/mcap-reader.js';
import type { OpenFile } from '../../src/recording/mcap-writer.js';
import { openRecorder, type RecorderParts } from '../../src/recording/recorder.js';
import { compressedCall, type RecordedCall } from '../../src/replay/record.js';
import { Random } from '../../src/sim/random.js';
import type { MotionSample, Observer, RunAbout, RunControl } from '../../src/tap/observer.js';
import { FakeModel } from '../support/fake-model.js';

/** Numbers of 0 .. 1. */
export function seeded(seed: number): () => number {
  const random = new Random(seed);
  return () => random.uniform(0, 1);
}

const NOTICE_PERIOD_MS = 5;

export const JOINT_NAMES = ['yaw', 'shoulder', 'elbow'];
export const CAMERAS = ['observation.images.cam_front', 'observation.images.cam_wrist'];
/** 2026-11-30T10:00:00Z when the robot's clock shows 5 s. */
export const EPOCH_NS = 1_796_032_800_000_000_000n;
export const START_NS = 5_000_000_000n;

type RecorderConfig = RobotConfig['recording']['recorder'];

export function configOf(dir: string, changes: Partial<RecorderConfig> = {}): RobotConfig {
  const recorder = { mode: 'window', dir, window_s: 60, disk_max_mib: 64, jpeg_quality: 85, imagined: true, ...changes };
  return { recording: { out_dir: dir, recorder }, policy: {}, task: { seed: 7 } } as unknown as RobotConfig;
}

export function aboutOf(changes: Partial<RunAbout> = {}): RunAbout {
  const { job, info } = new FakeModel();
  const limits = { lowerRad: -3, upperRad: 3, velocityMaxRadPerS: 2, accelerationMaxRadPerS2: 20, jerkMaxRadPerS3: 400 };
  return {
    id: '2026-11-30T10-00-00-000Z',
    version: '0.1.0',
    robot: 'sim',
    joints: JOINT_NAMES.map((name) => ({ name, ...limits })),
    cameras: CAMERAS.map((camera) => ({ camera, width: 8, height: 6 })),
    task: 'touch',
    instruction: 'touch the red button',
    seed: 7,
    chunksMax: 6,
    actionRateHz: 25,
    mode: 'sync',
    checkpoint: '/models/fake',
    untrained: true,
    job,
    policy: info,
    configuration: { robot: { type: 'sim' } },
    epochNs: EPOCH_NS,
    timeNs: START_NS,
    ...changes,
  };
}

export class FakeControl implements RunControl {
  timeNs = START_NS;
  readonly asked: string[] = [];

  requestStop(reason: string): void {
    this.asked.push(reason);
  }
  status(): ReturnType<RunControl['status']> {
    const { timeNs } = this;
    const idle = {
      state: 'running',
      stream: 'following',
      link: 'armed',
      bridge: 'following',
      faultCode: '',
      faultMessage: '',
      isAtRest: false,
    } as const;
    return { timeNs, ...idle, counts: { cycles: 12, missed: 1 }, temperaturesC: { motor: 41.5 } };
  }
  cache(): ReturnType<RunControl['cache']> {
    return { capacity: 100, valid: 2, committed: 2, predicted: 0, checksum: 'abc' };
  }
  decode(): ReturnType<RunControl['decode']> {
    throw new Error('the recorder does not ask for pictures');
  }
}

/** A robot that the recorder watches, step by step. */
export class Watched {
  readonly observer: Observer;
  readonly control = new FakeControl();
  readonly warnings: PremotorError[];
  readonly notices: string[];
  steps = 0;
  calls = 0;

  private constructor(observer: Observer, warnings: PremotorError[], notices: string[]) {
    this.observer = observer;
    this.warnings = warnings;
    this.notices = notices;
  }

  static async open(config: RobotConfig, parts: Partial<RecorderParts> = {}, about = aboutOf()): Promise<Watched> {
    const warnings: PremotorError[] = [];
    const notices: string[] = [];
    const collected = { onWarning: (one: PremotorError) => void warnings.push(one), onNotice: (one: string) => void notices.push(one) };
    const observer = await openRecorder(config, { ...collected, ...parts });
    if (!observer) throw new Error('no recorder');
    const watched = new Watched(observer, warnings, notices);
    await observer.begin(about, watched.control);
    return watched;
  }

  get timeNs(): bigint {
    return this.control.timeNs;
  }

  /** Steps of 1 ms whose values tell which step they are. */
  move(steps: number): void {
    for (let step = 0; step < steps; step++) {
      this.control.timeNs += 1_000_000n;
      this.observer.motion(sampleOf(this.control.timeNs, this.steps++));
    }
  }

  see(): void {
    this.observer.event({ type: 'frames', frames: CAMERAS.map((camera) => frameOf(camera, this.timeNs, this.steps)) }, this.timeNs);
  }

  call(call: Partial<RecordedCall> = {}): void {
    const whole = { method: 'commit', options: { obs: [], actions: new Float32Array(64) }, checksum: 'abc', ...call } as RecordedCall;
    this.calls++;
    this.observer.event({ type: 'call', note: { call: whole, bytes: compressedCall(whole), cache: this.control.cache() } }, this.timeNs);
  }

  fail(code: string): void {
    const transition = { from: 'running', to: 'fault', trigger: 'fail', reason: `${code}: something broke.`, atMs: 1 } as const;
    this.observer.event({ type: 'cycle', event: { type: 'state', transition } }, this.timeNs);
  }

  /** Waits until the disk has what was told so far. */
  async flushed(): Promise<void> {
    await (this.observer as unknown as { settled(): Promise<void> }).settled();
  }

  /** Waits for a number of notices. */
  async noticed(count: number): Promise<void> {
    for await (const _ of setInterval(NOTICE_PERIOD_MS)) if (this.notices.length >= count) return;
  }

  async stop(report: Partial<CycleReport> = { outcome: 'finished' }): Promise<void> {
    await this.observer.end(report as CycleReport);
    await this.observer.close();
  }
}

export function sampleOf(timeNs: bigint, step: number): MotionSample {
  const list = (offset: number): Float64Array => Float64Array.from(JOINT_NAMES, (_, joint) => step + offset + joint / 10);
  return { timeNs, setpointRad: list(0), positionsRad: list(0.25), velocitiesRadPerS: list(0.5) };
}

export function frameOf(camera: string, capturedAtNs: bigint, value: number): Frame {
  const data = new Uint8Array(8 * 6 * 3).map((_, at) => (at * 5 + value) & 255);
  return { camera, width: 8, height: 6, data, capturedAtNs };
}

export const recordingsIn = (dir: string): string[] =>
  readdirSync(dir)
    .filter((name) => name.endsWith('.mcap'))
    .sort()
    .map((name) => join(dir, name));

/** Everything in a recording. */
export async function readAll(file: string): Promise<{ readonly messages: McapMessage[]; readonly state: McapState }> {
  const reader = await McapReader.open(file);
  const messages: McapMessage[] = [];
  try {
    for await (const message of reader.messages()) messages.push(message);
    return { messages, state: reader.state };
  } finally {
    await reader.close();
  }
}

/** A disk that has room for so many bytes. */
export const fullAfter =
  (room: number): OpenFile =>
  async (path) => {
    const handle = await open(path, 'wx');
    let left = room;
    return {
      write: async (bytes, offset, length, position) => {
        if (left < length) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
        left -= length;
        return handle.write(bytes, offset, length, position);
      },
      datasync: () => handle.datasync(),
      close: () => handle.close(),
    };
  };
