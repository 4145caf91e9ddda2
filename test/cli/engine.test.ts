/** The command line and untrained checkpoints with the real engine: sizes of every kind open, compute values of order one, and cost what is said. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { type UntrainedOptions, writeUntrainedCheckpoint } from '../../src/checkpoint/untrained.js';
import { dimensionsOf, geometryOf, weightBytes, wholeCacheBytes } from '../../src/cli/cost.js';
import { runCli } from '../../src/cli/main.js';
import { loadNative } from '../../src/native.js';
import { loadPolicy } from '../../src/policy/load.js';
import { defaultKvCache, KV_CACHES, PRECISIONS } from '../../src/policy/precision.js';
import { fakeContext, smallJob } from './fakes.js';

const rms = (values: Float32Array): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

const noisePicture = (camera: string) => {
  const data = Uint8Array.from({ length: 40 * 24 * 3 }, (_, index) => (Math.imul(index + 1, 2654435761) >>> 24) & 0xff);
  return { camera, width: 40, height: 24, data, capturedAtNs: 0n };
};

const sizes: Record<string, UntrainedOptions> = {
  tiny: { seed: 1 },
  small: { seed: 2, size: 'small', dtype: 'bf16', vestigial: true },
  odd: {
    seed: 3,
    shards: 2,
    overrides: {
      transformer: { num_attention_heads: 3, attention_head_dim: 26, num_layers: 3, ffn_dim: 70, text_dim: 24, freq_dim: 30 },
      vae: { base_dim: 6, decoder_base_dim: 4 },
      textEncoder: { d_kv: 6, num_heads: 3, d_ff: 20, num_layers: 1 },
    },
  },
};

/** Values of order one, so that an untrained model exercises the arithmetic as a trained one does. */
function isOfOrderOne(t: Test, values: Float32Array, name: string): void {
  const size = rms(values);
  t.ok(size > 0.2 && size < 20, `${name} have a root mean square of ${size}`);
}

for (const [name, options] of Object.entries(sizes)) {
  for (const precision of PRECISIONS) {
    t.test(`${name} at ${precision}: predictions are of order one, memory is as counted`, async (t) => {
      const dir = t.testdir();
      await writeUntrainedCheckpoint(dir, options);
      const policy = await loadPolicy({ checkpoint: dir, job: smallJob(), precision, allowUncertified: true, threads: 1, promptCache: false });
      t.teardown(() => policy.close());
      await policy.reset({ prompt: 'Press the red button.' });
      const obs = policy.job.obs_cam_keys.map(noisePicture);
      const chunk = await policy.predict({ obs, seed: 9 });
      isOfOrderOne(t, chunk.latents, 'latents');
      isOfOrderOne(t, chunk.actions.subarray(3), 'actions');
      const { video } = await policy.decode(chunk.latents);
      const clamped = video.filter((value) => value === 0 || value === 1).length / video.length;
      t.ok(clamped < 0.5, `${(clamped * 100).toFixed(0)} % of the decoded values are clamped`);
      const dims = dimensionsOf(JSON.parse(readFileSync(join(dir, 'transformer', 'config.json'), 'utf8')) as Record<string, unknown>);
      if (dims === undefined) throw new Error('no dimensions');
      const geometry = geometryOf(policy.job);
      t.equal(policy.cache.capacity, geometry.capacity);
      t.equal(policy.info.kvCache, defaultKvCache(precision));
      t.equal(policy.info.cacheBytes, wholeCacheBytes(dims, geometry, policy.info.kvCache));
      const { components } = await loadNative().inspect(dir);
      t.same(
        components.flatMap(({ problems }) => problems),
        [],
      );
      const counted = components.filter(({ name }) => name !== 'text_encoder').reduce((sum, { tensors }) => sum + weightBytes(tensors, precision), 0);
      // The engine keeps small tables of its own, which show most in tiny models.
      t.ok(Math.abs(policy.info.weightBytes / counted - 1) < 0.02, `counted ${counted}, engine ${policy.info.weightBytes}`);
    });
  }
}

for (const [name, options] of Object.entries(sizes)) {
  t.test(`${name}: another KV cache takes the memory that is counted, and gives nearly the same`, async (t) => {
    const dir = t.testdir();
    await writeUntrainedCheckpoint(dir, options);
    const dims = dimensionsOf(JSON.parse(readFileSync(join(dir, 'transformer', 'config.json'), 'utf8')) as Record<string, unknown>);
    if (dims === undefined) throw new Error('no dimensions');
    const chunks: Float32Array[] = [];
    for (const kvCache of KV_CACHES) {
      const common = { checkpoint: dir, job: smallJob(), allowUncertified: true, threads: 1, promptCache: false } as const;
      const policy = await loadPolicy({ ...common, precision: 'int8', kvCache });
      t.equal(policy.info.kvCache, kvCache);
      t.equal(policy.info.cacheBytes, wholeCacheBytes(dims, geometryOf(policy.job), kvCache), kvCache);
      await policy.reset({ prompt: 'Press the red button.' });
      const { latents } = await policy.predict({ obs: policy.job.obs_cam_keys.map(noisePicture), seed: 9 });
      chunks.push(latents.slice());
      await policy.close();
    }
    const [f32, ...others] = chunks as [Float32Array, ...Float32Array[]];
    for (const [index, found] of others.entries()) {
      const error = rms(found.map((value, at) => value - (f32[at] ?? 0))) / rms(f32);
      t.ok(error > 0 && error < 0.05, `${KV_CACHES[index + 1]}: ${error}`);
    }
  });
}

t.test('infer and inspect end to end', async (t) => {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob({ prompt: 'Press the red button.' })) });
  await writeUntrainedCheckpoint(join(dir, 'ckpt'), { vestigial: true });
  const { width, height, data } = noisePicture('cam');
  await sharp(data, { raw: { width, height, channels: 3 } })
    .png()
    .toFile(join(dir, 'a.png'));
  const picture = join(dir, 'a.png');
  const job = ['--job', join(dir, 'job.json')];
  const infer = async (out: string, more: string[]): Promise<string> => {
    const { context, err } = fakeContext({ loadPolicy });
    const images = ['--image', `cam_high=${picture}`, `cam_wrist=${picture}`];
    const code = await runCli(['infer', '--checkpoint', join(dir, 'ckpt'), ...job, ...images, '--out', join(dir, out), ...more], context);
    t.equal(code, 0, err.text);
    return readFileSync(join(dir, out, 'actions.csv'), 'utf8');
  };
  const first = await infer('one', ['--seed', '4']);
  t.equal(await infer('two', ['--seed', '4', '--isolate']), first, 'the same seed in another process gives the same actions');
  t.not(await infer('three', ['--seed', '5']), first, 'another seed gives others');
  const twice = await infer('four', ['--seed', '4', '--chunks', '2']);
  t.equal(twice.trimEnd().split('\n').length, 13);
  t.ok(twice.startsWith(first.trimEnd()), 'the first of two chunks is the same chunk');
  const { context, out } = fakeContext({ loadPolicy, loadNative });
  t.equal(await runCli(['inspect', join(dir, 'ckpt'), ...job, '--measure', '--values', '--json'], context), 0, out.text);
  const report = JSON.parse(out.text) as { components: { unused: string[] }[]; measured: { cycleMs: number } };
  t.ok(report.components[0]?.unused.includes('patch_embedding.weight'));
  t.ok(report.measured.cycleMs > 0);
});
