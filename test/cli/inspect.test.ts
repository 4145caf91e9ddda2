/** `premotor inspect` and its arithmetic, checked against the published figures of the released model. */
import t, { type Test } from 'tap';
import { writeSafetensors } from '../../src/checkpoint/writer.js';
import {
  activeWeights,
  cacheBytes,
  cycleCost,
  cyclePasses,
  dimensionsOf,
  geometryOf,
  largestLayerBytes,
  type MemoryNeed,
  memoryNeeds,
  passFlops,
} from '../../src/cli/cost.js';
import { runCli } from '../../src/cli/main.js';
import { scale } from '../../src/cli/measure.js';
import type { Policy } from '../../src/policy/contract.js';
import { fakeContext, fakeNative, fakePolicy, inspection, newCalls, releasedJob, smallJob, transformerConfig } from './fakes.js';

const released = { ...transformerConfig, num_attention_heads: 24, attention_head_dim: 128, ffn_dim: 14336, num_layers: 30, text_dim: 4096 };
const robotwin = {
  env_type: 'robotwin_tshape',
  obs_cam_keys: ['a', 'b', 'c'],
  height: 256,
  width: 320,
  frame_chunk_size: 2,
  action_per_frame: 16,
  attn_window: 72,
  num_inference_steps: 25,
  action_num_inference_steps: 50,
};
const near = (t: Test, found: number, expected: number, share: number, name: string): void => {
  t.ok(Math.abs(found / expected - 1) <= share, `${name}: ${found} is within ${share * 100} % of ${expected}`);
};

t.test('tokens and cache of the published jobs', async (t) => {
  t.same(geometryOf(await releasedJob(robotwin)), { videoTokens: 240, actionTokens: 32, capacity: 9792, headroom: 784, rows: 2 });
  const libero = { obs_cam_keys: ['a', 'b'], height: 128, width: 128, frame_chunk_size: 4, action_per_frame: 4, attn_window: 30 };
  t.match(geometryOf(await releasedJob(libero)), { capacity: 2160 });
  const franka = { obs_cam_keys: ['a', 'b', 'c'], height: 224, width: 320, frame_chunk_size: 4, action_per_frame: 20, attn_window: 30 };
  t.match(geometryOf(await releasedJob(franka)), { capacity: 13800 });
  t.match(geometryOf(await releasedJob({ ...libero, guidance_scale: 1 })), { rows: 1 });
});

t.test('memory and arithmetic of the released size are the published ones', async (t) => {
  const dims = dimensionsOf(released);
  if (dims === undefined) throw new Error('no dimensions');
  near(t, cacheBytes(dims, 9792, 'bf16') / 2 ** 30, 3.36, 0.002, 'RoboTwin cache GiB');
  near(t, cacheBytes(dims, 13800, 'bf16') / 2 ** 30, 4.74, 0.002, 'Franka cache GiB');
  t.equal(cacheBytes(dims, 9792, 'f32'), 2 * cacheBytes(dims, 9792, 'bf16'));
  t.equal(cacheBytes(dims, 9792, 'int8') / cacheBytes(dims, 9792, 'bf16'), (128 + 4) / 256, 'a scale for each head of 128');
  near(t, activeWeights(dims), 4.34e9, 0.002, 'active weights');
  near(t, passFlops(dims, 'video', 240, 9792), 3.02e12, 0.01, 'video pass');
  near(t, passFlops(dims, 'action', 32, 9792), 0.4e12, 0.01, 'action pass');
  const cost = cycleCost(dims, await releasedJob({ ...robotwin, num_inference_steps: 24 }));
  const orin = cost.devices.find(({ name }) => name.includes('Orin'));
  near(t, orin?.videoPassMs ?? 0, 202, 0.01, 'guided video pass on AGX Orin');
  near(t, orin?.actionPassMs ?? 0, 72, 0.02, 'action pass on AGX Orin');
});

t.test('passes of a cycle follow the job', async (t) => {
  const counts = async (changes: Record<string, unknown>) =>
    cyclePasses(await releasedJob(changes)).map(({ name, count, rows }) => [name, count, rows]);
  t.same(await counts({}), [
    ['denoise video', 6, 2],
    ['denoise actions', 10, 1],
    ['commit video', 1, 2],
    ['commit actions', 1, 2],
  ]);
  t.same(await counts({ infer_mode: 'i2va', action_guidance_scale: 2, video_exec_step: 3 }), [
    ['denoise video', 3, 2],
    ['denoise actions', 10, 2],
    ['keep actions', 1, 2],
  ]);
  t.same(
    (await counts({ guidance_scale: 1 })).map(([, , rows]) => rows),
    [1, 1, 1, 1],
  );
});

