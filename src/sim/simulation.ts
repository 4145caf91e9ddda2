/**
 * The simulated robot as one thing: world, motors and cameras on one clock, with disturbances between them. In virtual time the world advances while
 * somebody waits for the robot and never otherwise, so equal inputs give equal bits. In real time it follows the wall clock by itself. Owned by
 * whoever opened it; knows no policy and no task.
 */
import type { CameraClock } from '../cameras/clock.js';
import { SimulatedCameras } from '../cameras/simulated.js';
import type { FrameSource } from '../cameras/source.js';
import { PremotorError } from '../errors.js';
import type { NativeSamples } from '../native.js';
import { MotionRobot } from '../robot/motion-robot.js';
import type { Joint, Robot } from '../robot/robot.js';
import { JOINTS } from './arm.js';
import { type Disturbances, Lag, Nudge, Shift } from './disturbances.js';
import { PICTURE_SIZE, VIDEO_RATE_HZ } from './job.js';
import { SimulatedMotors } from './motors.js';
import { CAMERAS, type CameraName, type SceneKind, STEP_NS } from './scene.js';
import { type TableLayout, World, type WorldSnapshot } from './world.js';

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
  /** Limits of the joints, no wider than the arm's. Default: the arm's own. */
  readonly joints?: readonly Joint[];
}

/** A simulation at one moment, as plain data. */
export interface SimulationSnapshot {
  readonly world: WorldSnapshot;
  /** The motors' setpoint, [joints]; absent while they have none. */
  readonly heldRad?: Float64Array;
}

/** In real time: how often the world follows the clock. */
const CATCH_UP_PERIOD_MS = 4;
/** A longer pause of the whole process (a suspended machine) is not made up for: the world's clock loses it. */
const CATCH_UP_MAX_MS = 500;
const STEP_MS = Number(STEP_NS) / 1e6;
/** performance.now() counts on the monotonic clock, from this moment of it. */
const MONOTONIC_ORIGIN_NS = process.hrtime.bigint() - BigInt(Math.round(performance.now() * 1e6));

export class Simulation {
  readonly world: World;
  readonly robot: Robot;
  readonly cameras: FrameSource;
  readonly #joints: readonly Joint[];
  readonly #sampled: SimulatedCameras;
  readonly #lag: Lag;
  readonly #nudge: Nudge;
  readonly #shift: Shift;
  readonly #isReal: boolean;
  readonly #watchers = new Set<(setpointRad: Float64Array) => void>();
  readonly #cycleWatchers = new Set<(samples: NativeSamples) => void>();
  #motors: SimulatedMotors;
  #boots = 1;
  /** What the motors of a restored world hold until they are armed. */
  #heldRad: Float64Array | undefined;
  /** Wall-clock time at which the world's time was 0; moves when a pause is not made up for. */
  #originMs = 0;
  #catchUp: NodeJS.Timeout | undefined;
  #failure: unknown;
  /** In real time: who waits for the world's clock. The timer that makes it follow wakes them. */
  readonly #waiting = new Set<{ readonly timeNs: bigint; readonly resolve: () => void; readonly reject: (error: unknown) => void }>();

  private constructor(world: World, options: SimulationOptions) {
    const disturbances = options.disturbances ?? {};
    this.world = world;
    this.#joints = options.joints ?? JOINTS;
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
    this.#shift = new Shift(world, disturbances.boardShiftM ?? 0);
    this.#motors = new SimulatedMotors(world, this.#joints, this.#boots);
    this.robot = this.#makeRobot();
  }

