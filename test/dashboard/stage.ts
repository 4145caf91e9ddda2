/**
 * A whole simulated episode with its status page, one prediction at a time: in virtual time the robot waits, whatever the machine does, until a test
 * has seen enough. For the tests in a browser and for the pictures of the documentation.
 */
import { join } from 'node:path';
import type { Test } from 'tap';
import { type RobotConfig, robotConfigSchema } from '../../src/config/schema.js';
import { openDashboard } from '../../src/dashboard/dashboard.js';
import { PremotorError } from '../../src/errors.js';
import type { Policy } from '../../src/policy/contract.js';
import { type EpisodeResult, runEpisode } from '../../src/runtime/episode.js';
import { Observers } from '../../src/runtime/observers.js';
import { compilePage } from '../support/page.js';
import { silentObserver } from './silent.js';

/** Lets predictions through when it is told to. */
export class Gate {
  #free = 0;
  #waiting: (() => void) | undefined;

  /** So many predictions may begin. */
  open(count: number): void {
    this.#free += count;
    this.#waiting?.();
  }

  async pass(signal: AbortSignal | undefined): Promise<void> {
    while (this.#free === 0) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
      if (signal?.aborted) throw new PremotorError('ABORTED', 'predict was aborted.');
    }
    this.#free--;
  }
}

export interface Staged {
  readonly url: string;
  readonly result: Promise<EpisodeResult>;
  /** Ends the process's work as Ctrl-C does. Resolves when nothing is left. */
  readonly end: () => Promise<void>;
}

export interface StageOptions {
  readonly policy: Policy;
  readonly change?: Readonly<Record<string, unknown>>;
}

/** What it needs of a test: a folder, and somebody who ends it. */
export type StageHost = Pick<Test, 'testdir' | 'teardown'>;

export async function stage(t: StageHost, { policy, change = {} }: StageOptions): Promise<Staged> {
  const dir = t.testdir();
  const config: RobotConfig = robotConfigSchema.parse({
    robot: { type: 'sim' },
    task: { name: 'touch', seed: 3 },
    policy: { checkpoint_dir: 'models/tabletop', recover: false },
    recording: { out_dir: join(dir, 'out'), animation: false, replay: false },
    ...change,
  });
  const pageDir = compilePage(join(dir, 'page'));
  const ending = new AbortController();
  let tell: (url: string) => void = () => undefined;
  const url = new Promise<string>((resolve) => (tell = resolve));
  const result = runEpisode(config, {
    loadPolicy: async () => policy,
    signal: ending.signal,
    stay: true,
    observer: silentObserver(),
    openObservers: (given, parts) =>
      Observers.open(given, parts, [
        (one) => openDashboard(one, { ...parts, onNotice: (text) => tell(/http:\S+\//.exec(text)?.[0] ?? '') }, { pageDir }),
      ]),
  });
  const settled = result.then(
    () => undefined,
    () => undefined,
  );
  const end = (): Promise<void> => {
    ending.abort();
    return settled;
  };
  t.teardown(end);
  return { url: await Promise.race([url, result.then(() => '')]), result, end };
}
