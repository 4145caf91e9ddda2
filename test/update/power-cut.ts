/**
 * A disk whose power fails at a chosen operation, and which then loses what a real one may lose: names that were not synchronised, from a random one
 * on, and the end of a file that was not closed. Not a test itself.
 */
import {
  closeSync,
  cpSync,
  existsSync,
  lstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { type Disk, type NewFile, realDisk } from '../../src/update/disk.js';

export class PowerCut extends Error {}

/** A disk that synchronises nothing: thousands of synchronisations take minutes on a busy machine, and no test can see what they do. */
export const hastyDisk: Disk = { ...realDisk, create: async (path) => new HastyFile(path), sync: async () => undefined };

class HastyFile implements NewFile {
  readonly #fd: number;

  constructor(path: string) {
    this.#fd = openSync(path, 'w');
  }

  async write(bytes: Uint8Array): Promise<void> {
    writeSync(this.#fd, bytes);
  }

  async close(): Promise<void> {
    closeSync(this.#fd);
  }
}

interface Unsynced {
  readonly folder: string;
  undo(): void;
}

const exists = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false }) !== undefined;

export class FailingDisk implements Disk {
  operations = 0;
  readonly #cutAt: number;
  readonly #random: () => number;
  #unsynced: Unsynced[] = [];
  #open: { path: string; bytes: number }[] = [];

  constructor(cutAt: number, random: () => number) {
    this.#cutAt = cutAt;
    this.#random = random;
  }

  #step(): void {
    if (this.operations >= this.#cutAt) throw new PowerCut(`operation ${this.operations}`);
    this.operations++;
  }

  #owe(path: string, undo: () => void): void {
    this.#unsynced.push({ folder: dirname(path), undo });
  }

  async folder(path: string): Promise<void> {
    this.#step();
    const made: string[] = [];
    for (let at = path; !existsSync(at); at = dirname(at)) made.unshift(at);
    await hastyDisk.folder(path);
    for (const at of made) this.#owe(at, () => rmSync(at, { recursive: true, force: true }));
  }

  async create(path: string) {
    this.#step();
    const isNew = !exists(path);
    const file = await hastyDisk.create(path);
    if (isNew) this.#owe(path, () => rmSync(path, { force: true }));
    const open = { path, bytes: 0 };
    this.#open.push(open);
    return {
      write: async (bytes: Uint8Array) => {
        this.#step();
        await file.write(bytes);
        open.bytes += bytes.length;
      },
      close: async () => {
        // The file must be closed in any case, or the test runs out of them.
        await file.close();
        this.#step();
        this.#open = this.#open.filter((other) => other !== open);
      },
    };
  }

  async sync(path: string): Promise<void> {
    this.#step();
    this.#unsynced = this.#unsynced.filter(({ folder }) => folder !== path);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#step();
    const before = kept(to);
    await hastyDisk.rename(from, to);
    this.#owe(to, () => {
      if (exists(to)) renameSync(to, from);
      before();
    });
  }

  async link(target: string, path: string): Promise<void> {
    this.#step();
    await hastyDisk.link(target, path);
    this.#owe(path, () => rmSync(path, { force: true }));
  }

  async remove(path: string): Promise<void> {
    this.#step();
    if (!exists(path)) return;
    const before = kept(path);
    await hastyDisk.remove(path);
    this.#owe(path, before);
  }

  /** What is left after the power came back. Names are lost from a random one on, newest first, as a journalling file system loses them. */
  lose(): void {
    for (const { path, bytes } of this.#open) if (existsSync(path)) truncateSync(path, Math.floor(this.#random() * (bytes + 1)));
    const from = Math.floor(this.#random() * (this.#unsynced.length + 1));
    for (const { undo } of this.#unsynced.slice(from).reverse()) undo();
  }
}

/** Puts back what was at a path. */
function kept(path: string): () => void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return () => undefined;
  if (stat.isSymbolicLink()) {
    const target = readlinkSync(path);
    return () => symlinkSync(target, path);
  }
  if (stat.isFile()) {
    const content = readFileSync(path);
    return () => writeFileSync(path, content);
  }
  const aside = `${path}.aside-${Math.floor(performance.now() * 1000)}`;
  cpSync(path, aside, { recursive: true });
  return () => renameSync(aside, path);
}
