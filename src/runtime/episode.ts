/**
 * Runs one episode of a robot configuration from end to end: opens the robot, loads the policy, arms, runs the control cycle, judges the task, leaves
 * the animated picture and a summary. Owned by the commands `run` and `demo`; it prints nothing, an observer is told everything.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { UNTRAINED_MARKER } from '../checkpoint/untrained.js';
import type { RobotConfig } from '../config/schema.js';
import { budgetOf } from '../control/budget/budget.js';
import { ControlCycle, type CycleOptions } from '../control/cycle.js';
import type { CycleEvent, CycleReport, EpisodeOptions } from '../control/events.js';
import type { Transition } from '../control/lifecycle.js';
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { LoadPolicyOptions, Policy, Progress } from '../policy/contract.js';
import type { Recovery } from '../policy/recovering.js';
import { YieldingPolicy } from '../policy/yielding.js';
import { writeAnimation } from '../recording/animation.js';
import { EpisodeFilm } from '../sim/film.js';
import type { ObserverParts, RunAbout, RunControl, RunEvent } from '../tap/observer.js';
import { version } from '../version.js';
import { openEpisodePolicy } from './episode-policy.js';
import { Observers, TappedCameras } from './observers.js';
import { checkBackend, isLocal, sourceOf } from './open-policy.js';
import { register } from './registry.js';
import { checkResumable, openResumed, ResumePoint, restoreEpisode } from './resume.js';
import { openRig, type Rig } from './rig.js';
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

export interface EpisodeParts {
  readonly loadPolicy: (options: LoadPolicyOptions) => Promise<Policy>;
  readonly observer: EpisodeObserver;
  /** Aborted when the user asks to stop: a controlled stop while the episode runs, an ABORTED error before it. */
  readonly signal: AbortSignal;
  /** Go on with an interrupted episode: the newest of this configuration, or that of the folder. */
  readonly resume?: { readonly dir?: string };
  /** Who watches. Default: telemetry, recorder and page, as configured. */
  readonly openObservers?: (config: RobotConfig, parts: ObserverParts) => Promise<Observers>;
  /** After the episode, or an error that ended it before it began, the observers stay open until the signal comes. */
  readonly stay?: boolean;
  /** As soon as the summary is known; the result comes later when the observers stay. */
  readonly onSummary?: (summary: EpisodeSummary) => void;
}

export interface EpisodeResult {
  readonly summary: EpisodeSummary;
  /** What ended the episode as 'failed'. */
  readonly error?: PremotorError;
}

/**
 * Errors: those of loadPolicy, ControlCycle.arm, openRig and openResumed; ABORTED when stopped before it began. What ends a running episode is in the
 * result.
 */
export async function runEpisode(config: RobotConfig, parts: EpisodeParts): Promise<EpisodeResult> {
  const { observer, signal, resume } = parts;
  checkBackend(config, resume !== undefined);
  if (resume) checkResumable(config);
  const onWarning = (error: PremotorError): void => observer.warning(error);
  const resumed = resume ? await openResumed(config, resume.dir, { onWarning }) : undefined;
  const rig = await openRig(config);
  for (const text of rig.notices) observer.notice(text);
  const point = new ResumePoint(rig, config.control.mode, resumed?.supervisor);
  const unregister = register('run', `${config.robot.type}, task ${config.task.name}`);
  let policy: YieldingPolicy | undefined;
  let observers: Observers | undefined;
  try {
    observers = await (parts.openObservers ?? Observers.open)(config, { onNotice: (text) => observer.notice(text), onWarning });
    const watching = observers;
    const tell = (event: RunEvent): void => watching.event(event, rig.nowNs());
    const opened = await openEpisodePolicy(config, {
      loadPolicy: parts.loadPolicy,
      rig,
      supervisor: point.state,
      ...(resumed ? { resumed } : {}),
      onRecovery: (recovery) => {
        observer.recovery(recovery);
        tell({ type: 'recovery', recovery });
      },
      onWarning: (error) => {
        onWarning(error);
        tell({ type: 'warning', error });
      },
      ...(observers.names.includes('recorder') ? { onCall: (note) => tell({ type: 'call', note }) } : {}),
    });
    // In virtual time the robot's clock stands while it waits for a picture.
    policy = new YieldingPolicy(opened.policy, { isPatient: config.robot.pace === 'virtual' });
    const untrained = isLocal(config) && existsSync(join(sourceOf(config), UNTRAINED_MARKER));
    observer.ready({ rig, info: policy.info, untrained });
    const past = resumed ? await restoreEpisode(resumed, policy, rig, signal) : undefined;
    if (resumed) observer.resumed(resumed.supervisor.chunk, resumed.journal.dir);
    const film = new EpisodeFilm();
    const about = aboutOf(config, rig, policy, untrained);
    const { report, transitions, startNs } = await runCycle(config, parts, { rig, policy, film, point, observers, about, ...(past ? { past } : {}) });
    if (report.outcome === 'finished' || report.outcome === 'reached') await opened.finish(report.outcome);
    const animation = config.recording.animation ? await writeFilm(film, policy, config, observer) : null;
    await tellImagined(film, policy, config, watching, report);
    const summary = summaryFor(config, rig, policy, { untrained, report, transitions, startNs, animation });
    await observers.end(report);
    parts.onSummary?.(summary);
    if (parts.stay) await staying(parts);
    return { summary, ...(report.error ? { error: report.error } : {}) };
  } catch (error) {
    if (observers) await mourn(observers, rig, error, parts);
    throw error;
  } finally {
    await policy?.close();
    await observers?.close();
    await resumed?.journal.close();
    const { length: told } = rig.notices;
    await rig.close();
    for (const text of rig.notices.slice(told)) observer.notice(text);
    unregister();
  }
}

