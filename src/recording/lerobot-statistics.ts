/**
 * The numbers of episodes_stats.jsonl: minimum, maximum, mean and population deviation of one episode's columns, in the shapes that LeRobot v2.1
 * asserts when it adds episodes up. Pure arithmetic, owned by lerobot.ts.
 */
import type { Picture } from './animation.js';

export interface Statistics {
  readonly min: unknown;
  readonly max: unknown;
  readonly mean: unknown;
  readonly std: unknown;
  /** Rows that were looked at. */
  readonly count: readonly number[];
}

/** Statistics of each column of [rows, columns]. */
export function columnStatistics(rows: readonly ArrayLike<number>[]): Statistics {
  const columns = Array.from({ length: rows[0]?.length ?? 0 }, (_, column) => rows.map((row) => row[column] ?? 0));
  const means = columns.map(meanOf);
  return {
    min: columns.map((values) => values.reduce((least, value) => Math.min(least, value), Infinity)),
    max: columns.map((values) => values.reduce((most, value) => Math.max(most, value), -Infinity)),
    mean: means,
    std: columns.map((values, column) => Math.sqrt(meanOf(values.map((value) => (value - (means[column] ?? 0)) ** 2)))),
    count: [rows.length],
  };
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Statistics of each colour over all pixels, in 0 .. 1, shaped [3, 1, 1]. */
export function pictureStatistics(pictures: readonly Picture[]): Statistics {
  const colours = [0, 1, 2].map((colour) => colourStatistics(pictures, colour));
  const shaped = (pick: (colour: (typeof colours)[number]) => number): number[][][] => colours.map((colour) => [[pick(colour) / 255]]);
  return {
    min: shaped(({ low }) => low),
    max: shaped(({ high }) => high),
    mean: shaped(({ mean }) => mean),
    std: shaped(({ std }) => std),
    count: [pictures.length],
  };
}

/** One colour of all pixels in one pass; sums of squares of bytes stay exact far beyond any episode's size. */
function colourStatistics(pictures: readonly Picture[], colour: number): { low: number; high: number; mean: number; std: number } {
  let [low, high, sum, squares, pixels] = [255, 0, 0, 0, 0];
  for (const { data } of pictures) {
    pixels += data.length / 3;
    for (let at = colour; at < data.length; at += 3) {
      const value = data[at] ?? 0;
      if (value < low) low = value;
      if (value > high) high = value;
      sum += value;
      squares += value * value;
    }
  }
  const mean = sum / pixels;
  return { low, high, mean, std: Math.sqrt(Math.max(0, squares / pixels - mean ** 2)) };
}
