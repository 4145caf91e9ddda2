/**
 * The robot as the control cycle sees it: joints with limits, a measured state, and one setpoint per period. The simulated robot
 * (src/sim/simulation.ts) implements it; the real-time stream will implement it on hardware. Types only: nothing here moves anything.
 */

/** One joint: its name and the limits that no setpoint may exceed. */
export interface Joint {
  readonly name: string;
  readonly lowerRad: number;
  readonly upperRad: number;
  readonly velocityMaxRadPerS: number;
}

export interface RobotState {
  /** Time of the measurement on the robot's clock, the clock that also stamps the frames. */
  readonly timeNs: bigint;
  /** [joints] */
  readonly positionsRad: Float64Array;
  /** [joints] */
  readonly velocitiesRadPerS: Float64Array;
}

export interface Robot {
  readonly joints: readonly Joint[];
  /** Time between two setpoints. */
  readonly periodNs: bigint;
  getState(): Promise<RobotState>;
  /**
   * Gives the setpoint of the next period, [joints], and resolves when that period is over. Between two calls a robot holds its last setpoint by
   * itself: nobody has to call step() while a prediction is being made.
   */
  step(setpointRad: Float64Array): Promise<void>;
}
