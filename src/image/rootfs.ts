/**
 * The read-only root of an image: a plain Debian tree, premotor's files and package, the first file system, packed as a squashfs whose bytes depend
 * on its inputs alone. Owned by the image builder; deploy/image/customise.sh does what has to happen inside the tree.
 */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Base } from './base.js';
import { BASE_STEPS } from './base.js';
import { emulated } from './emulation.js';
import { HookFiles } from './hook-files.js';
import type { Arch } from './layout.js';
import { runTool } from './tools.js';

export interface RootInputs {
  readonly arch: Arch;
  /** deploy/image. */
  readonly files: string;
  readonly cacheDir: string;
  readonly epoch: number;
  readonly base: Base;
  readonly deb?: string;
  readonly fleetCa?: string;
  readonly isDebugConsole: boolean;
  readonly signal?: AbortSignal;
  readonly onStep?: (done: number, total: number) => void;
}

export interface Root {
  readonly squashfs: string;
  /** The boot loader's modules, as a tar. */
  readonly grubTar: string;
  readonly hash: string;
  readonly isCached: boolean;
}

/** SHA-256 of a file, in hexadecimal. */
export async function fileHash(path: string, onBytes?: (bytes: number) => void): Promise<string> {
  const hash = createHash('sha256');
  let read = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 22 })) {
    hash.update(chunk as Buffer);
    read += (chunk as Buffer).length;
    onBytes?.(read);
  }
  return hash.digest('hex');
}

/** A hash over names, modes and contents of a folder, in an order that no file system decides. */
export function folderHash(folder: string): string {
  const hash = createHash('sha256');
  const walk = (path: string, name: string): void => {
    const { mode } = statSync(path);
    if (!statSync(path).isDirectory()) {
      const content = readFileSync(path);
      hash.update(`${name}\0${(mode & 0o111) === 0 ? 'file' : 'program'}\0${content.length}\0`).update(content);
      return;
    }
    for (const entry of readdirSync(path).sort()) walk(join(path, entry), name === '' ? entry : `${name}/${entry}`);
  };
  walk(folder, '');
  return hash.digest('hex');
}

async function rootHash(inputs: RootInputs): Promise<string> {
  const { files, base, deb, fleetCa } = inputs;
  const parts = [
    base.hash,
    PACKING,
    inputs.arch,
    inputs.epoch,
    inputs.isDebugConsole,
    folderHash(files),
    deb === undefined ? '' : await fileHash(deb),
    fleetCa === undefined ? '' : await fileHash(fleetCa),
  ];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}

/** Makes the root, or takes the one that is kept for equal inputs. Errors: IMAGE_TOOL_FAILED, ABORTED. */
export async function makeRoot(inputs: RootInputs): Promise<Root> {
  const { cacheDir, arch, onStep = () => undefined } = inputs;
  mkdirSync(cacheDir, { recursive: true });
  const hash = await rootHash(inputs);
  const [squashfs, grubTar] = [join(cacheDir, `root-${arch}-${hash}.squashfs`), join(cacheDir, `grub-${arch}-${hash}.tar`)];
  if (existsSync(squashfs) && existsSync(grubTar)) return { squashfs, grubTar, hash, isCached: true };
  const part = join(cacheDir, `root-${arch}-${process.pid}.part`);
  const total = BASE_STEPS + 1;
  let done = 0;
  const hooks = new HookFiles();
  try {
    const seen = seenByHooks(inputs, hooks);
    await runTool(...emulated(arch, 'mmdebstrap', customiseArgs(seen, `${part}.tar`)), {
      env: environment(seen, hooks.write(`${part}.grub.tar`)),
      ...(inputs.signal === undefined ? {} : { signal: inputs.signal }),
      onLine: (line) => {
        if (line.startsWith('I: ') && done < total - 1) onStep(++done, total);
      },
    });
    hooks.collect();
    await pack(inputs, `${part}.tar`, `${part}.squashfs`);
    renameSync(`${part}.grub.tar`, grubTar);
    renameSync(`${part}.squashfs`, squashfs);
    onStep(total, total);
    return { squashfs, grubTar, hash, isCached: false };
  } finally {
    hooks.close();
    for (const end of ['.tar', '.grub.tar', '.squashfs']) rmSync(`${part}${end}`, { force: true });
  }
}

/** The inputs with the paths that hooks can read. */
function seenByHooks(inputs: RootInputs, hooks: HookFiles): RootInputs {
  const { files, base, deb, fleetCa } = inputs;
  return {
    ...inputs,
    files: hooks.read(files),
    base: { ...base, tar: hooks.read(base.tar) },
    ...(deb === undefined ? {} : { deb: hooks.read(deb) }),
    ...(fleetCa === undefined ? {} : { fleetCa: hooks.read(fleetCa) }),
  };
}

function environment({ files, arch, deb, fleetCa, isDebugConsole, epoch }: RootInputs, grubTar: string): Readonly<Record<string, string>> {
  return {
    SOURCE_DATE_EPOCH: String(epoch),
    PREMOTOR_FILES: files,
    PREMOTOR_ARCH: arch,
    PREMOTOR_DEB: deb ?? '',
    PREMOTOR_FLEET_CA: fleetCa ?? '',
    PREMOTOR_GRUB_TAR: grubTar,
    PREMOTOR_DEBUG: isDebugConsole ? '1' : '0',
  };
}

function customiseArgs({ arch, files, base }: RootInputs, out: string): readonly string[] {
  const unpack = `mmtarfilter "--path-exclude=/dev/*" <${JSON.stringify(base.tar)} | tar -C "$1" -x --xattrs --xattrs-include='*' --numeric-owner`;
  return [
    '--variant=custom',
    `--architectures=${arch}`,
    '--skip=update,cleanup,check/qemu',
    '--format=tar',
    `--setup-hook=${unpack}`,
    `--customize-hook=sh ${JSON.stringify(join(files, 'customise.sh'))} "$1"`,
    '',
    out,
  ];
}

/**
 * gzip: the boot loader reads it without needing seconds for the kernel. A tar says nothing about the topmost folder, which would be writable by all;
 * it belongs to whoever packs (the option for that has no effect with a tar), so that has to be root, or look like it.
 */
const PACKING = ['-tar', '-comp', 'gzip', '-Xcompression-level', '6', '-b', '256K', '-reproducible', '-no-progress', '-root-mode', '0755'];

/** The packer refuses its options of times beside SOURCE_DATE_EPOCH. */
async function pack({ epoch, signal }: RootInputs, tar: string, out: string): Promise<void> {
  const args = ['-', out, ...PACKING, '-mkfs-time', String(epoch), '-all-time', String(epoch)];
  const isRoot = process.getuid?.() === 0;
  await runTool(isRoot ? 'mksquashfs' : 'fakeroot', isRoot ? args : ['mksquashfs', ...args], {
    input: tar,
    env: { SOURCE_DATE_EPOCH: undefined },
    ...(signal === undefined ? {} : { signal }),
  });
}
