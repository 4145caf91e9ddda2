/**
 * How arrays of the contract become tokens of the oracle and back: latents [C, F, h, w] and actions [C, F, H], both flat and in float64. Pure
 * functions.
 */
import type { Position, Rows } from './math.js';

/** A flat array [channels, frames, rows, columns]; actions have one column. */
export interface Grid {
  readonly channels: number;
  readonly frames: number;
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

export function gridOf(shape: readonly [number, number, number, number], data: ArrayLike<number>): Grid {
  const [channels, frames, rows, columns] = shape;
  if (channels * frames * rows * columns !== data.length) throw new Error(`oracle: [${shape}] holds no ${data.length} values`);
  return { channels, frames, rows, columns, data: Float64Array.from(data) };
}

const indexOf = (grid: Grid, c: number, f: number, y: number, x: number): number => ((c * grid.frames + f) * grid.rows + y) * grid.columns + x;

/** Sets every value from its old one and its place. */
export function mapGrid(grid: Grid, change: (value: number, channel: number, frame: number, row: number, column: number) => number): Grid {
  const data = new Float64Array(grid.data.length);
  for (let c = 0; c < grid.channels; c++) {
    for (let f = 0; f < grid.frames; f++) {
      for (let y = 0; y < grid.rows; y++) {
        for (let x = 0; x < grid.columns; x++) {
          const at = indexOf(grid, c, f, y, x);
          data[at] = change(grid.data[at]!, c, f, y, x);
        }
      }
    }
  }
  return { ...grid, data };
}

export const at = (grid: Grid, c: number, f: number, y: number, x: number): number => grid.data[indexOf(grid, c, f, y, x)]!;

/** Frames of two grids one after the other. */
export function joinFrames(first: Grid, second: Grid): Grid {
  const joined = { ...first, frames: first.frames + second.frames, data: new Float64Array(first.data.length + second.data.length) };
  return mapGrid(joined, (_, c, f, y, x) => (f < first.frames ? at(first, c, f, y, x) : at(second, c, f - first.frames, y, x)));
}

export type PatchSize = readonly [height: number, width: number];

/** Video tokens, frame by frame, patches row by row; features in (channel, row, column) order. */
export function patchify(video: Grid, [ph, pw]: PatchSize): Float64Array[] {
  return patches(video, [ph, pw], (f, gy, gx) => {
    const features: number[] = [];
    for (let c = 0; c < video.channels; c++)
      for (let y = 0; y < ph; y++) for (let x = 0; x < pw; x++) features.push(at(video, c, f, gy * ph + y, gx * pw + x));
    return Float64Array.from(features);
  });
}

/** The network's video output as a grid; features in (row, column, channel) order. */
export function unpatchify(tokens: Rows, like: Grid, [ph, pw]: PatchSize): Grid {
  const [down, across] = [like.rows / ph, like.columns / pw];
  return mapGrid(like, (_, c, f, y, x) => {
    const token = (f * down + Math.floor(y / ph)) * across + Math.floor(x / pw);
    return tokens[token]![((y % ph) * pw + (x % pw)) * like.channels + c]!;
  });
}

export function videoPositions(video: Grid, patch: PatchSize, frameStart: number): Position[] {
  return patches(video, patch, (f, gy, gx) => [frameStart + f, gy, gx]);
}

function patches<T>(video: Grid, [ph, pw]: PatchSize, make: (frame: number, row: number, column: number) => T): T[] {
  const made: T[] = [];
  for (let f = 0; f < video.frames; f++)
    for (let gy = 0; gy < video.rows / ph; gy++) for (let gx = 0; gx < video.columns / pw; gx++) made.push(make(f, gy, gx));
  return made;
}

/** Action tokens: the channels of each action of each frame. */
export function actionTokens(actions: Grid): Float64Array[] {
  return eachAction(actions, (f, j) => Float64Array.from({ length: actions.channels }, (_, c) => at(actions, c, f, j, 0)));
}

export function actionsOf(tokens: Rows, like: Grid): Grid {
  return mapGrid(like, (_, c, f, j) => tokens[f * like.rows + j]![c]!);
}

/** Action j of a frame lies (j + 1) / (H + 1) behind it, in float32, outside the picture. */
export function actionPositions(actions: Grid, frameStart: number): Position[] {
  return eachAction(actions, (f, j) => [Math.fround(frameStart + f + Math.fround((j + 1) / (actions.rows + 1))), -1, -1]);
}

function eachAction<T>(actions: Grid, make: (frame: number, index: number) => T): T[] {
  const made: T[] = [];
  for (let f = 0; f < actions.frames; f++) for (let j = 0; j < actions.rows; j++) made.push(make(f, j));
  return made;
}