t.test('memory counts used tensors at the width they are held in', async (t) => {
  const dims = dimensionsOf(transformerConfig);
  const geometry = geometryOf(await releasedJob({}));
  const [f32, bf16] = memoryNeeds(inspection(), dims, geometry);
  // Matrices 48x48 F32, 48x96 BF16, 10x10 F16 (widened in f32), vector of 48 in float32; the unused convolution is not counted.
  t.equal(f32?.transformer, 48 * 48 * 4 + 48 * 4 + 48 * 96 * 2 + 100 * 4);
  t.equal(bf16?.transformer, 48 * 48 * 2 + 48 * 4 + 48 * 96 * 2 + 100 * 2);
  t.equal(f32?.vae, 4 * 12 * 27 * 4 + 4 * 4);
  // Two rows of guidance, 46 entries in panels of 32, two layers and heads, 24 values a key and 32 a padded value.
  t.equal(f32?.cache, 2 * 64 * 2 * 2 * (24 + 32) * 4);
  t.equal(f32?.total, (f32?.transformer ?? 0) + (f32?.vae ?? 0) + (f32?.cache ?? 0));
  t.equal(bf16?.textEncoderPeak, (32 * 32 + 32 * 8) * 4);
  t.equal(largestLayerBytes([]), 0);
  t.equal(memoryNeeds(inspection(), dims, undefined)[0]?.cache, undefined);
});

async function run(argv: string[], found = inspection(), parts = {}): Promise<{ code: number; out: string; err: string }> {
  const { out, err, context } = fakeContext({ loadNative: fakeNative({ inspect: async () => found }), ...parts });
  const code = await runCli(['inspect', 'some/dir', ...argv], context);
  return { code, out: out.text, err: err.text };
}

t.test('the text names components, unused tensors, memory and cost', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob()) });
  const plain = await run([]);
  t.equal(plain.code, 0);
  t.match(plain.out, /transformer: 5 tensors \(3 F32, 1 BF16, 1 F16\)/);
  t.match(plain.out, /unused {3}1 tensors, .*\n +patch_embedding\.weight \[48, 48, 1, 2, 2\]/);
  t.match(plain.out, /give --job FILE/);
  t.match(plain.out, /no problems found/);
  t.notMatch(plain.out, /a\.bias/);
  const full = await run(['--job', `${dir}/job.json`, '--tensors']);
  t.match(full.out, /KV cache: 20 \+ 26 \(for asynchronous predictions\) entries a layer, 2 guidance rows$/m);
  t.match(full.out, /^ +f32 \S+ \S+, bf16 \S+ \S+, int8 \S+ \S+$/m);
  t.match(full.out, /calculated from assumed achievable rates, not measured/);
  t.match(full.out, /Jetson Thor/);
  t.match(full.out, /a\.bias +F32/);
});

t.test('JSON holds everything', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob({ guidence_scale: 3, guidance_scale: 5 })) });
  const { out } = await run(['--json', '--job', `${dir}/job.json`]);
  const document = JSON.parse(out) as Record<string, unknown>;
  t.match(document, {
    components: [
      { name: 'transformer', tensorCount: 5, unused: ['patch_embedding.weight'], dtypes: { F32: 3 } },
      { name: 'vae' },
      { name: 'text_encoder' },
    ],
    geometry: { capacity: 20 },
    memoryBytes: [
      { precision: 'f32', kvCache: 'f32' },
      { precision: 'bf16', kvCache: 'bf16' },
      { precision: 'int8', kvCache: 'bf16' },
      { precision: 'int4', kvCache: 'bf16' },
    ],
    cost: { passes: [{ name: 'denoise video' }] },
    measured: null,
    problems: [],
  });
  t.notHas(document, { components: [{ tensors: [] }] });
  const narrow = JSON.parse((await run(['--json', '--job', `${dir}/job.json`, '--kv-cache', 'int8'])).out) as typeof document;
  const cachesOf = ({ memoryBytes }: typeof document) => (memoryBytes as MemoryNeed[]).map(({ cache }) => cache ?? 0);
  const [wide, half] = cachesOf(document) as [number, number];
  // Heads of 24: keys and values are padded to 24 + 32 values, and each has a scale.
  t.same(cachesOf(document), [wide, half, half, half]);
  t.same(cachesOf(narrow), Array(4).fill((half * (24 + 32 + 8)) / (2 * (24 + 32))));
});

