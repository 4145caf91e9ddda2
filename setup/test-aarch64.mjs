/**
 * What `npm test` needs to run the engine's native tests as 64-bit ARM programs on another processor: the cross compiler and the emulator of
 * user programs; as root on a Debian system they are installed. Builds the tests into build/aarch64 (setup/aarch64.cmake). What stays missing
 * is skipped by test/aarch64.test.ts, loudly. On an ARM host nothing is done: there the native tests are ARM programs anyway.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { arch } from 'node:process';
import { ensureNative, root, say } from './steps.mjs';

const works = (command, args = ['--version']) => spawnSync(command, args, { stdio: 'ignore' }).status === 0;

/** Debian and Ubuntu have the statically linked emulator under the first name, their newer releases under both. */
export const emulator = () => ['qemu-aarch64-static', 'qemu-aarch64'].find((command) => works(command));

export const tools = [
  { debian: 'g++-aarch64-linux-gnu', isThere: () => works('aarch64-linux-gnu-g++') },
  { debian: 'qemu-user-static', isThere: () => emulator() !== undefined },
];

/** Debian packages of the tools that this machine lacks. */
export const missing = () => tools.filter(({ isThere }) => !isThere()).map(({ debian }) => debian);

function installMissing() {
  const packages = missing();
  if (packages.length === 0 || process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return;
  say(`installing for the tests on 64-bit ARM: ${packages.join(' ')}`);
  const options = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, stdio: ['ignore', 2, 2] };
  // A failure is no error here: the tests skip what is not there and say so.
  spawnSync('apt-get', ['update', '-qq'], options);
  spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...packages], options);
}

/** Returns the environment of the tests. */
export function ensureAarch64() {
  if (arch === 'arm64') return {};
  installMissing();
  const packages = missing();
  if (packages.length > 0) {
    say(`SKIPPED: no tests on 64-bit ARM, Debian packages ${packages.join(' ')} are missing`);
    return {};
  }
  const definitions = { PREMOTOR_TESTS: 'ON', PREMOTOR_CUDA: 'OFF', CMAKE_TOOLCHAIN_FILE: `${root.replace(/\/$/, '')}/setup/aarch64.cmake` };
  return { PREMOTOR_AARCH64_TESTS: ensureNative('aarch64', definitions, ['engine_tests']) };
}
