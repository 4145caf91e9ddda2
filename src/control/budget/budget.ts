/**
 * The budget of a loaded policy: its job's certified ladder where it has one, else the job's own steps. Owned by whoever starts a control cycle; it
 * decides nothing itself.
 */
import type { Policy } from '../../policy/contract.js';
import { type PassCosts, saturationOf } from './cost.js';
import { FixedBudget } from './fixed.js';
import { ladderOf } from './ladder.js';
import { LadderBudget } from './ladder-budget.js';
import type { Margin } from './margin.js';
import type { Budget } from './types.js';

export interface BudgetOptions {
  readonly actionRateHz: number;
  /** From measureCosts, on this machine. Without them the first predictions teach the costs. */
  readonly costs?: PassCosts;
  readonly margin?: Margin;
  /** Take rungs that are not certified all the same. Default: false. */
  readonly force?: boolean;
}

/** Errors: JOB_INVALID, LADDER_UNCERTIFIED. */
export function budgetOf({ job, info }: Pick<Policy, 'job' | 'info'>, options: BudgetOptions): Budget {
  const { actionRateHz, costs, margin, force = false } = options;
  const shared = { job, saturation: saturationOf(info, job), ...(costs === undefined ? {} : { costs }), ...(margin === undefined ? {} : { margin }) };
  const ladder = ladderOf(job, info.checkpointHash, { force });
  if (ladder.length === 0) return new FixedBudget(shared);
  const motionMs = (1000 * job.frame_chunk_size * job.action_per_frame) / actionRateHz;
  return new LadderBudget(ladder, { ...shared, availableMsMax: motionMs });
}
