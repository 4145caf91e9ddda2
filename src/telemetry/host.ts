/**
 * The health of the computer: load, memory, disk, uptime, temperatures of Linux's thermal zones. Owned by the telemetry of a run, which asks now and
 * then; what cannot be read is null, and nothing is ever written.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { readFile, statfs } from 'node:fs/promises';
import { loadavg, totalmem, uptime } from 'node:os';
import { join } from 'node:path';
import type { MetricValue } from './payload.js';

const THERMAL = '/sys/class/thermal';

/** A thermal zone and what the kernel calls it. */
interface Zone {
  readonly sensor: string;
  readonly file: string;
}

function zonesIn(folder: string): readonly Zone[] {
  const seen = new Map<string, number>();
  try {
    const names = readdirSync(folder).filter((name) => /^thermal_zone\d+$/.test(name));
    return names
      .sort((a, b) => Number(a.slice(12)) - Number(b.slice(12)))
      .map((name) => {
        // What is no letter or digit is discouraged in names of metrics.
        const type =
          readFileSync(join(folder, name, 'type'), 'utf8')
            .trim()
            .replace(/[^A-Za-z0-9_-]+/g, '-') || name;
        const count = (seen.get(type) ?? 0) + 1;
        seen.set(type, count);
        return { sensor: count === 1 ? type : `${type}-${count}`, file: join(folder, name, 'temp') };
      });
  } catch {
    return [];
  }
}

export interface HostFolders {
  /** On the disk whose free space counts. */
  readonly disk: string;
  readonly thermal?: string;
  readonly proc?: string;
}

export class Host {
  readonly #folders: HostFolders;
  readonly #zones: readonly Zone[];

  constructor(folders: HostFolders) {
    this.#folders = folders;
    this.#zones = zonesIn(folders.thermal ?? THERMAL);
  }

  get sensors(): readonly string[] {
    return this.#zones.map(({ sensor }) => sensor);
  }

  /** Values by the names of metrics. */
  async read(): Promise<ReadonlyMap<string, MetricValue>> {
    const [free, disk, temperatures] = await Promise.all([this.#memoryFree(), this.#diskFree(), Promise.all(this.#zones.map(temperature))]);
    return new Map<string, MetricValue>([
      ['Host/Load', loadavg()[0] ?? null],
      ['Host/Memory Total', totalmem()],
      ['Host/Memory Free', free],
      ['Host/Disk Free', disk],
      ['Host/Uptime', Math.floor(uptime())],
      ['Host/Process Memory', process.memoryUsage.rss()],
      ...temperatures,
    ]);
  }

  /** What could be had without swapping; os.freemem() would not count what is merely cached. */
  async #memoryFree(): Promise<number | null> {
    try {
      const text = await readFile(join(this.#folders.proc ?? '/proc', 'meminfo'), 'utf8');
      const [, kib] = /^MemAvailable:\s+(\d+) kB$/m.exec(text) ?? [];
      return kib === undefined ? null : Number(kib) * 1024;
    } catch {
      return null;
    }
  }

  async #diskFree(): Promise<number | null> {
    try {
      const { bavail, bsize } = await statfs(this.#folders.disk);
      return bavail * bsize;
    } catch {
      return null;
    }
  }
}

/** Thousandths of a degree; zones that are switched off cannot be read. */
async function temperature({ sensor, file }: Zone): Promise<readonly [string, number | null]> {
  try {
    const text = (await readFile(file, 'utf8')).trim();
    return [`Host/Temperature/${sensor}`, /^-?\d+$/.test(text) ? Number(text) / 1000 : null];
  } catch {
    return [`Host/Temperature/${sensor}`, null];
  }
}
