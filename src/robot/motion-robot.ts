/**
 * A robot behind the native motion path: turns the cycle's wishes into commands of the setpoint stream, and what the stream says into errors with
 * words. Owned by whoever opened the robot; it computes no setpoint and has no deadline, those are native.
 */
import { PremotorError } from '../errors.js';
import { callNativeNow, loadNative, type NativeLinkFault, type NativeMotion, type NativeMotionStatus } from '../native.js';
import { type ExecutedKnot, INDICATIONS, type Indication, type Joint, type Plan, type Robot, type RobotState, type StopCategory } from './robot.js';

/** The robot's clock: of a simulated world, or monotonic. */
export interface MotionClock {
  nowNs(): bigint;
  /** In virtual time it is this call that lets the time pass. */
  waitUntil(timeNs: bigint): Promise<void>;
}

export interface MotionRobotOptions {
  readonly native: NativeMotion;
  readonly clock: MotionClock;
  readonly joints: readonly Joint[];
  readonly periodNs: bigint;
  readonly measure: () => RobotState;
}

/** Robot time between two looks at the stream while waiting for it. */
const POLL_NS = 2_000_000n;
const ARM_TIMEOUT_NS = 5_000_000_000n;
const REST_TIMEOUT_NS = 3_000_000_000n;
/** The stream looks at new chunks in every cycle. */
const JUDGE_TIMEOUT_NS = 200_000_000n;
/** A plan that runs out stays valid so long after its last knot: the stream decelerates from there anyway. */
const DEADLINE_AFTER_NS = 1_000_000n;

/** A move's knots are so far apart, or twice, four times as far, so that a plan holds them all. */
const MOVE_KNOT_NS = 20_000_000n;
const MOVE_KNOTS_MAX = 120;
/** A move begins so long after it was asked for: the stream is a little ahead of the clock. */
const MOVE_DELAY_NS = 10_000_000n;
const MOVE_BEAT_NS = 200_000_000n;
/** The share of every limit that a move uses. */
const MOVE_SHARE = 0.7;

const FAULTS: Readonly<Record<string, string>> = {
  STREAM_PLANNER_LOST:
    'The plan was over and the control cycle gave no sign of life. The robot holds. Find out what kept the policy (docs/SAFETY.md), then arm again.',
  STREAM_GAP: 'The setpoint stream stood still for longer than the motors wait. The robot holds. Check the load of this machine, then arm again.',
  STREAM_CLOCK: 'The clock of the setpoint stream went backwards. The robot holds. Arm again.',
  STREAM_FEEDBACK: 'The feedback of the robot is missing. It holds. Check the bus and the motors, then arm again.',
  STREAM_ESTOP: 'An emergency stop was asked for. Release it, then arm again.',
  STREAM_WORKSPACE: 'The path would have left the workspace. The robot stopped inside and holds. Check the plan or the box, then arm again.',
  STREAM_POSE: 'A joint is measured outside its range. Move it back by hand, or correct its limits or its zero, then arm again.',
};

const REFUSALS: Readonly<Record<string, string>> = {
  STREAM_CHUNK_STATE: 'the robot is disarmed, stopping or in a fault',
  STREAM_CHUNK_SHAPE: 'its joints, knots or their period are not what the stream takes',
  STREAM_CHUNK_SEQUENCE: 'it is older than a plan before it',
  STREAM_CHUNK_LIVENESS: 'it comes from another control cycle than the one that armed the robot',
  STREAM_CHUNK_STALE: 'it is over before it could begin',
  STREAM_CHUNK_VALUE: 'a knot is not a number',
  STREAM_CHUNK_RANGE: "a knot is outside its joint's range",
  STREAM_CHUNK_JUMP: 'knots lie further apart than the speed limit allows, or out of reach from where the robot is',
  STREAM_CHUNK_FULL: 'too many plans wait for their turn',
};

export class MotionRobot implements Robot {
  readonly joints: readonly Joint[];
  readonly periodNs: bigint;
  readonly #native: NativeMotion;
  readonly #clock: MotionClock;
  readonly #measure: () => RobotState;
  /** No other supervisor's: it is the time at which this one began. */
  #liveness = process.hrtime.bigint();
  #sequence = 0n;

  constructor(options: MotionRobotOptions) {
    this.joints = options.joints;
    this.periodNs = options.periodNs;
    this.#native = options.native;
    this.#clock = options.clock;
    this.#measure = options.measure;
  }

  async getState(): Promise<RobotState> {
    return this.#measure();
  }

  async arm(): Promise<void> {
    const { stream } = this.#native.status();
    if (stream === 'holding') return;
    this.#liveness++;
    this.#native.arm(this.#liveness);
    await this.#until('be armed', ARM_TIMEOUT_NS, (status) => status.stream === 'holding');
  }

  async disarm(): Promise<void> {
    this.#native.disarm();
    const isOff = ({ link }: NativeMotionStatus): boolean => !['armed', 'arming', 'disarming'].includes(link);
    await this.#until('be disarmed', REST_TIMEOUT_NS, isOff, false);
  }

  stop(category: StopCategory = 2): void {
    this.#native.stop(category);
  }

  async rest(): Promise<void> {
    const rests = ({ isAtRest, stream }: NativeMotionStatus): boolean => isAtRest && stream !== 'following' && stream !== 'expiring';
    await this.#until('come to rest', REST_TIMEOUT_NS, rests, false);
  }

