/**
 * Reads safetensors files: checks the whole header when the file is opened, reads a tensor's bytes only when they are asked for. For tools, tests and
 * the command line; the engine maps checkpoints itself (cpp/engine/safetensors.h) and this file never hands it data.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { PremotorError } from '../errors.js';
import { bytesOf, elementsOf, isStoredDtype, type StoredDtype, toFloat32, toInt32 } from './dtypes.js';

/** Longer headers are not believed; the format's own limit. */
export const HEADER_BYTES_MAX = 100 * 1000 * 1000;
const READ_BYTES_MAX = 1 << 30;

export interface StoredTensor {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  /** First byte and one past the last, counted from the start of the file. */
  readonly begin: number;
  readonly end: number;
}

export class SafetensorsFile {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  #descriptor: number | undefined;

  private constructor(path: string, descriptor: number, header: Header) {
    this.path = path;
    this.#descriptor = descriptor;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
  }

  /** Opens and checks a file. Errors: CHECKPOINT_MISSING_FILE, _TRUNCATED, _HEADER, _OVERLAP, _OVERSIZED, _DTYPE, _SHAPE. */
  static open(path: string): SafetensorsFile {
    let descriptor: number;
    try {
      descriptor = openSync(path, 'r');
    } catch (cause) {
      const found = (cause as Error).message;
      throw new PremotorError('CHECKPOINT_MISSING_FILE', `Expected a safetensors file at ${path}, found none (${found}).`, {
        file: path,
        found,
        cause,
      });
    }
    try {
      const { size } = fstatSync(descriptor);
      return new SafetensorsFile(path, descriptor, readHeader(path, descriptor, size));
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
  }

  /** One tensor's entry. Errors: CHECKPOINT_MISSING_TENSOR. */
  tensor(name: string): StoredTensor {
    const entry = this.tensors.get(name);
    if (entry === undefined) {
      const near = [...this.tensors.keys()].slice(0, 3).join(', ');
      throw new PremotorError('CHECKPOINT_MISSING_TENSOR', `${this.path} has no tensor ${name}; it holds ${this.tensors.size} (${near}, ...).`, {
        file: this.path,
        tensor: name,
      });
    }
    return entry;
  }

  /** The tensor's bytes, read now. */
  bytes(name: string): Uint8Array {
    const { begin, end } = this.tensor(name);
    if (this.#descriptor === undefined) throw this.#closed(name);
    return readExactly(this.path, this.#descriptor, begin, end - begin);
  }

  /** The tensor's bytes piece by piece, each in a buffer of its own; `pieceBytes` is a multiple of 8. */
  *pieces(name: string, pieceBytes: number): Generator<Uint8Array> {
    const { begin, end } = this.tensor(name);
    for (let at = begin; at < end; at += pieceBytes) {
      if (this.#descriptor === undefined) throw this.#closed(name);
      yield readExactly(this.path, this.#descriptor, at, Math.min(pieceBytes, end - at));
    }
  }

  /** The tensor as float32 values, whatever it is stored as. */
  float32(name: string): Float32Array {
    return toFloat32(this.tensor(name).dtype, this.bytes(name));
  }

  /** The tensor as int32 values. Errors: CHECKPOINT_DTYPE when it holds floats. */
  int32(name: string): Int32Array {
    return toInt32(this.tensor(name).dtype, this.bytes(name));
  }

  /** Idempotent. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #closed(name: string): PremotorError {
    return new PremotorError('FILE_CLOSED', `${this.path} was closed before ${name} was read.`, { file: this.path });
  }
}

interface Header {
  readonly metadata: Record<string, string>;
  readonly tensors: Map<string, StoredTensor>;
}

function readExactly(path: string, descriptor: number, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const count = readSync(descriptor, bytes, done, Math.min(length - done, READ_BYTES_MAX), position + done);
    if (count === 0) throw fault('CHECKPOINT_TRUNCATED', path, `${position + length} bytes`, `${position + done} bytes`);
    done += count;
  }
  return bytes;
}

function readHeader(path: string, descriptor: number, size: number): Header {
  if (size < 8) throw fault('CHECKPOINT_TRUNCATED', path, 'at least 8 bytes', `${size} bytes`);
  const first = readExactly(path, descriptor, 0, 8);
  const length = new DataView(first.buffer).getBigUint64(0, true);
  if (length > BigInt(HEADER_BYTES_MAX)) throw fault('CHECKPOINT_HEADER', path, `a header of at most ${HEADER_BYTES_MAX} bytes`, `${length} bytes`);
  const headerBytes = Number(length);
  if (8 + headerBytes > size) throw fault('CHECKPOINT_TRUNCATED', path, `a header of ${headerBytes} bytes`, `a file of ${size} bytes`);
  let parsed: unknown;
  try {
    const decoder = new TextDecoder('utf-8', { fatal: true });
    parsed = JSON.parse(decoder.decode(readExactly(path, descriptor, 8, headerBytes)));
  } catch (cause) {
    throw fault('CHECKPOINT_HEADER', path, 'a JSON header', (cause as Error).message);
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    throw fault('CHECKPOINT_HEADER', path, 'a JSON object', 'another value');
  const { __metadata__: metadata, ...entries } = parsed as Record<string, unknown>;
  const tensors = new Map<string, StoredTensor>();
  for (const [name, value] of Object.entries(entries)) tensors.set(name, parseEntry(path, name, value, 8 + headerBytes, size));
  checkCoverage(path, [...tensors.values()], 8 + headerBytes, size);
  return { metadata: Object.fromEntries(Object.entries((metadata ?? {}) as object).map(([key, text]) => [key, String(text)])), tensors };
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function parseEntry(path: string, name: string, value: unknown, dataStart: number, size: number): StoredTensor {
  const { dtype, shape, data_offsets: offsets } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  if (!isStoredDtype(dtype)) throw fault('CHECKPOINT_DTYPE', path, 'a known dtype', JSON.stringify(dtype) ?? 'none', name);
  if (!Array.isArray(shape) || !shape.every(isCount)) throw fault('CHECKPOINT_SHAPE', path, 'a list of sizes', JSON.stringify(shape) ?? 'none', name);
  const bytes = elementsOf(shape) * bytesOf(dtype);
  if (!Number.isSafeInteger(bytes)) throw fault('CHECKPOINT_SHAPE', path, 'fewer than 2^53 bytes', `shape [${shape.join(', ')}]`, name);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw fault('CHECKPOINT_HEADER', path, 'two data_offsets', JSON.stringify(offsets) ?? 'none', name);
  }
  const [begin, end] = offsets as [number, number];
  if (end - begin !== bytes) throw fault('CHECKPOINT_SHAPE', path, `${bytes} bytes for ${dtype} [${shape.join(', ')}]`, `${end - begin} bytes`, name);
  if (dataStart + end > size) throw fault('CHECKPOINT_TRUNCATED', path, `data up to byte ${dataStart + end}`, `a file of ${size} bytes`, name);
  return { name, dtype, shape, begin: dataStart + begin, end: dataStart + end };
}

/** Tensors must lie end to end and fill the file, so that no byte belongs to two or to none. */
function checkCoverage(path: string, tensors: StoredTensor[], dataStart: number, size: number): void {
  let next = dataStart;
  for (const tensor of tensors.sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (tensor.begin < next) throw fault('CHECKPOINT_OVERLAP', path, `a start at byte ${next} or later`, `byte ${tensor.begin}`, tensor.name);
    if (tensor.begin > next)
      throw fault('CHECKPOINT_HEADER', path, `no hole before byte ${tensor.begin}`, `${tensor.begin - next} bytes`, tensor.name);
    next = tensor.end;
  }
  if (next < size) throw fault('CHECKPOINT_OVERSIZED', path, `a file of ${next} bytes`, `${size} bytes`);
}

function fault(code: string, path: string, expected: string, found: string, tensor?: string): PremotorError {
  const where = tensor === undefined ? path : `${path}, tensor ${tensor}`;
  const message = `${where}: expected ${expected}, found ${found}. Fetch the file again.`;
  return new PremotorError(code, message, { file: path, ...(tensor === undefined ? {} : { tensor }), expected, found });
}
