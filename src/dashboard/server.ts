/**
 * The server of the status page: listens, checks who asks, gives out the page's files, and turns websockets into viewers. Owned by the dashboard; it
 * knows no robot, and everything that it does for a request is bounded.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { PremotorError } from '../errors.js';
import { isLoopback } from '../local-access.js';
import { Access, type Refusal, strangerRefusal } from './access.js';
import { Assets, CONTENT_SECURITY_POLICY } from './assets.js';
import { REQUEST_BYTES_MAX } from './requests.js';
import { Viewer } from './viewer.js';

export const VIEWERS_MAX = 8;
/** Browsers open some connections more than they need. */
const CONNECTIONS_MAX = 64;
const HEADERS_TIMEOUT_MS = 5000;
const REQUEST_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 5000;
const PING_PERIOD_MS = 10_000;
/** What is still to be sent at the end has so long. */
const CLOSE_GRACE_MS = 500;
/** So many bytes of a request that says nothing. */
const HEADER_BYTES_MAX = 8192;

const TEXT = 'text/plain; charset=utf-8';
const HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy': CONTENT_SECURITY_POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
};

const STATUS_WORDS: Readonly<Record<number, string>> = {
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  421: 'Misdirected Request',
};

export interface PageServerOptions {
  readonly host: string;
  readonly port: number;
  readonly token: string | undefined;
  /** Where the compiled page is. Default: beside this file. */
  readonly pageDir?: string;
}

export interface PageServerParts {
  readonly onViewer: (viewer: Viewer) => void;
  /** The number of viewers, or what they look at, has changed. */
  readonly onLook: () => void;
  readonly onStop: () => void;
}