  beat(forMs: number): void {
    this.#native.beat(this.#clock.nowNs() + BigInt(Math.round(forMs * 1e6)));
  }

  indicate(pattern: Indication): void {
    this.#native.indicate(INDICATIONS.indexOf(pattern));
  }

  async push({ startNs, spliceNs, knotNs, knots }: Plan): Promise<bigint> {
    // A stream process may have seen the plans of another supervisor.
    const { judgedSequence: seen } = this.#native.status();
    this.#sequence = (seen > this.#sequence ? seen : this.#sequence) + 1n;
    const sequence = this.#sequence;
    const joints = this.joints.length;
    const values = new Float64Array(knots.length * joints);
    knots.forEach((knot, index) => void values.set(knot, index * joints));
    const endNs = startNs + BigInt(knots.length - 1) * knotNs;
    const taken = this.#native.push({
      sequence,
      liveness: this.#liveness,
      spliceNs: spliceNs ?? this.#clock.nowNs(),
      startNs,
      deadlineNs: endNs + DEADLINE_AFTER_NS,
      knotNs,
      knots: values,
    });
    if (!taken) throw new PremotorError('STREAM_FULL', 'The timeline takes no more plans: the setpoint stream has stopped reading it.');
    const status = await this.#until('look at the plan', JUDGE_TIMEOUT_NS, ({ judgedSequence }) => judgedSequence >= sequence);
    if (status.refusal !== '') {
      const why = REFUSALS[status.refusal] ?? status.refusal;
      throw new PremotorError(status.refusal, `The setpoint stream refused a plan: ${why}. The robot follows what it had, and then holds.`);
    }
    return sequence;
  }

  async moveTo(positionsRad: Float64Array): Promise<void> {
    const { setpointRad } = this.#native.status();
    const count = this.joints.length;
    // Gently, so that the stream's limits have room where the plan is joined.
    const gentle = this.joints.map((joint) => ({
      ...joint,
      velocityMaxRadPerS: MOVE_SHARE * joint.velocityMaxRadPerS,
      accelerationMaxRadPerS2: MOVE_SHARE * joint.accelerationMaxRadPerS2,
      jerkMaxRadPerS3: MOVE_SHARE * joint.jerkMaxRadPerS3,
    }));
    const planned = (knotNs: bigint): Float64Array => callNativeNow(() => loadNative().planMove(gentle, setpointRad, positionsRad, knotNs));
    let knotNs = MOVE_KNOT_NS;
    while (planned(knotNs).length > MOVE_KNOTS_MAX * count) knotNs *= 2n;
    const values = planned(knotNs);
    const knots = Array.from({ length: values.length / count }, (_, knot) => values.slice(knot * count, (knot + 1) * count));
    const startNs = this.#clock.nowNs() + MOVE_DELAY_NS + knotNs;
    await this.push({ startNs, knotNs, knots });
    const endNs = startNs + BigInt(knots.length - 1) * knotNs;
    for (let untilNs = startNs; untilNs < endNs; untilNs += MOVE_BEAT_NS) {
      this.beat(2 * (Number(MOVE_BEAT_NS) / 1e6));
      await this.waitUntil(untilNs < endNs - MOVE_BEAT_NS ? untilNs : endNs);
    }
    this.stop();
    await this.rest();
  }

  executed(): readonly ExecutedKnot[] {
    return this.#native.executed().map(({ sequence, knot, timeNs, isClamped, positionRad }) => {
      return { plan: sequence, knot, timeNs, isClamped, positionsRad: positionRad };
    });
  }

  async waitUntil(timeNs: bigint): Promise<void> {
    await this.#clock.waitUntil(timeNs);
    this.#throwFault(this.#native.status());
  }

  /** Lets time pass until it is so; a fault ends the waiting unless `isHeedful` is false. */
  async #until(what: string, timeoutNs: bigint, isSo: (status: NativeMotionStatus) => boolean, isHeedful = true): Promise<NativeMotionStatus> {
    const endNs = this.#clock.nowNs() + timeoutNs;
    for (;;) {
      await this.#clock.waitUntil(this.#clock.nowNs() + POLL_NS);
      const status = this.#native.status();
      if (isHeedful) this.#throwFault(status);
      if (isSo(status)) return status;
      if (this.#clock.nowNs() < endNs) continue;
      const found = `stream ${status.stream}, link ${status.link}, bridge ${status.bridge}`;
      const message = `The robot did not ${what} within ${Number(timeoutNs) / 1e9} s (${found}). Check its power and the bus.`;
      throw new PremotorError('ROBOT_TIMEOUT', message, { expected: what, found });
    }
  }

  #throwFault(status: NativeMotionStatus): void {
    if (status.linkFault) throw this.#linkError(status.linkFault);
    const { faultCode } = status;
    if (faultCode !== '') throw new PremotorError(faultCode, FAULTS[faultCode] ?? `The setpoint stream has latched ${faultCode}.`);
  }

  #linkError({ code, message, axis }: NativeLinkFault): PremotorError {
    const joint = axis === null ? undefined : this.joints[axis]?.name;
    return new PremotorError(code, joint === undefined ? message : `Joint ${joint}: ${message}`, joint === undefined ? {} : { field: joint });
  }
}
