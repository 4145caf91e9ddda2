/**
 * The budget of a job without a ladder: always the job's own steps (or the one rung given), with the time that they are expected to take. Owned by
 * the control cycle; it measures through the cost model and never changes how a prediction denoises.
 */
import type { Timing } from '../../policy/contract.js';
import { CostModel, type CostOptions, rungOf } from './cost.js';
import { type Margin, needMs } from './margin.js';
import type { Budget, Choice, Rung, Think } from './types.js';

export interface FixedBudgetOptions extends CostOptions {
  /** Default: the job's own steps. */
  readonly rung?: Rung;
  /** Expected time of a prediction until one was measured. Default: Infinity. */
  readonly initialMs?: number;
  readonly margin?: Margin;
}

export class FixedBudget implements Budget {
  readonly #costs: CostModel;
  readonly #rung: Rung;
  readonly #given: Rung | undefined;
  readonly #initialMs: number;
  readonly #margin: Margin | undefined;

  constructor(options: FixedBudgetOptions) {
    this.#costs = new CostModel(options);
    this.#given = options.rung;
    this.#rung = options.rung ?? rungOf(options.job);
    this.#initialMs = options.initialMs ?? Number.POSITIVE_INFINITY;
    this.#margin = options.margin;
  }

  choose(think: Think, availableMs: number): Choice {
    const expectedMs = this.#expected(think);
    return { index: 0, rung: this.#given, expectedMs, fits: needMs(expectedMs, this.#margin) <= availableMs };
  }

  expectedMs(think: Think): number {
    return needMs(this.#expected(think), this.#margin);
  }

  note(_choice: Choice, think: Think, timing: Timing): void {
    this.#costs.note(think, this.#rung, timing);
  }

  #expected(think: Think): number {
    const { totalMs } = this.#costs.stages(think, this.#rung);
    return Number.isFinite(totalMs) ? totalMs : this.#initialMs;
  }
}
