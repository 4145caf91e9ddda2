/**
 * The secret that lets a client in: read from a file, given as a header or in the address, and compared in constant time. Owned by the policy server
 * and the remote policy; it never prints a token.
 */
import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { PremotorError } from '../errors.js';
import { isSameSecret } from '../local-access.js';

const CHARACTERS_MIN = 16;
const CHARACTERS_MAX = 4096;

/** The one line of a token's file. Errors: TOKEN_INVALID. */
export async function readToken(file: string): Promise<string> {
  const expected = `one line of ${CHARACTERS_MIN} .. ${CHARACTERS_MAX} printable characters without spaces`;
  const fail = (found: string, cause?: unknown): PremotorError => {
    const message = `The token file ${file} cannot be used: expected ${expected}, found ${found}. Make one with: openssl rand -hex 32 > FILE`;
    return new PremotorError('TOKEN_INVALID', message, { field: 'token_file', file, expected, found, ...(cause === undefined ? {} : { cause }) });
  };
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw fail(`no readable file (${(cause as Error).message})`, cause);
  }
  const token = text.replace(/\r?\n$/, '');
  if (token.length < CHARACTERS_MIN || token.length > CHARACTERS_MAX) throw fail(`${token.length} characters`);
  if (!/^[\x21-\x7e]+$/.test(token)) throw fail('spaces, several lines or other characters');
  return token;
}

/** What a request to connect gives as its token: Authorization: Bearer or Api-Key, or ?token= in the address. */
function givenBy({ headers, url }: Pick<IncomingMessage, 'headers' | 'url'>): string | undefined {
  const [, inHeader] = /^(?:Bearer|Api-Key) +(\S+)$/i.exec(headers.authorization ?? '') ?? [];
  if (inHeader !== undefined) return inHeader;
  const at = url?.indexOf('?') ?? -1;
  return at < 0 ? undefined : (new URLSearchParams(url?.slice(at + 1)).get('token') ?? undefined);
}

/** Whether a request may come in. Without a token everybody may. The time it takes says nothing about the token. */
export function isLetIn(token: string | undefined, request: Pick<IncomingMessage, 'headers' | 'url'>): boolean {
  if (token === undefined) return true;
  const given = givenBy(request);
  return isSameSecret(token, given ?? '') && given !== undefined;
}
