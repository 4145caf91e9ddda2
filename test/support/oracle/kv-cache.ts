/**
 * The oracle's KV cache: an array of slots, each empty or an entry with its id, its flag and its keys and values. The semantics are the reference's
 * (docs/MODEL.md section 5), written down literally; nothing is shared with the engine's cache.
 */

/** update_cache of the reference: undone after the pass, dropped by the next commit, kept. */
export type Update = 'temporary' | 'predicted' | 'committed';

export interface Entry {
  readonly id: number;
  readonly predicted: boolean;
  /** Which call of the episode wrote it; a trace lists what its own call wrote. */
  readonly call: number;
  /** [guidance row][layer] -> [heads * head_dim], the key after norm and RoPE. */
  readonly k: Float64Array[][];
  readonly v: Float64Array[][];
}

export class OracleCache {
  readonly slots: (Entry | undefined)[];

  constructor(capacity: number) {
    this.slots = new Array<Entry | undefined>(capacity).fill(undefined);
  }

  get valid(): Entry[] {
    return this.slots.filter((entry) => entry !== undefined);
  }

  /**
   * Takes `count` slots under one new id. Free slots go first, in ascending order; when too few are free, the entries with the lowest ids are
   * evicted for good (inside one id the reference leaves the order open; here the lowest slots go first).
   */
  write(count: number, update: Update, rows: number, call: number): Entry[] {
    const free = () => this.slots.filter((entry) => entry === undefined).length;
    while (free() < count) {
      const lowest = Math.min(...this.valid.map((entry) => entry.id));
      this.slots[this.slots.findIndex((entry) => entry?.id === lowest)] = undefined;
    }
    const id = Math.max(-1, ...this.valid.map((entry) => entry.id)) + 1;
    const empty = (): Float64Array[][] => Array.from({ length: rows }, () => []);
    return Array.from({ length: count }, () => {
      const entry: Entry = { id, predicted: update === 'predicted', call, k: empty(), v: empty() };
      this.slots[this.slots.indexOf(undefined)] = entry;
      return entry;
    });
  }

  /** Undoes a temporary write; what it evicted stays evicted. */
  remove(entries: readonly Entry[]): void {
    for (const entry of entries) this.slots[this.slots.indexOf(entry)] = undefined;
  }

  dropPredicted(): void {
    this.remove(this.valid.filter((entry) => entry.predicted));
  }
}
