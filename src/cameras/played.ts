/**
 * A camera whose pictures exist already, from files or a recording: it plays them on the robot's clock at a fixed rate, picture n at n / rate, from
 * time 0 on, so that equal times give equal pictures, in virtual time as well. Owned by whoever opened it; pictures are decoded when they are asked
 * for, off the event loop.
 */
import type { Frame } from '../policy/contract.js';
import type { CameraClock } from './clock.js';
import type { DecodedPicture } from './pictures.js';
import type { CameraInfo, FrameSource } from './source.js';

/** Pictures in their order. */
export interface PictureList {
  readonly count: number;
  /** Of the first one. */
  readonly width: number;
  readonly height: number;
  /** Errors: CAMERA_FILE, CAMERA_RECORDING. */
  picture(index: number): Promise<DecodedPicture>;
}

export interface PlayedOptions {
  readonly camera: string;
  readonly rateHz: number;
  /** After the last picture: true: the first again; false: none any more, and the last one gets old. */
  readonly loops: boolean;
  readonly clock: CameraClock;
}

/** Frames kept for whoever looks back. */
const FRAMES_KEPT = 4;

export class PlayedCamera implements FrameSource {
  readonly cameras: readonly CameraInfo[];
  readonly #pictures: PictureList;
  readonly #options: PlayedOptions;
  readonly #kept = new Map<number, Frame>(); // number -> frame, in order

  constructor(pictures: PictureList, options: PlayedOptions) {
    this.#pictures = pictures;
    this.#options = options;
    this.cameras = [{ camera: options.camera, width: pictures.width, height: pictures.height }];
  }

  #stampOf(number: number): bigint {
    return BigInt(Math.round((1e9 * number) / this.#options.rateHz));
  }

  /** Of the newest frame that is due. */
  #numberNow(): number {
    const { clock, rateHz, loops } = this.#options;
    const nowNs = clock.nowNs();
    let number = Math.floor((Number(nowNs) * rateHz) / 1e9 + 1e-9);
    while (number > 0 && this.#stampOf(number) > nowNs) number--;
    return loops ? number : Math.min(number, this.#pictures.count - 1);
  }

  async #frame(number: number): Promise<Frame> {
    const kept = this.#kept.get(number);
    if (kept) return kept;
    const { width, height, data } = await this.#pictures.picture(number % this.#pictures.count);
    const frame = { camera: this.#options.camera, width, height, data, capturedAtNs: this.#stampOf(number) };
    this.#kept.set(number, frame);
    for (const old of [...this.#kept.keys()].sort((a, b) => a - b).slice(0, -FRAMES_KEPT)) this.#kept.delete(old);
    return frame;
  }

  /** Errors: CAMERA_FILE, CAMERA_RECORDING. */
  async capture(): Promise<readonly Frame[]> {
    const number = this.#numberNow();
    // The one before as well: the moment that is asked for may lie a little back.
    if (number > 0) await this.#frame(number - 1);
    const frame = await this.#frame(number);
    // A clock that began anew leaves frames of its future behind.
    for (const later of this.#kept.keys()) if (later > number) this.#kept.delete(later);
    return [frame];
  }

  history(): readonly Frame[] {
    return [...this.#kept.values()];
  }

  async close(): Promise<void> {
    this.#kept.clear();
  }
}
