/**
 * Opens what a robot configuration describes: the robot, its cameras, its task and how its success is judged. Owned by whoever runs an episode; the
 * one place that knows which robot types exist.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { openCameras, ownCameras } from '../cameras/open.js';
import { CAMERA_KEY_PREFIX } from '../cameras/simulated.js';
import type { FrameSource } from '../cameras/source.js';
import type { Vocabulary } from '../config/reader.js';
import type { RobotConfig } from '../config/schema.js';
import { loadNative } from '../native.js';
import type { LoadPolicyOptions } from '../policy/contract.js';
import type { Joint, Robot } from '../robot/robot.js';
import { JOINTS } from '../sim/arm.js';
import { SIM_JOB } from '../sim/job.js';
import type { SimulatedMotors } from '../sim/motors.js';
import { CAMERAS } from '../sim/scene.js';
import { Simulation, type SimulationSnapshot } from '../sim/simulation.js';
import { taskNamed } from '../sim/tasks/index.js';
import { TASK_NAMES, type TaskName, type Verdict } from '../sim/tasks/task.js';
import type { MotionSample, RobotStatus } from '../tap/observer.js';
import { eachCycle } from './motion-samples.js';

/** What a configuration may name. */
export const VOCABULARY: Vocabulary = { tasks: TASK_NAMES, joints: JOINTS };

/** The file in a checkpoint folder that says how the robot it was trained for uses it. */
const JOB_FILE = 'job.json';

/** How an episode went between plan and motor. */
export interface MotionSummary {
  /** Setpoints, one per cycle, and cycles that nobody served. */
  readonly cycles: number;
  readonly missed: number;
  readonly chunks: number;
  readonly chunksRefused: number;
  /** Plans that ended without a successor: once per chunk of a synchronous cycle. */
  readonly expired: number;
  /** Setpoint sets that the firmware followed, values that it had to clamp, frames that it did not count as its host's. */
  readonly setsFollowed: number;
  readonly valuesClamped: number;
  readonly framesIgnored: number;
}

/** Counters of the bridge (protocol/README.md): foreign to first set refused, sets accepted, values clamped. */
const IGNORED = 10;
const ACCEPTED = 10;
const CLAMPED = 11;

function summaryOf({ native }: SimulatedMotors): MotionSummary {
  const { cycles, missed, accepted, expired, refused } = native.counts();
  const bridge = native.bridgeCounts();
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  return {
    cycles,
    missed,
    chunks: accepted,
    chunksRefused: sum(Object.values(refused)),
    expired,
    setsFollowed: bridge[ACCEPTED] ?? 0,
    valuesClamped: bridge[CLAMPED] ?? 0,
    framesIgnored: sum(bridge.slice(0, IGNORED)),
  };
}

function statusOf({ motors, world }: Simulation): Omit<RobotStatus, 'state'> {
  const { stream, link, bridge, faultCode, linkFault, isAtRest } = motors.native.status();
  const { cycles, missed, chunks, chunksRefused, expired, setsFollowed, valuesClamped, framesIgnored } = summaryOf(motors);
  return {
    timeNs: world.timeNs,
    stream,
    link,
    bridge,
    faultCode: linkFault?.code ?? faultCode,
    faultMessage: linkFault?.message ?? '',
    isAtRest,
    counts: {
      cycles,
      missed,
      chunks,
      chunks_refused: chunksRefused,
      expired,
      sets_followed: setsFollowed,
      values_clamped: valuesClamped,
      frames_ignored: framesIgnored,
    },
    temperaturesC: {},
  };
}

/** A robot with its task set up, at the start of an episode. */
export interface Rig {
  readonly robot: Robot;
  readonly cameras: FrameSource;
  readonly task: TaskName;
  readonly instruction: string;
  /** Chunks that the episode may have. */
  readonly chunksMax: number;
  /** The way from a plan to the motors, in words. */
  readonly path: string;
  /** What the operator should know, such as where pictures can be pushed. */
  readonly notices: readonly string[];
  /** What the stream and the firmware have counted so far. */
  motion(): MotionSummary;
  /** Calls a watcher with every cycle of the setpoint stream; returns what removes it again. The sample's arrays are reused. */
  watch(watcher: (sample: MotionSample) => void): () => void;
  /** The robot's clock. */
  nowNs(): bigint;
  /** Stream, bridge and bus now. */
  status(): Omit<RobotStatus, 'state'>;
  /** How the task stands now. */
  verdict(): Verdict;
  /** Time on the robot's clock at which the task was done for the first time; undefined when it was not. */
  completedNs(): bigint | undefined;
  /** The world now; absent for a real robot, whose world needs no keeping. */
  snapshot?(): SimulationSnapshot;
  /** Puts the world of an interrupted episode back, and when its task was done. */
  restore?(snapshot: SimulationSnapshot, completedNs: bigint | undefined): void;
  close(): Promise<void>;
}

