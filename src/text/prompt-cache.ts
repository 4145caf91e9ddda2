/**
 * Prompt embeddings on disk: the cache of this machine, and the `prompts` folder of a checkpoint that a workstation filled for a robot without a
 * text encoder. Both hold one safetensors file per prompt and mode (docs/TEXT.md, "Files"). Owned by embeddings.ts and `premotor prompt`. Nothing
 * read from disk is believed before its name, mode, hashes and checksum fit; a cache entry that does not fit counts as absent.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { PremotorError } from '../errors.js';
import type { CpuPrecision } from '../precision-names.js';
import { decodeSafetensors, encodeSafetensors, type TensorData } from './safetensors.js';
import { TEXT_TOKENS_MAX } from './tokenizer.js';

const FORMAT_VERSION = '1';
/** The cache keeps the most recently used entries; XXL embeddings of a typical prompt are 0.5 MB each. */
export const CACHE_ENTRIES_MAX = 256;

/** How the embeddings were computed; embeddings of one mode are never used for another. */
export interface TextMode {
  readonly precision: 'f32' | 'bf16';
  /** Every activation rounded to bfloat16, as the deployed reference does. */
  readonly deployedBf16: boolean;
}

/** The embeddings of one cleaned prompt. */
export interface StoredPrompt {
  readonly cleaned: string;
  readonly rows: Float32Array; // [count, d_model]
  readonly count: number;
  readonly ids: Int32Array; // [count], the real tokens
}

/** What a file must say about itself to be believed; null: not known here, so not compared. */
export interface PromptIdentity {
  readonly cleaned: string;
  readonly mode: TextMode;
  readonly textHash: string | null;
  readonly checkpointHash: string | null;
}

/** What a lookup found. */
export type PromptLookup =
  | { readonly kind: 'found'; readonly prompt: StoredPrompt }
  | { readonly kind: 'absent' }
  | { readonly kind: 'damaged'; readonly file: string; readonly reason: string };

/**
 * The mode of an engine: activations are rounded only when the job says so and the weights are bfloat16. Quantised precisions leave the text encoder
 * in float32: it runs once per instruction.
 */
export function textMode(precision: CpuPrecision, paramDtype: 'float32' | 'bfloat16'): TextMode {
  return { precision: precision === 'bf16' ? 'bf16' : 'f32', deployedBf16: precision === 'bf16' && paramDtype === 'bfloat16' };
}

/** The mode's name in file metadata and in messages. */
export function modeName(mode: TextMode): string {
  return mode.deployedBf16 ? `${mode.precision} deployed` : mode.precision;
}

const sha256 = (...parts: (string | Uint8Array)[]): string => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};

/** $XDG_CACHE_HOME/premotor/prompts, by default ~/.cache/premotor/prompts. */
export function defaultCacheDir(): string {
  const base = process.env['XDG_CACHE_HOME'];
  return join(base?.startsWith('/') ? base : join(homedir(), '.cache'), 'premotor', 'prompts');
}

/** The folder of precomputed prompts inside a checkpoint. */
export const promptsFolder = (checkpoint: string): string => join(checkpoint, 'prompts');

/** The file of one prompt in a checkpoint's `prompts` folder. */
export function precomputedFile(folder: string, cleaned: string, mode: TextMode): string {
  return join(folder, `${sha256('premotor prompt 1\0', modeName(mode), '\0', cleaned)}.safetensors`);
}

/** The file of one prompt in the cache. */
export function cacheFile(folder: string, cleaned: string, mode: TextMode, hash: string): string {
  return join(folder, `${sha256('premotor cache 1\0', modeName(mode), '\0', hash, '\0', cleaned)}.safetensors`);
}

const bytesOf = (array: Float32Array | Int32Array): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

const contentSum = (rows: Uint8Array, ids: Uint8Array): string => sha256(ids, rows);

/** Writes one file atomically: readers see the old one or the whole new one. Errors: PROMPT_WRITE. */
export async function writePrompt(file: string, folder: string, prompt: StoredPrompt, identity: PromptIdentity): Promise<void> {
  const width = prompt.rows.length / prompt.count;
  const rows: TensorData = { dtype: 'F32', shape: [prompt.count, width], bytes: bytesOf(prompt.rows) };
  const ids: TensorData = { dtype: 'I32', shape: [prompt.count], bytes: bytesOf(prompt.ids) };
  const metadata = {
    format_version: FORMAT_VERSION,
    cleaned_prompt: prompt.cleaned,
    mode: modeName(identity.mode),
    text_hash: identity.textHash ?? '',
    checkpoint_hash: identity.checkpointHash ?? '',
    content_sha256: contentSum(rows.bytes, ids.bytes),
  };
  const bytes = encodeSafetensors(
    metadata,
    new Map([
      ['rows', rows],
      ['token_ids', ids],
    ]),
  );
  const temporary = `${file}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await mkdir(folder, { recursive: true });
    const handle = await open(temporary, 'wx');
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined);
    const found = (cause as Error).message;
    const message = `The embeddings of a prompt cannot be written to ${file} (${found}). Check the folder's permissions and free space.`;
    throw new PremotorError('PROMPT_WRITE', message, { file, expected: 'a writable folder', found, cause });
  }
}

