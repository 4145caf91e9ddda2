/**
 * Opens what a robot configuration describes: the robot, its cameras, its task and how its success is judged. Owned by whoever runs an episode; the
 * one place that knows which robot types exist.
 */
import type { FrameSource } from '../cameras/source.js';
import type { Vocabulary } from '../config/reader.js';
import type { RobotConfig } from '../config/schema.js';
import type { Robot } from '../robot/robot.js';
import { JOINTS } from '../sim/arm.js';
import type { SimulationSnapshot } from '../sim/simulation.js';
import { TASK_NAMES, type Verdict } from '../sim/tasks/task.js';
import type { MotionSample, RobotStatus } from '../tap/observer.js';
import { openCanRig } from './rig-can.js';
import { openSimRig } from './rig-sim.js';

export { jobOf, policyOptions, tightened } from './policy-options.js';

/** What a configuration may name. */
export const VOCABULARY: Vocabulary = { tasks: TASK_NAMES, joints: JOINTS };

/** How an episode went between plan and motor. */
export interface MotionSummary {
  /** Setpoints, one per cycle, and cycles that nobody served. */
  readonly cycles: number;
  readonly missed: number;
  readonly chunks: number;
  readonly chunksRefused: number;
  /** Plans that ended without a successor: once per chunk of a synchronous cycle. */
  readonly expired: number;
  /**
   * Setpoint sets that the firmware followed, values that it had to clamp, frames that it did not count as its host's; null where the stream process
   * does not tell.
   */
  readonly setsFollowed: number | null;
  readonly valuesClamped: number | null;
  readonly framesIgnored: number | null;
}

/** A robot with its task set up, at the start of an episode. */
export interface Rig {
  readonly robot: Robot;
  readonly cameras: FrameSource;
  /** Of a robot in the real world any name. */
  readonly task: string;
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
  /** True where nothing can judge the task: the verdict stays 'open', and an episode that ran to its end is no failure. */
  readonly isUnjudged?: boolean;
  /** How the task stands now. */
  verdict(): Verdict;
  /** Time on the robot's clock at which the task was done for the first time; undefined when it was not. */
  completedNs(): bigint | undefined;
  /**
   * Whether an episode about this can begin here; changes nothing. Errors: TASK_INSTRUCTION (none for a real robot), SIM_TASK (no such task, or one
   * for another table than the one that follows a real bus).
   */
  checkTask(task: RobotConfig['task']): void;
  /**
   * What the next episode is about, at rest between two: a robot in the real world is told another instruction, a simulated table that follows a real
   * bus is laid anew. Absent where the rig is opened anew instead. Errors: those of checkTask.
   */
  setTask?(task: RobotConfig['task']): void;
  /** The world now; absent for a real robot, whose world needs no keeping. */
  snapshot?(): SimulationSnapshot;
  /** Puts the world of an interrupted episode back, and when its task was done. */
  restore?(snapshot: SimulationSnapshot, completedNs: bigint | undefined): void;
  close(): Promise<void>;
}

/** Errors: SIM_TASK, SIM_MODEL, those of openCameras; of a robot on a bus CAMERA_MISSING, CONTROL_JOINTS, URDF_*, and those of openStreamRobot. */
export function openRig(config: RobotConfig): Promise<Rig> {
  return config.robot.type === 'can' ? openCanRig(config) : openSimRig(config);
}
