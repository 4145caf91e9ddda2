/**
 * Runs openssl for keys, requests and signatures: input and output in memory, time and output bounded. Owned by identities and roll-out lists; it
 * starts
 * no shell, and nothing here knows what is signed.
 */
import { spawn } from 'node:child_process';
import { PremotorError } from './errors.js';

export interface OpensslResult {
  readonly code: number;
  readonly out: Buffer;
  /** What it said, its last lines. */
  readonly err: string;
}

const TIMEOUT_MS = 30_000;
const OUTPUT_BYTES_MAX = 8 * 2 ** 20;
const SAID_CHARACTERS_MAX = 600;

/** It ran, whatever it said. Errors: OPENSSL_MISSING. */
export function openssl(args: readonly string[], input: Uint8Array | string = ''): Promise<OpensslResult> {
  return new Promise((resolve, reject) => {
    const child = spawn('openssl', [...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
    const out: Buffer[] = [];
    let [bytes, err] = [0, ''];
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= OUTPUT_BYTES_MAX) out.push(chunk);
      else child.kill('SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      err = `${err}${chunk.toString('utf8')}`.slice(-SAID_CHARACTERS_MAX);
    });
    // One that does not read its input says why by its exit code.
    child.stdin.on('error', () => undefined);
    child.on('error', (cause: Error) => {
      clearTimeout(timer);
      const message = 'The program openssl cannot be started. Install the package openssl.';
      reject(new PremotorError('OPENSSL_MISSING', message, { expected: 'openssl', found: cause.message, cause }));
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? -1, out: Buffer.concat(out), err: err.trim() });
    });
    child.stdin.end(input);
  });
}
