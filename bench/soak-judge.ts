/**
 * The verdicts of a soak: whether memory and handles grow, whether deadlines were missed more often than allowed, whether disk budgets were kept.
 * Pure
 * arithmetic on samples; each verdict is one of three, because a short or noisy run proves nothing. Owned by bench/soak.ts.
 */
import { wilson } from '../src/evaluation/statistics.js';

export interface ProcessSample {
  readonly role: string;
  readonly pid: number;
  readonly rssMiB: number;
  /** The most that it ever had. */
  readonly peakMiB: number;
  readonly fds: number;
  readonly threads: number;
}

export interface Sample {
  readonly atS: number;
  readonly processes: readonly ProcessSample[];
  /** MiB by the name of what is stored. */
  readonly disk: Readonly<Record<string, number>>;
  /** Of the event loop of the supervisor since the sample before; null: it said nothing. */
  readonly loopP99Ms: number | null;
  readonly loopMaxMs: number | null;
  readonly temperatureC: number | null;
}

export interface Deadlines {
  readonly cycles: number;
  readonly missed: number;
}

export interface Bounds {
  /** Growth that counts as none. */
  readonly rssMiBPerH: number;
  readonly fdsPerH: number;
  /** Share of control cycles that nobody served. */
  readonly missedShare: number;
  readonly diskMiB: Readonly<Record<string, number>>;
}

export type Verdict = 'kept' | 'broken' | 'undecided';

export interface Judged {
  readonly what: string;
  readonly verdict: Verdict;
  readonly found: string;
  readonly bound: string;
}

export interface Slope {
  readonly perH: number;
  /** 95 % interval. */
  readonly low: number;
  readonly high: number;
  readonly points: number;
}

interface Point {
  readonly atS: number;
  readonly value: number;
}

const S_PER_H = 3600;
/** Caches fill and code is compiled in the beginning: this share of a process's life is left out. */
const WARM_UP_SHARE = 0.25;
const POINTS_MIN = 8;
/** What resembles its neighbours for minutes shows no slope in fewer: ten minutes are the least. */
const SPAN_S_MIN = 600;
/** More lives of a role than this: their peaks are compared, not what happened within one. */
const LIVES_MIN = POINTS_MIN;
const Z_95 = 1.96;

/** Least squares; the interval counts fewer points than there are when neighbours resemble one another, as samples of memory do. */
export function slopeOf(points: readonly Point[]): Slope | undefined {
  const n = points.length;
  if (n < POINTS_MIN || (points.at(-1)?.atS ?? 0) - (points[0]?.atS ?? 0) < SPAN_S_MIN) return undefined;
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanS, meanValue] = [mean(points.map(({ atS }) => atS)), mean(points.map(({ value }) => value))];
  const spread = points.reduce((sum, { atS }) => sum + (atS - meanS) ** 2, 0);
  if (spread === 0) return undefined;
  const slope = points.reduce((sum, { atS, value }) => sum + (atS - meanS) * (value - meanValue), 0) / spread;
  const rests = points.map(({ atS, value }) => value - meanValue - slope * (atS - meanS));
  const squares = rests.reduce((sum, rest) => sum + rest * rest, 0);
  const products = rests.slice(1).reduce((sum, rest, index) => sum + rest * (rests[index] ?? 0), 0);
  const found = squares === 0 ? 0 : products / squares;
  // A short record makes neighbours look less alike than they are (Marriott and Pope, 1954).
  const resemblance = Math.min(0.99, Math.max(0, found + (1 + 3 * found) / n));
  const inflation = (1 + resemblance) / (1 - resemblance);
  const effective = Math.max(3, n / inflation);
  const error = Math.sqrt((squares / (n - 2) / spread) * inflation);
  // Student's quantile is wider than the normal one with few points; this is within 2 % of it from three degrees of freedom on.
  const freedom = Math.max(1, effective - 2);
  const quantile = Z_95 * (1 + 1.25 / freedom + 1.6 / freedom ** 2);
  const half = quantile * error * S_PER_H;
  return { perH: slope * S_PER_H, low: slope * S_PER_H - half, high: slope * S_PER_H + half, points: n };
}

