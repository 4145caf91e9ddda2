/**
 * How right the frames were that predictions of an asynchronous episode went on from, imagined or taken from an old forecast: compared with what the
 * policy was then shown. Listens to the control cycle; owned by the evaluation of one episode.
 */
import type { CycleEvent } from '../control/events.js';
import { splitFrames } from '../policy/tensor.js';
import type { AssumedFrames } from './configuration.js';

/** The mean of squared differences. */
function meanSquare(one: Float32Array, other: Float32Array): number {
  let sum = 0;
  for (const [index, value] of one.entries()) sum += (value - (other[index] ?? 0)) ** 2;
  return one.length === 0 ? 0 : sum / one.length;
}

export class AssumptionMeter {
  /** Frame -> what was assumed, and the newest frame that was known then. */
  readonly #open = new Map<number, { readonly assumed: Float32Array; readonly known: Float32Array }>();
  #known: Float32Array | undefined;
  #frames = 0;
  #error = 0;
  #stillError = 0;

  /** Give this to ControlCycle.on. */
  readonly listen = (event: CycleEvent): void => {
    if (event.type === 'remembered') {
      splitFrames(event.latents).forEach((seen, index) => {
        this.#compare(event.frameIndex + index, seen);
      });
    }
    // Frames without values are of a policy that imagines none: there is nothing to be right about.
    if (event.type !== 'predicted' || !event.assumed || event.assumed.length === 0 || !this.#known) return;
    const assumed = splitFrames(event.assumed);
    for (const [index, frame] of assumed.entries()) this.#open.set(event.frameIndex - assumed.length + index, { assumed: frame, known: this.#known });
  };

  #compare(frame: number, seen: Float32Array): void {
    const open = this.#open.get(frame);
    this.#open.delete(frame);
    this.#known = seen;
    if (!open) return;
    this.#frames++;
    this.#error += meanSquare(open.assumed, seen);
    this.#stillError += meanSquare(open.known, seen);
  }

  get isEmpty(): boolean {
    return this.#frames === 0;
  }

  result(): AssumedFrames {
    const rms = (sum: number): number => Math.sqrt(sum / Math.max(1, this.#frames));
    return { frames: this.#frames, errorRms: rms(this.#error), stillErrorRms: rms(this.#stillError) };
  }
}
