/** The self-test: values near their reference become it, others do not; and what a reference must be. The policy is a stand-in with a known chunk. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseRobotConfig, readRobotConfig } from '../../src/config/reader.js';
import type { RobotConfig } from '../../src/config/schema.js';
import type { Policy, PredictOptions } from '../../src/policy/contract.js';
import { VOCABULARY } from '../../src/runtime/rig.js';
import { createReference, runSelftest, snap, testPicture } from '../../src/runtime/selftest.js';

const chunk = Float32Array.from({ length: 24 }, (_, index) => Math.sin(index));

/** A policy whose chunk is `chunk` with a change. */
function policy(change: (values: Float32Array) => void = () => undefined, seen: PredictOptions[] = []) {
  return async (): Promise<Policy> => {
    const actions = Float32Array.from(chunk);
    change(actions);
    const made = {
      job: { obs_cam_keys: ['a', 'b'] },
      info: { checkpointHash: 'hash', backend: 'fake', actionShape: [2, 3, 4] },
      reset: async () => ({}),
      predict: async (options: PredictOptions) => {
        seen.push(options);
        return { actions, shape: [2, 3, 4] };
      },
      close: async () => undefined,
    };
    return made as unknown as Policy;
  };
}

const configIn = (t: Test): RobotConfig =>
  parseRobotConfig('robot: {type: sim}\npolicy: {checkpoint_dir: .}\n', join(t.testdir(), 'robot.yaml'), VOCABULARY).config;

t.test('the same chunk matches, one within tolerance has the same hash, one outside does not', async (t) => {
  const config = configIn(t);
  const seen: PredictOptions[] = [];
  const { sha256 } = await createReference(config, { loadPolicy: policy(undefined, seen) });
  t.match(await runSelftest(config, { loadPolicy: policy(undefined, seen) }), { matches: true, sha256, worst: 0, values: 24 });
  t.same(seen[0]?.obs, seen[1]?.obs, 'equal pictures');
  t.equal(seen[0]?.seed, seen[1]?.seed);
  const near = await runSelftest(config, { loadPolicy: policy((values) => values.set([(values[5] ?? 0) + 3e-5], 5)) });
  t.match(near, { matches: true, sha256 });
  t.ok(near.worst > 0);
  const far = await runSelftest(config, { loadPolicy: policy((values) => values.set([(values[5] ?? 0) + 3e-3], 5)) });
  t.match(far, { matches: false, expectedSha256: sha256 });
  t.not(far.sha256, sha256);
  const broken = await runSelftest(config, { loadPolicy: policy((values) => values.set([Number.NaN], 5)) });
  t.match(broken, { matches: false, worst: Number.POSITIVE_INFINITY }, 'what is no number does not match');
});

t.test('a reference that is absent, broken, or of another model', async (t) => {
  const config = configIn(t);
  const parts = { loadPolicy: policy() };
  await t.rejects(runSelftest(config, parts), { code: 'SELFTEST_MISSING' });
  const { file } = await createReference(config, parts);
  const good = readFileSync(file, 'utf8');
  await t.rejects(runSelftest({ ...config, policy: { ...config.policy, precision: 'bf16' } }, parts), { code: 'SELFTEST_MISSING', found: 'f32' });
  for (const bad of [
    '{',
    good.replace('premotor-selftest-1', 'other'),
    good.replace(/"actions": "..../, '"actions": "BBBB'),
    good.replace('"hash"', '"other"'),
  ]) {
    writeFileSync(file, bad);
    await t.rejects(runSelftest(config, parts), { code: 'SELFTEST_INVALID' });
  }
  writeFileSync(file, good);
  t.match(await runSelftest(config, parts), { matches: true });
  await createReference({ ...config, policy: { ...config.policy, precision: 'bf16' } }, parts);
  t.same(Object.keys(JSON.parse(readFileSync(file, 'utf8')).references), ['f32', 'bf16'], 'one for each precision');
});

t.test('a chunk of another length is no match', async (t) => {
  t.equal(snap(chunk.subarray(0, 20), chunk, 2, 0.1).worst, Number.POSITIVE_INFINITY);
  t.equal(snap(chunk, chunk, 2, 0).worst, 0);
});

t.test('cameras get pictures that differ', async (t) => {
  // Compared as bytes: a difference of two pictures in words takes a minute.
  t.not(Buffer.compare(testPicture('a', 0).data, testPicture('a', 1).data), 0);
});

t.test("the shipped model's references are of the shipped model", async (t) => {
  const { config } = await readRobotConfig(new URL('../../robots/sim-tabletop.yaml', import.meta.url).pathname, VOCABULARY);
  const { loadPolicy } = await import('../../src/policy/load.js');
  const result = await runSelftest(config, { loadPolicy: (options) => loadPolicy({ ...options, isolate: false }) });
  t.match(result, { matches: true, precision: 'f32' });
});
