/**
 * One client's connection: turns frames into requests for a session, sends its answers, and ends when the client, an error or a bound says so. Owned
 * by the server, which lends it a policy and gets it back. It reads no message itself.
 */
import type { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import type { Policy } from '../policy/contract.js';
import type { ServerLog } from './log.js';
import { type Encodable, encode, WireFloat } from './msgpack.js';
import { overlapping, Session, type SessionOptions } from './session.js';

/** How a connection is closed: after an error, as the protocol asks; by a server that stops; by a bound. */
const CLOSE_ERROR = 1011;
const CLOSE_STOPPING = 1001;
const CLOSE_POLICY = 1008;
/** A client that does not answer the closing frame is left after so long. */
const close_wait_ms = 2_000;

export interface ConnectionLimits {
  /** Without a request for so long. */
  readonly idle_timeout_ms: number;
  /** From the first byte of a message to its last, and for an answer to be taken. */
  readonly message_timeout_ms: number;
  /** For one request's computation. */
  readonly call_timeout_ms: number;
}

export interface ConnectionParts {
  readonly id: number;
  readonly socket: WebSocket;
  /** What carries it, to see that a message has begun. */
  readonly raw: Duplex;
  readonly acquire: () => Promise<Policy>;
  readonly release: (policy: Policy, isBroken: boolean) => void;
  readonly metadata: (policy: Policy) => Readonly<Record<string, Encodable>>;
  readonly session: SessionOptions;
  readonly limits: ConnectionLimits;
  readonly log: ServerLog;
}

export class Connection {
  /** The connection is over and its policy is given back. */
  readonly ended: Promise<void>;
  readonly #parts: ConnectionParts;
  readonly #timers = new Map<string, NodeJS.Timeout>();
  #session: Session | undefined;
  #ready: Promise<Session | undefined>;
  /** From a request's arrival until its answer is taken. */
  #isBusy = false;
  #isBroken = false;
  #previousMs: number | undefined;
  #requests = 0;
  #why = 'closed by the client';

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    const { socket, raw } = parts;
    socket.on('message', (data, isBinary) => void this.#message(data, isBinary));
    for (const event of ['ping', 'pong'] as const) socket.on(event, () => this.#stop('message'));
    // Frames that the library refuses: too large, not masked, no UTF-8. It closes the connection itself.
    socket.on('error', (error) => {
      this.#why = error.message;
    });
    // Before the library's own listener, which may have the whole message at once.
    raw.prependListener('data', () => this.#start('message', parts.limits.message_timeout_ms, 'a message did not come to its end'));
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    this.#ready = this.#begin();
    this.ended = this.#end(closed);
  }

  /** Ends it because the server stops. */
  stop(): void {
    this.#close(CLOSE_STOPPING, 'the server is stopping');
  }

  async #begin(): Promise<Session | undefined> {
    const { acquire, release, metadata, session, socket } = this.#parts;
    let policy: Policy;
    try {
      policy = await acquire();
    } catch (error) {
      this.#fail(error);
      return undefined;
    }
    if (socket.readyState !== socket.OPEN) {
      release(policy, false);
      return undefined;
    }
    this.#session = new Session(policy, session);
    void this.ended.then(() => release(policy, this.#isBroken));
    await this.#send(encode(metadata(policy)));
    this.#wait();
    return this.#session;
  }

  async #end(closed: Promise<void>): Promise<void> {
    await closed;
    for (const name of [...this.#timers.keys()]) this.#stop(name);
    await this.#ready;
    await this.#session?.close(this.#why);
    const { id, log } = this.#parts;
    log('info', 'closed', { connection: id, requests: this.#requests, why: this.#why });
  }

  async #message(data: RawData, isBinary: boolean): Promise<void> {
    const begunMs = performance.now();
    this.#stop('message');
    this.#stop('idle');
    if (this.#isBusy) {
      this.#fail(overlapping());
      return;
    }
    this.#isBusy = true;
    try {
      const session = await this.#ready;
      if (session === undefined) return;
      if (!isBinary) throw textFrame();
      this.#start('call', this.#parts.limits.call_timeout_ms, 'a request took too long');
      const { kind, fields } = await session.handle(bytesOf(data));
      this.#stop('call');
      await this.#answer(kind, fields, begunMs);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #answer(kind: string, fields: Readonly<Record<string, Encodable>>, begunMs: number): Promise<void> {
    const inferMs = performance.now() - begunMs;
    const previous = this.#previousMs === undefined ? {} : { prev_total_ms: new WireFloat(this.#previousMs) };
    await this.#send(encode({ ...fields, server_timing: { infer_ms: new WireFloat(inferMs), ...previous } }));
    this.#previousMs = performance.now() - begunMs;
    this.#requests++;
    const { id, log } = this.#parts;
    log('info', 'answered', { connection: id, request: kind, ms: Math.round(inferMs * 10) / 10 });
    this.#isBusy = false;
    this.#wait();
  }

  /** Waits until the client has taken it; one that does not is left. */
  async #send(message: Buffer | string): Promise<void> {
    const { socket, limits } = this.#parts;
    this.#start('answer', limits.message_timeout_ms, 'an answer was not taken');
    await new Promise<void>((resolve) => socket.send(message, () => resolve()));
    this.#stop('answer');
  }

  /** The client's turn. */
  #wait(): void {
    if (!this.#isBusy) this.#start('idle', this.#parts.limits.idle_timeout_ms, 'no request came');
  }

  /** As the protocol asks: the error as text, then 1011. */
  #fail(error: unknown): void {
    const { code, message } = toPremotorError(error);
    if (code === 'ENGINE_DIED' || code === 'CLOSED') this.#isBroken = true;
    const { socket, id, log } = this.#parts;
    if (socket.readyState !== socket.OPEN) return;
    log('warn', 'error', { connection: id, code, message });
    void this.#send(`${code}: ${message}\n`);
    this.#close(CLOSE_ERROR, code);
  }

  #close(code: number, why: string): void {
    const { socket } = this.#parts;
    if (socket.readyState !== socket.OPEN) return;
    this.#why = why;
    for (const name of [...this.#timers.keys()]) this.#stop(name);
    socket.close(code, why);
    this.#start('close', close_wait_ms, why);
  }

  /** Starts a bound that does not run yet. */
  #start(name: string, bound_ms: number, why: string): void {
    if (this.#timers.has(name)) return;
    const { socket } = this.#parts;
    const over = (): void => {
      this.#timers.delete(name);
      if (name === 'idle' || name === 'call') {
        this.#parts.log('warn', 'timeout', { connection: this.#parts.id, bound: name, ms: bound_ms });
        this.#close(CLOSE_POLICY, why);
        return;
      }
      if (name !== 'close') this.#why = why;
      socket.terminate();
    };
    this.#timers.set(name, setTimeout(over, bound_ms));
  }

  #stop(name: string): void {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

function bytesOf(data: RawData): Uint8Array {
  if (Array.isArray(data)) return Buffer.concat(data);
  return data instanceof ArrayBuffer ? new Uint8Array(data) : data;
}

function textFrame(): PremotorError {
  const [expected, found] = ['a binary frame with msgpack', 'a text frame'];
  const message = `The message was refused: expected ${expected}, found ${found}. Send requests as binary frames.`;
  return new PremotorError('REQUEST_INVALID', message, { expected, found });
}
