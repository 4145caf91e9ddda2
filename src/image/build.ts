/**
 * Builds a robot's disk image: base tree, root, data, boot loader, disk, in this order, each step kept where it can be. Owned by `premotor image
 * build`; the steps are in the files beside this one. Equal inputs give equal bytes: the tests compare hashes.
 */
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PremotorError } from '../errors.js';
import { BASE_STEPS, type Base, makeBase } from './base.js';
import { assemble, type DiskInputs, makeData, makeEsp } from './disk.js';
import { noteReleases } from './first-releases.js';
import { type Arch, checkSlot, DATA_SPARE_MIB, type Layout, layoutOf, partitionOf } from './layout.js';
import { fileHash, folderHash, makeRoot, type Root } from './rootfs.js';
import { dataMibFor, makeSeed, type Seed } from './seed.js';
import { requireTools } from './tools.js';

export interface ImageInputs {
  readonly arch: Arch;
  readonly robot: string;
  readonly out: string;
  readonly cacheDir: string;
  readonly deb?: string;
  readonly sshKey?: string;
  readonly fleetCa?: string;
  readonly models: readonly string[];
  readonly units: readonly string[];
  readonly dropIns?: readonly string[];
  readonly epoch: number;
  readonly systemMib: number;
  readonly isDebugConsole: boolean;
  readonly acceptPackages: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (step: string, done: number, total: number) => void;
}

export interface BuiltImage {
  readonly file: string;
  readonly arch: Arch;
  readonly bytes: number;
  readonly sha256: string;
  readonly epoch: number;
  readonly root: { readonly file: string; readonly bytes: number; readonly sha256: string };
  readonly partitions: readonly { readonly name: string; readonly startBytes: number; readonly sizeBytes: number; readonly uuid: string }[];
  readonly models: Seed['models'];
  readonly changes: Seed['changes'];
  readonly files: Seed['files'];
  readonly configurationRelease: string;
  readonly packages: readonly string[];
  readonly hasPremotor: boolean;
  readonly isLoginOpen: boolean;
  readonly isDebugConsole: boolean;
}

/** deploy/image of this package. */
export const imageFiles = (): string => fileURLToPath(new URL('../../deploy/image', import.meta.url));

const tools = ['mmdebstrap', 'mmtarfilter', 'mksquashfs', 'sgdisk', 'mkfs.vfat', 'mcopy', 'mke2fs', 'grub-mkimage', 'grub-editenv'];

