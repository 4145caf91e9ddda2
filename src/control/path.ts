/**
 * Joint motion between knots: turns the knots of one chunk into setpoints at any rate, C1-continuous and monotone between neighbours, so that
 * position limits kept by the knots are kept everywhere. Also the ramp that brings a moving arm to rest. Pure arithmetic; limits.ts decides what
 * the knots are.
 */

/**
 * The interpolation's peak speed over the mean speed between two knots. Slopes never exceed the smaller of the two neighbouring means, and then a
 * cubic Hermite segment is at its fastest, 1.5 times the mean, when it starts and ends at rest.
 */
export const PEAK_OVER_MEAN = 1.5;

/** Knots over which a stop ramp brings each joint to rest, unless a joint limit is nearer. */
export const STOP_KNOTS = 5;

/** Angles and their change per knot, [joints] each. */
export interface MotionState {
  readonly point: Float64Array;
  readonly slope: Float64Array;
}

/** The slope with the sign of both and the smaller size; 0 where the direction turns. */
function smallerSlope(before: number, after: number): number {
  if (before * after <= 0) return 0;
  return Math.abs(before) < Math.abs(after) ? before : after;
}

/** Motion from rest at `start` through every knot to rest at the last one, one segment per knot. */
export class KnotPath {
  readonly segments: number;
  readonly #points: readonly Float64Array[]; // [segments + 1][joints]
  readonly #slopes: readonly Float64Array[]; // [segments + 1][joints], angle per knot

  constructor(start: Float64Array, knots: readonly Float64Array[]) {
    this.segments = knots.length;
    this.#points = [start.slice(), ...knots.map((knot) => knot.slice())];
    this.#slopes = this.#points.map((point, index) => {
      const [before, after] = [this.#points[index - 1], this.#points[index + 1]];
      return point.map((angle, joint) => (before && after ? smallerSlope(angle - (before[joint] ?? 0), (after[joint] ?? 0) - angle) : 0));
    });
  }

  /** Setpoint at a fraction of 0 .. 1 of a segment, written into `out`. At fraction 1 it is the knot, bit for bit. */
  sample(segment: number, fraction: number, out: Float64Array): void {
    const [from, to] = [this.#at(segment), this.#at(segment + 1)];
    const t = fraction;
    if (t >= 1) {
      out.set(to.point);
      return;
    }
    const rise = t * t * (3 - 2 * t);
    const leave = t * (1 - t) * (1 - t);
    const arrive = t * t * (t - 1);
    for (let joint = 0; joint < out.length; joint++) {
      const [a, b] = [from.point[joint] ?? 0, to.point[joint] ?? 0];
      const cubic = a + rise * (b - a) + leave * (from.slope[joint] ?? 0) + arrive * (to.slope[joint] ?? 0);
      // Rounding may carry the cubic past a knot by a few ulp, and that knot may sit on a limit.
      out[joint] = Math.min(Math.max(cubic, Math.min(a, b)), Math.max(a, b));
    }
  }

  /** Position and slope (angle per knot) at a fraction of a segment: what a stop ramp starts from. */
  stateAt(segment: number, fraction: number): MotionState {
    const [from, to] = [this.#at(segment), this.#at(segment + 1)];
    const t = Math.min(fraction, 1);
    const point = new Float64Array(from.point.length);
    this.sample(segment, t, point);
    const slope = from.slope.map((leaving, joint) => {
      const way = (to.point[joint] ?? 0) - (from.point[joint] ?? 0);
      return 6 * t * (1 - t) * way + (1 - t) * (1 - 3 * t) * leaving + t * (3 * t - 2) * (to.slope[joint] ?? 0);
    });
    return { point, slope };
  }

  #at(index: number): MotionState {
    const [point, slope] = [this.#points[index], this.#slopes[index]];
    if (!point || !slope) throw new RangeError(`a path of ${this.segments} segments has no point ${index}`);
    return { point, slope };
  }
}

/** Limits that a stop ramp must not cross. */
export interface Range {
  readonly lowerRad: number;
  readonly upperRad: number;
}

/** Constant deceleration of every joint from a slope to rest: over STOP_KNOTS, or sooner where the way to the limit is shorter. */
export class StopRamp {
  /** Knots until every joint is at rest. */
  readonly knots: number;
  readonly #start: Float64Array;
  readonly #slope: Float64Array;
  readonly #durations: Float64Array; // [joints], knots
  readonly #ranges: readonly Range[];

  constructor(state: MotionState, ranges: readonly Range[]) {
    this.#start = state.point.slice();
    this.#slope = state.slope.slice();
    this.#ranges = ranges;
    this.#durations = this.#slope.map((slope, joint) => {
      const range = ranges[joint];
      if (slope === 0 || !range) return 0;
      const room = slope > 0 ? range.upperRad - (state.point[joint] ?? 0) : (state.point[joint] ?? 0) - range.lowerRad;
      // Stopping from a slope over n knots takes slope * n / 2.
      return Math.max(0, Math.min(STOP_KNOTS, (2 * room) / Math.abs(slope)));
    });
    this.knots = Math.ceil(Math.max(0, ...this.#durations));
  }

  /** Setpoint some knots after the start, written into `out`. */
  sample(knotsElapsed: number, out: Float64Array): void {
    for (let joint = 0; joint < out.length; joint++) {
      const duration = this.#durations[joint] ?? 0;
      const t = Math.min(knotsElapsed, duration);
      const way = duration > 0 ? (this.#slope[joint] ?? 0) * (t - (t * t) / (2 * duration)) : 0;
      const range = this.#ranges[joint];
      const angle = (this.#start[joint] ?? 0) + way;
      out[joint] = range && way !== 0 ? Math.min(Math.max(angle, range.lowerRad), range.upperRad) : angle;
    }
  }
}
