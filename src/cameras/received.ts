/**
 * Frames that came from outside, already decoded and stamped on the robot's clock: keeps the newest few and shows none before the robot's clock has
 * reached its stamp, because that clock may lag behind the machine's by the work that it waits for. Owned by one camera.
 */
import type { Frame } from '../policy/contract.js';
import type { CameraClock } from './clock.js';

/** A third of a second at 25 frames per second. */
const FRAMES_KEPT = 8;

export class ReceivedFrames {
  readonly #clock: CameraClock;
  #kept: readonly Frame[] = []; // oldest first

  constructor(clock: CameraClock) {
    this.#clock = clock;
  }

  /** False, and nothing changes: its stamp does not advance. */
  add(frame: Frame): boolean {
    const newest = this.#kept.at(-1);
    if (newest && frame.capturedAtNs <= newest.capturedAtNs) return false;
    this.#kept = [...this.#kept, frame].slice(-FRAMES_KEPT);
    return true;
  }

  /** Those whose time has come, oldest first. */
  visible(): readonly Frame[] {
    const nowNs = this.#clock.nowNs();
    return this.#kept.filter(({ capturedAtNs }) => capturedAtNs <= nowNs);
  }

  clear(): void {
    this.#kept = [];
  }
}
