/**
 * Writes an image to a disk and reads it back. The partition table is written last: a disk whose writing was interrupted starts nothing. Owned by
 * `premotor image flash`; devices.ts has judged the disk before, and the device is reached only through the DeviceIo that the caller gives.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { PremotorError } from '../errors.js';
import { checkDisk, type Disk, type SystemView } from './devices.js';
import { MIB } from './layout.js';
import { runTool } from './tools.js';

/** An open device: the part of a FileHandle that flashing uses. */
export type DeviceHandle = Pick<FileHandle, 'write' | 'read' | 'sync' | 'close'>;

export interface DeviceIo {
  open(path: string, mode: 'write' | 'read'): Promise<DeviceHandle>;
  /** Forgets what the kernel has cached, so that reading asks the disk. */
  flushCaches(path: string): Promise<void>;
  /** Lets the kernel see the new partitions. */
  rereadTable(path: string): Promise<void>;
}

export type FlashState = 'checking' | 'confirming' | 'writing' | 'syncing' | 'verifying' | 'done';

export interface FlashInputs {
  readonly image: string;
  readonly device: string;
  readonly view: SystemView;
  readonly io: DeviceIo;
  /** Asks for the device's name again; resolves to what was typed. */
  readonly confirm: (disk: Disk) => Promise<string>;
  readonly signal?: AbortSignal;
  readonly onProgress?: (state: FlashState, done: number, total: number) => void;
}

export interface Flashed {
  readonly disk: Disk;
  readonly bytes: number;
  readonly sha256: string;
  /** False where the kernel of this machine does not look at the new table now: the disk is right all the same. */
  readonly isTableSeen: boolean;
}

const BLOCK_BYTES = 4 * MIB;
const TABLE_BYTES = MIB;
/** "EFI PART" at the second sector. */
const GPT_OFFSET = 512;
const GPT_SIGNATURE = 'EFI PART';

export const realDevices: DeviceIo = {
  open: async (path, mode) => {
    try {
      // O_EXCL on a block device: refused while anything else has it.
      return await open(path, mode === 'write' ? constants.O_RDWR | constants.O_EXCL : constants.O_RDONLY);
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? '';
      const [expected, found] = ['a disk that can be opened alone', code];
      const advice =
        code === 'EACCES' || code === 'EPERM' ? 'Run this as root.' : 'Something else has it open: end that, and look for automatic mounts.';
      throw new PremotorError('FLASH_BUSY', `${path} cannot be opened: expected ${expected}, found ${found}. ${advice}`, {
        file: path,
        expected,
        found,
        cause,
      });
    }
  },
  flushCaches: async (path) => void (await runTool('blockdev', ['--flushbufs', path])),
  rereadTable: async (path) => void (await runTool('blockdev', ['--rereadpt', path])),
};

/** Errors: IMAGE_INPUT_INVALID, FLASH_*, ABORTED. */
export async function flash(inputs: FlashInputs): Promise<Flashed> {
  const { image, device, view, io, confirm, signal, onProgress = () => undefined } = inputs;
  onProgress('checking', 0, 1);
  const source = await openImage(image);
  try {
    const bytes = (await stat(image)).size;
    const disk = checkDisk(view, device, bytes);
    onProgress('confirming', 0, 1);
    const typed = await confirm(disk);
    if (typed !== device && typed !== disk.name) {
      const [expected, found] = [device, JSON.stringify(typed)];
      throw new PremotorError('FLASH_NOT_CONFIRMED', `Nothing was written: expected the name ${expected} again, found ${found}. Start over.`, {
        expected,
        found,
      });
    }
    // Between the question and the answer somebody may have mounted it.
    checkDisk(view, device, bytes);
    const written = await writeAll(inputs, source, bytes);
    onProgress('verifying', 0, bytes);
    await io.flushCaches(device);
    const read = await readBack(io, device, bytes, (done) => onProgress('verifying', done, bytes), signal);
    if (read !== written) throw damaged(device, written, read);
    const isTableSeen = await io.rereadTable(device).then(
      () => true,
      () => false,
    );
    onProgress('done', 1, 1);
    return { disk, bytes, sha256: written, isTableSeen };
  } finally {
    await source.close();
  }
}

