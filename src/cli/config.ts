/**
 * `premotor config`: checks robot configurations and prints a commented one to start from. Owned by the command line; it opens no robot and loads no
 * checkpoint.
 */
import { readFile } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import { ConfigError, type ConfigProblem, type LoadedConfig, readRobotConfig, showProblem } from '../config/reader.js';
import { concerns, ROBOT_TYPES } from '../config/robot.js';
import { configKeys, type RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import { checkJob, jobNeeds } from '../runtime/job-needs.js';
import { VOCABULARY } from '../runtime/rig.js';
import { type CliContext, FoundProblems, printResult } from './context.js';
import { descriptionProblems } from './robot-descriptions.js';

/** The commented example of each robot type, in the package. */
const EXAMPLES: Readonly<Record<(typeof ROBOT_TYPES)[number], URL>> = {
  sim: new URL('../../robots/sim-tabletop.yaml', import.meta.url),
  can: new URL('../../robots/example-can.yaml', import.meta.url),
};

interface FileCheck {
  readonly file: string;
  readonly ok: boolean;
  readonly problems: readonly ConfigProblem[];
  readonly config?: RobotConfig;
  /** Keys that the file leaves to their defaults. */
  readonly defaults?: readonly string[];
}

/** A job that cannot be used, or that the robot does not fit. */
function jobProblem(loaded: LoadedConfig, { code, field = '', expected = '', found = '', message }: PremotorError): ConfigProblem {
  const isRobots = code === 'CAMERA_MISSING' || code === 'CONTROL_JOINTS';
  return isRobots ? loaded.problemAt(field, expected, found) : loaded.problemAt('policy.job', 'a usable job', message);
}

/** Checks one file, the job that it names or holds, whether a robot on a bus has what that needs, and its robot descriptions. */
async function checkFile(file: string): Promise<FileCheck> {
  let loaded: LoadedConfig;
  try {
    loaded = await readRobotConfig(file, VOCABULARY);
  } catch (error) {
    if (error instanceof ConfigError) return { file, ok: false, problems: error.problems };
    if (!(error instanceof PremotorError)) throw error;
    const { expected = '', found = '' } = error;
    return { file, ok: false, problems: [{ file, line: 1, column: 1, key: '', expected, found }] };
  }
  const { config, defaults } = loaded;
  try {
    checkJob(config, await jobNeeds(config));
  } catch (error) {
    if (!(error instanceof PremotorError)) throw error;
    return { file, ok: false, problems: [jobProblem(loaded, error)] };
  }
  const problems = descriptionProblems(loaded);
  return { file, ok: problems.length === 0, problems, config, defaults };
}

/** The resolved configuration as lines of `key: value`, defaults marked. */
function resolvedText({ config, defaults = [] }: FileCheck): string[] {
  const value = (path: string): unknown => path.split('.').reduce<unknown>((at, part) => (at as Record<string, unknown> | undefined)?.[part], config);
  const lines = configKeys()
    .filter(({ path }) => !path.includes('<') && concerns(config?.robot.type ?? 'sim', path))
    .map(({ path, fallback }): [string, string] => {
      const found = value(path);
      const shown = found === undefined ? `(${(fallback ?? '').replaceAll('`', '')})` : JSON.stringify(found);
      return [path, `${shown}${defaults.includes(path) ? '  # default' : ''}`];
    });
  const named = (section: string, entries: Readonly<Record<string, unknown>> = {}): [string, string][] =>
    Object.entries(entries).map(([name, entry]) => [`${section}.${name}`, JSON.stringify(entry)]);
  const { robot, control } = config ?? {};
  const all = [...lines, ...named('robot.joints', robot?.joints), ...named('robot.workspaces', robot?.workspaces)];
  all.push(...named('control.limits', control?.limits));
  const width = Math.max(...all.map(([path]) => path.length));
  return all.map(([path, shown]) => `  ${path.padEnd(width)}  ${shown}`);
}

function textOf(check: FileCheck): string {
  if (check.ok) return [`${check.file}: ok`, ...resolvedText(check)].join('\n');
  const count = check.problems.length;
  return [`${check.file}: ${count} ${count === 1 ? 'problem' : 'problems'}`, ...check.problems.map((problem) => `  ${showProblem(problem)}`)].join(
    '\n',
  );
}

/** Runs `config check`; rejects with FoundProblems after printing when there are problems. */
export async function runConfigCheck(files: readonly string[], options: { readonly json: boolean }, context: CliContext): Promise<void> {
  const checks: FileCheck[] = [];
  for (const file of files) checks.push(await checkFile(file));
  printResult(context, options.json, { files: checks }, () => checks.map(textOf).join('\n\n'));
  if (checks.some(({ ok }) => !ok)) throw new FoundProblems();
}

/** Adds `premotor config` and its subcommands to the program. */
export function registerConfig(program: Command, context: CliContext): void {
  const config = program.command('config').description('robot configurations: check them, or print an example');
  config
    .command('check')
    .description('print what a configuration means with its defaults, or everything that is wrong with it')
    .argument('<file...>', 'robot configurations, YAML files')
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', '\nExamples:\n  premotor config check robots/sim-tabletop.yaml\n  premotor config check robots/*.yaml --json\n')
    .action((files: string[], options: { json: boolean }) => runConfigCheck(files, options, context));
  config
    .command('example')
    .description('print a commented configuration to start from')
    .addOption(new Option('--type <name>', 'the robot type').choices([...ROBOT_TYPES]).default('sim'))
    .addHelpText('after', '\nExamples:\n  premotor config example > my-robot.yaml\n')
    .action(async ({ type }: { type: (typeof ROBOT_TYPES)[number] }) => void context.out.write(await readFile(EXAMPLES[type], 'utf8')));
}
