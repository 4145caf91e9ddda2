/**
 * The simulated arm as a Robot: one setpoint is one physics step of the world, in virtual time. It adds nothing of its own: limits are the control
 * cycle's work, and joint stops the physics'.
 */
import type { Joint, Robot, RobotState } from '../robot/robot.js';
import { JOINTS } from './arm.js';
import { STEP_NS } from './scene.js';
import type { World } from './world.js';

export class SimulatedRobot implements Robot {
  readonly joints: readonly Joint[] = JOINTS;
  readonly periodNs = STEP_NS;
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  async getState(): Promise<RobotState> {
    return this.#world.state();
  }

  async step(setpointRad: Float64Array): Promise<void> {
    this.#world.step(setpointRad);
  }
}