/** Errors: IMAGE_TOOL_MISSING, IMAGE_TOOL_FAILED, IMAGE_INPUT_INVALID, IMAGE_PACKAGES_CHANGED, IMAGE_SYSTEM_TOO_LARGE, ABORTED. */
export async function buildImage(inputs: ImageInputs): Promise<BuiltImage> {
  const { arch, onProgress = () => undefined } = inputs;
  requireTools(process.getuid?.() === 0 ? tools : [...tools, 'fakeroot', 'newuidmap']);
  for (const file of [inputs.robot, inputs.deb, inputs.fleetCa]) if (file !== undefined) requireFile(file);
  mkdirSync(inputs.cacheDir, { recursive: true });
  const workDir = mkdtempSync(join(resolve(inputs.cacheDir), 'build-'));
  try {
    const seed = makeSeed(inputs, join(workDir, 'seed'));
    await noteReleases(join(workDir, 'seed'), seed);
    const { base, root } = await makeSystem(inputs, onProgress);
    checkSlot(statSync(root.squashfs).size, inputs.systemMib);
    const identity = createHash('sha256')
      .update(JSON.stringify([root.hash, seed.hash, folderHash(imageFiles()), inputs.systemMib]))
      .digest('hex');
    const dataMib = dataMibFor(seed.bytes, DATA_SPARE_MIB);
    const layout = layoutOf({ identity, systemMib: inputs.systemMib, dataMib });
    const disk: DiskInputs = {
      arch,
      files: imageFiles(),
      epoch: inputs.epoch,
      identity,
      workDir,
      ...(inputs.signal === undefined ? {} : { signal: inputs.signal }),
    };
    onProgress('boot loader', 0, 1);
    const esp = await makeEsp(disk, root.grubTar);
    onProgress('boot loader', 1, 1);
    const data = await makeData(disk, join(workDir, 'seed'), partitionOf(layout, 'data').sizeBytes);
    onProgress('data', 1, 1);
    const part = join(workDir, 'disk.img');
    await assemble(disk, layout, { esp, root: root.squashfs, data }, part, (done, total) => onProgress('disk', done, total));
    return await finish(inputs, { base, root, seed, layout }, part, onProgress);
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
}

async function makeSystem(inputs: ImageInputs, onProgress: (step: string, done: number, total: number) => void): Promise<{ base: Base; root: Root }> {
  const { arch, cacheDir, epoch, deb, fleetCa, isDebugConsole, acceptPackages, signal } = inputs;
  const files = imageFiles();
  const common = { arch, files, cacheDir: resolve(cacheDir), epoch, ...(signal === undefined ? {} : { signal }) };
  let announced = 0;
  onProgress('Debian packages', 0, BASE_STEPS);
  const base = await makeBase({
    ...common,
    acceptPackages,
    onLine: (line) => {
      if (line.startsWith('I: ') && announced < BASE_STEPS - 1) onProgress('Debian packages', ++announced, BASE_STEPS);
    },
  });
  onProgress('Debian packages', BASE_STEPS, BASE_STEPS);
  const root = await makeRoot({
    ...common,
    base,
    isDebugConsole,
    ...(deb === undefined ? {} : { deb: resolve(deb) }),
    ...(fleetCa === undefined ? {} : { fleetCa: resolve(fleetCa) }),
    onStep: (done, total) => onProgress('system', done, total),
  });
  return { base, root };
}

interface Made {
  readonly base: Base;
  readonly root: Root;
  readonly seed: Seed;
  readonly layout: Layout;
}

/** Puts the results where they were asked for, the root beside the disk (an update bundle is made of it), and a manifest. */
async function finish(
  inputs: ImageInputs,
  { base, root, seed, layout }: Made,
  part: string,
  onProgress: (step: string, done: number, total: number) => void,
): Promise<BuiltImage> {
  const file = resolve(inputs.out);
  const rootFile = `${file.replace(/\.img$/, '')}.squashfs`;
  const sha256 = await fileHash(part, (read) => onProgress('hash', read, layout.sizeBytes));
  mkdirSync(dirname(file), { recursive: true });
  try {
    renameSync(part, file);
  } catch {
    // Another file system: a copy, complete or not at all.
    copyFileSync(part, `${file}.part`);
    renameSync(`${file}.part`, file);
  }
  copyFileSync(root.squashfs, rootFile);
  const built: BuiltImage = {
    file,
    arch: inputs.arch,
    bytes: layout.sizeBytes,
    sha256,
    epoch: inputs.epoch,
    root: { file: rootFile, bytes: statSync(rootFile).size, sha256: await fileHash(rootFile) },
    partitions: layout.partitions.map(({ name, startBytes, sizeBytes, uuid }) => ({ name, startBytes, sizeBytes, uuid })),
    models: seed.models,
    changes: seed.changes,
    files: seed.files,
    configurationRelease: seed.configurationRelease,
    packages: base.packages,
    hasPremotor: inputs.deb !== undefined,
    isLoginOpen: inputs.sshKey !== undefined,
    isDebugConsole: inputs.isDebugConsole,
  };
  writeFileSync(`${file}.json`, `${JSON.stringify(built, null, 2)}\n`);
  return built;
}

function requireFile(file: string): void {
  if (existsSync(file) && statSync(file).isFile()) return;
  const found = `no file ${file}`;
  throw new PremotorError('IMAGE_INPUT_INVALID', `The image cannot be built from this: expected a readable file, found ${found}. Check the path.`, {
    file,
    expected: 'a readable file',
    found,
  });
}

/** The moment that a build pretends to happen at: the environment's, else that of premotor's own build, so that equal releases give equal images. */
export function defaultEpoch(env: NodeJS.ProcessEnv, commitEpoch: () => number | undefined): number {
  const given = env['SOURCE_DATE_EPOCH'];
  if (given !== undefined && /^\d{1,10}$/.test(given)) return Number(given);
  return commitEpoch() ?? Math.floor(statSync(new URL('../../package.json', import.meta.url)).mtimeMs / 1000);
}

export const readManifest = (file: string): BuiltImage => JSON.parse(readFileSync(`${file}.json`, 'utf8')) as BuiltImage;