/** Errors: SIM_TASK, SIM_MODEL, and those of openCameras. */
export async function openRig(config: RobotConfig): Promise<Rig> {
  const task = taskNamed(config.task.name);
  const scene = task.scene(config.task.seed);
  const { sources } = config.cameras;
  const keyOf = (name: string): string => `${CAMERA_KEY_PREFIX}${name}`;
  // A camera that something else stands in for is not rendered.
  const own = ownCameras(sources, CAMERAS.map(keyOf));
  const simulation = await Simulation.open({
    kind: task.kind,
    cameras: CAMERAS.filter((name) => own.includes(keyOf(name))),
    fps: config.cameras.frame_rate_hz,
    pace: config.robot.pace,
    joints: tightened(JOINTS, config.control.limits),
  });
  simulation.reset(scene.layout, config.task.seed);
  const { world, robot } = simulation;
  const notices: string[] = [];
  const { clock, cameras: rendered } = simulation;
  const parts = { own: rendered, clock, rateHz: config.cameras.frame_rate_hz, loadNative, onNotice: (text: string) => void notices.push(text) };
  const cameras = await openCameras(sources, parts).catch((error: unknown) => {
    simulation.close();
    throw error;
  });
  const verdict = (): Verdict => task.verdict(world, scene);
  let completedNs: bigint | undefined;
  const unwatch = simulation.watch(() => {
    if (completedNs === undefined && verdict() === 'succeeded') completedNs = world.timeNs;
  });
  return {
    robot,
    cameras,
    task: task.name,
    instruction: config.task.instruction ?? scene.instruction,
    chunksMax: config.control.chunks_max ?? task.chunksMax,
    path: `setpoint stream 1 kHz, bridge protocol on virtual CAN FD, firmware 4 kHz, ${JOINTS.length} Damiao motors (simulated)`,
    notices,
    motion: () => summaryOf(simulation.motors),
    watch: (watcher) => simulation.watchCycles(eachCycle(robot.joints.length, () => world.state(), watcher)),
    nowNs: () => world.timeNs,
    status: () => statusOf(simulation),
    verdict,
    completedNs: () => completedNs,
    snapshot: () => simulation.snapshot(),
    restore: (snapshot, before) => {
      simulation.restore(snapshot);
      completedNs = before;
    },
    close: async () => {
      unwatch();
      // The simulation's own have nothing to release; those that were opened here do.
      await cameras.close().finally(() => simulation.close());
    },
  };
}

/** What loadPolicy is given for a configuration. */
export function policyOptions({ policy }: RobotConfig): LoadPolicyOptions {
  const { checkpoint_dir: checkpoint = '', device, precision, allow_uncertified: allowUncertified, isolate, threads, plan } = policy;
  const optional = {
    ...(policy.backend === 'onnx' ? { backend: policy.backend } : {}),
    ...(policy.kv_cache === undefined ? {} : { kvCache: policy.kv_cache }),
    ...(threads === undefined ? {} : { threads }),
    ...(plan === undefined ? {} : { plan }),
  };
  return { checkpoint, job: jobOf(policy), device, precision, allowUncertified, isolate, ...optional };
}

/** The job of a configuration: its own, the checkpoint's, or that of the robot type. An exported policy has none but its own. */
export function jobOf({ job, checkpoint_dir, backend }: RobotConfig['policy']): LoadPolicyOptions['job'] {
  if (job !== undefined) return job;
  if (checkpoint_dir === undefined) return SIM_JOB;
  const file = join(checkpoint_dir, JOB_FILE);
  return backend === 'onnx' || existsSync(file) ? file : SIM_JOB;
}

type Limits = RobotConfig['control']['limits'];

/** A robot's joints with the limits of a configuration, which the reader has checked to be no wider. */
export function tightened(joints: readonly Joint[], limits: Limits): readonly Joint[] {
  return joints.map((joint) => {
    const { lower_rad, upper_rad, velocity_max_rad_per_s, acceleration_max_rad_per_s2, jerk_max_rad_per_s3 } = limits[joint.name] ?? {};
    return {
      name: joint.name,
      lowerRad: lower_rad ?? joint.lowerRad,
      upperRad: upper_rad ?? joint.upperRad,
      velocityMaxRadPerS: velocity_max_rad_per_s ?? joint.velocityMaxRadPerS,
      accelerationMaxRadPerS2: acceleration_max_rad_per_s2 ?? joint.accelerationMaxRadPerS2,
      jerkMaxRadPerS3: jerk_max_rad_per_s3 ?? joint.jerkMaxRadPerS3,
    };
  });
}
