/** Replay records: an episode asked again gives the same bits; whatever differs is found and named; damaged and full records say so. */
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { runCli } from '../../src/cli/main.js';
import type { ReplayReport } from '../../src/cli/replay.js';
import { PremotorError } from '../../src/errors.js';
import type { LoadPolicyOptions } from '../../src/policy/contract.js';
import { play } from '../../src/replay/player.js';
import { RecordWriter, readRecord } from '../../src/replay/record.js';
import { RecordingPolicy } from '../../src/replay/recording-policy.js';
import { fakeContext } from '../cli/fakes.js';
import { FakeModel, fakeMoment, playEpisode } from '../support/fake-model.js';
import { errorOf } from '../support/fixtures.js';

const about = (model: FakeModel) => ({
  prompt: 'press the red button two times',
  seed: 5,
  checkpoint: '/models/fake',
  checkpointHash: model.info.checkpointHash,
  job: model.job as unknown as Record<string, unknown>,
  precision: model.info.precision,
  kvCache: model.info.kvCache,
  device: model.info.device,
  backend: model.info.backend,
  threads: model.info.threads,
  configuration: { robot: { type: 'sim' } },
});

interface Recorded {
  readonly file: string;
  readonly warnings: PremotorError[];
}

/** Records what `episode` does with a policy. */
async function recorded(t: Test, episode: (policy: RecordingPolicy, model: FakeModel) => Promise<unknown>, maxBytes?: number): Promise<Recorded> {
  const file = join(t.testdir(), 'deep', 'episode.replay');
  const warnings: PremotorError[] = [];
  const model = new FakeModel();
  const onWarning = (warning: PremotorError): void => void warnings.push(warning);
  const writer = await RecordWriter.create(file, about(model), { onWarning, ...(maxBytes === undefined ? {} : { maxBytes }) });
  const policy = new RecordingPolicy(model, writer);
  await episode(policy, model);
  await policy.close();
  await policy.close();
  t.ok(model.isClosed);
  return { file, warnings };
}

/** An episode with everything in it: steps, noise, asynchronous steps, failures and an abort after the commit. */
async function busyEpisode(policy: RecordingPolicy, model: FakeModel): Promise<void> {
  await playEpisode(policy, 2);
  await errorOf(policy.predict(null as never).catch((error: unknown) => Promise.reject(new PremotorError('ARGUMENT_INVALID', String(error)))));
  const executed = new Float32Array(64).fill(0.5);
  const step = {
    obs: [fakeMoment(50)],
    executed,
    executing: new Float32Array(64),
    seed: 2n ** 60n,
    noise: { video: Float32Array.of(1, Number.NaN) },
  };
  await policy.predictNext(step);
  await policy.predictNext({ executing: executed, videoSteps: 2 });
  const running = policy.predict({ seed: 9 });
  await running;
  model.hook = (call, when) => {
    if (call === 'predictNext' && when === 'after') throw new PremotorError('ABORTED', 'stopped while imagining');
  };
  await errorOf(policy.predictNext(step));
  model.hook = () => undefined;
  await policy.predict({ seed: 4 });
  await policy.decode(new Float32Array(1));
  await policy.encoderState();
  await policy.reset({ prompt: 'another' });
  await policy.predict({ obs: fakeMoment(1) });
}

t.test('an episode that is asked again answers the same in every bit', async (t) => {
  const { file, warnings } = await recorded(t, busyEpisode);
  t.same(warnings, []);
  const record = await readRecord(file);
  t.equal(record.end, 'closed');
  t.match(record.header, { version: 1, seed: 5, configuration: { robot: { type: 'sim' } } });
  const outcome = await play(record, new FakeModel());
  t.match(outcome, { first: null, callsDifferent: 0, valuesDifferent: 0, predictions: 7, commits: 3, skipped: 1 });
  t.equal(outcome.values, 7 * 64);
  t.not(record.calls.filter(({ error }) => error === 'ABORTED').length, 0, 'the step that was stopped after its commit is in it');
});

t.test('a policy that answers otherwise is found at its first difference', async (t) => {
  const { file } = await recorded(t, (policy) => playEpisode(policy, 3));
  const record = await readRecord(file);
  class Other extends FakeModel {
    override async predict(options: Parameters<FakeModel['predict']>[0] = {}): ReturnType<FakeModel['predict']> {
      const chunk = await super.predict(options);
      // The smallest possible difference: the sign of a zero, or the last bit.
      if (this.calls.filter((call) => call === 'predict').length === 2) new Uint32Array(chunk.actions.buffer)[17] = 0x80000000;
      return chunk;
    }
  }
  const outcome = await play(record, new Other());
  t.match(outcome, { callsDifferent: 1, valuesDifferent: 1, first: { call: 3, method: 'predict', what: 'actions', channel: 1, index: 1 } });
  t.match(outcome.first?.found, /^0 \(0x80000000\)$|^-0 \(0x80000000\)$/);
  const forgetful = new FakeModel();
  const commit = forgetful.commit.bind(forgetful);
  forgetful.commit = ({ obs, actions }) => commit({ obs: obs.slice(1), actions });
  const changed = await play(record, forgetful);
  t.match(changed.first, { call: 2, method: 'commit', what: 'latents' });
  t.ok(changed.callsDifferent > 3);
});

