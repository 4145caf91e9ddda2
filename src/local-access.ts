/**
 * What servers and clients of ours ask before somebody is let in: whether an address is of this machine alone, what the secret of a file is, and
 * whether two secrets are the same. Shared by policy server, remote policy, status page, telemetry and MQTT setpoints; none of it keeps a secret.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { PremotorError } from './errors.js';

const NAMES: ReadonlySet<string> = new Set(['localhost', 'ip6-localhost']);

/** Whether an address can be reached from this machine alone: a name or an address, that of IPv6 with or without brackets. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  return NAMES.has(bare) || bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

/** What a token may be, and the error of one that is none. */
export interface TokenRule {
  readonly code: string;
  /** The configuration key or option that names the file. */
  readonly field: string;
  readonly charactersMax: number;
  readonly characters: RegExp;
  /** `characters` in words. */
  readonly described: string;
}

const CHARACTERS_MIN = 16;

/** The one line of a token's file. The token is in no message. Errors: the rule's. */
export function readToken(file: string, { code, field, charactersMax, characters, described }: TokenRule): string {
  const expected = `one line of ${CHARACTERS_MIN} .. ${charactersMax} ${described}`;
  const fail = (found: string, cause?: unknown): PremotorError => {
    const message = `The token file ${file} cannot be used: expected ${expected}, found ${found}. Make one with: openssl rand -hex 32 > FILE`;
    return new PremotorError(code, message, { field, file, expected, found, ...(cause === undefined ? {} : { cause }) });
  };
  let token: string;
  try {
    token = readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  } catch (cause) {
    throw fail(`no readable file (${(cause as Error).message})`, cause);
  }
  if (token !== '' && !characters.test(token)) throw fail('other characters');
  if (token.length < CHARACTERS_MIN || token.length > charactersMax) throw fail(`${token.length} characters`);
  return token;
}

/** Compares in a time that says nothing about where two texts differ. */
export function isSameSecret(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
