/**
 * The simulated robot as one thing: world, arm and cameras on one clock, with disturbances between them. In virtual time the world advances when the
 * robot is stepped and never otherwise, so equal inputs give equal bits. In real time it follows the wall clock by itself and holds the last setpoint
 * while nobody steps. Owned by whoever opened it; knows no policy and no task.
 */
import { SimulatedCameras } from '../cameras/simulated.js';
import type { FrameSource } from '../cameras/source.js';
import type { Robot, RobotState } from '../robot/robot.js';
import { JOINTS } from './arm.js';
import { type Disturbances, Lag, Nudge } from './disturbances.js';
import { PICTURE_SIZE, VIDEO_RATE_HZ } from './job.js';
import { CAMERAS, type CameraName, type SceneKind, STEP_NS } from './scene.js';
import { type TableLayout, World } from './world.js';

export interface SimulationOptions {
  readonly kind: SceneKind;
  /** The cameras that are rendered. Default: all. */
  readonly cameras?: readonly CameraName[];
  /** Width and height of every picture, pixels. Default: 96. */
  readonly size?: number;
  /** Frames per second of the world's clock. Default: 12.5. */
  readonly fps?: number;
  readonly disturbances?: Disturbances;
  /** Default: 'virtual'. */
  readonly pace?: 'virtual' | 'real';
}

/** In real time: how often the world follows the clock while nobody steps it. */
const catch_up_period_ms = 10;
/** The world may lag so far behind the clock, rendering for example, before setpoints are held for it; the next steps make up for it. */
const behind_max_ms = 20;
/** A longer pause of the whole process (a suspended machine) is not made up for: the world's clock loses it. */
const catch_up_max_ms = 500;
/** A step may end so much before its time, because timers are no finer. */
const ahead_max_ms = 4;
const STEP_MS = Number(STEP_NS) / 1e6;

export class Simulation {
  readonly world: World;
  readonly robot: Robot;
  readonly cameras: FrameSource;
  readonly #sampled: SimulatedCameras;
  readonly #lag: Lag;
  readonly #nudge: Nudge;
  readonly #isReal: boolean;
  /** What the servos are told while nobody steps. */
  readonly #setpoint = new Float64Array(JOINTS.length);
  /** Wall-clock time at which the world's time was 0; moves when a pause is not made up for. */
  #originMs = 0;
  #catchUp: NodeJS.Timeout | undefined;
  #failure: unknown;

  private constructor(world: World, options: SimulationOptions) {
    const disturbances = options.disturbances ?? {};
    this.world = world;
    this.#isReal = options.pace === 'real';
    this.#sampled = new SimulatedCameras(world, {
      names: options.cameras ?? CAMERAS,
      size: options.size ?? PICTURE_SIZE,
      fps: options.fps ?? VIDEO_RATE_HZ,
      delayMs: disturbances.cameraDelayMs ?? 0,
    });
    this.cameras = this.#sampled;
    this.#lag = new Lag(disturbances.actuatorLagMs ?? 0, STEP_MS, JOINTS.length);
    this.#nudge = new Nudge(world, disturbances.blockNudgeMPerS ?? 0);
    this.robot = {
      joints: JOINTS,
      periodNs: STEP_NS,
      getState: async (): Promise<RobotState> => this.#state(),
      step: (setpointRad) => (this.#isReal ? this.#stepInRealTime(setpointRad) : this.#stepNow(setpointRad)),
    };
  }

  /** Errors: SIM_MODEL. */
  static async open(options: SimulationOptions): Promise<Simulation> {
    return new Simulation(await World.open(options.kind), options);
  }

  /** Time 0 of an episode: the layout, the arm at home, frame 0 of every camera. `seed` draws the disturbances. Errors: SIM_LAYOUT. */
  reset(layout: TableLayout, seed = 0): void {
    this.world.reset(layout);
    this.#setpoint.set(this.world.state().positionsRad);
    this.#lag.restart(this.#setpoint);
    this.#nudge.restart(seed, layout.kind === 'block' ? layout : undefined);
    this.#sampled.restart();
    this.#failure = undefined;
    if (!this.#isReal) return;
    this.#originMs = performance.now();
    this.#catchUp ??= setInterval(() => this.#followClock(), catch_up_period_ms).unref();
  }

  /** When the block was knocked aside in this episode, or will be; undefined when it was not. */
  get nudgedAtNs(): bigint | undefined {
    return this.#nudge.atNs;
  }

  /** Stops the clock and frees the world. Idempotent. */
  close(): void {
    clearInterval(this.#catchUp);
    this.#catchUp = undefined;
    this.world.close();
  }

  #advance(setpointRad: Float64Array): void {
    this.world.step(this.#lag.step(setpointRad));
    this.#nudge.tick();
    this.#sampled.tick();
  }

  async #stepNow(setpointRad: Float64Array): Promise<void> {
    this.#advance(setpointRad);
  }

  #state(): RobotState {
    if (this.#isReal) this.#followClock();
    this.#throwFailure();
    return this.world.state();
  }

  /** What went wrong while nobody was there to hear it. */
  #throwFailure(): void {
    if (this.#failure === undefined) return;
    throw this.#failure;
  }

  #worldMs(): number {
    return Number(this.world.timeNs) / 1e6;
  }

  /** Holds the last setpoint until the world's time is nearly the clock's. */
  #followClock(): void {
    if (this.#failure !== undefined) return;
    const behindMs = performance.now() - this.#originMs - this.#worldMs() - behind_max_ms;
    const lostMs = Math.max(0, behindMs - catch_up_max_ms);
    this.#originMs += lostMs;
    try {
      for (let step = Math.floor((behindMs - lostMs) / STEP_MS); step > 0; step--) this.#advance(this.#setpoint);
    } catch (error) {
      this.#failure = error;
    }
  }

  async #stepInRealTime(setpointRad: Float64Array): Promise<void> {
    this.#followClock();
    this.#throwFailure();
    this.#advance(setpointRad);
    this.#setpoint.set(setpointRad);
    const aheadMs = this.#worldMs() - (performance.now() - this.#originMs);
    if (aheadMs >= ahead_max_ms) await new Promise((resolve) => setTimeout(resolve, aheadMs));
  }
}
