/**
 * The simulated table for hardware in the loop: its arm follows the joints that a bridge measures, its clock follows the cycles in which they were
 * measured, and its cameras look on. Everything that moves the joints is real; only what they touch is not. Owned by the rig of a robot on a bus; it
 * commands nothing.
 *
 * The arm is pulled along by the position servos of the simulated robot, with the measured positions as their targets. So it is as stiff as the arm
 * that policies and experts know: it trails by the same 30 ms, and gives way where it presses on something. Put exactly where it is measured it would
 * push through buttons and blocks with any force.
 *
 * It shares its thread with whatever keeps the robot safe. So it may take half of the time and no more: on a machine that is too slow to simulate the
 * table as fast as it moves, time of the table is left out, and told.
 */
import { CAMERA_KEY_PREFIX } from '../cameras/simulated.js';
import type { CameraInfo, FrameSource } from '../cameras/source.js';
import type { NativeSamples } from '../native.js';
import type { Frame } from '../policy/contract.js';
import { JOINTS } from './arm.js';
import { PICTURE_SIZE } from './job.js';
import { Renderer } from './renderer.js';
import { type CameraName, STEP_NS } from './scene.js';
import { type TableLayout, World } from './world.js';

export interface FollowedWorldOptions {
  readonly kind: TableLayout['kind'];
  /** The cameras that are rendered; each costs time. */
  readonly cameras: readonly CameraName[];
  /** Width and height of every picture, pixels. Default: 96. */
  readonly size?: number;
  readonly fps: number;
  /** Brings in the cycles that have not been followed yet, before anybody looks. */
  readonly catchUp: () => void;
  /** Any monotonic clock, milliseconds: how long the table's own work takes. */
  readonly workClockMs?: () => number;
}

/** Frames of each camera that are kept beside the newest. */
const EARLIER_MAX = 3;
/** A longer hole between two cycles is not made up for: nobody knows what happened in it. */
const HOLE_MAX_NS = 500_000_000n;
/**
 * The part of the thread's time that may be spent here. What was not used is kept up to the second number: enough for a slow first picture, and so
 * little that the control cycle's sign of life, due every second, never waits for it.
 */
const WORK_SHARE = 0.5;
const WORK_SAVED_MAX_MS = 100;

export class FollowedWorld {
  readonly world: World;
  readonly cameras: FrameSource;
  readonly #infos: readonly CameraInfo[];
  readonly #renderers: readonly Renderer[];
  readonly #periodNs: number;
  readonly #catchUp: () => void;
  readonly #targetRad = new Float64Array(JOINTS.length);
  readonly #watchers = new Set<() => void>();
  /** Where the world's time 0 is on the stream's clock. */
  #originNs = 0n;
  #isHeld = false;
  #frames: readonly Frame[] = [];
  /** Those before: a picture may be taken between a moment and the question what was seen then. */
  #earlier: readonly Frame[] = [];
  /** Frame n is due at n periods of the table's time, with what was left out of it. */
  #next = 0;
  #skipped = 0;
  #holes = 0;
  readonly #workClockMs: () => number;
  #workSeenMs: number;
  /** Below 0: this work has had its share for now. */
  #workCreditMs = WORK_SAVED_MAX_MS;
  /** Since the last reset, and in all: what nobody could afford to simulate. */
  #leftOutNs = 0n;
  #leftOutTotalNs = 0n;
  /** What went wrong while nobody was there to hear it; whoever looks next does. */
  #failure: unknown;

  private constructor(world: World, { cameras, size = PICTURE_SIZE, fps, catchUp, workClockMs }: FollowedWorldOptions) {
    this.world = world;
    this.#workClockMs = workClockMs ?? (() => performance.now());
    this.#workSeenMs = this.#workClockMs();
    this.#renderers = cameras.map((name) => new Renderer(world, name, size, size));
    this.#infos = cameras.map((name) => ({ camera: `${CAMERA_KEY_PREFIX}${name}`, width: size, height: size }));
    this.#periodNs = 1e9 / fps;
    this.#catchUp = catchUp;
    this.cameras = {
      cameras: this.#infos,
      capture: async () => {
        this.#catchUp();
        if (this.#failure !== undefined) throw this.#failure;
        return this.#frames;
      },
      history: () => this.#earlier,
      close: async () => undefined,
    };
  }

  /** Errors: SIM_MODEL. */
  static async open(options: FollowedWorldOptions): Promise<FollowedWorld> {
    return new FollowedWorld(await World.open(options.kind), options);
  }

  /** The table anew at this time of the stream's clock, the arm where it is measured. Errors: SIM_LAYOUT. */
  reset(layout: TableLayout, timeNs: bigint, measuredRad: Float64Array): void {
    this.world.reset(layout);
    this.world.place(measuredRad);
    this.#targetRad.set(measuredRad);
    this.#originNs = timeNs;
    this.#failure = undefined;
    this.#frames = [];
    this.#earlier = [];
    this.#next = 0;
    this.#leftOutNs = 0n;
    this.#takePictures(0n);
  }

  /**
   * While held the arm is shown where it is measured and touches nothing: on its way to the beginning of an episode it may pass through what lies
   * there for the episode.
   */
  hold(isHeld: boolean): void {
    this.#isHeld = isHeld;
  }

  /** Every cycle of the stream since the last call, [cycle, joint]; a joint that was not reported stays. */
  follow(samples: NativeSamples): void {
    if (this.#failure !== undefined) return;
    const nowMs = this.#workClockMs();
    this.#workCreditMs = Math.min(WORK_SAVED_MAX_MS, this.#workCreditMs + WORK_SHARE * (nowMs - this.#workSeenMs));
    this.#workSeenMs = nowMs;
    try {
      this.#follow(samples);
    } catch (error) {
      this.#failure = error;
    }
    // The last step, its picture, and what was left out are work too.
    this.#book();
  }

  /** The work since the last time. Its own time has its share too, as all other. */
  #book(): void {
    const nowMs = this.#workClockMs();
    this.#workCreditMs -= (1 - WORK_SHARE) * (nowMs - this.#workSeenMs);
    this.#workSeenMs = nowMs;
  }

  #canAfford(): boolean {
    this.#book();
    return this.#workCreditMs >= 0;
  }

