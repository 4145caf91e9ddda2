/**
 * Where an asynchronous episode's actions lie in time: which are planned, when each is reached, and how a new stretch of them joins the motion there
 * is. It limits what it is given and hands plans to the setpoint stream; when to think and what to ask is the pipeline's. Owned by one mode for one
 * episode.
 */
import type { Plan } from '../robot/robot.js';
import { actionAt, sliceActions, stackActions } from './channels.js';
import { type ExecutedAction, Ledger, type PlannedAction } from './ledger.js';
import { limitChunk } from './limits.js';
import type { EpisodeRun } from './run.js';

/** Knots of the old plan that a new one repeats, so that the path through the splice is the same as inside a plan. */
const LEAD_KNOTS = 2;
/** The stream computes so far ahead; what is nearer cannot be replaced any more. */
const AHEAD_NS = 6_000_000n;

/** A plan that has not been handed over. */
interface Waiting {
  readonly plan: Plan;
  readonly first: number;
  /** When it may begin; undefined: at once, because it goes on from another. */
  readonly atNs: bigint | undefined;
}

export class Timeline {
  readonly #run: EpisodeRun;
  readonly #channels: number;
  readonly #ledger = new Ledger();
  /** Action `number` has its time one knot after `baseNs`. Undefined before anything moved. */
  #anchor: { readonly number: number; readonly baseNs: bigint } | undefined;
  #waiting: Waiting | undefined;

  constructor(run: EpisodeRun) {
    this.#run = run;
    this.#channels = run.settings.policy.job.used_action_channel_ids.length;
  }

  /** Number of the first action that is not planned. */
  get end(): number {
    return this.#ledger.end;
  }

  /** Number of the first action that the stream has not put out. */
  get done(): number {
    return this.#ledger.done;
  }

  /** Whether anything has moved or is about to. */
  get hasBegun(): boolean {
    return this.#anchor !== undefined;
  }

  /** When an action is reached. */
  timeOf(number: number): bigint {
    const { number: anchor, baseNs } = this.#anchor ?? { number: 0, baseNs: 0n };
    return baseNs + BigInt(number - anchor + 1) * this.#run.settings.knotNs;
  }

  /** Planned actions [from, to), as the policy's channels, [channels, n]. */
  planned(from: number, to: number): Float32Array {
    const actions = Array.from({ length: to - from }, (_, index) => this.#ledger.planned(from + index) as PlannedAction);
    return this.#asChannels(
      actions.map(({ plannedRad }) => plannedRad),
      actions,
    );
  }

  /** Books what the stream has put out. */
  note(): void {
    this.#ledger.note(this.#run.settings.robot.executed());
  }

  /** Actions [from, to), which were executed; and as the policy's channels. What lies before is forgotten. */
  take(from: number, to: number): { readonly actions: Float32Array; readonly clamped: number } {
    const done = this.#ledger.executed(from, to);
    this.#ledger.forget(to);
    const positions = done.map(({ executedRad }) => executedRad);
    return { actions: this.#asChannels(positions, done), clamped: done.filter(({ isClamped }) => isClamped).length };
  }

  executed(from: number, to: number): readonly ExecutedAction[] {
    return this.#ledger.executed(from, to);
  }

  /**
   * Puts what is still to come of a stretch [channels, n] on the timeline, in place of everything that was planned from there on; `first`: number of
   * its first action. An arm that stands begins `patienceNs` from now. Errors: those of limitChunk and Robot.push.
   */
  async place(actions: Float32Array, first: number, patienceNs: bigint): Promise<void> {
    const { robot, knotNs } = this.#run.settings;
    this.note();
    let nowNs = await this.#run.now();
    const isMoving = this.#anchor !== undefined && nowNs <= this.timeOf(this.end - 1) + knotNs / 2n;
    const isLate = this.#anchor !== undefined && !isMoving;
    const count = actions.length / this.#channels;
    const from = Math.max(first, 0, isMoving ? this.#firstFree(nowNs) : this.end);
    if (from >= first + count) return;
    if (isLate) {
      // Too late to go on from the plan: the arm decelerates, and the new plan begins where it comes to rest.
      await robot.rest();
      nowNs = await this.#run.now();
    }
    if (!isMoving) this.#anchor = { number: from, baseNs: this.#run.nextMoment(nowNs + patienceNs) };
    const start = isMoving ? this.#ledger.planned(from - 1)?.plannedRad : undefined;
    const wanted = sliceActions(actions, this.#channels, from - first, count);
    this.#ledger.plan(from, await this.#limited(wanted, start, isLate));
    await this.handOver();
    this.#waiting = this.#planFrom(from, nowNs, isMoving);
    if (isMoving) await this.handOver();
  }

  /** Gives the stream the plan that waits, in its time. */
  async handOver(): Promise<void> {
    if (!this.#waiting) return;
    const { plan, first, atNs } = this.#waiting;
    this.#waiting = undefined;
    if (atNs !== undefined) await this.#run.idleUntil(atNs);
    this.#ledger.placed(await this.#run.settings.robot.push(plan), first);
  }

  /** The first action that a new plan may still change. */
  #firstFree(nowNs: bigint): number {
    let number = this.done;
    while (number < this.end && this.timeOf(number) < nowNs + AHEAD_NS) number++;
    return number;
  }

  /** Actions [channels, n] as what the robot may do, from the plan's end or from where it is. */
  async #limited(asked: Float32Array, start: Float64Array | undefined, ramps: boolean): Promise<PlannedAction[]> {
    const { robot, actions: map, knotNs, tolerance } = this.#run.settings;
    const count = asked.length / this.#channels;
    const from = start ?? (await robot.getState()).positionsRad;
    const mapped = map?.toJoints(asked, [this.#channels, 1, count], from, 0);
    const limited = limitChunk({
      actions: mapped?.actions ?? asked,
      shape: [robot.joints.length, 1, count],
      padding: 0,
      from,
      joints: robot.joints,
      knotS: Number(knotNs) / 1e9,
      tolerance,
      ramps,
    });
    return limited.knots.map((plannedRad, index) => ({
      asked: actionAt(asked, this.#channels, index),
      plannedRad,
      isLimited: limited.clamped[index] === true || mapped?.clamped[index] === true,
    }));
  }

  /** The plan from an action on. It begins with knots of the old plan where these are still to come. */
  #planFrom(from: number, nowNs: bigint, isMoving: boolean): Waiting {
    const { knotNs } = this.#run.settings;
    const canLead = (number: number): boolean => this.#ledger.planned(number) !== undefined && this.timeOf(number) > nowNs + AHEAD_NS;
    let first = from;
    while (isMoving && from - first < LEAD_KNOTS && canLead(first - 1)) first--;
    const knots = Array.from({ length: this.end - first }, (_, index) => (this.#ledger.planned(first + index) as PlannedAction).plannedRad);
    const startNs = this.timeOf(first);
    const plan: Plan = { startNs, knotNs, knots, ...(first < from ? { spliceNs: startNs } : {}) };
    return { plan, first, atNs: isMoving ? undefined : startNs - knotNs };
  }

  /** Positions of the joints as the policy's channels, [channels, n]. */
  #asChannels(positions: readonly Float64Array[], actions: readonly PlannedAction[]): Float32Array {
    const { actions: map, robot } = this.#run.settings;
    const joints = stackActions(positions, robot.joints.length);
    if (!map || positions.length === 0) return joints;
    const asked = stackActions(
      actions.map((action) => action.asked),
      this.#channels,
    );
    return map.toActions(joints, asked, [this.#channels, 1, positions.length], 0);
  }
}