/** Copies a tensor's bytes out of the file buffer, because their offset there need not be aligned. */
function aligned(tensor: TensorData): ArrayBuffer {
  const copy = new ArrayBuffer(tensor.bytes.length);
  new Uint8Array(copy).set(tensor.bytes);
  return copy;
}

function parsePrompt(bytes: Buffer, identity: PromptIdentity): { prompt: StoredPrompt; metadata: Readonly<Record<string, string>> } {
  const { metadata, tensors } = decodeSafetensors(bytes);
  const rows = tensors.get('rows');
  const ids = tensors.get('token_ids');
  const [count = 0, width = 0] = rows?.shape ?? [];
  if (rows?.dtype !== 'F32' || ids?.dtype !== 'I32') throw new Error('rows or token_ids are missing');
  if (rows.shape.length !== 2 || ids.shape.length !== 1) throw new Error('rows or token_ids have a wrong shape');
  if (count < 1 || count > TEXT_TOKENS_MAX || width < 1 || ids.shape[0] !== count) throw new Error(`it holds ${count} rows of width ${width}`);
  const expected: [string, string][] = [
    ['format_version', FORMAT_VERSION],
    ['cleaned_prompt', identity.cleaned],
    ['mode', modeName(identity.mode)],
    ['content_sha256', contentSum(rows.bytes, ids.bytes)],
  ];
  if (identity.textHash !== null) expected.push(['text_hash', identity.textHash]);
  for (const [key, value] of expected) if (metadata[key] !== value) throw new Error(`its ${key} does not fit`);
  return { prompt: { cleaned: identity.cleaned, rows: new Float32Array(aligned(rows)), count, ids: new Int32Array(aligned(ids)) }, metadata };
}

async function readEntry(file: string): Promise<Buffer | null> {
  try {
    return await readFile(file);
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes((cause as NodeJS.ErrnoException).code ?? '')) return null;
    throw cause;
  }
}

interface LookupWithMetadata {
  readonly result: PromptLookup;
  readonly metadata: Readonly<Record<string, string>>;
}

async function lookUp(file: string, identity: PromptIdentity): Promise<LookupWithMetadata> {
  try {
    const bytes = await readEntry(file);
    if (bytes === null) return { result: { kind: 'absent' }, metadata: {} };
    const { prompt, metadata } = parsePrompt(bytes, identity);
    return { result: { kind: 'found', prompt }, metadata };
  } catch (cause) {
    return { result: { kind: 'damaged', file, reason: (cause as Error).message }, metadata: {} };
  }
}

/**
 * Looks a prompt up among the checkpoint's precomputed ones. Errors: PROMPT_FOREIGN, when the file was made for another checkpoint: using it would
 * make the robot do something else than it was told.
 */
export async function findPrecomputed(folder: string, identity: PromptIdentity & { readonly checkpointHash: string }): Promise<PromptLookup> {
  const file = precomputedFile(folder, identity.cleaned, identity.mode);
  const { result, metadata } = await lookUp(file, identity);
  const found = metadata['checkpoint_hash'] ?? '';
  if (result.kind !== 'found' || found === identity.checkpointHash) return result;
  const message =
    `The precomputed embeddings of "${identity.cleaned}" in ${file} belong to another checkpoint: expected checkpoint hash ` +
    `${identity.checkpointHash}, found ${found === '' ? 'none' : found}. Run "premotor prompt" for this checkpoint and copy its ` +
    `prompts folder, or delete the file.`;
  throw new PremotorError('PROMPT_FOREIGN', message, { file, expected: identity.checkpointHash, found });
}

/** Looks a prompt up in the cache; a hit is marked as used. */
export async function findCached(folder: string, identity: PromptIdentity & { readonly textHash: string }): Promise<PromptLookup> {
  const file = cacheFile(folder, identity.cleaned, identity.mode, identity.textHash);
  const { result } = await lookUp(file, identity);
  // The time of last use only orders the removal of old entries, so a read-only cache is no error.
  if (result.kind === 'found') await utimes(file, new Date(), new Date()).catch(() => undefined);
  return result;
}

/** Removes the entries used longest ago when there are more than `entriesMax`, and temporary files that a dead process left. */
export async function pruneCache(folder: string, entriesMax: number = CACHE_ENTRIES_MAX): Promise<void> {
  const used: { path: string; at: number }[] = [];
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const info = await stat(path).catch(() => null);
    if (info === null) continue;
    const left = /^[0-9a-f]{64}\.safetensors\.\d+\.[0-9a-f]+\.tmp$/.test(name) && Date.now() - info.mtimeMs > 3_600_000;
    if (left) await rm(path, { force: true });
    else if (/^[0-9a-f]{64}\.safetensors$/.test(name)) used.push({ path, at: info.mtimeMs });
  }
  used.sort((a, b) => b.at - a.at);
  for (const { path } of used.slice(entriesMax)) await rm(path, { force: true });
}
