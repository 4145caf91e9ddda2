/**
 * The status page of a run: an observer that serves what happens to whoever looks, and asks for a stop when a viewer does. Owned by the observers'
 * hub. It computes, compresses and decodes only while somebody looks; nothing that it is told waits for it.
 */
import { randomBytes } from 'node:crypto';
import type { RobotConfig } from '../config/schema.js';
import type { CycleEvent, CycleReport } from '../control/events.js';
import { PremotorError } from '../errors.js';
import type { Frame } from '../policy/contract.js';
import type { MotionSample, Observer, ObserverParts, RunAbout, RunControl, RunEvent, ServiceReport, StandbyAbout } from '../tap/observer.js';
import { readPageToken } from './access.js';
import { Imagination } from './imagination.js';
import type { ServerMessage, StopText } from './messages.js';
import { RunModel } from './model.js';
import { columnsOf, Pictures } from './pictures.js';
import { partsOf } from './run-text.js';
import { PageServer, VIEWERS_MAX } from './server.js';
import type { Viewer } from './viewer.js';

/** States and motion are sent so often. */
const TICK_PERIOD_MS = 200;
const SECOND_MS = 1000;
const MOMENTS_PER_FRAME = 4;
export const STOP_REASON = 'stop button of the status page';

export interface DashboardOptions {
  /** Where the compiled page is. Default: beside the server's own code. */
  readonly pageDir?: string;
}

/** undefined: the configuration wants none. Errors: DASHBOARD_ADDRESS, DASHBOARD_PORT, DASHBOARD_TOKEN. */
export async function openDashboard(
  { dashboard }: Pick<RobotConfig, 'dashboard'>,
  { onNotice }: ObserverParts,
  { pageDir }: DashboardOptions = {},
): Promise<Observer | undefined> {
  const { enabled, host, port, token_file, viewer_rate_hz } = dashboard;
  if (!enabled) return undefined;
  const token = token_file === undefined ? undefined : readPageToken(token_file);
  const page = new Dashboard(viewer_rate_hz);
  const server = await PageServer.open({ host, port, token, ...(pageDir === undefined ? {} : { pageDir }) }, page.parts);
  page.serve(server);
  onNotice(`Status page: ${server.url}${server.needsToken ? `?token=... (the token is in ${token_file})` : ''}`);
  return page;
}

class Dashboard implements Observer {
  readonly name = 'dashboard';
  /** Tells a page whether it is still the same process that it talks to. */
  readonly #process = randomBytes(8).toString('hex');
  readonly #model = new RunModel();
  readonly #pictures = new Pictures();
  readonly #rateHz: number;
  #server: PageServer | undefined;
  #control: RunControl | undefined;
  #about: RunAbout | undefined;
  #imagination: Imagination | undefined;
  /** Of the imagined picture that is shown. */
  #imaginedS: number | undefined;
  #stop: StopText = { phase: 'none', atMs: 0 };
  #ticking: NodeJS.Timeout | undefined;
  #picturing: NodeJS.Timeout | undefined;
  #isClosed = false;
  #hasBegun = false;

  constructor(rateHz: number) {
    this.#rateHz = rateHz;
  }

  readonly parts = {
    onViewer: (viewer: Viewer): void => this.#welcome(viewer),
    onLook: (): void => this.#arrange(),
    onStop: (): void => this.#requestStop(),
  };

  serve(server: PageServer): void {
    this.#server = server;
  }

