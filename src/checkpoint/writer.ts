/**
 * Writes safetensors files as streams: values are asked for piece by piece while the previous piece goes to disk, so a file may be larger than
 * memory. A file appears under its name only when it is complete. Owned by the checkpoint tools; it never decides what a tensor holds.
 */
import { type FileHandle, mkdir, open, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PremotorError } from '../errors.js';
import { bytesOf, elementsOf, type StoredDtype } from './dtypes.js';

export interface TensorPlan {
  readonly name: string;
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
}

/** Fills `target` with the plan's values from element `first` on. `first` is even; `target` starts at a multiple of the element size. */
export type FillTensor = (plan: TensorPlan, first: number, target: Uint8Array) => void;

export interface WriteOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  /** Called as bytes are handed to the disk, with their number since the last call. */
  readonly onBytes?: (bytes: number) => void;
  readonly signal?: AbortSignal;
  /** Bytes per piece, a multiple of 16; two pieces are held in memory. */
  readonly pieceBytes?: number;
}

const PIECE_BYTES = 8 << 20;
/** What may stay unused on the disk after a write was allowed. */
const RESERVE_BYTES = 256 << 20;

export const planBytes = (plan: TensorPlan): number => elementsOf(plan.shape) * bytesOf(plan.dtype);

/** Two buffers: one is filled while the other is written. */
class PieceStream {
  readonly #file: FileHandle;
  readonly #options: WriteOptions;
  readonly #pieces: [Uint8Array, Uint8Array];
  #used = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(file: FileHandle, options: WriteOptions) {
    const pieceBytes = options.pieceBytes ?? PIECE_BYTES;
    this.#file = file;
    this.#options = options;
    this.#pieces = [new Uint8Array(pieceBytes), new Uint8Array(pieceBytes)];
  }

  /** Room for at most `bytes`, at least 16, in the piece being filled. */
  async take(bytes: number): Promise<Uint8Array> {
    if (this.#pieces[0].length - this.#used < 16) await this.flush();
    const room = this.#pieces[0].length - this.#used;
    // A tensor that does not fit is cut at a multiple of 16 bytes: whole elements, and an even number of them.
    const view = this.#pieces[0].subarray(this.#used, this.#used + (bytes <= room ? bytes : room - (room % 16)));
    this.#used += view.length;
    return view;
  }

  async flush(): Promise<void> {
    this.#options.signal?.throwIfAborted();
    await this.#writing;
    const full = this.#pieces[0].subarray(0, this.#used);
    this.#pieces.reverse();
    this.#used = 0;
    this.#writing = this.#write(full);
    // The error is thrown by the next flush or by finish; without this line Node would report it before anyone waits.
    this.#writing.catch(() => undefined);
  }

  async finish(): Promise<void> {
    await this.flush();
    await this.#writing;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    let done = 0;
    while (done < bytes.length) done += (await this.#file.write(bytes, done, bytes.length - done)).bytesWritten;
    this.#options.onBytes?.(bytes.length);
  }
}

/** Writes one file. Wide types come first, so that every tensor lies at a multiple of its element size. Errors: DISK_FULL, FILE_WRITE, ABORTED. */
export async function writeSafetensors(path: string, plans: readonly TensorPlan[], fill: FillTensor, options: WriteOptions = {}): Promise<void> {
  const ordered = [...plans].sort((a, b) => bytesOf(b.dtype) - bytesOf(a.dtype));
  const part = join(dirname(path), `.${basename(path)}.part`);
  try {
    await mkdir(dirname(path), { recursive: true });
    const file = await open(part, 'w');
    try {
      await file.write(headerOf(ordered, options.metadata ?? { format: 'pt' }));
      const stream = new PieceStream(file, options);
      for (const plan of ordered) await writeTensor(stream, plan, fill);
      await stream.finish();
    } finally {
      await file.close();
    }
    await rename(part, path);
  } catch (cause) {
    // What went wrong with the write is reported, not what goes wrong with clearing up after it.
    await rm(part, { force: true }).catch(() => undefined);
    throw writeFault(path, cause, options.signal);
  }
}

async function writeTensor(stream: PieceStream, plan: TensorPlan, fill: FillTensor): Promise<void> {
  const size = bytesOf(plan.dtype);
  let left = elementsOf(plan.shape);
  let first = 0;
  while (left > 0) {
    const room = await stream.take(left * size);
    const count = room.length / size;
    fill(plan, first, room);
    first += count;
    left -= count;
  }
}

function headerOf(plans: readonly TensorPlan[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const entries: Record<string, unknown> = { __metadata__: metadata };
  let begin = 0;
  for (const plan of plans) {
    if (Object.hasOwn(entries, plan.name)) throw new Error(`two tensors are named ${plan.name}`);
    const end = begin + planBytes(plan);
    entries[plan.name] = { dtype: plan.dtype, shape: plan.shape, data_offsets: [begin, end] };
    begin = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(entries));
  // The data must start at a multiple of 8; the format allows trailing spaces for that.
  const padded = Math.ceil(json.length / 8) * 8;
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return header;
}

/** Writes a component folder's weights: one file, or `shards` files with their index. `stem` is the file name without its ending. */
export async function writeComponent(
  folder: string,
  stem: string,
  plans: readonly TensorPlan[],
  fill: FillTensor,
  options: WriteOptions & { readonly shards?: number } = {},
): Promise<void> {
  const parts = splitPlans(plans, options.shards ?? 1);
  if (parts.length === 1) return writeSafetensors(join(folder, `${stem}.safetensors`), plans, fill, options);
  const digits = (value: number): string => String(value).padStart(5, '0');
  const weightMap: Record<string, string> = {};
  for (const [index, part] of parts.entries()) {
    const name = `${stem}-${digits(index + 1)}-of-${digits(parts.length)}.safetensors`;
    await writeSafetensors(join(folder, name), part, fill, options);
    for (const plan of part) weightMap[plan.name] = name;
  }
  const index = { metadata: { total_size: plans.reduce((sum, plan) => sum + planBytes(plan), 0) }, weight_map: weightMap };
  await writeFile(join(folder, `${stem}.safetensors.index.json`), `${JSON.stringify(index, null, 2)}\n`);
}

/** Cuts a list into at most `count` runs of about equal bytes; no run is empty. */
export function splitPlans(plans: readonly TensorPlan[], count: number): TensorPlan[][] {
  const total = plans.reduce((sum, plan) => sum + planBytes(plan), 0);
  const parts: TensorPlan[][] = [];
  let done = 0;
  for (const plan of plans) {
    const part = Math.min(count - 1, Math.floor((done / Math.max(1, total)) * count));
    while (parts.length <= part) parts.push([]);
    parts[part]?.push(plan);
    done += planBytes(plan);
  }
  return parts.filter((part) => part.length > 0);
}

/** Checks that `folder`'s disk takes `bytes` more. Errors: DISK_FULL. */
export async function requireFreeSpace(folder: string, bytes: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free >= bytes + RESERVE_BYTES) return;
  const expected = `${((bytes + RESERVE_BYTES) / 1e9).toFixed(1)} GB free`;
  const found = `${(free / 1e9).toFixed(1)} GB`;
  throw new PremotorError(
    'DISK_FULL',
    `The disk of ${folder} is too full: expected ${expected}, found ${found}. Free space or choose another folder.`,
    {
      file: folder,
      expected,
      found,
    },
  );
}

function writeFault(path: string, cause: unknown, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) return new PremotorError('ABORTED', `Writing ${path} was stopped.`, { file: path, cause });
  if (cause instanceof PremotorError) return cause;
  const system = (cause as NodeJS.ErrnoException).code;
  if (system === undefined) return cause;
  const code = system === 'ENOSPC' ? 'DISK_FULL' : 'FILE_WRITE';
  return new PremotorError(code, `${path} cannot be written: ${(cause as Error).message}. Check the disk and the folder's rights.`, {
    file: path,
    cause,
  });
}