t.test('a checkpoint that does not fit itself or the job is a problem', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob({ action_dim: 31, norm_stat: { q01: Array(31).fill(0), q99: Array(31).fill(1) } })) });
  const found = inspection({ vae: { config: { z_dim: 16 } }, text_encoder: { config: { d_model: 64 } } });
  const { code, out } = await run(['--job', `${dir}/job.json`], found);
  t.equal(code, 1);
  t.match(out, /3 problems/);
  t.match(out, /CHECKPOINT_CONFIG \(transformer\): transformer in_channels is 48 but vae z_dim is 16/);
  t.match(out, /text_dim is 32 but text_encoder d_model is 64/);
  t.match(out, /JOB_INVALID .*action_dim is 30 but the job's action_dim is 31/);
});

t.test('a folder without a text encoder or a config is described, not a crash', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob()) });
  const found = inspection({ text_encoder: { present: false, config: null, tensors: [] }, transformer: { config: null } });
  const { code, out } = await run(['--job', `${dir}/job.json`], found);
  t.equal(code, 0);
  t.match(out, /text_encoder: not there/);
  t.equal(dimensionsOf({ ...transformerConfig, architecture: 'mot' }), undefined);
  t.equal(dimensionsOf({ ...transformerConfig, num_layers: 'many' }), undefined);
});

t.test('--measure times one short prediction and scales it', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob({ video_exec_step: 2, infer_mode: 'i2va' })) });
  const calls = newCalls();
  const { code, out } = await run(['--job', `${dir}/job.json`, '--measure', '--json'], inspection(), { loadPolicy: fakePolicy(calls) });
  t.equal(code, 0);
  t.match(calls.load[0], { job: { video_exec_step: -1, infer_mode: 'server' }, precision: 'f32', kvCache: undefined });
  const options = ['--measure', '--precision', 'int8', '--kv-cache', 'int8', '--allow-uncertified'];
  const narrow = await run(['--job', `${dir}/job.json`, ...options], inspection(), { loadPolicy: fakePolicy(newCalls()) });
  t.match(narrow.out, /measured here \(fake, int8-kv-int8, 1 threads/);
  t.match(calls.predictions[0], { videoSteps: 1, actionSteps: 1 });
  t.equal(calls.predictions[0]?.obs?.length, 2);
  t.equal(calls.closed, 1);
  t.match(JSON.parse(out), { measured: { backend: 'fake', kvCache: 'f32', videoPassMs: 10, actionPassMs: 2 } });
  const dims = dimensionsOf(transformerConfig);
  if (dims === undefined) throw new Error('no dimensions');
  const job = await releasedJob({ guidance_scale: 1 });
  const timing = { encodeMs: 1, videoMs: 20, actionMs: 10, commitMs: 0, imagineMs: 0, totalMs: 31, videoPasses: 2, actionPasses: 1 };
  const measured = scale(timing, { backend: 'b', precision: 'f32', threads: 1 } as Policy['info'], job, dims);
  const grown = (modality: 'video' | 'action', tokens: number, from: number): number =>
    passFlops(dims, modality, tokens, 20) / passFlops(dims, modality, tokens, from);
  t.ok(Math.abs(measured.cycleMs - (7 * 10 * grown('video', 4, 4) + 11 * 10 * grown('action', 6, 10))) < 1e-9);
});

t.test('--values reads the weights and reports what is no number', async (t) => {
  const dir = t.testdir();
  const write = (name: string, value: number) =>
    writeSafetensors(`${dir}/${name}.safetensors`, [{ name: 'x.weight', dtype: 'F32', shape: [2, 2] }], (_, __, target) =>
      target.set(new Uint8Array(Float32Array.of(1, value, 3, 4).buffer)),
    );
  await write('transformer', Number.NaN);
  await write('vae', 2);
  const files = (name: string) => ({ files: [{ path: `${dir}/${name}.safetensors`, bytes: 16 }] });
  const absent = { present: false, files: [] };
  const found = inspection({ transformer: files('transformer'), vae: files('vae'), text_encoder: absent });
  const { code, out } = await run(['--values'], found);
  t.equal(code, 1);
  t.match(out, /1 problem\n {2}CHECKPOINT_VALUE \(transformer\): .*transformer\.safetensors, tensor x\.weight has 1 values that are infinite or NaN/);
  t.equal((await run([], found)).code, 0, 'without --values only headers are read');
});
