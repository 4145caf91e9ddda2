/**
 * Fetches a file over HTTPS into the update folder: resumed where it was interrupted, bounded in size, retries and time, never taken for whole before
 * it is. Owned by the update commands; what the file is worth is decided by its signature, not here.
 */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { get } from 'node:https';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { PremotorError } from '../errors.js';
import { replaceFile } from '../replace-file.js';
import { textIn } from './disk.js';
import { diskFull } from './release-install.js';

/** Attempts that bring nothing. One that brings something starts the count again. */
const FRUITLESS_MAX = 5;
const RETRY_MS = 2000;
const SILENCE_TIMEOUT_MS = 60_000;
const REDIRECTS_MAX = 5;
const FREE_BYTES_MIN = 64 << 20;

export interface TlsFiles {
  /** Certificates to trust instead of the system's. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface Downloading {
  readonly url: string;
  /** The folder of downloads. */
  readonly folder: string;
  readonly tls: TlsFiles;
  readonly signal: AbortSignal;
  readonly onBytes?: (done: number, total: number) => void;
  readonly retry_ms?: number;
}

export const isUrl = (text: string): boolean => /^[a-z]+:\/\//i.test(text);

/** The path of the whole file. Errors: UPDATE_URL, UPDATE_DOWNLOAD, DISK_FULL, ABORTED. */
export async function download(downloading: Downloading): Promise<string> {
  const { url, folder } = downloading;
  checkUrl(url);
  await mkdir(folder, { recursive: true });
  const name = createHash('sha256').update(url).digest('hex').slice(0, 16);
  const paths = { part: join(folder, `${name}.part`), notes: join(folder, `${name}.json`), whole: join(folder, `${name}.whole`) };
  const tls = await readTls(downloading.tls);
  let fruitless = 0;
  return attempt();

  async function attempt(): Promise<string> {
    const before = await sizeOf(paths.part);
    try {
      return await fetchRest(downloading, paths, tls);
    } catch (error) {
      if (error instanceof PremotorError) throw error;
      if (downloading.signal.aborted) throw new PremotorError('ABORTED', 'The download was interrupted; the same command goes on with it.');
      fruitless = (await sizeOf(paths.part)) > before ? 0 : fruitless + 1;
      if (fruitless >= FRUITLESS_MAX) throw failed(url, (error as Error).message, error);
      await new Promise((resolve) => setTimeout(resolve, downloading.retry_ms ?? RETRY_MS));
      return attempt();
    }
  }
}

interface Paths {
  readonly part: string;
  readonly notes: string;
  readonly whole: string;
}

type Tls = Readonly<Record<string, Buffer>>;

async function fetchRest(downloading: Downloading, paths: Paths, tls: Tls): Promise<string> {
  const { url, folder, signal, onBytes } = downloading;
  const have = await sizeOf(paths.part);
  const tag = have === 0 ? undefined : await textIn(paths.notes);
  // Without a tag nobody knows whether the rest belongs to what is here.
  const resumes = tag !== undefined && tag !== '';
  const response = await request(url, { tls, signal, ...(resumes ? { range: { from: have, tag } } : {}) });
  const partial = response.statusCode === 206;
  if (!partial && response.statusCode !== 200) {
    response.destroy();
    if (response.statusCode === 416) await rm(paths.part, { force: true });
    const error = `status ${response.statusCode}`;
    // What a client did wrong stays wrong; a server may recover.
    throw (response.statusCode ?? 0) < 500 && response.statusCode !== 416 && response.statusCode !== 429 ? failed(url, error) : new Error(error);
  }
  const start = partial ? have : 0;
  const rest = Number(response.headers['content-length'] ?? Number.NaN);
  const total = start + rest;
  const { bavail, bsize } = await statfs(folder);
  if (!(rest >= 0)) throw failed(url, 'an answer without Content-Length');
  if (bavail * bsize < rest + FREE_BYTES_MIN) throw diskFull(folder, rest + FREE_BYTES_MIN, bavail * bsize);
  if (!partial) await replaceFile(paths.notes, strongTag(response), 0o644);
  let done = start;
  response.on('data', (bytes: Buffer) => onBytes?.((done += bytes.length), total));
  await pipeline(response, createWriteStream(paths.part, { flags: partial ? 'a' : 'w', flush: true }));
  const size = await sizeOf(paths.part);
  if (size !== total) throw new Error(`${size} of ${total} bytes`);
  await rename(paths.part, paths.whole);
  await rm(paths.notes, { force: true });
  return paths.whole;
}

/** What identifies the content; a weak tag does not. */
function strongTag({ headers }: IncomingMessage): string {
  const { etag } = headers;
  return etag !== undefined && !etag.startsWith('W/') ? etag : (headers['last-modified'] ?? '');
}

interface Request {
  readonly tls: Tls;
  readonly signal: AbortSignal;
  readonly range?: { readonly from: number; readonly tag: string };
}

function request(url: string, { tls, signal, range }: Request, redirects = 0): Promise<IncomingMessage> {
  const headers = range === undefined ? {} : { Range: `bytes=${range.from}-`, 'If-Range': range.tag };
  return new Promise((resolve, reject) => {
    const sent = get(url, { ...tls, signal, headers, timeout: SILENCE_TIMEOUT_MS, agent: false }, (response) => {
      const { location } = response.headers;
      if (response.statusCode === undefined || response.statusCode < 300 || response.statusCode > 399 || location === undefined)
        return resolve(response);
      response.destroy();
      if (redirects >= REDIRECTS_MAX) return reject(failed(url, `more than ${REDIRECTS_MAX} redirections`));
      const next = new URL(location, url).href;
      if (!next.startsWith('https://')) return reject(failed(url, `a redirection to ${next}`));
      resolve(request(next, { tls, signal, ...(range === undefined ? {} : { range }) }, redirects + 1));
    });
    sent.on('timeout', () => sent.destroy(new Error(`silence for ${SILENCE_TIMEOUT_MS} ms`)));
    sent.on('error', reject);
  });
}

async function readTls({ ca, cert, key }: TlsFiles): Promise<Tls> {
  const read = async (name: string, file: string | undefined): Promise<[string, Buffer][]> =>
    file === undefined ? [] : [[name, await readFile(file)]];
  try {
    return Object.fromEntries([...(await read('ca', ca)), ...(await read('cert', cert)), ...(await read('key', key))]);
  } catch (cause) {
    const found = (cause as Error).message;
    const message = `A certificate for the download cannot be read: expected a readable file, found ${found}. Check --ca, --cert and --key.`;
    throw new PremotorError('UPDATE_KEY', message, { expected: 'a readable file', found, cause });
  }
}

const sizeOf = async (file: string): Promise<number> => (await stat(file).catch(() => undefined))?.size ?? 0;

function checkUrl(url: string): void {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed?.protocol === 'https:' && parsed.username === '' && parsed.password === '') return;
  const [expected, found] = ['https://HOST/PATH without a user', url.replace(/\/\/[^@/]*@/, '//...@')];
  throw new PremotorError('UPDATE_URL', `This is no address to update from: expected ${expected}, found ${found}. Give a file, or an https URL.`, {
    expected,
    found,
  });
}

function failed(url: string, found: string, cause?: unknown): PremotorError {
  const expected = 'the whole file';
  const message = `${url} cannot be fetched: expected ${expected}, found ${found}. What came is kept, and the same command goes on with it.`;
  return new PremotorError('UPDATE_DOWNLOAD', message, { expected, found, cause });
}
