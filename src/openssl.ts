/**
 * Runs openssl for keys, requests and signatures: input and output in memory. Owned by identities and roll-out lists; nothing here knows what is
 * signed.
 */
import { PremotorError } from './errors.js';
import { NoResult, runProgram } from './run-program.js';

export interface OpensslResult {
  readonly code: number;
  readonly out: Buffer;
  /** What it said, its last lines. */
  readonly err: string;
}

const TIMEOUT_MS = 30_000;
const SAID_CHARACTERS_MAX = 600;

/** It ran, whatever it said; one that had to be ended has the code -1. Errors: OPENSSL_MISSING. */
export async function openssl(args: readonly string[], input: Uint8Array | string = ''): Promise<OpensslResult> {
  try {
    const { code, out, err } = await runProgram('openssl', args, { input, timeout_ms: TIMEOUT_MS });
    return { code, out, err: err.slice(-SAID_CHARACTERS_MAX).trim() };
  } catch (cause) {
    if (!(cause instanceof NoResult)) throw cause;
    if (cause.reason === 'failed') return { code: -1, out: Buffer.alloc(0), err: cause.message };
    const message = 'The program openssl cannot be started. Install the package openssl.';
    throw new PremotorError('OPENSSL_MISSING', message, { expected: 'openssl', found: cause.message, cause });
  }
}
