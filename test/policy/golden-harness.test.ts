/** The golden tests compare an engine with recordings; this file tests the comparison, with recordings in the engine's place. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { NativeTensor } from '../../src/native.js';
import { IsolatedPolicy } from '../../src/policy/isolated.js';
import { openLocal } from '../../src/policy/load.js';
import { Comparison, type Golden, kindOf, readGolden, relativeRms, runGolden } from '../support/golden.js';
import { type Change, replayNative } from '../support/replay-native.js';

async function replay(golden: Golden, change?: Change, limit = 1e-4): Promise<Comparison> {
  const comparison = new Comparison(limit);
  const { checkpoint, job } = golden;
  const policy = await openLocal({ checkpoint, job, promptCache: false }, { native: replayNative(golden, change) });
  await runGolden(policy, golden, comparison);
  await policy.close();
  return comparison;
}

const cases = ['franka_tiny', 'robotwin_tiny', 'nocfg_partial', 'bf16', 'i2va_tiny'].map((name) => [name, 'trace'] as const);

t.test('a recording equals itself, through tokenizer, policy and comparison', async (t) => {
  for (const [name, trace] of [...cases, ['bf16', 'trace_nocast'] as const]) {
    const golden = readGolden(name, trace);
    const comparison = await replay(golden);
    t.same(comparison.failures, [], `${name} ${trace}`);
    t.ok(comparison.compared > golden.calls.length * 10, `${comparison.compared} comparisons`);
    t.ok([...comparison.worst.values()].every(({ rms }) => rms === 0));
  }
});

t.test('through the engine process too', async (t) => {
  const golden = readGolden('nocfg_partial');
  process.env['PREMOTOR_REPLAY'] = golden.name;
  const module = fileURLToPath(new URL('../support/replay-engine-process.ts', import.meta.url));
  const policy = await IsolatedPolicy.open({ checkpoint: golden.checkpoint, job: golden.job, promptCache: false }, { module });
  t.teardown(() => policy.close());
  const comparison = new Comparison(0);
  await runGolden(policy, golden, comparison);
  t.same(comparison.failures, []);
});

/** Changes one tensor. */
const spoil =
  (target: string, change: (data: NativeTensor['data'], tensor: NativeTensor) => NativeTensor | undefined): Change =>
  (name, tensor) =>
    name === target ? change(tensor.data, tensor) : tensor;

const scaled =
  (factor: number) =>
  (data: NativeTensor['data'], tensor: NativeTensor): NativeTensor => {
    data.forEach((value, at) => {
      data[at] = value * factor;
    });
    return tensor;
  };

t.test('every deviation is found', async (t) => {
  const golden = readGolden('robotwin_tiny');
  const found = async (change: Change): Promise<string[]> => (await replay(golden, change)).failures;
  const floats = [
    'c01.streaming_vae_half.moments',
    'c03.video.s0.out',
    'c05.action.s1.x',
    'c08.video.input',
    'c11.latents',
    'c09.kv.L1.k',
    'sched.action.sigmas',
  ];
  for (const name of floats) {
    const failures = await found(spoil(name, scaled(1.0002)));
    t.ok(
      failures.length > 0 && failures.every((failure) => failure.includes(name.replace(/^c\d+\./, '')) || failure.includes('chunk.latents')),
      `${name}: ${failures[0]}`,
    );
    t.same(await found(spoil(name, scaled(1.00005))), [], `${name}: within the limit`);
    const notNumber = await found(spoil(name, scaled(Number.NaN)));
    t.ok(notNumber.length > 0, `${name}: NaN`);
  }
  t.match(await found(spoil('c03.video.s0.out', () => undefined)), ['c03.video.s0.out: not traced']);
  t.match(await found(spoil('c03.kv.L0.v', () => undefined)), ['c03.kv.L0.v: not traced']);
  const reshape = spoil('c03.video.s0.out', (data, tensor) => ({
    ...tensor,
    data,
    shape: [tensor.shape[1] ?? 0, tensor.shape[0] ?? 0, tensor.shape[2] ?? 0],
  }));
  t.match((await found(reshape))[0], /c03\.video\.s0\.out: expected float32 \[2, 48, 48\]/);
});

