/**
 * What went wrong, for people: every fault and warning once, with how often it came and what to do about it (the row of docs/ERRORS.md). Bounded; the
 * oldest go first. Owned by the dashboard; it decides nothing.
 */
import { readFileSync } from 'node:fs';
import type { FaultText } from './messages.js';

const FAULTS_MAX = 50;

export class FaultList {
  readonly #remedyOf: (code: string) => string;
  #faults: FaultText[] = [];
  #ids = 0;
  /** Changes with every change. */
  version = 0;

  constructor(remedyOf: (code: string) => string = remedyFromTable) {
    this.#remedyOf = remedyOf;
  }

  note(kind: FaultText['kind'], { code, message }: { readonly code: string; readonly message: string }, timeS: number): void {
    const known = this.#faults.find((one) => one.kind === kind && one.code === code && one.message === message);
    const fresh = { kind, code, message, timeS, atMs: Date.now() };
    this.#faults = this.#faults.filter((one) => one !== known).slice(-FAULTS_MAX + 1);
    this.#faults.push({ id: ++this.#ids, ...fresh, remedy: known?.remedy ?? this.#remedyOf(code), count: (known?.count ?? 0) + 1 });
    this.version++;
  }

  /** Newest first. */
  get list(): readonly FaultText[] {
    return [...this.#faults].reverse();
  }
}

let table: ReadonlyMap<string, string> | undefined;

/** What docs/ERRORS.md says to do; empty for a code that it does not have, or without the file. */
export function remedyFromTable(code: string): string {
  table ??= readTable();
  return table.get(code) ?? '';
}

/** The document lies two folders above this file, in the sources as in the package. Read when the first fault comes. */
function readTable(): ReadonlyMap<string, string> {
  try {
    return remediesIn(readFileSync(new URL('../../docs/ERRORS.md', import.meta.url), 'utf8'));
  } catch {
    return new Map();
  }
}

export function remediesIn(document: string): ReadonlyMap<string, string> {
  const rows = [...document.matchAll(/^\| `([A-Z0-9_]+)` \| [^|]+ \| ([^|]+) \|$/gm)];
  return new Map(rows.map(([, code = '', remedy = '']) => [code, remedy.replaceAll('`', '').trim()]));
}
