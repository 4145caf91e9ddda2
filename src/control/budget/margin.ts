/**
 * How much more time than expected a prediction is given, so that it lands before its deadline although costs vary. Shared by the budgets; pure
 * arithmetic.
 */
export interface Margin {
  /** Share of the expected time. Default: 0.2. */
  readonly share?: number;
  /** On top of it. Default: 10. */
  readonly ms?: number;
}

const MARGIN_SHARE = 0.2;
const MARGIN_MS = 10;

/** Time to set aside for a prediction that is expected to take so long. `extraShare` is required on top of the margin. */
export function needMs(expectedMs: number, { share = MARGIN_SHARE, ms = MARGIN_MS }: Margin = {}, extraShare = 0): number {
  return expectedMs * (1 + share) * (1 + extraShare) + ms;
}
