/**
 * The control socket's server: takes requests line by line, one at a time per connection, and answers each. Owned by the service, which decides
 * what a request does. The socket is a file of mode 0660: who may open it is a matter of its owner and group.
 */
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import { type ControlAnswer, type ControlRequest, LINE_BYTES_MAX, refusal, requestSchema } from './control-protocol.js';

const MODE = 0o660;
const CONNECTIONS_MAX = 16;
/** Somebody who says nothing for so long is let go. */
const IDLE_MS_MAX = 60_000;

export type Handle = (request: ControlRequest) => Promise<ControlAnswer>;

export class ControlSocket {
  readonly path: string;
  readonly #server: Server;
  readonly #connections = new Set<Socket>();
  #isClosed = false;

  private constructor(path: string, server: Server) {
    this.path = path;
    this.#server = server;
  }

  /** Errors: SERVICE_RUNNING (another one answers there), CONTROL_SOCKET. */
  static async open(path: string, handle: Handle): Promise<ControlSocket> {
    const server = createServer();
    const socket = new ControlSocket(path, server);
    server.maxConnections = CONNECTIONS_MAX;
    server.on('connection', (connection) => socket.#serve(connection, handle));
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o750 });
      if (await answers(path)) throw taken(path);
      // What is left of a service that was killed.
      rmSync(path, { force: true });
      await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
      chmodSync(path, MODE);
    } catch (cause) {
      server.close();
      if (cause instanceof PremotorError) throw cause;
      const found = (cause as Error).message;
      const message = `The control socket ${path} cannot be opened: ${found}. Check its folder, or name another one in service.control_socket.`;
      throw new PremotorError('CONTROL_SOCKET', message, { file: path, expected: 'a folder to write', found, cause });
    }
    return socket;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const connection of this.#connections) connection.end();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        for (const connection of this.#connections) connection.destroy();
      }, CLOSE_MS_MAX);
      this.#server.close(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #serve(connection: Socket, handle: Handle): void {
    this.#connections.add(connection);
    connection.setEncoding('utf8');
    connection.setTimeout(IDLE_MS_MAX, () => connection.end());
    connection.on('error', () => connection.destroy());
    connection.on('close', () => this.#connections.delete(connection));
    let rest = '';
    let turn: Promise<void> = Promise.resolve();
    connection.on('data', (part: string) => {
      const lines = `${rest}${part}`.split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > LINE_BYTES_MAX) {
        connection.end(`${JSON.stringify(refusal(invalid(`a line of at most ${LINE_BYTES_MAX} characters`, 'a longer one')))}\n`);
        return;
      }
      for (const line of lines) turn = turn.then(() => reply(connection, line, handle));
    });
  }
}

const CLOSE_MS_MAX = 500;

async function reply(connection: Socket, line: string, handle: Handle): Promise<void> {
  const answer = await answerTo(line, handle);
  if (connection.writable) connection.write(`${JSON.stringify(answer)}\n`);
}

async function answerTo(line: string, handle: Handle): Promise<ControlAnswer> {
  try {
    return await handle(parse(line));
  } catch (error) {
    return refusal(toPremotorError(error));
  }
}

function parse(line: string): ControlRequest {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw invalid('one JSON object a line', (error as Error).message);
  }
  const parsed = requestSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const first = parsed.error.issues[0];
  throw invalid(EXPECTED, `${first?.path.join('.') ?? ''} ${first?.message ?? 'something else'}`.trim());
}

const EXPECTED = '{"do": "status" | "arm" | "disarm" | "run" | "stop" | "clear" | "maintenance", ...}';

function invalid(expected: string, found: string): PremotorError {
  return new PremotorError('CONTROL_REQUEST', `The request is none: expected ${expected}, found ${found}. See docs/SERVICE.md.`, { expected, found });
}

/** Whether somebody listens there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(path);
    const give = (is: boolean): void => {
      probe.destroy();
      resolve(is);
    };
    probe.once('connect', () => give(true));
    probe.once('error', () => give(false));
  });
}

function taken(path: string): PremotorError {
  const message = `A service runs here already: it answers at ${path}. Stop it first, or give this one another service.control_socket.`;
  return new PremotorError('SERVICE_RUNNING', message, { file: path, expected: 'a socket that nobody serves', found: 'one that answers' });
}