const damaged = (device: string, expected: string, found: string): PremotorError =>
  new PremotorError(
    'FLASH_VERIFY_FAILED',
    `${device} does not give back what was written: expected ${expected}, found ${found}. The disk is not to be trusted: take another one.`,
    { file: device, expected, found },
  );

async function openImage(image: string): Promise<FileHandle> {
  const refused = (found: string, cause?: unknown): PremotorError =>
    new PremotorError(
      'IMAGE_INPUT_INVALID',
      `${image} is no disk image: expected a file with a GPT, found ${found}. premotor image build makes one.`,
      {
        file: image,
        expected: 'a file with a GPT',
        found,
        ...(cause === undefined ? {} : { cause }),
      },
    );
  let source: FileHandle;
  try {
    source = await open(image, 'r');
  } catch (cause) {
    throw refused((cause as Error).message, cause);
  }
  const signature = Buffer.alloc(GPT_SIGNATURE.length);
  const { bytesRead } = await source.read(signature, 0, signature.length, GPT_OFFSET).catch(() => ({ bytesRead: 0 }));
  if (bytesRead === signature.length && signature.toString('latin1') === GPT_SIGNATURE) return source;
  await source.close();
  throw refused('none');
}

/** Writes the image, its first MiB last, and returns the hash of what the image held. */
async function writeAll({ device, io, signal, onProgress = () => undefined }: FlashInputs, source: FileHandle, bytes: number): Promise<string> {
  const target = await io.open(device, 'write');
  const hash = createHash('sha256');
  const table = Buffer.alloc(TABLE_BYTES);
  try {
    await target.write(table, 0, TABLE_BYTES, 0);
    await target.sync();
    await source.read(table, 0, TABLE_BYTES, 0);
    hash.update(table);
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let at = TABLE_BYTES; at < bytes; ) {
      if (signal?.aborted === true) throw interrupted(device, at, bytes, signal.reason);
      const { bytesRead } = await source.read(block, 0, Math.min(BLOCK_BYTES, bytes - at), at);
      if (bytesRead === 0) throw interrupted(device, at, bytes, new Error('the image became shorter'));
      hash.update(block.subarray(0, bytesRead));
      await writeFully(target, block, bytesRead, at);
      at += bytesRead;
      onProgress('writing', at, bytes);
    }
    onProgress('syncing', 0, 1);
    await target.sync();
    await writeFully(target, table, TABLE_BYTES, 0);
    await target.sync();
    onProgress('syncing', 1, 1);
    return hash.digest('hex');
  } catch (error) {
    if (error instanceof PremotorError) throw error;
    throw interrupted(device, 0, bytes, error);
  } finally {
    await target.close();
  }
}

async function writeFully(target: DeviceHandle, block: Buffer, bytes: number, offset: number): Promise<void> {
  for (let done = 0; done < bytes; ) {
    const { bytesWritten } = await target.write(block, done, bytes - done, offset + done);
    if (bytesWritten === 0) throw new Error('the disk takes no more bytes');
    done += bytesWritten;
  }
}

function interrupted(device: string, at: number, bytes: number, cause: unknown): PremotorError {
  const [expected, found] = [`${bytes} bytes written`, at === 0 ? (cause instanceof Error ? cause.message : 'an error') : `an end after ${at}`];
  return new PremotorError(
    'FLASH_INTERRUPTED',
    `Writing ${device} was not finished: expected ${expected}, found ${found}. The disk has no partition table and starts nothing: flash it again.`,
    { file: device, expected, found, cause },
  );
}

async function readBack(io: DeviceIo, device: string, bytes: number, onBytes: (done: number) => void, signal?: AbortSignal): Promise<string> {
  const disk = await io.open(device, 'read');
  try {
    const hash = createHash('sha256');
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let at = 0; at < bytes; ) {
      signal?.throwIfAborted();
      const { bytesRead } = await disk.read(block, 0, Math.min(BLOCK_BYTES, bytes - at), at);
      if (bytesRead === 0) break;
      hash.update(block.subarray(0, bytesRead));
      at += bytesRead;
      onBytes(at);
    }
    return hash.digest('hex');
  } finally {
    await disk.close();
  }
}
