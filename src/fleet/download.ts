/**
 * Fetching from the server of bundles: a small file as a whole, a bundle that goes on where it was interrupted and is checked before anybody sees it.
 * Owned by whoever follows a roll-out; https, or this machine itself; no redirects, and nothing is believed for having come from there.
 */
import { createHash } from 'node:crypto';
import { open, rename, rm, stat } from 'node:fs/promises';
import { type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { PremotorError } from '../errors.js';
import { type Bundle, isSafeUrl } from './list.js';

export interface FetchOptions {
  /** Authorities of the server; absent: those of the system. */
  readonly ca?: Buffer;
  readonly signal: AbortSignal;
}

/** A server that says nothing for so long is given up. */
const SILENCE_MS_MAX = 30_000;
const OK = 200;
const PARTIAL = 206;
const RANGE_NOT_SATISFIABLE = 416;

function failed(url: string, expected: string, found: string, cause?: unknown): PremotorError {
  const message = `${url} cannot be fetched: expected ${expected}, found ${found}. Check the server and the network; it is tried again.`;
  return new PremotorError('ROLLOUT_FETCH', message, { file: url, expected, found, ...(cause === undefined ? {} : { cause }) });
}

function get(url: string, headers: Readonly<Record<string, string>>, { ca, signal }: FetchOptions): Promise<IncomingMessage> {
  if (!isSafeUrl(url)) throw failed(url, 'https://HOST/PATH without credentials', 'another address');
  const start = url.startsWith('https:') ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    const options = { headers, signal, timeout: SILENCE_MS_MAX, ...(ca === undefined ? {} : { ca }) };
    const request = start(url, options, resolve);
    request.on('timeout', () => request.destroy(new Error(`no word within ${SILENCE_MS_MAX} ms`)));
    request.on('error', (cause) => reject(failed(url, 'an answer', cause.message, cause)));
    request.end();
  });
}

/** A whole file in memory. Errors: ROLLOUT_FETCH. */
export async function fetchSmall(url: string, bytesMax: number, options: FetchOptions): Promise<Buffer> {
  const response = await get(url, {}, options);
  try {
    if (response.statusCode !== OK) throw failed(url, `status ${OK}`, String(response.statusCode));
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of response as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > bytesMax) throw failed(url, `at most ${bytesMax} bytes`, 'more');
      parts.push(part);
    }
    return Buffer.concat(parts);
  } catch (error) {
    throw error instanceof PremotorError ? error : failed(url, 'the whole file', (error as Error).message, error);
  } finally {
    response.destroy();
  }
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  );
}

async function sha256Of(file: string): Promise<string> {
  const hash = createHash('sha256');
  const handle = await open(file, 'r');
  for await (const part of handle.createReadStream() as AsyncIterable<Buffer>) hash.update(part);
  return hash.digest('hex');
}

export interface Download extends FetchOptions {
  readonly bundle: Bundle;
  readonly file: string;
  readonly onProgress: (bytes: number, total: number) => void;
}

/**
 * Brings a bundle to `file`. What was fetched before an interruption is in `file.part` and stays; what is complete and wrong goes. Errors:
 * ROLLOUT_FETCH,
 * ROLLOUT_BUNDLE.
 */
export async function downloadBundle({ bundle, file, onProgress, ...options }: Download): Promise<void> {
  const { url, bytes, sha256 } = bundle;
  const part = `${file}.part`;
  if ((await sizeOf(part)) > bytes) await rm(part);
  if ((await sizeOf(part)) < bytes) await continueTo(part, bundle, onProgress, options);
  const size = await sizeOf(part);
  if (size < bytes) throw failed(url, `${bytes} bytes`, String(size));
  const found = await sha256Of(part);
  if (found !== sha256) {
    await rm(part);
    const message = `The bundle at ${url} is not the one that the roll-out names: expected sha256 ${sha256}, found ${found}. Publish the right file.`;
    throw new PremotorError('ROLLOUT_BUNDLE', message, { file: url, expected: sha256, found });
  }
  await rename(part, file);
}

async function continueTo(part: string, { url, bytes }: Bundle, onProgress: Download['onProgress'], options: FetchOptions): Promise<void> {
  const from = await sizeOf(part);
  const response = await get(url, from === 0 ? {} : { range: `bytes=${from}-` }, options);
  try {
    const isContinued = response.statusCode === PARTIAL && response.headers['content-range']?.startsWith(`bytes ${from}-`) === true;
    if (response.statusCode === RANGE_NOT_SATISFIABLE) await rm(part);
    if (!isContinued && response.statusCode !== OK) throw failed(url, `status ${OK} or ${PARTIAL} from ${from}`, String(response.statusCode));
    const handle = await open(part, isContinued ? 'a' : 'w');
    let done = isContinued ? from : 0;
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        done += chunk.length;
        if (done > bytes) throw failed(url, `${bytes} bytes`, 'more');
        await handle.write(chunk);
        onProgress(done, bytes);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw error instanceof PremotorError ? error : failed(url, 'the whole file', (error as Error).message, error);
  } finally {
    response.destroy();
  }
}
