/** Messages as clients send them, a policy that refuses what was not checked, and a server with fakes behind it. Not a test itself. */

import { once } from 'node:events';
import type { Test } from 'tap';
import { WebSocket } from 'ws';
import type { CommitOptions, Frame, Job, Policy, PredictOptions, ResetOptions } from '../../src/policy/contract.js';
import * as check from '../../src/policy/validate.js';
import { decode, type Encodable, encode, type WireMap } from '../../src/server/msgpack.js';
import { arrayOf, NdArray } from '../../src/server/ndarray.js';
import { PolicyServer, type ServerOptions } from '../../src/server/server.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { FakeModel, fakeMoment } from '../support/fake-model.js';

/** Two cameras, K = 2, three channels, four actions per latent frame. */
export const JOB: Job = {
  ...SIM_JOB,
  obs_cam_keys: ['observation.images.cam_high', 'observation.images.cam_wrist'],
  used_action_channel_ids: [14, 15, 16],
  frame_chunk_size: 2,
  action_per_frame: 4,
};

export const SESSION = { seed: 7, pictureSideMax: 64, aliases: new Map<string, string>() };

export const picture = (height: number, width: number, fill = 1): NdArray =>
  new NdArray('|u1', [height, width, 3], new Uint8Array(height * width * 3).fill(fill));

/** A moment as a client sends it, more than the server needs. */
export const moment = (fill = 1, job: Job = JOB): Record<string, Encodable> => ({
  ...Object.fromEntries(job.obs_cam_keys.map((camera, index) => [camera, picture(2, 2, fill * 3 + index)])),
  'observation.state': new NdArray('<f8', [1], new Uint8Array(8)),
  task: 'a task',
});

export const infer = (more: Record<string, Encodable> = {}): Record<string, Encodable> => ({ obs: moment(0), prompt: 'pick', ...more });
export const reset = (prompt = 'pick'): Record<string, Encodable> => ({ reset: true, prompt });

export function commit(moments: number, frames: number, more: Record<string, Encodable> = {}): Record<string, Encodable> {
  const [used, H] = [JOB.used_action_channel_ids.length, JOB.action_per_frame];
  const state = arrayOf(new Float32Array(used * frames * H).fill(0.25), [used, frames, H]);
  return { obs: Array.from({ length: moments }, (_, index) => moment(index + 1)), compute_kv_cache: true, imagine: false, state, ...more };
}

/** A model that looks at everything it is given with the checks of the local policy, and remembers whether something failed them. */
export class StrictModel extends FakeModel {
  readonly unchecked: unknown[] = [];
  readonly frames: Frame[][] = [];
  readonly seeds: (number | bigint | undefined)[] = [];
  readonly #cameras: check.Cameras;
  #isFirst = true;

  constructor(job: Job = JOB) {
    super({}, job);
    this.#cameras = new check.Cameras(job.obs_cam_keys);
  }

  override async reset(options: ResetOptions) {
    this.#look(() => check.checkPrompt(options.prompt));
    this.#isFirst = true;
    return super.reset(options);
  }

  override async predict(options: PredictOptions = {}) {
    this.#look(() => {
      check.checkSeed(options.seed);
      check.checkVideoSteps(options.videoSteps, options.videoExecStep, this.job);
      check.checkSteps(options.actionSteps, 'actionSteps');
      if (options.obs) check.checkObservation(options.obs, this.#cameras, 'obs');
    });
    if (options.obs) this.frames.push([...options.obs]);
    this.seeds.push(options.seed);
    return super.predict(options);
  }

  override async commit(options: CommitOptions) {
    this.#look(() => {
      const { frames, reason } = check.checkMoments(options.obs, this.#cameras, this.job, this.#isFirst);
      check.checkActions(options.actions, this.job, frames, 'actions', reason);
    });
    this.#isFirst = false;
    this.frames.push(...options.obs.map((one) => [...one]));
    return super.commit(options);
  }

  #look(checks: () => void): void {
    try {
      checks();
    } catch (error) {
      this.unchecked.push(error);
    }
  }
}

export interface Logged {
  readonly level: string;
  readonly event: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

export interface Served {
  readonly server: PolicyServer;
  readonly models: StrictModel[];
  readonly log: Logged[];
  readonly url: string;
  /** Resolves when an event has been logged so often. */
  logged(event: string, count?: number): Promise<Logged>;
}

/** A server on a free port of this machine. */
export async function serve(t: Test, options: Partial<ServerOptions> = {}): Promise<Served> {
  const models: StrictModel[] = [];
  const log: Logged[] = [];
  const waiting = new Set<() => void>();
  const load = async (): Promise<Policy> => {
    const model = new StrictModel();
    models.push(model);
    return model;
  };
  const server = await PolicyServer.open({
    load,
    host: '127.0.0.1',
    port: 0,
    connections: 1,
    messageMaxMib: 1,
    limits: { idle_timeout_ms: 60_000, message_timeout_ms: 60_000, call_timeout_ms: 60_000 },
    session: SESSION,
    untrained: false,
    log: (level, event, fields) => {
      log.push({ level, event, fields });
      for (const wake of waiting) wake();
    },
    ...options,
  });
  t.teardown(() => server.close());
  const logged = (event: string, count = 1): Promise<Logged> =>
    new Promise((resolve) => {
      const look = (): void => {
        const found = log.filter((one) => one.event === event)[count - 1];
        if (!found) return;
        waiting.delete(look);
        resolve(found);
      };
      waiting.add(look);
      look();
    });
  return { server, models, log, url: `ws://127.0.0.1:${server.port}`, logged };
}

/** A client that does what the protocol says and nothing more. */
export class Client {
  readonly socket: WebSocket;
  readonly closed: Promise<{ code: number; reason: string }>;
  readonly #heard: (WireMap | string)[] = [];
  #wake: () => void = () => undefined;

  constructor(url: string, headers: Record<string, string> = {}) {
    this.socket = new WebSocket(url, { perMessageDeflate: false, headers });
    this.socket.on('message', (data: Buffer, isBinary) => {
      this.#heard.push(isBinary ? (decode(data) as WireMap) : data.toString());
      this.#wake();
    });
    this.closed = new Promise((resolve) => this.socket.on('close', (code, reason) => resolve({ code, reason: String(reason) })));
    void this.closed.then(() => this.#wake());
  }

  /** The next message; undefined when there will be none. */
  async next(): Promise<WireMap | string | undefined> {
    for (;;) {
      const message = this.#heard.shift();
      if (message !== undefined || this.socket.readyState === WebSocket.CLOSED) return message;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async ask(request: Encodable): Promise<WireMap | string | undefined> {
    this.socket.send(encode(request));
    return this.next();
  }

  static async open(t: Test, url: string, headers: Record<string, string> = {}): Promise<Client> {
    const client = new Client(url, headers);
    t.teardown(() => client.socket.terminate());
    await once(client.socket, 'open');
    return client;
  }
}

export { fakeMoment };