/** The observers are told of an episode that ended before it began. */
async function mourn(observers: Observers, rig: Rig, thrown: unknown, parts: EpisodeParts): Promise<void> {
  const error = toPremotorError(thrown);
  observers.event({ type: 'warning', error }, rig.nowNs());
  await observers.end(undefined);
  if (!parts.stay || parts.signal.aborted) return;
  parts.observer.warning(error);
  await staying(parts);
}

function staying({ observer, signal }: EpisodeParts): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  observer.notice('The episode is over. Status page and telemetry stay until Ctrl-C.');
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
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
function wantsImagined(observers: Observers, { recording }: RobotConfig): boolean {
  return recording.recorder.imagined && observers.names.includes('recorder');
}

/**
 * Pictures of what was imagined, once nothing waits for the engine any more. The film has decoded them if there is one; else they are decoded where
 * they are kept: in a recording of everything, and in one of a failure.
 */
async function tellImagined(film: EpisodeFilm, policy: Policy, config: RobotConfig, observers: Observers, { outcome }: CycleReport): Promise<void> {
  const isKept = config.recording.recorder.mode === 'full' || outcome === 'failed';
  if (!wantsImagined(observers, config) || !(film.isDecoded || isKept)) return;
  try {
    for (const { frame, timeNs } of await film.imagined(policy)) observers.event({ type: 'imagined', frame, timeNs }, timeNs);
  } catch {
    // An engine that has died cannot decode: then the recording has latents alone.
  }
}

interface Opened {
  readonly rig: Rig;
  readonly policy: YieldingPolicy;
  readonly film: EpisodeFilm;
  readonly point: ResumePoint;
  readonly observers: Observers;
  readonly about: RunAbout;
  /** Of an episode that was interrupted. */
  readonly past?: Pick<EpisodeOptions, 'prompt' | 'resume'>;
}

/** Arms, runs and disarms. A signal that is aborted already is noticed before anything moves. */
async function runCycle(
  config: RobotConfig,
  { observer, signal }: EpisodeParts,
  { rig, policy, film, point, observers, about, past }: Opened,
): Promise<{ report: CycleReport; transitions: readonly Transition[]; startNs: bigint }> {
  const { control, cameras, task, policy: wanted } = config;
  const cycle = new ControlCycle({
    policy,
    robot: rig.robot,
    cameras: new TappedCameras(rig.cameras, (frames) => observers.event({ type: 'frames', frames }, rig.nowNs())),
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
  const transitions: Transition[] = [];
  cycle.on((event) => void (event.type === 'state' && transitions.push(event.transition)));
  if (config.recording.animation || wantsImagined(observers, config)) cycle.on(film.listen);
  cycle.on(point.listen);
  cycle.on((event) => observer.cycle(event));
  cycle.on((event) => observers.event({ type: 'cycle', event }, rig.nowNs()));
  const unwatch = rig.watch((sample) => observers.motion(sample));
  const stop = (): void => cycle.requestStop('interrupted by the user');
  signal.addEventListener('abort', stop, { once: true });
  try {
    await observers.begin(about, controlOf(cycle, rig, policy));
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
    const keepsPower = report.outcome === 'stopped' && control.stop_category === 2;
    if (cycle.state !== 'fault' && !keepsPower) await cycle.disarm();
    return { report, transitions, startNs };
  } finally {
    signal.removeEventListener('abort', stop);
    unwatch();
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
