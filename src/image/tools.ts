/**
 * Programs that do the work of an image: started without a shell, bounded in output, ended when the caller aborts, and named with their Debian
 * package when they are missing. Owned by the image builder; nothing here knows what an image is.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { PremotorError } from '../errors.js';

/** Program -> Debian package that has it. */
export const debianPackages: Readonly<Record<string, string>> = {
  mmdebstrap: 'mmdebstrap',
  mmtarfilter: 'mmdebstrap',
  mksquashfs: 'squashfs-tools',
  sgdisk: 'gdisk',
  'mkfs.vfat': 'dosfstools',
  mcopy: 'mtools',
  mmd: 'mtools',
  debugfs: 'e2fsprogs',
  mke2fs: 'e2fsprogs',
  'grub-mkimage': 'grub-common',
  'grub-editenv': 'grub-common',
  'qemu-aarch64-static': 'qemu-user-static',
  fakeroot: 'fakeroot',
  newuidmap: 'uidmap',
};

/** Root's programs are not on everybody's path. */
const folders = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
/** The last lines of a program that failed are shown. */
const KEPT_LINES = 12;

export type ToolLookup = (name: string) => boolean;
const isInstalled: ToolLookup = (name) => folders.some((folder) => existsSync(join(folder, name)));

/** Errors: IMAGE_TOOL_MISSING, which names every missing program and the packages to install. */
export function requireTools(names: readonly string[], lookup: ToolLookup = isInstalled): void {
  const missing = names.filter((name) => !lookup(name));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((name) => debianPackages[name] ?? name))].sort();
  const [expected, found] = [`the programs ${names.join(', ')}`, `no ${missing.join(', ')}`];
  throw new PremotorError(
    'IMAGE_TOOL_MISSING',
    `An image needs programs of Debian: expected ${expected}, found ${found}. Install them: apt-get install ${packages.join(' ')}.`,
    { expected, found },
  );
}

export interface ToolOptions {
  readonly signal?: AbortSignal;
  /** Set on top of this process's own; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** A file that is the program's standard input. */
  readonly input?: string;
  /** Each line of either stream, as it comes. */
  readonly onLine?: (line: string) => void;
}

/** Runs a program to its end and returns what it printed. Errors: IMAGE_TOOL_FAILED with its last lines, ABORTED. */
export async function runTool(command: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  const { signal, env = {}, onLine, input } = options;
  signal?.throwIfAborted();
  const stdin = input === undefined ? undefined : openSync(input, 'r');
  // A group of its own: what the program started ends with it.
  const child = spawn(command, [...args], {
    env: { ...process.env, PATH: folders.join(':'), LC_ALL: 'C', ...env },
    stdio: [stdin ?? 'ignore', 'pipe', 'pipe'],
    detached: true,
  });
  if (stdin !== undefined) closeSync(stdin);
  const kept: string[] = [];
  const output: string[] = [];
  if (child.stdout !== null)
    createInterface({ input: child.stdout }).on('line', (line) => {
      output.push(line);
      onLine?.(line);
    });
  if (child.stderr !== null)
    createInterface({ input: child.stderr }).on('line', (line) => {
      kept.push(line);
      if (kept.length > KEPT_LINES) kept.shift();
      onLine?.(line);
    });
  const onAbort = (): void => {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const code = await new Promise<number | string>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (status, end) => resolve(status ?? end ?? 'no status'));
    });
    signal?.throwIfAborted();
    if (code === 0) return output.join('\n');
    throw failed(command, String(code), [...output.slice(-KEPT_LINES), ...kept].slice(-KEPT_LINES));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') requireTools([command], () => false);
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}

function failed(command: string, code: string, lines: readonly string[]): PremotorError {
  const [expected, found] = [`${command} ends with 0`, code];
  return new PremotorError(
    'IMAGE_TOOL_FAILED',
    `A step of the image failed: expected ${expected}, found ${found}. Its last lines:\n${lines.join('\n')}`,
    {
      expected,
      found,
    },
  );
}
