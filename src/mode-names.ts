/**
 * The names of the execution modes. They stand apart because configuration files know them too, which must not depend on control. Data only;
 * src/control/modes has what they mean.
 */
export const MODE_NAMES = ['sync', 'async-naive', 'async-grounded', 'rtc', 'ensemble'] as const;
export type ModeName = (typeof MODE_NAMES)[number];
