/**
 * The simulated arm as a rig: world, motors and cameras in this process, on virtual time or on the clock's pace, and the task that its world judges.
 * Owned by rig.ts; it knows no bus.
 */
import { openCameras, ownCameras } from '../cameras/open.js';
import { CAMERA_KEY_PREFIX } from '../cameras/simulated.js';
import type { RobotConfig } from '../config/schema.js';
import { loadNative } from '../native.js';
import { JOINTS } from '../sim/arm.js';
import type { SimulatedMotors } from '../sim/motors.js';
import { CAMERAS } from '../sim/scene.js';
import { Simulation } from '../sim/simulation.js';
import { taskNamed } from '../sim/tasks/index.js';
import type { Verdict } from '../sim/tasks/task.js';
import type { RobotStatus } from '../tap/observer.js';
import { eachCycle } from './motion-samples.js';
import { tightened } from './policy-options.js';
import type { MotionSummary, Rig } from './rig.js';

/** Counters of the bridge (protocol/README.md): foreign to first set refused, sets accepted, values clamped. */
const IGNORED = 10;
const ACCEPTED = 10;
const CLAMPED = 11;

/** The firmware is in this process: it tells everything. */
type FullSummary = { readonly [K in keyof MotionSummary]: number };

function summaryOf({ native }: SimulatedMotors): FullSummary {
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

/** Errors: SIM_TASK, SIM_MODEL, and those of openCameras. */
export async function openSimRig(config: RobotConfig): Promise<Rig> {
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
    checkTask: ({ name }) => void taskNamed(name),
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
