/**
 * The file of a model or a configuration: a tar archive (also through zstd) whose first members are a manifest with the hash of every file and a CMS
 * signature of that manifest. The signature is verified before any content is looked at, and each file's hash as it is written. Owned by the update
 * commands; it decides neither where content goes nor whether it is wanted.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { type KeyPair, signDetached, verifyDetached } from './authority.js';
import type { Disk } from './disk.js';
import { formatError } from './rauc.js';
import type { ReleaseKind } from './records.js';
import { BLOCK, Pieces, parseHeader, TAR_END, type TarMember, tarHeader, tarPadding } from './tar.js';
import { isVersion } from './versions.js';

const FORMAT = 'premotor-release-1';
const MANIFEST = 'manifest.json';
const SIGNATURE = 'manifest.cms';
const CONTENT = 'files/';
/** A copy of the manifest stays with the files, so that they can be checked later. */
export const KEPT_MANIFEST = '.release.json';

const MANIFEST_BYTES_MAX = 8 << 20;
const SIGNATURE_BYTES_MAX = 64 << 10;
const FILES_MAX = 10_000;
const PATH_CHARACTERS_MAX = 200;
const DEPTH_MAX = 16;
const ZSTD_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

const manifestSchema = z.object({
  format: z.literal(FORMAT),
  kind: z.enum(['model', 'config']),
  version: z.string().refine(isVersion),
  files: z
    .array(z.object({ path: z.string().refine(isSafePath), bytes: z.int().nonnegative(), sha256: z.string().regex(/^[0-9a-f]{64}$/) }))
    .min(1)
    .max(FILES_MAX)
    .refine((files) => new Set(files.map(({ path }) => path)).size === files.length),
});
export type ReleaseManifest = Readonly<z.output<typeof manifestSchema>>;

/** Relative, inside, and of plain names. */
export function isSafePath(path: string): boolean {
  if (path.length === 0 || path.length > PATH_CHARACTERS_MAX || path === KEPT_MANIFEST) return false;
  if (/[\u0000-\u001f\\]/.test(path)) return false;
  const parts = path.split('/');
  return parts.length <= DEPTH_MAX && parts.every((part) => part !== '' && part !== '.' && part !== '..');
}

/** What a folder is as a release. Equal content gives an equal manifest. Errors: UPDATE_CONTENT. */
export async function manifestOf(kind: ReleaseKind, version: string, folder: string): Promise<ReleaseManifest> {
  const files: { path: string; bytes: number; sha256: string }[] = [];
  for (const path of await filesIn(folder)) files.push({ path, ...(await hashOf(join(folder, path))) });
  return { format: FORMAT, kind, version, files };
}

export const manifestText = (manifest: ReleaseManifest): Buffer => Buffer.from(`${JSON.stringify(manifest, null, 1)}\n`);

export const manifestBytes = ({ files }: ReleaseManifest): number => files.reduce((sum, { bytes }) => sum + bytes, 0);

export interface Packing {
  readonly kind: ReleaseKind;
  readonly version: string;
  readonly folder: string;
  readonly out: string;
  readonly signer: KeyPair;
  readonly onBytes?: (done: number, total: number) => void;
}

/** Packs and signs a folder. Errors: UPDATE_CONTENT, UPDATE_KEY, UPDATE_TOOL_*, FILE_WRITE. */
export async function packRelease({ kind, version, folder, out, signer, onBytes }: Packing): Promise<ReleaseManifest> {
  const manifest = await manifestOf(kind, version, folder);
  const { files } = manifest;
  const text = manifestText(manifest);
  const signature = await signDetached(text, signer);
  const handle = await open(out, 'w').catch((cause: Error) => {
    throw new PremotorError('FILE_WRITE', `${out} cannot be written: ${cause.message}. Check the disk and the folder's rights.`, {
      file: out,
      cause,
    });
  });
  const total = manifestBytes(manifest);
  let done = 0;
  try {
    for (const [name, bytes] of [
      [MANIFEST, text],
      [SIGNATURE, signature],
    ] as const) {
      await handle.writeFile(Buffer.concat([headerOf(name, bytes.length), bytes, tarPadding(bytes.length)]));
    }
    for (const { path, bytes } of files) {
      await handle.writeFile(headerOf(`${CONTENT}${path}`, bytes));
      for await (const part of createReadStream(join(folder, path)) as AsyncIterable<Buffer>) {
        await handle.writeFile(part);
        onBytes?.((done += part.length), total);
      }
      await handle.writeFile(tarPadding(bytes));
    }
    await handle.writeFile(TAR_END);
    await handle.sync();
  } finally {
    await handle.close();
  }
  return manifest;
}