/**
 * A process that lives on: its own values without its beginning. Many short lives: the peak of each, which `peak` knows better where the kernel keeps
 * it, because samples meet a short life anywhere.
 */
export function pointsOf(samples: readonly Sample[], role: string, pick: (one: ProcessSample) => number, peak = pick): readonly Point[] {
  const lives = new Map<number, (Point & { readonly peak: number })[]>();
  for (const { atS, processes } of samples) {
    for (const one of processes) {
      if (one.role !== role) continue;
      const life = lives.get(one.pid) ?? [];
      life.push({ atS, value: pick(one), peak: peak(one) });
      lives.set(one.pid, life);
    }
  }
  const all = [...lives.values()];
  if (all.length >= LIVES_MIN) {
    // The last life may not have reached its peak.
    return all
      .slice(0, -1)
      .map((life) => ({ atS: ((life[0]?.atS ?? 0) + (life.at(-1)?.atS ?? 0)) / 2, value: Math.max(...life.map((point) => point.peak)) }));
  }
  const longest = all.reduce((found, life) => (life.length > found.length ? life : found), [] as readonly Point[]);
  return longest.slice(Math.floor(longest.length * WARM_UP_SHARE));
}

export const rolesOf = (samples: readonly Sample[]): readonly string[] => [
  ...new Set(samples.flatMap(({ processes }) => processes.map(({ role }) => role))),
];

function judgeGrowth(what: string, slope: Slope | undefined, bound: number, unit: string): Judged {
  const words = `at most ${bound} ${unit}/h`;
  if (slope === undefined)
    return { what, verdict: 'undecided', found: `fewer than ${POINTS_MIN} samples, or ${SPAN_S_MIN / 60} minutes`, bound: words };
  const verdict = slope.low > bound ? 'broken' : slope.high <= bound ? 'kept' : 'undecided';
  return { what, verdict, found: `${slope.perH.toFixed(2)} ${unit}/h (${slope.low.toFixed(2)} .. ${slope.high.toFixed(2)})`, bound: words };
}

function judgeDeadlines({ cycles, missed }: Deadlines, bound: number): Judged {
  const what = 'control cycles missed';
  const words = `at most ${(1e6 * bound).toFixed(0)} in a million`;
  if (cycles === 0) return { what, verdict: 'undecided', found: 'no cycle', bound: words };
  const { low, high } = wilson(missed, cycles + missed);
  const verdict = low > bound ? 'broken' : high <= bound ? 'kept' : 'undecided';
  return {
    what,
    verdict,
    found: `${missed} of ${cycles + missed} (${(1e6 * low).toFixed(1)} .. ${(1e6 * high).toFixed(1)} in a million)`,
    bound: words,
  };
}

function judgeDisk(samples: readonly Sample[], name: string, boundMiB: number): Judged {
  const most = Math.max(...samples.map(({ disk }) => disk[name] ?? 0));
  return { what: `disk: ${name}`, verdict: most <= boundMiB ? 'kept' : 'broken', found: `${most.toFixed(1)} MiB at most`, bound: `${boundMiB} MiB` };
}

const memoryOf = (samples: readonly Sample[], role: string): readonly Point[] =>
  pointsOf(
    samples,
    role,
    ({ rssMiB }) => rssMiB,
    ({ peakMiB }) => peakMiB,
  );

export function judgeSoak(samples: readonly Sample[], deadlines: Deadlines, bounds: Bounds): readonly Judged[] {
  const growth = rolesOf(samples).flatMap((role) => [
    judgeGrowth(`memory of ${role}`, slopeOf(memoryOf(samples, role)), bounds.rssMiBPerH, 'MiB'),
    judgeGrowth(`handles of ${role}`, slopeOf(pointsOf(samples, role, ({ fds }) => fds)), bounds.fdsPerH, 'handles'),
  ]);
  const disks = Object.entries(bounds.diskMiB).map(([name, most]) => judgeDisk(samples, name, most));
  return [...growth, judgeDeadlines(deadlines, bounds.missedShare), ...disks];
}

/** Broken before undecided before kept. */
export function overall(judged: readonly Judged[]): Verdict {
  const has = (verdict: Verdict): boolean => judged.some((one) => one.verdict === verdict);
  return has('broken') ? 'broken' : has('undecided') ? 'undecided' : 'kept';
}
