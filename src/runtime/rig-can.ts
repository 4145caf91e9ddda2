/**
 * A robot behind a firmware bridge as a rig: the stream process on its bus, found or started, and cameras. Its world is real, and then cameras are
 * those of the configuration and nobody judges the task; or it is simulated (hardware in the loop), and then cameras and judge are those of a table
 * whose arm follows the measured joints. Owned by rig.ts; it has no deadline, those are the stream process's.
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import type { CameraClock } from '../cameras/clock.js';
import { openCameras, ownCameras } from '../cameras/open.js';
import { CAMERA_KEY_PREFIX } from '../cameras/simulated.js';
import type { FrameSource } from '../cameras/source.js';
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import { loadNative, type NativeStreamClient } from '../native.js';
import type { Robot, RobotState } from '../robot/robot.js';
import { openStreamRobot, type StreamRobot, streamDied } from '../robot/stream-robot.js';
import { FollowedWorld } from '../sim/followed-world.js';
import { CAMERAS, type SceneKind } from '../sim/scene.js';
import { taskNamed } from '../sim/tasks/index.js';
import type { Task, TaskScene, Verdict } from '../sim/tasks/task.js';
import { checkJob, jobNeeds } from './job-needs.js';
import { eachCycle } from './motion-samples.js';
import type { MotionSummary, Rig } from './rig.js';
import { busJoints, streamConfiguration } from './stream-configuration.js';
import { StreamSamples } from './stream-samples.js';

/** What differs between a real world and a simulated one. */
interface Surroundings extends Pick<Rig, 'verdict' | 'completedNs' | 'isUnjudged'> {
  about(): Pick<Rig, 'task' | 'instruction' | 'chunksMax'>;
  checkTask(task: RobotConfig['task']): void;
  setTask(task: RobotConfig['task']): void;
  readonly robot: Robot;
  readonly own: FrameSource;
  /** Of its own, for reports. */
  counts(): Readonly<Record<string, number>>;
  close(): void;
}

const TABLES: Readonly<Record<SceneKind, string>> = { buttons: 'buttons', block: 'a block' };
const NO_CAMERAS: FrameSource = { cameras: [], capture: async () => [], close: async () => undefined };
const keyOf = (name: string): string => `${CAMERA_KEY_PREFIX}${name}`;

/** The robot's clock is the machine's monotonic one. */
function clockOf(client: NativeStreamClient): CameraClock {
  return { isReal: true, nowNs: () => client.nowNs(), fromMonotonicNs: (monotonicNs) => monotonicNs };
}

/**
 * Errors: CAMERA_MISSING, CONTROL_JOINTS, JOB_*, CONFIG_MISSING and URDF_* before anything is opened; those of openStreamRobot, openCameras, and in a
 * simulated world SIM_TASK and SIM_MODEL.
 */
export async function openCanRig(config: RobotConfig): Promise<Rig> {
  const needs = await jobNeeds(config);
  checkJob(config, needs);
  const configuration = streamConfiguration(config);
  mkdirSync(dirname(configuration.sharedMemory), { recursive: true, mode: 0o700 });
  const { stream_output: output } = config.robot;
  const stream = await openStreamRobot({
    configuration,
    names: busJoints(config).map(({ name }) => name),
    ...(output === undefined ? {} : { output }),
  });
  const samples = new StreamSamples(stream.process.client);
  try {
    return await furnish(config, stream, samples, needs.cameras);
  } catch (error) {
    samples.close();
    // Nothing has moved. A process that ran before goes on.
    if (stream.process.isNew) await stream.process.stop();
    else stream.detach();
    throw error;
  }
}

