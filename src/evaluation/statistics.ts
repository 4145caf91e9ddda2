/**
 * The statistics of an evaluation: an interval for a share of successes, percentiles, and the exact test for paired outcomes. Pure arithmetic.
 */

/** Standard normal quantile of a two-sided 95 % interval. */
const Z_95 = 1.959963984540054;

export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** Wilson's score interval (1927) for a share, 95 %. Unlike the normal one it stays within 0 .. 1 and has a width at 0 and 1. No trials: 0 .. 1. */
export function wilson(successes: number, trials: number): Interval {
  if (trials === 0) return { low: 0, high: 1 };
  const share = successes / trials;
  const z2 = Z_95 * Z_95;
  const centre = share + z2 / (2 * trials);
  const half = Z_95 * Math.sqrt((share * (1 - share)) / trials + z2 / (4 * trials * trials));
  const scale = 1 + z2 / trials;
  return { low: successes === 0 ? 0 : (centre - half) / scale, high: successes === trials ? 1 : (centre + half) / scale };
}

/** The value that a share of 0 .. 1 of the values does not exceed, between neighbours in proportion; null without values. */
export function percentile(values: readonly number[], share: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  return low === undefined || high === undefined ? null : low + (place - Math.floor(place)) * (high - low);
}

/** Outcomes of two configurations on the same seeds. */
export interface Paired {
  readonly pairs: number;
  /** Succeeded only under the first, only under the second. */
  readonly onlyFirst: number;
  readonly onlySecond: number;
  /** Share of successes of the second minus that of the first. */
  readonly difference: number;
  /** McNemar's exact test, two-sided: how probable so unequal a split of the discordant pairs is when both are equally good. */
  readonly p: number;
}

/** Two-sided exact McNemar test: a binomial test of the discordant pairs against 1/2. */
export function mcnemar(onlyFirst: number, onlySecond: number): number {
  const n = onlyFirst + onlySecond;
  const few = Math.min(onlyFirst, onlySecond);
  // Terms C(n, k) / 2^n by their logarithms: 2^n overflows where n does not.
  let logTerm = -n * Math.LN2;
  let sum = 0;
  for (let k = 0; k <= few; k++) {
    sum += Math.exp(logTerm);
    logTerm += Math.log(n - k) - Math.log(k + 1);
  }
  return Math.min(1, 2 * sum);
}

/** A share's bound is found to this. */
const DIFFERENCE_TOLERANCE = 1e-9;

/**
 * Tango's score interval (1998) for the difference of paired shares, second minus first, 95 %: the differences that the score test does not reject.
 * Unlike the normal one it stays within -1 .. 1 and has a width when no pair, or every pair, is discordant. No pairs: -1 .. 1.
 */
export function pairedInterval(onlyFirst: number, onlySecond: number, pairs: number): Interval {
  if (pairs === 0) return { low: -1, high: 1 };
  const found = (onlySecond - onlyFirst) / pairs;
  // The statistic falls as the difference rises.
  const bound = (from: number, to: number, wanted: number): number => {
    let [low, high] = [from, to];
    while (high - low > DIFFERENCE_TOLERANCE) {
      const middle = (low + high) / 2;
      if (tangoScore(onlyFirst, onlySecond, pairs, middle) > wanted) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  };
  return { low: onlyFirst === pairs ? -1 : bound(-1, found, Z_95), high: onlySecond === pairs ? 1 : bound(found, 1, -Z_95) };
}

/** How many standard deviations the outcome lies above a true difference; the nuisance share takes its most probable value under that difference. */
function tangoScore(onlyFirst: number, onlySecond: number, pairs: number, difference: number): number {
  const linear = (2 * pairs + onlyFirst - onlySecond) * difference - onlyFirst - onlySecond;
  const constant = -onlyFirst * difference * (1 - difference);
  const nuisance = (Math.sqrt(Math.max(0, linear * linear - 8 * pairs * constant)) - linear) / (4 * pairs);
  const variance = pairs * (2 * nuisance + difference * (1 - difference));
  const above = onlySecond - onlyFirst - pairs * difference;
  return above / Math.sqrt(Math.max(variance, Number.MIN_VALUE));
}

/** Compares two configurations on the seeds that both have. */
export function comparePaired(first: ReadonlyMap<string, boolean>, second: ReadonlyMap<string, boolean>): Paired {
  let [pairs, onlyFirst, onlySecond] = [0, 0, 0];
  for (const [key, before] of first) {
    const after = second.get(key);
    if (after === undefined) continue;
    pairs++;
    if (before && !after) onlyFirst++;
    if (!before && after) onlySecond++;
  }
  return { pairs, onlyFirst, onlySecond, difference: pairs === 0 ? 0 : (onlySecond - onlyFirst) / pairs, p: mcnemar(onlyFirst, onlySecond) };
}

/** A 95 % interval of the median from the order of the values alone (the binomial's quantiles); the ends of the values when there are few. */
export function medianInterval(values: readonly number[]): Interval {
  const sorted = [...values].sort((a, b) => a - b);
  const n = sorted.length;
  if (n === 0) return { low: Number.NaN, high: Number.NaN };
  const reach = (Z_95 * Math.sqrt(n)) / 2;
  const at = (rank: number): number => sorted[Math.min(n - 1, Math.max(0, rank))] as number;
  return { low: at(Math.floor(n / 2 - reach) - 1), high: at(Math.ceil(n / 2 + reach)) };
}
