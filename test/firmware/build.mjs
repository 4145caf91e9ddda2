/**
 * Builds and runs the firmware bridge's host tests with other flags than the product's: for coverage and for mutation. Objects of the tests and of
 * the protocol are kept between runs of one folder; only firmware-bridge is compiled anew.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
/** Without the fuzz: what it covers by chance is no test of a line. */
export const tests = [
  'bridge_state_test',
  'bridge_faults_test',
  'bridge_frozen_test',
  'bridge_commands_test',
  'bridge_limits_test',
  'bridge_setpoints_test',
  'bridge_damiao_test',
  'bridge_damiao_adapter_test',
  'bridge_loop_test',
  'bridge_update_test',
  'bridge_slots_test',
  'slcan_port_test',
];
/** What the tests need beside the firmware and does not change: frames and codecs, the simulated motors and their wires. */
const beside = [
  'protocol/frames.c',
  'protocol/motor/damiao.c',
  ...['bus', 'device', 'damiao_device', 'slcan_codec', 'virtual_bus'].map((name) => `cpp/can/${name}.cpp`),
];
const common = ['-g', '-Wall', '-Wextra', `-I${root}`, `-I${join(root, 'cpp')}`, `-I${join(root, 'test', 'cpp')}`];

/** Runs a command in the root; its standard output, or an error with what it printed. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28, ...options });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.error ?? ''}${result.stderr}${result.stdout}`);
  return result.stdout;
}

export const has = (command) => spawnSync(command, ['--version']).status === 0;

function isOlder(object, sources) {
  return !existsSync(object) || sources.some((source) => statSync(source).mtimeMs > statSync(object).mtimeMs);
}

const objectOf = (folder, source) => join(folder, `${basename(source).replace(/\.c(pp)?$/, '')}${source.includes('motor') ? '.codec' : ''}.o`);

/** The objects that stay: tests and protocol. `folder` is absolute. */
export function buildFixed(folder) {
  mkdirSync(folder, { recursive: true });
  const headers = ['protocol', 'protocol/motor', 'firmware-bridge', 'firmware-bridge/drives', 'firmware-bridge/board', 'test/cpp', 'cpp/can'].flatMap(
    (name) =>
      readdirSync(join(root, name))
        .filter((file) => file.endsWith('.h'))
        .map((file) => join(root, name, file)),
  );
  for (const source of [...beside, ...tests.map((test) => `test/cpp/${test}.cpp`)]) {
    const object = objectOf(folder, source);
    const [compiler, standard] = source.endsWith('.c') ? ['gcc', 'c11'] : ['g++', 'c++20'];
    if (isOlder(object, [join(root, source), ...headers])) run(compiler, [`-std=${standard}`, '-O1', ...common, '-c', source, '-o', object]);
  }
}

/** Paths below firmware-bridge of what runs on any board. */
export const firmwareSources = () => [
  ...['', 'drives/'].flatMap((folder) =>
    readdirSync(join(root, 'firmware-bridge', folder))
      .filter((file) => file.endsWith('.c'))
      .map((file) => `${folder}${file}`),
  ),
  'board/loop.c',
  'board/slcan_port.c',
];

/** Compiles one firmware source; `path` may be a changed copy of it. */
export function compile(folder, name, flags, path = join('firmware-bridge', name)) {
  run('gcc', ['-std=c11', ...common, ...flags, '-c', path, '-o', join(folder, `${basename(name, '.c')}.fw.o`)]);
}

/** Links one test program; returns its path. */
export function link(folder, test, flags) {
  const program = join(folder, test);
  const objects = firmwareSources().map((file) => join(folder, `${basename(file, '.c')}.fw.o`));
  // An archive, because only the loop's test has a board for the loop.
  const archive = join(folder, 'firmware.a');
  run('ar', ['crs', archive, ...objects]);
  const fixed = [`test/cpp/${test}.cpp`, ...beside].map((source) => objectOf(folder, source));
  run('g++', [...fixed, archive, ...flags, '-lm', '-o', program]);
  return program;
}
