/**
 * Cameras of several sources as one: a camera that is named takes the place of the robot's own of that name, and others are added behind. Owned by
 * the rig; it closes the named ones, and the robot's own with them.
 */
import type { Frame } from '../policy/contract.js';
import type { CameraInfo, FrameSource } from './source.js';

export class CombinedCameras implements FrameSource {
  readonly cameras: readonly CameraInfo[];
  readonly #own: FrameSource;
  readonly #named: ReadonlyMap<string, FrameSource>;
  readonly #ownKeys: ReadonlySet<string>;

  /** `named`: camera key -> a source that has this camera. */
  constructor(own: FrameSource, named: ReadonlyMap<string, FrameSource>) {
    this.#own = own;
    this.#named = named;
    const infoOf = (key: string, source: FrameSource): readonly CameraInfo[] => source.cameras.filter(({ camera }) => camera === key);
    const ownKeys = own.cameras.map(({ camera }) => camera);
    this.#ownKeys = new Set(ownKeys.filter((key) => !named.has(key)));
    const replaced = own.cameras.flatMap((info) => {
      const source = named.get(info.camera);
      return source ? infoOf(info.camera, source) : [info];
    });
    const added = [...named].filter(([key]) => !ownKeys.includes(key)).flatMap(([key, source]) => infoOf(key, source));
    this.cameras = [...replaced, ...added];
  }

  /** Errors: those of the sources. */
  async capture(): Promise<readonly Frame[]> {
    const sources = [...new Set([...(this.#ownKeys.size > 0 ? [this.#own] : []), ...this.#named.values()])];
    const frames = (await Promise.all(sources.map(async (source) => this.#wanted(source, await source.capture())))).flat();
    return this.cameras.flatMap(({ camera }) => frames.filter((frame) => frame.camera === camera));
  }

  history(): readonly Frame[] {
    const sources = new Set([this.#own, ...this.#named.values()]);
    return [...sources].flatMap((source) => this.#wanted(source, source.history?.() ?? []));
  }

  /** Idempotent as the sources are; all are closed, and the first failure is told. */
  async close(): Promise<void> {
    const closed = await Promise.allSettled([...new Set([this.#own, ...this.#named.values()])].map((source) => source.close()));
    const failed = closed.find((one) => one.status === 'rejected');
    if (failed) throw failed.reason;
  }

  #wanted(source: FrameSource, frames: readonly Frame[]): readonly Frame[] {
    return frames.filter(({ camera }) => (source === this.#own ? this.#ownKeys.has(camera) : this.#named.get(camera) === source));
  }
}
