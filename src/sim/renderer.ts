/**
 * Draws what a camera of the scene sees by casting one ray per pixel: the geom's colour times Lambert shading. No graphics library, no display, the
 * same bytes on every machine. Owned by the simulated frame source; never advances the simulation.
 */
import type { CameraName } from './scene.js';
import type { World } from './world.js';

const BACKGROUND = [0.42, 0.5, 0.58] as const;
/** Towards the light, unit length. */
const LIGHT = ((): readonly [number, number, number] => {
  const length = Math.hypot(0.35, 0.25, 0.9);
  return [0.35 / length, 0.25 / length, 0.9 / length];
})();
const AMBIENT = 0.45;
/** mjtGeom */
const SPHERE = 2;
const CAPSULE = 3;
const CYLINDER = 5;

type Matrix3 = readonly [number, number, number, number, number, number, number, number, number];

/** What shading needs of one geom, gathered once per picture. */
interface ShadedGeom {
  readonly type: number;
  readonly size: readonly [number, number, number];
  readonly colour: readonly [number, number, number];
  /** From the geom's origin to the camera, and the direction towards the light, both along the geom's own axes. */
  readonly camera: readonly [number, number, number];
  readonly light: readonly [number, number, number];
  /** Row-major rotation from the geom's axes to the world's. */
  readonly rotation: Matrix3;
}

/** v along the geom's axes: columns of the rotation are those axes, so the transpose is applied. */
function intoGeom(rotation: Matrix3, x: number, y: number, z: number): [number, number, number] {
  const [r0, r1, r2, r3, r4, r5, r6, r7, r8] = rotation;
  return [r0 * x + r3 * y + r6 * z, r1 * x + r4 * y + r7 * z, r2 * x + r5 * y + r8 * z];
}

/**
 * Cosine between the surface normal at point (x, y, z) of a geom and the light, all along the geom's axes. Plain roots: Math.hypot costs more than
 * the rest.
 */
function cosineToLight(geom: ShadedGeom, x: number, y: number, z: number): number {
  const { size, light } = geom;
  if (geom.type === SPHERE) return (x * light[0] + y * light[1] + z * light[2]) / Math.sqrt(x * x + y * y + z * z);
  if (geom.type === CAPSULE) {
    const beyond = z - Math.max(-size[1], Math.min(size[1], z));
    return (x * light[0] + y * light[1] + beyond * light[2]) / Math.sqrt(x * x + y * y + beyond * beyond);
  }
  if (geom.type === CYLINDER) {
    // The nearer surface was hit: the wall or a cap.
    const radius = Math.sqrt(x * x + y * y);
    return size[0] - radius < size[1] - Math.abs(z) ? (x * light[0] + y * light[1]) / radius : Math.sign(z) * light[2];
  }
  // A box: the face whose plane the point is nearest to.
  const gapX = size[0] - Math.abs(x);
  const gapY = size[1] - Math.abs(y);
  const gapZ = size[2] - Math.abs(z);
  if (gapX < gapY && gapX < gapZ) return Math.sign(x) * light[0];
  return gapY < gapZ ? Math.sign(y) * light[1] : Math.sign(z) * light[2];
}

/** Brightness where a ray (direction x, y, z in the world's frame) meets a geom at a distance. Scalars only: this runs for every pixel. */
function shadeAt(geom: ShadedGeom, distance: number, x: number, y: number, z: number): number {
  const { rotation: r, camera } = geom;
  const alongX = camera[0] + distance * (r[0] * x + r[3] * y + r[6] * z);
  const alongY = camera[1] + distance * (r[1] * x + r[4] * y + r[7] * z);
  const alongZ = camera[2] + distance * (r[2] * x + r[5] * y + r[8] * z);
  return AMBIENT + (1 - AMBIENT) * Math.max(0, cosineToLight(geom, alongX, alongY, alongZ));
}

export class Renderer {
  readonly #world: World;
  readonly #camera: number;
  readonly #local: Float64Array; // [pixels, 3], unit rays in the camera's frame
  readonly #rays: Float64Array; // [pixels, 3], the same in the world's frame
  readonly #origin = new Float64Array(3);
  /** The rotation that #rays were made with. */
  readonly #aimed = new Float64Array(9).fill(Number.NaN);
  readonly width: number;
  readonly height: number;

