/**
 * The film of an episode: what the cameras saw beside what the policy imagined for the same moments. Listens to the control cycle, keeps the
 * pictures of completed chunks, and composes rows when the episode is over. It never touches the cycle, and nothing waits for it.
 */
import type { CycleEvent, Observation } from '../control/events.js';
import type { DecodedVideo, Frame, Policy, Progress, Tensor } from '../policy/contract.js';
import { framesOf, splitFrames } from '../policy/tensor.js';
import { composeRow, type Picture } from '../recording/animation.js';

/** Pictures are shown at twice their size, so that labels fit above them. */
const ENLARGEMENT = 2;
const GAP_PIXELS = 6;
/** A film shows so many latent frames from the start of an episode; the rest would only cost memory. */
export const FILM_FRAMES_MAX = 80;
const MOMENTS_PER_FRAME = 4;

export class EpisodeFilm {
  readonly #seen: Observation[] = [];
  /** What was imagined for the frames that were executed, in their order. */
  readonly #imagined: Float32Array[] = [];
  /** What was imagined last for frames that are still to come. */
  readonly #ahead = new Map<number, Float32Array>();
  #shape: readonly number[] = [];
  #isCut = false;
  /** What was decoded already: it costs the engine seconds at the released size. */
  #decoded: DecodedVideo | undefined;

  /** Give this to ControlCycle.on. A frame counts once it was executed. */
  readonly listen = (event: CycleEvent): void => {
    if (event.type === 'started') {
      // One film shows one episode: the last one.
      this.#seen.splice(0, this.#seen.length, event.observation);
      this.#imagined.length = 0;
      this.#ahead.clear();
      this.#isCut = false;
      this.#decoded = undefined;
    }
    if (event.type === 'predicted') this.#keep(event.frameIndex, event.latents);
    if (event.type === 'executed') this.#take(event.frameIndex, event.moments);
  };

  #keep(frameIndex: number, latents: Tensor): void {
    this.#shape = latents.shape;
    splitFrames(latents).forEach((frame, index) => {
      this.#ahead.set(frameIndex + index, frame);
    });
  }

  #take(frameIndex: number, moments: readonly Observation[]): void {
    // Frame 0 is the first observation itself: it has no moments of its own.
    const frames = moments.length / MOMENTS_PER_FRAME + (frameIndex === 0 ? 1 : 0);
    const imagined: Float32Array[] = [];
    for (let frame = frameIndex; frame < frameIndex + frames; frame++) {
      const one = this.#ahead.get(frame);
      if (one) imagined.push(one);
      this.#ahead.delete(frame);
    }
    // The film of an episode that was resumed would have no beginning.
    if (frameIndex > 0 && this.#imagined.length === 0) return;
    if (imagined.length < frames || this.#imagined.length + frames > FILM_FRAMES_MAX) this.#isCut = true;
    if (this.#isCut) return;
    this.#seen.push(...moments);
    this.#imagined.push(...imagined);
    this.#decoded = undefined;
  }

  /** Whether the episode was longer than the film. */
  get isCut(): boolean {
    return this.#isCut;
  }

  /** Whether there is anything to show. */
  get isEmpty(): boolean {
    return this.#imagined.length === 0;
  }

  /** An exported policy's latents have no channels: there is nothing to decode. */
  get imaginesNothing(): boolean {
    return this.#shape[1] === 0;
  }

  /**
   * One row per moment: every camera as seen, then every camera as imagined. All frames are decoded as one video, because the decoder gives one
   * picture for the first latent frame and four for each later one, which is exactly when the cameras were read: at the start, then at every
   * (H/4)-th action.
   */
  async compose(policy: Pick<Policy, 'decode'>, onProgress?: (progress: Progress) => void): Promise<Picture[]> {
    if (this.isEmpty) return [];
    if (this.imaginesNothing) return composeFilm(this.#seen, undefined);
    return composeFilm(this.#seen, await this.#decode(policy, onProgress));
  }

  /** Whether the pictures are there already. */
  get isDecoded(): boolean {
    return this.#decoded !== undefined;
  }

  async #decode(policy: Pick<Policy, 'decode'>, onProgress?: (progress: Progress) => void): Promise<DecodedVideo> {
    this.#decoded ??= await policy.decode(framesOf(this.#imagined, this.#shape), onProgress ? { onProgress } : {});
    return this.#decoded;
  }

  /** What was imagined, as pictures of all cameras side by side, each with the time on the robot's clock at which it was to come true. */
  async imagined(policy: Pick<Policy, 'decode'>): Promise<{ readonly frame: Frame; readonly timeNs: bigint }[]> {
    if (this.isEmpty || this.imaginesNothing) return [];
    const frames = await this.#decode(policy);
    return this.#seen.flatMap((seen, moment) => {
      const [frame, timeNs] = [frames[moment], seen[0]?.capturedAtNs];
      return frame && timeNs !== undefined ? [{ frame, timeNs }] : [];
    });
  }
}

/** Pairs the n-th observation with the n-th imagined picture, which shows all cameras joined along its width; without any, shows what was seen. */
export async function composeFilm(seen: readonly Observation[], imagined: DecodedVideo | readonly Frame[] | undefined): Promise<Picture[]> {
  const start = seen[0]?.[0]?.capturedAtNs ?? 0n;
  const rows: Picture[] = [];
  for (let moment = 0; moment < Math.min(seen.length, imagined?.length ?? seen.length); moment++) {
    const real = seen[moment] ?? [];
    const joined = imagined?.[moment];
    const seconds = Number((real[0]?.capturedAtNs ?? start) - start) / 1e9;
    const names = real.map(({ camera }) => camera.slice(camera.lastIndexOf('.') + 1));
    const labels = [...names.map((name) => `seen: ${name}  ${seconds.toFixed(2)} s`), ...(joined ? names.map((name) => `imagined: ${name}`) : [])];
    const pictures = [...real, ...(joined ? splitColumns(joined, real.length) : [])].map((picture) => enlarge(picture, ENLARGEMENT));
    rows.push(await composeRow(pictures, { gap: GAP_PIXELS, labels }));
  }
  return rows;
}

/** Cuts a picture into equal columns, one per camera. */
export function splitColumns(picture: Picture, parts: number): Picture[] {
  const width = Math.floor(picture.width / parts);
  return Array.from({ length: parts }, (_, part) => {
    const data = new Uint8Array(width * picture.height * 3);
    for (let row = 0; row < picture.height; row++) {
      const from = (row * picture.width + part * width) * 3;
      data.set(picture.data.subarray(from, from + width * 3), row * width * 3);
    }
    return { width, height: picture.height, data };
  });
}

/** Enlarges by repeating pixels. */
export function enlarge(picture: Picture, factor: number): Picture {
  const [width, height] = [picture.width * factor, picture.height * factor];
  const data = new Uint8Array(width * height * 3);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const from = (Math.floor(row / factor) * picture.width + Math.floor(column / factor)) * 3;
      data.set(picture.data.subarray(from, from + 3), (row * width + column) * 3);
    }
  }
  return { width, height, data };
}
