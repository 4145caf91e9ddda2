/**
 * The only file that knows the MuJoCo WebAssembly build and its habits: models come from its own file system, outputs need its own buffers, views of
 * its memory are detached when that memory grows, and everything must be deleted by hand. Owned by src/sim/world.ts; never knows what is simulated.
 */
import loadMujoco, { type DoubleBuffer, type IntBuffer, type MainModule, type MjData, type MjModel } from 'mujoco-js';
import { PremotorError } from '../errors.js';

export type MujocoObject = 'body' | 'joint' | 'geom' | 'site' | 'camera' | 'actuator';

let library: Promise<MainModule> | undefined;
let modelsLoaded = 0;

/** All geom groups are visible to rays. */
const ALL_GROUPS = new Uint8Array([1, 1, 1, 1, 1, 1]);
const RAY_LENGTH_MAX_M = 10;

/** What a bundle of rays hit: geom ids (-1: nothing) and distances. Valid until the next cast. */
export interface RayHits {
  readonly geoms: Int32Array;
  readonly distances: Float64Array;
}

export class Mujoco {
  readonly #library: MainModule;
  readonly #model: MjModel;
  readonly #data: MjData;
  readonly #rays = new Map<number, { readonly geoms: IntBuffer; readonly distances: DoubleBuffer }>();
  #isOpen = true;

  private constructor(library: MainModule, model: MjModel) {
    this.#library = library;
    this.#model = model;
    this.#data = new library.MjData(model);
    this.#widenBounds();
  }

