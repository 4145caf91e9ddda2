/**
 * The simulated arm's motors: which Damiao motors turn its joints, and what their power stages do to the physics. Everything between a plan and a
 * motor is native and the same as on a robot: setpoint stream, bridge protocol, firmware, motor protocol (cpp/rig). Owned by the simulation.
 */
import type { NativeDrive, NativeVirtualRobot } from '../native.js';
import { loadNative } from '../native.js';
import type { Joint, RobotState } from '../robot/robot.js';
import { SERVO, STEP_NS } from './scene.js';
import type { World } from './world.js';

/** 1 kHz: the rate of the setpoint stream. */
const PERIOD_NS = 1_000_000;
const LEAD_NS = 4_000_000;
const PLANNER_GRACE_NS = 50_000_000;
const TRACKING_MAX_RAD = 0.35;

/** Behind a belt of 2 : 1, because a Damiao motor takes stiffness up to 500 N m/rad and damping up to 5 N m s/rad at its own shaft. */
const RATIO = 2;

/** A DM4310's ranges (registers 21 to 23). The damping acts against all motion: the arm lags as it did in the demonstrations. */
function drive(index: number): NativeDrive {
  return {
    motorId: 0x01 + index,
    masterId: 0x11 + index,
    timeoutMs: 50,
    positionMaxRad: 12.5,
    velocityMaxRadPerS: 30,
    torqueMaxNm: SERVO.torqueMaxNm / RATIO,
    stiffnessNmPerRad: SERVO.stiffnessNmPerRad / RATIO ** 2,
    dampingNmSPerRad: SERVO.dampingNmSPerRad / RATIO ** 2,
    ratio: RATIO,
    zeroRad: 0,
    velocityShare: 0,
  };
}

/** Values per joint of the two arrays that go over to the native side and back (NativeVirtualRobot.advance). */
const MEASURED = 3;
const DEMANDED = 8;
/** A multiple of the feedback's trust: no torque beyond what the motors have may look like an over-current of theirs. */
const TORQUE_HEADROOM = 1.5;

export class SimulatedMotors {
  readonly native: NativeVirtualRobot;
  /** What the stream tells the joints now, [joints]; NaN while it tells nothing. */
  readonly setpointRad: Float64Array;
  readonly #joints: number;
  readonly #measured: Float64Array;
  readonly #demand: Float64Array;
  readonly #targets: Float64Array;
  readonly #torques: Float64Array;

  /** New motors without power, at the world's present pose or at the one that they are to be found in. */
  constructor(world: World, joints: readonly Joint[], boot: number, foundRad?: Float64Array) {
    const { timeNs, positionsRad: presentRad } = world.state();
    const positionsRad = foundRad ?? presentRad;
    this.#joints = joints.length;
    this.setpointRad = new Float64Array(joints.length).fill(Number.NaN);
    this.#measured = new Float64Array(MEASURED * joints.length);
    this.#demand = new Float64Array(DEMANDED * joints.length);
    this.#targets = new Float64Array(joints.length);
    this.#torques = new Float64Array(joints.length);
    this.native = new (loadNative().VirtualRobot)(
      {
        motion: {
          joints: joints.map(({ lowerRad, upperRad, velocityMaxRadPerS, accelerationMaxRadPerS2, jerkMaxRadPerS3 }) => {
            const torqueMaxNm = TORQUE_HEADROOM * SERVO.torqueMaxNm;
            return { lowerRad, upperRad, velocityMaxRadPerS, accelerationMaxRadPerS2, jerkMaxRadPerS3, torqueMaxNm };
          }),
          periodNs: PERIOD_NS,
          leadNs: LEAD_NS,
          plannerGraceNs: PLANNER_GRACE_NS,
          wantsFd: true,
          nonceSeed: boot,
        },
        drives: joints.map((_, index) => drive(index)),
        positionRad: positionsRad,
        boot,
        trackingMaxRad: TRACKING_MAX_RAD,
      },
      timeNs,
    );
  }

  /**
   * One physics step of everything before the physics; gives the targets of the world's position servos, [joints], valid until the next call. `lag`
   * delays the motors' position commands.
   *
   * A motor's torque is K (p - q) + D (v - dq) + t. The world's servos compute kp (target - q) - kv dq, so this target has them give the same torque
   * now, and the integrator keeps treating stiffness and damping implicitly.
   */
  step(world: World, lag: (positions: Float64Array) => Float64Array): Float64Array {
    return this.#step(world.state(), lag);
  }

  /** The same for motors that hold a pose while nothing else moves: what they tell the physics is not asked for. */
  hold(timeNs: bigint, heldRad: Float64Array): void {
    this.#step({ timeNs, positionsRad: heldRad, velocitiesRadPerS: new Float64Array(this.#joints) }, (positions) => positions);
  }

  #step({ timeNs, positionsRad: q, velocitiesRadPerS: dq }: RobotState, lag: (positions: Float64Array) => Float64Array): Float64Array {
    for (let joint = 0; joint < this.#joints; joint++)
      this.#measured.set([q[joint] ?? 0, dq[joint] ?? 0, this.#torques[joint] ?? 0], MEASURED * joint);
    this.native.advance(timeNs + STEP_NS, this.#measured, this.#demand);
    const told = (joint: number, value: number): number => this.#demand[DEMANDED * joint + value] ?? 0;
    for (let joint = 0; joint < this.#joints; joint++) this.#targets[joint] = told(joint, 0) === 1 ? told(joint, 1) : (q[joint] ?? 0);
    const positions = lag(this.#targets);
    for (let joint = 0; joint < this.#joints; joint++) {
      const [at, speed] = [q[joint] ?? 0, dq[joint] ?? 0];
      const wanted = told(joint, 3) * ((positions[joint] ?? 0) - at) + told(joint, 4) * (told(joint, 2) - speed) + told(joint, 5);
      const torque = Math.max(-told(joint, 6), Math.min(told(joint, 6), wanted));
      this.#torques[joint] = torque;
      this.#targets[joint] = at + (torque + SERVO.dampingNmSPerRad * speed) / SERVO.stiffnessNmPerRad;
      this.setpointRad[joint] = this.#demand[DEMANDED * joint + 7] ?? Number.NaN;
    }
    return this.#targets;
  }
}
