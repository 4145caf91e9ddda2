/**
 * The safetensors container, as far as the supervisor needs it: bounded header reading for hashing, and whole small files for prompt embeddings.
 * Weights are never read here; the engine maps those itself. Format: u64 little-endian header length, JSON header, tensor bytes.
 */
import type { FileHandle } from 'node:fs/promises';

/** As in the engine: a header longer than this is not believed. */
export const HEADER_BYTES_MAX = 100 * 1024 * 1024;

export interface TensorEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Offsets from the end of the header. */
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: readonly TensorEntry[];
}

/** A tensor to write: `bytes` is its data in file order. */
export interface TensorData {
  readonly dtype: 'F32' | 'I32';
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function parseEntry(name: string, value: unknown): TensorEntry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown };
  if (typeof dtype !== 'string' || !Array.isArray(shape) || !shape.every(isCount)) throw new Error(`tensor ${name} has no dtype or shape`);
  const [begin, end] = Array.isArray(offsets) && offsets.length === 2 ? (offsets as unknown[]) : [];
  if (!isCount(begin) || !isCount(end) || end < begin) throw new Error(`tensor ${name} has no data_offsets`);
  return { name, dtype, shape: shape as number[], begin, end };
}

/** Parses a header's JSON. Throws a plain Error that says what is wrong; callers know which file and which code. */
export function parseHeader(json: string): Header {
  const parsed: unknown = JSON.parse(json);
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw new Error('the header is not a JSON object');
  const tensors: TensorEntry[] = [];
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(parsed)) {
    if (name !== '__metadata__') tensors.push(parseEntry(name, value));
    else for (const [key, text] of Object.entries((value ?? {}) as object)) metadata[key] = String(text);
  }
  return { metadata, tensors };
}

/** Reads exactly `length` bytes at `position`. Throws a plain Error when the file is shorter. */
export async function readExactly(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, length - done, position + done);
    if (bytesRead === 0) throw new Error(`the file ends at byte ${position + done}, ${length - done} bytes early`);
    done += bytesRead;
  }
  return buffer;
}

/** Reads the header's bytes (the JSON text) of an open file of `size` bytes. Throws a plain Error when there is none. */
export async function readHeaderBytes(file: FileHandle, size: number): Promise<Buffer> {
  const length = (await readExactly(file, 0, 8)).readBigUInt64LE();
  if (length > BigInt(HEADER_BYTES_MAX) || length + 8n > BigInt(size)) throw new Error(`the header claims ${length} bytes in a file of ${size}`);
  return readExactly(file, 8, Number(length));
}

export interface SmallFile {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, TensorData>;
}

/** Takes a whole file apart. Throws a plain Error unless header and data fit each other to the byte. */
export function decodeSafetensors(bytes: Buffer): SmallFile {
  if (bytes.length < 8) throw new Error('the file is shorter than a header');
  const length = bytes.readBigUInt64LE();
  if (length > BigInt(bytes.length - 8)) throw new Error('the file ends inside its header');
  const data = bytes.subarray(8 + Number(length));
  const header = parseHeader(bytes.toString('utf8', 8, 8 + Number(length)));
  const tensors = new Map<string, TensorData>();
  let total = 0;
  for (const { name, dtype, shape, begin, end } of header.tensors) {
    const elements = shape.reduce((product, extent) => product * extent, 1);
    if (dtype !== 'F32' && dtype !== 'I32') throw new Error(`tensor ${name} is ${dtype}`);
    if (end - begin !== elements * 4 || end > data.length) throw new Error(`tensor ${name} does not fit its bytes`);
    total += end - begin;
    tensors.set(name, { dtype, shape, bytes: data.subarray(begin, end) });
  }
  if (total !== data.length) throw new Error(`the tensors cover ${total} of ${data.length} bytes`);
  return { metadata: header.metadata, tensors };
}

/** Puts a file together; data starts on a multiple of 8 bytes. */
export function encodeSafetensors(metadata: SmallFile['metadata'], tensors: SmallFile['tensors']): Buffer {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  let json = JSON.stringify(header);
  json += ' '.repeat((8 - (Buffer.byteLength(json) % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(json)));
  return Buffer.concat([length, Buffer.from(json), ...[...tensors.values()].map((tensor) => tensor.bytes)]);
}
