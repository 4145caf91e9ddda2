/**
 * The file operations of which updates consist, each durable when its promise resolves: what is named by one of them survives a power cut, or was
 * never there. An interface, so that a test can cut the power between any two. Owned by the update commands; no formats, no decisions.
 */
import { type FileHandle, mkdir, open, readFile, readlink, rename, rm, symlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncFolder } from '../journal/durable.js';

/** A file that is being written; it is durable once closed. */
export interface NewFile {
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export interface Disk {
  /** Makes a folder and those above it. */
  folder(path: string): Promise<void>;
  create(path: string): Promise<NewFile>;
  /** Makes a folder's list of names durable. */
  sync(path: string): Promise<void>;
  /** Atomic: afterwards `to` is what `from` was. Durable with the next sync of its folder. */
  rename(from: string, to: string): Promise<void>;
  link(target: string, path: string): Promise<void>;
  remove(path: string): Promise<void>;
}

export const realDisk: Disk = {
  folder: async (path) => void (await mkdir(path, { recursive: true })),
  create: async (path) => new RealFile(await open(path, 'w', 0o644)),
  sync: syncFolder,
  rename,
  link: symlink,
  remove: (path) => rm(path, { recursive: true, force: true }),
};

class RealFile implements NewFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) done += (await this.#handle.write(bytes, done, bytes.length - done)).bytesWritten;
  }

  async close(): Promise<void> {
    try {
      await this.#handle.sync();
    } finally {
      await this.#handle.close();
    }
  }
}

/** Replaces a small file as a whole: whoever reads, now or after a power cut, finds the old or the new content. */
export async function replaceFile(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const beside = `${path}.new`;
  const file = await disk.create(beside);
  try {
    await file.write(bytes);
  } finally {
    await file.close();
  }
  await disk.rename(beside, path);
  await disk.sync(dirname(path));
}

/** Points a symbolic link elsewhere in one step. */
export async function replaceLink(disk: Disk, target: string, path: string): Promise<void> {
  const beside = `${path}.new`;
  await disk.remove(beside);
  await disk.link(target, beside);
  await disk.rename(beside, path);
  await disk.sync(dirname(path));
}

/** Where a link points, or undefined when there is none. */
export async function linkTarget(path: string): Promise<string | undefined> {
  return readlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}

/** A file's text, or undefined when there is none. */
export async function textIn(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw error;
  });
}
