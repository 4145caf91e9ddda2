/**
 * A whole episode with the recorder off, on, and on with its disk full: the setpoints, and everything that the motors do, are the same in every bit;
 * the recording has every one of them; and a failed episode leaves the file of its fault.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { readRobotConfig } from '../../src/config/reader.js';
import type { RobotConfig } from '../../src/config/schema.js';
import { PremotorError } from '../../src/errors.js';
import { openRecorder, type RecorderParts } from '../../src/recording/recorder.js';
import { type EpisodeObserver, runEpisode } from '../../src/runtime/episode.js';
import { Observers } from '../../src/runtime/observers.js';
import { VOCABULARY } from '../../src/runtime/rig.js';
import type { MotionSample, Observer } from '../../src/tap/observer.js';
import { FakePolicy, hasty } from '../control/fakes.js';
import { fullAfter, readAll, recordingsIn } from '../recording/support.js';

/** Sees what the recorder sees. */
class Probe implements Observer {
  readonly name = 'telemetry';
  readonly #hash = createHash('sha256');
  samples = 0;

  async begin(): Promise<void> {}
  event(): void {}
  motion({ timeNs, setpointRad, positionsRad, velocitiesRadPerS }: MotionSample): void {
    this.samples++;
    this.#hash.update(timeNs.toString());
    for (const values of [setpointRad, positionsRad, velocitiesRadPerS]) this.#hash.update(new Uint8Array(values.slice().buffer));
  }
  async end(): Promise<void> {}
  async close(): Promise<void> {}
  digest(): string {
    return this.#hash.digest('hex');
  }
}

const quiet = (notices: string[], warnings: string[]): EpisodeObserver => ({
  ready: () => undefined,
  cycle: () => undefined,
  decoding: () => undefined,
  decoded: () => undefined,
  noAnimation: () => undefined,
  resumed: () => undefined,
  recovery: () => undefined,
  warning: ({ code }) => void warnings.push(code),
  notice: (text) => void notices.push(text),
});

interface Ran {
  readonly digest: string;
  readonly samples: number;
  readonly outcome: string;
  readonly notices: string[];
  readonly warnings: string[];
}

async function episode(config: RobotConfig, policy: FakePolicy, more: Partial<RecorderParts> = {}): Promise<Ran> {
  const probe = new Probe();
  const notices: string[] = [];
  const warnings: string[] = [];
  const { summary } = await runEpisode(config, {
    loadPolicy: async () => policy,
    observer: quiet(notices, warnings),
    signal: new AbortController().signal,
    openObservers: (given, parts) => Observers.open(given, parts, [(one, two) => openRecorder(one, { ...two, ...more }), async () => probe]),
  });
  return { digest: probe.digest(), samples: probe.samples, outcome: summary.outcome, notices, warnings };
}

async function configOf(t: Test, mode: string): Promise<{ config: RobotConfig; flight: string }> {
  const text = `robot: {type: sim}
task: {name: push, seed: 5}
policy: {checkpoint_dir: ckpt, recover: false}
control: {chunks_max: 2}
recording: {animation: false, replay: false, out_dir: out, recorder: {mode: ${mode}}}
`;
  const dir = t.testdir({ 'arm.yaml': text });
  const { config } = await readRobotConfig(join(dir, 'arm.yaml'), VOCABULARY);
  return { config, flight: join(dir, 'out', 'flight') };
}

t.test('the setpoints are the same in every bit with and without a recorder', async (t) => {
  const without = await episode((await configOf(t, 'off')).config, new FakePolicy(hasty));
  t.ok(without.samples > 500);
  const window = await episode((await configOf(t, 'window')).config, new FakePolicy(hasty));
  const { config, flight } = await configOf(t, 'full');
  const full = await episode(config, new FakePolicy(hasty));
  t.equal(window.digest, without.digest);
  t.equal(full.digest, without.digest);
  const [file = ''] = recordingsIn(flight);
  const { messages, state } = await readAll(file);
  t.ok(state.isComplete);
  const hash = createHash('sha256');
  const motion = messages.filter(({ topic }) => topic === '/motion');
  for (const message of motion) {
    const { robot_time_ns: timeNs, setpoint_rad: setpoint, position_rad: position, velocity_rad_per_s: velocity } = message.decode();
    hash.update(String(timeNs));
    for (const values of [setpoint, position, velocity]) hash.update(new Uint8Array((values as Float64Array).slice().buffer));
  }
  t.equal(motion.length, full.samples);
  t.equal(hash.digest('hex'), full.digest, 'what was recorded are the bits that moved the motors');
  const config2 = (await configOf(t, 'full')).config;
  const broken = await episode(config2, new FakePolicy(hasty), { openFile: fullAfter(60_000) });
  t.same(broken.warnings, ['RECORD_WRITE']);
  t.equal(broken.digest, without.digest, 'also when its disk is full');
});

t.test('a failed episode leaves the file of its fault, one that went well none', async (t) => {
  const { config, flight } = await configOf(t, 'window');
  const policy = new FakePolicy(hasty);
  policy.before = (call) => {
    if (call === 'commit') throw new PremotorError('OUT_OF_MEMORY', 'No memory.');
  };
  const { outcome, notices, warnings } = await episode(config, policy);
  t.equal(outcome, 'failed');
  t.same(warnings, []);
  const [file = '', ...more] = recordingsIn(flight);
  t.match(file, /fault-.*-OUT_OF_MEMORY\.mcap$/);
  t.same(more, []);
  t.match(notices, [new RegExp(`are in .*${file.slice(-30)}`)]);
  const { messages } = await readAll(file);
  const calls = messages.filter(({ topic }) => topic === '/policy/calls').map((message) => message.decode());
  t.match(calls.at(-1), { method: 'commit', error: 'OUT_OF_MEMORY' });
  t.match(messages.find(({ topic }) => topic === '/faults')?.decode(), { code: 'OUT_OF_MEMORY', state: 'running' });
  const fine = await configOf(t, 'window');
  await episode(fine.config, new FakePolicy(hasty));
  t.same(recordingsIn(fine.flight), []);
});
