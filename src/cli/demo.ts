/**
 * `premotor demo`, the body of `npm start`: the simulated arm, driven closed loop by a checkpoint in the released layout whose engine runs in a
 * process of its own. Owned by the command line. Progress goes to standard error, the result to standard output, and an animated picture stays
 * behind.
 */
import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { SimulatedCameras } from '../cameras/simulated.js';
import { UNTRAINED_MARKER, writeUntrainedCheckpoint } from '../checkpoint/untrained.js';
import { ControlCycle } from '../control/cycle.js';
import type { ChunkReport, CycleEvent, CycleReport } from '../control/events.js';
import type { LoadPolicyOptions, Policy } from '../policy/contract.js';
import { loadPolicy } from '../policy/load.js';
import { writeAnimation } from '../recording/animation.js';
import { EpisodeFilm, FILM_CHUNKS_MAX } from '../sim/film.js';
import { ACTION_RATE_HZ, PICTURE_SIZE, SIM_JOB, VIDEO_RATE_HZ } from '../sim/job.js';
import { SimulatedRobot } from '../sim/robot.js';
import { BUTTON_COLOURS } from '../sim/scene.js';
import { touch } from '../sim/tasks/touch.js';
import type { TaskScene } from '../sim/tasks/task.js';
import { World } from '../sim/world.js';
import type { Sink } from './context.js';
import { ProgressBar } from './progress.js';

export interface DemoOptions {
  readonly chunks: number;
  readonly seed: number;
  readonly checkpoint?: string;
  readonly out: string;
  readonly json: boolean;
}

/** What the command needs from outside; tests give their own. */
export interface DemoDependencies {
  readonly loadPolicy: (options: LoadPolicyOptions) => Promise<Policy>;
  readonly writeCheckpoint: (dir: string, texts: readonly string[]) => Promise<void>;
  /** Results. */
  readonly out: Sink;
  /** Progress. */
  readonly err: Sink;
  /** Calls back when the user asks to stop; returns what ends that. */
  readonly onInterrupt: (listener: () => void) => () => void;
}

/** The result, as --json prints it. */
export interface DemoResult {
  readonly instruction: string;
  readonly checkpoint: string;
  readonly untrained: boolean;
  readonly outcome: CycleReport['outcome'];
  readonly success: boolean;
  readonly chunks: readonly ChunkReport[];
  readonly setpoints: number;
  readonly clampedSetpoints: number;
  readonly robotMs: number;
  readonly animation: string | null;
}

/** The checkpoint to run: the given one, or an untrained one that is written once into the output folder. */
async function prepareCheckpoint(options: DemoOptions, deps: DemoDependencies, bar: ProgressBar): Promise<{ path: string; untrained: boolean }> {
  if (options.checkpoint !== undefined) {
    const path = resolve(options.checkpoint);
    return { path, untrained: existsSync(join(path, UNTRAINED_MARKER)) };
  }
  const path = join(resolve(options.out), 'untrained-checkpoint');
  if (!existsSync(path)) {
    bar.line(`Writing a small untrained checkpoint: ${path}`);
    // Written beside and renamed, so that an interrupted run leaves nothing that looks complete.
    const unfinished = `${path}.part`;
    await rm(unfinished, { recursive: true, force: true });
    await deps.writeCheckpoint(
      unfinished,
      BUTTON_COLOURS.map((colour) => `touch the ${colour} button`),
    );
    await rename(unfinished, path);
  }
  return { path, untrained: true };
}

function announce(scene: TaskScene, { info }: Policy, untrained: boolean, bar: ProgressBar): void {
  bar.line(
    `Checkpoint: ${(info.parameters / 1e6).toFixed(2)} M parameters, ${info.backend}, ${info.precision}, ${info.threads} threads, own process`,
  );
  if (untrained) {
    bar.line(
      'NOTE: this checkpoint is UNTRAINED. Its weights are random numbers, so the arm moves without aim, imagines noise and will not succeed.',
    );
    bar.line('      It shows that the whole loop runs: cameras, engine, action chunks, limits, memory. A trained one is given with --checkpoint.');
  }
  bar.line(`Task: "${scene.instruction}"`);
}

/** Prints progress while the cycle runs. */
function narrate(event: CycleEvent, chunks: number, bar: ProgressBar): void {
  if (event.type === 'progress') {
    bar.prefix(`chunk ${event.chunk + 1}/${chunks}`);
    bar.report(event.progress);
  }
  if (event.type === 'committed') bar.line(chunkLine(event.report, chunks));
  if (event.type === 'holding' && (event.why === 'stopped' || event.why === 'failed')) bar.line('The arm decelerates and holds its position.');
}

function chunkLine({ chunk, timing, predictMs, executeMs, commitMs, knots, clampedKnots }: ChunkReport, chunks: number): string {
  const ms = (value: number): string => value.toFixed(0);
  const robot = (1000 * knots) / ACTION_RATE_HZ;
  const engine = `encode ${ms(timing.encodeMs)}, video ${ms(timing.videoMs)}, action ${ms(timing.actionMs)}`;
  const parts = [
    `predict ${ms(predictMs)} ms (${engine})`,
    `execute ${ms(robot)} ms of motion in ${ms(executeMs)} ms`,
    `commit ${ms(commitMs)} ms`,
    `clamped ${clampedKnots}/${knots}`,
  ];
  return `chunk ${chunk + 1}/${chunks}  ${parts.join('   ')}`;
}