t.test('a record that ends early is replayed as far as it goes', async (t) => {
  const { file } = await recorded(t, (policy) => playEpisode(policy, 3));
  truncateSync(file, readFileSync(file).length - 200);
  const record = await readRecord(file);
  t.equal(record.end, 'cut');
  t.ok(record.calls.length < 7);
  t.match(await play(record, new FakeModel()), { first: null, calls: record.calls.length });
});

t.test('the file is bounded', async (t) => {
  const { file, warnings } = await recorded(t, (policy) => playEpisode(policy, 30), 6000);
  t.match(warnings, [{ code: 'REPLAY_FULL' }]);
  t.ok(readFileSync(file).length <= 6000);
  const record = await readRecord(file);
  t.equal(record.end, 'full');
  t.ok(record.calls.length > 1);
  t.match(await play(record, new FakeModel()), { first: null });
});

t.test('what is no record is refused', async (t) => {
  const { file } = await recorded(t, async () => undefined);
  t.match(await errorOf(readRecord(join(file, 'none'))), { code: 'REPLAY_MISSING' });
  for (const content of ['', 'hello', readFileSync(file).subarray(0, 30)]) {
    writeFileSync(file, content);
    t.match(await errorOf(readRecord(file)), { code: 'REPLAY_DAMAGED' });
  }
  t.match(await errorOf(RecordWriter.create(join(file, 'below'), about(new FakeModel()))), { code: 'REPLAY_WRITE' });
});

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly loads: readonly LoadPolicyOptions[];
}

async function run(argv: string[], model: FakeModel): Promise<Ran> {
  const loads: LoadPolicyOptions[] = [];
  const load = async (options: LoadPolicyOptions): Promise<FakeModel> => {
    loads.push(options);
    return model;
  };
  const { out, err, context } = fakeContext({ loadPolicy: load });
  const code = await runCli(['replay', ...argv], context);
  return { code, out: out.text, err: err.text, loads };
}

t.test('premotor replay: 0 when it is the same, 1 with the first difference', async (t) => {
  const { file } = await recorded(t, (policy) => playEpisode(policy, 2));
  const same = await run([file], new FakeModel());
  t.equal(same.code, 0, same.err);
  t.match(same.out, /answers +the same in every bit/);
  t.match(same.loads, [{ checkpoint: '/models/fake', precision: 'f32', kvCache: 'f32', device: 'cpu', isolate: false }]);
  const other = new FakeModel({ precision: 'bf16', kvCache: 'bf16', checkpointHash: 'b'.repeat(64) });
  const predict = other.predict.bind(other);
  other.predict = async (options) => predict({ ...options, seed: 6 });
  const differs = await run([file, '--json', '--precision', 'bf16', '--threads', '3', '--checkpoint', 'elsewhere'], other);
  t.equal(differs.code, 1);
  t.match(differs.err, /error REPLAY_DIFFERS: .*call 2 \(predict\), actions, channel 0, action 0: .*recorded checkpoint, precision/s);
  const report = JSON.parse(differs.out.slice(0, differs.out.indexOf('\n}\n') + 2)) as ReplayReport;
  t.match(report, { same: false, predictions: 2, first: { call: 1, channel: 0, index: 0 }, end: 'closed' });
  t.same(
    report.settings.find(({ name }) => name === 'precision'),
    { name: 'precision', recorded: 'f32', replayed: 'bf16' },
  );
  t.match(differs.loads, [{ checkpoint: /elsewhere$/, precision: 'bf16', kvCache: 'bf16', threads: 3 }]);
  t.ok(other.isClosed);
});

t.test('premotor replay: the KV cache is the recorded one, the one asked for, or that of the precision asked for', async (t) => {
  const record = async (info: { precision: 'int8' | 'f32'; kvCache?: 'int8' }): Promise<string> => {
    const file = join(t.testdir(), 'episode.replay');
    const { kvCache: _, ...older } = about(new FakeModel(info));
    const writer = await RecordWriter.create(file, info.kvCache === undefined ? older : { ...older, kvCache: info.kvCache });
    await writer.close();
    return file;
  };
  const cacheOf = async (file: string, ...argv: string[]) => (await run([file, ...argv], new FakeModel())).loads[0]?.kvCache;
  const narrow = await record({ precision: 'int8', kvCache: 'int8' });
  t.equal(await cacheOf(narrow), 'int8');
  t.equal(await cacheOf(narrow, '--precision', 'int8'), 'int8');
  t.equal(await cacheOf(narrow, '--precision', 'f32'), 'f32');
  t.equal(await cacheOf(narrow, '--kv-cache', 'bf16'), 'bf16');
  t.match((await run([narrow], new FakeModel())).out, /KV cache +recorded int8, NOW f32/);
  t.equal(await cacheOf(await record({ precision: 'int8' })), 'bf16', 'records of earlier versions have that of their precision');
});

t.test('premotor replay: what cannot be read', async (t) => {
  const model = new FakeModel();
  t.match(await run(['none.replay'], model), { code: 1, err: /error REPLAY_MISSING/, loads: [] });
  t.equal((await run([], model)).code, 2);
  t.notOk(existsSync('none.replay'));
});
