/**
 * The cameras of the simulation. They behave like real ones: frames are taken at a rate of their own on the world's clock, stamped with the time of
 * capture, and delivered when they have arrived, whoever asks and whenever.
 */
import type { Frame } from '../policy/contract.js';
import { Renderer } from '../sim/renderer.js';
import type { CameraName } from '../sim/scene.js';
import type { World } from '../sim/world.js';
import type { CameraInfo, FrameSource } from './source.js';

/** What the job calls a camera of the scene. */
export const CAMERA_KEY_PREFIX = 'observation.images.';

export interface SimulatedCamerasOptions {
  /** The cameras to render; each costs time. */
  readonly names: readonly CameraName[];
  /** Width and height of every picture, pixels. */
  readonly size: number;
  /** Frames per second of the world's clock. */
  readonly fps: number;
  /** From capture to delivery. */
  readonly delayMs: number;
}

export class SimulatedCameras implements FrameSource {
  readonly cameras: readonly CameraInfo[];
  readonly #world: World;
  readonly #renderers: readonly Renderer[];
  readonly #fps: number;
  readonly #delayNs: bigint;
  /** Taken and not yet delivered, oldest first: at most delay x fps + 1 of them. */
  readonly #underway: (readonly Frame[])[] = [];
  #delivered: readonly Frame[] = [];
  #taken = 0;

  constructor(world: World, options: SimulatedCamerasOptions) {
    this.#world = world;
    this.#renderers = options.names.map((name) => new Renderer(world, name, options.size, options.size));
    this.cameras = options.names.map((name) => ({ camera: `${CAMERA_KEY_PREFIX}${name}`, width: options.size, height: options.size }));
    this.#fps = options.fps;
    this.#delayNs = BigInt(Math.round(options.delayMs * 1e6));
  }

  /** A frame now, and the next ones at their times. It counts as delivered: the world rests, so an older frame would show the same. */
  restart(): void {
    this.#underway.length = 0;
    this.#delivered = this.#take();
    // Frame n is due at n / fps, from time 0 on.
    this.#taken = Math.floor((Number(this.#world.timeNs) * this.#fps) / 1e9 + 1e-9) + 1;
  }

  /** Called after every step of the world: takes the frame that is due, delivers what has arrived. */
  tick(): void {
    const now = this.#world.timeNs;
    if (now >= BigInt(Math.round((1e9 * this.#taken) / this.#fps))) {
      this.#underway.push(this.#take());
      this.#taken++;
    }
    while ((this.#underway[0]?.[0]?.capturedAtNs ?? now) + this.#delayNs <= now) {
      const arrived = this.#underway.shift();
      if (!arrived) break;
      this.#delivered = arrived;
    }
  }

  #take(): readonly Frame[] {
    const capturedAtNs = this.#world.timeNs;
    return this.#renderers.map((renderer, index) => ({
      camera: this.cameras[index]?.camera ?? '',
      width: renderer.width,
      height: renderer.height,
      data: renderer.render(),
      capturedAtNs,
    }));
  }

  /** The newest delivered frame of every camera. */
  async capture(): Promise<readonly Frame[]> {
    return this.#delivered;
  }

  /** Nothing to release: the world belongs to whoever opened it. */
  async close(): Promise<void> {}
}