function headerOf(path: string, bytes: number): Buffer {
  const header = tarHeader(path, bytes);
  if (header === undefined) throw contentError(path, 'a shorter path', 'one that an archive cannot hold');
  return header;
}

async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((cause: Error) => {
    throw contentError(folder, 'a readable folder', cause.message);
  });
  const found: string[] = [];
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name).slice(join(folder).length).replace(/^\/+/, '');
    if (entry.isDirectory() || path === KEPT_MANIFEST) continue;
    if (!entry.isFile()) throw contentError(path, 'plain files only', 'a link or a device');
    if (!isSafePath(path)) throw contentError(path, 'a shorter path of plain names', 'this one');
    found.push(path);
  }
  if (found.length === 0 || found.length > FILES_MAX) throw contentError(folder, `1 .. ${FILES_MAX} files`, String(found.length));
  return found.sort();
}

async function hashOf(file: string): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const part of createReadStream(file) as AsyncIterable<Buffer>) {
    hash.update(part);
    bytes += part.length;
  }
  return { bytes, sha256: hash.digest('hex') };
}

export function contentError(what: string, expected: string, found: string): PremotorError {
  const message = `${what} cannot be part of a release: expected ${expected}, found ${found}. Correct the folder and pack it again.`;
  return new PremotorError('UPDATE_CONTENT', message, { file: what, expected, found });
}

export interface Unpacking {
  readonly file: string;
  readonly keyring: string;
  readonly disk: Disk;
  /** An empty folder, which exists. */
  readonly into: string;
  /** Called with a verified manifest before anything is written; rejects when it is not wanted. */
  readonly admit: (manifest: ReleaseManifest) => Promise<void>;
  readonly onBytes?: (done: number, total: number) => void;
  readonly verify?: typeof verifyDetached;
}

/**
 * Unpacks into a folder, durable when it resolves. Errors: UPDATE_FORMAT, UPDATE_SIGNATURE, UPDATE_DAMAGED, UPDATE_KEY, UPDATE_TOOL_MISSING (zstd),
 * and what `admit` rejects with.
 */
export async function unpackRelease(unpacking: Unpacking): Promise<ReleaseManifest> {
  const { file, keyring, admit, into, disk, onBytes, verify = verifyDetached } = unpacking;
  const source = await openArchive(file);
  try {
    const pieces = new Pieces(source.bytes);
    const text = await smallMember(pieces, MANIFEST, MANIFEST_BYTES_MAX, file);
    const signature = await smallMember(pieces, SIGNATURE, SIGNATURE_BYTES_MAX, file);
    await verify(text, signature, keyring, file);
    const manifest = parseManifest(text, file);
    await admit(manifest);
    const total = manifestBytes(manifest);
    let before = 0;
    for (const entry of manifest.files) {
      await member(pieces, { path: `${CONTENT}${entry.path}`, bytes: entry.bytes }, file);
      const started = before;
      await writeMember(pieces, entry, unpacking, (done) => onBytes?.(started + done, total));
      before += entry.bytes;
    }
    const end = await pieces.exactly(BLOCK);
    if (end === undefined || parseHeader(end) !== undefined) throw damaged(file, 'no more than the manifest lists', 'something after the last file');
    await keepManifest(disk, into, text);
    for (const folder of foldersOf(manifest, into)) await disk.sync(folder);
    return manifest;
  } finally {
    source.close();
  }
}

async function keepManifest(disk: Disk, into: string, text: Buffer): Promise<void> {
  const kept = await disk.create(join(into, KEPT_MANIFEST));
  try {
    await kept.write(text);
  } finally {
    await kept.close();
  }
}

