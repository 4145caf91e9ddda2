/**
 * Gives the control cycle what the cameras saw at a moment: of every camera the newest frame that was captured at or before it. Cameras sample at
 * their own rate and stamp their frames; this keeps the newest few and refuses frames that are too old, too far apart, or stamped by another clock.
 * Owned by the control cycle; it never waits for a camera.
 */
import { PremotorError } from '../errors.js';
import type { Frame } from '../policy/contract.js';
import type { CameraInfo, FrameSource } from './source.js';

/** Frames kept per camera: enough to look back a third of a second at 25 frames per second. */
const FRAMES_KEPT = 8;

export interface SamplerOptions {
  readonly source: FrameSource;
  /** The cameras that the policy uses, in its order. */
  readonly keys: readonly string[];
  /** A frame older than this at the moment asked for is an error, never silently used. */
  readonly ageMaxNs: bigint;
  /** The most that the capture times of one observation may differ. */
  readonly skewMaxNs: bigint;
}

/** One observation and how well its frames fit the moment. */
export interface Sample {
  /** One frame per key, in the order of the keys. */
  readonly frames: readonly Frame[];
  /** Age of the oldest frame at the moment asked for. */
  readonly ageNsMax: bigint;
  /** Time between the first and the last capture. */
  readonly skewNs: bigint;
}

const toMs = (ns: bigint): number => Number(ns) / 1e6;

export class CameraSampler {
  readonly #options: SamplerOptions;
  readonly #kept = new Map<string, Frame[]>(); // camera -> frames, oldest first

  /** Errors: CAMERA_MISSING. */
  constructor(options: SamplerOptions) {
    this.#options = options;
    const names = options.source.cameras.map(({ camera }) => camera);
    const missing = options.keys.filter((key) => !names.includes(key));
    if (missing.length === 0) return;
    throw new PremotorError('CAMERA_MISSING', `No camera is called ${missing.join(', ')}. Change obs_cam_keys of the job or the camera's name.`, {
      expected: options.keys.join(', '),
      found: names.join(', ') || 'no cameras',
    });
  }

  /** Forgets every frame: the robot's clock may have begun anew. */
  clear(): void {
    this.#kept.clear();
  }

  /**
   * What the cameras saw at a moment of the robot's clock. `nowNs` is read after the frames were fetched, so that a frame captured meanwhile is not
   * taken for one from the future. Errors: CAMERA_MISSING, CAMERA_FRAME_SIZE, CAMERA_FRAME_STALE, CAMERA_SKEW, CAMERA_CLOCK.
   */
  async sampleAt(momentNs: bigint, nowNs: () => Promise<bigint>): Promise<Sample> {
    const { source, keys } = this.#options;
    const newest = await source.capture();
    const fetched = source.history ? [...source.history(), ...newest] : newest;
    const latestNs = await nowNs();
    for (const key of keys) {
      if (!newest.some(({ camera }) => camera === key)) throw missingFrame(key, keys, newest);
      for (const frame of fetched) if (frame.camera === key) this.#keep(frame, latestNs);
    }
    const frames = keys.map((key) => this.#newestAt(key, momentNs));
    const stamps = frames.map(({ capturedAtNs }) => capturedAtNs);
    const [first, last] = [stamps.reduce((a, b) => (b < a ? b : a)), stamps.reduce((a, b) => (b > a ? b : a))];
    this.#checkSkew(frames, first, last);
    return { frames, ageNsMax: momentNs - first, skewNs: last - first };
  }

  #keep(frame: Frame, nowNs: bigint): void {
    checkSize(
      frame,
      this.#options.source.cameras.find(({ camera }) => camera === frame.camera),
    );
    if (frame.capturedAtNs > nowNs) {
      throw new PremotorError('CAMERA_CLOCK', `Camera ${frame.camera} stamped a frame in the future. Stamp frames with the robot's clock.`, {
        expected: `at most ${nowNs} ns`,
        found: `${frame.capturedAtNs} ns`,
      });
    }
    const kept = this.#kept.get(frame.camera) ?? [];
    if (kept.some(({ capturedAtNs }) => capturedAtNs === frame.capturedAtNs)) return;
    kept.push(frame);
    kept.sort((a, b) => (a.capturedAtNs < b.capturedAtNs ? -1 : 1));
    this.#kept.set(frame.camera, kept.slice(-FRAMES_KEPT));
  }

  #newestAt(camera: string, momentNs: bigint): Frame {
    const kept = this.#kept.get(camera) ?? [];
    const frame = kept.findLast(({ capturedAtNs }) => capturedAtNs <= momentNs);
    if (!frame) {
      const message = `Camera ${camera} has no frame as early as the moment that was asked for. Stamp frames with the robot's clock, at capture.`;
      throw new PremotorError('CAMERA_CLOCK', message, { expected: `at most ${momentNs} ns`, found: `${kept[0]?.capturedAtNs} ns` });
    }
    const ageNs = momentNs - frame.capturedAtNs;
    if (ageNs <= this.#options.ageMaxNs) return frame;
    throw new PremotorError(
      'CAMERA_FRAME_STALE',
      `Camera ${camera} delivers too late. Check its cable, its frame rate and the load of this machine.`,
      {
        expected: `a frame at most ${toMs(this.#options.ageMaxNs)} ms old`,
        found: `${toMs(ageNs)} ms`,
      },
    );
  }

  #checkSkew(frames: readonly Frame[], firstNs: bigint, lastNs: bigint): void {
    if (lastNs - firstNs <= this.#options.skewMaxNs) return;
    const named = (stamp: bigint): string => frames.find(({ capturedAtNs }) => capturedAtNs === stamp)?.camera ?? '';
    const message = `Cameras ${named(firstNs)} and ${named(lastNs)} saw different moments. Give them one frame rate, or trigger them together.`;
    throw new PremotorError('CAMERA_SKEW', message, {
      expected: `captures at most ${toMs(this.#options.skewMaxNs)} ms apart`,
      found: `${toMs(lastNs - firstNs)} ms`,
    });
  }
}

function missingFrame(key: string, keys: readonly string[], frames: readonly Frame[]): PremotorError {
  return new PremotorError('CAMERA_MISSING', `No frame of camera ${key}. Connect it, or change obs_cam_keys in the job.`, {
    expected: keys.join(', '),
    found: frames.map(({ camera }) => camera).join(', ') || 'no frames',
  });
}

/** A frame has the bytes of its size, and the size that its camera announced. */
function checkSize(frame: Frame, camera: CameraInfo | undefined): void {
  const { width, height, data } = frame;
  const bytes = width * height * 3;
  if (data.length !== bytes) {
    throw new PremotorError('CAMERA_FRAME_SIZE', `Camera ${frame.camera} gave a frame that is not ${width} x ${height} RGB.`, {
      expected: `${bytes} bytes`,
      found: `${data.length} bytes`,
    });
  }
  if (!camera || (camera.width === width && camera.height === height)) return;
  throw new PremotorError('CAMERA_FRAME_SIZE', `Camera ${frame.camera} changed its picture size. Set it to the size that it was opened with.`, {
    expected: `${camera.width} x ${camera.height}`,
    found: `${width} x ${height}`,
  });
}
