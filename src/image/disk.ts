/**
 * The disk around a root: EFI partition with the boot loader, two slots, data partition. Everything is made in ordinary files and copied to its
 * place, so neither root nor a loop device is needed. Owned by the image builder; it writes into its own work folder and the one output file.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, lutimesSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Arch, derivedUuid, derivedVolumeId, ESP_MIB, type Layout, MIB, partitionOf, sgdiskArgs } from './layout.js';
import { runTool } from './tools.js';

/** The removable path: no firmware variable has to be written on the robot. */
const loaders = {
  amd64: { file: 'BOOTX64.EFI', format: 'x86_64-efi', console: 'console=tty0 console=ttyS0,115200' },
  arm64: { file: 'BOOTAA64.EFI', format: 'arm64-efi', console: 'console=tty0 console=ttyAMA0,115200' },
} as const;

const LOADER_MODULES: readonly string[] = [
  ...[
    'part_gpt',
    'fat',
    'squash4',
    'gzio',
    'xzio',
    'normal',
    'linux',
    'loadenv',
    'configfile',
    'test',
    'echo',
    'regexp',
    'sleep',
    'reboot',
    'serial',
  ],
  ...['minicmd', 'search', 'true', 'terminal'],
];

export interface DiskInputs {
  readonly arch: Arch;
  /** deploy/image. */
  readonly files: string;
  readonly epoch: number;
  readonly identity: string;
  /** A folder of its own for intermediate files. */
  readonly workDir: string;
  readonly signal?: AbortSignal;
}

const envOf = ({ epoch }: DiskInputs): Record<string, string> => ({
  SOURCE_DATE_EPOCH: String(epoch),
  E2FSPROGS_FAKE_TIME: String(epoch),
  TZ: 'UTC',
});
const toolOptions = (inputs: DiskInputs) => ({ env: envOf(inputs), ...(inputs.signal === undefined ? {} : { signal: inputs.signal }) });

function emptyFile(path: string, bytes: number): void {
  writeFileSync(path, '');
  truncateSync(path, bytes);
}

/** The boot loader's memory: slot A first and good, slot B empty until an update fills it. */
const firstMemory = ['ORDER=A B', 'A_OK=1', 'A_TRY=0', 'B_OK=0', 'B_TRY=0'];

/** Makes the EFI partition's file system. Errors: IMAGE_TOOL_FAILED. */
export async function makeEsp(inputs: DiskInputs, grubTar: string): Promise<string> {
  const { arch, files, identity, workDir } = inputs;
  const loader = loaders[arch];
  const tree = join(workDir, 'esp');
  rmSync(tree, { recursive: true, force: true });
  const [bootDir, ownDir] = [join(tree, 'EFI', 'BOOT'), join(tree, 'EFI', 'premotor')];
  for (const folder of [bootDir, ownDir, join(workDir, 'grub')]) mkdirSync(folder, { recursive: true });
  await runTool('tar', ['-C', join(workDir, 'grub'), '-xf', grubTar], toolOptions(inputs));
  const modules = ['-d', join(workDir, 'grub', loader.format), '-O', loader.format, '-p', '/EFI/premotor', '-o', join(bootDir, loader.file)];
  await runTool('grub-mkimage', [...modules, ...LOADER_MODULES], toolOptions(inputs));
  writeFileSync(join(ownDir, 'grub.cfg'), readFileSync(join(files, 'grub.cfg'), 'utf8').replaceAll('@CONSOLE@', loader.console));
  await runTool('grub-editenv', [join(ownDir, 'grubenv'), 'create'], toolOptions(inputs));
  await runTool('grub-editenv', [join(ownDir, 'grubenv'), 'set', ...firstMemory], toolOptions(inputs));
  settle(tree, inputs.epoch);
  const image = join(workDir, 'esp.img');
  emptyFile(image, ESP_MIB * MIB);
  await runTool('mkfs.vfat', ['-F', '32', '-n', 'ESP', '-i', derivedVolumeId(identity), '--invariant', image], toolOptions(inputs));
  await runTool('mcopy', ['-s', '-m', '-i', image, join(tree, 'EFI'), '::/'], toolOptions(inputs));
  return image;
}

/** Gives every entry of a tree the same time, and modes that no umask decides. */
function settle(folder: string, epoch: number): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) settle(path, epoch);
    else if (!entry.isSymbolicLink()) chmodSync(path, 0o644);
    lutimesSync(path, epoch, epoch);
  }
  chmodSync(folder, 0o755);
  lutimesSync(folder, epoch, epoch);
}

/** Copies a tree in the order of its names: the order of creation decides where a file system puts things. */
function copySorted(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) copySorted(source, target);
    else cpSync(source, target, { verbatimSymlinks: true });
  }
}

