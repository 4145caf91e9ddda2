/**
 * The simulated table top in virtual time: it advances by exactly one physics step when stepped, and never otherwise, so equal inputs give equal bits.
 * Owns the physics state and counts button presses; knows no policy, no task and no wall clock.
 */
import { PremotorError } from '../errors.js';
import type { RobotState } from '../robot/robot.js';
import { HOME_TIP, inverseKinematics, JOINTS, type Vector3 } from './arm.js';
import { Mujoco } from './mujoco.js';
import { BUTTON, BUTTON_COLOURS, type ButtonColour, STEP_NS, sceneXml } from './scene.js';

/** Where a button stands on the table, metres. */
export interface TablePoint {
  readonly x: number;
  readonly y: number;
}
export type ButtonLayout = Readonly<Record<ButtonColour, TablePoint>>;

interface ButtonState {
  readonly mocap: number;
  readonly position: number;
  isDown: boolean;
  presses: number;
}

export class World {
  readonly mujoco: Mujoco;
  readonly #joints: readonly { readonly position: number; readonly velocity: number; readonly actuator: number }[];
  readonly #buttons: ReadonlyMap<ButtonColour, ButtonState>;
  readonly #tip: number;
  #timeNs = 0n;

  private constructor(mujoco: Mujoco) {
    this.mujoco = mujoco;
    this.#joints = JOINTS.map(({ name }) => ({ ...mujoco.jointAddress(mujoco.id('joint', name)), actuator: mujoco.id('actuator', name) }));
    this.#buttons = new Map(
      BUTTON_COLOURS.map((colour) => [
        colour,
        {
          mocap: mujoco.mocapIndex(mujoco.id('body', `mount_${colour}`)),
          position: mujoco.jointAddress(mujoco.id('joint', `button_${colour}`)).position,
          isDown: false,
          presses: 0,
        },
      ]),
    );
    this.#tip = mujoco.id('site', 'tip');
  }

  static async open(): Promise<World> {
    return new World(await Mujoco.open(sceneXml()));
  }

  /** Time 0: arm at home and at rest, buttons at their places and released. */
  reset(layout: ButtonLayout): void {
    this.mujoco.resetState();
    const home = inverseKinematics(HOME_TIP);
    const { positions, controls, mocapPositions } = this.mujoco;
    this.#joints.forEach((joint, index) => {
      positions[joint.position] = home[index] ?? 0;
      controls[joint.actuator] = home[index] ?? 0;
    });
    for (const [colour, state] of this.#buttons) {
      mocapPositions.set([layout[colour].x, layout[colour].y, 0], state.mocap * 3);
      state.isDown = false;
      state.presses = 0;
    }
    this.#timeNs = 0n;
    this.mujoco.forward();
  }

  get timeNs(): bigint {
    return this.#timeNs;
  }

  /** One physics step of STEP_NS with these joint targets. Errors: SIM_SETPOINT, SIM_DIVERGED. */
  step(setpointRad: Float64Array): void {
    if (setpointRad.length !== this.#joints.length || !setpointRad.every(Number.isFinite)) {
      throw new PremotorError('SIM_SETPOINT', 'The simulated arm got a setpoint that is no joint pose.', {
        expected: `${this.#joints.length} finite angles`,
        found: `[${setpointRad.join(', ')}]`,
      });
    }
    const { controls } = this.mujoco;
    this.#joints.forEach((joint, index) => {
      controls[joint.actuator] = setpointRad[index] ?? 0;
    });
    this.mujoco.step();
    this.#timeNs += STEP_NS;
    this.#checkState();
    this.#countPresses();
  }

  #checkState(): void {
    const { positions } = this.mujoco;
    if (positions.every(Number.isFinite)) return;
    throw new PremotorError('SIM_DIVERGED', 'The simulated world has diverged. Reset it; if setpoints were within the limits, please report this.', {
      expected: 'finite positions',
      found: `[${positions.join(', ')}] at ${Number(this.#timeNs) / 1e9} s`,
    });
  }

  /** With hysteresis, so that a button that trembles at the threshold counts once. */
  #countPresses(): void {
    const { positions } = this.mujoco;
    for (const state of this.#buttons.values()) {
      const travel = -(positions[state.position] ?? 0);
      if (!state.isDown && travel > BUTTON.pressedAt) {
        state.isDown = true;
        state.presses++;
      } else if (state.isDown && travel < BUTTON.releasedAt) state.isDown = false;
    }
  }

  state(): RobotState {
    const { positions, velocities } = this.mujoco;
    return {
      timeNs: this.#timeNs,
      positionsRad: Float64Array.from(this.#joints, (joint) => positions[joint.position] ?? 0),
      velocitiesRadPerS: Float64Array.from(this.#joints, (joint) => velocities[joint.velocity] ?? 0),
    };
  }

  /** Presses of each button since the reset. */
  presses(colour: ButtonColour): number {
    return this.#buttons.get(colour)?.presses ?? 0;
  }

  /** How far a button is pushed in, metres. */
  travel(colour: ButtonColour): number {
    return -(this.mujoco.positions[this.#buttons.get(colour)?.position ?? -1] ?? 0);
  }

  /** The tip's centre now, metres. */
  tip(): Vector3 {
    this.mujoco.updatePoses();
    const [x, y, z] = this.mujoco.sitePositions.subarray(this.#tip * 3, this.#tip * 3 + 3);
    return [x ?? 0, y ?? 0, z ?? 0];
  }

  close(): void {
    this.mujoco.close();
  }
}
