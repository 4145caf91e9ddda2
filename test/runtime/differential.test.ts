/**
 * Whoever watches changes nothing: the same seed gives the same setpoints and the same motion, bit for bit, with telemetry, recorder and page on, off
 * and each alone. The shipped checkpoint drives the simulated arm in virtual time through the whole path, in a synchronous and an asynchronous mode.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type RobotConfig, robotConfigSchema } from '../../src/config/schema.js';
import { loadPolicy } from '../../src/policy/load.js';
import { type EpisodeObserver, runEpisode } from '../../src/runtime/episode.js';
import { FACTORIES, Observers } from '../../src/runtime/observers.js';
import type { MotionSample, Observer } from '../../src/tap/observer.js';

const checkpoint = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'models', 'tabletop');
const CHUNKS = 2;
const SEED = 11;

interface Watched {
  readonly telemetry: boolean;
  readonly recorder: 'off' | 'window' | 'full';
  readonly dashboard: boolean;
}

function configOf(mode: string, dir: string, { telemetry, recorder, dashboard }: Watched): RobotConfig {
  return robotConfigSchema.parse({
    robot: { type: 'sim' },
    task: { name: 'touch', seed: SEED },
    policy: { checkpoint_dir: checkpoint, isolate: false, recover: false, video_steps: 1, action_steps: 2 },
    control: { mode, chunks_max: CHUNKS },
    recording: { animation: false, replay: false, out_dir: dir, recorder: { mode: recorder } },
    telemetry: { enabled: telemetry },
    dashboard: { enabled: dashboard },
  });
}

/** Hashes every sample of the motion. */
function hashing(): Observer & { readonly digest: () => string; readonly samples: () => number } {
  const hash = createHash('sha256');
  let samples = 0;
  const bytes = ({ buffer, byteOffset, byteLength }: Float64Array): Uint8Array => new Uint8Array(buffer, byteOffset, byteLength);
  return {
    name: 'recorder',
    begin: async () => undefined,
    event: ({ type, ...rest }) => {
      if (type === 'cycle' && 'event' in rest && rest.event.type === 'executed') hash.update(new Uint8Array(rest.event.actions.slice().buffer));
    },
    motion: ({ timeNs, setpointRad, positionsRad, velocitiesRadPerS }: MotionSample) => {
      samples++;
      hash.update(`${timeNs}`);
      for (const values of [setpointRad, positionsRad, velocitiesRadPerS]) hash.update(bytes(values));
    },
    end: async () => undefined,
    close: async () => undefined,
    digest: () => hash.digest('hex'),
    samples: () => samples,
  };
}

const silent: EpisodeObserver = {
  ready: () => undefined,
  cycle: () => undefined,
  decoding: () => undefined,
  decoded: () => undefined,
  noAnimation: () => undefined,
  resumed: () => undefined,
  recovery: () => undefined,
  warning: (error) => t.fail(`a warning: ${error.code} ${error.message}`),
  notice: (text) => t.comment(text),
};

async function motionOf(config: RobotConfig): Promise<{ digest: string; samples: number; names: readonly string[] }> {
  const tap = hashing();
  let names: readonly string[] = [];
  const { summary } = await runEpisode(config, {
    loadPolicy,
    observer: silent,
    signal: new AbortController().signal,
    openObservers: async (wanted, parts) => {
      const observers = await Observers.open(wanted, parts, [...FACTORIES, async () => tap]);
      names = observers.names.slice(0, -1);
      return observers;
    },
  });
  t.equal(summary.chunks.length, CHUNKS, `${summary.outcome} ${summary.error?.message ?? ''}`);
  return { digest: tap.digest(), samples: tap.samples(), names };
}

const off: Watched = { telemetry: false, recorder: 'off', dashboard: false };
const variants: readonly (readonly [string, Watched, readonly string[]])[] = [
  ['all of them', { telemetry: true, recorder: 'full', dashboard: true }, ['telemetry', 'recorder', 'dashboard']],
  ['telemetry alone', { ...off, telemetry: true }, ['telemetry']],
  ['the recorder alone', { ...off, recorder: 'window' }, ['recorder']],
  ['the page alone', { ...off, dashboard: true }, ['dashboard']],
];

const skip = existsSync(checkpoint) ? false : 'SKIPPED: no shipped checkpoint';
for (const mode of ['sync', 'async-grounded']) {
  t.test(`${mode}: the motion is the same in every bit, whoever watches`, { skip }, async (t) => {
    const nobody = await motionOf(configOf(mode, t.testdir(), off));
    t.same(nobody.names, []);
    t.ok(nobody.samples > 500, `${nobody.samples} samples`);
    for (const [name, watched, watchers] of variants) {
      const { digest, names } = await motionOf(configOf(mode, t.testdir(), watched));
      t.same(names, watchers, `${name}: they were there`);
      t.equal(digest, nobody.digest, name);
    }
    const { digest } = await motionOf({ ...configOf(mode, t.testdir(), off), task: { name: 'touch', seed: SEED + 1 } });
    t.not(digest, nobody.digest, 'another seed moves otherwise');
  });
}
