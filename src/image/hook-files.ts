/**
 * Files that mmdebstrap's hooks read and write. Root's hooks use them where they are. In a user namespace hooks are somebody whom the folders of a
 * user need not let in: what they read is copied into a folder that is open to all while the step runs, and what they wrote is copied out of it.
 * Owned by the image builder.
 */
import { chmodSync, copyFileSync, cpSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

const [open_folder, readable_folder, readable_program, readable_file] = [0o777, 0o755, 0o755, 0o644];

export class HookFiles {
  readonly #folder: string | undefined;
  readonly #written = new Map<string, string>();
  #count = 0;

  constructor(isRoot: boolean = process.getuid?.() === 0) {
    if (isRoot) return;
    this.#folder = mkdtempSync(join(tmpdir(), 'premotor-image-'));
    // Whatever the umask is.
    chmodSync(this.#folder, open_folder);
  }

  /** Where hooks find this file or folder. */
  read(path: string): string {
    if (this.#folder === undefined) return path;
    const copy = this.#place(path);
    cpSync(path, copy, { recursive: true });
    letAllRead(copy);
    return copy;
  }

  /** Where hooks write what is meant for `path`. */
  write(path: string): string {
    if (this.#folder === undefined) return path;
    const place = this.#place(path);
    this.#written.set(path, place);
    return place;
  }

  /** What was written is where it was meant for. */
  collect(): void {
    for (const [path, place] of this.#written) copyFileSync(place, path);
  }

  /** Idempotent. */
  close(): void {
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true });
  }

  #place(path: string): string {
    return join(this.#folder ?? '', `${++this.#count}-${basename(path)}`);
  }
}

function letAllRead(path: string): void {
  const found = statSync(path);
  if (!found.isDirectory()) {
    chmodSync(path, (found.mode & 0o111) === 0 ? readable_file : readable_program);
    return;
  }
  chmodSync(path, readable_folder);
  for (const name of readdirSync(path)) letAllRead(join(path, name));
}
