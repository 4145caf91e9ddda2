/**
 * Every recorded case through the public contract and the real engine: each traced tensor within the limit, token ids equal, KV-cache sets equal by id.
 * The limits are those of test/goldens/README.md: 1e-4 separates deliberate mistakes (7e-3 and more) from float32 noise (a few 1e-6) with room, 2e-2 is
 * what bfloat16 rounding alone does. Prints the worst relative RMS of each kind of tensor.
 */
import { join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { loadPolicy, type LoadPolicyOptions, type Policy, PremotorError, type Trace } from '../../src/index.js';
import { loadNative } from '../../src/native.js';
import { goldens } from '../support/fixtures.js';
import { Comparison, type Golden, readGolden, runGolden } from '../support/golden.js';

const F32_LIMIT = 1e-4;
const BF16_LIMIT = 2e-2;

/** Why the engine cannot run here, or false. */
function skipReason(): string | false {
  try {
    loadNative();
    return false;
  } catch (error) {
    if (error instanceof PremotorError && error.code === 'NATIVE_MISSING') return `THE ENGINE IS NOT TESTED: ${error.message}`;
    throw error;
  }
}
const skip = skipReason();

async function open(golden: Golden, options: Partial<LoadPolicyOptions> = {}): Promise<Policy> {
  return loadPolicy({ checkpoint: golden.checkpoint, job: golden.job, promptCache: false, threads: 2, ...options });
}

async function checkCase(t: Test, golden: Golden, limit: number, options: Partial<LoadPolicyOptions> = {}): Promise<void> {
  const policy = await open(golden, options);
  t.teardown(() => policy.close());
  const comparison = new Comparison(limit);
  await runGolden(policy, golden, comparison);
  for (const line of comparison.report()) t.comment(line);
  for (const failure of comparison.failures.slice(0, 20)) t.fail(failure);
  t.equal(comparison.failures.length, 0, `${golden.name}: ${comparison.compared} comparisons, relative RMS <= ${limit}`);
  t.same(policy.info.warnings, []);
}

for (const name of ['franka_tiny', 'robotwin_tiny', 'nocfg_partial', 'i2va_tiny']) {
  t.test(name, { skip }, (t) => checkCase(t, readGolden(name), F32_LIMIT));
}

t.test('bf16, as deployed', { skip }, (t) => checkCase(t, readGolden('bf16'), BF16_LIMIT, { precision: 'bf16' }));

t.test('bf16, timesteps and action positions not rounded', { skip }, (t) => {
  const golden = readGolden('bf16', 'trace_nocast');
  return checkCase(t, golden, BF16_LIMIT, { precision: 'bf16', job: { ...golden.job, bf16_input_cast: false } });
});

t.test('the deployed rounding matters: the other trace is not met', { skip }, async (t) => {
  const golden = readGolden('bf16', 'trace_nocast');
  const policy = await open(golden, { precision: 'bf16' });
  t.teardown(() => policy.close());
  const comparison = new Comparison(BF16_LIMIT);
  await runGolden(policy, golden, comparison);
  t.ok(comparison.failures.length > 0);
});

/** Bits of every tensor, so that equality is exact, zeros' signs included. */
function bitsOf(traces: ReadonlyMap<string, Trace>): Map<string, string> {
  const bits = new Map<string, string>();
  for (const [prefix, trace] of traces) {
    for (const [name, { dtype, shape, data }] of trace) {
      const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');
      bits.set(`${prefix}.${name}`, `${dtype} ${shape.join('x')} ${bytes}`);
    }
  }
  return bits;
}

t.test('the same bits: again, after a reset, and in a process of its own', { skip }, async (t) => {
  const golden = readGolden('nocfg_partial');
  const [local, isolated] = [await open(golden), await open(golden, { isolate: true })];
  t.teardown(() => Promise.all([local.close(), isolated.close()]));
  t.same({ ...isolated.info }, { ...local.info });
  const runs: Map<string, string>[] = [];
  for (const policy of [local, local, isolated]) runs.push(bitsOf(await runGolden(policy, golden, new Comparison(F32_LIMIT))));
  const [first, ...others] = runs;
  for (const other of others) {
    t.same([...other.keys()].sort(), [...(first?.keys() ?? [])].sort());
    const different = [...(first ?? [])].filter(([name, bits]) => other.get(name) !== bits).map(([name]) => name);
    // Encoder tensors are traced by the first prediction of each episode, so the names agree and all must be equal.
    t.same(different, []);
  }
  t.ok((first?.size ?? 0) > 300);
});

t.test('seeded noise: equal seeds give equal bits, others do not, and it is what trace shows', { skip }, async (t) => {
  const golden = readGolden('nocfg_partial');
  const policy = await open(golden);
  t.teardown(() => policy.close());
  const [picture] = (await picturesOf(golden)) as [Uint8Array];
  const obs = [{ camera: 'cam_high', width: 96, height: 64, data: picture, capturedAtNs: 0n }];
  const run = async (seed: number, noise = {}) => {
    await policy.reset({ prompt: 'push' });
    return policy.predict({ obs, seed, trace: true, ...noise });
  };
  const [one, two, three] = [await run(5), await run(5), await run(6)];
  t.same(one.actions, two.actions);
  t.notSame(one.actions, three.actions);
  const noiseOf = (name: string): Float32Array => one.trace?.get(name)?.data as Float32Array;
  const injected = await run(99, { noise: { video: noiseOf('noise.video'), action: noiseOf('noise.action') } });
  t.same(injected.actions, one.actions, 'the traced noise, injected, gives the same chunk');
});

t.test("i2va's input pictures are those of the trace", async (t) => {
  const golden = readGolden('i2va_tiny');
  const call = golden.calls.find(({ kind }) => kind === 'infer');
  const cameras = Object.entries(call?.images ?? {});
  t.equal(cameras.length, 2);
  for (const [camera, name] of cameras) {
    const { data, info } = await sharp(join(goldens, 'i2va_tiny', 'input', `${camera}.png`))
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const recorded = golden.tensors.get(name);
    t.same([1, info.height, info.width, 3], recorded?.shape, camera);
    t.ok(data.equals(recorded?.data as Uint8Array), camera);
  }
});

async function picturesOf(golden: Golden): Promise<Uint8Array[]> {
  const call = golden.calls.find(({ kind }) => kind === 'infer');
  return Object.values(call?.images ?? {}).map((name) => golden.tensors.get(name)?.data as Uint8Array);
}
