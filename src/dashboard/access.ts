/**
 * Who may look at the status page: tokens, cookies, and the headers that tell a page of ours from one of a stranger. Pure but for reading the token's
 * file. Owned by the server; it answers nobody.
 */
import { createHmac } from 'node:crypto';
import { isLoopback, isSameSecret, readToken, type TokenRule } from '../local-access.js';

/** It travels in a link and in a header. */
const RULE: TokenRule = {
  code: 'DASHBOARD_TOKEN',
  field: 'dashboard.token_file',
  charactersMax: 512,
  characters: /^[A-Za-z0-9._~+/=-]+$/,
  described: 'letters, digits and . _ ~ + / = -',
};

/** Errors: DASHBOARD_TOKEN. */
export const readPageToken = (file: string): string => readToken(file, RULE);

/** What a request shows of itself. */
export interface Headers {
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
  readonly cookie?: string | undefined;
  readonly authorization?: string | undefined;
  readonly 'sec-fetch-site'?: string | string[] | undefined;
}

export type Refusal = { readonly status: 401 | 403 | 421; readonly why: string };

const NO_TOKEN =
  'This status page needs its token. Open it once as /?token=TOKEN (the content of dashboard.token_file), or send Authorization: Bearer TOKEN.';

/** The doorkeeper of one server. Without a token it knows this machine by the name that it is called by. */
export class Access {
  readonly #token: string | undefined;
  readonly #cookieValue: string;

  constructor(token: string | undefined) {
    this.#token = token;
    // Not the token itself: a cookie that leaks opens this page and nothing else that the token may open.
    this.#cookieValue = token === undefined ? '' : createHmac('sha256', token).update('premotor status page').digest('base64url');
  }

  /** undefined: may look. `port`: cookies do not know ports, so their name does. */
  refusal(headers: Headers, port: number): Refusal | undefined {
    if (this.#token === undefined) {
      // A name that merely points here (DNS rebinding) would lend this machine's trust to a stranger's page.
      if (isLoopback(hostName(headers.host))) return undefined;
      return { status: 421, why: 'Without a token this status page answers to localhost, 127.0.0.1 and [::1] alone.' };
    }
    const bearer = /^Bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1];
    if (bearer !== undefined && this.isToken(bearer)) return undefined;
    const cookie = cookies(headers.cookie).get(cookieName(port));
    if (cookie !== undefined && isSameSecret(cookie, this.#cookieValue)) return undefined;
    return { status: 401, why: NO_TOKEN };
  }

  get needsToken(): boolean {
    return this.#token !== undefined;
  }

  isToken(text: string): boolean {
    return this.#token !== undefined && isSameSecret(text, this.#token);
  }

  /** For the answer to a link that carried the token. Lax: a link from elsewhere may open the page, but nothing there can send with it. */
  setCookie(port: number): string {
    return `${cookieName(port)}=${this.#cookieValue}; Path=/; HttpOnly; SameSite=Lax`;
  }
}

/** Requests that do something, and websockets, come from our own page, or from a program, which sends no Origin. */
export function strangerRefusal({ origin, host, 'sec-fetch-site': site }: Headers): Refusal | undefined {
  const isForeignSite = site !== undefined && site !== 'same-origin' && site !== 'none';
  if (!isForeignSite && (origin === undefined || originHost(origin) === (host ?? '').toLowerCase())) return undefined;
  return { status: 403, why: 'This request comes from another page than the status page.' };
}

function cookieName(port: number): string {
  return `premotor-page-${port}`;
}

function cookies(text: string | undefined): Map<string, string> {
  const pairs = (text ?? '').split(';').map((pair) => pair.trim().split('=', 2) as [string, string?]);
  return new Map(pairs.flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const])));
}

/** undefined equals no host. */
function originHost(origin: string): string | undefined {
  try {
    return new URL(origin).host || undefined;
  } catch {
    return undefined;
  }
}

/** "[::1]:80" -> "::1". */
export function hostName(host: string | undefined): string {
  const text = host ?? '';
  return /^\[([^\]]*)\](?::\d*)?$/.exec(text)?.[1] ?? /^([^:]*)(?::\d*)?$/.exec(text)?.[1] ?? '';
}