async function furnish(config: RobotConfig, stream: StreamRobot, samples: StreamSamples, keys: readonly string[]): Promise<Rig> {
  const { client, pid, isNew } = stream.process;
  const isSimulated = config.robot.world === 'sim';
  const names = isSimulated ? CAMERAS.filter((name) => keys.includes(keyOf(name))).map(keyOf) : [];
  const wanted = ownCameras(config.cameras.sources, names);
  const around = isSimulated ? await simulated(config, stream, samples, wanted) : real(config, stream);
  const notices = client.warnings().map(({ code, message }) => `${code}: ${message}`);
  if (!isNew) notices.push(`Attached to the stream process ${pid}, which ran already; nothing that it does was changed.`);
  const parts = { own: around.own, clock: clockOf(client), rateHz: config.cameras.frame_rate_hz, loadNative };
  const cameras = await openCameras(config.cameras.sources, { ...parts, onNotice: (text) => void notices.push(text) }).catch((error: unknown) => {
    around.close();
    throw error;
  });
  const { robot } = around;
  const end = async (): Promise<void> => {
    around.close();
    samples.close();
    await cameras.close().finally(() => endStream(config, stream, notices));
  };
  let ended: Promise<void> | undefined;
  const { verdict, completedNs, isUnjudged = false } = around;
  return {
    robot,
    cameras,
    get task() {
      return around.about().task;
    },
    get instruction() {
      return around.about().instruction;
    },
    get chunksMax() {
      return around.about().chunksMax;
    },
    checkTask: (task) => around.checkTask(task),
    setTask: (task) => {
      around.checkTask(task);
      around.setTask(task);
    },
    path:
      `setpoint stream 1 kHz (process ${pid}), bridge protocol on ${config.robot.bus}, ` +
      `${robot.joints.length} joints${isSimulated ? ', simulated table' : ''}`,
    notices,
    isUnjudged,
    motion: () => summaryOf(client),
    watch: (watcher) => samples.add(eachCycle(robot.joints.length, () => stateOf(client), watcher)),
    nowNs: () => client.nowNs(),
    status: () => statusOf(config, stream, around.counts()),
    verdict,
    completedNs,
    close: () => {
      ended ??= end();
      return ended;
    },
  };
}

function real({ task: first, control }: RobotConfig, { robot }: StreamRobot): Surroundings {
  let task = first;
  return {
    robot,
    own: NO_CAMERAS,
    // The reader has seen to it that both are there.
    about: () => ({ task: task.name, instruction: task.instruction ?? '', chunksMax: control.chunks_max ?? 1 }),
    checkTask: ({ name, instruction }) => {
      if (instruction === undefined) throw noInstruction(name);
    },
    setTask: (next) => {
      task = next;
    },
    isUnjudged: true,
    verdict: () => 'open',
    completedNs: () => undefined,
    counts: () => ({}),
    close: () => undefined,
  };
}

function noInstruction(task: string): PremotorError {
  const [expected, found] = ['an instruction', `task ${task} without one`];
  const message = `A robot in the real world is told what to do: expected ${expected}, found ${found}. Give --instruction too.`;
  return new PremotorError('TASK_INSTRUCTION', message, { field: 'task.instruction', expected, found });
}

/** Errors: SIM_TASK. */
function sceneOf({ name, seed, instruction }: RobotConfig['task'], kind?: SceneKind): { task: Task; scene: TaskScene; told: string } {
  const task = taskNamed(name);
  const scene = task.scene(seed);
  if (kind === undefined || kind === task.kind) return { task, scene, told: instruction ?? scene.instruction };
  const [expected, found] = [`a task for a table with ${TABLES[kind]}`, `${name}, for one with ${TABLES[task.kind]}`];
  const message = `The table that follows the robot is not replaced: expected ${expected}, found ${found}. Start again with task.name ${name}.`;
  throw new PremotorError('SIM_TASK', message, { field: 'task', expected, found });
}

