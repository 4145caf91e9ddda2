/**
 * Runs one episode of a task through the real control cycle and measures it: verdict, time to completion, latencies, jerk. Owns the simulation for
 * the episode; it never changes what the cycle does, and everything but the latencies follows from the seed.
 */
import { ControlCycle } from '../control/cycle.js';
import type { CycleReport } from '../control/events.js';
import type { Frame, Policy } from '../policy/contract.js';
import { ACTION_RATE_HZ, VIDEO_RATE_HZ } from '../sim/job.js';
import type { Simulation } from '../sim/simulation.js';
import type { Task, TaskScene, Verdict } from '../sim/tasks/task.js';
import { AssumptionMeter } from './assumption.js';
import { type Configuration, chunksOf, type EpisodePictures, type EpisodeResult, type EpisodeVerdict, thinkingMsOf } from './configuration.js';
import { describeFailure } from './failure.js';
import { JerkMeter } from './jerk.js';

/** The control cycle's own limit for an undisturbed camera. */
const FRAME_AGE_MAX_MS = 100;
/** Pictures of a failed episode on its contact sheet. */
const PICTURES_MAX = 8;
/** The verdict is asked this often, so that a completion has a time: once per action. */
const WATCH_PERIOD_NS = BigInt(Math.round(1e9 / ACTION_RATE_HZ));

export interface EpisodeParts {
  readonly task: Task;
  readonly seed: number;
  readonly policy: Policy;
  readonly simulation: Simulation;
  readonly configuration: Configuration;
  readonly signal?: AbortSignal;
}

export interface EpisodeOutcome {
  readonly result: EpisodeResult;
  /** Only after an episode that did not succeed. */
  readonly pictures?: EpisodePictures;
}

/** Looks over the arm's shoulder: meters the setpoints and notes when the task was done. */
class Watch {
  readonly jerk: JerkMeter;
  /** Since when the task has been done without interruption. */
  doneAtNs: bigint | undefined;
  /** When the episode began: the arm is powered before that. */
  startNs: bigint | undefined;
  firstMoveNs: bigint | undefined;
  /** Time without a movement after the first, until the task was done. */
  idleNs = 0n;
  #stillNs = 0n;
  readonly #before: Float64Array;
  readonly #simulation: Simulation;
  readonly #verdict: () => Verdict;

  constructor(simulation: Simulation, verdict: () => Verdict) {
    this.#simulation = simulation;
    this.#verdict = verdict;
    const { joints, periodNs } = simulation.robot;
    this.jerk = new JerkMeter(joints.length, Number(periodNs) / 1e9);
    this.#before = new Float64Array(joints.length).fill(Number.NaN);
  }

  readonly see = (setpointRad: Float64Array): void => {
    if (!setpointRad.some(Number.isNaN)) this.jerk.add(setpointRad);
    const { timeNs } = this.#simulation.world;
    if (this.startNs !== undefined && this.doneAtNs === undefined) this.#noteMotion(setpointRad, timeNs);
    if (timeNs % WATCH_PERIOD_NS === 0n) this.doneAtNs = this.#verdict() === 'succeeded' ? (this.doneAtNs ?? timeNs) : undefined;
  };

  /** A pause counts when it is over: the arm's last rest belongs to nothing. */
  #noteMotion(setpointRad: Float64Array, timeNs: bigint): void {
    const isStill = setpointRad.every((angle, joint) => angle === this.#before[joint] || Number.isNaN(this.#before[joint]));
    this.#before.set(setpointRad);
    if (isStill) {
      this.#stillNs += this.#simulation.robot.periodNs;
      return;
    }
    if (this.firstMoveNs === undefined) this.firstMoveNs = timeNs - this.#simulation.robot.periodNs;
    else this.idleNs += this.#stillNs;
    this.#stillNs = 0n;
  }
}

/** A frame may be as old as the delay, and the next frame a period late, before it counts as stale. */
function frameAgeMaxMs({ disturbances }: Configuration): number {
  const delayMs = disturbances.cameraDelayMs ?? 0;
  return delayMs === 0 ? FRAME_AGE_MAX_MS : FRAME_AGE_MAX_MS + delayMs + 1000 / VIDEO_RATE_HZ;
}

