/**
 * `premotor demo`, the body of `npm start`: one episode on the simulated arm, without any file to write first. Drives it with the checkpoint that
 * ships in models/, or, where there is none, with an untrained one. Owned by the command line; the episode is that of `premotor run`.
 */
import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { UNTRAINED_MARKER, writeUntrainedCheckpoint } from '../checkpoint/untrained.js';
import { type RobotConfig, robotConfigSchema } from '../config/schema.js';
import type { EpisodeSummary } from '../runtime/summary.js';
import { taskNamed } from '../sim/tasks/index.js';
import { TASK_NAMES } from '../sim/tasks/task.js';
import type { CliContext } from './context.js';
import { SHIPPED_CHECKPOINT } from './eval-options.js';
import { SEED_MAX, whole } from './numbers.js';
import { ProgressBar } from './progress.js';
import { narrateEpisode, paceOption, stayOption } from './run.js';

const UNTRAINED_NAME = 'untrained-checkpoint';

export interface DemoOptions {
  readonly task: string;
  readonly chunks?: number;
  readonly seed: number;
  readonly checkpoint?: string;
  readonly out: string;
  readonly pace?: RobotConfig['robot']['pace'];
  /** Keep the status page after the episode. */
  readonly stay?: boolean;
  readonly json: boolean;
}

/** What the command needs beside the context; tests give their own. */
export interface DemoParts {
  readonly writeCheckpoint: (dir: string, texts: readonly string[]) => Promise<void>;
  readonly shippedCheckpoint: string;
}

const defaultParts: DemoParts = {
  writeCheckpoint: (dir, texts) => writeUntrainedCheckpoint(dir, { size: 'small', texts }),
  shippedCheckpoint: SHIPPED_CHECKPOINT,
};

/** The checkpoint to run: the given one, the shipped one, or an untrained one that is written once into the output folder. */
async function prepareCheckpoint(options: DemoOptions, parts: DemoParts, bar: ProgressBar): Promise<string> {
  if (options.checkpoint !== undefined) return resolve(options.checkpoint);
  if (existsSync(parts.shippedCheckpoint)) return parts.shippedCheckpoint;
  const path = join(resolve(options.out), UNTRAINED_NAME);
  if (existsSync(path)) return path;
  bar.line(`No trained checkpoint ships with this version. Writing a small untrained one: ${path}`);
  // Written beside and renamed, so that an interrupted run leaves nothing that looks complete.
  const unfinished = `${path}.part`;
  await rm(unfinished, { recursive: true, force: true });
  await parts.writeCheckpoint(
    unfinished,
    TASK_NAMES.map((name) => taskNamed(name).scene(0).instruction),
  );
  await rename(unfinished, path);
  return path;
}

/** What random weights ask for is nonsense; it is clamped instead of refused, so that the rest can be seen working. */
const ANYTHING_RAD = 1000;

/** The configuration that the demonstration runs. */
export function demoConfig(options: DemoOptions, checkpoint: string): RobotConfig {
  const isUntrained = existsSync(join(checkpoint, UNTRAINED_MARKER));
  return robotConfigSchema.parse({
    robot: { type: 'sim', ...(options.pace === undefined ? {} : { pace: options.pace }) },
    task: { name: options.task, seed: options.seed },
    policy: { checkpoint_dir: checkpoint },
    control: {
      ...(options.chunks === undefined ? {} : { chunks_max: options.chunks }),
      ...(isUntrained ? { action_outside_max_rad: ANYTHING_RAD, action_jump_max_rad: ANYTHING_RAD } : {}),
    },
    recording: { out_dir: resolve(options.out) },
  });
}

/** Runs the demonstration. Errors: those of narrateEpisode. */
export async function runDemo(options: DemoOptions, context: CliContext, parts: DemoParts = defaultParts): Promise<EpisodeSummary> {
  const bar = new ProgressBar(context.err);
  const checkpoint = await prepareCheckpoint(options, parts, bar);
  return narrateEpisode(demoConfig(options, checkpoint), context, bar, { json: options.json, stay: options.stay ?? false });
}

const examples = `
Examples:
  premotor demo
  premotor demo --task push --seed 3
  premotor demo --pace real --stay
  premotor demo --checkpoint DIR --out results --json

Exit codes: 0 it ran, whether or not the task was done; 1 failed, 130 interrupted. premotor run tells the two apart.`;

/** Adds `premotor demo` to the program. */
export function registerDemo(program: Command, context: CliContext): void {
  program
    .command('demo')
    .description('run one episode on the simulated arm and leave an animated picture of what it saw and imagined')
    .addOption(new Option('--task <name>', 'the task').choices([...TASK_NAMES]).default('touch'))
    .option('--chunks <n>', "end after so many action chunks (default: the task's)", whole(1, 1000))
    .option('--seed <n>', 'seed of the scene and of the policy', whole(0, SEED_MAX), 0)
    .option('--checkpoint <dir>', 'checkpoint folder in the released layout (default: the one that ships, else a small untrained one)')
    .option('--out <dir>', 'folder for the animated picture', './premotor-out')
    .addOption(paceOption())
    .addOption(stayOption())
    .option('--json', 'print the summary as JSON', false)
    .addHelpText('after', examples)
    .action(async (options: DemoOptions) => void (await runDemo(options, context)));
}