async function writeMember(
  pieces: Pieces,
  { path, bytes, sha256 }: ReleaseManifest['files'][number],
  { file, into, disk }: Unpacking,
  onBytes: (done: number) => void,
): Promise<void> {
  const target = join(into, path);
  await disk.folder(dirname(target));
  const out = await disk.create(target);
  const hash = createHash('sha256');
  let done = 0;
  try {
    for await (const part of pieces.parts(bytes)) {
      hash.update(part);
      await out.write(part);
      onBytes((done += part.length));
    }
  } finally {
    await out.close();
  }
  if (done !== bytes) throw damaged(file, `${bytes} bytes of ${path}`, `${done}`);
  if (hash.digest('hex') !== sha256) throw damaged(file, `the ${path} that was signed`, 'other content');
  await pieces.exactly(tarPadding(bytes).length);
}

/** Inner folders first, so that a folder is durable before the name that leads to it. */
function foldersOf({ files }: ReleaseManifest, into: string): string[] {
  const found = new Set<string>();
  for (const { path } of files) for (let at = dirname(path); at !== '.'; at = dirname(at)) found.add(join(into, at));
  return [...[...found].sort((a, b) => b.length - a.length), into];
}

async function smallMember(pieces: Pieces, path: string, bytes_max: number, file: string): Promise<Buffer> {
  const { bytes } = await member(pieces, { path }, file);
  if (bytes > bytes_max) throw formatError(file, `${path} of ${bytes} bytes`);
  const content = await pieces.exactly(bytes);
  await pieces.exactly(tarPadding(bytes).length);
  if (content === undefined) throw formatError(file, `an end inside ${path}`);
  return content;
}

async function member(pieces: Pieces, wanted: { readonly path: string; readonly bytes?: number }, file: string): Promise<TarMember> {
  const header = await pieces.exactly(BLOCK);
  const found = header === undefined ? 'the end of the file' : (parseHeader(header) ?? 'the end of the archive');
  if (typeof found === 'object' && found.path === wanted.path && (wanted.bytes ?? found.bytes) === found.bytes) return found;
  const shown = typeof found === 'string' ? found : `${found.path} of ${found.bytes} bytes`;
  throw wanted.bytes === undefined ? formatError(file, `${shown} instead of ${wanted.path}`) : damaged(file, wanted.path, shown);
}

export function parseManifest(text: Buffer | string, file: string): ReleaseManifest {
  try {
    return manifestSchema.parse(JSON.parse(text.toString('utf8')));
  } catch (cause) {
    throw formatError(file, `a manifest of another form (${(cause as Error).message.replaceAll(/\s+/g, ' ').slice(0, 160)})`);
  }
}

function damaged(file: string, expected: string, found: string): PremotorError {
  const message = `${file} was changed after it was signed, or is damaged: expected ${expected}, found ${found}. Copy it again.`;
  return new PremotorError('UPDATE_DAMAGED', message, { file, expected, found });
}

interface Archive {
  readonly bytes: AsyncIterable<Buffer>;
  close(): void;
}

async function openArchive(file: string): Promise<Archive> {
  const handle = await open(file, 'r').catch((cause: Error) => {
    throw formatError(file, `no readable file (${cause.message})`);
  });
  const magic = Buffer.alloc(ZSTD_MAGIC.length);
  await handle.read(magic, 0, magic.length, 0).finally(() => handle.close());
  if (!magic.equals(ZSTD_MAGIC)) {
    const bytes = createReadStream(file);
    return { bytes, close: () => bytes.destroy() };
  }
  const child = spawn('zstd', ['-dcq', '--', file], { stdio: ['ignore', 'pipe', 'ignore'] });
  const started = new Promise<void>((resolve, reject) => {
    child.on('spawn', resolve);
    child.on('error', reject);
  });
  await started.catch((cause: Error) => {
    const details = { file, expected: 'the program zstd', found: cause.message, cause };
    throw new PremotorError(
      'UPDATE_TOOL_MISSING',
      `${file} is compressed, and there is no zstd to open it. Install it (apt-get install zstd).`,
      details,
    );
  });
  // A stream that is cut short shows as a missing member.
  return { bytes: child.stdout, close: () => child.kill('SIGKILL') };
}
