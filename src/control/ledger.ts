/**
 * The book of an asynchronous episode's actions: what was asked, what was planned after all limits, and what the stream says it has put out, by the
 * action's number in the episode. The delay of a prediction is counted here, from what was consumed. Owned by one mode for one episode; it moves
 * nothing and knows no clock.
 */
import type { ExecutedKnot } from '../robot/robot.js';

export interface PlannedAction {
  /** [channels], what the policy asked for. */
  readonly asked: Float32Array;
  /** [joints], within the limits. */
  readonly plannedRad: Float64Array;
  /** The limits changed it. */
  readonly isLimited: boolean;
}

export interface ExecutedAction extends PlannedAction {
  /** [joints], where the robot was told to be. */
  readonly executedRad: Float64Array;
  /** A limit held it back, before the stream or in it. */
  readonly isClamped: boolean;
}

interface Entry {
  readonly action: PlannedAction;
  executed: ExecutedKnot | undefined;
}

export class Ledger {
  readonly #entries = new Map<number, Entry>();
  /** Plan of the stream -> number of its first knot. */
  readonly #plans = new Map<bigint, number>();
  #end = 0;
  #done = 0;

  /** Number of the first action that is not planned. */
  get end(): number {
    return this.#end;
  }

  /** Number of the first action that is not executed. */
  get done(): number {
    return this.#done;
  }

  /** Replaces everything from `from` on; what is executed stays. */
  plan(from: number, actions: readonly PlannedAction[]): void {
    for (let number = from; number < this.#end; number++) this.#entries.delete(number);
    actions.forEach((action, index) => {
      this.#entries.set(from + index, { action, executed: undefined });
    });
    this.#end = from + actions.length;
  }

  /** The stream has taken a plan whose first knot is this action. */
  placed(plan: bigint, first: number): void {
    this.#plans.set(plan, first);
  }

  planned(number: number): PlannedAction | undefined {
    return this.#entries.get(number)?.action;
  }

  /** Books what the stream has put out. A knot that two plans share is executed once. */
  note(knots: readonly ExecutedKnot[]): void {
    for (const knot of knots) {
      const first = this.#plans.get(knot.plan);
      const entry = first === undefined ? undefined : this.#entries.get(first + knot.knot);
      if (entry) entry.executed ??= knot;
    }
    while (this.#entries.get(this.#done)?.executed) this.#done++;
  }

  /** Executed actions [from, to). They must have been executed. */
  executed(from: number, to: number): ExecutedAction[] {
    return Array.from({ length: to - from }, (_, index) => {
      const { action, executed } = this.#entries.get(from + index) as Entry;
      return {
        ...action,
        executedRad: executed?.positionsRad ?? action.plannedRad,
        isClamped: action.isLimited || executed?.isClamped === true,
      };
    });
  }

  /** Drops what lies before `number`, but for the one action that motion continues from. */
  forget(number: number): void {
    for (const known of this.#entries.keys()) if (known < number - 1) this.#entries.delete(known);
    for (const [plan, first] of this.#plans) if (first < number - PLAN_LENGTH_MAX) this.#plans.delete(plan);
  }
}

/** No plan of the stream has more knots (cpp/stream/timeline.h). */
const PLAN_LENGTH_MAX = 128;
