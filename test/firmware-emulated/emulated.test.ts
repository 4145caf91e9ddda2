/**
 * The firmware as it is built for a Cortex-M7, running in QEMU, against two hosts: our own bus and frames (host.cpp), and python-can (listen.py). Run
 * by `npm run test:firmware`; skipped, with the reason, in any other run and where a tool is missing.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const built = join(root, 'build', 'firmware', 'mps2_an500');
const bootLoader = join(built, 'mps2_an500-boot.elf');
const image = join(built, 'mps2_an500-a.img');
/** Where slot A begins (firmware-bridge/board/mps2_an500/link.ld). */
const slotA = '0x10000';
const host = join(process.env['PREMOTOR_NATIVE_TESTS'] ?? join(root, 'build', 'tests', 'bin'), 'firmware_emulated_host');
const emulator = 'qemu-system-arm';
const python = process.env['PREMOTOR_PYTHON'] ?? 'python3';

const works = (command: string, args: readonly string[]): boolean => spawnSync(command, args, { encoding: 'utf8' }).status === 0;

/** Why the whole file cannot run, if it cannot. */
function obstacle(): string | undefined {
  if (process.env['PREMOTOR_FIRMWARE_TESTS'] === undefined) return 'npm run test:firmware runs this';
  if (!works(emulator, ['--version'])) return `${emulator} is not installed (Debian package qemu-system-arm)`;
  if (!existsSync(image)) return 'the firmware was not built (Debian packages gcc-arm-none-eabi, libnewlib-arm-none-eabi)';
  return undefined;
}

/**
 * Starts the emulated board; its three serial lines. Its clock counts instructions at 1 ns each: a machine that stalls stalls the firmware's time
 * with it.
 */
async function startBoard(): Promise<{ readonly board: ChildProcess; readonly lines: readonly string[] }> {
  const quiet = ['-M', 'mps2-an500', '-display', 'none', '-monitor', 'none', '-nic', 'none', '-icount', 'shift=0'];
  const serial = ['-serial', 'pty', '-serial', 'pty', '-serial', 'pty'];
  const slot = `loader,file=${image},addr=${slotA},force-raw=on`;
  const board = spawn(emulator, [...quiet, ...serial, '-kernel', bootLoader, '-device', slot], { stdio: ['ignore', 'pipe', 'pipe'] });
  const lines: string[] = [];
  const seen: string[] = [];
  for await (const line of createInterface({ input: board.stdout })) {
    seen.push(line);
    const path = /\/dev\/pts\/\d+/.exec(line)?.[0];
    if (path !== undefined) lines.push(path);
    if (lines.length === 3) return { board, lines };
  }
  throw new Error(`${emulator} named ${lines.length} serial lines, expected 3: ${seen.join(' | ')}`);
}

const reason = obstacle();
if (reason !== undefined) t.pass('emulated firmware', { skip: reason });
else {
  t.test('our host', async (t) => {
    const { board, lines } = await startBoard();
    t.teardown(() => board.kill('SIGKILL'));
    await t.spawn(host, [lines[0] ?? '', lines[2] ?? ''], {}, 'premotor');
  });
  t.test('another host', async (t) => {
    if (!works(python, ['-c', 'import can, serial'])) {
      t.pass('python-can', { skip: `${python} has no python-can with pyserial (Debian packages python3-can, python3-serial)` });
      return;
    }
    const { board, lines } = await startBoard();
    t.teardown(() => board.kill('SIGKILL'));
    await t.spawn(python, [join(here, 'listen.py'), lines[0] ?? ''], {}, 'python-can');
  });
}
