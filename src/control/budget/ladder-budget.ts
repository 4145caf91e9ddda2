/**
 * The anytime budget: of a job's ladder, the best rung whose expected time, with margin, fits what is left before the present chunk ends. It goes
 * down at once and up only after the better rung would have fitted for some predictions in a row. Owned by the control cycle; it has no clock, and
 * whether a rung may be used at all was decided before (ladder.ts).
 */
import type { Timing } from '../../policy/contract.js';
import { CostModel, type CostOptions, rungOf, type StageMs } from './cost.js';
import { type Margin, needMs } from './margin.js';
import type { Budget, Choice, Rung, Think } from './types.js';

export interface LadderBudgetOptions extends CostOptions {
  readonly margin?: Margin;
  /** Further share by which a better rung must fit before the budget goes up to it. Default: 0.1. */
  readonly upShare?: number;
  /** Predictions in a row for which it must have fitted. Default: 5. */
  readonly upCycles?: number;
  /**
   * The most time that a prediction can have, usually that of a chunk's motion: expectedMs() does not ask for more than the best rung that fits in
   * it. Default: Infinity.
   */
  readonly availableMsMax?: number;
}

const UP_SHARE = 0.1;
const UP_CYCLES = 5;

/** Before anything was measured all rungs look alike, and the last one is the cheapest as far as anybody knows. */
function cheapest(expected: readonly number[]): number {
  const least = Math.min(...expected);
  return Number.isFinite(least) ? expected.indexOf(least) : expected.length - 1;
}

export class LadderBudget implements Budget {
  readonly #ladder: readonly Rung[];
  readonly #costs: CostModel;
  readonly #job: CostOptions['job'];
  readonly #margin: Margin | undefined;
  readonly #upShare: number;
  readonly #upCycles: number;
  readonly #availableMsMax: number;
  #current = 0;
  /** Predictions in a row for which a better rung would have fitted with something to spare, and the worst of these rungs. */
  #streak = 0;
  #candidate = 0;

  /** @param ladder best first, at least one rung */
  constructor(ladder: readonly Rung[], options: LadderBudgetOptions) {
    if (ladder.length === 0) throw new RangeError('expected a ladder of at least one rung, found none: use FixedBudget');
    this.#ladder = ladder;
    this.#costs = new CostModel(options);
    this.#job = options.job;
    this.#margin = options.margin;
    this.#upShare = options.upShare ?? UP_SHARE;
    this.#upCycles = options.upCycles ?? UP_CYCLES;
    this.#availableMsMax = options.availableMsMax ?? Number.POSITIVE_INFINITY;
  }

  /** Expected time of a prediction at every rung, by stage. */
  costs(think: Think): readonly StageMs[] {
    return this.#ladder.map((rung) => this.#costs.stages(think, rung));
  }

  choose(think: Think, availableMs: number): Choice {
    const expected = this.#expected(think);
    // Nothing can be late: the best rung, which says nothing about the predictions that must be in time.
    if (availableMs === Number.POSITIVE_INFINITY) return this.#choice(0, expected, true);
    const best = this.#bestWithin(expected, availableMs, 0);
    if (best === undefined) {
      this.#move(cheapest(expected));
      return this.#choice(this.#current, expected, false);
    }
    if (best > this.#current) this.#move(best);
    else this.#considerUp(expected, availableMs);
    // A ladder may have a cheaper rung above a dearer one, so a better one can fit where the present one does not: lateness decides.
    if (needMs(expected[this.#current] as number, this.#margin) > availableMs) this.#move(best);
    return this.#choice(this.#current, expected, true);
  }

  expectedMs(think: Think): number {
    const expected = this.#expected(think);
    const needs = expected.map((ms, index) => needMs(ms, this.#margin, index < this.#current ? this.#upShare : 0));
    const best = needs.findIndex((need) => need <= this.#availableMsMax);
    return needs[best < 0 ? cheapest(expected) : best] as number;
  }

  note({ rung }: Choice, think: Think, timing: Timing): void {
    this.#costs.note(think, rung ?? rungOf(this.#job), timing);
  }

  /** Counts the predictions in a row for which a better rung would have fitted with something to spare, and goes up after enough of them. */
  #considerUp(expected: readonly number[], availableMs: number): void {
    const spare = this.#bestWithin(expected, availableMs, this.#upShare);
    if (spare === undefined || spare >= this.#current) {
      this.#streak = 0;
      return;
    }
    this.#candidate = this.#streak === 0 ? spare : Math.max(this.#candidate, spare);
    this.#streak++;
    if (this.#streak >= this.#upCycles) this.#move(this.#candidate);
  }

  #move(index: number): void {
    this.#current = index;
    this.#streak = 0;
  }

  #bestWithin(expected: readonly number[], availableMs: number, extraShare: number): number | undefined {
    const index = expected.findIndex((ms) => needMs(ms, this.#margin, extraShare) <= availableMs);
    return index < 0 ? undefined : index;
  }

  #expected(think: Think): number[] {
    return this.costs(think).map(({ totalMs }) => totalMs);
  }

  #choice(index: number, expected: readonly number[], fits: boolean): Choice {
    return { index, rung: this.#ladder[index], expectedMs: expected[index] as number, fits };
  }
}
