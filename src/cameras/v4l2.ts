/**
 * A camera of Linux. The addon's thread takes its frames (cpp/camera); this decodes JPEG off the event loop when frames are asked for, and turns the
 * driver's stamps into the robot's clock. A camera that stops delivering is not hidden: its last frame gets old, and one that is pulled out says so.
 */
import { PremotorError } from '../errors.js';
import { callNative, callNativeNow, type NativeCamera, type NativeCameraFrame, type NativeCameraModule } from '../native.js';
import type { Frame } from '../policy/contract.js';
import type { CameraClock } from './clock.js';
import { decodePicture } from './pictures.js';
import { ReceivedFrames } from './received.js';
import type { CameraInfo, FrameSource } from './source.js';

export interface V4l2Options {
  readonly camera: string;
  readonly device: string;
  /** Default: the camera's own. */
  readonly width?: number;
  readonly height?: number;
  readonly rateHz?: number;
  /** Default: mjpeg where it can, else yuyv. */
  readonly format?: 'mjpeg' | 'yuyv';
  readonly clock: CameraClock;
  readonly native: NativeCameraModule;
}

/** How long a camera may take to its first frame: some wake up slowly. */
const FIRST_FRAME_MS = 5000;

export class V4l2Camera implements FrameSource {
  readonly cameras: readonly CameraInfo[];
  readonly #native: NativeCamera;
  readonly #options: V4l2Options;
  readonly #received: ReceivedFrames;
  #newest = 0;
  #undecodable = 0;
  #pending: Promise<void> | undefined;

  private constructor(native: NativeCamera, options: V4l2Options) {
    const { width, height } = native.agreed();
    this.#native = native;
    this.#options = options;
    this.#received = new ReceivedFrames(options.clock);
    this.cameras = [{ camera: options.camera, width, height }];
  }

  /**
   * Opens the camera and waits for its first frame. Errors: CAMERA_DEVICE_MISSING, CAMERA_DEVICE_BUSY, CAMERA_DEVICE, CAMERA_FORMAT, CAMERA_SILENT,
   * CAMERA_UNPLUGGED, CAMERA_TIMESTAMPS.
   */
  static async open(options: V4l2Options): Promise<V4l2Camera> {
    const { device, width = 0, height = 0, rateHz = 0, format } = options;
    const native = new options.native.Camera();
    await callNative(() => native.open({ path: device, width, height, rateHz, ...(format === undefined ? {} : { format }) }));
    try {
      await callNative(() => native.wait(0, FIRST_FRAME_MS));
      callNativeNow(() => native.check());
      if (native.frames(0).length === 0) {
        const [expected, found] = [`a frame within ${FIRST_FRAME_MS} ms`, 'none'];
        const advice = 'Pull it out and plug it in again, or try another format.';
        const message = `The camera ${device} gives no picture: expected ${expected}, found ${found}. ${advice}`;
        throw new PremotorError('CAMERA_SILENT', message, { file: device, field: options.camera, expected, found });
      }
    } catch (error) {
      await native.close();
      throw error;
    }
    return new V4l2Camera(native, options);
  }

  /** What driver and we agreed on. */
  get agreed(): ReturnType<NativeCamera['agreed']> {
    return this.#native.agreed();
  }

  /** Since it was opened. `undecodable`: JPEG files that could not be decoded. */
  counts(): ReturnType<NativeCamera['counts']> & { readonly undecodable: number } {
    return { ...this.#native.counts(), undecodable: this.#undecodable };
  }

  /** Lets so many frames go by, or so much time. */
  async passFrames(count: number, timeoutMs: number): Promise<void> {
    const end = performance.now() + timeoutMs;
    const newest = (): number => this.#native.frames(0).at(-1)?.number ?? 0;
    const last = newest() + count;
    for (let left = timeoutMs; newest() < last && left > 0; left = end - performance.now()) {
      await callNative(() => this.#native.wait(newest(), Math.ceil(left)));
      callNativeNow(() => this.#native.check());
    }
  }

  /** Errors: CAMERA_UNPLUGGED, CAMERA_TIMESTAMPS, CAMERA_DEVICE. */
  async capture(): Promise<readonly Frame[]> {
    callNativeNow(() => this.#native.check());
    this.#pending ??= this.#take().finally(() => {
      this.#pending = undefined;
    });
    await this.#pending;
    return this.#received.visible().slice(-1);
  }

  history(): readonly Frame[] {
    return this.#received.visible();
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#native.close();
    this.#received.clear();
  }

  async #take(): Promise<void> {
    const frames = this.#native.frames(this.#newest);
    for (const frame of frames) {
      this.#newest = frame.number;
      const made = await this.#decoded(frame);
      if (made) this.#received.add(made);
    }
  }

  async #decoded({ capturedNs, data }: NativeCameraFrame): Promise<Frame | undefined> {
    const { camera, clock } = this.#options;
    const { format, width, height } = this.#native.agreed();
    const capturedAtNs = clock.fromMonotonicNs(capturedNs);
    if (format === 'yuyv') return { camera, width, height, data, capturedAtNs };
    try {
      return { camera, ...(await decodePicture(data)), capturedAtNs };
    } catch {
      // Cut off on the way, as happens on USB: counted, and the next one counts.
      this.#undecodable++;
      return undefined;
    }
  }
}
