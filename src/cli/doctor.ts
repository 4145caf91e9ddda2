/**
 * `premotor doctor`: what this machine has for running a robot, one line each, with what to do about what is absent. Owned by the command line; it
 * changes nothing and opens no device.
 */
import { availableParallelism, cpus } from 'node:os';
import type { Command } from 'commander';
import type { CliContext } from './context.js';
import { printResult, reportOf } from './context.js';
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

const NODE_MAJOR_MIN = 20;

export interface DoctorOptions {
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

const examples = `
Examples:
  premotor doctor
  premotor doctor --json

Nothing here is fatal: what is missing only limits what this machine can do. Exit code 0 unless the report itself fails.`;

/** Adds `premotor doctor` to the program. */
export function registerDoctor(program: Command, context: CliContext): void {
  program
    .command('doctor')
    .description('check what this machine has: CPU, GPU, memory, real-time rights, buses, cameras')
    .option('--json', 'print the result as JSON', false)
    .addHelpText('after', examples)
    .action((options: DoctorOptions) => {
      const findings = examine(context);
      printResult(context, options.json, { findings }, () => textOf(findings));
    });
}