/** Runs the episode of a seed; the seed draws scene, noise and disturbances. Errors: ABORTED; the cycle's are in the result. */
export async function runEpisode(parts: EpisodeParts): Promise<EpisodeOutcome> {
  const { task, seed, policy, simulation, configuration, signal } = parts;
  const { videoSteps, actionSteps, memory, mode, commits } = configuration;
  const thinkingMs = thinkingMsOf(configuration, policy.job);
  const scene = task.scene(seed);
  const verdict = (): Verdict => task.verdict(simulation.world, scene);
  simulation.reset(scene.layout, seed);
  const watch = new Watch(simulation, verdict);
  const unwatch = simulation.watch(watch.see);
  const cycle = new ControlCycle({
    policy,
    robot: simulation.robot,
    cameras: simulation.cameras,
    actionRateHz: ACTION_RATE_HZ,
    frameAgeMaxMs: frameAgeMaxMs(configuration),
    memory,
    ...(videoSteps === undefined ? {} : { videoSteps }),
    ...(actionSteps === undefined ? {} : { actionSteps }),
    ...(mode === undefined ? {} : { mode }),
    ...(commits === undefined ? {} : { commits }),
    ...(thinkingMs === undefined ? {} : { thinkingMs }),
  });
  const assumption = new AssumptionMeter();
  cycle.on(assumption.listen);
  const seen: Frame[] = [];
  cycle.on((event) => {
    if (event.type === 'started') seen.push(...event.observation.slice(0, 1));
    if (event.type === 'executed') seen.push(...event.moments.flatMap((observation) => observation.slice(0, 1)));
  });
  const stop = (): void => cycle.requestStop('interrupted');
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const chunks = chunksOf(task, policy.job, memory);
    await cycle.arm();
    watch.startNs = simulation.world.timeNs;
    const report = await cycle.run({ prompt: scene.instruction, chunks, seed, until: () => verdict() !== 'open' });
    signal?.throwIfAborted();
    const result = measured(parts, scene, watch, report, verdict(), assumption);
    return result.verdict === 'succeeded' ? { result } : { result, pictures: { task: task.name, seed, pictures: evenly(seen, PICTURES_MAX) } };
  } finally {
    unwatch();
    signal?.removeEventListener('abort', stop);
  }
}

function measured(
  { task, seed, simulation }: EpisodeParts,
  scene: TaskScene,
  watch: Watch,
  report: CycleReport,
  end: Verdict,
  assumption: AssumptionMeter,
): EpisodeResult {
  const verdict: EpisodeVerdict = report.error ? 'error' : end === 'open' ? 'timeout' : end;
  const seconds = (timeNs: bigint): number => Number(timeNs - (watch.startNs ?? 0n)) / 1e9;
  const { world, nudgedAtNs } = simulation;
  const why = report.error ? `${report.error.code}: ${report.error.message}` : describeFailure(scene, world);
  return {
    task: task.name,
    seed,
    instruction: scene.instruction,
    verdict,
    why: verdict === 'succeeded' ? '' : why,
    completionS: verdict === 'succeeded' ? seconds(watch.doneAtNs ?? world.timeNs) : null,
    robotS: report.robotMs / 1000,
    firstMoveS: watch.firstMoveNs === undefined ? null : seconds(watch.firstMoveNs),
    idleS: Number(watch.idleNs) / 1e9,
    presses: world.pressLog.map(({ colour, timeNs }) => ({ colour, timeS: seconds(timeNs) })),
    peakJerkRadPerS3: watch.jerk.peak,
    knots: report.knots,
    clampedKnots: report.clampedKnots,
    nudgedAtS: nudgedAtNs === undefined || nudgedAtNs > world.timeNs ? null : seconds(nudgedAtNs),
    predictMs: report.chunks.map(({ predictMs }) => microseconds(predictMs)),
    commitMs: report.chunks.map(({ commitMs }) => microseconds(commitMs)),
    ...(assumption.isEmpty ? {} : { assumed: assumption.result() }),
  };
}

/** Rounded: no clock of a wall is better, and the documents are kept. */
const microseconds = (milliseconds: number): number => Math.round(1000 * milliseconds) / 1000;

/** At most so many of the frames, the first and the last among them. */
function evenly(frames: readonly Frame[], most: number): EpisodePictures['pictures'] {
  const count = Math.min(most, frames.length);
  const start = frames[0]?.capturedAtNs ?? 0n;
  return Array.from({ length: count }, (_, index) => frames[Math.round((index * (frames.length - 1)) / Math.max(1, count - 1))] as Frame).map(
    ({ width, height, data, capturedAtNs }) => ({ timeS: Number(capturedAtNs - start) / 1e9, width, height, data }),
  );
}