  constructor(world: World, camera: CameraName, width: number, height: number) {
    this.#world = world;
    this.#camera = world.mujoco.id('camera', camera);
    this.width = width;
    this.height = height;
    this.#local = new Float64Array(width * height * 3);
    this.#rays = new Float64Array(width * height * 3);
    const slope = Math.tan(((world.mujoco.cameraFovy[this.#camera] ?? 0) * Math.PI) / 360);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        // MuJoCo cameras look along -z, x to the right, y up; rays go through pixel centres, pixels are square.
        const x = (slope * (2 * (column + 0.5) - width)) / height;
        const y = slope * (1 - (2 * (row + 0.5)) / height);
        const length = Math.hypot(x, y, 1);
        this.#local.set([x / length, y / length, -1 / length], (row * width + column) * 3);
      }
    }
  }

  /** Rays of the present camera pose: the origin and [pixels, 3] unit directions. Valid until the next call. */
  aim(): { readonly origin: Float64Array; readonly rays: Float64Array } {
    const { mujoco } = this.#world;
    mujoco.updatePoses();
    const rotation = mujoco.cameraRotations.subarray(this.#camera * 9, this.#camera * 9 + 9);
    // A fixed camera is aimed once.
    if (rotation.some((value, index) => value !== this.#aimed[index])) this.#turn(rotation);
    this.#origin.set(mujoco.cameraPositions.subarray(this.#camera * 3, this.#camera * 3 + 3));
    return { origin: this.#origin, rays: this.#rays };
  }

  #turn(rotation: Float64Array): void {
    this.#aimed.set(rotation);
    const [r0, r1, r2, r3, r4, r5, r6, r7, r8] = Array.from(rotation) as unknown as Matrix3;
    const [local, rays] = [this.#local, this.#rays];
    for (let i = 0; i < local.length; i += 3) {
      const x = local[i] ?? 0;
      const y = local[i + 1] ?? 0;
      const z = local[i + 2] ?? 0;
      rays[i] = r0 * x + r1 * y + r2 * z;
      rays[i + 1] = r3 * x + r4 * y + r5 * z;
      rays[i + 2] = r6 * x + r7 * y + r8 * z;
    }
  }

  /** The picture: RGB, [height, width, 3]. */
  render(): Uint8Array {
    const { origin, rays } = this.aim();
    const { geoms, distances } = this.#world.mujoco.castRays(origin, rays);
    const scene = this.#gather();
    const picture = new Uint8Array(this.width * this.height * 3);
    for (let pixel = 0; pixel < geoms.length; pixel++) {
      const at = pixel * 3;
      const geom = scene[geoms[pixel] ?? -1];
      const [red, green, blue] = geom ? geom.colour : BACKGROUND;
      const shade = geom ? shadeAt(geom, distances[pixel] ?? 0, rays[at] ?? 0, rays[at + 1] ?? 0, rays[at + 2] ?? 0) : 1;
      picture[at] = Math.min(255, Math.round(255 * red * shade));
      picture[at + 1] = Math.min(255, Math.round(255 * green * shade));
      picture[at + 2] = Math.min(255, Math.round(255 * blue * shade));
    }
    return picture;
  }

  #gather(): ShadedGeom[] {
    const { geomTypes, geomSizes, geomColours, geomPositions, geomRotations } = this.#world.mujoco;
    const triple = (values: ArrayLike<number>, at: number): [number, number, number] => [values[at] ?? 0, values[at + 1] ?? 0, values[at + 2] ?? 0];
    const eye = triple(this.#origin, 0);
    return Array.from(geomTypes, (type, geom) => {
      const rotation = Array.from(geomRotations.subarray(geom * 9, geom * 9 + 9)) as unknown as Matrix3;
      const centre = triple(geomPositions, geom * 3);
      return {
        type,
        size: triple(geomSizes, geom * 3),
        colour: triple(geomColours, geom * 4),
        camera: intoGeom(rotation, eye[0] - centre[0], eye[1] - centre[1], eye[2] - centre[2]),
        light: intoGeom(rotation, ...LIGHT),
        rotation,
      };
    });
  }
}
