/**
 * The robot as the control cycle sees it: joints with limits, a measured state, power, and plans that are placed at absolute times and executed by
 * somebody else, the setpoint stream. MotionRobot (src/robot/motion-robot.ts) implements it for the simulated robot and for the stream process.
 * Types and names only: nothing here moves anything.
 */

/** One joint: its name and the limits that no setpoint may exceed. */
export interface Joint {
  readonly name: string;
  readonly lowerRad: number;
  readonly upperRad: number;
  readonly velocityMaxRadPerS: number;
  readonly accelerationMaxRadPerS2: number;
  readonly jerkMaxRadPerS3: number;
}

export interface RobotState {
  /** Time of the measurement on the robot's clock, the clock that also stamps the frames. */
  readonly timeNs: bigint;
  /** [joints] */
  readonly positionsRad: Float64Array;
  /** [joints] */
  readonly velocitiesRadPerS: Float64Array;
}

/** A chunk for the stream: knots [joints] at startNs, startNs + knotNs, ... of the robot's clock. It replaces every plan from the splice on. */
export interface Plan {
  readonly startNs: bigint;
  /** Until then the plan before it goes on; position, velocity and acceleration are continuous there. Default: now. */
  readonly spliceNs?: bigint;
  readonly knotNs: bigint;
  readonly knots: readonly Float64Array[];
}

/** A knot time that has passed: where the robot was told to be then, clamped as it was. */
export interface ExecutedKnot {
  /** What push() gave for the plan. */
  readonly plan: bigint;
  readonly knot: number;
  readonly timeNs: bigint;
  /** A limit held some joint back since the knot before. */
  readonly isClamped: boolean;
  /** [joints] */
  readonly positionsRad: Float64Array;
}

/** What the lamp of the firmware bridge may say, in the order of their numbers on the bus (protocol/README.md, INDICATE). */
export const INDICATIONS = ['starting', 'waiting', 'ready', 'holding', 'running', 'fault', 'maintenance'] as const;
export type Indication = (typeof INDICATIONS)[number];

/** IEC 60204-1: 1 comes to rest, then power is removed; 2 comes to rest, power is kept. */
export type StopCategory = 1 | 2;

export interface Robot {
  readonly joints: readonly Joint[];
  /** Time between two setpoints. */
  readonly periodNs: bigint;
  getState(): Promise<RobotState>;
  /** Power on, at rest where the robot is. Clears a latched fault first. Errors: BRIDGE_*, STREAM_*, ROBOT_TIMEOUT. */
  arm(): Promise<void>;
  /** Comes to rest, then power off. Errors: ROBOT_TIMEOUT. */
  disarm(): Promise<void>;
  /** A command, in every state: comes to rest within the limits. It needs no planner to hold afterwards. */
  stop(category?: StopCategory): void;
  /** Resolves when no setpoint moves any more. Errors: ROBOT_TIMEOUT. */
  rest(): Promise<void>;
  /** The control cycle is alive and vouches for the plan for so long. Without it a robot whose plan is over latches STREAM_PLANNER_LOST. */
  beat(forMs: number): void;
  /**
   * What the bridge's lamp says for the next three seconds: ask again every second, so that a dead host says nothing. It keeps nothing
   * alive, and the bridge's own fault comes first. Robots without a lamp have none.
   */
  indicate?(pattern: Indication): void;
  /** Gives the plan's number once the stream has taken it. Errors: STREAM_CHUNK_* when it was refused, STREAM_FULL, and those of a fault. */
  push(plan: Plan): Promise<bigint>;
  /**
   * Moves from rest to rest at a pose [joints], all joints together, and resolves there. It needs no planner. Errors: STREAM_POSE, as push and rest.
   */
  moveTo(positionsRad: Float64Array): Promise<void>;
  /** Everything executed since the last call, oldest first. */
  executed(): readonly ExecutedKnot[];
  /** Resolves when the robot's clock has come so far. Errors: the fault that the robot has latched. */
  waitUntil(timeNs: bigint): Promise<void>;
}
