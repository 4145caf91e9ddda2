/**
 * Runs another program to its end without a shell: input from memory, output collected up to a bound, time bounded, lines passed on as they come.
 * Owned by whoever needs one, who turns what can go wrong into words; nothing here knows what the program is for.
 */
import { spawn } from 'node:child_process';

const OUTPUT_BYTES_MAX = 8 << 20;
const TIMEOUT_MS = 60_000;

export interface ProgramOptions {
  readonly timeout_ms?: number;
  readonly signal?: AbortSignal;
  readonly input?: Uint8Array | string;
  readonly onLine?: (line: string) => void;
  /** In a session of its own: an interrupt at the terminal does not reach it. */
  readonly detached?: boolean;
}

export interface ProgramResult {
  readonly code: number;
  readonly out: Buffer;
  readonly err: string;
}

/** There is no result: no such program, stopped on request, or ended from outside and not by itself. */
export class NoResult extends Error {
  readonly reason: 'missing' | 'aborted' | 'failed';

  constructor(reason: NoResult['reason'], message: string, cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
  }
}

/** It ran, whatever its exit code. Errors: NoResult. */
export function runProgram(program: string, args: readonly string[], options: ProgramOptions = {}): Promise<ProgramResult> {
  const { timeout_ms = TIMEOUT_MS, signal, detached = false, input = '', onLine } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...args], { stdio: ['pipe', 'pipe', 'pipe'], detached, ...(signal === undefined ? {} : { signal }) });
    const timer = setTimeout(() => child.kill('SIGKILL'), timeout_ms);
    const out = new Collected(onLine);
    const err = new Collected(onLine);
    child.stdout.on('data', (bytes: Buffer) => out.add(bytes));
    child.stderr.on('data', (bytes: Buffer) => err.add(bytes));
    // One that does not read its input is fine: its exit code says what it made of it.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    child.on('error', (cause: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      const reason = cause.code === 'ENOENT' ? 'missing' : cause.name === 'AbortError' ? 'aborted' : 'failed';
      reject(new NoResult(reason, cause.message, cause));
    });
    child.on('close', (code, killedBy) => {
      clearTimeout(timer);
      out.end();
      err.end();
      if (code === null) reject(new NoResult('failed', killedBy === 'SIGKILL' ? `no end within ${timeout_ms} ms` : `signal ${killedBy}`));
      else resolve({ code, out: out.bytes, err: err.bytes.toString('utf8') });
    });
  });
}

/** Output up to a bound; more is dropped, because a program in a loop must not fill the memory. */
class Collected {
  readonly #parts: Buffer[] = [];
  readonly #onLine: ((line: string) => void) | undefined;
  #size = 0;
  #rest = '';

  constructor(onLine: ((line: string) => void) | undefined) {
    this.#onLine = onLine;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  add(bytes: Buffer): void {
    if (this.#size < OUTPUT_BYTES_MAX) this.#parts.push(bytes);
    this.#size += bytes.length;
    if (this.#onLine === undefined) return;
    const lines = (this.#rest + bytes.toString('utf8')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#onLine(line);
  }

  end(): void {
    if (this.#rest !== '') this.#onLine?.(this.#rest);
    this.#rest = '';
  }
}
