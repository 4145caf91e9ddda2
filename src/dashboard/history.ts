/**
 * The motion of the last half minute, small enough for a page: per stretch of robot time and joint the last, the smallest and the largest setpoint
 * and position, so that a spike of one sample is still seen. A ring of fixed size; nothing is allocated while it is written. Owned by the dashboard.
 */
import type { MotionSample } from '../tap/observer.js';
import type { MotionText } from './messages.js';

export const BUCKET_MS = 50;
export const BUCKETS = 600;
/** Setpoint, its minimum and maximum; position, its minimum and maximum. */
const VALUES = 6;
const NS_PER_BUCKET = BigInt(BUCKET_MS * 1_000_000);
/** Finer than a page can show, rad. */
const RESOLUTION = 1e4;

export class MotionHistory {
  readonly #joints: number;
  readonly #timesS = new Float64Array(BUCKETS);
  /** [bucket, joint, value] */
  readonly #values: Float64Array;
  /** Buckets that were begun, so far. */
  #begun = 0;
  #bucketNs = -1n;

  constructor(joints: number) {
    this.#joints = joints;
    this.#values = new Float64Array(BUCKETS * joints * VALUES);
  }

  add({ timeNs, setpointRad, positionsRad }: MotionSample): void {
    const bucketNs = timeNs - (timeNs % NS_PER_BUCKET);
    const isNew = bucketNs !== this.#bucketNs;
    if (isNew) {
      this.#bucketNs = bucketNs;
      this.#timesS[this.#begun % BUCKETS] = Number(bucketNs) / 1e9;
      this.#begun++;
    }
    const row = ((this.#begun - 1) % BUCKETS) * this.#joints * VALUES;
    for (let joint = 0; joint < this.#joints; joint++) {
      const at = row + joint * VALUES;
      this.#note(at, setpointRad[joint] ?? Number.NaN, isNew);
      this.#note(at + 3, positionsRad[joint] ?? Number.NaN, isNew);
    }
  }

  #note(at: number, value: number, isNew: boolean): void {
    const values = this.#values;
    values[at] = value;
    const [least, most] = [values[at + 1] as number, values[at + 2] as number];
    const isNumber = !Number.isNaN(value);
    // Written so that a stretch that begins without a setpoint may still get one.
    if (isNew || (isNumber && !(least <= value))) values[at + 1] = value;
    if (isNew || (isNumber && !(most >= value))) values[at + 2] = value;
  }

  /** Stretches that are over, so far; the one being written is not. */
  get finished(): number {
    return Math.max(0, this.#begun - 1);
  }

  /** Stretches [from, finished) as columns, as far as they are still known; undefined when there are none. */
  since(from: number): MotionText | undefined {
    const end = this.finished;
    const start = Math.max(from, end - BUCKETS + 1, 0);
    if (start >= end) return undefined;
    const buckets = Array.from({ length: end - start }, (_, index) => (start + index) % BUCKETS);
    const column = (joint: number, value: number): (number | null)[] =>
      buckets.map((bucket) => rounded(this.#values[(bucket * this.#joints + joint) * VALUES + value] as number));
    return {
      timesS: buckets.map((bucket) => this.#timesS[bucket] as number),
      joints: Array.from({ length: this.#joints }, (_, joint) => Array.from({ length: VALUES }, (_, value) => column(joint, value))),
    };
  }
}

function rounded(value: number): number | null {
  return Number.isFinite(value) ? Math.round(value * RESOLUTION) / RESOLUTION : null;
}
