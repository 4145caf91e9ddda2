/**
 * The plain Debian tree below an image: a tar that mmdebstrap makes once for equal inputs and that is kept, because it takes minutes and needs a
 * mirror. Owned by the image builder. It writes into the cache folder only; a tar appears there complete or not at all.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { emulated } from './emulation.js';
import { HookFiles } from './hook-files.js';
import type { Arch } from './layout.js';
import { checkRecord, linesOf, readPackages, readRecord, recordPath } from './packages.js';
import { runTool } from './tools.js';

export const SUITE = 'bookworm';

/** Recommends and documents stay out; copyright files stay, as their licences ask. */
const aptOptions = ['Apt::Install-Recommends "false"', 'Acquire::Languages "none"'];
const dpkgOptions = [
  'path-exclude=/usr/share/doc/*',
  'path-include=/usr/share/doc/*/copyright',
  'path-exclude=/usr/share/man/*',
  'path-exclude=/usr/share/locale/*',
  'path-exclude=/usr/share/info/*',
  'path-exclude=/usr/share/lintian/*',
];
/** The first file system is made once, at the end, when premotor's hooks are in place. */
const holdInitramfs = { INITRD: 'No' };
const listPackages = (file: string): string => `chroot "$1" dpkg-query -W -f '\${Package}=\${Version}\\n' | sort >${JSON.stringify(file)}`;

export interface BaseInputs {
  readonly arch: Arch;
  /** deploy/image. */
  readonly files: string;
  readonly cacheDir: string;
  readonly epoch: number;
  readonly acceptPackages: boolean;
  readonly signal?: AbortSignal;
  /** Lines of mmdebstrap, for progress. */
  readonly onLine?: (line: string) => void;
}

export interface Base {
  readonly tar: string;
  readonly hash: string;
  readonly packages: readonly string[];
  readonly isCached: boolean;
}

/** Steps that mmdebstrap announces with "I: ". */
export const BASE_STEPS = 8;

/** The name of the tar for these inputs. The epoch is not part of it: the second stage sets the times of all files. */
export function baseHash(arch: Arch, packages: readonly string[], record: readonly string[]): string {
  const text = JSON.stringify([SUITE, arch, packages, record, aptOptions, dpkgOptions, holdInitramfs]);
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** Makes the tree, or takes the one that is kept. Errors: IMAGE_TOOL_FAILED, IMAGE_PACKAGES_CHANGED. */
export async function makeBase(inputs: BaseInputs): Promise<Base> {
  const { arch, files, cacheDir, epoch, acceptPackages, signal, onLine } = inputs;
  const wanted = readPackages(files, arch);
  const record = acceptPackages ? undefined : readRecord(files, arch);
  mkdirSync(cacheDir, { recursive: true });
  if (record !== undefined) {
    const hash = baseHash(arch, wanted, record);
    const tar = join(cacheDir, `base-${arch}-${hash}.tar`);
    if (existsSync(tar)) return { tar, hash, packages: record, isCached: true };
  }
  const part = join(cacheDir, `base-${arch}-${process.pid}.part.tar`);
  const list = `${part}.packages`;
  const hooks = new HookFiles();
  try {
    const args = ['--variant=minbase', `--architectures=${arch}`, `--include=${wanted.join(',')}`, '--format=tar', '--skip=check/qemu'];
    args.push(...aptOptions.map((option) => `--aptopt=${option}`), ...dpkgOptions.map((option) => `--dpkgopt=${option}`));
    args.push(`--customize-hook=${listPackages(hooks.write(list))}`, SUITE, part);
    await runTool(...emulated(arch, 'mmdebstrap', args), {
      env: { ...holdInitramfs, SOURCE_DATE_EPOCH: String(epoch) },
      ...(signal === undefined ? {} : { signal }),
      ...(onLine === undefined ? {} : { onLine }),
    });
    hooks.collect();
    const packages = linesOf(readFileSync(list, 'utf8'));
    if (record === undefined) writeRecord(files, arch, packages);
    else checkRecord(record, packages, recordPath(files, arch));
    const hash = baseHash(arch, wanted, packages);
    const tar = join(cacheDir, `base-${arch}-${hash}.tar`);
    renameSync(part, tar);
    return { tar, hash, packages, isCached: false };
  } finally {
    hooks.close();
    rmSync(part, { force: true });
    rmSync(list, { force: true });
  }
}

function writeRecord(files: string, arch: Arch, packages: readonly string[]): void {
  const header = `# Every Debian package of the ${arch} image with its version, recorded by premotor image build, which refuses others.\n`;
  writeFileSync(recordPath(files, arch), `${header}${packages.join('\n')}\n`);
}
