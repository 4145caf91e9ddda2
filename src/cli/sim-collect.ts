/**
 * `premotor sim collect`: plays a task's scripted expert in the simulation and records demonstrations as a LeRobot dataset, faster than real time.
 * Owned by the command line; the expert is in src/sim/tasks, the format in src/recording/lerobot.ts.
 */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { LeRobotWriter } from '../recording/lerobot.js';
import { JOINTS } from '../sim/arm.js';
import { type DemonstrationRow, demonstrate } from '../sim/demonstration.js';
import { ACTION_RATE_HZ, PICTURE_SIZE } from '../sim/job.js';
import { Renderer } from '../sim/renderer.js';
import { CAMERAS, type CameraName } from '../sim/scene.js';
import { taskNamed } from '../sim/tasks/index.js';
import { TASK_NAMES, type Task, type TaskName } from '../sim/tasks/task.js';
import { World } from '../sim/world.js';
import { type CliContext, printResult } from './context.js';
import { share, whole } from './numbers.js';
import { ProgressBar } from './progress.js';

/** Demonstrations start here by default, evaluation at 0: no policy is judged on a scene it was shown. */
export const DEMONSTRATION_SEED = 1_000_000;
export const SEED_MAX = 2 ** 32 - 1;

export interface CollectOptions {
  readonly task: TaskName;
  readonly episodes: number;
  readonly out: string;
  readonly seed: number;
  readonly cameras: readonly CameraName[];
  readonly recovery: number;
  readonly stills: boolean;
  readonly force: boolean;
  readonly json: boolean;
}

export interface CollectResult {
  readonly task: TaskName;
  readonly out: string;
  readonly episodes: number;
  readonly rows: number;
  /** Demonstrations that did not succeed and were left out. */
  readonly dropped: number;
  readonly simulatedS: number;
  readonly wallS: number;
  readonly interrupted: boolean;
}

interface RecordedRow extends DemonstrationRow {
  readonly pictures: { width: number; height: number; data: Uint8Array }[];
}

/** Plays one seed; undefined when the expert failed. */
async function record(
  task: Task,
  seed: number,
  world: World,
  renderers: readonly Renderer[],
  options: CollectOptions,
): Promise<RecordedRow[] | undefined> {
  const scene = task.scene(seed);
  const rows: RecordedRow[] = [];
  const take = (row: DemonstrationRow): void => {
    rows.push({ ...row, pictures: renderers.map((renderer) => ({ width: renderer.width, height: renderer.height, data: renderer.render() })) });
  };
  if (options.stills) {
    world.reset(scene.layout);
    const { positionsRad } = world.state();
    take({ index: 0, positionsRad, actionRad: positionsRad });
    return rows;
  }
  const verdict = await demonstrate(task, scene, world, take, { recovery: options.recovery });
  return verdict === 'succeeded' ? rows : undefined;
}

/** Records until enough demonstrations succeeded or the signal aborts; either leaves a complete dataset. Errors: OUT_NOT_EMPTY, FILE_WRITE. */
export async function collect(options: CollectOptions, bar: ProgressBar, signal: AbortSignal): Promise<CollectResult> {
  const task = taskNamed(options.task);
  const begun = performance.now();
  const world = await World.open(task.kind);
  try {
    const renderers = options.cameras.map((camera) => new Renderer(world, camera, PICTURE_SIZE, PICTURE_SIZE));
    const cameras = options.cameras.map((name) => ({ key: `observation.images.${name}`, width: PICTURE_SIZE, height: PICTURE_SIZE }));
    const robot = { robotType: 'premotor-sim-arm', fps: ACTION_RATE_HZ, joints: JOINTS.map(({ name }) => name) };
    const writer = await LeRobotWriter.create({ dir: resolve(options.out), cameras, ...robot }, options.force);
    let dropped = 0;
    for (let seed = options.seed; writer.episodes < options.episodes && seed <= SEED_MAX && !signal.aborted; seed++) {
      const rows = await record(task, seed, world, renderers, options);
      if (rows) {
        const { instruction, layout, goals } = task.scene(seed);
        const recorded = rows.map(({ pictures, positionsRad, actionRad }) => ({ pictures, state: positionsRad, action: actionRad }));
        await writer.add({ task: instruction, rows: recorded, extra: { seed, task_name: task.name, layout, goals } });
      } else dropped++;
      bar.update(`recording ${task.name}`, writer.episodes, options.episodes);
    }
    await writer.finish();
    return {
      task: task.name,
      out: resolve(options.out),
      episodes: writer.episodes,
      rows: writer.rows,
      dropped,
      simulatedS: options.stills ? 0 : (writer.rows - writer.episodes) / ACTION_RATE_HZ,
      wallS: (performance.now() - begun) / 1000,
      interrupted: signal.aborted,
    };
  } finally {
    bar.clear();
    world.close();
  }
}

function summary(result: CollectResult): string {
  const pace = result.simulatedS > 0 ? `, ${(result.simulatedS / result.wallS).toFixed(1)} x real time` : '';
  const left = result.dropped > 0 ? `, ${result.dropped} failed demonstrations left out` : '';
  return [
    `${result.episodes} episodes of ${result.task}, ${result.rows} rows, in ${result.wallS.toFixed(1)} s${pace}${left}`,
    `LeRobot v2.1 dataset: ${result.out}`,
    ...(result.interrupted ? ['Interrupted: the dataset is complete up to there.'] : []),
  ].join('\n');
}

const cameraChoice = (text: string): readonly CameraName[] => (text === 'both' ? CAMERAS : CAMERAS.filter((name) => name === `cam_${text}`));

/** Adds `collect` to `premotor sim`. */
export function registerCollect(sim: Command, context: CliContext): void {
  sim
    .command('collect')
    .description('record demonstrations of a task as a LeRobot v2.1 dataset')
    .addOption(new Option('--task <name>', 'the task').choices([...TASK_NAMES]).makeOptionMandatory())
    .requiredOption('--episodes <n>', 'demonstrations to record', whole(1, 1_000_000))
    .requiredOption('--out <dir>', 'folder of the dataset, new or empty')
    .option('--seed <n>', 'scene of the first episode; the next ones count up', whole(0, SEED_MAX), DEMONSTRATION_SEED)
    .addOption(new Option('--cameras <which>', 'cameras to record').choices(['front', 'wrist', 'both']).default('both'))
    .option('--recovery <share>', 'share of approaches that miss first and correct themselves, 0 .. 1', share, 0)
    .option('--stills', 'record only the first row of each episode: scenes to learn seeing from', false)
    .option('--force', 'replace a dataset that is there', false)
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', '\nExample:\n  premotor sim collect --task touch --episodes 50 --out data/touch\n')
    .action(async (options: Omit<CollectOptions, 'cameras'> & { cameras: string }) => {
      const stop = new AbortController();
      const onInterrupt = (): void => stop.abort();
      process.once('SIGINT', onInterrupt);
      try {
        const bar = new ProgressBar(context.err);
        const signal = AbortSignal.any([context.signal, stop.signal]);
        const result = await collect({ ...options, cameras: cameraChoice(options.cameras) }, bar, signal);
        printResult(context, options.json, result, () => summary(result));
        if (result.interrupted) process.exitCode = 130;
      } finally {
        process.off('SIGINT', onInterrupt);
      }
    });
}
