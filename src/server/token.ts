/**
 * The secret that lets a client in: read from a file, given as a header or in the address, and compared in constant time. Owned by the policy server
 * and the remote policy; it never prints a token.
 */
import type { IncomingMessage } from 'node:http';
import { isSameSecret, readToken, type TokenRule } from '../local-access.js';

/** A foreign server's token may be anything that a header can carry. */
const RULE: TokenRule = {
  code: 'TOKEN_INVALID',
  field: 'token_file',
  charactersMax: 4096,
  characters: /^[\x21-\x7e]+$/,
  described: 'printable characters without spaces',
};

/** Errors: TOKEN_INVALID. */
export const readServerToken = (file: string): string => readToken(file, RULE);

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
