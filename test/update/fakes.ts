/** What updates meet on a robot: a service behind a control socket, and a fleet's keys. Not a test itself. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { createAuthority, createSigner, type KeyPair } from '../../src/update/authority.js';
import { type Places, placesOf } from '../../src/update/places.js';

export interface ServiceState {
  state: string;
  armed: boolean;
  atRest: boolean;
  reasons: { code: string; message: string }[];
  telemetry: { enabled: boolean; connected: boolean };
  policy: { loaded: boolean };
  configuration: { file?: string };
}

export const readyService = (): ServiceState => ({
  state: 'ready',
  armed: false,
  atRest: true,
  reasons: [],
  telemetry: { enabled: true, connected: true },
  policy: { loaded: true },
  configuration: {},
});

/** Answers as the service does: one line for one line. Maintenance is refused while armed, and ends with the answer `off`. */
export class FakeService {
  readonly asked: Record<string, unknown>[] = [];
  state = readyService();
  /** Called before a status is told: how a service changes while somebody waits. */
  beforeStatus: (state: ServiceState) => void = () => undefined;
  /** Replaces the answer to everything; undefined answers nothing at all. */
  answer: ((request: Record<string, unknown>) => string | undefined) | undefined;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(t: Test, socket: string): Promise<FakeService> {
    const sockets = new Set<Socket>();
    const server = createServer((connection) => {
      sockets.add(connection);
      connection.setEncoding('utf8');
      let heard = '';
      connection.on('error', () => undefined);
      connection.on('data', (text: string) => {
        heard += text;
        for (let at = heard.indexOf('\n'); at >= 0; at = heard.indexOf('\n')) {
          const answer = service.#told(JSON.parse(heard.slice(0, at)) as Record<string, unknown>);
          heard = heard.slice(at + 1);
          if (answer !== undefined) connection.write(`${answer}\n`);
        }
      });
    });
    const service = new FakeService(server);
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    t.teardown(() => {
      for (const connection of sockets) connection.destroy();
      server.close();
    });
    return service;
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #told(request: Record<string, unknown>): string | undefined {
    this.asked.push(request);
    if (this.answer !== undefined) return this.answer(request);
    const refused = (message: string): string => JSON.stringify({ ok: false, error: { code: 'SERVICE_REFUSED', message, expected: '', found: '' } });
    if (request['do'] === 'status') {
      this.beforeStatus(this.state);
      return JSON.stringify({ ok: true, status: { version: '1.0.0', since: new Date(0).toISOString(), cycles: 0, ...this.state } });
    }
    if (request['do'] !== 'maintenance') return refused('no such request');
    if (this.state.armed) return refused('the robot is armed');
    this.state.state = request['on'] === true ? 'maintenance' : 'ready';
    return JSON.stringify({ ok: true });
  }
}

export interface Fleet {
  readonly folder: string;
  readonly keyring: string;
  readonly signer: KeyPair;
}

export async function makeFleet(folder: string): Promise<Fleet> {
  const { certificate: keyring } = await createAuthority(folder, 'test fleet');
  return { folder, keyring, signer: await createSigner(folder, 'ci', 30) };
}

/** A robot's places below a folder of the test. The socket has one of its own: its path must be short. */
export function placesIn(t: Test, keyring: string): Places {
  const folder = t.testdir();
  const short = mkdtempSync(join(tmpdir(), 'pm-'));
  t.teardown(() => rmSync(short, { recursive: true, force: true }));
  const env = { PREMOTOR_RUNTIME_DIR: join(folder, 'run') };
  return placesOf({ stateDir: join(folder, 'state'), socket: join(short, 'control.sock'), keyring, raucConf: join(folder, 'system.conf') }, env);
}
