/**
 * One episode on a robot that is open: its policy with what is kept around it, the control cycle, the film and the summary. Owned by whoever has the
 * robot and the observers: `premotor run` for one episode, the service for many. It opens and closes neither, and prints nothing.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { FrameSource } from '../cameras/source.js';
import { UNTRAINED_MARKER } from '../checkpoint/untrained.js';
import type { RobotConfig } from '../config/schema.js';
import { budgetOf } from '../control/budget/budget.js';
import { ControlCycle, type CycleOptions } from '../control/cycle.js';
import type { CycleEvent, CycleReport, EpisodeOptions } from '../control/events.js';
import type { Transition } from '../control/lifecycle.js';
import { PremotorError } from '../errors.js';
import type { Policy, Progress } from '../policy/contract.js';
import type { Recovery } from '../policy/recovering.js';
import { YieldingPolicy } from '../policy/yielding.js';
import { writeAnimation } from '../recording/animation.js';
import { EpisodeFilm } from '../sim/film.js';
import type { RunAbout, RunControl, RunEvent } from '../tap/observer.js';
import { version } from '../version.js';
import { type EpisodePolicy, openEpisodePolicy } from './episode-policy.js';
import { type ObserverHub, TappedCameras } from './observers.js';
import { isLocal, sourceOf } from './open-policy.js';
import { type Resumed, ResumePoint, restoreEpisode } from './resume.js';
import type { Rig } from './rig.js';
import { type EpisodeSummary, summaryOfReport } from './summary.js';

/** The animated picture's name in the output folder. */
const ANIMATION_NAME = 'episode.gif';

/** What an episode tells while it runs. */
export interface EpisodeObserver {
  /** Robot and policy are there; nothing has moved yet. */
  ready(about: EpisodeStart): void;
  cycle(event: CycleEvent): void;
  decoding(isCut: boolean): void;
  decoded(progress: Progress): void;
  noAnimation(why: string): void;
  /** An interrupted episode goes on after so many chunks. */
  resumed(chunks: number, dir: string): void;
  /** The engine process died, was replaced, and remembers the episode again. */
  recovery(recovery: Recovery): void;
  /** Something that is kept beside the episode cannot be kept any more. */
  warning(error: PremotorError): void;
  /** Where something can be found that was opened for this run, such as the status page. */
  notice(text: string): void;
}

/** What is known before the first movement. */
export interface EpisodeStart {
  readonly rig: Pick<Rig, 'task' | 'instruction' | 'chunksMax' | 'path'>;
  readonly info: Policy['info'];
  readonly untrained: boolean;
}

export interface RunParts {
  readonly rig: Rig;
  readonly observers: ObserverHub;
  readonly observer: EpisodeObserver;
  /** Aborted when a stop is asked for: a controlled stop while the episode runs, an ABORTED error before it. */
  readonly signal: AbortSignal;
  /** Opens the policy; again after the death of its engine. */
  readonly open: () => Promise<Policy>;
  readonly resumed?: Resumed;
  /** Power stays on after an episode that ended by itself: another one may follow. Default: it is taken away. */
  readonly keepsPower?: boolean;
  /** What observers are given instead of the episode's own control. Default: that. */
  readonly control?: (own: RunControl) => RunControl;
  /** The robot's motion is told by the owner of the robot. Default: by the episode, while it lasts. */
  readonly watchesMotion?: boolean;
}

export interface Ran {
  readonly summary: EpisodeSummary;
  readonly report: CycleReport;
}

export class PreparedEpisode {
  readonly #config: RobotConfig;
  readonly #parts: RunParts;
  readonly #point: ResumePoint;
  readonly #opened: EpisodePolicy;
  readonly #policy: YieldingPolicy;
  readonly #untrained: boolean;
  readonly #past: Opened['past'];