  /** The robot stays the same object when a reset gives it new motors. */
  #makeRobot(): Robot {
    const make = (): Robot =>
      new MotionRobot({
        native: this.#motors.native,
        clock: { nowNs: () => this.world.timeNs, waitUntil: (timeNs) => this.#waitUntil(timeNs) },
        joints: this.#joints,
        periodNs: STEP_NS,
        measure: () => {
          this.#throwFailure();
          return this.world.state();
        },
      });
    let made = { motors: this.#motors, robot: make() };
    const current = (): Robot => {
      if (made.motors !== this.#motors) made = { motors: this.#motors, robot: make() };
      return made.robot;
    };
    return {
      joints: this.#joints,
      periodNs: STEP_NS,
      getState: () => current().getState(),
      arm: async () => {
        await current().arm();
        this.#heldRad = undefined;
      },
      disarm: () => current().disarm(),
      stop: (category) => current().stop(category),
      rest: () => current().rest(),
      beat: (forMs) => current().beat(forMs),
      push: (plan) => current().push(plan),
      moveTo: (positionsRad) => current().moveTo(positionsRad),
      executed: () => current().executed(),
      waitUntil: (timeNs) => current().waitUntil(timeNs),
    };
  }

  /** Errors: SIM_MODEL. */
  static async open(options: SimulationOptions): Promise<Simulation> {
    return new Simulation(await World.open(options.kind), options);
  }

  /**
   * Time 0 of an episode: the layout, the arm at home and without power, frame 0 of every camera. `seed` draws the disturbances. Errors: SIM_LAYOUT.
   */
  reset(layout: TableLayout, seed = 0): void {
    this.world.reset(layout);
    this.#nudge.restart(seed, layout.kind === 'block' ? layout : undefined);
    this.#shift.restart(seed);
    this.#heldRad = undefined;
    this.#boot();
  }

  /** The world, and what its motors hold. */
  snapshot(): SimulationSnapshot {
    const held = this.#motors.setpointRad;
    return { world: this.world.snapshot(), ...(held.some(Number.isNaN) ? {} : { heldRad: held.slice() }) };
  }

  /**
   * The world of an interrupted episode, bit for bit, for a new supervisor. The motors are new, too; those of a robot hold their last setpoint while
   * nobody is there, because the stream process outlives the supervisor. So the world stands still until these are armed at that setpoint: a finger
   * that presses a button keeps pressing it. A knock that was drawn is not drawn again. Errors: SIM_LAYOUT, SIM_SNAPSHOT.
   */
  restore({ world, heldRad }: SimulationSnapshot): void {
    this.world.restore(world);
    this.#nudge.restart(0, undefined);
    this.#shift.restart(undefined);
    this.#heldRad = heldRad;
    this.#boot();
  }

  #boot(): void {
    this.#boots++;
    this.#motors = new SimulatedMotors(this.world, this.#joints, this.#boots, this.#heldRad);
    this.#lag.restart(this.#heldRad ?? this.world.state().positionsRad);
    this.#sampled.restart();
    this.#failure = undefined;
    if (!this.#isReal) return;
    this.#originMs = performance.now() - Number(this.world.timeNs) / 1e6;
    this.#catchUp ??= setInterval(() => this.#wake(), CATCH_UP_PERIOD_MS);
  }

  /** The world's clock, for cameras that are not of this world. */
  get clock(): CameraClock {
    return {
      isReal: this.#isReal,
      nowNs: () => this.world.timeNs,
      fromMonotonicNs: (monotonicNs) => monotonicNs - MONOTONIC_ORIGIN_NS - BigInt(Math.round(this.#originMs * 1e6)),
    };
  }

  /** The motors, to be watched or broken. They are new after every reset. */
  get motors(): SimulatedMotors {
    return this.#motors;
  }

  /** Called after every physics step with what the stream tells the joints, NaN while it tells nothing. Returns what removes the watcher again. */
  watch(watcher: (setpointRad: Float64Array) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /**
   * Called after every physics step with the cycles of the setpoint stream in it, 1000 a second of the world's clock: what it told the joints and
   * what the bridge reported. Returns what removes the watcher again. Several watchers see the same.
   */
  watchCycles(watcher: (samples: NativeSamples) => void): () => void {
    // What was before the first of them looked is not theirs.
    if (this.#cycleWatchers.size === 0) this.#motors.native.samples();
    this.#cycleWatchers.add(watcher);
    return () => this.#cycleWatchers.delete(watcher);
  }

  /** When the block was knocked aside in this episode, or will be; undefined when it was not. */
  get nudgedAtNs(): bigint | undefined {
    return this.#nudge.atNs;
  }

  /** Stops the clock and frees the world. Idempotent. */
  close(): void {
    clearInterval(this.#catchUp);
    this.#catchUp = undefined;
    for (const one of this.#waiting) one.reject(new PremotorError('SIM_CLOSED', 'The simulation was closed while somebody waited for its clock.'));
    this.#waiting.clear();
    this.world.close();
  }

  #advance(): void {
    if (this.#heldRad) {
      this.#motors.hold(this.world.timeNs, this.#heldRad);
      this.world.pause();
    } else this.world.step(this.#motors.step(this.world, (positions) => this.#lag.step(positions)));
    this.#nudge.tick();
    this.#shift.tick();
    this.#sampled.tick();
    for (const watcher of this.#watchers) watcher(this.#motors.setpointRad);
    if (this.#cycleWatchers.size === 0) return;
    const samples = this.#motors.native.samples();
    for (const watcher of this.#cycleWatchers) watcher(samples);
  }

  async #waitUntil(timeNs: bigint): Promise<void> {
    if (!this.#isReal) {
      while (this.world.timeNs < timeNs) this.#advance();
      return;
    }
    this.#followClock();
    this.#throwFailure();
    if (this.world.timeNs >= timeNs) return;
    await new Promise<void>((resolve, reject) => this.#waiting.add({ timeNs, resolve, reject }));
  }

  /** What went wrong while nobody was there to hear it. */
  #throwFailure(): void {
    if (this.#failure === undefined) return;
    throw this.#failure;
  }

  #wake(): void {
    this.#followClock();
    for (const one of this.#waiting) {
      if (this.#failure === undefined && this.world.timeNs < one.timeNs) continue;
      this.#waiting.delete(one);
      if (this.#failure === undefined) one.resolve();
      else one.reject(this.#failure);
    }
  }

  /** In real time: every physics step whose time has come. */
  #followClock(): void {
    if (this.#failure !== undefined) return;
    const behindMs = performance.now() - this.#originMs - Number(this.world.timeNs) / 1e6;
    const lostMs = Math.max(0, behindMs - CATCH_UP_MAX_MS);
    this.#originMs += lostMs;
    try {
      for (let step = Math.floor((behindMs - lostMs) / STEP_MS); step > 0; step--) this.#advance();
    } catch (error) {
      this.#failure = error;
    }
  }
}