  async begin(about: RunAbout, control: RunControl): Promise<void> {
    this.#about = about;
    this.#control = control;
    // A stop that was asked for during another episode has been followed.
    if (this.#hasBegun) this.#stop = { phase: 'none', atMs: 0 };
    this.#hasBegun = true;
    this.#model.begin(about, control);
    const { frame_chunk_size, action_per_frame } = about.job;
    const momentS = action_per_frame / MOMENTS_PER_FRAME / about.actionRateHz;
    const motionMs = (SECOND_MS * frame_chunk_size * action_per_frame) / about.actionRateHz;
    const patienceMs = this.#model.run?.pace === 'virtual' ? Number.POSITIVE_INFINITY : motionMs;
    if (about.mode === 'sync') this.#imagination = new Imagination({ decode: (latents) => control.decode(latents), momentS, patienceMs });
    for (const viewer of this.#viewers) viewer.send(this.#hello());
  }

  async attend(_about: StandbyAbout, control: RunControl): Promise<void> {
    this.#control = control;
    this.#model.attend(control);
  }

  service(report: ServiceReport): void {
    this.#model.service(report);
  }

  event(event: RunEvent, timeNs: bigint): void {
    this.#model.event(event, timeNs);
    const timeS = Number(timeNs) / 1e9;
    if (event.type === 'frames') for (const frame of event.frames) this.#live(frame);
    if (event.type === 'imagined') this.#imagined(event.frame, timeS);
    if (event.type === 'cycle') this.#cycle(event.event, timeS);
    // Faults and changes of the state are not kept until the next tick.
    const isUrgent = event.type === 'warning' || event.type === 'recovery' || (event.type === 'cycle' && event.event.type === 'state');
    if (isUrgent && this.#viewers.size > 0) this.#tick();
  }

  motion(sample: MotionSample): void {
    this.#model.sample(sample);
  }

  async end(_report: CycleReport | undefined): Promise<void> {
    this.#model.end();
    this.#tick();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#ticking);
    clearInterval(this.#picturing);
    for (const viewer of this.#viewers) viewer.send({ type: 'bye' });
    await this.#server?.close();
  }

  get #viewers(): ReadonlySet<Viewer> {
    return this.#server?.viewers ?? NOBODY;
  }

  get #looking(): readonly Viewer[] {
    return [...this.#viewers].filter(({ isLooking }) => isLooking);
  }

  #hello(): ServerMessage {
    return { type: 'hello', process: this.#process, run: this.#model.run, viewersMax: VIEWERS_MAX };
  }

  #welcome(viewer: Viewer): void {
    viewer.send(this.#hello());
    this.#tell(viewer);
  }

  /** Timers run only while somebody looks. */
  #arrange(): void {
    const isLookedAt = this.#looking.length > 0 && !this.#isClosed;
    if (!isLookedAt) {
      clearInterval(this.#ticking);
      clearInterval(this.#picturing);
      this.#ticking = undefined;
      this.#picturing = undefined;
      return;
    }
    this.#ticking ??= setInterval(() => this.#tick(), TICK_PERIOD_MS).unref();
    const picture_period_ms = SECOND_MS / this.#rateHz;
    this.#picturing ??= setInterval(() => void this.#sendPictures(), picture_period_ms).unref();
  }

  #tick(): void {
    for (const viewer of this.#looking) this.#tell(viewer);
  }

  /** What this viewer does not have yet. */
  #tell(viewer: Viewer): void {
    if (!viewer.canTake) return;
    const { motion, chunks, faults } = this.#model;
    // First: what is asked here may find a fault.
    const state = this.#model.state(this.#stop, this.#viewers.size);
    const moved = motion?.since(viewer.motionFrom);
    if (motion) viewer.motionFrom = motion.finished;
    const chunksVersion = chunks?.version ?? -1;
    viewer.send({
      type: 'tick',
      state,
      ...(chunks && chunksVersion !== viewer.chunksVersion ? { chunks: chunks.list } : {}),
      ...(faults.version === viewer.faultsVersion ? {} : { faults: faults.list }),
      ...(moved ? { motion: moved } : {}),
    });
    viewer.chunksVersion = chunksVersion;
    viewer.faultsVersion = faults.version;
  }

  /** Every viewer's button. Before there is a robot to stop, the wish is kept and fulfilled as soon as it runs. */
  #requestStop(): void {
    this.#stop = { phase: 'asked', atMs: Date.now() };
    for (const viewer of this.#viewers) if (viewer.canTake) viewer.send({ type: 'stopping', stop: this.#stop });
    this.#control?.requestStop(STOP_REASON);
  }

  #cycle(event: CycleEvent, timeS: number): void {
    if (event.type === 'state') this.#heedStop(event.transition.to);
    if (event.type === 'started') {
      const newestNs = event.observation.reduce((newest, { capturedAtNs }) => (capturedAtNs > newest ? capturedAtNs : newest), 0n);
      this.#imagination?.begin(Number(newestNs) / 1e9);
    }
    if (event.type === 'predicted' && this.#looking.length > 0) void this.#imagination?.imagine(event.latents, event.frameIndex, timeS);
    if (event.type === 'remembered') this.#imagination?.remember(event.latents);
  }

  /** A stop that was asked for before anything could be stopped. Not from inside the transition that tells of it. */
  #heedStop(state: string): void {
    if (state === 'running' && this.#stop.phase === 'asked') queueMicrotask(() => this.#control?.requestStop(STOP_REASON));
  }

  #live(frame: Frame): void {
    const camera = this.#about?.cameras.findIndex((one) => one.camera === frame.camera) ?? -1;
    if (camera >= 0) this.#pictures.put('live', camera, frame, Number(frame.capturedAtNs) / 1e9);
  }

  #imagined(frame: Frame, timeS: number): void {
    const about = this.#about;
    if (!about) return;
    this.#imaginedS = timeS;
    if (partsOf(about) === 'joined') {
      this.#pictures.put('imagined', -1, frame, timeS);
      return;
    }
    const { obs_cam_keys } = about.job;
    columnsOf(frame, obs_cam_keys.length).forEach((part, index) => {
      const camera = about.cameras.findIndex((one) => one.camera === obs_cam_keys[index]);
      this.#pictures.put('imagined', camera, part, timeS);
    });
  }

  async #sendPictures(): Promise<void> {
    const timeS = Number(this.#control?.status().timeNs ?? 0n) / 1e9;
    const imagined = this.#imagination?.at(timeS);
    if (imagined && imagined.timeS !== this.#imaginedS) this.#imagined(imagined.frame, imagined.timeS);
    const looking = this.#looking.filter((viewer) => viewer.canTake);
    const cause = await this.#pictures.compress(looking.map(({ seen }) => seen));
    if (cause) {
      const message = `A picture cannot be shown: ${cause.message}. Look at what its camera gives.`;
      this.#model.faults.note('warning', new PremotorError('DASHBOARD_PICTURE', message, { cause }), timeS);
    }
    for (const viewer of looking) for (const message of this.#pictures.take(viewer.seen)) viewer.sendPicture(message);
  }
}

const NOBODY: ReadonlySet<Viewer> = new Set();