  private constructor(
    config: RobotConfig,
    parts: RunParts,
    {
      point,
      opened,
      policy,
      untrained,
      past,
    }: { point: ResumePoint; opened: EpisodePolicy; policy: YieldingPolicy; untrained: boolean; past: Opened['past'] },
  ) {
    this.#config = config;
    this.#parts = parts;
    this.#point = point;
    this.#opened = opened;
    this.#policy = policy;
    this.#untrained = untrained;
    this.#past = past;
  }

  /** Opens the policy. Nothing moves. Errors: those of `open`, JOURNAL_FOREIGN. */
  static async open(config: RobotConfig, parts: RunParts): Promise<PreparedEpisode> {
    const { rig, observers, observer, signal, resumed } = parts;
    const point = new ResumePoint(rig, config.control.mode, resumed?.supervisor);
    const tell = (event: RunEvent): void => observers.event(event, rig.nowNs());
    const opened = await openEpisodePolicy(config, {
      open: parts.open,
      rig,
      supervisor: point.state,
      ...(resumed ? { resumed } : {}),
      onRecovery: (recovery) => {
        observer.recovery(recovery);
        tell({ type: 'recovery', recovery });
      },
      onWarning: (error) => {
        observer.warning(error);
        tell({ type: 'warning', error });
      },
      ...(observers.names.includes('recorder') ? { onCall: (note) => tell({ type: 'call', note }) } : {}),
    });
    // In virtual time the robot's clock stands while it waits for a picture.
    const policy = new YieldingPolicy(opened.policy, { isPatient: config.robot.pace === 'virtual' });
    try {
      const untrained = isLocal(config) && existsSync(join(sourceOf(config), UNTRAINED_MARKER));
      observer.ready({ rig, info: policy.info, untrained });
      const past = resumed ? await restoreEpisode(resumed, policy, rig, signal) : undefined;
      if (resumed) observer.resumed(resumed.supervisor.chunk, resumed.journal.dir);
      return new PreparedEpisode(config, parts, { point, opened, policy, untrained, past });
    } catch (error) {
      await policy.close();
      throw error;
    }
  }

  /** Arms, runs, leaves film and summary, and tells the observers of the end. Errors: those of ControlCycle.arm, ABORTED before it began. */
  async run(): Promise<Ran> {
    const config = this.#config;
    const policy = this.#policy;
    const untrained = this.#untrained;
    const { rig, observers, observer } = this.#parts;
    const film = new EpisodeFilm();
    const about = aboutOf(config, rig, policy, untrained);
    const past = this.#past;
    const { report, transitions, startNs } = await runCycle(config, this.#parts, {
      policy,
      film,
      point: this.#point,
      about,
      ...(past ? { past } : {}),
    });
    if (report.outcome === 'finished' || report.outcome === 'reached') await this.#opened.finish(report.outcome);
    const animation = config.recording.animation ? await writeFilm(film, policy, config, observer) : null;
    await tellImagined(film, policy, config, observers, report);
    const summary = summaryFor(config, rig, policy, { untrained, report, transitions, startNs, animation });
    await observers.end(report);
    return { summary, report };
  }

  /** Closes the policy. Idempotent. */
  close(): Promise<void> {
    return this.#policy.close();
  }
}

interface Ended {
  readonly untrained: boolean;
  readonly report: CycleReport;
  readonly transitions: readonly Transition[];
  readonly startNs: bigint;
  readonly animation: string | null;
}

function summaryFor(config: RobotConfig, rig: Rig, { info }: Policy, { untrained, report, transitions, startNs, animation }: Ended): EpisodeSummary {
  const verdict = rig.verdict();
  const completedNs = rig.completedNs();
  return {
    task: rig.task,
    seed: config.task.seed,
    instruction: rig.instruction,
    checkpoint: sourceOf(config),
    untrained,
    parameters: info.parameters,
    backend: info.backend,
    precision: info.precision,
    kvCache: info.kvCache,
    threads: info.threads,
    ...summaryOfReport(report),
    motion: rig.motion(),
    verdict,
    success: rig.isUnjudged === true ? null : verdict === 'succeeded',
    completionS: verdict === 'succeeded' && completedNs !== undefined ? Number(completedNs - startNs) / 1e9 : null,
    chunksMax: rig.chunksMax,
    transitions,
    animation,
  };
}

