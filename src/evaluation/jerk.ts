/**
 * Measures how jerky a stream of setpoints is: the largest third difference over the period's cube, of any joint. Keeps three setpoints; owned by one
 * episode.
 */
export class JerkMeter {
  readonly #joints: number;
  readonly #cube: number;
  readonly #last: Float64Array; // [3, joints], newest first
  #count = 0;
  #peak = 0;

  constructor(joints: number, periodS: number) {
    this.#joints = joints;
    this.#cube = periodS ** 3;
    this.#last = new Float64Array(3 * joints);
  }

  /** rad/s^3 */
  get peak(): number {
    return this.#peak;
  }

  add(setpointRad: Float64Array): void {
    const [joints, last] = [this.#joints, this.#last];
    if (this.#count >= 3) {
      for (let joint = 0; joint < joints; joint++) {
        const [a, b, c] = [last[joint] ?? 0, last[joints + joint] ?? 0, last[2 * joints + joint] ?? 0];
        this.#peak = Math.max(this.#peak, Math.abs((setpointRad[joint] ?? 0) - 3 * a + 3 * b - c) / this.#cube);
      }
    } else this.#count++;
    last.copyWithin(joints, 0, 2 * joints);
    last.set(setpointRad);
  }
}