  /**
   * mj_multiRay skips a geom when a ray points outside the angles of its bounding box's corners. Seen from near above, the box reaches beyond its
   * corners and silhouettes lose pixels. Boxes around the whole scene switch the skipping off; collisions only use them to choose which pairs to
   * look at.
   */
  #widenBounds(): void {
    const boxes = this.#model.geom_aabb as Float64Array; // [geoms, centre 3 + half size 3]
    for (let at = 0; at < boxes.length; at += 6) boxes.fill(RAY_LENGTH_MAX_M, at + 3, at + 6);
  }

  /** Compiles an MJCF text. Errors: SIM_MODEL. */
  static async open(xml: string): Promise<Mujoco> {
    library ??= loadMujoco();
    const mujoco = await library;
    const path = `/model-${modelsLoaded++}.xml`;
    mujoco.FS.writeFile(path, xml, {});
    try {
      return new Mujoco(mujoco, mujoco.MjModel.loadFromXML(path));
    } catch (cause) {
      throw new PremotorError('SIM_MODEL', 'MuJoCo rejects the scene. The scene is built into premotor: please report this.', { cause });
    } finally {
      mujoco.FS.unlink(path);
    }
  }

  /** Index of a named thing. Errors: SIM_MODEL. */
  id(kind: MujocoObject, name: string): number {
    const types = this.#library.mjtObj;
    const type = {
      body: types.mjOBJ_BODY,
      joint: types.mjOBJ_JOINT,
      geom: types.mjOBJ_GEOM,
      site: types.mjOBJ_SITE,
      camera: types.mjOBJ_CAMERA,
      actuator: types.mjOBJ_ACTUATOR,
    }[kind];
    const index = this.#library.mj_name2id(this.#model, type.value, name);
    if (index < 0) throw new PremotorError('SIM_MODEL', `The scene has no ${kind} ${name}.`, { expected: `${kind} ${name}`, found: 'none' });
    return index;
  }

  get positions(): Float64Array {
    return this.#data.qpos as Float64Array;
  }
  get velocities(): Float64Array {
    return this.#data.qvel as Float64Array;
  }
  get controls(): Float64Array {
    return this.#data.ctrl as Float64Array;
  }
  /** Index into `positions` of a joint, and into `velocities`. */
  jointAddress(joint: number): { readonly position: number; readonly velocity: number } {
    return { position: (this.#model.jnt_qposadr as Int32Array)[joint] ?? -1, velocity: (this.#model.jnt_dofadr as Int32Array)[joint] ?? -1 };
  }

  /** [geoms, 4] */
  get geomColours(): Float32Array {
    return this.#model.geom_rgba as Float32Array;
  }
  /** [geoms], values of mjtGeom */
  get geomTypes(): Int32Array {
    return this.#model.geom_type as Int32Array;
  }
  /** [geoms, 3] */
  get geomSizes(): Float64Array {
    return this.#model.geom_size as Float64Array;
  }
  /** [geoms] */
  get geomBodies(): Int32Array {
    return this.#model.geom_bodyid as Int32Array;
  }
  /** [geoms, 3] */
  get geomPositions(): Float64Array {
    return this.#data.geom_xpos as Float64Array;
  }
  /** [geoms, 3, 3] */
  get geomRotations(): Float64Array {
    return this.#data.geom_xmat as Float64Array;
  }
  /** [cameras, 3] */
  get cameraPositions(): Float64Array {
    return this.#data.cam_xpos as Float64Array;
  }
  /** [cameras, 3, 3] */
  get cameraRotations(): Float64Array {
    return this.#data.cam_xmat as Float64Array;
  }
  /** [cameras], degrees */
  get cameraFovy(): Float64Array {
    return this.#model.cam_fovy as Float64Array;
  }
  /** [sites, 3] */
  get sitePositions(): Float64Array {
    return this.#data.site_xpos as Float64Array;
  }
  /** [mocap bodies, 3], writable */
  get mocapPositions(): Float64Array {
    return this.#data.mocap_pos as Float64Array;
  }
  mocapIndex(body: number): number {
    return (this.#model.body_mocapid as Int32Array)[body] ?? -1;
  }

  /** Back to the model's initial state, time 0. */
  resetState(): void {
    this.#library.mj_resetData(this.#model, this.#data);
  }
  /** Everything that follows from positions, velocities and controls, without advancing time. */
  forward(): void {
    this.#library.mj_forward(this.#model, this.#data);
  }
  step(): void {
    this.#library.mj_step(this.#model, this.#data);
  }
  /** Poses of geoms, sites and cameras for the present positions. A step leaves them one step behind. */
  updatePoses(): void {
    this.#library.mj_kinematics(this.#model, this.#data);
    this.#library.mj_camlight(this.#model, this.#data);
  }

  /** Everything that the next steps follow from: positions, velocities, controls, warm start, mocap bodies, time. */
  saveState(): Float64Array {
    const kind = this.#library.mjtState.mjSTATE_INTEGRATION.value;
    const buffer = new this.#library.DoubleBuffer(this.#library.mj_stateSize(this.#model, kind));
    try {
      this.#library.mj_getState(this.#model, this.#data, buffer, kind);
      return Float64Array.from(buffer.GetView() as Float64Array);
    } finally {
      buffer.delete();
    }
  }

  /** Goes back to a saved state, bit for bit. Errors: SIM_SNAPSHOT for a state of another scene. */
  loadState(state: Float64Array): void {
    const kind = this.#library.mjtState.mjSTATE_INTEGRATION.value;
    const size = this.#library.mj_stateSize(this.#model, kind);
    if (state.length !== size) {
      const message = `The saved world has ${state.length} values, expected ${size}. It belongs to another scene or version; begin the episode anew.`;
      throw new PremotorError('SIM_SNAPSHOT', message, { expected: `${size} values`, found: `${state.length}` });
    }
    // The declared type is number[]; typed arrays are taken as well.
    const values = state as unknown as number[];
    this.#library.mj_resetData(this.#model, this.#data);
    this.#library.mj_setState(this.#model, this.#data, values, kind);
    // What pictures and verdicts look at follows from the state; computing it leaves another warm start behind.
    this.forward();
    this.#library.mj_setState(this.#model, this.#data, values, kind);
  }

  /** Casts rays from one point; `directions` is [rays, 3], unit length. */
  castRays(origin: Float64Array, directions: Float64Array): RayHits {
    const count = directions.length / 3;
    const buffers = this.#rayBuffers(count);
    // The declared parameter types are number[]; typed arrays are taken as well, and faster.
    const [from, along] = [origin as unknown as number[], directions as unknown as number[]];
    this.#library.mj_multiRay(this.#model, this.#data, from, along, ALL_GROUPS, 1, -1, buffers.geoms, buffers.distances, count, RAY_LENGTH_MAX_M);
    return { geoms: buffers.geoms.GetView() as Int32Array, distances: buffers.distances.GetView() as Float64Array };
  }

  /** Casts one ray by the slow, independent path (mj_ray): the check of castRays. */
  castRay(origin: readonly number[], direction: readonly number[]): { readonly geom: number; readonly distance: number } {
    const { geoms } = this.#rayBuffers(1);
    const distance = this.#library.mj_ray(this.#model, this.#data, [...origin], [...direction], ALL_GROUPS as unknown as number[], 1, -1, geoms);
    return { geom: (geoms.GetView() as Int32Array)[0] ?? -1, distance };
  }

  #rayBuffers(count: number): { readonly geoms: IntBuffer; readonly distances: DoubleBuffer } {
    let buffers = this.#rays.get(count);
    if (!buffers) {
      buffers = { geoms: new this.#library.IntBuffer(count), distances: new this.#library.DoubleBuffer(count) };
      this.#rays.set(count, buffers);
    }
    return buffers;
  }

  /** Frees the model. Idempotent. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const { geoms, distances } of this.#rays.values()) {
      geoms.delete();
      distances.delete();
    }
    this.#data.delete();
    this.#model.delete();
  }
}