/** Those of a large file system: the image is small, and the first start makes it as large as the disk. Up to 2 TiB no descriptor moves. */
const BLOCK_BYTES = 4096;
const BYTES_PER_INODE = 16_384;
const GROWS_TO_BLOCKS = 2 ** 41 / BLOCK_BYTES;

/** Makes the data partition's file system from a folder. Errors: IMAGE_TOOL_FAILED. */
export async function makeData(inputs: DiskInputs, seed: string, sizeBytes: number): Promise<string> {
  const tree = join(inputs.workDir, 'data');
  rmSync(tree, { recursive: true, force: true });
  copySorted(seed, tree);
  settle(tree, inputs.epoch);
  const image = join(inputs.workDir, 'data.img');
  rmSync(image, { force: true });
  emptyFile(image, sizeBytes);
  const extended = `hash_seed=${derivedUuid(inputs.identity, 'data-hash')},root_owner=0:0,lazy_itable_init=1,nodiscard,resize=${GROWS_TO_BLOCKS}`;
  // Metadata has check sums; ids and seeds come from the inputs.
  const args = ['-q', '-t', 'ext4', '-L', 'data', '-U', derivedUuid(inputs.identity, 'data-fs'), '-O', '^metadata_csum_seed', '-E', extended];
  args.push('-b', String(BLOCK_BYTES), '-i', String(BYTES_PER_INODE), '-m', '1', '-d', tree, image);
  // Files belong to root on the robot, whoever builds.
  if (process.getuid?.() === 0) {
    execFileSync('chown', ['-R', '0:0', tree]);
    await runTool('mke2fs', args, toolOptions(inputs));
  } else await runTool('fakeroot', ['mke2fs', ...args], toolOptions(inputs));
  await settleInodes(inputs, tree, image);
  return image;
}

/** The times that mke2fs takes from the builder's files and that nobody can set there. */
const inodeTimes = ['atime', 'ctime', 'mtime', 'crtime'] as const;

/** Gives every inode of the tree the same times. */
async function settleInodes({ workDir, epoch, ...inputs }: DiskInputs, tree: string, image: string): Promise<void> {
  const lines: string[] = [];
  const visit = (path: string): void => {
    for (const time of inodeTimes) lines.push(`set_inode_field "${path}" ${time} @${epoch}`, `set_inode_field "${path}" ${time}_extra 0`);
  };
  const walk = (folder: string, path: string): void => {
    visit(path);
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const below = `${path === '/' ? '' : path}/${entry.name}`;
      if (entry.isDirectory()) walk(join(folder, entry.name), below);
      else visit(below);
    }
  };
  walk(tree, '/');
  const script = join(workDir, 'inodes');
  writeFileSync(script, `${lines.join('\n')}\n`);
  await runTool('debugfs', ['-w', '-f', script, image], toolOptions({ workDir, epoch, ...inputs }));
}

/** Copies `from` into `to` at `offset`. Blocks of zeros are left out: the target is a new sparse file. */
async function copyInto(from: string, to: string, offset: number, onBytes: (bytes: number) => void, signal?: AbortSignal): Promise<void> {
  const blockBytes = MIB;
  const [source, target] = [await open(from, 'r'), await open(to, 'r+')];
  try {
    const block = Buffer.alloc(blockBytes);
    const zeros = Buffer.alloc(blockBytes);
    for (let at = 0; ; ) {
      signal?.throwIfAborted();
      const { bytesRead } = await source.read(block, 0, blockBytes, at);
      if (bytesRead === 0) break;
      const part = block.subarray(0, bytesRead);
      if (!part.equals(zeros.subarray(0, bytesRead))) await target.write(part, 0, bytesRead, offset + at);
      at += bytesRead;
      onBytes(bytesRead);
    }
  } finally {
    await source.close();
    await target.close();
  }
}

export interface Parts {
  readonly esp: string;
  readonly root: string;
  readonly data: string;
}

/** Puts the parts into `out`, a new file. Errors: IMAGE_TOOL_FAILED, ABORTED. */
export async function assemble(
  inputs: DiskInputs,
  layout: Layout,
  parts: Parts,
  out: string,
  onProgress: (done: number, total: number) => void,
): Promise<void> {
  rmSync(out, { force: true });
  emptyFile(out, layout.sizeBytes);
  await runTool('sgdisk', sgdiskArgs(layout, out), toolOptions(inputs));
  const plan = [
    ['esp', parts.esp],
    ['system-a', parts.root],
    ['data', parts.data],
  ] as const;
  const sizes = await Promise.all(plan.map(async ([, file]) => (await stat(file)).size));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  let done = 0;
  for (const [name, file] of plan) {
    const onBytes = (bytes: number): void => {
      done += bytes;
      onProgress(done, total);
    };
    await copyInto(file, out, partitionOf(layout, name).startBytes, onBytes, inputs.signal);
  }
  const disk = await open(out, 'r+');
  await disk.sync();
  await disk.close();
}
