/**
 * Builds and signs the bundle of a system: one squashfs image of a root file system with compatible string and version, in RAUC's verity format.
 * Run on
 * the machine that holds the signer's key, never on a robot. Owned by the command line.
 */
import { copyFile, link, mkdir, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { PremotorError } from '../errors.js';
import { checkSigner, type KeyPair } from './authority.js';
import { type BundleInfo, bundleInfo, formatError } from './rauc.js';
import { contentError } from './release-file.js';
import { lastLine, runTool } from './tools.js';
import { checkVersion } from './versions.js';

const BUNDLE_TIMEOUT_MS = 1_800_000;
const SQUASHFS_MAGIC = 'hsqs';
export const ARCHITECTURES = ['amd64', 'arm64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];
export const BUNDLE_FORMATS = ['verity', 'plain'] as const;

/** What a robot's RAUC compares a bundle with. */
export const compatibleOf = (architecture: Architecture): string => `premotor-${architecture}`;

export interface BundleWants {
  readonly rootfs: string;
  readonly version: string;
  readonly architecture: Architecture;
  readonly out: string;
  readonly signer: KeyPair;
  /** The authority's certificate: the bundle is checked against it before it is handed out. */
  readonly keyring: string;
  readonly format: (typeof BUNDLE_FORMATS)[number];
  readonly description?: string;
}

/** Errors: UPDATE_VERSION, UPDATE_KEY, UPDATE_CONTENT, UPDATE_NO_RAUC, UPDATE_TOOL_FAILED, OUT_NOT_EMPTY, FILE_WRITE. */
export async function buildBundle(wants: BundleWants): Promise<BundleInfo> {
  const { version, signer, rootfs, out, keyring } = wants;
  checkVersion(version);
  await checkSigner(signer);
  await checkSquashfs(rootfs);
  await checkFree(out);
  return besideOf(out, async (folder) => {
    const content = join(folder, 'content');
    await mkdir(content);
    // An image of gigabytes is not copied when it need not be.
    await link(rootfs, join(content, 'rootfs.squashfs')).catch(() => copyFile(rootfs, join(content, 'rootfs.squashfs')));
    await writeFile(join(content, 'manifest.raucm'), manifestText(wants));
    const made = join(folder, 'made.raucb');
    const keys = ['--cert', signer.certificate, '--key', signer.key, '--keyring', keyring];
    await raucWell(['bundle', ...keys, content, made], out);
    const info = await bundleInfo({ keyring }, made);
    await rename(made, out);
    return info;
  });
}

function manifestText({ version, architecture, format, description }: BundleWants): string {
  if (description !== undefined && /[\r\n]/.test(description)) throw contentError('--description', 'one line', 'several');
  const lines = ['[update]', `compatible=${compatibleOf(architecture)}`, `version=${version}`];
  if (description !== undefined) lines.push(`description=${description}`);
  return [...lines, '', '[bundle]', `format=${format}`, '', '[image.rootfs]', 'filename=rootfs.squashfs', ''].join('\n');
}

/** Replaces the signature of a bundle, such as one by a signer that is about to expire. Errors: as buildBundle, UPDATE_SIGNATURE. */
export async function resignBundle(file: string, out: string, signer: KeyPair, keyring: string): Promise<BundleInfo> {
  await checkSigner(signer);
  await checkFree(out);
  // The old signature is verified first: only what this fleet trusts already is signed again.
  await bundleInfo({ keyring }, file);
  return besideOf(out, async (folder) => {
    const made = join(folder, 'made.raucb');
    await raucWell(['resign', '--cert', signer.certificate, '--key', signer.key, '--keyring', keyring, file, made], out);
    const info = await bundleInfo({ keyring }, made);
    await rename(made, out);
    return info;
  });
}

async function raucWell(args: readonly string[], out: string): Promise<void> {
  const result = await runTool('rauc', args, { timeout_ms: BUNDLE_TIMEOUT_MS });
  if (result.code === 0) return;
  const [expected, found] = ['a signed bundle', lastLine(result)];
  const message = `The bundle ${out} could not be made: expected ${expected}, found "${found}". Check image, signer and authority.`;
  throw new PremotorError('UPDATE_BUILD', message, { file: out, expected, found });
}

/** Work in a folder on the disk of `out`, so that the result is moved in one step. */
async function besideOf<T>(out: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = join(dirname(resolve(out)), `.${basename(out)}.${process.pid}`);
  await mkdir(folder, { recursive: true }).catch((cause: Error) => {
    throw new PremotorError('FILE_WRITE', `${out} cannot be written: ${cause.message}. Check the disk and the folder's rights.`, {
      file: out,
      cause,
    });
  });
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function checkSquashfs(file: string): Promise<void> {
  const handle = await open(file, 'r').catch((cause: Error) => {
    throw contentError(file, 'a squashfs image', cause.message);
  });
  const magic = Buffer.alloc(4);
  await handle.read(magic, 0, 4, 0).finally(() => handle.close());
  if (magic.toString('latin1') !== SQUASHFS_MAGIC) throw contentError(file, 'a squashfs image', 'a file of another kind');
}

async function checkFree(out: string): Promise<void> {
  if (!(await stat(out).catch(() => undefined))) return;
  const expected = 'no file of this name';
  const message = `${out} exists: expected ${expected}, found one. Nothing was overwritten.`;
  throw new PremotorError('OUT_NOT_EMPTY', message, { file: out, expected, found: 'one' });
}

/** The version in the manifest of a mounted bundle, for the handlers. Errors: UPDATE_FORMAT. */
export function manifestVersion(text: string, file: string): string {
  const update = /^\[update\]$([\s\S]*?)(?=^\[|(?![\s\S]))/m.exec(text)?.[1] ?? '';
  const version = /^version=(.+)$/m.exec(update)?.[1]?.trim();
  if (version === undefined) throw formatError(file, 'a manifest without a version');
  return version;
}
