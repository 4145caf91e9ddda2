/**
 * `premotor run`: runs one episode on the robot that a configuration describes and reports it. Owned by the command line; the episode itself is in
 * src/runtime/episode.ts.
 */
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { readRobotConfig } from '../config/reader.js';
import { type RobotConfig, SERVER_URL } from '../config/schema.js';
import type { CpuPrecision, KvCache } from '../policy/precision.js';
import { outliveSaveSignal } from '../recording/save.js';
import { type EpisodeParts, runEpisode } from '../runtime/episode.js';
import { VOCABULARY } from '../runtime/rig.js';
import type { EpisodeSummary } from '../runtime/summary.js';
import { TASK_NAMES } from '../sim/tasks/task.js';
import { type CliContext, CommandExit, EXIT_INTERRUPTED, EXIT_NOT_DONE, printResult, UsageError } from './context.js';
import { Narrator, summaryTable } from './episode.js';
import { SEED_MAX, whole } from './numbers.js';
import { kvCacheOption, precisionOption, uncertifiedOption } from './precision-option.js';
import { ProgressBar } from './progress.js';

export interface StepsOption {
  readonly video: number;
  readonly action: number;
}

export interface RunOptions {
  readonly task?: string;
  readonly seed?: number;
  readonly chunks?: number;
  readonly steps?: StepsOption;
  readonly precision?: CpuPrecision;
  readonly kvCache?: KvCache;
  readonly plan?: string;
  /** A policy server instead of the configured policy. */
  readonly policy?: string;
  readonly tokenFile?: string;
  readonly allowUncertified?: boolean;
  readonly out?: string;
  readonly record?: RobotConfig['recording']['recorder']['mode'];
  /** true: the newest interrupted episode; a text: that of the folder. */
  readonly resume?: string | true;
  readonly pace?: RobotConfig['robot']['pace'];
  /** Keep the status page after the episode. */
  readonly stay?: boolean;
  readonly json: boolean;
}

const CHUNKS_MAX = 10_000;
const STEPS_MAX = 1000;

/** A configuration with what the command line says otherwise. */
export function overridden(config: RobotConfig, options: RunOptions): RobotConfig {
  const { task, seed, chunks, steps, precision, kvCache, plan, policy, tokenFile, allowUncertified = false, out, pace, record } = options;
  // The file's instruction was written for the file's task.
  const { instruction, ...scene } = config.task;
  const kept = task === undefined || task === scene.name ? config.task : scene;
  return {
    ...config,
    ...(pace === undefined ? {} : { robot: { ...config.robot, pace } }),
    task: { ...kept, ...(task === undefined ? {} : { name: task }), ...(seed === undefined ? {} : { seed }) },
    policy: {
      ...config.policy,
      ...(steps === undefined ? {} : { video_steps: steps.video, action_steps: steps.action }),
      ...(precision === undefined ? {} : { precision }),
      ...(kvCache === undefined ? {} : { kv_cache: kvCache }),
      ...(plan === undefined ? {} : { plan: resolve(plan) }),
      ...(policy === undefined ? {} : { backend: 'remote' as const, url: policy }),
      ...(tokenFile === undefined ? {} : { token_file: resolve(tokenFile) }),
      ...(allowUncertified ? { allow_uncertified: true } : {}),
    },
    control: { ...config.control, ...(chunks === undefined ? {} : { chunks_max: chunks }) },
    recording: {
      ...config.recording,
      ...(out === undefined ? {} : { out_dir: resolve(out) }),
      ...(record === undefined ? {} : { recorder: { ...config.recording.recorder, mode: record } }),
    },
  };
}

export interface NarrateOptions {
  readonly json: boolean;
  readonly resume?: NonNullable<EpisodeParts['resume']>;
  /** After the episode the status page stays until the user interrupts. */
  readonly stay?: boolean;
}

/** Runs an episode with everything printed. An error that ended it is thrown after its summary was printed. Errors: those of runEpisode. */
export async function narrateEpisode(config: RobotConfig, context: CliContext, bar: ProgressBar, options: NarrateOptions): Promise<EpisodeSummary> {
  const { loadPolicy, signal } = context;
  const { json, resume, stay = false } = options;
  const narrator = new Narrator(bar, {
    isolate: config.policy.isolate,
    isRemote: config.policy.backend === 'remote',
    actionRateHz: config.control.action_rate_hz,
  });
  let isOver = false;
  const remark = (): void => bar.line(isOver ? 'Ending.' : 'Stopping. Interrupt again to end at once.');
  signal.addEventListener('abort', remark, { once: true });
  const onSummary = (summary: EpisodeSummary): void => {
    isOver = true;
    bar.clear();
    printResult(context, json, summary, () => `\n${summaryTable(summary)}`);
  };
  try {
    const parts = { loadPolicy, observer: narrator, signal, stay, onSummary, ...(resume ? { resume } : {}) };
    const { summary, error } = await runEpisode(config, parts);
    if (error) throw error;
    if (summary.outcome === 'stopped') throw new CommandExit(EXIT_INTERRUPTED);
    return summary;
  } finally {
    bar.clear();
    signal.removeEventListener('abort', remark);
  }
}