t.test('the cache is compared as sets', async (t) => {
  const golden = readGolden('robotwin_tiny');
  const found = async (change: Change): Promise<string[]> => (await replay(golden, change)).failures;
  const set = (at: number, value: number) => (data: NativeTensor['data'], tensor: NativeTensor) => {
    data[at] = value;
    return tensor;
  };
  t.ok(
    (await found(spoil('c03.kv.L0.mask', set(0, 0)))).some((line) => line.startsWith('c03.kv.L0 valid')),
    'an entry is missing',
  );
  t.ok(
    (await found(spoil('c03.kv.L1.id', set(0, 99)))).some((line) => line.startsWith('c03.kv.L1 valid')),
    'an id is wrong',
  );
  t.ok(
    (await found(spoil('c03.kv.L0.is_pred', set(60, 0)))).some((line) => line.startsWith('c03.kv.L0 valid')),
    'a flag is wrong',
  );
  t.same(await found(spoil('c03.kv.L0.id', set(120, 99))), [], 'an invalid slot means nothing');

  // The same entries in another place of the pool: first and last slots change places, with everything that belongs to them.
  const count = golden.tensors.get('c03.kv.L0.mask')?.data.length ?? 0;
  const moved: Change = (name, tensor) => {
    if (!name.startsWith('c03.kv.L0.')) return tensor;
    if (/\.(mask|id|is_pred)$/.test(name)) tensor.data.reverse();
    if (name.endsWith('.slots')) return { ...tensor, data: Int32Array.from(tensor.data, (slot) => count - 1 - slot) };
    return tensor;
  };
  const failures = await found(moved);
  t.ok(
    failures.length > 0 && failures.every((line) => /c03\.kv\.L0\.[kv]: relative RMS/.test(line)),
    'a reversed pool keeps its sets; only the order within an id differs',
  );
});

t.test('ids, prompts and counts are compared exactly', async (t) => {
  const golden = readGolden('franka_tiny');
  const other: Golden = { ...golden, calls: golden.calls.map((call) => (call.kind === 'kv' ? { ...call, kv_valid: 1 } : call)) };
  const comparison = new Comparison(1e-4);
  const policy = await openLocal({ checkpoint: golden.checkpoint, job: golden.job, promptCache: false }, { native: replayNative(golden) });
  await runGolden(policy, other, comparison);
  t.ok(comparison.failures.length === 3 && comparison.failures.every((line) => line.includes('cache')), comparison.failures.join('; '));
  const ids = new Map(golden.tensors);
  const recordedIds = golden.tensors.get('c00.token_ids_pos');
  ids.set('c00.token_ids_pos', {
    dtype: 'int32',
    shape: [1, 512],
    data: Int32Array.from(recordedIds?.data ?? [], (id, at) => (at === 3 ? id + 1 : id)),
  });
  const again = new Comparison(1e-4);
  const second = await openLocal({ checkpoint: golden.checkpoint, job: golden.job, promptCache: false }, { native: replayNative(golden) });
  await runGolden(second, { ...golden, tensors: ids }, again);
  t.match(again.failures, [/^c00\.token_ids_pos\[3\]/]);
});

t.test('parts', (t) => {
  t.equal(relativeRms([1, 2], [1, 2]), 0);
  t.equal(relativeRms([3, 0], [3, 4]), 0.8);
  t.equal(relativeRms([0.5, 0.5], [0, 0]), 0.5, 'all zero: absolute');
  t.ok(Number.isNaN(relativeRms([Number.NaN], [1])));
  t.equal(kindOf('c03.video.s12.out'), 'video.s*.out');
  t.equal(kindOf('c03.kv.L29.k'), 'kv.L*.k');
  t.end();
});
