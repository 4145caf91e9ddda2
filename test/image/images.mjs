/**
 * The images that the scenarios boot: built by the product's own command, with the test's key, and kept in build/image/ while their inputs stay the
 * same (the command caches the slow parts). The robot is hardware in the loop, with the patience that an emulated machine needs. Owned by `npm run
 * test:image`.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseDocument } from 'yaml';

const root = fileURLToPath(new URL('../..', import.meta.url));
const emulated = join(root, 'test', 'image', 'emulated');

/** In a guest that is not paced (guest.mjs) no time means anything; what takes milliseconds on a robot takes seconds there. */
const patience = [
  ['robot.stream.gap_ms', 10_000],
  ['robot.stream.planner_grace_ms', 10_000],
  ['robot.stream.feedback_age_ms', 10_000],
  ['robot.stream.lost_ms', 10_000],
  ['cameras.frame_rate_hz', 1],
  ['cameras.frame_age_max_ms', 30_000],
  ['cameras.frame_skew_max_ms', 30_000],
  ['policy.threads', 1],
];

/** A paced guest keeps the stream's and the bridge's own times; only pictures are slow to draw on such a processor. */
const slowPictures = [
  ['cameras.frame_rate_hz', 2],
  ['cameras.frame_age_max_ms', 3000],
  ['cameras.frame_skew_max_ms', 3000],
  // Emulated floating point is ten times slower still; a pass must take less than the second in which the robot wants a sign of life.
  ['policy.precision', 'int8'],
  ['policy.video_steps', 1],
  ['policy.action_steps', 2],
  // What else takes the supervisor's time on so slow a processor.
  ['recording.recorder.mode', 'off'],
  ['recording.animation', false],
  ['recording.replay', false],
];

/** The configuration of hardware in the loop for an emulated machine; `changes` are [path, value]. Returns the file. */
export function writeRobot(folder, changes = [], { isPaced = false } = {}) {
  mkdirSync(folder, { recursive: true });
  const document = parseDocument(readFileSync(join(root, 'robots', 'hil-tabletop.yaml'), 'utf8'));
  const model = join(root, 'models', 'tabletop');
  for (const [path, value] of [['policy.checkpoint_dir', model], ...(isPaced ? slowPictures : patience), ...changes])
    document.setIn(path.split('.'), value);
  const file = join(folder, 'robot.yaml');
  writeFileSync(file, String(document));
  return file;
}

/** A simulated robot in virtual time: for what has nothing to do with motors, at a fraction of the work. Returns the file. */
export function writeLightRobot(folder, changes = []) {
  mkdirSync(folder, { recursive: true });
  const document = parseDocument(readFileSync(join(root, 'robots', 'sim-tabletop.yaml'), 'utf8'));
  const light = [
    ['robot.pace', 'virtual'],
    ['policy.checkpoint_dir', join(root, 'models', 'tabletop')],
    ['policy.threads', 1],
    ['dashboard.enabled', false],
  ];
  for (const [path, value] of [...light, ...changes]) document.setIn(path.split('.'), value);
  const file = join(folder, 'light.yaml');
  writeFileSync(file, String(document));
  return file;
}

/** Builds an image and returns its path. Without a package it is the system alone. */
export function buildTestImage({ arch, deb, key, folder, name = 'test', robot = writeRobot(folder), isPaced = false, hasBus = true, extra = [] }) {
  const out = join(folder, `${name}-${arch}.img`);
  const args = [join(root, 'bin', 'premotor.js'), 'image', 'build', '--arch', arch, '--robot', robot, '-o', out];
  args.push('--ssh-key', key.publicKey, '--cache-dir', join(root, 'build', 'image', 'cache'));
  if (isPaced) args.push('--drop-in', `premotor.service=${join(emulated, 'paced.conf')}`);
  else {
    args.push('--drop-in', `premotor.service=${join(emulated, 'supervisor.conf')}`);
    args.push('--drop-in', `premotor-confirm.service=${join(emulated, 'one-cpu.conf')}`);
  }
  if (deb === undefined) args.push('--without-premotor');
  else args.push('--deb', deb);
  // Its bridge is a process of the guest.
  if (deb !== undefined && hasBus) args.push('--enable', 'premotor-sim-bridge.service');
  const { status } = spawnSync(process.execPath, [...args, ...extra], { cwd: root, stdio: ['ignore', 2, 2] });
  if (status !== 0) throw new Error(`the image cannot be built: expected 0, found ${status}`);
  return out;
}