function aboutOf(config: RobotConfig, rig: Rig, policy: Policy, untrained: boolean): RunAbout {
  return {
    id: new Date().toISOString().replace(/[:.]/g, '-'),
    version: version(),
    robot: config.robot.type,
    joints: rig.robot.joints,
    cameras: rig.cameras.cameras,
    task: rig.task,
    instruction: rig.instruction,
    seed: config.task.seed,
    chunksMax: rig.chunksMax,
    actionRateHz: config.control.action_rate_hz,
    mode: config.control.mode,
    checkpoint: sourceOf(config),
    untrained,
    job: policy.job,
    policy: policy.info,
    configuration: config,
    epochNs: BigInt(Date.now()) * 1_000_000n,
    timeNs: rig.nowNs(),
  };
}

/** Who can use pictures of what was imagined: only a recorder takes them once the episode is over, and the page shows the last. */
function wantsImagined(observers: ObserverHub, { recording }: RobotConfig): boolean {
  return recording.recorder.imagined && observers.names.includes('recorder');
}

/**
 * Pictures of what was imagined, once nothing waits for the engine any more. The film has decoded them if there is one; else they are decoded where
 * they are kept: in a recording of everything, and in one of a failure.
 */
async function tellImagined(film: EpisodeFilm, policy: Policy, config: RobotConfig, observers: ObserverHub, { outcome }: CycleReport): Promise<void> {
  const isKept = config.recording.recorder.mode === 'full' || outcome === 'failed';
  if (!wantsImagined(observers, config) || !(film.isDecoded || isKept)) return;
  try {
    for (const { frame, timeNs } of await film.imagined(policy)) observers.event({ type: 'imagined', frame, timeNs }, timeNs);
  } catch {
    // An engine that has died cannot decode: then the recording has latents alone.
  }
}

interface Opened {
  readonly policy: YieldingPolicy;
  readonly film: EpisodeFilm;
  readonly point: ResumePoint;
  readonly about: RunAbout;
  /** Of an episode that was interrupted. */
  readonly past?: Pick<EpisodeOptions, 'prompt' | 'resume'>;
}

/** The control cycle that a configuration describes. Errors: those of its constructor, LADDER_UNCERTIFIED, JOB_INVALID. */
export async function cycleFor(config: RobotConfig, rig: Rig, policy: Policy, watched: FrameSource = rig.cameras): Promise<ControlCycle> {
  const { control, cameras, policy: wanted } = config;
  return new ControlCycle({
    policy,
    robot: rig.robot,
    cameras: watched,
    actionRateHz: control.action_rate_hz,
    frameAgeMaxMs: cameras.frame_age_max_ms,
    frameSkewMaxMs: cameras.frame_skew_max_ms,
    cameraHealth: { darkBelow: cameras.dark_below, frozenAfterRad: cameras.frozen_after_rad },
    holdMs: control.hold_ms,
    ...(await startPose(rig, control.start_pose)),
    tolerance: { outsideRad: control.action_outside_max_rad, jumpRad: control.action_jump_max_rad },
    ...(wanted.video_steps === undefined ? {} : { videoSteps: wanted.video_steps }),
    ...(wanted.action_steps === undefined ? {} : { actionSteps: wanted.action_steps }),
    ...modeOptions(config, policy),
  });
}

