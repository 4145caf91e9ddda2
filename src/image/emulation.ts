/**
 * Lets a program run another architecture's programs: it is started in a mount namespace of its own, in which the emulator is registered with the
 * kernel's binfmt_misc. The registration ends with the namespace, so nothing of this machine changes. Owned by the image builder.
 */
import { existsSync } from 'node:fs';
import { arch as hostArch } from 'node:os';
import { PremotorError } from '../errors.js';
import type { Arch } from './layout.js';

const EMULATOR = '/usr/bin/qemu-aarch64-static';
/** ELF, 64 bits, little-endian, executable or shared, machine 183. F: the emulator is opened now, so that trees need no copy of it. */
const MAGIC = '\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00';
const MASK = '\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff';

const debianArch: Readonly<Record<string, Arch | undefined>> = { x64: 'amd64', arm64: 'arm64' };

/** printf %s keeps the backslashes: the kernel reads them. An emulator that is registered already is used as it is. */
const register = [
  'mount -t binfmt_misc none /proc/sys/fs/binfmt_misc',
  `if ! grep -qs '^interpreter .*aarch64' /proc/sys/fs/binfmt_misc/*; then`,
  `printf %s ':premotor-aarch64:M::${MAGIC}:${MASK}:${EMULATOR}:F' >/proc/sys/fs/binfmt_misc/register; fi`,
  'exec "$@"',
].join('\n');

export interface Machine {
  readonly arch: string;
  readonly isRoot: boolean;
  readonly hasEmulator: boolean;
}

const thisMachine = (): Machine => ({ arch: hostArch(), isRoot: process.getuid?.() === 0, hasEmulator: existsSync(EMULATOR) });

/** The command line that runs `command` so that programs of `arch` run below it. Errors: IMAGE_EMULATION. */
export function emulated(
  arch: Arch,
  command: string,
  args: readonly string[],
  machine: Machine = thisMachine(),
): readonly [string, readonly string[]] {
  if (debianArch[machine.arch] === arch) return [command, args];
  const expected = `a machine that can run ${arch} programs`;
  const refused = (found: string, advice: string): PremotorError =>
    new PremotorError('IMAGE_EMULATION', `The other architecture's programs cannot run here: expected ${expected}, found ${found}. ${advice}`, {
      expected,
      found,
    });
  if (arch !== 'arm64') throw refused(`a ${machine.arch} machine`, 'Build it on an amd64 machine.');
  if (!machine.hasEmulator) throw refused('no qemu-aarch64-static', 'Install it: apt-get install qemu-user-static.');
  if (!machine.isRoot) throw refused('a user who may not register an emulator', 'Run the build as root.');
  return ['unshare', ['--mount', '--propagation', 'private', 'sh', '-euc', register, 'sh', command, ...args]];
}
