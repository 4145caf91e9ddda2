/**
 * The frame source of the simulation: renders the cameras of a World on request. A frame shows the world at the present virtual time and is stamped
 * with it.
 */
import type { Frame } from '../policy/contract.js';
import { Renderer } from '../sim/renderer.js';
import { CAMERAS } from '../sim/scene.js';
import type { World } from '../sim/world.js';
import type { CameraInfo, FrameSource } from './source.js';

export class SimulatedCameras implements FrameSource {
  readonly cameras: readonly CameraInfo[];
  readonly #world: World;
  readonly #renderers: readonly { readonly key: string; readonly renderer: Renderer }[];

  /** @param size width and height of every picture, pixels */
  constructor(world: World, size: number, prefix = 'observation.images.') {
    this.#world = world;
    this.#renderers = CAMERAS.map((name) => ({ key: `${prefix}${name}`, renderer: new Renderer(world, name, size, size) }));
    this.cameras = this.#renderers.map(({ key }) => ({ camera: key, width: size, height: size }));
  }

  async capture(): Promise<readonly Frame[]> {
    return this.#renderers.map(({ key, renderer }) => ({
      camera: key,
      width: renderer.width,
      height: renderer.height,
      data: renderer.render(),
      capturedAtNs: this.#world.timeNs,
    }));
  }

  /** Nothing to release: the world belongs to whoever opened it. */
  async close(): Promise<void> {}
}