/** Arms, runs and disarms. A signal that is aborted already is noticed before anything moves. */
async function runCycle(
  config: RobotConfig,
  { rig, observers, observer, signal, keepsPower = false, control: controlled = (own) => own, watchesMotion = true }: RunParts,
  { policy, film, point, about, past }: Opened,
): Promise<{ report: CycleReport; transitions: readonly Transition[]; startNs: bigint }> {
  const { control, task, policy: wanted } = config;
  const watched = new TappedCameras(rig.cameras, (frames) => observers.event({ type: 'frames', frames }, rig.nowNs()));
  const cycle = await cycleFor(config, rig, policy, watched);
  const transitions: Transition[] = [];
  cycle.on((event) => void (event.type === 'state' && transitions.push(event.transition)));
  if (config.recording.animation || wantsImagined(observers, config)) cycle.on(film.listen);
  cycle.on(point.listen);
  cycle.on((event) => observer.cycle(event));
  cycle.on((event) => observers.event({ type: 'cycle', event }, rig.nowNs()));
  const unwatch = watchesMotion ? rig.watch((sample) => observers.motion(sample)) : undefined;
  const stop = (): void => cycle.requestStop('interrupted by the user');
  signal.addEventListener('abort', stop, { once: true });
  try {
    await observers.begin(about, controlled(controlOf(cycle, rig, policy)));
    await cycle.arm();
    if (signal.aborted) throw new PremotorError('ABORTED', 'Interrupted before the episode began. Nothing has moved.', { cause: signal.reason });
    const startNs = point.begin((await rig.robot.getState()).timeNs);
    const report = await cycle.run({
      prompt: rig.instruction,
      ...past,
      chunks: rig.chunksMax,
      seed: wanted.seed ?? task.seed,
      until: () => rig.verdict() !== 'open',
    });
    const isKept = report.outcome === 'stopped' ? control.stop_category === 2 : keepsPower;
    if (cycle.state !== 'fault' && !isKept) await cycle.disarm();
    return { report, transitions, startNs };
  } finally {
    signal.removeEventListener('abort', stop);
    unwatch?.();
  }
}

/** What observers may do with a run: ask, and stop it. */
function controlOf(cycle: ControlCycle, rig: Rig, policy: YieldingPolicy): RunControl {
  return {
    requestStop: (reason) => cycle.requestStop(reason),
    status: () => ({ ...rig.status(), state: cycle.state }),
    cache: () => policy.cache,
    decode: (latents) => policy.decodeAside(latents),
  };
}

/** How predicting and moving are interleaved. Errors: LADDER_UNCERTIFIED, JOB_INVALID. */
function modeOptions({ control, robot }: RobotConfig, policy: Policy): Pick<CycleOptions, 'mode' | 'thinkingMs' | 'budget'> {
  const { mode, thinking_ms, budget, uncertified } = control;
  const { job } = policy;
  const chunkMs = (job.frame_chunk_size * job.action_per_frame * 1000) / control.action_rate_hz;
  // On the clock's pace thinking takes what it takes, unless the configuration says otherwise.
  const thinkingMs = thinking_ms ?? (mode === 'sync' || robot.pace === 'real' ? 0 : chunkMs / 2);
  const timed = thinkingMs === 0 ? {} : { thinkingMs };
  if (budget === 'fixed' || mode === 'sync') return { mode, ...timed };
  return { mode, ...timed, budget: budgetOf(policy, { actionRateHz: control.action_rate_hz, force: uncertified }) };
}

/** The pose that an episode begins in; joints that the configuration does not name stay where they are. */
async function startPose({ robot }: Rig, wanted: RobotConfig['control']['start_pose']): Promise<{ startPoseRad?: Float64Array }> {
  if (Object.keys(wanted).length === 0) return {};
  const { positionsRad } = await robot.getState();
  return { startPoseRad: Float64Array.from(robot.joints, ({ name }, joint) => wanted[name]?.position_rad ?? positionsRad[joint] ?? 0) };
}

/** Writes the film; an engine that has died cannot decode, and then there is none. */
async function writeFilm(film: EpisodeFilm, policy: Policy, { recording }: RobotConfig, observer: EpisodeObserver): Promise<string | null> {
  if (film.isEmpty) return null;
  const path = join(recording.out_dir, ANIMATION_NAME);
  try {
    if (!film.imaginesNothing) observer.decoding(film.isCut);
    const rows = await film.compose(policy, (progress) => observer.decoded(progress));
    await writeAnimation(path, rows, { fps: recording.picture_rate_hz });
    return path;
  } catch (error) {
    observer.noAnimation((error as Error).message);
    return null;
  }
}
