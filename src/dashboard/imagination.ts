/**
 * What the policy imagines, as pictures, while the arm executes it. Decoding costs the engine time, so it is asked for only while somebody looks,
 * only in a synchronous cycle, where the engine has nothing to do until the chunk is executed, never twice at once, and the newest chunk alone. Owned
 * by the dashboard; a decode that fails, or that had to give way, leaves the pictures that there were, and an engine that is too slow is left alone.
 */
import type { Frame, Tensor } from '../policy/contract.js';
import { framesOf, splitFrames } from '../policy/tensor.js';
import type { RunControl } from '../tap/observer.js';

/** Pictures of one latent frame. */
const PICTURES_PER_FRAME = 4;

/** Part of a moment: seconds are not exact. */
const ROUNDING = 1e-6;
/** Decoding may take this part of a chunk's motion; an engine that needs more is not asked again for so many chunks. */
const MOTION_SHARE_MAX = 0.5;
const PAUSE_CHUNKS = 8;

interface Imagined {
  readonly frame: Frame;
  readonly timeS: number;
}

export interface ImaginationOptions {
  readonly decode: RunControl['decode'];
  readonly momentS: number;
  /** A chunk's motion, or Infinity for a robot whose clock stands still while it waits. */
  readonly patienceMs: number;
}

export class Imagination {
  readonly #decode: RunControl['decode'];
  readonly #momentS: number;
  /** Moments are a whole number of their period after this. */
  #gridS = 0;
  readonly #patience_ms: number;
  /** Chunks that are still passed over, because the last decode took too long. */
  #paused = 0;
  #isDecoding = false;
  #pictures: readonly Imagined[] = [];
  /** The last latent frame before what is imagined next: the decoder is causal, so it draws better with some past. */
  #past: Float32Array | undefined;

  constructor({ decode, momentS, patienceMs }: ImaginationOptions) {
    this.#decode = decode;
    this.#momentS = momentS;
    this.#patience_ms = MOTION_SHARE_MAX * patienceMs;
  }

  /** The episode's first pictures were taken then: the cycle keeps step with them. */
  begin(timeS: number): void {
    this.#gridS = timeS;
    this.#past = undefined;
    this.#pictures = [];
  }

  /** What the network saw. */
  remember(latents: Tensor): void {
    this.#past = splitFrames(latents).at(-1);
  }

  /** A chunk that begins to be executed now. */
  async imagine(latents: Tensor, frameIndex: number, timeS: number): Promise<void> {
    if (this.#isDecoding || this.#paused-- > 0) return;
    this.#isDecoding = true;
    const begunMs = performance.now();
    try {
      const frames = splitFrames(latents);
      const past = frameIndex === 0 ? undefined : this.#past;
      const video = await this.#decode(framesOf(past ? [past, ...frames] : frames, latents.shape));
      // Frame 0 is the observation itself: no motion leads to it.
      const moments = (frames.length - (frameIndex === 0 ? 1 : 0)) * PICTURES_PER_FRAME;
      const endS = this.#nextMoment(timeS) + moments * this.#momentS;
      this.#pictures = video.map((frame, index) => ({ frame, timeS: endS - (video.length - 1 - index) * this.#momentS }));
    } catch {
      // The cycle needed the engine, or the engine is gone: there is nothing to show, and nothing to mend here.
    } finally {
      this.#isDecoding = false;
      this.#paused = performance.now() - begunMs > this.#patience_ms ? PAUSE_CHUNKS : 0;
    }
  }

  #nextMoment(timeS: number): number {
    return this.#gridS + Math.ceil((timeS - this.#gridS) / this.#momentS - ROUNDING) * this.#momentS;
  }

  /** The newest picture that should be true by now. */
  at(timeS: number): Imagined | undefined {
    return this.#pictures.findLast((one) => one.timeS <= timeS + this.#momentS / 2) ?? this.#pictures[0];
  }
}
