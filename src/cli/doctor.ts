/**
 * `premotor doctor`: what this machine has for running a robot, one line each, with what to do about what is absent; with a configuration, whether it
 * has what that names, and then it fails where something is missing. Owned by the command line; it changes nothing and opens no device.
 */
import { availableParallelism, cpus } from 'node:os';
import type { Command } from 'commander';
import { ConfigError, readRobotConfig, showProblem } from '../config/reader.js';
import { PremotorError } from '../errors.js';
import { streamProgram } from '../native.js';
import { VOCABULARY } from '../runtime/rig.js';
import type { CliContext } from './context.js';
import { FoundProblems, printResult, reportOf } from './context.js';
import {
  type Finding,
  type Level,
  probeBoard,
  probeCameras,
  probeCan,
  probeFeatures,
  probeGpu,
  probeKernel,
  probeLockedMemory,
  probeMemory,
  probeRealtime,
  probeSerial,
  SystemFiles,
} from './probes.js';
import { examineRobot } from './robot-probes.js';

const NODE_MAJOR_MIN = 20;

export interface DoctorOptions {
  readonly config?: string;
  readonly json: boolean;
}

/** All findings in the order of the report. */
export function examine(context: Pick<CliContext, 'loadNative'>, files = new SystemFiles()): Finding[] {
  return [
    probeNode(process.versions.node),
    probeAddon(context),
    probeBoard(files),
    probeFeatures(files),
    probeCores(availableParallelism(), cpus().length),
    probeMemory(files),
    probeGpu(files),
    probeKernel(files),
    probeRealtime(files),
    probeLockedMemory(files),
    probeCan(files),
    probeSerial(files),
    probeCameras(files),
  ];
}

function probeNode(version: string): Finding {
  const name = 'Node.js';
  if (Number(version.split('.')[0]) >= NODE_MAJOR_MIN) return { name, level: 'ok', found: version };
  return { name, level: 'missing', found: version, advice: `Install Node.js ${NODE_MAJOR_MIN} or newer.` };
}

/** Loads the addon, which is the one check that runs code of ours. */
function probeAddon({ loadNative }: Pick<CliContext, 'loadNative'>): Finding {
  const name = 'engine';
  try {
    const { name: backend, features } = loadNative().cpu();
    return { name, level: 'ok', found: `addon loads; backend ${backend}${features.length > 0 ? ` (${features.join(', ')})` : ''}` };
  } catch (error) {
    const { code, message } = reportOf(error);
    // The first sentence says what is wrong; the rest is the advice below.
    return {
      name,
      level: 'missing',
      found: `${code}: ${message.split('. ')[0]}`,
      advice: 'Run "npm run build:native" (needs a C++20 compiler and CMake).',
    };
  }
}

function probeCores(usable: number, all: number): Finding {
  const name = 'cores';
  const found = usable === all ? `${all}` : `${usable} of ${all} usable`;
  if (usable >= 4) return { name, level: 'ok', found };
  return {
    name,
    level: 'warn',
    found,
    advice: 'A robot wants 4 or more: one for the setpoint stream, one for the supervisor, the rest for the engine.',
  };
}

const marks: Readonly<Record<Level, string>> = { ok: 'ok     ', warn: 'warn   ', missing: 'missing' };

function textOf(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.flatMap(({ name, level, found, advice }) => {
    const line = `${marks[level]}  ${name.padEnd(width)}  ${found}`;
    return advice === undefined ? [line] : [line, `${' '.repeat(11 + width)}${advice}`];
  });
  const count = (level: Level): number => findings.filter((finding) => finding.level === level).length;
  return [...lines, '', `${count('ok')} ok, ${count('warn')} to look at, ${count('missing')} missing`].join('\n');
}

/** Without these no robot of any configuration starts. */
const ALWAYS_NEEDED: readonly string[] = ['Node.js', 'engine'];

/** What a configuration needs of this machine, the configuration itself first. */
export async function examineConfig(file: string, machine: readonly Finding[], files = new SystemFiles()): Promise<Finding[]> {
  const needed = machine.filter(({ name }) => ALWAYS_NEEDED.includes(name));
  try {
    const { config } = await readRobotConfig(file, VOCABULARY);
    return [...needed, { name: 'configuration', level: 'ok', found: file }, ...(await examineRobot(config, files, streamProgram))];
  } catch (error) {
    if (!(error instanceof PremotorError)) throw error;
    const problems = error instanceof ConfigError ? error.problems.map(showProblem) : [error.message];
    const advice = `Correct it; premotor config check ${file} lists everything.`;
    return [...needed, { name: 'configuration', level: 'missing', found: problems[0] ?? error.message, advice }];
  }
}

/** Errors: FoundProblems after printing, when the configuration needs something that is missing. */
export async function runDoctor({ config: file, json }: DoctorOptions, context: CliContext): Promise<void> {
  const findings = examine(context);
  if (file === undefined) return printResult(context, json, { findings }, () => textOf(findings));
  const needs = await examineConfig(file, findings);
  const ok = needs.every(({ level }) => level !== 'missing');
  const verdict = ok ? 'The robot can start.' : 'The robot cannot start: see what is missing.';
  printResult(context, json, { file, ok, findings: needs, machine: findings }, () => `${textOf(needs)}\n${verdict}`);
  if (!ok) throw new FoundProblems();
}

const examples = `
Examples:
  premotor doctor
  premotor doctor --config robots/hil-tabletop.yaml
  premotor doctor --json

Without a configuration nothing is fatal: what is missing only limits what this machine can do, and the exit code is 0.
With --config only what that robot needs is shown. Exit codes: 0 the robot can start, 1 something is missing.`;

/** Adds `premotor doctor` to the program. */
export function registerDoctor(program: Command, context: CliContext): void {
  program
    .command('doctor')
    .description('check what this machine has: CPU, GPU, memory, real-time rights, buses, cameras')
    .option('--config <file>', 'whether this machine has what a robot configuration needs')
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((options: DoctorOptions) => runDoctor(options, context));
}
