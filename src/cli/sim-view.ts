/**
 * `premotor sim view`: one episode as an animated picture, all cameras side by side: from a recorded dataset, or played now by a task's expert. Owned
 * by the command line; drawing is src/recording/animation.ts, reading src/recording/lerobot-reader.ts.
 */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { composeRow, type Picture, writeAnimation } from '../recording/animation.js';
import { LeRobotDataset } from '../recording/lerobot-reader.js';
import { demonstrate } from '../sim/demonstration.js';
import { enlarge } from '../sim/film.js';
import { ACTION_RATE_HZ, PICTURE_SIZE } from '../sim/job.js';
import { Renderer } from '../sim/renderer.js';
import { CAMERAS } from '../sim/scene.js';
import { taskNamed } from '../sim/tasks/index.js';
import { TASK_NAMES, type TaskName, type Verdict } from '../sim/tasks/task.js';
import { World } from '../sim/world.js';
import { type CliContext, printResult, UsageError } from './context.js';
import { whole } from './numbers.js';
import { ProgressBar } from './progress.js';
import { SEED_MAX } from './sim-collect.js';

const GAP_PIXELS = 6;
/** Small pictures are enlarged, so that an instruction fits above them. */
const SIDE_PIXELS_MIN = 256;

interface Moment {
  readonly timeS: number;
  readonly pictures: readonly Picture[];
}

interface Episode {
  readonly instruction: string;
  readonly fps: number;
  /** Names above the pictures. */
  readonly cameras: readonly string[];
  readonly moments: readonly Moment[];
  /** How an episode that was played on the spot ended. */
  readonly verdict?: Verdict;
}

export interface ViewOptions {
  readonly episode?: number;
  readonly task?: TaskName;
  readonly seed?: number;
  readonly out: string;
  readonly json: boolean;
}

export interface ViewResult {
  readonly instruction: string;
  readonly out: string;
  readonly pictures: number;
  readonly seconds: number;
  readonly cameras: readonly string[];
  readonly verdict?: Verdict;
}

/** Errors: DATASET_MISSING, DATASET_INVALID, EPISODE_MISSING. */
async function recorded(dir: string, index: number, bar: ProgressBar): Promise<Episode> {
  const dataset = await LeRobotDataset.open(resolve(dir));
  const { instruction, rows } = await dataset.episode(index, (done, total) => bar.update('reading', done, total));
  const cameras = dataset.cameras.map((key) => key.slice(key.lastIndexOf('.') + 1));
  return { instruction, fps: dataset.fps, cameras, moments: rows };
}

async function played(name: TaskName, seed: number, bar: ProgressBar): Promise<Episode> {
  const task = taskNamed(name);
  const scene = task.scene(seed);
  const world = await World.open(task.kind);
  try {
    const renderers = CAMERAS.map((camera) => new Renderer(world, camera, PICTURE_SIZE, PICTURE_SIZE));
    const moments: Moment[] = [];
    const verdict = await demonstrate(task, scene, world, ({ index }) => {
      const pictures = renderers.map((renderer) => ({ width: renderer.width, height: renderer.height, data: renderer.render() }));
      moments.push({ timeS: index / ACTION_RATE_HZ, pictures });
      bar.update(`playing ${name}`, moments.length, task.demonstrationKnots + 1);
    });
    return { instruction: scene.instruction, fps: ACTION_RATE_HZ, cameras: CAMERAS, moments, verdict };
  } finally {
    world.close();
  }
}

/** One row per moment: the time and the instruction above the first camera, names above the others. */
async function draw(episode: Episode, bar: ProgressBar): Promise<Picture[]> {
  const rows: Picture[] = [];
  for (const { timeS, pictures } of episode.moments) {
    const [, ...others] = episode.cameras;
    const labels = [`${timeS.toFixed(2)} s  ${episode.instruction}`, ...others];
    const factor = Math.max(1, Math.ceil(SIDE_PIXELS_MIN / Math.max(...pictures.map(({ width }) => width))));
    rows.push(
      await composeRow(
        pictures.map((picture) => enlarge(picture, factor)),
        { gap: GAP_PIXELS, labels },
      ),
    );
    bar.update('drawing', rows.length, episode.moments.length);
  }
  return rows;
}

/** Errors: those of the dataset, ANIMATION_FORMAT, FILE_WRITE, and USAGE when it is not clear which episode is meant. */
export async function view(dir: string | undefined, options: ViewOptions, bar: ProgressBar): Promise<ViewResult> {
  const { task } = options;
  if ((dir === undefined) === (task === undefined)) {
    throw new UsageError(`Expected a dataset's folder or --task, found ${dir === undefined ? 'neither' : 'both'}.`);
  }
  if (dir === undefined && options.episode !== undefined) throw new UsageError('--episode belongs to a dataset; with --task, give --seed.');
  if (dir !== undefined && options.seed !== undefined) throw new UsageError('--seed belongs to --task; with a dataset, give --episode.');
  try {
    const episode = dir === undefined ? await played(task ?? 'touch', options.seed ?? 0, bar) : await recorded(dir, options.episode ?? 0, bar);
    const rows = await draw(episode, bar);
    const out = resolve(options.out);
    await writeAnimation(out, rows, { fps: episode.fps });
    const { instruction, cameras, fps, verdict } = episode;
    return { instruction, out, pictures: rows.length, seconds: rows.length / fps, cameras, ...(verdict === undefined ? {} : { verdict }) };
  } finally {
    bar.clear();
  }
}

function summary({ instruction, out, pictures, seconds, verdict }: ViewResult): string {
  const ended = verdict === undefined ? '' : `, ${verdict}`;
  return `"${instruction}", ${pictures} pictures, ${seconds.toFixed(2)} s${ended}\nAnimated picture: ${out}`;
}

/** Adds `view` to `premotor sim`. */
export function registerView(sim: Command, context: CliContext): void {
  sim
    .command('view')
    .description("write an animated picture of an episode: a dataset's, or one that a task's expert plays now")
    .argument('[dir]', 'folder of a LeRobot v2.1 dataset')
    .option('--episode <n>', 'episode of the dataset (default: 0)', whole(0, SEED_MAX))
    .addOption(new Option('--task <name>', 'play this task instead of reading a dataset').choices([...TASK_NAMES]))
    .option('--seed <n>', 'scene of the task (default: 0)', whole(0, SEED_MAX))
    .requiredOption('-o, --out <file>', 'file to write: .gif, .webp or .png (animated PNG)')
    .option('--json', 'print the result as JSON', false)
    .addHelpText(
      'after',
      '\nExamples:\n  premotor sim view data/touch --episode 3 -o touch.gif\n  premotor sim view --task push --seed 3 -o push.webp\n',
    )
    .action(async (dir: string | undefined, options: ViewOptions) => {
      const result = await view(dir, options, new ProgressBar(context.err));
      printResult(context, options.json, result, () => summary(result));
    });
}
