/**
 * The simulated table top in virtual time: it advances by exactly one physics step when stepped, and never otherwise, so equal inputs give equal
 * bits. Owns the physics state and logs button presses; knows no policy, no task and no wall clock.
 */
import { PremotorError } from '../errors.js';
import type { RobotState } from '../robot/robot.js';
import { HOME_TIP, inverseKinematics, JOINTS, type Vector3 } from './arm.js';
import { Mujoco } from './mujoco.js';
import { BLOCK, BUTTON, BUTTON_COLOURS, type ButtonColour, type SceneKind, STEP_NS, sceneXml } from './scene.js';

/** Where a button stands on the table, metres. */
export interface TablePoint {
  readonly x: number;
  readonly y: number;
}
export type ButtonLayout = Readonly<Record<ButtonColour, TablePoint>>;

/** Where the block lies: its centre and its turn about the vertical. */
export interface BlockPose extends TablePoint {
  readonly yawRad: number;
}

/** Where everything stands at the start of an episode. */
export type TableLayout =
  | { readonly kind: 'buttons'; readonly buttons: ButtonLayout }
  | { readonly kind: 'block'; readonly block: BlockPose; readonly zone: TablePoint };

/** One press of a button, at the virtual time when it counted. */
export interface Press {
  readonly colour: ButtonColour;
  readonly timeNs: bigint;
}

/** A world at one moment, as plain data. */
export interface WorldSnapshot {
  readonly kind: SceneKind;
  readonly timeNs: bigint;
  /** mjSTATE_INTEGRATION */
  readonly physics: Float64Array;
  readonly presses: readonly Press[];
  /** Buttons that are down and were counted. */
  readonly down: readonly ButtonColour[];
}

interface ButtonState {
  readonly mocap: number;
  readonly position: number;
  isDown: boolean;
}

export class World {
  readonly kind: SceneKind;
  readonly mujoco: Mujoco;
  readonly #joints: readonly { readonly position: number; readonly velocity: number; readonly actuator: number }[];
  readonly #buttons: ReadonlyMap<ButtonColour, ButtonState>;
  readonly #block: { readonly position: number; readonly velocity: number; readonly zoneMocap: number } | undefined;
  readonly #tip: number;
  readonly #presses: Press[] = [];
  #timeNs = 0n;

