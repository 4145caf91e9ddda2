/**
 * A service in a test: the real one, with the real simulated robot and a real control socket, and stand-ins for the policy, for systemd and for
 * whoever watches. Its log says when something has happened, so that nobody waits for time. Not a test itself.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { parseRobotConfig } from '../../src/config/reader.js';
import type { RobotConfig } from '../../src/config/schema.js';
import type { Policy } from '../../src/policy/contract.js';
import type { ObserverFactory } from '../../src/runtime/observers.js';
import { openRig, type Rig, VOCABULARY } from '../../src/runtime/rig.js';
import type { WatchedClocks } from '../../src/service/clock-watch.js';
import { ask } from '../../src/service/control-client.js';
import type { ControlRequest, ServiceStatus } from '../../src/service/control-protocol.js';
import { Notifier } from '../../src/service/notifier.js';
import { Service } from '../../src/service/service.js';
import type { Observer, RunControl, RunEvent, ServiceReport } from '../../src/tap/observer.js';
import { atHome, FakePolicy } from '../control/fakes.js';

export interface Entry {
  readonly event: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** A folder whose name is short: that of a Unix socket has a hundred letters. */
export function shortDir(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'premotor-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** An observer that keeps what it is told. */
export class Watcher implements Observer {
  readonly name = 'telemetry';
  readonly isConnected: boolean = true;
  readonly reports: ServiceReport[] = [];
  readonly events: RunEvent[] = [];
  control: RunControl | undefined;
  begun = 0;
  ended = 0;

  async attend(_about: unknown, control: RunControl): Promise<void> {
    this.control = control;
  }

  async begin(_about: unknown, control: RunControl): Promise<void> {
    this.control = control;
    this.begun++;
  }

  service(report: ServiceReport): void {
    this.reports.push(report);
  }

  event(event: RunEvent): void {
    this.events.push(event);
  }

  motion(): void {}

  async end(): Promise<void> {
    this.ended++;
  }

  async close(): Promise<void> {}
}

export interface HarnessOptions {
  /** Lines of YAML beside the shortest configuration; sections in flow style. */
  readonly more?: string;
  readonly service?: string;
  readonly dir?: string;
  readonly policy?: () => Promise<Policy>;
  readonly openRig?: (config: RobotConfig) => Promise<Rig>;
  readonly clocks?: WatchedClocks;
  readonly watcher?: Watcher;
  readonly watchdogMs?: number;
  readonly memoryFree?: () => Promise<number | undefined>;
}

export class Harness {
  readonly entries: Entry[] = [];
  /** What systemd was told. */
  readonly told: string[] = [];
  readonly watcher: Watcher;
  readonly dir: string;
  readonly socket: string;
  readonly service: Service;
  readonly done: Promise<void>;
  readonly #abort = new AbortController();
  readonly #waiting = new Set<{ readonly is: (entry: Entry) => boolean; readonly resolve: () => void }>();

  constructor(t: Test, options: HarnessOptions = {}) {
    this.dir = options.dir ?? shortDir(t);
    this.socket = join(this.dir, 'c.sock');
    this.watcher = options.watcher ?? new Watcher();
    const wishes = ['check_period_s: 0.02', 'retry_s: 0.05', 'control_socket: c.sock', 'state_dir: state', options.service ?? ''].filter(
      (one) => one !== '',
    );
    const text = [
      'robot: {type: sim}',
      'task: {name: touch, seed: 3}',
      'policy: {checkpoint_dir: ckpt, recover: false}',
      'recording: {out_dir: out, animation: false, replay: false, recorder: {mode: "off"}}',
      'telemetry: {enabled: false}',
      'dashboard: {enabled: false}',
      `service: {${wishes.join(', ')}}`,
      options.more ?? '',
    ].join('\n');
    const { config, file } = parseRobotConfig(text, join(this.dir, 'robot.yaml'), VOCABULARY);
    const observers: readonly ObserverFactory[] = [async () => this.watcher];
    const { clocks, watchdogMs, memoryFree } = options;
    this.service = new Service({
      config,
      file,
      text,
      openRig: options.openRig ?? openRig,
      loadPolicy: options.policy ?? (async () => new FakePolicy(atHome)),
      notifier: new Notifier(
        (one) => void this.told.push(one),
        () => undefined,
      ),
      log: (_level, event, fields = {}) => this.#hear({ event, fields }),
      observers,
      ...(clocks ? { clocks } : {}),
      ...(watchdogMs === undefined ? {} : { watchdogMs }),
      ...(memoryFree ? { preflight: { memoryFree } } : {}),
    });
    this.done = this.service.run(this.#abort.signal);
    this.done.catch(() => undefined);
    t.teardown(() => this.end());
  }

  #hear(entry: Entry): void {
    this.entries.push(entry);
    for (const one of this.#waiting) {
      if (!one.is(entry)) continue;
      this.#waiting.delete(one);
      one.resolve();
    }
  }

  /** The next entry of the log that is so. */
  next(is: (entry: Entry) => boolean): Promise<void> {
    return new Promise((resolve) => this.#waiting.add({ is, resolve }));
  }

  /** So many entries of a kind are in the log, or will be. */
  async sees(event: string, count = 1): Promise<void> {
    const there = (): number => this.entries.filter((entry) => entry.event === event).length;
    if (there() < count) await this.next((entry) => entry.event === event && there() >= count);
  }

  /** The service is in a state, or comes to it. */
  async reaches(state: string): Promise<void> {
    const over = this.done.then(() => {
      if (this.service.state !== state) throw new Error(`it ended in ${this.service.state} before it came to ${state}`);
    });
    over.catch(() => undefined);
    if (this.service.state !== state) await Promise.race([over, this.next(({ event, fields }) => event === 'state' && fields['to'] === state)]);
  }

  /** So many more looks came to their end. */
  async looks(count: number): Promise<void> {
    const { reports } = this.watcher;
    const wanted = reports.length + count;
    await new Promise<void>((resolve) => {
      const check = setInterval(() => {
        if (reports.length < wanted) return;
        clearInterval(check);
        resolve();
      }, 5);
    });
  }

  /** A look finds it so. */
  async until(isSo: (status: ServiceStatus) => boolean): Promise<ServiceStatus> {
    for (;;) {
      const status = await this.status();
      if (isSo(status)) return status;
      await this.looks(1);
    }
  }

  async ask(request: ControlRequest): Promise<ServiceStatus> {
    const status = await ask(this.socket, request);
    if (!status) throw new Error('an answer without a status');
    return status;
  }

  status(): Promise<ServiceStatus> {
    return this.ask({ do: 'status' });
  }

  /** Asked as systemd asks. */
  async end(): Promise<void> {
    this.#abort.abort();
    await this.done.catch(() => undefined);
  }

  /** The states that it went through. */
  get path(): readonly string[] {
    return ['starting', ...this.entries.filter(({ event }) => event === 'state').map(({ fields }) => String(fields['to']))];
  }
}