/** Errors: SIM_TASK, SIM_MODEL, ROBOT_NO_FEEDBACK. */
async function simulated(config: RobotConfig, stream: StreamRobot, samples: StreamSamples, wanted: readonly string[]): Promise<Surroundings> {
  let now = sceneOf(config.task);
  const { kind } = now.task;
  const { client } = stream.process;
  // The arm has to begin where the bridge says that it is.
  await stream.robot.getState();
  const table = await FollowedWorld.open({
    kind,
    cameras: CAMERAS.filter((name) => wanted.includes(keyOf(name))),
    fps: config.cameras.frame_rate_hz,
    catchUp: () => samples.take(),
  });
  const verdict = (): Verdict => now.task.verdict(table.world, now.scene);
  let completedNs: bigint | undefined;
  const begin = (): void => {
    table.reset(now.scene.layout, client.nowNs(), client.status().measuredRad);
    completedNs = undefined;
  };
  begin();
  samples.add((some) => table.follow(some));
  table.watch(() => {
    if (completedNs === undefined && verdict() === 'succeeded') completedNs = client.nowNs();
  });
  const moveTo = async (positionsRad: Float64Array): Promise<void> => {
    table.hold(true);
    try {
      await stream.robot.moveTo(positionsRad);
    } finally {
      table.hold(false);
      begin();
    }
  };
  return {
    robot: withMove(stream.robot, moveTo),
    own: table.cameras,
    about: () => ({ task: now.task.name, instruction: now.told, chunksMax: config.control.chunks_max ?? now.task.chunksMax }),
    checkTask: (next) => void sceneOf(next, kind),
    setTask: (next) => {
      now = sceneOf(next, kind);
      begin();
    },
    verdict,
    completedNs: () => completedNs,
    counts: () => {
      const { framesSkipped, holes, leftOutMs } = table.counts();
      return { world_frames_skipped: framesSkipped, world_holes: holes, world_left_out_ms: leftOutMs };
    },
    close: () => table.close(),
  };
}

/** A robot whose way to the beginning of an episode is known to its world. */
function withMove(robot: Robot, moveTo: Robot['moveTo']): Robot {
  return {
    joints: robot.joints,
    periodNs: robot.periodNs,
    getState: () => robot.getState(),
    arm: () => robot.arm(),
    disarm: () => robot.disarm(),
    stop: (category) => robot.stop(category),
    rest: () => robot.rest(),
    beat: (forMs) => robot.beat(forMs),
    push: (plan) => robot.push(plan),
    moveTo,
    executed: () => robot.executed(),
    waitUntil: (timeNs) => robot.waitUntil(timeNs),
    ...(robot.indicate ? { indicate: (pattern) => robot.indicate?.(pattern) } : {}),
  };
}

function stateOf(client: NativeStreamClient): RobotState {
  const { measuredRad, measuredRadPerS } = client.status();
  return { timeNs: client.nowNs(), positionsRad: measuredRad, velocitiesRadPerS: measuredRadPerS };
}

/** What the firmware counts stays in the stream process. */
function summaryOf(client: NativeStreamClient): MotionSummary {
  const { cycles, missed, accepted, expired, refused } = client.counts();
  const chunksRefused = Object.values(refused).reduce((total, value) => total + value, 0);
  return { cycles, missed, chunks: accepted, chunksRefused, expired, setsFollowed: null, valuesClamped: null, framesIgnored: null };
}

function statusOf(
  { robot: { stream_output } }: RobotConfig,
  { process }: StreamRobot,
  more: Readonly<Record<string, number>>,
): ReturnType<Rig['status']> {
  const { client } = process;
  const { stream, link, bridge, faultCode, linkFault, isAtRest } = client.status();
  const { cycles, missed, chunks, chunksRefused, expired } = summaryOf(client);
  const { setsSent, setsUnsent } = client.loopCounts();
  const died = process.isAlive ? undefined : streamDied(process.pid, stream_output);
  return {
    timeNs: client.nowNs(),
    stream,
    link,
    bridge,
    faultCode: died?.code ?? linkFault?.code ?? faultCode,
    faultMessage: died?.message ?? linkFault?.message ?? '',
    isAtRest,
    counts: { cycles, missed, chunks, chunks_refused: chunksRefused, expired, sets_sent: setsSent, sets_unsent: setsUnsent, ...more },
    temperaturesC: {},
  };
}

/**
 * What becomes of the stream process. It is stopped, which stops the robot by its category and takes its power; it stays where it has to hold a robot
 * that was to keep its power, or was told to stay. Errors: STREAM_PROCESS_STOP.
 */
async function endStream({ robot, control }: RobotConfig, stream: StreamRobot, notices: string[]): Promise<void> {
  const { client, pid } = stream.process;
  const isHolding = stream.process.isAlive && client.status().link === 'armed';
  if (robot.stays === true || (control.stop_category === 2 && isHolding)) {
    notices.push(`The stream process ${pid} stays${isHolding ? ' and holds the robot with power' : ''}; premotor stop ends it.`);
    stream.detach();
    return;
  }
  await stream.process.stop();
}