  private constructor(kind: SceneKind, mujoco: Mujoco) {
    this.kind = kind;
    this.mujoco = mujoco;
    this.#joints = JOINTS.map(({ name }) => ({ ...mujoco.jointAddress(mujoco.id('joint', name)), actuator: mujoco.id('actuator', name) }));
    this.#buttons = new Map(
      (kind === 'buttons' ? BUTTON_COLOURS : []).map((colour) => [
        colour,
        {
          mocap: mujoco.mocapIndex(mujoco.id('body', `mount_${colour}`)),
          position: mujoco.jointAddress(mujoco.id('joint', `button_${colour}`)).position,
          isDown: false,
        },
      ]),
    );
    if (kind === 'block')
      this.#block = { ...mujoco.jointAddress(mujoco.id('joint', 'block')), zoneMocap: mujoco.mocapIndex(mujoco.id('body', 'zone')) };
    this.#tip = mujoco.id('site', 'tip');
  }

  static async open(kind: SceneKind = 'buttons'): Promise<World> {
    return new World(kind, await Mujoco.open(sceneXml(kind)));
  }

  /** Time 0: arm at home and at rest, everything at its place, no press logged. Errors: SIM_LAYOUT when the layout is for another scene. */
  reset(layout: TableLayout): void {
    if (layout.kind !== this.kind) {
      const message = `This world holds the scene "${this.kind}". Open one for "${layout.kind}".`;
      throw new PremotorError('SIM_LAYOUT', message, { expected: this.kind, found: layout.kind });
    }
    this.mujoco.resetState();
    const home = inverseKinematics(HOME_TIP);
    const { positions, controls, mocapPositions } = this.mujoco;
    this.#joints.forEach((joint, index) => {
      positions[joint.position] = home[index] ?? 0;
      controls[joint.actuator] = home[index] ?? 0;
    });
    for (const [colour, state] of this.#buttons) {
      if (layout.kind === 'buttons') mocapPositions.set([layout.buttons[colour].x, layout.buttons[colour].y, 0], state.mocap * 3);
      state.isDown = false;
    }
    if (layout.kind === 'block' && this.#block) {
      const { x, y, yawRad } = layout.block;
      positions.set([x, y, BLOCK.halfEdge, Math.cos(yawRad / 2), 0, 0, Math.sin(yawRad / 2)], this.#block.position);
      mocapPositions.set([layout.zone.x, layout.zone.y, 0], this.#block.zoneMocap * 3);
    }
    this.#presses.length = 0;
    this.#timeNs = 0n;
    this.mujoco.forward();
  }

  /** Everything that what comes next depends on. */
  snapshot(): WorldSnapshot {
    const down = [...this.#buttons].filter(([, state]) => state.isDown).map(([colour]) => colour);
    return { kind: this.kind, timeNs: this.#timeNs, physics: this.mujoco.saveState(), presses: [...this.#presses], down };
  }

  /** Goes on from there, with the same bits as the world that the snapshot was taken of. Errors: SIM_LAYOUT, SIM_SNAPSHOT. */
  restore({ kind, timeNs, physics, presses, down }: WorldSnapshot): void {
    if (kind !== this.kind) {
      const message = `This world holds the scene "${this.kind}". Open one for "${kind}".`;
      throw new PremotorError('SIM_LAYOUT', message, { expected: this.kind, found: kind });
    }
    this.mujoco.loadState(physics);
    this.#timeNs = timeNs;
    this.#presses.splice(0, this.#presses.length, ...presses);
    for (const [colour, state] of this.#buttons) state.isDown = down.includes(colour);
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
    this.#logPresses();
  }

  /** One step's time in which nothing moves: for the start of a robot that is held meanwhile. */
  pause(): void {
    this.#timeNs += STEP_NS;
  }

  /** Puts the arm at a pose and at rest, whatever stands there; time stays. What it touches moves with the next step. */
  place(positionsRad: Float64Array): void {
    const { positions, velocities, controls } = this.mujoco;
    this.#joints.forEach((joint, index) => {
      positions[joint.position] = positionsRad[index] ?? 0;
      velocities[joint.velocity] = 0;
      controls[joint.actuator] = positionsRad[index] ?? 0;
    });
    this.mujoco.forward();
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
  #logPresses(): void {
    const { positions } = this.mujoco;
    for (const [colour, state] of this.#buttons) {
      const travel = -(positions[state.position] ?? 0);
      if (!state.isDown && travel > BUTTON.pressedAt) {
        state.isDown = true;
        this.#presses.push({ colour, timeNs: this.#timeNs });
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

  /** Every press since the reset, in order. */
  get pressLog(): readonly Press[] {
    return this.#presses;
  }

  /** Presses of one button since the reset. */
  presses(colour: ButtonColour): number {
    return this.#presses.filter((press) => press.colour === colour).length;
  }

  /** The block's centre now, metres; undefined in a scene without one. */
  block(): Vector3 | undefined {
    if (!this.#block) return undefined;
    const [x, y, z] = this.mujoco.positions.subarray(this.#block.position, this.#block.position + 3);
    return [x ?? 0, y ?? 0, z ?? 0];
  }

  /** The block's speed, metres per second; 0 in a scene without one. */
  blockSpeedMPerS(): number {
    if (!this.#block) return 0;
    return Math.hypot(...this.mujoco.velocities.subarray(this.#block.velocity, this.#block.velocity + 3));
  }

  /** Gives the block a sudden sideways velocity, as a knock against the table would. Does nothing in a scene without one. */
  nudgeBlock(velocityXMPerS: number, velocityYMPerS: number): void {
    if (this.#block) this.mujoco.velocities.set([velocityXMPerS, velocityYMPerS], this.#block.velocity);
  }

  /** Moves all buttons along the table. Does nothing in a scene without them. */
  slideButtons(xM: number, yM: number): void {
    const { mocapPositions } = this.mujoco;
    for (const { mocap } of this.#buttons.values()) {
      mocapPositions[mocap * 3] = (mocapPositions[mocap * 3] ?? 0) + xM;
      mocapPositions[mocap * 3 + 1] = (mocapPositions[mocap * 3 + 1] ?? 0) + yM;
    }
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
