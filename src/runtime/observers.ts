/**
 * The observers of a run: opens those that a configuration asks for, tells each of them everything, and keeps them away from the robot. One that
 * throws is told no more and reported; the episode goes on. Owned by src/runtime/episode.ts, the only one that knows which observers exist.
 */
import type { CameraInfo, FrameSource } from '../cameras/source.js';
import type { RobotConfig } from '../config/schema.js';
import type { CycleReport } from '../control/events.js';
import { openDashboard } from '../dashboard/dashboard.js';
import { PremotorError } from '../errors.js';
import type { Frame } from '../policy/contract.js';
import { openRecorder } from '../recording/recorder.js';
import type { MotionSample, Observer, ObserverParts, RunAbout, RunControl, RunEvent, ServiceReport, StandbyAbout } from '../tap/observer.js';
import { openLate } from './late-observer.js';

/** Opens one observer; undefined: the configuration does not want it. It throws only what the user must mend before anything moves. */
export type ObserverFactory = (config: RobotConfig, parts: ObserverParts) => Promise<Observer | undefined>;

/** What is not wanted is not loaded either. */
async function openTelemetry(config: RobotConfig, parts: ObserverParts): Promise<Observer | undefined> {
  const { enabled, prometheus_port } = config.telemetry;
  return enabled || prometheus_port !== undefined ? (await import('../telemetry/telemetry.js')).openTelemetry(config, parts) : undefined;
}

const openPage: ObserverFactory = (config, parts) => openDashboard(config, parts);
export const FACTORIES: readonly ObserverFactory[] = [openTelemetry, openRecorder, openPage];
/** Of a service: those that live as long as it does, and those that are opened for each episode. */
export const LASTING: readonly ObserverFactory[] = [openLate(openTelemetry, { name: 'telemetry', codes: ['TELEMETRY_FILE'] }), openPage];
export const PASSING: readonly ObserverFactory[] = [openRecorder];

/** What an episode needs of those who watch it. */
export type ObserverHub = Pick<Observers, 'names' | 'begin' | 'event' | 'motion' | 'end'>;

/** An observer may write this long at the end of an episode, and close as long: then the process goes on without it. */
const END_MS_MAX = 15_000;

export class Observers {
  readonly #parts: ObserverParts;
  #observers: readonly Observer[];

  private constructor(observers: readonly Observer[], parts: ObserverParts) {
    this.#observers = observers;
    this.#parts = parts;
  }

  /** Errors: those of the factories; then none stays open. */
  static async open(config: RobotConfig, parts: ObserverParts, factories: readonly ObserverFactory[] = FACTORIES): Promise<Observers> {
    const opened: Observer[] = [];
    try {
      for (const factory of factories) {
        const observer = await factory(config, parts);
        if (observer) opened.push(observer);
      }
    } catch (error) {
      await new Observers(opened, parts).close();
      throw error;
    }
    return new Observers(opened, parts);
  }

  get names(): readonly string[] {
    return this.#observers.map(({ name }) => name);
  }

  async begin(about: RunAbout, control: RunControl): Promise<void> {
    await Promise.all(this.#observers.map((observer) => this.#patiently(observer, () => observer.begin(about, control))));
  }

  /** For a service: before the first episode, and whenever the robot was opened anew. */
  async attend(about: StandbyAbout, control: RunControl): Promise<void> {
    await Promise.all(this.#observers.map((observer) => this.#patiently(observer, async () => observer.attend?.(about, control))));
  }

  service(report: ServiceReport): void {
    for (const observer of this.#observers) this.#guarded(observer, () => observer.service?.(report));
  }

  /** Whether telemetry reaches its broker; undefined: there is none. */
  get isConnected(): boolean | undefined {
    return this.#observers.find(({ isConnected }) => isConnected !== undefined)?.isConnected;
  }

  /** Why telemetry is not open yet. */
  get notOpen(): PremotorError | undefined {
    return this.#observers.find(({ notOpen }) => notOpen !== undefined)?.notOpen;
  }

  event(event: RunEvent, timeNs: bigint): void {
    for (const observer of this.#observers) this.#guarded(observer, () => observer.event(event, timeNs));
  }

  motion(sample: MotionSample): void {
    for (const observer of this.#observers) this.#guarded(observer, () => observer.motion(sample));
  }

  async end(report: CycleReport | undefined): Promise<void> {
    await Promise.all(this.#observers.map((observer) => this.#patiently(observer, () => observer.end(report))));
  }

  async close(): Promise<void> {
    const observers = this.#observers;
    await Promise.all(observers.map((observer) => this.#patiently(observer, () => observer.close())));
    this.#observers = [];
  }

  #guarded(observer: Observer, tell: () => void): void {
    try {
      tell();
    } catch (error) {
      this.#drop(observer, error);
    }
  }

  /** Waits for an observer, but not for ever. */
  async #patiently(observer: Observer, ask: () => Promise<void>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${END_MS_MAX} ms`)), END_MS_MAX);
    });
    try {
      await Promise.race([ask(), late]);
    } catch (error) {
      this.#drop(observer, error);
    } finally {
      clearTimeout(timer);
    }
  }

  #drop(observer: Observer, error: unknown): void {
    if (!this.#observers.includes(observer)) return;
    this.#observers = this.#observers.filter((one) => one !== observer);
    const found = error instanceof Error ? error.message : String(error);
    const message = `The ${observer.name} failed and was left out: ${found}. The robot goes on without it; mend it and start again.`;
    this.#parts.onWarning(new PremotorError('OBSERVER_FAILED', message, { expected: `a working ${observer.name}`, found, cause: error }));
    void observer.close().catch(() => undefined);
  }
}

/** Those who watch a service and those who watch one episode of it. The motion is told to the first by the service itself, all the time. */
export function together(lasting: ObserverHub, passing: ObserverHub): ObserverHub {
  return {
    names: [...lasting.names, ...passing.names],
    begin: async (about, control) => {
      await Promise.all([lasting.begin(about, control), passing.begin(about, control)]);
    },
    event: (event, timeNs) => {
      lasting.event(event, timeNs);
      passing.event(event, timeNs);
    },
    motion: (sample) => passing.motion(sample),
    end: async (report) => {
      await Promise.all([lasting.end(report), passing.end(report)]);
    },
  };
}

/** Cameras whose frames are told to somebody, every one once, in the order of their capture. */
export class TappedCameras implements FrameSource {
  readonly #inner: FrameSource;
  readonly #tell: (frames: readonly Frame[]) => void;
  readonly #newestNs = new Map<string, bigint>();

  constructor(inner: FrameSource, tell: (frames: readonly Frame[]) => void) {
    this.#inner = inner;
    this.#tell = tell;
  }

  get cameras(): readonly CameraInfo[] {
    return this.#inner.cameras;
  }

  async capture(): Promise<readonly Frame[]> {
    const frames = await this.#inner.capture();
    const all = this.#inner.history ? [...this.#inner.history(), ...frames] : frames;
    const fresh = all
      .filter(({ camera, capturedAtNs }) => capturedAtNs > (this.#newestNs.get(camera) ?? -1n))
      .sort((a, b) => Number(a.capturedAtNs - b.capturedAtNs));
    const seen = new Map(fresh.map((frame) => [`${frame.camera} ${frame.capturedAtNs}`, frame]));
    for (const frame of fresh) this.#newestNs.set(frame.camera, frame.capturedAtNs);
    if (seen.size > 0) this.#tell([...seen.values()]);
    return frames;
  }

  history(): readonly Frame[] {
    return this.#inner.history?.() ?? [];
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