/** Options that only a simulated robot has. Errors: USAGE. */
function checkOptions({ robot }: RobotConfig, { pace, task }: RunOptions): void {
  if (robot.type !== 'can') return;
  if (pace === 'virtual') throw new UsageError('A robot on a bus has no virtual time. Leave --pace out.', { expected: 'real', found: pace });
  if (task === undefined || robot.world === 'sim') return;
  const expected = 'task.instruction in the configuration';
  throw new UsageError('A robot in the real world has no scenes to choose from. Leave --task out.', { expected, found: `--task ${task}` });
}

/** Runs the command. Errors: CONFIG_MISSING, CONFIG_INVALID, those of runEpisode; CommandExit when the task was not done or the user stopped it. */
export async function runRun(file: string, options: RunOptions, context: CliContext): Promise<void> {
  outliveSaveSignal();
  const { config } = await readRobotConfig(file, VOCABULARY);
  checkOptions(config, options);
  const { resume, json, stay = false } = options;
  const wanted = resume === undefined ? undefined : resume === true ? {} : { dir: resolve(resume) };
  const summary = await narrateEpisode(overridden(config, options), context, new ProgressBar(context.err), {
    json,
    stay,
    ...(wanted ? { resume: wanted } : {}),
  });
  if (summary.success === false) throw new CommandExit(EXIT_NOT_DONE);
}

/** "5/10": denoising steps for video and for actions. */
export function parseSteps(text: string): StepsOption {
  const [, video, action] = /^(\d{1,4})\/(\d{1,4})$/.exec(text) ?? [];
  const steps = { video: Number(video), action: Number(action) };
  const isFine = [steps.video, steps.action].every((value) => value >= 1 && value <= STEPS_MAX);
  if (!isFine) throw new InvalidArgumentError(`Expected two whole numbers of 1 .. ${STEPS_MAX}, video/action, such as 5/10.`);
  return steps;
}

function parseServer(text: string): string {
  if (SERVER_URL.test(text)) return text;
  throw new InvalidArgumentError('Expected ws://HOST:PORT or wss://HOST:PORT.');
}

const examples = `
Examples:
  premotor run robots/sim-tabletop.yaml
  premotor run robots/sim-tabletop.yaml --task push --seed 3 --steps 3/5
  premotor run robots/sim-tabletop.yaml --task push --seed 3 --steps 3/5 --resume
  premotor run robots/sim-tabletop.yaml --pace real --stay
  premotor run robots/sim-tabletop.yaml --record full
  premotor run robots/hil-tabletop.yaml
  premotor run robots/sim-tabletop.yaml --policy ws://127.0.0.1:29536
  premotor config example > my-robot.yaml

Ctrl-C is a controlled stop: the arm decelerates, holds, and the summary follows. A second one ends the process at once.
Exit codes: 0 the task was done, or nobody judges it and the episode ran to its end; 1 failed, 2 wrong command line, 3 it ran but the task was not
done, 130 interrupted.`;

export function paceOption(): Option {
  return new Option('--pace <pace>', "the simulated robot's clock: virtual, or real, for watching").choices(['virtual', 'real']);
}

export function stayOption(): Option {
  return new Option('--stay', 'keep the status page after the episode, until interrupted').default(false);
}

/** Adds `premotor run` to the program. */
export function registerRun(program: Command, context: CliContext): void {
  program
    .command('run')
    .description('run one episode on the robot of a configuration')
    .argument('<config>', 'robot configuration, a YAML file (docs/CONFIG.md)')
    .addOption(new Option('--task <name>', 'another task than the configured one').choices([...TASK_NAMES]))
    .option('--seed <n>', "seed of the scene, and of the policy's noise unless that has its own", whole(0, SEED_MAX))
    .option('--chunks <n>', 'end after so many action chunks', whole(1, CHUNKS_MAX))
    .option('--steps <video/action>', 'denoising steps, such as 5/10', parseSteps)
    .addOption(precisionOption('how weights are held'))
    .addOption(kvCacheOption('how cached keys and values are held'))
    .option('--plan <file>', 'plan of the checkpoint (premotor build)')
    .addOption(uncertifiedOption())
    .option('--policy <url>', 'a policy server, ws://HOST:PORT, instead of the configured policy (docs/SERVER.md)', parseServer)
    .option('--token-file <file>', 'holds the token that the policy server asks for')
    .option('--out <dir>', 'folder for the animated picture')
    .addOption(
      new Option('--record <mode>', 'flight recorder: the whole episode, the seconds before a fault, or nothing').choices(['full', 'window', 'off']),
    )
    .option('--resume [dir]', 'go on with an interrupted episode: the newest of this configuration, or the journal in a folder')
    .addOption(paceOption())
    .addOption(stayOption())
    .option('--json', 'print the summary as JSON', false)
    .addHelpText('after', examples)
    .action((file: string, options: RunOptions) => runRun(file, options, context));
}
