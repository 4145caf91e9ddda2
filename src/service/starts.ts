/**
 * Remembers on disk how often service and engine ended unexpectedly, so that a robot that crashes in a loop waits for a person. Owned by the
 * service. Times are of the machine's uptime: a wall clock that is stepped changes nothing, and a boot begins anew. It restarts nothing.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';

const FILE = 'starts.json';
/** More are never looked at. */
const ENTRIES_MAX = 256;

const fileSchema = z.object({
  boot: z.string(),
  entries: z.array(z.object({ kind: z.enum(['service', 'engine']), upS: z.number().min(0) })).max(ENTRIES_MAX),
});

type Entry = z.output<typeof fileSchema>['entries'][number];

export interface StartsOptions {
  readonly dir: string;
  readonly max: number;
  readonly windowS: number;
  /** The folder cannot be used: starts are counted in this process alone. */
  readonly onWarning: (error: PremotorError) => void;
  /** For tests. Default: of this machine. */
  readonly uptimeS?: () => number;
  readonly boot?: string;
}

/** The kernel's name of this boot. */
function thisBoot(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return 'unknown';
  }
}

export class Starts {
  readonly #options: StartsOptions;
  readonly #boot: string;
  readonly #uptimeS: () => number;
  /** The entry of this service's own start, until it ends in order. */
  #own: Entry | undefined;
  #entries: Entry[];
  #hasWarned = false;

  constructor(options: StartsOptions) {
    this.#options = options;
    this.#boot = options.boot ?? thisBoot();
    this.#uptimeS = options.uptimeS ?? uptime;
    this.#entries = this.#read();
  }

  /** The service starts. An entry of a start that ended in order is gone by then. */
  begin(): void {
    this.#own = this.#add('service');
  }

  /** The engine ended without having been asked to. */
  engineDied(): void {
    this.#add('engine');
  }

  /** A service of this boot ended unexpectedly within the window. */
  get hasCrashed(): boolean {
    return this.#recent().some((entry) => entry.kind === 'service' && entry !== this.#own);
  }

  /** Unexpected ends within the window: this start is none yet. */
  get count(): number {
    return this.#recent().filter((entry) => entry !== this.#own).length;
  }

  get isLooping(): boolean {
    return this.count > this.#options.max;
  }

  /** A person has seen it. */
  clear(): void {
    this.#entries = this.#own ? [this.#own] : [];
    this.#write();
  }

  /** The service ends in order. */
  end(): void {
    this.#entries = this.#entries.filter((entry) => entry !== this.#own);
    this.#own = undefined;
    this.#write();
  }

  #add(kind: Entry['kind']): Entry {
    const entry = { kind, upS: this.#uptimeS() };
    this.#entries = [...this.#recent(), entry].slice(-ENTRIES_MAX);
    this.#write();
    return entry;
  }

  #recent(): Entry[] {
    const fromS = this.#uptimeS() - this.#options.windowS;
    return this.#entries.filter((entry) => entry === this.#own || entry.upS >= fromS);
  }

  /** A file that cannot be read, or of another boot, has nothing to say. */
  #read(): Entry[] {
    try {
      const { boot, entries } = fileSchema.parse(JSON.parse(readFileSync(join(this.#options.dir, FILE), 'utf8')));
      return boot === this.#boot ? entries : [];
    } catch {
      return [];
    }
  }

  #write(): void {
    const { dir, onWarning } = this.#options;
    const path = join(dir, FILE);
    // One name for all: what a process left that was killed in between is written over.
    const fresh = `${path}.new`;
    try {
      mkdirSync(dir, { recursive: true });
      writeFileSync(fresh, JSON.stringify({ boot: this.#boot, entries: this.#entries }));
      renameSync(fresh, path);
    } catch (cause) {
      if (this.#hasWarned) return;
      this.#hasWarned = true;
      const found = (cause as Error).message;
      const remedy = `A crash loop across restarts is not noticed; give service.state_dir a folder to write.`;
      const message = `Starts cannot be remembered in ${dir}: ${found}. ${remedy}`;
      onWarning(new PremotorError('SERVICE_STATE_DIR', message, { file: dir, expected: 'a folder to write', found, cause }));
    }
  }
}
