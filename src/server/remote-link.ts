/**
 * A connection to a policy server from the robot's side: one request at a time, and while it waits, signs of life. Owned by the remote policy. It
 * knows what a frame is and nothing of what a request means; it never connects again by itself, because the episode was the connection's.
 */
import { WebSocket } from 'ws';
import { PremotorError } from '../errors.js';
import { aborted } from '../policy/gate.js';
import { decode, type Encodable, encode, type WireMap } from './msgpack.js';

/** To connect, and for the server's first word. */
const connect_timeout_ms = 10_000;
/** While a request is under way: how often life is looked for. A robot that waits takes silence of 900 ms for a dead planner. */
const life_period_ms = 200;
/** A server that can answer pings while it computes, and has not for so long, is gone. */
const silence_ms_max = 3_000;
/** For the server's goodbye. */
const close_wait_ms = 1_000;
/** Answers are small; so much is none. */
const ANSWER_BYTES_MAX = 64 << 20;
const TEXT_SHOWN = 600;

export interface LinkOptions {
  readonly url: string;
  readonly token?: string;
}

export interface AskOptions {
  readonly signal: AbortSignal;
  readonly timeout_ms: number;
  /**
   * How life is told. 'pong': the server answers pings while it computes, so one that does not is dead. 'open': it cannot, and as long as the
   * connection is open and the time is not over, it is taken for alive.
   */
  readonly life: 'pong' | 'open';
  readonly onLife: (() => void) | undefined;
}

interface Waiting {
  readonly resolve: (fields: WireMap) => void;
  readonly reject: (error: unknown) => void;
}

export class RemoteLink {
  readonly #socket: WebSocket;
  readonly #url: string;
  #waiting: Waiting | undefined;
  #lost: PremotorError | undefined;
  #heardMs = performance.now();

  private constructor(socket: WebSocket, url: string) {
    this.#socket = socket;
    this.#url = url;
    socket.on('message', (data, isBinary) => this.#hear(data as Buffer, isBinary));
    socket.on('pong', () => this.#note());
    socket.on('ping', () => this.#note());
    socket.on('close', (code, reason) => this.#lose(closedLink(url, `closing code ${code}${reason.length > 0 ? ` (${reason})` : ''}`)));
  }

  /** Connects and waits for the server's first word, its metadata. Errors: REMOTE_UNREACHABLE, REMOTE_REFUSED, REMOTE_LOST, REMOTE_REPLY. */
  static async open({ url, token }: LinkOptions): Promise<{ link: RemoteLink; metadata: WireMap }> {
    const socket = new WebSocket(url, {
      perMessageDeflate: false,
      handshakeTimeout: connect_timeout_ms,
      maxPayload: ANSWER_BYTES_MAX,
      ...(token === undefined ? {} : { headers: { Authorization: `Bearer ${token}` } }),
    });
    const link = new RemoteLink(socket, url);
    try {
      const metadata = link.#next();
      await connected(socket, url);
      const timer = setTimeout(() => link.#lose(tooSlow(url, 'its first word', connect_timeout_ms)), connect_timeout_ms);
      try {
        return { link, metadata: await metadata };
      } finally {
        clearTimeout(timer);
      }
    } catch (error) {
      link.close();
      throw error;
    }
  }

  /** Why it cannot be used any more. */
  get lost(): PremotorError | undefined {
    return this.#lost;
  }

  /** Sends a request and waits for its answer. Errors: REMOTE_LOST, REMOTE_TIMEOUT, REMOTE_ERROR, REMOTE_REPLY, ABORTED; all end the link. */
  async ask(request: { readonly [key: string]: Encodable }, { signal, timeout_ms, life, onLife }: AskOptions): Promise<WireMap> {
    if (this.#lost) throw this.#lost;
    this.#heardMs = performance.now();
    const answer = this.#next();
    const late = setTimeout(() => this.#lose(tooSlow(this.#url, 'an answer', timeout_ms)), timeout_ms);
    const abort = (): void => this.#lose(aborted('the request', signal.reason, 'The episode on the server is over; reset begins another.'));
    signal.addEventListener('abort', abort, { once: true });
    const pulse = setInterval(() => this.#pulse(life, onLife), life_period_ms);
    try {
      this.#socket.send(encode(request));
      if (signal.aborted) abort();
      return await answer;
    } finally {
      clearTimeout(late);
      clearInterval(pulse);
      signal.removeEventListener('abort', abort);
    }
  }

  /** Idempotent. */
  close(): void {
    this.#lost ??= closedLink(this.#url, 'a link that was closed here');
    this.#settle()?.reject(this.#lost);
    if (this.#socket.readyState !== this.#socket.OPEN) {
      this.#socket.terminate();
      return;
    }
    this.#socket.close(1000);
    // A server that is gone says no goodbye.
    setTimeout(() => this.#socket.terminate(), close_wait_ms).unref();
  }

  #next(): Promise<WireMap> {
    const next = new Promise<WireMap>((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
    // Whoever asked may have been told another error first.
    next.catch(() => undefined);
    return next;
  }

  #settle(): Waiting | undefined {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    return waiting;
  }

  #note(): void {
    this.#heardMs = performance.now();
  }

  #pulse(life: AskOptions['life'], onLife: (() => void) | undefined): void {
    if (life === 'open') {
      onLife?.();
      return;
    }
    const silentMs = performance.now() - this.#heardMs;
    if (silentMs > silence_ms_max) {
      this.#lose(tooSlow(this.#url, 'a sign of life', silence_ms_max));
      return;
    }
    if (silentMs <= 2 * life_period_ms) onLife?.();
    this.#socket.ping();
  }

  #hear(data: Buffer, isBinary: boolean): void {
    this.#note();
    const waiting = this.#waiting;
    if (!isBinary) {
      this.#lose(toldError(this.#url, data.toString('utf8').trim().slice(0, TEXT_SHOWN)));
      return;
    }
    if (waiting === undefined) {
      this.#lose(badReply('an answer to each request', 'one that nobody asked for'));
      return;
    }
    try {
      const fields = decode(data);
      if (!(fields instanceof Map)) throw badReply('a map', typeof fields);
      this.#settle()?.resolve(fields);
    } catch (error) {
      const known = error as PremotorError;
      this.#lose(known.code === 'REMOTE_REPLY' ? known : badReply(known.expected ?? 'msgpack', known.found ?? 'something else', error));
    }
  }

  /** Ends the link: what waits is told, and so is who asks later. */
  #lose(error: PremotorError): void {
    this.#lost ??= error;
    this.#settle()?.reject(this.#lost);
    this.#socket.terminate();
  }
}

function connected(socket: WebSocket, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve());
    socket.on('error', (cause) => reject(unreachable(url, cause)));
    socket.once('unexpected-response', (request, response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text = (text + part).slice(0, TEXT_SHOWN);
      });
      response.on('close', () => {
        reject(refused(url, response.statusCode ?? 0, text.trim()));
        request.destroy();
      });
    });
  });
}