export class PageServer {
  readonly #server: Server;
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: REQUEST_BYTES_MAX, perMessageDeflate: false, clientTracking: false });
  readonly #viewers = new Set<Viewer>();
  readonly #access: Access;
  readonly #assets: Assets;
  readonly #host: string;
  readonly #parts: PageServerParts;
  /** Of viewers and of those that were refused, so that all end with the server. */
  readonly #upgraded = new Set<Duplex>();
  #pinging: NodeJS.Timeout | undefined;
  #port = 0;

  private constructor({ host, token, pageDir }: PageServerOptions, parts: PageServerParts) {
    this.#host = host;
    this.#parts = parts;
    this.#access = new Access(token);
    this.#assets = new Assets(pageDir);
    this.#server = createServer({ maxHeaderSize: HEADER_BYTES_MAX }, (request, response) => this.#answer(request, response));
    this.#server.headersTimeout = HEADERS_TIMEOUT_MS;
    this.#server.requestTimeout = REQUEST_TIMEOUT_MS;
    this.#server.keepAliveTimeout = KEEP_ALIVE_MS;
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    this.#server.on('clientError', (_, socket) => socket.destroy());
  }

  /** Errors: DASHBOARD_ADDRESS, DASHBOARD_PORT. */
  static async open(options: PageServerOptions, parts: PageServerParts): Promise<PageServer> {
    const { host, port, token } = options;
    if (!isLoopback(host) && token === undefined) {
      const message =
        `The status page would be served to other machines at ${host}, to anybody. ` +
        'Set dashboard.token_file to a file with a token, or dashboard.host to 127.0.0.1.';
      throw new PremotorError('DASHBOARD_ADDRESS', message, { field: 'dashboard.host', expected: 'a loopback address, or a token', found: host });
    }
    const server = new PageServer(options, parts);
    await server.#listen(port);
    return server;
  }

  #listen(port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (cause: NodeJS.ErrnoException): void => reject(listenError(this.#host, port, cause));
      this.#server.once('error', fail);
      this.#server.listen(port, this.#host, () => {
        this.#server.off('error', fail);
        this.#server.on('error', () => undefined);
        const address = this.#server.address();
        this.#port = typeof address === 'object' && address !== null ? address.port : port;
        resolve();
      });
    });
  }

  get port(): number {
    return this.#port;
  }

  /** Without the token. */
  get url(): string {
    return `http://${this.#host.includes(':') ? `[${this.#host}]` : this.#host}:${this.#port}/`;
  }

  get needsToken(): boolean {
    return this.#access.needsToken;
  }

  get isBuilt(): boolean {
    return this.#assets.isBuilt;
  }

  get viewers(): ReadonlySet<Viewer> {
    return this.#viewers;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    // No request of ours has a body worth reading.
    request.resume();
    const url = urlOf(request);
    const isLink = request.method === 'GET' && url?.pathname === '/' && this.#access.needsToken && url.searchParams.has('token');
    const refusal = url ? this.#access.refusal(request.headers, this.#port) : NOT_FOUND;
    if (isLink) this.#admit(url.searchParams.get('token') ?? '', response);
    else if (refusal || !url) refuse(response, refusal ?? NOT_FOUND);
    else if (url.pathname === '/stop') this.#answerStop(request, response);
    else if (request.method !== 'GET' && request.method !== 'HEAD') refuse(response, { status: 405, why: 'GET only.', allow: 'GET, HEAD' });
    else this.#sendAsset(url.pathname, response, request.method === 'HEAD');
  }

  #sendAsset(path: string, response: ServerResponse, isHead: boolean): void {
    try {
      const asset = this.#assets.get(path);
      if (asset) {
        response.writeHead(200, { ...HEADERS, 'Content-Type': asset.type, 'Content-Length': asset.body.length });
        response.end(isHead ? undefined : asset.body);
      } else refuse(response, NOT_FOUND);
    } catch {
      response.writeHead(503, { ...HEADERS, 'Content-Type': TEXT });
      response.end('The status page is not built. Run npm run build in the folder of premotor.\n');
    }
  }

  /** The token leaves the address at once, so that it is not in the next screenshot. */
  #admit(token: string, response: ServerResponse): void {
    if (!this.#access.isToken(token)) {
      refuse(response, { status: 401, why: 'That is not the token of this status page.' });
      return;
    }
    response.writeHead(303, { ...HEADERS, Location: '/', 'Set-Cookie': this.#access.setCookie(this.#port) });
    response.end();
  }

  #answerStop(request: IncomingMessage, response: ServerResponse): void {
    const refusal = strangerRefusal(request.headers);
    if (request.method !== 'POST') refuse(response, { status: 405, why: 'A stop is asked for with POST.', allow: 'POST' });
    else if (refusal) refuse(response, refusal);
    else {
      this.#parts.onStop();
      response.writeHead(202, { ...HEADERS, 'Content-Type': TEXT });
      response.end('stop requested\n');
    }
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => undefined);
    const refusal =
      this.#access.refusal(request.headers, this.#port) ??
      strangerRefusal(request.headers) ??
      (urlOf(request)?.pathname === '/live' ? undefined : { status: 404, why: 'The websocket is at /live.' });
    if (refusal) {
      socket.end(`HTTP/1.1 ${refusal.status} ${STATUS_WORDS[refusal.status]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    this.#upgraded.add(socket);
    socket.on('close', () => this.#upgraded.delete(socket));
    this.#sockets.handleUpgrade(request, socket, head, (one) => this.#welcome(one));
  }

  #welcome(socket: WebSocket): void {
    if (this.#viewers.size >= VIEWERS_MAX) {
      Viewer.refuse(socket);
      return;
    }
    const viewer: Viewer = new Viewer(socket, {
      onStop: this.#parts.onStop,
      onLook: this.#parts.onLook,
      onClose: () => {
        this.#viewers.delete(viewer);
        this.#parts.onLook();
        if (this.#viewers.size > 0) return;
        clearInterval(this.#pinging);
        this.#pinging = undefined;
      },
    });
    this.#viewers.add(viewer);
    this.#pinging ??= setInterval(() => {
      for (const one of this.#viewers) one.ping();
    }, PING_PERIOD_MS).unref();
    this.#parts.onViewer(viewer);
    this.#parts.onLook();
  }

  /** Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#pinging);
    for (const viewer of this.#viewers) viewer.close();
    await new Promise<void>((resolve) => {
      const grace = setTimeout(() => {
        for (const socket of this.#upgraded) socket.destroy();
        this.#server.closeAllConnections();
      }, CLOSE_GRACE_MS);
      this.#server.close(() => {
        clearTimeout(grace);
        resolve();
      });
      this.#server.closeIdleConnections();
    });
  }
}

function urlOf({ url }: IncomingMessage): URL | undefined {
  try {
    return new URL(url ?? '/', 'http://page');
  } catch {
    return undefined;
  }
}

type PlainRefusal = { readonly status: Refusal['status'] | 404 | 405; readonly why: string; readonly allow?: string };

const NOT_FOUND: PlainRefusal = { status: 404, why: 'There is no such file.' };

function refuse(response: ServerResponse, { status, why, allow }: PlainRefusal): void {
  const more = { ...(allow === undefined ? {} : { Allow: allow }), ...(status === 401 ? { 'WWW-Authenticate': 'Bearer' } : {}) };
  response.writeHead(status, { ...HEADERS, ...more, 'Content-Type': TEXT });
  response.end(`${why}\n`);
}

function listenError(host: string, port: number, cause: NodeJS.ErrnoException): PremotorError {
  const why: Readonly<Record<string, string>> = {
    EADDRINUSE: `port ${port} of ${host} is taken by another program`,
    EADDRNOTAVAIL: `${host} is no address of this machine`,
    EACCES: `this user may not listen at port ${port}`,
    ENOTFOUND: `${host} is no known name`,
  };
  const found = why[cause.code ?? ''] ?? cause.message;
  const remedy = 'Set dashboard.port to 0 (any that is free) or another, correct dashboard.host, or set dashboard.enabled to false.';
  const message = `The status page cannot be served: ${found}. ${remedy}`;
  return new PremotorError('DASHBOARD_PORT', message, { field: 'dashboard.port', expected: 'an address to listen at', found, cause });
}