/** The result as a table. */
export function summaryTable(result: DemoResult): string {
  const { chunks } = result;
  const mean = (pick: (report: ChunkReport) => number): string =>
    chunks.length === 0 ? '-' : `${(chunks.reduce((sum, report) => sum + pick(report), 0) / chunks.length).toFixed(0)} ms`;
  const rows: [string, string][] = [
    ['instruction', result.instruction],
    ['checkpoint', result.untrained ? 'untrained (random weights)' : result.checkpoint],
    ['outcome', result.outcome],
    ['chunks', String(chunks.length)],
    ['per chunk', mean((report) => report.predictMs + report.executeMs + report.commitMs)],
    ['  predict', mean((report) => report.predictMs)],
    ['  execute (simulation, cameras)', mean((report) => report.executeMs)],
    ['  commit', mean((report) => report.commitMs)],
    ['clamped setpoints', `${result.clampedSetpoints} of ${result.setpoints}`],
    ['robot time', `${(result.robotMs / 1000).toFixed(2)} s`],
    ['success', result.success ? 'yes' : 'no'],
    ['animation', result.animation ?? 'none'],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}

/** Writes the film; an engine that has died cannot decode, and then there is none. */
async function writeFilm(film: EpisodeFilm, policy: Policy, path: string, bar: ProgressBar): Promise<string | null> {
  if (film.isEmpty) return null;
  try {
    bar.prefix('film');
    bar.line(film.isCut ? `Decoding the imagined video of the first ${FILM_CHUNKS_MAX} chunks` : 'Decoding the imagined video');
    const rows = await film.compose(policy, bar.report);
    await writeAnimation(path, rows, { fps: VIDEO_RATE_HZ });
    return path;
  } catch (error) {
    bar.line(`No animation: ${(error as Error).message}`);
    return null;
  } finally {
    bar.clear();
  }
}

/** Runs the demonstration. An error that ended the episode is thrown after the result was printed. Errors: those of loadPolicy and the cycle. */
export async function runDemo(options: DemoOptions, deps: DemoDependencies): Promise<DemoResult> {
  const scene = touch.scene(options.seed);
  const bar = new ProgressBar(deps.err);
  const checkpoint = await prepareCheckpoint(options, deps, bar);
  const world = await World.open();
  let policy: Policy | undefined;
  let ignoreInterrupts = (): void => undefined;
  try {
    policy = await deps.loadPolicy({ checkpoint: checkpoint.path, job: SIM_JOB, isolate: true });
    announce(scene, policy, checkpoint.untrained, bar);
    world.reset(scene.layout);
    const cycle = new ControlCycle({ policy, robot: new SimulatedRobot(world), cameras: new SimulatedCameras(world, PICTURE_SIZE), actionRateHz: ACTION_RATE_HZ });
    const film = new EpisodeFilm();
    cycle.on(film.listen);
    cycle.on((event) => narrate(event, options.chunks, bar));
    ignoreInterrupts = deps.onInterrupt(() => {
      bar.line('Stopping. Interrupt again to end at once.');
      cycle.requestStop('interrupted by the user');
    });
    const until = (): boolean => touch.verdict(world, scene) === 'succeeded';
    const report = await cycle.run({ prompt: scene.instruction, chunks: options.chunks, seed: options.seed, until });
    ignoreInterrupts();
    const animation = await writeFilm(film, policy, join(resolve(options.out), 'episode.gif'), bar);
    const result: DemoResult = {
      instruction: scene.instruction,
      checkpoint: checkpoint.path,
      untrained: checkpoint.untrained,
      outcome: report.outcome,
      success: until(),
      chunks: report.chunks,
      setpoints: report.knots,
      clampedSetpoints: report.clampedKnots,
      robotMs: report.robotMs,
      animation,
    };
    deps.out.write(`${options.json ? JSON.stringify(result, null, 2) : `\n${summaryTable(result)}`}\n`);
    if (report.error) throw report.error;
    return result;
  } finally {
    ignoreInterrupts();
    await policy?.close();
    world.close();
  }
}

const whole =
  (low: number, high: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < low || value > high) throw new InvalidArgumentError(`Expected a whole number of ${low} .. ${high}.`);
    return value;
  };

function interrupts(listener: () => void): () => void {
  // Once: the second interrupt ends the process as usual.
  process.once('SIGINT', listener);
  return () => process.removeListener('SIGINT', listener);
}

/** Adds `premotor demo` to the program. Errors of the command reject the program's parseAsync. */
export function registerDemo(program: Command): void {
  program
    .command('demo')
    .description('run the simulated arm closed loop and leave an animated picture of what it saw and imagined')
    .option('--chunks <n>', 'action chunks to run', whole(1, 1000), 6)
    .option('--seed <n>', 'seed of the scene and of the policy', whole(0, 2 ** 32 - 1), 0)
    .option('--checkpoint <dir>', 'checkpoint folder in the released layout (default: a small untrained one, written on first use)')
    .option('--out <dir>', 'folder for the animated picture', './premotor-out')
    .option('--json', 'print the result as JSON', false)
    .action(async (options: DemoOptions) => {
      const result = await runDemo(options, {
        loadPolicy,
        writeCheckpoint: (dir, texts) => writeUntrainedCheckpoint(dir, { size: 'small', texts }),
        out: process.stdout,
        err: process.stderr,
        onInterrupt: interrupts,
      });
      if (result.outcome === 'stopped') process.exitCode = 130;
    });
}
