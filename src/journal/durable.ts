/**
 * Writing that outlives a power cut: files and folders are synchronised with the disk before a promise resolves. Owned by the journal and by replay
 * records; no content, no formats.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Makes a folder's list of names durable: a new file can be lost with it although its content was written. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces the content of a file in place. Who reads it in between must be able to tell. */
export async function writeDurably(file: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(file, 'w');
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A file that only grows. */
export class DurableLog {
  readonly #handle: FileHandle;
  #bytes: number;

  private constructor(handle: FileHandle, bytes: number) {
    this.#handle = handle;
    this.#bytes = bytes;
  }

  /** A new file, which must not exist yet. */
  static async create(file: string): Promise<DurableLog> {
    const log = new DurableLog(await open(file, 'wx'), 0);
    await syncFolder(dirname(file));
    return log;
  }

  /** A new file in the place of an old one. */
  static async replace(file: string): Promise<DurableLog> {
    return new DurableLog(await open(file, 'w'), 0);
  }

  /** An existing file, cut to the bytes that are to stay. */
  static async reopen(file: string, bytes: number): Promise<DurableLog> {
    const handle = await open(file, 'r+');
    await handle.truncate(bytes);
    await handle.sync();
    return new DurableLog(handle, bytes);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Appends and synchronises. Calls must not overlap: their owner awaits each. */
  async append(bytes: Uint8Array, sync = true): Promise<void> {
    const at = this.#bytes;
    for (let done = 0; done < bytes.length; ) done += (await this.#handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
    this.#bytes = at + bytes.length;
    if (sync) await this.#handle.datasync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
