/**
 * The policy server: an HTTP server that answers /healthz and takes websocket connections, lets in whoever has the token, and lends each connection a
 * policy of the pool. Owned by the command `serve`. It moves no robot and reads no message itself.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { PremotorError } from '../errors.js';
import { isLoopback } from '../local-access.js';
import type { Policy } from '../policy/contract.js';
import { version } from '../version.js';
import { Connection, type ConnectionLimits } from './connection.js';
import type { ServerLog } from './log.js';
import type { Encodable } from './msgpack.js';
import { PolicyPool } from './pool.js';
import type { SessionOptions } from './session.js';
import { isLetIn } from './token.js';

/** The protocol's. */
export const PORT_DEFAULT = 29_536;
/** For the request line and headers of a client that connects. */
const handshake_timeout_ms = 10_000;
/** A client whose machine is gone is noticed after about twice this, so that it does not keep its policy. */
const keepalive_ms = 10_000;
/** Connections that are being refused at the same time as others are served. */
const SOCKETS_SPARE = 32;
const MEBIBYTE = 1 << 20;

export interface ServerOptions {
  readonly load: () => Promise<Policy>;
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  /** Needed where others than this machine can connect. */
  readonly token?: string;
  /** Connections that are served at a time, each with a policy of its own. */
  readonly connections: number;
  readonly messageMaxMib: number;
  readonly limits: ConnectionLimits;
  readonly session: SessionOptions;
  /** The checkpoint's weights are random numbers. */
  readonly untrained: boolean;
  readonly log: ServerLog;
  readonly onLoaded?: (loaded: number) => void;
}

export class PolicyServer {
  readonly #options: ServerOptions;
  readonly #pool: PolicyPool;
  readonly #http: Server;
  readonly #websockets: WebSocketServer;
  readonly #connections = new Set<Connection>();
  #ids = 0;
  #closing: Promise<void> | undefined;

  private constructor(options: ServerOptions, pool: PolicyPool) {
    this.#options = options;
    this.#pool = pool;
    const maxPayload = options.messageMaxMib * MEBIBYTE;
    this.#websockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload, skipUTF8Validation: false });
    this.#http = createServer({ headersTimeout: handshake_timeout_ms, requestTimeout: handshake_timeout_ms }, (request, response) =>
      answerHttp(request, response),
    );
    this.#http.maxConnections = options.connections + SOCKETS_SPARE;
    this.#http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
  }

  /** Loads the policies, then listens. Errors: SERVER_OPEN, SERVER_LISTEN, those of loading. */
  static async open(options: ServerOptions): Promise<PolicyServer> {
    const { host, token, load, connections: size, onLoaded } = options;
    if (token === undefined && !isLoopback(host)) throw unprotected(host);
    const pool = await PolicyPool.open({ load, size, ...(onLoaded ? { onLoaded } : {}) });
    const server = new PolicyServer(options, pool);
    try {
      await server.#listen();
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port;
  }

  /** Connections that are served now. */
  get served(): number {
    return this.#connections.size;
  }

  /** What every connection has in common. */
  get policy(): Policy | undefined {
    return this.#pool.example;
  }

  /** Says goodbye to every client, stops what is being computed, frees everything. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
      this.#pool.refuse();
      const connections = [...this.#connections];
      for (const connection of connections) connection.stop();
      await Promise.all(connections.map(({ ended }) => ended));
      this.#http.closeAllConnections();
      await this.#pool.close();
      await closed;
    })();
    return this.#closing;
  }

  async #listen(): Promise<void> {
    const { host, port } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#http.once('error', (cause) => reject(notListening(host, port, cause)));
      this.#http.listen(port, host.replace(/^\[|\]$/g, ''), () => resolve());
    });
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { log, connections, token } = this.#options;
    socket.on('error', () => socket.destroy());
    const client = `${request.socket.remoteAddress}:${request.socket.remotePort}`;
    const refuse = (status: number, code: string, text: string, header = ''): void => {
      log('warn', 'refused', { client, status, code });
      refuseUpgrade(socket, status, `${code}: ${text}\n`, header);
    };
    // Clients of this protocol are programs. A page that a browser opened is somebody else's, even on this machine.
    if (request.headers.origin !== undefined) refuse(403, 'ORIGIN_REFUSED', 'browsers may not connect to a policy server.');
    else if (!isLetIn(token, request)) refuse(401, 'TOKEN_REFUSED', 'give the token: Authorization: Bearer TOKEN.', 'WWW-Authenticate: Bearer\r\n');
    else if (this.#closing || this.#connections.size >= connections) {
      const text = `${connections} of ${connections} connections are in use: close one, or start the server with more --connections.`;
      refuse(503, 'SERVER_BUSY', text, 'Retry-After: 5\r\n');
    } else this.#connect(request, socket, head, client);
  }

  #connect(request: IncomingMessage, raw: Duplex, head: Buffer, client: string): void {
    (raw as Socket).setKeepAlive(true, keepalive_ms);
    (raw as Socket).setNoDelay(true);
    this.#websockets.handleUpgrade(request, raw, head, (socket) => {
      const id = ++this.#ids;
      const { log, limits, session } = this.#options;
      log('info', 'connected', { connection: id, client });
      const connection = new Connection({
        id,
        socket,
        raw,
        acquire: () => this.#pool.acquire(),
        release: (policy, isBroken) => this.#pool.release(policy, isBroken),
        metadata: (policy) => this.#metadata(policy),
        session,
        limits,
        log,
      });
      this.#connections.add(connection);
      // The place is free as soon as the client has gone; its policy follows when it has stopped.
      socket.once('close', () => this.#connections.delete(connection));
    });
  }

  /** Clients may ignore all of it. */
  #metadata({ job, info }: Policy): Readonly<Record<string, Encodable>> {
    return {
      server: 'premotor',
      version: version(),
      cameras: [...job.obs_cam_keys],
      action_shape: [...info.actionShape],
      latent_shape: [...info.latentShape],
      checkpoint: info.checkpointHash,
      untrained: this.#options.untrained,
      precision: info.precision,
      kv_cache: info.kvCache,
      backend: info.backend,
      threads: info.threads,
      parameters: info.parameters,
    };
  }
}

function answerHttp({ method, url }: IncomingMessage, response: ServerResponse): void {
  const path = url?.split('?')[0];
  const isAsked = method === 'GET' || method === 'HEAD';
  const [status, text] = path !== '/healthz' ? [426, 'Connect with a websocket client.\n'] : isAsked ? [200, 'OK\n'] : [405, 'GET only.\n'];
  const more = status === 426 ? { Upgrade: 'websocket' } : status === 405 ? { Allow: 'GET, HEAD' } : {};
  response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', 'Content-Length': Buffer.byteLength(text), ...more });
  response.end(method === 'HEAD' ? undefined : text);
}

function refuseUpgrade(socket: Duplex, status: number, body: string, header: string): void {
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n${header}`;
  socket.end(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

function unprotected(host: string): PremotorError {
  const [expected, found] = ['a token file, because others than this machine can connect', 'none'];
  const message = `The server was not started on ${host}: expected ${expected}, found ${found}. Add --token-file FILE, or use --host 127.0.0.1.`;
  return new PremotorError('SERVER_OPEN', message, { field: 'host', expected, found });
}

function notListening(host: string, port: number, cause: Error): PremotorError {
  const [expected, found] = ['a free port of this machine', cause.message];
  const message = `The server cannot listen on ${host}:${port}: expected ${expected}, found ${found}. Choose another --port or --host.`;
  return new PremotorError('SERVER_LISTEN', message, { field: 'port', expected, found, cause });
}