function unreachable(url: string, cause: Error): PremotorError {
  const [expected, found] = ['a policy server there', cause.message || 'no connection'];
  const remedy = 'Start it (premotor serve), or correct the address.';
  const message = `The policy server ${url} cannot be reached: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('REMOTE_UNREACHABLE', message, { field: 'policy.url', expected, found, cause });
}

function refused(url: string, status: number, text: string): PremotorError {
  const [expected, found] = ['a server that lets this robot in', `HTTP ${status}${text === '' ? '' : `, "${text}"`}`];
  const remedy = status === 401 ? 'Give its token: policy.token_file.' : status === 503 ? 'Wait until it is free.' : 'Check the address.';
  const message = `The policy server ${url} refused the connection: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('REMOTE_REFUSED', message, { field: 'policy.url', expected, found });
}

function closedLink(url: string, found: string): PremotorError {
  const message = `The connection to the policy server ${url} is gone: expected an open one, found ${found}. The episode ended with it; begin anew.`;
  return new PremotorError('REMOTE_LOST', message, { expected: 'an open connection', found });
}

function tooSlow(url: string, what: string, bound_ms: number): PremotorError {
  const [expected, found] = [`${what} within ${bound_ms} ms`, 'none'];
  const remedy = 'Look whether the server still runs and what it computes; policy.reply_timeout_s says how long it may take.';
  const message = `The policy server ${url} does not answer: expected ${expected}, found ${found}. ${remedy}`;
  return new PremotorError('REMOTE_TIMEOUT', message, { expected, found });
}

function toldError(url: string, found: string): PremotorError {
  const message = `The policy server ${url} reports an error: ${found}. The episode ended with it; mend its cause and begin anew.`;
  return new PremotorError('REMOTE_ERROR', message, { expected: 'an answer', found });
}

/** An answer that is not what the protocol says. */
export function badReply(expected: string, found: string, cause?: unknown): PremotorError {
  const message = `The policy server's answer cannot be used: expected ${expected}, found ${found}. Nothing of it is executed; check the server.`;
  return new PremotorError('REMOTE_REPLY', message, { expected, found, ...(cause === undefined ? {} : { cause }) });
}
