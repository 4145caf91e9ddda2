/**
 * Every recorded case through the public contract and the real engine: each traced tensor within the limit, token ids equal, KV-cache sets equal
 * by id. The limits are those of test/goldens/README.md: 1e-4 separates deliberate mistakes (7e-3 and more) from float32 noise (a few 1e-6) with
 * room, 2e-2 is what bfloat16 rounding alone does. Prints the worst relative RMS of each kind of tensor.
 */
import { join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import {
  type Chunk,
  type CommitOptions,
  type Frame,
  type LoadPolicyOptions,
  loadPolicy,
  type Policy,
  type PredictOptions,
  PremotorError,
  type Progress,
  type ResetOptions,
  type Trace,
  type TraceTensor,
} from '../../src/index.js';
import { loadNative } from '../../src/native.js';
import { goldens } from '../support/fixtures.js';
import { Comparison, type Golden, type GoldenCall, momentsOf, readGolden, runGolden } from '../support/golden.js';

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

/** id and is_pred mean something only where the mask is 1: elsewhere an earlier episode may have left its own. */
function meaningful(trace: Trace, name: string, data: TraceTensor['data']): TraceTensor['data'] {
  if (!/^kv\.L\d+\.(id|is_pred)$/.test(name)) return data;
  const mask = trace.get(name.replace(/(id|is_pred)$/, 'mask'))?.data ?? [];
  return Int32Array.from(data, (value, slot) => (mask[slot] === 1 ? value : -1));
}

/** Bits of every tensor, so that equality is exact, zeros' signs included. */
function bitsOf(traces: ReadonlyMap<string, Trace>): Map<string, string> {
  const bits = new Map<string, string>();
  for (const [prefix, trace] of traces) {
    for (const [name, { dtype, shape, data: all }] of trace) {
      const data = meaningful(trace, name, all);
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

t.test("the first traced prediction of an episode shows the prompt's tokens and embeddings", { skip }, async (t) => {
  const golden = readGolden('franka_tiny');
  const policy = await open(golden);
  t.teardown(() => policy.close());
  const [reset, infer] = golden.calls as [GoldenCall, GoldenCall];
  const { trace: expected } = await policy.reset({ prompt: reset.prompt ?? '', trace: true });
  const obs = momentsOf(golden, infer)[0] as Frame[];
  const [first, second] = [await policy.predict({ obs, trace: true }), await policy.predict({ trace: true })];
  for (const [name, tensor] of expected ?? []) t.same(first.trace?.get(name), tensor, name);
  t.ok(expected?.has('token_ids_neg'));
  t.notOk(second.trace?.has('token_ids_pos'));
});

/** The policy, but every prediction is first begun with very many steps and aborted in the middle. */
function nervous(policy: Policy, aborts: string[]): Policy {
  const predict = async (options: PredictOptions = {}): Promise<Chunk> => {
    for (const stage of ['video', 'action'] as const) {
      const controller = new AbortController();
      const onProgress = (progress: Progress): void => {
        if (progress.stage === stage && progress.done >= 2) controller.abort();
      };
      const steps = stage === 'video' ? { videoSteps: 1000 } : { actionSteps: 1000 };
      const begun = policy.predict({ ...(options.obs === undefined ? {} : { obs: options.obs }), ...steps, signal: controller.signal, onProgress });
      aborts.push(
        await begun.then(
          () => 'not aborted',
          (error: PremotorError) => error.code,
        ),
      );
    }
    return policy.predict(options);
  };
  const reset = (options: ResetOptions) => policy.reset(options);
  const commit = (options: CommitOptions) => policy.commit(options);
  const decode = (latents: Float32Array) => policy.decode(latents);
  return {
    ...policy,
    reset,
    commit,
    decode,
    predict,
    get cache() {
      return policy.cache;
    },
  } as unknown as Policy;
}

t.test('aborted predictions leave nothing behind, evictions included', { skip }, async (t) => {
  const golden = readGolden('robotwin_tiny');
  for (const isolate of [false, true]) {
    const policy = await open(golden, { isolate });
    t.teardown(() => policy.close());
    const comparison = new Comparison(F32_LIMIT);
    const aborts: string[] = [];
    await runGolden(nervous(policy, aborts), golden, comparison);
    t.equal(aborts.length, 12);
    t.ok(
      aborts.every((code) => code === 'ABORTED'),
      aborts.join(),
    );
    t.same(comparison.failures, []);
  }
});

t.test('an aborted predictNext keeps its commit', { skip }, async (t) => {
  const golden = readGolden('nocfg_partial');
  const policy = await open(golden);
  t.teardown(() => policy.close());
  const [first, commit] = golden.calls.slice(1) as [GoldenCall, GoldenCall];
  const obs = momentsOf(golden, first)[0] as Frame[];
  const [seen, executed] = [momentsOf(golden, commit), golden.tensors.get(`${commit.prefix}.state`)?.data as Float32Array];
  const run = async (step: () => Promise<unknown>): Promise<Chunk> => {
    await policy.reset({ prompt: 'push' });
    await policy.predict({ obs, seed: 1 });
    await step();
    return policy.predict({ seed: 2 });
  };
  const plain = await run(() => policy.commit({ obs: seen, actions: executed }));
  const interrupted = await run(async () => {
    const controller = new AbortController();
    const onProgress = ({ stage, done }: Progress): void => {
      if (stage === 'video' && done >= 2) controller.abort();
    };
    const next = policy.predictNext({ obs: seen, executed, executing: executed, actionSteps: 1000, signal: controller.signal, onProgress });
    t.equal(
      await next.then(
        () => 'not aborted',
        (error: PremotorError) => error.code,
      ),
      'ABORTED',
    );
    t.match(policy.cache, { committed: 28, predicted: 0 });
  });
  t.same(interrupted.actions, plain.actions);
  const grounded = await run(() => policy.predictNext({ obs: seen, executed, executing: executed, seed: 3 }));
  t.same(grounded.actions, plain.actions, 'a whole predictNext leaves only its commit too');
});

t.test('a commit tells of its pictures as they are encoded', { skip }, async (t) => {
  const golden = readGolden('nocfg_partial');
  const policy = await open(golden);
  t.teardown(() => policy.close());
  const [first, commit] = golden.calls.slice(1) as [GoldenCall, GoldenCall];
  await policy.reset({ prompt: 'push' });
  const heard: Progress[] = [];
  const onProgress = (progress: Progress): void => void heard.push(progress);
  await policy.predict({ obs: momentsOf(golden, first)[0] as Frame[], onProgress });
  const moments = momentsOf(golden, commit);
  const cameras = policy.job.obs_cam_keys.length;
  const encoded = () => heard.filter(({ stage }) => stage === 'encode').map(({ done, total }) => `${done}/${total}`);
  t.same(
    encoded(),
    Array.from({ length: cameras }, (_, camera) => `${camera + 1}/${cameras}`),
    'one picture of each camera',
  );
  heard.length = 0;
  await policy.commit({ obs: moments, actions: golden.tensors.get(`${commit.prefix}.state`)?.data as Float32Array, onProgress });
  // Four pictures are one latent frame.
  const steps = (cameras * moments.length) / 4;
  t.same(
    encoded(),
    Array.from({ length: steps }, (_, step) => `${4 * (step + 1)}/${4 * steps}`),
    'and four at a time after that',
  );
  t.equal(heard.at(-1)?.stage, 'commit');
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