  #follow({ count, timesNs, positionRad }: NativeSamples): void {
    const lastNs = timesNs[count - 1] ?? this.#originNs;
    let isLate = false;
    for (let cycle = 0; cycle < count; cycle++) {
      for (let joint = 0; joint < this.#targetRad.length; joint++) {
        const measuredRad = positionRad[cycle * this.#targetRad.length + joint] ?? Number.NaN;
        if (!Number.isNaN(measuredRad)) this.#targetRad[joint] = measuredRad;
      }
      if (!isLate && !this.#advanceTo(timesNs[cycle] ?? 0n, lastNs)) isLate = true;
    }
    if (isLate) this.#leaveOutUntil(lastNs);
  }

  /** Called after every step of the world. Returns what removes the watcher again. */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /**
   * Pictures that were not taken because newer ones were due already, holes in the stream that the world's clock jumped over, and time that was left
   * out because this machine is too slow.
   */
  counts(): { readonly framesSkipped: number; readonly holes: number; readonly leftOutMs: number } {
    return { framesSkipped: this.#skipped, holes: this.#holes, leftOutMs: Math.round(Number(this.#leftOutTotalNs) / 1e6) };
  }

  /** Frees the world. Idempotent. */
  close(): void {
    this.#watchers.clear();
    this.world.close();
  }

  /** Returns false when there is no time for that. */
  #advanceTo(timeNs: bigint, lastNs: bigint): boolean {
    const { world } = this;
    const behindNs = timeNs - this.#originNs - world.timeNs;
    if (behindNs > HOLE_MAX_NS) {
      this.#originNs += behindNs - STEP_NS;
      this.#holes++;
    }
    while (this.#originNs + world.timeNs + STEP_NS <= timeNs) {
      if (!this.#canAfford()) return false;
      if (this.#isHeld) world.pause();
      else world.step(this.#targetRad);
      for (const watcher of this.#watchers) watcher();
      this.#takePictures(lastNs - this.#originNs + this.#leftOutNs);
    }
    return true;
  }

  /** The arm is where it is measured; everything else stands still meanwhile. */
  #leaveOutUntil(timeNs: bigint): void {
    const leftOutNs = timeNs - this.#originNs - this.world.timeNs;
    if (leftOutNs <= 0n) return;
    this.world.place(this.#targetRad);
    this.#originNs += leftOutNs;
    this.#leftOutNs += leftOutNs;
    this.#leftOutTotalNs += leftOutNs;
  }

  /** Pictures cost more than everything else here: of several that are due before `untilNs` only the last is taken. */
  #takePictures(untilNs: bigint): void {
    const { world } = this;
    const nowNs = Number(world.timeNs + this.#leftOutNs);
    if (nowNs < this.#next * this.#periodNs) return;
    const due = Math.max(this.#next, Math.floor(nowNs / this.#periodNs));
    this.#skipped += due - this.#next;
    this.#next = due + 1;
    if (this.#next * this.#periodNs <= Number(untilNs)) {
      this.#skipped++;
      return;
    }
    if (this.#isHeld) world.place(this.#targetRad);
    const capturedAtNs = this.#originNs + world.timeNs;
    this.#earlier = [...this.#earlier, ...this.#frames].slice(-EARLIER_MAX * Math.max(1, this.#infos.length));
    this.#frames = this.#renderers.map((renderer, index) => {
      const camera = this.#infos[index]?.camera ?? '';
      return { camera, width: renderer.width, height: renderer.height, data: renderer.render(), capturedAtNs };
    });
  }
}
